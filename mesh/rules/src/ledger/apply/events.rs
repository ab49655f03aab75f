//! Events: what an applied command is called, and the tables that it is kept in.

mod details;

use super::{EMPTIED_AT_ONCE, collecting, directory, labels, scanners, scanning, signatures};
use crate::ledger::collecting::CollectChange;
use crate::ledger::command::{Command, NewManifest, Outcome};
use crate::ledger::directory::DirectoryChange;
use crate::ledger::draining::DrainChange;
use crate::ledger::drills::DrillChange;
use crate::ledger::events::{
    Actor, DETAILS, Event, EventCounts, EventId, EventTable, EventsChange, LookForEvents, MAX_ROWS,
    MAX_TEXT, MOST_BYTES, key,
};
use crate::ledger::jobs::{JobChange, LookForJobs, RunEnd, bounded};
use crate::ledger::labels::{LabelChange, LookForLabels};
use crate::ledger::level::Level;
use crate::ledger::people::{LookForPeople, PeopleChange, robot_login};
use crate::ledger::policies::PolicyChange;
use crate::ledger::provider_tokens::ProviderTokenChange;
use crate::ledger::quotas::QuotaChange;
use crate::ledger::records::{
    Look, NodeRecord, RecordError, WriteRecords, decode, encode, key as records_key,
};
use crate::ledger::scanning::ScannerChange;
use crate::ledger::trust::TrustChange;
use crate::policies::quota;
use crate::words::digest::Digest;
use crate::words::moment::Timestamp;
use crate::words::names::{
    NodeId, ProjectId, ProjectName, Reference, RepositoryName, RobotId, UserId,
};

/// What a command does, in words. It is made before the command is applied, because afterwards what
/// was deleted has no name any more.
pub(super) struct Described {
    operation: &'static str,
    resource_type: &'static str,
    resource: String,
    project: Option<ProjectName>,
    /// Why it is a failure, though the command takes effect: a job that has failed.
    failed: Option<String>,
    /// What it changes: what was, and what is now.
    details: Option<String>,
}

/// The artifacts that a project does not retain, by the first digits of their digests, as many as
/// fit into an event. The log of the run has whole names.
fn retired(repository: &RepositoryName, digests: &[Digest]) -> String {
    let mut what = format!("{repository}: {} artifacts that are not retained", digests.len());
    for (n, digest) in digests.iter().enumerate() {
        let one = format!("{} {}", if n == 0 { ":" } else { "," }, digest.short());
        let more = format!(", and {} more", digests.len() - n);
        if what.len() + one.len() + more.len() > MAX_TEXT {
            what.push_str(&more);
            break;
        }
        what.push_str(&one);
    }
    what
}

/// What a command does, if that is of interest to people.
pub(super) fn describe<R: WriteRecords>(
    records: &R,
    command: &Command,
) -> Result<Option<Described>, RecordError> {
    let mut described = in_words(records, command)?;
    if let Some(described) = &mut described
        && records.level()? >= Level::DETAILS
    {
        described.details = details::of(records, command)?;
    }
    Ok(described)
}

