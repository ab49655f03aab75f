//! When an issuer of tokens is asked for its keys, for how long what it said counts, and how many
//! issuers are remembered for each project.
//!
//! Whoever may write a trust rule names an issuer, and whoever has any token of it can make a node
//! ask it. So questions are counted for each issuer, and issuers for each project: no project takes
//! the place or the time of another one's.

use core::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::people::configurations::is_issuer;
use crate::words::moment::Moment;
use crate::words::names::ProjectId;

/// How long keys are used before the issuer is asked again.
pub const FRESH: Duration = Duration::from_secs(3600);

/// How long they count while the issuer does not answer.
pub const KEPT: Duration = Duration::from_secs(24 * 3600);

/// How many questions for a key that is not known are asked one after the other, and how long it
/// takes until one more may follow.
const AT_ONCE: u32 = 6;
const ONE_MORE: Duration = Duration::from_secs(10);

/// How long an issuer is left alone after it has failed, and after it has failed again and again.
const PAUSE: Duration = Duration::from_secs(15);
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// The maximum number of issuers that are remembered for one owner, and for all.
pub const OF_OWNER: usize = 16;
/// See [`OF_OWNER`].
pub const OF_ALL: usize = 1024;

/// The maximum number of questions that are under way for one owner, and for all.
pub const ASKING: usize = 4;
/// See [`ASKING`].
pub const ASKING_IN_ALL: usize = 128;

/// What is wanted of an issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Its keys, if they are not too old.
    Known,
    /// A key that was not among those that were known at this moment.
    NewerThan(Moment),
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Use what is known.
    Use,
    /// Ask the issuer. If it does not answer, what is known may still be used.
    Ask,
    /// Nothing is known, and the issuer is left alone for now.
    Refuse,
}

/// What one issuer was asked, and how it answered.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    answered: Option<Moment>,
    /// When it may be asked again after it has failed, and how often it has failed since it last
    /// answered.
    paused: Option<(Moment, u32)>,
    /// When all questions for unknown keys may be asked again.
    full: Option<Moment>,
}

impl Asked {
    /// What is to be done now.
    pub fn step(&self, now: Moment, wanted: Wanted) -> Step {
        let counts = self.counts(now);
        let without = if counts { Step::Use } else { Step::Refuse };
        let is_new_enough = self.answered.is_some_and(|answered| match wanted {
            Wanted::Known => now.since(answered) < FRESH,
            Wanted::NewerThan(known) => answered > known,
        });
        if is_new_enough {
            return Step::Use;
        }
        if self.paused.is_some_and(|(until, _)| now < until) {
            return without;
        }
        match wanted {
            // an answer that is due keeps nobody from asking for a key that came after it
            Wanted::Known => Step::Ask,
            Wanted::NewerThan(_) if self.has_questions(now) => Step::Ask,
            Wanted::NewerThan(_) => without,
        }
    }

    /// Whether what is known may be used at all.
    pub fn counts(&self, now: Moment) -> bool {
        self.answered.is_some_and(|answered| now.since(answered) < KEPT)
    }

    fn has_questions(&self, now: Moment) -> bool {
        self.full.is_none_or(|full| full.since(now) <= ONE_MORE * (AT_ONCE - 1))
    }

    /// The issuer is asked.
    pub fn begin(&mut self, now: Moment, wanted: Wanted) {
        if let Wanted::NewerThan(_) = wanted {
            self.full = Some(self.full.map_or(now, |full| full.max(now)) + ONE_MORE);
        }
    }

    /// It has answered.
    pub fn handle_answer(&mut self, now: Moment) {
        self.answered = Some(now);
        self.paused = None;
    }

    /// It has not, or not as it should.
    pub fn handle_failure(&mut self, now: Moment) {
        let failed = self.paused.map_or(0, |(_, failed)| failed);
        let pause = (PAUSE * 2_u32.pow(failed.min(8))).min(LONGEST_PAUSE);
        self.paused = Some((now + pause, failed.saturating_add(1)));
    }
}

