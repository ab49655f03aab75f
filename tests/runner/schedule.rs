//! Which promise is started next, so that the machine is full and never too full.

use std::cmp::Reverse;
use std::time::Duration;

/// How much of the machine a promise needs while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weight {
    /// The number of slots.
    Slots(usize),
    /// All of them: nothing else runs beside it.
    Alone,
}

/// A promise that waits for its turn, or runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    /// Its test, as the test binary names it.
    pub(crate) name: String,
    /// What it needs.
    pub(crate) weight: Weight,
    /// How long it is expected to take. Only the order depends on it.
    pub(crate) length: Duration,
}

/// The promises of one run.
///
/// They start in a fixed order: the longest first, so that none of them is left over when all
/// others are done, and those that run alone last. None overtakes another, so that one that needs
/// several slots gets them.
#[derive(Debug)]
pub(crate) struct Schedule {
    slots: usize,
    taken: usize,
    /// In reverse: the next one is the last.
    waiting: Vec<Job>,
}

impl Schedule {
    /// All of `jobs`, on a machine with `slots` slots (at least one).
    pub(crate) fn new(slots: usize, mut jobs: Vec<Job>) -> Self {
        jobs.sort_by(|a, b| order(b).cmp(&order(a)));
        Self { slots: slots.max(1), taken: 0, waiting: jobs }
    }

    /// The next job to start now, whose slots are taken from then on; none if it has to wait, or if
    /// all have been started.
    pub(crate) fn start(&mut self) -> Option<Job> {
        let needed = self.needed(self.waiting.last()?);
        if self.taken + needed > self.slots {
            return None;
        }
        self.taken += needed;
        self.waiting.pop()
    }

    /// A job that was started has ended: its slots are free.
    pub(crate) fn ended(&mut self, job: &Job) {
        self.taken -= self.needed(job);
    }

    /// Whether every job has been started and has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.waiting.is_empty() && self.taken == 0
    }

    fn needed(&self, job: &Job) -> usize {
        match job.weight {
            // a small machine has not that many: there it runs alone
            Weight::Slots(slots) => slots.clamp(1, self.slots),
            Weight::Alone => self.slots,
        }
    }
}

/// What is less comes first.
fn order(job: &Job) -> (bool, Reverse<Duration>, &str) {
    (job.weight == Weight::Alone, Reverse(job.length), &job.name)
}

/// How many slots a machine has: as many as its cores and its free memory allow, and at least one.
///
/// A promise mostly waits, for elections, leases and deadlines: one that needs a slot keeps a core
/// busy for less than a third of its time. All of them share a disk, whatever the number of cores.
pub(crate) fn slots(cores: usize, free_memory: u64) -> usize {
    const BY_DISK: usize = 12;
    /// The nodes of most need less than half of it.
    const MEMORY: u64 = 512 << 20;
    let by_memory = usize::try_from(free_memory / MEMORY).unwrap_or(usize::MAX);
    (3 * cores).min(by_memory).clamp(1, BY_DISK)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str, weight: Weight, seconds: u64) -> Job {
        Job { name: name.to_owned(), weight, length: Duration::from_secs(seconds) }
    }

    fn started(schedule: &mut Schedule) -> Vec<String> {
        std::iter::from_fn(|| schedule.start()).map(|job| job.name).collect()
    }

    #[test]
    fn the_longest_start_first_and_as_many_as_there_are_slots() {
        let jobs = [("a", 1), ("b", 5), ("c", 3)]
            .map(|(name, seconds)| job(name, Weight::Slots(1), seconds));
        let mut schedule = Schedule::new(2, jobs.to_vec());
        assert_eq!(started(&mut schedule), ["b", "c"]);
        schedule.ended(&jobs[2]);
        assert_eq!(started(&mut schedule), ["a"]);
        assert!(!schedule.is_over(), "two of them run");
        schedule.ended(&jobs[0]);
        schedule.ended(&jobs[1]);
        assert!(schedule.is_over());
    }

    #[test]
    fn one_that_needs_several_slots_is_not_overtaken_until_it_has_them() {
        let (long, heavy, light) = (
            job("long", Weight::Slots(1), 9),
            job("heavy", Weight::Slots(2), 5),
            job("light", Weight::Slots(1), 1),
        );
        let mut schedule = Schedule::new(2, vec![light.clone(), heavy.clone(), long.clone()]);
        assert_eq!(
            started(&mut schedule),
            ["long"],
            "a slot is free, and it is kept for the heavy one"
        );
        schedule.ended(&long);
        assert_eq!(started(&mut schedule), ["heavy"]);
        schedule.ended(&heavy);
        assert_eq!(started(&mut schedule), ["light"]);
    }

    #[test]
    fn one_that_runs_alone_runs_last_and_alone() {
        let (alone, other) = (job("alone", Weight::Alone, 100), job("other", Weight::Slots(1), 1));
        let mut schedule =
            Schedule::new(4, vec![alone.clone(), other.clone(), job("last", Weight::Alone, 1)]);
        assert_eq!(started(&mut schedule), ["other"]);
        schedule.ended(&other);
        assert_eq!(started(&mut schedule), ["alone"]);
        schedule.ended(&alone);
        assert_eq!(started(&mut schedule), ["last"]);
    }

    #[test]
    fn what_needs_more_than_a_small_machine_has_runs_there_nevertheless() {
        let heavy = job("heavy", Weight::Slots(3), 1);
        let mut schedule = Schedule::new(0, vec![heavy.clone(), job("next", Weight::Slots(1), 0)]);
        assert_eq!(started(&mut schedule), ["heavy"]);
        schedule.ended(&heavy);
        assert_eq!(started(&mut schedule), ["next"]);
    }

    #[test]
    fn cores_memory_and_the_disk_limit_the_slots() {
        assert_eq!(slots(2, 24 << 30), 6);
        assert_eq!(slots(64, 2 << 30), 4);
        assert_eq!(slots(1, 0), 1);
        assert_eq!(slots(64, 256 << 30), 12, "one disk");
    }
}