fn in_words<R: WriteRecords>(
    records: &R,
    command: &Command,
) -> Result<Option<Described>, RecordError> {
    let of = |operation, resource_type, resource: String, project: Option<ProjectName>| {
        Ok(Some(Described {
            operation,
            resource_type,
            resource,
            project,
            failed: None,
            details: None,
        }))
    };
    let in_project = |operation, resource_type, name: &ProjectName| {
        of(operation, resource_type, name.to_string(), Some(name.clone()))
    };
    if let Some(new) = command.new_manifest() {
        return of("create", "artifact", pushed(new), Some(new.repository.project()));
    }
    match command {
        Command::Invite { role, nodes, .. } => {
            of("create", "invitation", format!("{nodes} x {}", role.name()), None)
        }
        Command::Join { node, .. } => of("create", "node", node.name.to_string(), None),
        Command::RemoveNode { id } => of("delete", "node", node_name(records, *id)?, None),
        Command::RaiseLevel { level, .. } => of("update", "level", level.to_string(), None),
        Command::CreateProject(new) => in_project("create", "project", &new.name),
        Command::CreateOwnedProject { project, .. } => {
            in_project("create", "project", &project.name)
        }
        Command::CreateEquippedProject(new) => in_project("create", "project", &new.project.name),
        Command::Quota(change) => match &**change {
            QuotaChange::Set { project, .. } => match records.project_numbered(*project)? {
                Some(project) => in_project("update", "quota", &project.name),
                None => of("update", "quota", project.to_string(), None),
            },
            QuotaChange::Count { .. } => Ok(None),
        },
        Command::Drain(change) => {
            let operation = match change {
                DrainChange::Begin(_) => "drain",
                DrainChange::End(_) => "undrain",
            };
            of(operation, "node", node_name(records, change.node())?, None)
        }
        Command::Drill(DrillChange::Begin { region, time }) => {
            of("begin", "drill", format!("{region} for {} s", time.as_secs()), None)
        }
        Command::Drill(DrillChange::End) => of("stop", "drill", "the drill".into(), None),
        Command::Upkeep(run) => {
            let what = match &run.failed {
                Some(why) => format!("{}: {why}", run.kind.word()),
                None => format!("{}: {}", run.kind.word(), run.log),
            };
            of("run", "upkeep", what, None)
        }
        Command::Collect(CollectChange::Collect { digests, before })
            if records.level()? >= Level::UPKEEP =>
        {
            let (blobs, bytes) = collecting::due(records, digests, *before)?;
            let bytes = quota::bytes(bytes);
            of("delete", "blob", format!("{blobs} that nothing refers to, {bytes}"), None)
        }
        Command::ConfigureProject { name, .. } | Command::ForgetMetadata { name, .. } => {
            in_project("update", "project", name)
        }
        Command::DeleteProject { name, .. } => in_project("delete", "project", name),
        Command::AssignPrimary { project, node, .. } => {
            let to = node_name(records, *node)?;
            of("failover", "primary", format!("{project} to {to}"), Some(project.clone()))
        }
        Command::CreateUpstream { name, .. } => of("create", "registry", name.clone(), None),
        Command::ChangeUpstream { was, .. } => of("update", "registry", was.name.clone(), None),
        Command::DeleteUpstream { id } => {
            let upstream = records
                .record::<crate::ledger::records::UpstreamRecord>(&records_key::upstream(*id))?;
            of("delete", "registry", upstream.map_or(id.to_string(), |one| one.name), None)
        }
        Command::DeleteTag { repository, tag, .. } => {
            of("delete", "tag", format!("{repository}:{tag}"), Some(repository.project()))
        }
        Command::DeleteManifest { repository, digest, .. } => {
            of("delete", "artifact", format!("{repository}@{digest}"), Some(repository.project()))
        }
        Command::DeleteIf { repository, precondition, .. } => deleted(repository, &precondition.of)
            .map_or(Ok(None), |(kind, name)| of("delete", kind, name, Some(repository.project()))),
        Command::Policy { project, change, .. } => {
            let (operation, kind, what) = of_policy(change);
            of(operation, kind, format!("{project}{what}"), Some(project.clone()))
        }
        Command::Retire { repository, digests, .. } => {
            of("delete", "artifact", retired(repository, digests), Some(repository.project()))
        }
        Command::RetireSeen { repository, seen, .. } => {
            let digests: Vec<Digest> = seen.iter().map(|(digest, _)| *digest).collect();
            of("delete", "artifact", retired(repository, &digests), Some(repository.project()))
        }
        Command::Scan { change, .. } => match scanning::news(records, change)? {
            Some((operation, kind, what)) => of(operation, kind, what, Some(change.project())),
            None => Ok(None),
        },
        Command::Signatures { change, .. } => match signatures::news(change) {
            Some((operation, kind, what)) => of(operation, kind, what, Some(change.project())),
            None => Ok(None),
        },
        Command::Trash { change, .. } => {
            let (operation, kind, what) = change.news();
            of(operation, kind, what, Some(change.project()))
        }
        Command::Scanner(change) => match &**change {
            ScannerChange::Layers(_) => Ok(None),
            ScannerChange::Database { digest, .. } => {
                of("update", "scanner", format!("vulnerability database {digest}"), None)
            }
            ScannerChange::Allow(_) => of("update", "allowlist", "of the mesh".into(), None),
            ScannerChange::Registration(change) => {
                let name = scanners::name_of(records, change)?;
                of(change.operation(), "scanner", name, None)
            }
        },
        Command::AddTag { repository, tag, .. } => {
            of("create", "tag", format!("{repository}:{tag}"), Some(repository.project()))
        }
        Command::Leaving(change) => match change.removes() {
            Some(id) => of("delete", "node", node_name(records, id)?, None),
            None => Ok(None),
        },
        Command::Trust(change) => match &**change {
            TrustChange::Pin { .. } | TrustChange::Opens { .. } => Ok(None),
            TrustChange::Authority { after, .. } => {
                of("create", "authority", (after + 1).to_string(), None)
            }
            TrustChange::Tokens { after, .. } => {
                of("create", "token_key", (after + 1).to_string(), None)
            }
        },
        Command::People(change) => of_people(records, change),
        Command::Job(change) => of_job(records, change),
        Command::Label(change) => of_label(records, change),
        Command::Audited(inner) => in_words(records, inner.command.command()),
        Command::FormMesh { .. }
        | Command::MoveNode { .. }
        | Command::EmptyCache { .. }
        | Command::IndexTags { .. }
        | Command::Kept { .. }
        | Command::Sealing(_)
        | Command::PutManifest(_)
        | Command::PutManifestIf(..)
        | Command::PutChecked(_)
        | Command::Collect(_)
        | Command::Pulled(_)
        | Command::Events(_) => Ok(None),
    }
}

