//! Which blobs are lost: no replica has a sound copy. Repairs find them, and so does a scrub of some
//! node; both are followed until somebody pushes them again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ground::supervise::at_length;
use parking_lot::Mutex;
use rules::ledger::events::{Actor, MESH};
use rules::ledger::jobs::LookForJobs;
use rules::ledger::records::{Look, Project, RecordError, key};
use rules::words::digest::Digest;
use rules::words::names::ProjectName;
use tracing::warn;

use super::{KIND, Repairs};
use crate::jobs::queue::Jobs;

/// The time between two looks at what is lost.
pub(super) const FOLLOW: Duration = Duration::from_secs(5);

/// The maximum number of blobs of one project that are followed one by one.
const FOLLOWED: usize = 1000;
/// The maximum number of blobs that are asked for at a time.
const AT_A_TIME: usize = 200;

/// The lost blobs of one project.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lost {
    named: BTreeSet<Digest>,
    /// How many there are in addition. These count until the next repair.
    more: u64,
}

impl Lost {
    /// Another blob is lost.
    pub(super) fn add(&mut self, digest: Digest) {
        if self.named.len() < FOLLOWED {
            self.named.insert(digest);
        } else if !self.named.contains(&digest) {
            self.more += 1;
        }
    }

    /// Their number.
    pub(super) fn count(&self) -> u64 {
        self.named.len() as u64 + self.more
    }
}

/// The lost blobs of the projects whose primary this node is.
#[derive(Default)]
pub(super) struct Losses(Mutex<Followed>);

#[derive(Default)]
struct Followed {
    of: BTreeMap<ProjectName, Lost>,
    /// The last blob that was asked for, so that all have their turn.
    last: Option<Digest>,
    /// Lost blobs of other nodes' projects, or of none. They are looked for once.
    not_mine: BTreeSet<Digest>,
}

impl Losses {
    /// What a repair of a project has found.
    pub(super) fn set(&self, project: &ProjectName, lost: Lost) {
        let mut followed = self.0.lock();
        match lost.count() {
            0 => drop(followed.of.remove(project)),
            _ => drop(followed.of.insert(project.clone(), lost)),
        }
    }

    /// Only these projects are this node's to complain about. The result is the number of all lost
    /// blobs.
    pub(super) fn retain(&self, is_mine: impl Fn(&ProjectName) -> bool) -> u64 {
        let mut followed = self.0.lock();
        followed.of.retain(|name, _| is_mine(name));
        followed.of.values().map(Lost::count).sum()
    }

    /// The next lost blobs to ask for.
    pub(super) fn next(&self) -> Vec<Digest> {
        let mut followed = self.0.lock();
        let all: BTreeSet<Digest> =
            followed.of.values().flat_map(|lost| &lost.named).copied().collect();
        let after = followed.last.filter(|last| all.last().is_some_and(|end| last < end));
        let next = all.iter().filter(|digest| after.is_none_or(|after| **digest > after));
        let next: Vec<Digest> = next.take(AT_A_TIME).copied().collect();
        followed.last = next.last().copied();
        next
    }

    /// These are kept by some replica again. Returns the projects that had lost some of them.
    pub(super) fn found(&self, kept: &BTreeSet<Digest>) -> BTreeSet<ProjectName> {
        let mut followed = self.0.lock();
        let mut found = BTreeSet::new();
        for (project, lost) in &mut followed.of {
            let before = lost.named.len();
            lost.named.retain(|digest| !kept.contains(digest));
            if lost.named.len() < before {
                found.insert(project.clone());
            }
        }
        found
    }

    /// Whether a blob is known to be lost.
    pub(super) fn knows(&self, digest: &Digest) -> bool {
        self.0.lock().of.values().any(|lost| lost.named.contains(digest))
    }

    /// Of the blobs that are `damaged` at some replica, those of which it is not known whether they are
    /// lost, or whose they are.
    pub(super) fn unknown(&self, damaged: BTreeSet<Digest>) -> Vec<Digest> {
        let not_mine = {
            let mut followed = self.0.lock();
            followed.not_mine.retain(|digest| damaged.contains(digest));
            followed.not_mine.clone()
        };
        let unknown = damaged.into_iter().filter(|digest| !not_mine.contains(digest));
        unknown.filter(|digest| !self.knows(digest)).take(AT_A_TIME).collect()
    }

    /// These are lost, and no project of this node has them.
    pub(super) fn are_not_mine(&self, digests: impl IntoIterator<Item = Digest>) {
        self.0.lock().not_mine.extend(digests);
    }

    /// A blob of a project turned out to be lost.
    pub(super) fn add(&self, project: &ProjectName, digest: Digest) {
        self.0.lock().of.entry(project.clone()).or_default().add(digest);
    }
}

