//! What replicas tell edges of changes ([`Recent`]), so that an edge reads again what it has kept, also
//! if nobody asks it for that image: records that decide about pulls and have changed ([`Heard`]), and
//! tags and manifests that are gone. So it knows of a revocation and of a deletion when it is cut off
//! later.
//!
//! The ledger counts changes of what decides
//! ([`verdicts_version`](super::scanning::LookForScans::verdicts_version)); of what is gone its
//! revision is the number. An edge asks every two seconds what has changed since the number that it
//! heard last.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use super::admitted::Stamp;
use super::{scanning, signatures};
use crate::words::moment::{Moment, Timestamp};

/// For so long after an edge was told the number of changes it takes itself for one that would hear of
/// another.
pub const HEARD_FOR: Duration = Duration::from_secs(5);
/// The maximum number of records of a kind that a replica remembers, of about 150 bytes each.
pub const MOST_RECENT: usize = 4_096;
/// The maximum number of records of which an edge remembers that they have changed.
const MOST_HEARD: usize = 10_000;
/// For longer than this no answer is on its way.
const ON_THE_WAY: Duration = Duration::from_secs(60);

/// Whether a record decides about pulls.
pub fn decides(place: &[u8]) -> bool {
    scanning::key::is_of_verdicts(place) || signatures::key::is_of_verdicts(place)
}

/// Whether edges are told that a record is gone: a tag, or a repository's manifest. What deletes them
/// must be felt at an edge that is cut off later.
pub fn goes(place: &[u8]) -> bool {
    matches!(place.first(), Some(b't' | b'm'))
}

/// The records that were changed last, as this process has seen it.
#[derive(Clone, Debug)]
pub struct Recent {
    /// What changed when the number grew from this is remembered, and all that changed later.
    after: u64,
    newest: u64,
    keys: VecDeque<(u64, Vec<u8>)>,
}

impl Recent {
    /// Remembers what changes when the number is greater than `number`.
    pub fn after(number: u64) -> Self {
        Recent { after: number, newest: number, keys: VecDeque::new() }
    }

    /// These records have changed, and the number is this now. Changes that did not make the number
    /// grow are none.
    pub fn note<'a>(&mut self, changed: impl IntoIterator<Item = &'a [u8]>, number: u64) {
        if number <= self.newest {
            return;
        }
        self.newest = number;
        self.keys.extend(changed.into_iter().map(|key| (number, key.to_vec())));
        while self.keys.len() > MOST_RECENT
            && let Some((forgotten, _)) = self.keys.pop_front()
        {
            self.after = forgotten;
        }
    }

    /// The number now, and the records that changed since it was `number`; `None` if that is not
    /// known, or not known any more.
    pub fn since(&self, number: u64) -> (u64, Option<BTreeSet<Vec<u8>>>) {
        if !(self.after..=self.newest).contains(&number) {
            return (self.newest, None);
        }
        let later = self.keys.iter().rev().take_while(|(at, _)| *at > number);
        (self.newest, Some(later.map(|(_, key)| key.clone()).collect()))
    }
}

/// What an edge has heard of changes. What it kept of a record before it heard that this has changed may
/// be wrong.
#[derive(Clone, Debug)]
pub struct Heard {
    number: u64,
    /// What was kept until then of any record may be wrong.
    all: Option<Timestamp>,
    /// These have changed, and when this edge heard of it.
    changed: BTreeMap<Vec<u8>, Timestamp>,
    asked: Option<Moment>,
}

impl Heard {
    /// An edge starts that had read again all that had changed until the number was `number`. `sure`
    /// is that it has not heard of a later one, without having read that again.
    pub fn after(number: u64, sure: bool, now: Timestamp) -> Self {
        let all = (!sure).then_some(now);
        Heard { number, all, changed: BTreeMap::new(), asked: None }
    }