fn of_policy(change: &PolicyChange) -> (&'static str, &'static str, String) {
    match change {
        PolicyChange::AddImmutable(_) => ("create", "immutable_rule", String::new()),
        PolicyChange::SetImmutable(rule) => ("update", "immutable_rule", format!(": {}", rule.id)),
        PolicyChange::RemoveImmutable(id) => ("delete", "immutable_rule", format!(": {id}")),
        PolicyChange::SetRetention(Some(_)) => ("update", "retention", String::new()),
        PolicyChange::SetRetention(None) => ("delete", "retention", String::new()),
    }
}

fn pushed(new: &NewManifest) -> String {
    match new.tags.as_slice() {
        [] => format!("{}@{}", new.repository, new.digest),
        tags => {
            let tags: Vec<&str> = tags.iter().map(|tag| tag.as_str()).collect();
            format!("{}:{}", new.repository, tags.join(","))
        }
    }
}

fn deleted(repository: &RepositoryName, of: &Reference) -> Option<(&'static str, String)> {
    Some(match of {
        Reference::Tag(tag) => ("tag", format!("{repository}:{tag}")),
        Reference::Digest(digest) => ("artifact", format!("{repository}@{digest}")),
    })
}

fn node_name<R: WriteRecords>(records: &R, id: NodeId) -> Result<String, RecordError> {
    let node = records.record::<NodeRecord>(&records_key::node(id))?;
    Ok(node.map_or(id.to_string(), |node| node.name.to_string()))
}

fn user_name<R: WriteRecords>(records: &R, id: UserId) -> Result<String, RecordError> {
    Ok(records.account(id)?.map_or(id.0.to_string(), |account| account.name.to_string()))
}