impl Repairs {
    /// Looks which lost blobs are kept again, and whether what replicas know to be damaged is lost.
    /// What is lost anew is sought by a repair: an edge may have it. So is what is there again: a push
    /// brings back as many copies as it waits for, and not more.
    pub(super) async fn follow_losses(&self, jobs: &Jobs) -> Result<(), RecordError> {
        if !self.neighbours.records.connected() || !jobs.are_used()? {
            return Ok(());
        }
        let known = self.losses.next();
        let damaged = self.losses.unknown(self.neighbours.conditions.all_damaged());
        let asked: Vec<Digest> = known.into_iter().chain(damaged).collect();
        let found = self.flights.found(&asked).await.map_err(|e| RecordError(e.to_string()))?;
        let back = self.losses.found(&found.kept);
        let new: BTreeSet<Digest> =
            found.lost.into_iter().filter(|digest| !self.losses.knows(digest)).collect();
        if new.is_empty() && back.is_empty() {
            return Ok(());
        }
        let losing = at_length(|| {
            let view = self.neighbours.records.view()?;
            let mine = |project: &Project| {
                project.primary == self.neighbours.me && project.upstream.is_none()
            };
            let mut losing = back;
            let mine = view.projects()?.into_iter().filter(mine);
            for project in mine.filter(|_| !new.is_empty()) {
                let links = view.scan(&key::links_of(&project.name), None, usize::MAX)?;
                let digests = links.iter().filter_map(|(link, _)| key::digest_of(link));
                for digest in digests.filter(|digest| new.contains(digest)) {
                    self.losses.add(&project.name, digest);
                    losing.insert(project.name.clone());
                }
            }
            let others = new.iter().copied().filter(|digest| !self.losses.knows(digest));
            self.losses.are_not_mine(others.collect::<Vec<_>>());
            for job in view.active_jobs()?.iter().filter(|job| job.task.kind == KIND) {
                losing.remove(&job.task.project);
            }
            Ok::<_, RecordError>(losing)
        })?;
        for project in losing {
            if let Err(error) = jobs.ask(Self::task(&project, MESH), &Actor::mesh()).await {
                warn!(%project, %error, "what is lost is not sought");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(n: u32) -> Digest {
        Digest::sha256(&n.to_be_bytes())
    }

    /// The metric stayed 0 until a repair had run, and stayed after the mend until the next one.
    #[test]
    fn what_is_lost_counts_from_when_it_is_known_until_somebody_keeps_it() {
        let (losses, shop, team) =
            (Losses::default(), "shop".parse().unwrap(), "team".parse().unwrap());
        losses.add(&shop, blob(1));
        losses.add(&shop, blob(1));
        losses.add(&team, blob(1));
        losses.add(&team, blob(2));
        assert_eq!(losses.retain(|_| true), 3);
        assert_eq!(losses.found(&[blob(1)].into()), [shop.clone(), team.clone()].into());
        assert!(losses.found(&[blob(1)].into()).is_empty());
        assert_eq!((losses.retain(|_| true), losses.knows(&blob(1))), (1, false));
        let mut lost = Lost::default();
        lost.add(blob(7));
        losses.set(&shop, lost);
        assert_eq!(losses.retain(|name| *name == shop), 1);
        assert!(losses.knows(&blob(7)) && !losses.knows(&blob(2)), "the project has moved");
        losses.set(&shop, Lost::default());
        assert_eq!(losses.retain(|_| true), 0);
    }

    #[test]
    fn what_others_have_lost_is_looked_for_once() {
        let (losses, shop) = (Losses::default(), "shop".parse().unwrap());
        let damaged = || (1..4).map(blob).collect::<BTreeSet<_>>();
        assert_eq!(losses.unknown(damaged()).len(), 3);
        losses.add(&shop, blob(1));
        losses.are_not_mine([blob(2)]);
        assert_eq!(losses.unknown(damaged()), [blob(3)]);
        assert!(losses.unknown(BTreeSet::new()).is_empty());
        assert_eq!(losses.unknown(damaged()).len(), 2, "it was whole in between");
    }

    #[test]
    fn all_have_their_turn_and_what_cannot_be_followed_is_counted() {
        let (losses, shop) = (Losses::default(), "shop".parse().unwrap());
        assert!(losses.next().is_empty());
        let mut lost = Lost::default();
        (0..FOLLOWED as u32 + 10).for_each(|n| lost.add(blob(n)));
        assert_eq!(lost.count(), FOLLOWED as u64 + 10);
        losses.set(&shop, lost);
        let round =
            || (0..FOLLOWED / AT_A_TIME).flat_map(|_| losses.next()).collect::<BTreeSet<_>>();
        assert_eq!(round().len(), FOLLOWED);
        assert_eq!(round().len(), FOLLOWED, "and again");
        let all = round();
        losses.found(&all);
        assert_eq!(losses.retain(|_| true), 10, "until the next repair");
        assert!(losses.next().is_empty());
    }
}