    /// The number of changes of which it has heard.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// A replica that was asked at `asked` has said this number, and which records have changed since
    /// it was [`Heard::number`]; `None` if it does not know. `now` is after its answer. Returns what may
    /// be wrong of what was kept: the records under these keys, or, for `None`, all that decide.
    pub fn hear(
        &mut self,
        number: u64,
        changed: Option<BTreeSet<Vec<u8>>>,
        asked: Moment,
        now: Timestamp,
    ) -> Option<BTreeSet<Vec<u8>>> {
        self.asked = Some(asked);
        if self.number == number {
            return Some(BTreeSet::new());
        }
        self.number = number;
        let known = changed.filter(|keys| self.changed.len() + keys.len() <= MOST_HEARD);
        match &known {
            Some(keys) => self.changed.extend(keys.iter().map(|key| (key.clone(), now))),
            None => {
                self.all = Some(now);
                self.changed.clear();
            }
        }
        known
    }

    /// All that may have been wrong was read again. What changed a while ago need not be remembered: no
    /// answer of before is on its way any more.
    pub fn read_again(&mut self, now: Timestamp) {
        self.changed.retain(|_, at| now.since(*at).is_none_or(|age| age < ON_THE_WAY));
    }

    /// Whether an answer of this time is about records that have changed since: that under the key
    /// `place`, or, of a list, any whose key begins so.
    pub fn supersedes(&self, place: &[u8], is_list: bool, at: Timestamp) -> bool {
        if !decides(place) {
            return false;
        }
        let heard_later = |heard: &Timestamp| at <= *heard;
        if self.all.as_ref().is_some_and(heard_later) {
            return true;
        }
        match is_list {
            false => self.changed.get(place).is_some_and(heard_later),
            true => {
                let later =
                    self.changed.range::<[u8], _>((Bound::Included(place), Bound::Unbounded));
                later.take_while(|(key, _)| key.starts_with(place)).any(|(_, at)| heard_later(at))
            }
        }
    }

    /// How long ago a replica was asked that then said the number; `None` if none has since the start.
    pub fn age(&self, now: Moment) -> Option<Duration> {
        self.asked.map(|asked| now.since(asked))
    }