fn of_people<R: WriteRecords>(
    records: &R,
    change: &PeopleChange,
) -> Result<Option<Described>, RecordError> {
    let of = |operation, resource_type, resource, project| {
        Ok(Some(Described {
            operation,
            resource_type,
            resource,
            project,
            failed: None,
            details: None,
        }))
    };
    let project = |id: ProjectId| records.project_numbered(id).map(|p| p.map(|p| p.name));
    let robot = |id: RobotId| -> Result<(String, Option<ProjectName>), RecordError> {
        Ok(match records.robot(id)? {
            Some(robot) => (robot.login(), robot.project.map(|(_, name)| name)),
            None => (id.0.to_string(), None),
        })
    };
    let member = |in_project: ProjectId, id| -> Result<String, RecordError> {
        let found = records.members(in_project)?.into_iter().find(|member| member.id == id);
        match found {
            Some(member) => user_name(records, member.user),
            None => directory::member(records, in_project, id)?
                .map_or(Ok("?".into()), |member| directory::name(records, member.group)),
        }
    };
    match change {
        PeopleChange::CreateUser { name, .. } => of("create", "user", name.to_string(), None),
        PeopleChange::ChangeUser { id, .. } => of("update", "user", user_name(records, *id)?, None),
        PeopleChange::SetPassword { id, .. } => {
            of("update", "password", user_name(records, *id)?, None)
        }
        PeopleChange::RecoverPassword { name, .. } => {
            of("update", "password", name.to_string(), None)
        }
        PeopleChange::DeleteUser { id } => of("delete", "user", user_name(records, *id)?, None),
        PeopleChange::AddMember { project: id, user, role } => {
            let name = format!("{} as {}", user_name(records, *user)?, role.name());
            of("create", "member", name, project(*id)?)
        }
        PeopleChange::ChangeMember { project: of_project, id, role } => {
            let name = format!("{} as {}", member(*of_project, *id)?, role.name());
            of("update", "member", name, project(*of_project)?)
        }
        PeopleChange::RemoveMember { project: of_project, id } => {
            of("delete", "member", member(*of_project, *id)?, project(*of_project)?)
        }
        PeopleChange::CreateRobot { name, project: id, .. } => {
            let project = id.map_or(Ok(None), project)?;
            of("create", "robot", robot_login(project.as_ref(), name), project)
        }
        PeopleChange::ChangeRobot { id, .. } | PeopleChange::SetRobotSecret { id, .. } => {
            let (name, project) = robot(*id)?;
            of("update", "robot", name, project)
        }
        PeopleChange::DeleteRobot { id } => {
            let (name, project) = robot(*id)?;
            of("delete", "robot", name, project)
        }
        PeopleChange::AddTrust { robot: id, terms, .. } => {
            let (name, project) = robot(*id)?;
            of("create", "trust", format!("{} for {name}", terms.issuer), project)
        }
        PeopleChange::RemoveTrust { robot: id, .. } => {
            let (name, project) = robot(*id)?;
            of("delete", "trust", format!("a rule for {name}"), project)
        }
        PeopleChange::Directory(change) => of_directory(records, change),
        PeopleChange::SetTrustKeys { .. } if records.level()? < Level::DISCOVERY => Ok(None),
        PeopleChange::SetTrustKeys { robot: id, .. } => {
            let (name, project) = robot(*id)?;
            of("update", "trust", format!("keys of a rule for {name}"), project)
        }
        PeopleChange::AddTokenKey { .. } => Ok(None),
        PeopleChange::ProviderToken(change) => of_provider_token(records, change),
    }
}

fn of_provider_token<R: WriteRecords>(
    records: &R,
    change: &ProviderTokenChange,
) -> Result<Option<Described>, RecordError> {
    let resource = match change {
        ProviderTokenChange::Keep { .. } | ProviderTokenChange::Claim { .. } => None,
        ProviderTokenChange::Settle { user, vouched, .. } => match vouched {
            Some(vouched) => directory::news(records, *user, vouched)?,
            None => None,
        },
        ProviderTokenChange::End { user, .. } => Some(format!(
            "{}: the OIDC provider asks for a new sign-in",
            user_name(records, *user)?
        )),
    };
    Ok(resource.map(|resource| Described {
        operation: "update",
        resource_type: "user",
        resource,
        project: None,
        failed: None,
        details: None,
    }))
}

