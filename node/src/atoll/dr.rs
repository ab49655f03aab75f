//! `/api/atoll/v1/dr`: what would be lost if a region burned now, and what to do about it.

use std::collections::{BTreeMap, BTreeSet};

use ground::supervise::at_length;
use http::{Response, StatusCode};
use rules::ledger::records::{Look, ManifestRecord, RecordError, decode, key};
use rules::members::disaster::{Content, Fate, Scene};
use rules::members::shortage::{Unable, told, unable};
use rules::words::digest::Digest;
use rules::words::moment::Timestamp;
use rules::words::names::{NodeId, ProjectName};
use serde_json::{Value, json};

use super::Atoll;
use super::holdings::kept_by_all;
use super::replication::named;
use super::status::show_majority;
use crate::http::answer::json_answer;
use crate::http::{Code, Failure, Payload};

/// The maximum number of a project's images that are named.
const NAMED: usize = 20;
/// The maximum number of them in a sentence.
const IN_A_SENTENCE: usize = 5;
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
        let (draining, troubled) = (self.neighbours.draining(), self.neighbours.conditions.all());
        let unable = &unable(nodes, live, &draining, &troubled);
        let scene = Scene { nodes, voters, live, unable, projects, holdings };
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
                "missing_blobs": missing.get(&project.name).map_or(0, BTreeSet::len),
                "newest_push": newest.of_all.map(|at| at.to_string()),
                "newest_push_in_two_regions": newest.elsewhere.map(|at| at.to_string()),
            }));
        }
        let counts = |of: &BTreeMap<ProjectName, usize>| {
            of.iter().map(|(name, count)| (name.to_string(), *count)).collect::<BTreeMap<_, _>>()
        };
        let mut lost = BTreeMap::new();
        for (project, blobs) in &missing {
            lost.insert(project.clone(), at_length(|| self.images_with(project, blobs))?);
        }
        let no_copies: Vec<(String, Unable)> = unable
            .iter()
            .filter(|(_, why)| **why != Unable::Down)
            .map(|(id, why)| (self.neighbours.name_of(*id), *why))
            .collect();
        let missing_blobs: BTreeMap<_, _> =
            missing.iter().map(|(name, blobs)| (name.to_string(), blobs.len())).collect();
        let silent: Vec<String> =
            scene.silent().into_iter().map(|id| self.neighbours.name_of(id)).collect();
        let majority = self.neighbours.majority();
        let answer = json!({
            "seen_from": self.neighbours.name_of(self.neighbours.me),
            "majority": show_majority(&majority),
            "is_fresh": freshness == registry::view::Freshness::Fresh,
            "is_safe": fates.iter().all(Fate::is_harmless) && fates.len() > 1 && missing.is_empty(),
            "regions": regions,
            "projects": each,
            "short_blobs": counts(&short),
            "missing_blobs": missing_blobs,
            "missing_images": lost.iter().map(|(name, images)| (name.to_string(), images))
                .collect::<BTreeMap<_, _>>(),
            "silent": silent,
            "advice": advice(&fates, &short, &lost, (&silent, majority.is_lost()), &no_copies),
        });
        Ok(json_answer(StatusCode::OK, &answer))
    }

    /// The images of a project that need one of these blobs, by their tags if they have some: the first
    /// few.
    fn images_with(
        &self,
        project: &ProjectName,
        blobs: &BTreeSet<Digest>,
    ) -> Result<Vec<String>, RecordError> {
        let view = self.records.view()?;
        let (mut found, mut after) = (Vec::new(), None::<Vec<u8>>);
        loop {
            let some = view.scan(&key::manifests_of(project), after.as_deref(), PAGE)?;
            let Some((last, _)) = some.last() else { return Ok(found) };
            after = Some(last.clone());
            for (place, record) in some {
                let record: ManifestRecord = decode(&record)?;
                if !record.blobs.iter().any(|digest| blobs.contains(digest)) {
                    continue;
                }
                let Some((repository, digest)) = named(&place) else { continue };
                let tags = key::all_named(&repository, &digest);
                let tag = view.scan(&tags, None, 1)?;
                let tag = tag.first().and_then(|(tag, _)| tag.get(tags.len()..));
                found.push(match tag {
                    Some(tag) => format!("{repository}:{}", String::from_utf8_lossy(tag)),
                    None => format!("{repository}@{digest}"),
                });
                if found.len() == NAMED {
                    return Ok(found);
                }
            }
        }
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
        // pushes to these, which want copies in so many regions
        "pushes_stop": fate.refused.iter().map(|(name, wanted)| (name.to_string(), *wanted))
            .collect::<BTreeMap<_, _>>(),
        "regions_that_take_copies": fate.able,
    })
}