    /// The state of what decides, for an edge; `None` if it may not hear of changes now.
    pub fn stamp(&self, now: Moment) -> Option<Stamp> {
        let hears = self.age(now).is_some_and(|age| age <= HEARD_FOR);
        let of_repository = self.all.unwrap_or_default().0;
        hears.then_some(Stamp { of_all: self.number, of_repository })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::digest::Digest;
    use crate::words::names::ProjectId;

    fn trusted(project: u64) -> Vec<u8> {
        signatures::key::trusted(ProjectId(project))
    }

    fn note(recent: &mut Recent, keys: &[Vec<u8>], number: u64) {
        recent.note(keys.iter().map(Vec::as_slice), number);
    }

    fn set(keys: &[Vec<u8>]) -> Option<BTreeSet<Vec<u8>>> {
        Some(keys.iter().cloned().collect())
    }

    #[test]
    fn a_replica_tells_what_changed_since_a_number_as_far_as_it_has_seen_it() {
        let mut recent = Recent::after(7);
        assert_eq!(recent.since(7), (7, set(&[])));
        assert_eq!(recent.since(6), (7, None), "before it started");
        note(&mut recent, &[trusted(1)], 8);
        note(&mut recent, &[trusted(2), trusted(3)], 10);
        assert_eq!(recent.since(7), (10, set(&[trusted(1), trusted(2), trusted(3)])));
        assert_eq!(recent.since(8), (10, set(&[trusted(2), trusted(3)])));
        // a batch of changes may make the number grow by more than one: what is told may be too much
        assert_eq!(recent.since(9), recent.since(8));
        assert_eq!(recent.since(10), (10, set(&[])));
        assert_eq!(recent.since(11), (10, None), "of a number that it has not reached");
        note(&mut recent, &[trusted(4)], 10);
        assert_eq!(recent.since(9), recent.since(8), "the number did not grow: it decides nothing");
    }

    #[test]
    fn what_a_replica_remembers_is_bounded_and_it_says_what_it_does_not_know() {
        let mut recent = Recent::after(0);
        for number in 1..=MOST_RECENT as u64 + 10 {
            note(&mut recent, &[trusted(number)], number);
            assert!(recent.keys.len() <= MOST_RECENT);
        }
        assert_eq!(recent.since(9).1, None);
        assert_eq!(recent.since(10).1.map(|keys| keys.len()), Some(MOST_RECENT));
    }

    #[test]
    fn an_edge_doubts_what_it_kept_before_it_heard_of_the_change_and_nothing_else() {
        let at = Moment::from_micros;
        let mut heard = Heard::after(7, true, Timestamp(1));
        assert!(!heard.supersedes(&trusted(1), false, Timestamp(0)));
        heard.hear(8, set(&[trusted(1)]), at(5), Timestamp(50));
        assert!(heard.supersedes(&trusted(1), false, Timestamp(50)));
        assert!(!heard.supersedes(&trusted(1), false, Timestamp(51)), "it was read again");
        assert!(!heard.supersedes(&trusted(2), false, Timestamp(3)));
        let list = &trusted(1)[..2];
        assert!(heard.supersedes(list, true, Timestamp(50)), "it may be in the list");
        assert!(!heard.supersedes(list, true, Timestamp(51)));
        assert!(!heard.supersedes(&trusted(2), true, Timestamp(3)));
        // and again
        heard.hear(9, set(&[trusted(1)]), at(6), Timestamp(90));
        assert!(heard.supersedes(&trusted(1), false, Timestamp(90)));
        // a replica that has just started
        heard.hear(10, None, at(7), Timestamp(100));
        for place in
            [trusted(2), scanning::key::scan(&"a/b".parse().unwrap(), &Digest::sha256(b""))]
        {
            assert!(heard.supersedes(&place, false, Timestamp(100)));
            assert!(!heard.supersedes(&place, false, Timestamp(101)));
        }
        assert!(!heard.supersedes(b"t-a-tag", false, Timestamp(3)), "that decides nothing");
        assert_eq!(heard.age(at(1_000_007)), Some(Duration::from_secs(1)));
    }

    #[test]
    fn an_edge_that_fell_before_it_had_read_a_change_doubts_all_that_it_kept() {
        let heard = Heard::after(7, false, Timestamp(60));
        assert!(heard.supersedes(&trusted(1), false, Timestamp(60)));
        assert!(!heard.supersedes(&trusted(1), false, Timestamp(61)));
    }

    #[test]
    fn what_was_read_again_is_forgotten_so_that_many_changes_are_not_too_many() {
        let mut heard = Heard::after(0, true, Timestamp(0));
        for number in 1..=3 * MOST_HEARD as u64 {
            let at = Timestamp(number * 100);
            let told = set(&[trusted(number)]);
            assert!(heard.hear(number, told, Moment::from_micros(0), at).is_some());
            assert!(heard.supersedes(&trusted(number), false, at));
            heard.read_again(at);
            assert!(heard.supersedes(&trusted(number), false, at), "an answer may be on its way");
        }
        assert!(heard.changed.len() <= 600 && !heard.supersedes(&trusted(1), false, Timestamp(99)));
    }

    #[test]
    fn an_edge_that_is_told_too_much_doubts_all() {
        let mut heard = Heard::after(0, true, Timestamp(0));
        for number in 1..=3 * MOST_HEARD as u64 {
            let told = set(&[trusted(number)]);
            let wrong = heard.hear(number, told.clone(), Moment::from_micros(0), Timestamp(number));
            // all is read again then
            let is_too_much = number % (MOST_HEARD as u64 + 1) == 0;
            assert_eq!(wrong, told.filter(|_| !is_too_much), "{number}");
            assert!(heard.changed.len() <= MOST_HEARD);
            assert!(heard.supersedes(&trusted(1), false, Timestamp(1)), "after {number}");
        }
    }
}