fn of_directory<R: WriteRecords>(
    records: &R,
    change: &DirectoryChange,
) -> Result<Option<Described>, RecordError> {
    let of = |operation, resource_type, resource, project| {
        Ok(Some(Described {
            operation,
            resource_type,
            resource,
            project,
            failed: None,
            details: None,
        }))
    };
    match change {
        DirectoryChange::CreateGroup { name, .. } => of("create", "group", name.clone(), None),
        DirectoryChange::RenameGroup { id, name } => {
            let was = directory::name(records, *id)?;
            of("update", "group", format!("{was}: now {name}"), None)
        }
        DirectoryChange::DeleteGroup { id } => {
            of("delete", "group", directory::name(records, *id)?, None)
        }
        DirectoryChange::AddGroupMember { project, group, role } => {
            let name = format!("group {} as {}", directory::name(records, *group)?, role.name());
            let project = records.project_numbered(*project)?.map(|project| project.name);
            of("create", "member", name, project)
        }
        DirectoryChange::Enrol { name, .. } => of("create", "user", name.to_string(), None),
        DirectoryChange::Attest { user, vouched } => directory::news(records, *user, vouched)?
            .map_or(Ok(None), |news| of("update", "user", news, None)),
        DirectoryChange::Disown { user } => {
            let name = format!("{}: no provider vouches for them", user_name(records, *user)?);
            of("update", "user", name, None)
        }
        DirectoryChange::SetCliSecret { user, .. } => {
            of("update", "password", user_name(records, *user)?, None)
        }
        DirectoryChange::Configure { changed, .. } => {
            of("update", "configuration", changed.join(", "), None)
        }
    }
}

fn of_label<R: WriteRecords>(
    records: &R,
    change: &LabelChange,
) -> Result<Option<Described>, RecordError> {
    let of = |operation, resource, project| {
        let resource_type = "label";
        Ok(Some(Described {
            operation,
            resource_type,
            resource,
            project,
            failed: None,
            details: None,
        }))
    };
    let named = |project: Option<ProjectId>| {
        let project = project.map_or(Ok(None), |id| records.project_numbered(id))?;
        Ok::<_, RecordError>(project.map(|project| project.name))
    };
    match change {
        LabelChange::Create { project, terms } => {
            of("create", terms.name.clone(), named(*project)?)
        }
        LabelChange::Change { id, .. } | LabelChange::Delete { id } => {
            let project = records.label(*id)?.and_then(|label| label.project);
            let deletes = matches!(change, LabelChange::Delete { .. });
            let operation = if deletes { "delete" } else { "update" };
            of(operation, labels::name(records, *id)?, named(project)?)
        }
        LabelChange::Attach { repository, digest, id } => {
            let what = format!("{} on {repository}@{digest}", labels::name(records, *id)?);
            of("create", what, Some(repository.project()))
        }
        LabelChange::Detach { repository, digest, id } => {
            let what = format!("{} on {repository}@{digest}", labels::name(records, *id)?);
            of("delete", what, Some(repository.project()))
        }
    }
}

