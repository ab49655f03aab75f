//! `/api/atoll/v1/dr`: what would be lost if a region burned now, and what to do about it.

use std::collections::{BTreeMap, BTreeSet};

use ground::supervise::at_length;
use http::{Response, StatusCode};
use rules::ledger::records::{Look, ManifestRecord, RecordError, decode, key};
use rules::members::disaster::{Content, Fate, Scene};
use rules::words::digest::Digest;
use rules::words::moment::Timestamp;
use rules::words::names::{NodeId, ProjectName};
use serde_json::{Value, json};

use super::Atoll;
use super::holdings::kept_by_all;
use super::status::show_majority;
use crate::http::answer::json_answer;
use crate::http::{Code, Failure, Payload};

/// The number of manifests that are read at a time.
const PAGE: usize = 500;

/// When the newest manifest of a project was pushed: of all, and of those whose blobs are all
/// elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Newest {
    of_all: Option<Timestamp>,
    elsewhere: Option<Timestamp>,
}

impl Newest {
    fn take(&mut self, pushed: Timestamp, is_elsewhere: bool) {
        self.of_all = self.of_all.max(Some(pushed));
        if is_elsewhere {
            self.elsewhere = self.elsewhere.max(Some(pushed));
        }
    }
}

impl Atoll {
    /// Says of each region what the mesh would be without it.
    pub(super) async fn show_dr(&self) -> Result<Response<Payload>, Failure> {
        let Some(ledger) = self.records.ledger() else {
            return Err(Failure::new(
                Code::Unsupported,
                "an edge does not know this; ask a replica",
            ));
        };
        let (projects, freshness) = self
            .door
            .read_at_length(|records| {
                let mut projects = Vec::new();
                // what a proxy project has cached is its upstream's
                for one in records.projects()?.into_iter().filter(|one| one.upstream.is_none()) {
                    let links = records.scan(&key::links_of(&one.name), None, usize::MAX)?;
                    let blobs = links.iter().filter_map(|(place, _)| key::digest_of(place));
                    projects.push(Content {
                        name: one.name,
                        durability: one.durability,
                        primary: one.primary,
                        blobs: blobs.collect(),
                    });
                }
                Ok::<_, RecordError>(projects)
            })
            .await?;
        let wanted: BTreeSet<Digest> =
            projects.iter().flat_map(|one| &one.blobs).copied().collect();
        let holdings = kept_by_all(&self.neighbours, &self.store, wanted).await?;
        let nodes = self.neighbours.nodes();
        let live: BTreeSet<NodeId> =
            self.neighbours.alive().into_iter().map(|one| one.id).collect();
        let voters = ledger.status().voters;
        let (nodes, voters, live) = (&nodes, &voters, &live);
        let (projects, holdings) = (&projects, &holdings);
        let scene = Scene { nodes, voters, live, projects, holdings };
        let (fates, short, missing) = at_length(|| (scene.fates(), scene.short(), scene.missing()));
        let mut regions = Vec::new();
        for fate in &fates {
            let newest = at_length(|| self.newest(fate))?;
            regions.push(show(fate, &newest));
        }
        let kept = at_length(|| scene.kept());
        let mut each = Vec::new();
        for (project, kept) in projects.iter().zip(&kept) {
            let newest = at_length(|| self.newest_of(&project.name, &kept.alone))?;
            let place = self.neighbours.nodes().into_iter().find(|one| one.id == project.primary);
            each.push(json!({
                "name": project.name.as_str(),
                "durability": project.durability,
                "primary": self.neighbours.name_of(project.primary),
                "primary_region": place.map(|one| one.region.to_string()),
                "blobs": project.blobs.len(),
                "copies": kept.copies,
                "short_blobs": short.get(&project.name).copied().unwrap_or(0),
                "missing_blobs": missing.get(&project.name).copied().unwrap_or(0),
                "newest_push": newest.of_all.map(|at| at.to_string()),
                "newest_push_in_two_regions": newest.elsewhere.map(|at| at.to_string()),
            }));
        }
        let counts = |of: &BTreeMap<ProjectName, usize>| {
            of.iter().map(|(name, count)| (name.to_string(), *count)).collect::<BTreeMap<_, _>>()
        };
        let silent: Vec<String> =
            scene.silent().into_iter().map(|id| self.neighbours.name_of(id)).collect();
        let majority = self.neighbours.majority();
        let answer = json!({
            "seen_from": self.neighbours.name_of(self.neighbours.me),
            "majority": show_majority(&majority),
            "is_fresh": freshness == registry::view::Freshness::Fresh,
            "is_safe": fates.iter().all(Fate::is_harmless) && fates.len() > 1,
            "regions": regions,
            "projects": each,
            "short_blobs": counts(&short),
            "missing_blobs": counts(&missing),
            "silent": silent,
            "advice": advice(&fates, &short, &missing, (&silent, majority.is_lost())),
        });
        Ok(json_answer(StatusCode::OK, &answer))
    }

    /// Of the projects that would lose something: how old what remains would be.
    fn newest(&self, fate: &Fate) -> Result<BTreeMap<ProjectName, Newest>, RecordError> {
        let mut all = BTreeMap::new();
        for (project, lost) in &fate.lost {
            all.insert(project.clone(), self.newest_of(project, lost)?);
        }
        Ok(all)
    }