/// What to do, the most urgent first. `lost` are the images of each project that need a blob which no
/// replica that answers has.
fn advice(
    fates: &[Fate],
    short: &BTreeMap<ProjectName, usize>,
    lost: &BTreeMap<ProjectName, Vec<String>>,
    (silent, no_majority): (&[String], bool),
    no_copies: &[(String, Unable)],
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
    if no_majority {
        let then = "nothing else helps before a majority of the voters is back: until then no repair, drain, removal or push is taken; ask again then";
        all.push(then.to_owned());
        return all;
    }
    for (project, images) in lost {
        let which = match images.len() {
            // the trash refers to blobs, too
            0 => "which no image needs that is not deleted".to_owned(),
            count => {
                let more = if count > IN_A_SENTENCE { ", ..." } else { "" };
                let first = &images[..count.min(IN_A_SENTENCE)];
                format!("which these images need: {}{more}", first.join(", "))
            }
        };
        let remedy = match silent.is_empty() {
            true => "push all their layers again (docs: copies are kept)",
            false => "start the others, or push all their layers again",
        };
        all.push(format!(
            "no replica that answers has a sound copy of some blobs of {project}, {which}: {remedy}"
        ));
    }
    if !no_copies.is_empty() {
        all.push(format!("copies do not go to all replicas: {}", told(no_copies)));
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
    for fate in fates.iter().filter(|fate| fate.can_write() && !fate.refused.is_empty()) {
        let wanted = |(name, regions): (&ProjectName, &usize)| format!("{name} ({regions})");
        let wanted: Vec<String> = fate.refused.iter().map(wanted).collect();
        all.push(format!(
            "without {} pushes to these projects would be refused, because replicas of too few regions ({}) would take the copies that they want: {}. Let replicas of another region join (`atoll invite`), or set these projects' durability to {}",
            fate.region,
            fate.able,
            wanted.join(", "),
            fate.able.max(1)
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
            able: 2,
            refused: BTreeMap::new(),
        };
        let (none, no_images) = (BTreeMap::new(), BTreeMap::new());
        let advice = |fates: &[Fate], short: &BTreeMap<_, _>, lost, silent| {
            advice(fates, short, lost, silent, &[])
        };
        let fine = [fate("east", false, (2, 3)), fate("west", false, (2, 3))];
        assert!(advice(&fine, &none, &no_images, (&[], false)).is_empty());
        let poor = [fate("east", true, (1, 3)), fate("west", false, (2, 3))];
        let said = advice(&poor, &none, &no_images, (&[], false));
        assert!(said[0].contains("durability=2` and `atoll repair PROJECT` for shop"), "{said:?}");
        assert!(said[1].contains("without east 1 of 3 voters"), "{said:?}");
        let (short, three) = ([(project.clone(), 1)].into(), ["three".to_owned()]);
        let said = advice(&poor, &short, &no_images, (&three, false));
        assert!(said[0].contains("`atoll remove`"), "{said:?}");
        let said = advice(&poor, &short, &no_images, (&three, true));
        assert!(!said[0].contains("`atoll remove`"), "nothing can be removed: {said:?}");
        assert!(said[0].contains("three"), "{said:?}");
        assert!(said.len() == 2 && said[1].contains("no repair"), "nothing else helps: {said:?}");
        let said = advice(&poor, &short, &no_images, (&[], false));
        assert!(said[0].contains("atoll repair shop"), "{said:?}");
        assert_eq!(said.len(), 2, "one advice for one thing: {said:?}");
        let said = advice(&fine[..1], &none, &no_images, (&[], false));
        assert!(said[0].contains("one region"), "{said:?}");
        let images: Vec<String> = (0..6).map(|n| format!("shop/app:{n}")).collect();
        let lost = [(project.clone(), images)].into();
        let said = advice(&fine, &none, &lost, (&[], false));
        let says = said[0].contains("shop/app:0, ") && said[0].contains("push all their layers");
        assert!(says && !said[0].contains("app:5"), "{said:?}");
    }

    #[test]
    fn whoever_could_not_be_pushed_to_is_told_with_who_takes_no_copies() {
        let stops = Fate {
            region: "east".parse().unwrap(),
            replicas: 1,
            lost: BTreeMap::new(),
            primaries: 0,
            voters: (2, 3),
            able: 1,
            refused: [("shop".parse().unwrap(), 2)].into(),
        };
        let goes =
            Fate { region: "west".parse().unwrap(), refused: BTreeMap::new(), ..stops.clone() };
        let drains = [("three".to_owned(), Unable::Drains)];
        let none = BTreeMap::new();
        let said = advice(&[stops, goes], &none, &BTreeMap::new(), (&[], false), &drains);
        assert!(said[0].contains("three drains"), "{said:?}");
        assert!(said[1].contains("pushes to these projects would be refused"), "{said:?}");
        assert!(said[1].contains("durability to 1") && said.len() == 2, "{said:?}");
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