fn of_job<R: WriteRecords>(
    records: &R,
    change: &JobChange,
) -> Result<Option<Described>, RecordError> {
    let of = |operation, resource: String, project: &ProjectName, failed| {
        let (resource_type, project) = ("job", Some(project.clone()));
        Ok(Some(Described { operation, resource_type, resource, project, failed, details: None }))
    };
    let job = |id| -> Result<Option<(String, ProjectName)>, RecordError> {
        let job = records.job(id)?;
        Ok(job.map(|job| {
            let name = format!("{} {id}: {}", job.task.kind, job.task.subject);
            (name, job.task.project)
        }))
    };
    match change {
        JobChange::Ask { id, task } => {
            of("create", format!("{} {id}: {}", task.kind, task.subject), &task.project, None)
        }
        JobChange::Stop { id } | JobChange::Retry { id } => {
            let operation = if matches!(change, JobChange::Stop { .. }) { "stop" } else { "retry" };
            job(*id)?.map_or(Ok(None), |(name, project)| of(operation, name, &project, None))
        }
        JobChange::End { id, end, .. } => {
            let failed = match end {
                RunEnd::Failed(why) | RunEnd::Hopeless(why) => Some(why.clone()),
                RunEnd::Done(_) | RunEnd::Stopped(_) => None,
            };
            job(*id)?.map_or(Ok(None), |(name, project)| of("end", name, &project, failed))
        }
        JobChange::Schedule(schedule) => {
            of("create", format!("schedule {}", schedule.name), &schedule.task.project, None)
        }
        JobChange::Unschedule { project, name } => {
            of("delete", format!("schedule {name}"), project, None)
        }
        JobChange::Claim { .. } | JobChange::Sweep { .. } | JobChange::Fire { .. } => Ok(None),
    }
}

/// Records what a command has done, or why it was refused. What the mesh was refused by itself is
/// not recorded, nor what is continued or decided anew.
pub(super) fn record<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    by: Option<&Actor>,
    described: Described,
    outcome: &Outcome,
) -> Result<(), RecordError> {
    let refused = match outcome {
        Outcome::Done => described.failed,
        Outcome::Unfinished
        | Outcome::StaleEpoch { .. }
        | Outcome::Leaving(_)
        | Outcome::Collected => return Ok(()),
        _ if by.is_none() => return Ok(()),
        Outcome::NotFound => Some("it does not exist".into()),
        Outcome::Exists => Some("it exists already".into()),
        Outcome::PreconditionFailed => Some("the precondition does not hold".into()),
        Outcome::Refused(why) | Outcome::Immutable(why) | Outcome::OverQuota(why) => {
            Some(why.clone())
        }
    };
    if records.level()? < Level::EVENTS {
        return Ok(());
    }
    let event = Event {
        at,
        by: by.cloned().unwrap_or_else(Actor::mesh),
        operation: described.operation.into(),
        resource_type: described.resource_type.into(),
        resource: described.resource,
        project: described.project,
        refused,
        count: 1,
    };
    append(records, EventTable::Changes, event, described.details.as_deref())
}

/// Records that little is left of a project's quota.
pub(super) fn warn_of_quota<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    project: &ProjectName,
    warning: &str,
) -> Result<(), RecordError> {
    let event = Event {
        at,
        by: Actor::mesh(),
        operation: "warn".into(),
        resource_type: "quota".into(),
        resource: format!("{project}: {warning}"),
        project: Some(project.clone()),
        refused: None,
        count: 1,
    };
    append(records, EventTable::Changes, event, None)
}

/// A change that is no consequence of another command.
pub(super) fn change<R: WriteRecords>(
    records: &mut R,
    change: &EventsChange,
) -> Result<Outcome, RecordError> {
    match change {
        EventsChange::Counted(rows) => {
            for row in rows.iter().take(MAX_ROWS) {
                append(records, EventTable::Counted, row.clone(), None)?;
            }
            Ok(Outcome::Done)
        }
        EventsChange::Trim { before, keep } => {
            let mut left = EMPTIED_AT_ONCE;
            for table in [EventTable::Changes, EventTable::Counted] {
                left -= trim(records, table, *before, *keep, u64::MAX, left)?;
            }
            Ok(if left == 0 { Outcome::Unfinished } else { Outcome::Done })
        }
        EventsChange::Purge { events, before } => purge(records, events, *before),
    }
}