/// For whom an issuer is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// For the mesh: its people, and its robots that belong to no project.
    Mesh,
    /// For the rules of a project's robots.
    Project(ProjectId),
}

#[derive(Debug)]
struct Place {
    used: Moment,
    owners: BTreeSet<Owner>,
}

/// Which issuers are remembered, for whom, and who is being asked.
#[derive(Debug, Default)]
pub struct Places {
    of: HashMap<String, Place>,
    asking: HashMap<Owner, usize>,
}

impl Places {
    /// An issuer is needed for these owners. Returns those that are forgotten for it: the one that
    /// was used longest ago, of an owner that has too many. One that somebody else has, too, stays.
    pub fn admit(&mut self, now: Moment, issuer: &str, owners: &[Owner]) -> Vec<String> {
        let place = self.of.entry(issuer.to_owned());
        let place = place.or_insert_with(|| Place { used: now, owners: BTreeSet::new() });
        place.used = now;
        let new: Vec<Owner> =
            owners.iter().copied().filter(|owner| place.owners.insert(*owner)).collect();
        let mut forgotten = Vec::new();
        for owner in new {
            while self.count(owner) > OF_OWNER {
                forgotten.extend(self.leave(owner, issuer));
            }
        }
        while self.of.len() > OF_ALL {
            let mut counts: HashMap<Owner, usize> = HashMap::new();
            let others = self.of.iter().filter(|(name, _)| *name != issuer);
            for owner in others.flat_map(|(_, place)| &place.owners) {
                *counts.entry(*owner).or_default() += 1;
            }
            let oldest = |owner: Owner| Reverse(self.oldest(owner, issuer).map(|(used, _)| used));
            let most =
                counts.into_iter().max_by_key(|(owner, count)| (*count, oldest(*owner), *owner));
            let Some((owner, _)) = most else { break };
            // one that was one of several owners gives up another one next
            forgotten.extend(self.leave(owner, issuer));
        }
        forgotten
    }

    fn count(&self, owner: Owner) -> usize {
        self.of.values().filter(|place| place.owners.contains(&owner)).count()
    }

    /// The issuer of an owner that was used longest ago, but for one.
    fn oldest(&self, owner: Owner, but: &str) -> Option<(Moment, &str)> {
        let all = self.of.iter().filter(|(name, _)| *name != but);
        let of_owner = all.filter(|(_, place)| place.owners.contains(&owner));
        of_owner.map(|(name, place)| (place.used, name.as_str())).min()
    }

    /// An owner gives up its oldest issuer. Returns it if nobody else has it.
    fn leave(&mut self, owner: Owner, but: &str) -> Option<String> {
        let (_, name) = self.oldest(owner, but)?;
        let name = name.to_owned();
        let place = self.of.get_mut(&name)?;
        place.owners.remove(&owner);
        if !place.owners.is_empty() {
            return None;
        }
        self.of.remove(&name);
        Some(name)
    }

    /// Begins a question for one of these owners; `None` if each of them has too many under way, or
    /// all have together.
    pub fn begin(&mut self, owners: &[Owner]) -> Option<Owner> {
        if self.asking.values().sum::<usize>() >= ASKING_IN_ALL {
            return None;
        }
        let under_way = |owner: &Owner| self.asking.get(owner).copied().unwrap_or_default();
        let least = owners.iter().copied().min_by_key(under_way)?;
        if under_way(&least) >= ASKING {
            return None;
        }
        *self.asking.entry(least).or_default() += 1;
        Some(least)
    }

    /// A question for this owner has ended.
    pub fn end(&mut self, owner: Owner) {
        if let Some(under_way) = self.asking.get_mut(&owner) {
            *under_way -= 1;
            if *under_way == 0 {
                self.asking.remove(&owner);
            }
        }
    }
}

