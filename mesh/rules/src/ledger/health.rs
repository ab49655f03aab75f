//! Whether a node's ledger can write, judged by its commits and not by what the node says
//! elsewhere.
//!
//! A commit that does not return means a disk that is slow for a while, or one that hangs. Time in
//! which nobody looked does not count: after a process was stopped or a machine slept, the commit
//! is where it was before.

use std::time::Duration;

use crate::words::moment::Moment;

/// How long a node waits for its own disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskTerms {
    /// After a commit has taken this long, the node doubts itself and gives up the tasks that other
    /// nodes can do.
    pub slow: Duration,
    /// After a commit has taken this long, it is taken to hang for ever.
    pub hung: Duration,
    /// The maximum time between two looks that counts.
    pub look: Duration,
}

/// The state of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Disk {
    /// Its commits return.
    Well,
    /// A commit has taken longer than [`DiskTerms::slow`].
    Slow,
    /// A commit has taken longer than [`DiskTerms::hung`].
    Hung,
}

/// Watches the commits of one file.
#[derive(Clone, Debug)]
pub struct DiskWatch {
    terms: DiskTerms,
    looked: Option<Moment>,
    /// The commit that was under way at the last look, and for how long it has been.
    commit: Option<(u64, Duration)>,
}

impl DiskWatch {
    /// A watch that has seen no commit yet.
    pub fn new(terms: DiskTerms) -> Self {
        DiskWatch { terms, looked: None, commit: None }
    }

    /// At `now` the commit with this number is under way, or none is. Returns the state of the
    /// disk.
    pub fn handle_look(&mut self, now: Moment, commit: Option<u64>) -> Disk {
        let passed =
            self.looked.map_or(Duration::ZERO, |looked| now.since(looked)).min(self.terms.look);
        self.looked = Some(now);
        self.commit = match (self.commit, commit) {
            (Some((known, waited)), Some(number)) if known == number => {
                Some((number, waited + passed))
            }
            (_, number) => number.map(|number| (number, Duration::ZERO)),
        };
        match self.commit {
            Some((_, waited)) if waited >= self.terms.hung => Disk::Hung,
            Some((_, waited)) if waited >= self.terms.slow => Disk::Slow,
            _ => Disk::Well,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: DiskTerms = DiskTerms {
        slow: Duration::from_secs(4),
        hung: Duration::from_secs(15),
        look: Duration::from_secs(1),
    };

    fn at(seconds: u64) -> Moment {
        Moment::from_micros(1_000_000 * (1000 + seconds))
    }

    #[test]
    fn a_commit_that_does_not_come_back_is_slow_and_then_hangs() {
        let mut watch = DiskWatch::new(TERMS);
        for second in 0..=20 {
            let expected = match second {
                0..4 => Disk::Well,
                4..15 => Disk::Slow,
                _ => Disk::Hung,
            };
            assert_eq!(watch.handle_look(at(second), Some(7)), expected, "second {second}");
        }
        assert_eq!(
            watch.handle_look(at(21), Some(8)),
            Disk::Well,
            "it came back, and another is under way"
        );
        assert_eq!(watch.handle_look(at(22), None), Disk::Well);
    }

    #[test]
    fn many_short_commits_are_no_long_one() {
        let mut watch = DiskWatch::new(TERMS);
        for second in 0..100 {
            assert_eq!(watch.handle_look(at(second), Some(second)), Disk::Well);
        }
    }

    #[test]
    fn a_process_that_was_stopped_does_not_blame_its_disk() {
        let mut watch = DiskWatch::new(TERMS);
        watch.handle_look(at(0), Some(1));
        assert_eq!(watch.handle_look(at(3600), Some(1)), Disk::Well);
    }
}