fn purge<R: WriteRecords>(
    records: &mut R,
    events: &[EventId],
    before: Timestamp,
) -> Result<Outcome, RecordError> {
    if records.level()? < Level::UPKEEP || events.len() > EMPTIED_AT_ONCE {
        return Ok(Outcome::Refused("too many events, or too early".into()));
    }
    let mut purged = false;
    for id in events {
        let place = key::event(*id);
        let Some(value) = records.get(&place)? else { continue };
        if decode::<Event>(&value)?.at < before {
            records.remove(&place)?;
            let mut counts = records.event_counts(id.0)?;
            counts.bytes = counts.bytes.saturating_sub(value.len() as u64);
            records.put(&key::counts(id.0), &encode(&counts)?)?;
            purged = true;
        }
    }
    for table in [EventTable::Changes, EventTable::Counted] {
        let counts = records.event_counts(table)?;
        let oldest = records.scan(&key::events(table), None, 1)?;
        let oldest = oldest.first().and_then(|(place, _)| key::number_of(place));
        let first = oldest.unwrap_or(counts.next);
        if first != counts.first {
            records.put(&key::counts(table), &encode(&EventCounts { first, ..counts })?)?;
        }
    }
    Ok(if purged { Outcome::Done } else { Outcome::NotFound })
}

fn append<R: WriteRecords>(
    records: &mut R,
    table: EventTable,
    event: Event,
    details: Option<&str>,
) -> Result<(), RecordError> {
    // what separates them is in neither: a name is one line
    let mut resource = bounded(&event.resource, 2 * MAX_TEXT);
    if let Some(details) = details {
        resource =
            format!("{}{DETAILS}{}", bounded(&resource, MAX_TEXT), bounded(details, MAX_TEXT));
    }
    let event = Event {
        by: Actor { name: bounded(&event.by.name, MAX_TEXT), ..event.by },
        operation: bounded(&event.operation, MAX_TEXT),
        resource_type: bounded(&event.resource_type, MAX_TEXT),
        resource,
        refused: event.refused.map(|why| bounded(&why, MAX_TEXT)),
        ..event
    };
    let mut counts = records.event_counts(table)?;
    let bytes = encode(&event)?;
    records.put(&key::event(EventId(table, counts.next)), &bytes)?;
    counts =
        EventCounts { next: counts.next + 1, bytes: counts.bytes + bytes.len() as u64, ..counts };
    records.put(&key::counts(table), &encode(&counts)?)?;
    // one comes, and at most two of the oldest go: none is much longer than the others
    let most = MOST_BYTES[usize::from(table == EventTable::Counted)];
    trim(records, table, Timestamp(0), u64::MAX, most, 2)?;
    Ok(())
}

/// Forgets up to `most` events, the oldest first: those from before `before`, those that are more
/// than `keep`, and those that take the table over `bytes`. Returns how many.
fn trim<R: WriteRecords>(
    records: &mut R,
    table: EventTable,
    before: Timestamp,
    keep: u64,
    bytes: u64,
    most: usize,
) -> Result<usize, RecordError> {
    let mut counts = records.event_counts(table)?;
    let mut gone = 0;
    while gone < most && counts.first < counts.next {
        let full = counts.next - counts.first > keep || counts.bytes > bytes;
        if !full && before == Timestamp(0) {
            break;
        }
        let place = key::event(EventId(table, counts.first));
        let Some(value) = records.get(&place)? else {
            // it was purged
            counts.first += 1;
            gone += 1;
            continue;
        };
        if !full && decode::<Event>(&value)?.at >= before {
            break;
        }
        records.remove(&place)?;
        counts.first += 1;
        counts.bytes = counts.bytes.saturating_sub(value.len() as u64);
        gone += 1;
    }
    if gone > 0 {
        records.put(&key::counts(table), &encode(&counts)?)?;
    }
    Ok(gone)
}

#[cfg(test)]
mod tests;
