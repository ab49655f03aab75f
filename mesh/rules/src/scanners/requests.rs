//! Which scans an adapter takes, and how long it keeps what came out.
//!
//! Whoever asks for a scan may never come for its report. So everything has a bound: what waits, what
//! is kept, and for how long.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::words::moment::Moment;

/// Bounds of an adapter's work.
#[derive(Clone, Copy, Debug)]
pub struct RequestTerms {
    /// The maximum number of scans at a time.
    pub at_a_time: usize,
    /// The maximum number of scans that wait.
    pub waiting: usize,
    /// The maximum number of bytes of results that are kept. The newest is kept, however large.
    pub kept: usize,
    /// How long a result is kept.
    pub keep_for: Duration,
}

/// No more scans are taken now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// How far a scan is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<'a, R> {
    /// It waits or runs.
    UnderWay,
    /// It has ended so.
    Ended(&'a R),
}

/// The scans of an adapter. `J` is what is to be done, `R` what comes out.
#[derive(Debug)]
pub struct Requests<J, R> {
    terms: RequestTerms,
    waiting: VecDeque<(u128, J)>,
    running: Vec<u128>,
    ended: BTreeMap<u128, (Moment, usize, R)>,
    /// How many bytes those have.
    bytes: usize,
    /// In which order they have ended.
    order: VecDeque<u128>,
}

impl<J, R> Requests<J, R> {
    /// Nothing was asked for yet.
    pub fn new(terms: RequestTerms) -> Self {
        let (waiting, running) = (VecDeque::new(), Vec::new());
        let (ended, order) = (BTreeMap::new(), VecDeque::new());
        Requests { terms, waiting, running, ended, bytes: 0, order }
    }

    /// Somebody asks for a scan; `id` is random, and nobody else can guess it.
    pub fn take(&mut self, id: u128, job: J) -> Result<(), Full> {
        if self.waiting.len() >= self.terms.waiting {
            return Err(Full);
        }
        self.waiting.push_back((id, job));
        Ok(())
    }

    /// The scan to begin now, if there is one and a place for it.
    pub fn begin(&mut self) -> Option<(u128, J)> {
        if self.running.len() >= self.terms.at_a_time {
            return None;
        }
        let (id, job) = self.waiting.pop_front()?;
        self.running.push(id);
        Some((id, job))
    }

    /// A scan has ended with this result, which has so many bytes.
    pub fn end(&mut self, id: u128, result: R, bytes: usize, now: Moment) {
        self.running.retain(|one| *one != id);
        self.bytes += bytes;
        self.ended.insert(id, (now, bytes, result));
        self.order.push_back(id);
        self.forget(now);
    }

    /// How far a scan is; `None` if it is not known, or not any more.
    pub fn progress(&mut self, id: u128, now: Moment) -> Option<Progress<'_, R>> {
        self.forget(now);
        if self.running.contains(&id) || self.waiting.iter().any(|(one, _)| *one == id) {
            return Some(Progress::UnderWay);
        }
        self.ended.get(&id).map(|(.., result)| Progress::Ended(result))
    }

    /// How many scans wait, and how many run.
    pub fn load(&self) -> (usize, usize) {
        (self.waiting.len(), self.running.len())
    }

    fn forget(&mut self, now: Moment) {
        while let Some(id) = self.order.front().copied() {
            let is_old = |(at, ..): &(Moment, usize, R)| now.since(*at) >= self.terms.keep_for;
            let is_much = self.order.len() > 1 && self.bytes > self.terms.kept;
            if !is_much && !self.ended.get(&id).is_none_or(is_old) {
                return;
            }
            self.order.pop_front();
            self.bytes -= self.ended.remove(&id).map_or(0, |(_, bytes, _)| bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_micros(seconds * 1_000_000)
    }

    fn requests() -> Requests<&'static str, u32> {
        let keep_for = Duration::from_secs(100);
        Requests::new(RequestTerms { at_a_time: 2, waiting: 3, kept: 20, keep_for })
    }

    #[test]
    fn what_waits_is_bounded_and_is_begun_in_its_order() {
        let mut all = requests();
        for id in 1..=3 {
            assert_eq!(all.take(id, "x"), Ok(()));
        }
        assert_eq!(all.take(4, "x"), Err(Full));
        assert_eq!([all.begin(), all.begin(), all.begin()], [Some((1, "x")), Some((2, "x")), None]);
        assert_eq!(all.load(), (1, 2));
        assert_eq!(all.progress(3, at(0)), Some(Progress::UnderWay));
        assert_eq!(all.progress(1, at(0)), Some(Progress::UnderWay));
        assert_eq!(all.progress(9, at(0)), None);
        all.end(1, 7, 1, at(0));
        assert_eq!(all.progress(1, at(1)), Some(Progress::Ended(&7)));
        assert_eq!(all.begin(), Some((3, "x")));
    }

    #[test]
    fn results_go_when_they_are_old_or_too_many() {
        let mut all = requests();
        for id in 1..=3 {
            assert_eq!(all.take(id, "x"), Ok(()));
            all.begin();
            all.end(id, id as u32, 10, at(id as u64));
        }
        assert_eq!(all.progress(1, at(3)), None, "20 bytes are kept");
        assert_eq!(all.progress(2, at(3)), Some(Progress::Ended(&2)));
        assert_eq!(all.progress(2, at(102)), None);
        assert_eq!(all.progress(3, at(102)), Some(Progress::Ended(&3)));
        assert_eq!(all.progress(3, at(103)), None);
        assert!(all.ended.is_empty() && all.order.is_empty());
        assert_eq!(all.take(7, "x"), Ok(()));
        all.begin();
        all.end(7, 7, 1000, at(200));
        assert_eq!(all.progress(7, at(200)), Some(Progress::Ended(&7)), "the newest is kept");
    }
}