/// Whether an issuer may be asked for its keys for a trust rule. `allowed` has names of issuers; one
/// that ends with `/*` means all whose names begin so. Without a list all may.
pub fn may_be_asked(allowed: Option<&[String]>, issuer: &str) -> bool {
    let means = |one: &String| match one.strip_suffix('*') {
        Some(beginning) => beginning.ends_with('/') && issuer.starts_with(beginning),
        None => one == issuer,
    };
    is_issuer(issuer) && allowed.is_none_or(|all| all.iter().any(means))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_micros(seconds * 1_000_000)
    }

    fn answered(seconds: u64) -> Asked {
        let mut asked = Asked::default();
        asked.begin(at(seconds), Wanted::Known);
        asked.handle_answer(at(seconds));
        asked
    }

    #[test]
    fn keys_are_asked_for_when_they_are_old_and_count_for_a_day() {
        assert_eq!(Asked::default().step(at(1), Wanted::Known), Step::Ask);
        let mut asked = answered(100);
        assert_eq!(asked.step(at(100 + 3599), Wanted::Known), Step::Use);
        let later = 100 + 3600;
        assert_eq!(asked.step(at(later), Wanted::Known), Step::Ask);
        asked.handle_failure(at(later));
        // it is left alone, and what it said counts
        assert_eq!(asked.step(at(later + 14), Wanted::Known), Step::Use);
        assert_eq!(asked.step(at(later + 15), Wanted::Known), Step::Ask);
        asked.handle_failure(at(100 + 24 * 3600 - 1));
        assert!(asked.counts(at(100 + 24 * 3600 - 1)) && !asked.counts(at(100 + 24 * 3600)));
        assert_eq!(asked.step(at(100 + 24 * 3600), Wanted::Known), Step::Refuse);
    }

    #[test]
    fn a_key_that_is_not_known_is_asked_for_soon_but_not_without_end() {
        let mut asked = answered(100);
        let mut known = at(100);
        for second in 100..106 {
            let wanted = Wanted::NewerThan(known);
            assert_eq!(asked.step(at(second), wanted), Step::Ask, "right after an answer, too");
            asked.begin(at(second), wanted);
            known = at(second) + Duration::from_millis(1);
            asked.handle_answer(known);
        }
        let wanted = Wanted::NewerThan(known);
        assert_eq!(asked.step(at(106), wanted), Step::Use, "made-up keys do not flood it");
        assert_eq!(asked.step(at(111), wanted), Step::Ask);
        asked.begin(at(111), wanted);
        assert_eq!(asked.step(at(119), wanted), Step::Use);
        // who has waited for another one's question has its answer
        asked.handle_answer(at(112));
        assert_eq!(asked.step(at(112), wanted), Step::Use);
        // and what is due is asked for whatever was asked before
        assert_eq!(asked.step(at(112 + 3600), Wanted::Known), Step::Ask);
    }

    #[test]
    fn an_issuer_that_fails_is_left_alone_for_longer_each_time() {
        let mut asked = Asked::default();
        let mut now = 1000;
        for pause in [15, 30, 60, 120, 120] {
            asked.handle_failure(at(now));
            for wanted in [Wanted::Known, Wanted::NewerThan(at(0))] {
                assert_eq!(asked.step(at(now + pause - 1), wanted), Step::Refuse);
                assert_eq!(asked.step(at(now + pause), wanted), Step::Ask);
            }
            now += pause;
        }
        asked.handle_answer(at(now));
        asked.handle_failure(at(now));
        assert_eq!(asked.step(at(now + 15), Wanted::NewerThan(at(now))), Step::Ask);
    }

    fn project(number: u64) -> Owner {
        Owner::Project(ProjectId(number))
    }

    #[test]
    fn a_project_forgets_its_own_issuers_only() {
        let mut places = Places::default();
        assert!(places.admit(at(1), "https://ours", &[project(1)]).is_empty());
        assert!(places.admit(at(2), "https://both", &[project(1), project(2)]).is_empty());
        let mut forgotten = Vec::new();
        for n in 0..40 {
            let name = format!("https://{n}");
            forgotten.extend(places.admit(at(3 + n), &name, &[project(2)]));
        }
        // the first that it gave up was the one that is the other's, too
        let expected: Vec<String> = (0..24).map(|n| format!("https://{n}")).collect();
        assert_eq!(forgotten, expected);
        assert_eq!((places.count(project(1)), places.count(project(2))), (2, OF_OWNER));
    }

    #[test]
    fn when_all_have_too_many_who_has_most_gives_up_first() {
        let mut places = Places::default();
        assert!(places.admit(at(0), "https://small", &[project(0)]).is_empty());
        let mut forgotten = Vec::new();
        for n in 0..OF_ALL {
            let owner = project(1 + (n / OF_OWNER) as u64);
            forgotten.extend(places.admit(at(1 + n as u64), &format!("https://{n}"), &[owner]));
        }
        assert_eq!(forgotten, ["https://0"], "not the oldest one of all, its project's only one");
        assert_eq!(places.of.len(), OF_ALL);
    }

    #[test]
    fn many_projects_with_one_issuer_each_are_bounded_too() {
        let mut places = Places::default();
        for n in 0..OF_ALL as u64 + 10 {
            let forgotten = places.admit(at(n), &format!("https://{n}"), &[project(n)]);
            let is_full = n >= OF_ALL as u64;
            let oldest = is_full.then(|| format!("https://{}", n - OF_ALL as u64));
            assert_eq!(forgotten, oldest.into_iter().collect::<Vec<_>>());
        }
        // a shared one goes when all have given it up
        let all: Vec<Owner> = (0..5).map(|n| project(5000 + n)).collect();
        places.admit(at(9000), "https://shared", &all);
        for n in 0..OF_ALL as u64 {
            places.admit(at(9001 + n), &format!("https://new-{n}"), &[project(9000 + n)]);
        }
        assert!(places.of.len() <= OF_ALL && !places.of.contains_key("https://shared"));
    }

    #[test]
    fn a_project_whose_issuers_hang_keeps_no_other_waiting() {
        let mut places = Places::default();
        for _ in 0..ASKING {
            assert_eq!(places.begin(&[project(1)]), Some(project(1)));
        }
        assert_eq!(places.begin(&[project(1)]), None);
        assert_eq!(places.begin(&[project(1), project(2)]), Some(project(2)));
        places.end(project(1));
        assert_eq!(places.begin(&[project(1)]), Some(project(1)));
        let mut begun = 0;
        for n in 10..1000 {
            begun += usize::from(places.begin(&[project(n)]).is_some());
        }
        assert_eq!(begun, ASKING_IN_ALL - ASKING - 1);
        assert_eq!(places.begin(&[]), None);
    }

    #[test]
    fn an_operator_says_who_may_be_asked() {
        let list = ["https://ci.example".to_owned(), "https://eks.example/id/*".to_owned()];
        for (issuer, any, listed) in [
            ("https://ci.example", true, true),
            ("https://ci.example/", true, false),
            ("https://ci.example.evil", true, false),
            ("https://eks.example/id/7", true, true),
            ("https://eks.example/other", true, false),
            ("http://eks.example/id/7", false, false),
            ("http://127.0.0.1:8080", true, false),
            ("https://user@host", false, false),
        ] {
            assert_eq!(may_be_asked(None, issuer), any, "{issuer}");
            assert_eq!(may_be_asked(Some(&list), issuer), listed, "{issuer}");
            assert!(!may_be_asked(Some(&[]), issuer), "{issuer}");
        }
        assert!(!may_be_asked(Some(&["https://ci*".to_owned()]), "https://ci.example"));
    }
}
