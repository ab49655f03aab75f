//! One blob on its way to this node: whom to ask next, from which byte on, and when to give up.
//!
//! Sources are tried in the order given. One that breaks off is replaced by the next from the exact byte reached; bytes that arrived forgive earlier
//! failures, so a long blob survives many breaks, while sources that give nothing are given up after two rounds.

/// Where a flight's bytes may come from (`S`: nodes, an upstream), and how it stands.
#[derive(Clone, Debug)]
pub struct Flight<S> {
    sources: Vec<S>,
    next: usize,
    fruitless: usize,
    offset: u64,
    size: Option<u64>,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<S> {
    /// Ask this source for the bytes from `offset` on.
    Ask {
        /// The source.
        source: S,
        /// First byte wanted.
        offset: u64,
    },
    /// All bytes are here: check them.
    Check,
    /// No source gives anything.
    GiveUp,
}

impl<S: Clone> Flight<S> {
    /// A flight with nothing yet.
    pub fn new(sources: Vec<S>) -> Self {
        Flight { sources, next: 0, fruitless: 0, offset: 0, size: None }
    }

    /// What to do next.
    pub fn step(&self) -> Step<S> {
        if self.size == Some(self.offset) {
            return Step::Check;
        }
        if self.sources.is_empty() || self.fruitless >= self.sources.len() * 2 {
            return Step::GiveUp;
        }
        Step::Ask { source: self.sources[self.next % self.sources.len()].clone(), offset: self.offset }
    }

    /// The source says how long the whole blob is. `false` if another said otherwise before: this one is not to be believed.
    pub fn handle_size(&mut self, size: u64) -> bool {
        size >= self.offset && *self.size.get_or_insert(size) == size
    }

    /// Bytes arrived. `false` if there are more than the blob has: the source is not to be believed.
    pub fn handle_bytes(&mut self, count: u64) -> bool {
        if self.size.is_some_and(|size| self.offset + count > size) {
            return false;
        }
        self.offset += count;
        if count > 0 {
            self.fruitless = 0;
        }
        true
    }

    /// The source broke off, had nothing, or was not to be believed.
    pub fn handle_failure(&mut self) {
        self.next += 1;
        self.fruitless += 1;
    }

    /// The bytes are not what they are called: start again, with the other sources first.
    pub fn restart(&mut self) {
        self.offset = 0;
        self.size = None;
        self.handle_failure();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_source_that_breaks_off_is_replaced_from_the_exact_byte() {
        let mut flight = Flight::new(vec![1, 2]);
        assert_eq!(flight.step(), Step::Ask { source: 1, offset: 0 });
        assert!(flight.handle_size(100));
        assert!(flight.handle_bytes(40));
        flight.handle_failure();
        assert_eq!(flight.step(), Step::Ask { source: 2, offset: 40 });
        assert!(!flight.handle_size(99), "another length is another blob");
        assert!(flight.handle_bytes(60));
        assert_eq!(flight.step(), Step::Check);
    }

    #[test]
    fn sources_that_give_nothing_are_given_up_after_two_rounds() {
        let mut flight = Flight::new(vec![1, 2]);
        for _ in 0..4 {
            assert!(matches!(flight.step(), Step::Ask { .. }));
            flight.handle_failure();
        }
        assert_eq!(flight.step(), Step::GiveUp);
        assert_eq!(Flight::<u8>::new(vec![]).step(), Step::GiveUp);
    }

    #[test]
    fn more_bytes_than_the_blob_has_are_refused() {
        let mut flight = Flight::new(vec![1]);
        flight.handle_size(10);
        assert!(!flight.handle_bytes(11));
    }

    proptest! {
        #[test]
        fn every_flight_ends(breaks in proptest::collection::vec(0u64..30, 0..200), sources in 1u64..5) {
            let mut flight = Flight::new((0..sources).collect());
            let mut given = breaks.into_iter();
            for _ in 0..1000 {
                match flight.step() {
                    Step::Check | Step::GiveUp => return Ok(()),
                    Step::Ask { offset, .. } => {
                        prop_assert!(flight.handle_size(1000));
                        let n = given.next().unwrap_or(0).min(1000 - offset);
                        prop_assert!(flight.handle_bytes(n));
                        if offset + n < 1000 { flight.handle_failure(); }
                    }
                }
            }
            prop_assert!(false, "it went on for ever");
        }
    }
}
