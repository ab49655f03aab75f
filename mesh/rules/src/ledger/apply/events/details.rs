//! What a command changes, as people read it: what was, and what is now. Of secrets it is said that
//! they change, and nothing else.

use crate::ledger::command::Command;
use crate::ledger::directory::{DirectoryChange, LookForGroups};
use crate::ledger::events::MAX_TEXT;
use crate::ledger::jobs::bounded;
use crate::ledger::level::Level;
use crate::ledger::people::{Grant, LookForPeople, PeopleChange, Robot, RobotTerms, Space};
use crate::ledger::quotas::{LookForQuotas, QuotaChange};
use crate::ledger::records::{Look, Project, RecordError, WriteRecords};
use crate::ledger::scanning::{LookForScans, ScanChange, ScannerChange};
use crate::policies::quota::{Counted, Limits};
use crate::policies::vulnerabilities::Allowlist;
use crate::proxies::proxy::ProxyChange;
use crate::words::moment::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

/// The maximum length of one value, in characters: a long one must not hide the others.
const LONGEST: usize = 80;

/// The differences, one after the other.
#[derive(Default)]
struct Differences(Vec<String>);

impl Differences {
    fn compare<T: PartialEq + Display>(&mut self, name: &str, was: &T, is: &T) {
        if was != is {
            let shown = |value: &T| match value.to_string() {
                empty if empty.is_empty() => "(empty)".to_owned(),
                text => bounded(&text, LONGEST),
            };
            self.0.push(format!("{name}: {} -> {}", shown(was), shown(is)));
        }
    }

    /// What `None` stands for is not changed.
    fn compare_if<T: PartialEq + Display>(&mut self, name: &str, was: &T, is: Option<&T>) {
        if let Some(is) = is {
            self.compare(name, was, is);
        }
    }

    fn words(self) -> Option<String> {
        (!self.0.is_empty()).then(|| bounded(&self.0.join("; "), MAX_TEXT))
    }
}

/// What of it differs after `command`; `None` if there is nothing to compare.
pub(super) fn of<R: WriteRecords>(
    records: &R,
    command: &Command,
) -> Result<Option<String>, RecordError> {
    Ok(match command {
        Command::ConfigureProject { name, public, durability, proxy, metadata, .. } => {
            let Some(project) = records.project(name)? else { return Ok(None) };
            of_project(&project, *public, *durability, proxy, metadata)
        }
        Command::ForgetMetadata { name, key, .. } => {
            let project = records.project(name)?;
            let was = project.and_then(|mut project| project.metadata.remove(key));
            was.map(|was| format!("{key}: {} -> (none)", bounded(&was, LONGEST)))
        }
        Command::People(change) => of_people(records, change)?,
        Command::Quota(change) => of_quota(records, change)?,
        Command::Scanner(change) => match &**change {
            ScannerChange::Allow(list) if records.level()? >= Level::ALLOWED_IDS => {
                of_allowlist(&records.system_allowlist()?, list)
            }
            _ => None,
        },
        Command::Scan { change, .. } => match &**change {
            ScanChange::Allow { project, list } if records.level()? >= Level::ALLOWED_IDS => {
                let Some(project) = records.project(project)? else { return Ok(None) };
                of_allowlist(&records.allowlist(project.id)?, list)
            }
            _ => None,
        },
        Command::Audited(inner) => match inner.command.command() {
            // it has no other one inside
            Command::Audited(_) => None,
            command => of(records, command)?,
        },
        _ => None,
    })
}

fn of_project(
    project: &Project,
    public: Option<bool>,
    durability: Option<u32>,
    proxy: &ProxyChange,
    metadata: &BTreeMap<String, String>,
) -> Option<String> {
    let mut found = Differences::default();
    found.compare_if("public", &project.public, public.as_ref());
    found.compare_if("durability", &project.durability, durability.as_ref());
    let becomes = project.proxy.changed(proxy);
    let patterns = |all: &[String]| all.join(",");
    found.compare("allow", &patterns(&project.proxy.allow), &patterns(&becomes.allow));
    found.compare("deny", &patterns(&project.proxy.deny), &patterns(&becomes.deny));
    let (was, is) = (project.proxy.local_on_not_found, becomes.local_on_not_found);
    found.compare("local_on_not_found", &was, &is);
    for (name, is) in metadata {
        let was = project.metadata.get(name).cloned().unwrap_or_default();
        found.compare(name, &was, is);
    }
    found.words()
}

fn of_quota<R: WriteRecords>(
    records: &R,
    change: &QuotaChange,
) -> Result<Option<String>, RecordError> {
    let QuotaChange::Set { project, limits } = change else { return Ok(None) };
    let Some(project) = records.project_numbered(*project)? else { return Ok(None) };
    let was = records.limits(&project.name)?.map(|record| record.limits).unwrap_or_default();
    let mut found = Differences::default();
    for resource in Counted::ALL {
        let shown = |limits: &Limits| {
            limits.of(resource).map_or("no limit".to_owned(), |limit| resource.shown(limit))
        };
        found.compare(resource.word(), &shown(&was), &shown(limits));
    }
    Ok(found.words())
}