    /// When the newest manifest of a project was pushed, and the newest that has none of these blobs.
    fn newest_of(
        &self,
        project: &ProjectName,
        without: &BTreeSet<Digest>,
    ) -> Result<Newest, RecordError> {
        let view = self.records.view()?;
        let (mut newest, mut after) = (Newest::default(), None::<Vec<u8>>);
        loop {
            let some = view.scan(&key::manifests_of(project), after.as_deref(), PAGE)?;
            let Some((last, _)) = some.last() else { return Ok(newest) };
            after = Some(last.clone());
            for (_, record) in some {
                let record: ManifestRecord = decode(&record)?;
                // an index is whole where its images are
                if record.blobs.is_empty() {
                    continue;
                }
                let here = record.blobs.iter().any(|digest| without.contains(digest));
                newest.take(record.pushed, !here);
            }
        }
    }
}

fn show(fate: &Fate, newest: &BTreeMap<ProjectName, Newest>) -> Value {
    let lost: BTreeMap<String, Value> = fate
        .lost
        .iter()
        .map(|(name, blobs)| {
            let newest = newest.get(name).copied().unwrap_or_default();
            let shown = json!({
                "blobs": blobs.len(),
                "newest_push": newest.of_all.map(|at| at.to_string()),
                "newest_push_elsewhere": newest.elsewhere.map(|at| at.to_string()),
            });
            (name.to_string(), shown)
        })
        .collect();
    json!({
        "region": fate.region.as_str(),
        "replicas_up": fate.replicas,
        "lost": lost,
        "primaries": fate.primaries,
        "voters_elsewhere": {"up": fate.voters.0, "of": fate.voters.1},
        "writes_go_on": fate.can_write(),
    })
}

/// What to do, the most urgent first.
fn advice(
    fates: &[Fate],
    short: &BTreeMap<ProjectName, usize>,
    missing: &BTreeMap<ProjectName, usize>,
    (silent, no_majority): (&[String], bool),
) -> Vec<String> {
    let names = |of: &mut dyn Iterator<Item = &ProjectName>| {
        let names: BTreeSet<&str> = of.map(ProjectName::as_str).collect();
        names.into_iter().collect::<Vec<_>>().join(" ")
    };
    let mut all = Vec::new();
    if !silent.is_empty() {
        // without a majority nothing can be removed
        let or_remove = match no_majority {
            true => "",
            false => ", or remove what is gone for good (`atoll remove`)",
        };
        all.push(format!("start what does not answer{or_remove}: {}", silent.join(", ")));
    }
    if !missing.is_empty() {
        all.push(format!(
            "no replica that answers has blobs of {}: start the others, or push these images again",
            names(&mut missing.keys())
        ));
    }
    if !short.is_empty() {
        all.push(format!(
            "copies are missing: `atoll repair {}` makes them now, if enough regions are up; what a node that is down keeps counts until it has been away for repair.after, or is removed",
            names(&mut short.keys())
        ));
    }
    let alone: BTreeSet<&ProjectName> = fates
        .iter()
        .flat_map(|fate| fate.lost.keys())
        .filter(|name| !short.contains_key(*name))
        .collect();
    if fates.len() < 2 {
        all.push("all replicas are in one region: let one join in another (`atoll invite`)".into());
    } else if !alone.is_empty() {
        // their durability is 1: nothing is missing, and yet it would be lost
        all.push(format!(
            "blobs are in one region only, as their projects say: `atoll project set PROJECT durability=2` and `atoll repair PROJECT` for {}",
            names(&mut alone.into_iter())
        ));
    }
    for fate in fates.iter().filter(|fate| !fate.can_write()) {
        all.push(format!(
            "without {} {} of {} voters would be up, and nothing could be written: let replicas of other regions join or start",
            fate.region, fate.voters.0, fate.voters.1
        ));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_before_what_could_be_better() {
        let project: ProjectName = "shop".parse().unwrap();
        let fate = |region: &str, lost: bool, voters| Fate {
            region: region.parse().unwrap(),
            replicas: 1,
            lost: lost
                .then(|| (project.clone(), [Digest::sha256(b"a")].into()))
                .into_iter()
                .collect(),
            primaries: 0,
            voters,
        };
        let none = BTreeMap::new();
        let fine = [fate("east", false, (2, 3)), fate("west", false, (2, 3))];
        assert!(advice(&fine, &none, &none, (&[], false)).is_empty());
        let poor = [fate("east", true, (1, 3)), fate("west", false, (2, 3))];
        let said = advice(&poor, &none, &none, (&[], false));
        assert!(said[0].contains("durability=2` and `atoll repair PROJECT` for shop"), "{said:?}");
        assert!(said[1].contains("without east 1 of 3 voters"), "{said:?}");
        let short = [(project.clone(), 1)].into();
        let said = advice(&poor, &short, &none, (&["three".into()], false));
        assert!(said[0].contains("`atoll remove`"), "{said:?}");
        let said = advice(&poor, &short, &none, (&["three".into()], true));
        assert!(!said[0].contains("`atoll remove`"), "nothing can be removed: {said:?}");
        assert!(said[0].contains("three") && said[1].contains("atoll repair shop"), "{said:?}");
        assert_eq!(said.len(), 3, "one advice for one thing: {said:?}");
        let said = advice(&fine[..1], &none, &none, (&[], false));
        assert!(said[0].contains("one region"), "{said:?}");
    }

    #[test]
    fn what_is_newest_elsewhere_may_be_older() {
        let mut newest = Newest::default();
        newest.take(Timestamp(5), true);
        newest.take(Timestamp(9), false);
        let becomes = Newest { of_all: Some(Timestamp(9)), elsewhere: Some(Timestamp(5)) };
        assert_eq!(newest, becomes);
    }
}
