//! How much of an upstream one client may use, so that others have something of it too.

use core::net::{IpAddr, Ipv6Addr};
use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use crate::words::moment::Moment;

/// The maximum number of clients whose questions are counted at a time. Beyond that the one that
/// has waited longest is forgotten, and has its whole budget again.
pub const COUNTED: usize = 10_000;

/// How many questions a client may cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetTerms {
    /// How many at once, after a time without any. With 0 nothing is counted.
    pub burst: u32,
    /// How many more in each minute.
    pub per_minute: u32,
}

/// A token bucket for each client. A question takes one token, and tokens come back with time.
#[derive(Debug)]
pub struct Budgets<K> {
    terms: BudgetTerms,
    /// When each client's whole burst is there again.
    spent: HashMap<K, Moment>,
}

impl<K: Clone + Eq + Hash> Budgets<K> {
    /// Nobody has asked anything yet.
    pub fn new(terms: BudgetTerms) -> Self {
        Budgets { terms, spent: HashMap::new() }
    }

    /// The time in which one token comes back; a day if none ever does.
    fn interval(&self) -> Duration {
        match self.terms.per_minute {
            0 => Duration::from_secs(86_400),
            many => Duration::from_secs(60) / many,
        }
    }

    /// `client` wants to cause a question. If it may not, the error is the time after which it may
    /// cause one.
    pub fn take(&mut self, now: Moment, client: &K) -> Result<(), Duration> {
        if self.terms.burst == 0 {
            return Ok(());
        }
        let interval = self.interval();
        let full = interval * self.terms.burst;
        let whole_at = self.spent.get(client).map_or(now, |whole_at| (*whole_at).max(now));
        let whole_at = whole_at + interval;
        let owed = whole_at.since(now);
        if owed > full {
            return Err(owed - full);
        }
        if self.spent.len() >= COUNTED && !self.spent.contains_key(client) {
            self.forget(now);
        }
        self.spent.insert(client.clone(), whole_at);
        Ok(())
    }

    /// `client` gets back what it took last.
    pub fn give_back(&mut self, client: &K) {
        let interval = self.interval();
        if let Some(whole_at) = self.spent.get_mut(client) {
            *whole_at = *whole_at - interval;
        }
    }

    /// Makes room: those whose burst is whole, and if there are none, the one whose burst is whole
    /// first.
    fn forget(&mut self, now: Moment) {
        self.spent.retain(|_, whole_at| *whole_at > now);
        if self.spent.len() >= COUNTED
            && let Some(first) = self.spent.values().copied().min()
        {
            self.spent.retain(|_, whole_at| *whole_at > first);
        }
    }
}

/// A client for a budget, by its address. Of an IPv6 address only the network counts (RFC 6177: a
/// site has at least a /64), because one machine has all addresses of it.
pub fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

/// Whether one of those who share `most` places may have one more. It has `own` of the `taken` ones.
/// It may never have more than are left for the others, so that nobody finds all places taken by
/// one.
pub fn may_have_one_more(own: usize, taken: usize, most: usize) -> bool {
    own < most.saturating_sub(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TERMS: BudgetTerms = BudgetTerms { burst: 3, per_minute: 6 };

    fn at(seconds: u64) -> Moment {
        Moment::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn a_client_has_its_burst_and_then_its_rate_and_others_have_theirs() {
        let mut budgets = Budgets::new(TERMS);
        for _ in 0..3 {
            assert_eq!(budgets.take(at(100), &"a"), Ok(()));
        }
        assert_eq!(budgets.take(at(100), &"a"), Err(Duration::from_secs(10)));
        assert_eq!(budgets.take(at(103), &"a"), Err(Duration::from_secs(7)), "a refusal is free");
        assert_eq!(budgets.take(at(103), &"b"), Ok(()), "another client");
        assert_eq!(budgets.take(at(110), &"a"), Ok(()));
        assert_eq!(budgets.take(at(110), &"a"), Err(Duration::from_secs(10)));
        // the burst comes back whole, and not more than whole
        for _ in 0..3 {
            assert_eq!(budgets.take(at(10_000), &"a"), Ok(()));
        }
        assert!(budgets.take(at(10_000), &"a").is_err());
    }

    #[test]
    fn a_burst_of_0_counts_nothing_and_a_rate_of_0_gives_nothing_back() {
        let mut open = Budgets::new(BudgetTerms { burst: 0, per_minute: 0 });
        assert!((0..1_000).all(|_| open.take(at(0), &1).is_ok()));
        let mut once = Budgets::new(BudgetTerms { burst: 1, per_minute: 0 });
        assert!(once.take(at(0), &1).is_ok() && once.take(at(3_600), &1).is_err());
    }

    #[test]
    fn memory_is_bounded_and_one_that_waits_is_not_the_first_to_be_forgotten() {
        let mut budgets = Budgets::new(TERMS);
        while budgets.take(at(0), &0).is_ok() {}
        for client in 1..2 * COUNTED {
            assert!(budgets.take(at(0), &client).is_ok());
            assert!(budgets.spent.len() <= COUNTED);
        }
        assert!(budgets.take(at(0), &0).is_err(), "it has spent more than those that came later");
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_client() {
        let of = |address: &str| client_of(address.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3::4"), of("2001:db8:1:2::9"));
        assert_ne!(of("2001:db8:1:2::4"), of("2001:db8:1:3::4"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }

    #[test]
    fn nobody_takes_the_last_place_of_those_who_have_none() {
        let mut held = [0usize; 5];
        for one in 0..held.len() {
            while may_have_one_more(held[one], held.iter().sum(), 64) {
                held[one] += 1;
            }
        }
        assert_eq!(held, [32, 16, 8, 4, 2]);
        assert!(may_have_one_more(0, 62, 64));
        assert!(!may_have_one_more(0, 64, 64));
    }

    proptest! {
        #[test]
        fn in_any_time_a_client_has_no_more_than_its_burst_and_its_rate(
            steps in proptest::collection::vec(0u64..20, 1..200)
        ) {
            let (mut budgets, mut now, mut taken) = (Budgets::new(TERMS), 0, 0u64);
            for step in steps {
                now += step;
                match budgets.take(at(now), &()) {
                    Ok(()) => taken += 1,
                    Err(wait) => {
                        prop_assert!(wait > Duration::ZERO);
                        // and what it says is true
                        let mut later = Budgets { terms: TERMS, spent: budgets.spent.clone() };
                        prop_assert!(later.take(at(now) + wait, &()).is_ok());
                    }
                }
                prop_assert!(taken <= 3 + now / 10);
            }
        }
    }
}