/// Which ids are let pass from now on, which are not any more, and until when the list counts.
fn of_allowlist(was: &Allowlist, is: &Allowlist) -> Option<String> {
    let mut found = Differences::default();
    let only = |of: &Allowlist, but: &Allowlist| -> Vec<String> {
        let but: BTreeSet<&String> = but.ids.iter().collect();
        of.ids.iter().filter(|id| !but.contains(id)).cloned().collect()
    };
    for (word, ids) in [("allows", only(is, was)), ("allows no longer", only(was, is))] {
        if let Some(ids) = listed(&ids) {
            found.0.push(format!("{word} {ids}"));
        }
    }
    let end = |list: &Allowlist| list.expires.map_or("never".to_owned(), |at| at.to_string());
    found.compare("expires", &end(was), &end(is));
    found.words()
}

/// As many ids as leave room for the others, and how many more there are.
fn listed(ids: &[String]) -> Option<String> {
    let mut text = String::new();
    for (at, id) in ids.iter().enumerate() {
        if text.len() + id.len() > MAX_TEXT / 3 {
            return Some(format!("{text} and {} more", ids.len() - at));
        }
        let comma = if at == 0 { "" } else { ", " };
        text = format!("{text}{comma}{id}");
    }
    (!text.is_empty()).then_some(text)
}

fn of_people<R: WriteRecords>(
    records: &R,
    change: &PeopleChange,
) -> Result<Option<String>, RecordError> {
    let mut found = Differences::default();
    match change {
        PeopleChange::ChangeUser { id, email, real_name, comment, administrator, disabled } => {
            let Some(was) = records.account(*id)? else { return Ok(None) };
            found.compare_if("administrator", &was.administrator, administrator.as_ref());
            found.compare_if("disabled", &was.disabled, disabled.as_ref());
            found.compare_if("email", &was.email, email.as_ref());
            found.compare_if("real name", &was.real_name, real_name.as_ref());
            found.compare_if("comment", &was.comment, comment.as_ref());
        }
        PeopleChange::ChangeMember { project, id, role } => {
            let users = records.members(*project)?.into_iter().map(|one| (one.id, one.role));
            let groups = records.group_members(*project)?.into_iter().map(|one| (one.id, one.role));
            let was = users.chain(groups).find(|(member, _)| member == id);
            let Some((_, was)) = was else { return Ok(None) };
            found.compare("role", &was.name(), &role.name());
        }
        PeopleChange::ChangeRobot { id, terms } => {
            let Some(was) = records.robot(*id)? else { return Ok(None) };
            of_robot(records, &mut found, &was, terms)?;
        }
        PeopleChange::Directory(DirectoryChange::Configure { values, changed, .. }) => {
            let was = records.configurations()?;
            for name in changed {
                match values.get(name) {
                    Some(is) => {
                        let default = || "(default)".to_owned();
                        let was = was.values.get(name).cloned().unwrap_or_else(default);
                        found.compare(name, &was, is);
                    }
                    // its values are sealed
                    None => found.0.push(format!("{name}: changed")),
                }
            }
        }
        _ => {}
    }
    Ok(found.words())
}

fn of_robot<R: WriteRecords>(
    records: &R,
    found: &mut Differences,
    was: &Robot,
    is: &RobotTerms,
) -> Result<(), RecordError> {
    let end = |at: &Option<Timestamp>| at.map_or("never".to_owned(), |at| at.to_string());
    found.compare("disabled", &was.disabled, &is.disabled);
    found.compare("expires", &end(&was.expires), &end(&is.expires));
    let (before, after) = (granted(records, &was.grants)?, granted(records, &is.grants)?);
    let only = |all: &[String], others: &[String]| -> Vec<String> {
        all.iter().filter(|one| !others.contains(one)).cloned().collect()
    };
    for (word, which) in [("may", only(&after, &before)), ("may not", only(&before, &after))] {
        if !which.is_empty() {
            found.0.push(format!("{word} {}", which.join(", ")));
        }
    }
    found.compare("description", &was.description, &is.description);
    Ok(())
}

fn granted<R: WriteRecords>(records: &R, grants: &[Grant]) -> Result<Vec<String>, RecordError> {
    let mut all = Vec::new();
    for grant in grants {
        let place = match grant.space {
            Space::System => "the system".to_owned(),
            Space::AllProjects => "all projects".to_owned(),
            Space::Project(id) => {
                let project = records.project_numbered(id)?;
                project.map_or_else(|| format!("#{id}"), |project| project.name.to_string())
            }
        };
        all.extend(grant.permissions.iter().map(|one| format!("{one} in {place}")));
    }
    Ok(all)
}
