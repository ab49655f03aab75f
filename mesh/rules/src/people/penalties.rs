//! Addresses whose connections cost the node much for nothing. Whoever opens such a connection may
//! open the next one at once. So an address may waste some, and for a while after that it has only a
//! few new connections.
//!
//! Many clients may stand behind one address. So what one broken client wastes is no reason, an
//! address is never shut out altogether, and connections that are open go on. One that sends nothing
//! costs hardly more than its refusal, so it is no waste: those are bounded by [`super::crowd`].

use core::net::IpAddr;
use core::time::Duration;
use std::collections::HashMap;

use crate::proxies::budget::client_of;
use crate::words::moment::Moment;

/// The maximum number of addresses that are counted at a time. While that many have wasted
/// something lately, others waste without being counted.
pub const COUNTED: usize = 65_536;
/// In which time an address that wastes nothing has all of its allowance again.
const WHOLE: Duration = Duration::from_secs(20);
/// How long the first penalty is. Each further one is twice as long.
const FIRST: Duration = Duration::from_secs(1);
/// How often penalties become longer: the longest is 64 s.
const LONGER: u32 = 6;
/// How long after a penalty the next one is the first one again.
const FORGIVEN: Duration = Duration::from_secs(600);
/// The time between two looks for addresses that need not be counted any more.
const SWEEP: Duration = Duration::from_secs(1);

/// What a connection was that was of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waste {
    /// Its client began a TLS handshake, and did not finish it when the node had computed its part.
    Handshake,
    /// The head of a request was larger than one may be.
    LongHead,
    /// Its client broke off most of its requests ([`super::streams`]).
    Resets,
}

impl Waste {
    /// What it counts for.
    fn points(self) -> u32 {
        match self {
            Waste::Handshake => 1,
            Waste::LongHead => 5,
            Waste::Resets => 50,
        }
    }
}

/// How an address is punished now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Penalty {
    /// How long it goes on.
    pub length: Duration,
    /// How many there were lately, with this one.
    pub number: u32,
}

/// What is known of one address.
#[derive(Clone, Copy, Debug)]
struct Record {
    /// When all of its allowance is there again.
    whole_at: Moment,
    /// Until when it is punished.
    until: Moment,
    /// How many penalties there were lately.
    penalties: u32,
    /// When it may open the next connection while it is punished.
    next_at: Moment,
}

impl Record {
    /// Whether nothing is lost if it is forgotten.
    fn is_over(&self, now: Moment) -> bool {
        now >= self.whole_at && (self.penalties == 0 || now >= self.until + FORGIVEN)
    }
}

/// Who has wasted how much. Memory is bounded.
#[derive(Debug)]
pub struct Penalties {
    allowance: u32,
    of: HashMap<IpAddr, Record>,
    swept: Moment,
}

impl Penalties {
    /// Nobody has wasted anything yet. An address may waste `allowance` connections at once, and a
    /// twentieth of that in each second after. While it is punished it may open a hundredth of it in
    /// each second. With 0 nobody is punished.
    pub fn new(allowance: u32) -> Self {
        Penalties { allowance, of: HashMap::new(), swept: Moment::from_micros(0) }
    }

    /// Whether a connection from `address` may be served. It is not to be asked for a proxy, behind
    /// which there are many clients.
    pub fn admit(&mut self, now: Moment, address: IpAddr) -> bool {
        if self.of.is_empty() {
            return true;
        }
        let between = Duration::from_secs(100) / self.allowance.max(1);
        let Some(record) = self.of.get_mut(&client_of(address)) else { return true };
        if now >= record.until {
            return true;
        }
        let admitted = now >= record.next_at;
        if admitted {
            record.next_at = now + between.min(FIRST);
        }
        admitted
    }

    /// A connection from `address` was of no use. The penalty, if one begins with that. What was
    /// open when a penalty began adds nothing to it.
    pub fn wasted(&mut self, now: Moment, address: IpAddr, waste: Waste) -> Option<Penalty> {
        if self.allowance == 0 {
            return None;
        }
        let address = client_of(address);
        if self.of.len() >= COUNTED && !self.of.contains_key(&address) && !self.sweep(now) {
            return None;
        }
        let new = Record { whole_at: now, until: now, penalties: 0, next_at: now };
        let record = self.of.entry(address).or_insert(new);
        if now < record.until {
            return None;
        }
        let each = WHOLE / self.allowance;
        record.whole_at = record.whole_at.max(now) + each * waste.points();
        if record.whole_at.since(now) <= WHOLE {
            return None;
        }
        if now >= record.until + FORGIVEN {
            record.penalties = 0;
        }
        let length = FIRST * 2u32.pow(record.penalties.min(LONGER));
        record.penalties = record.penalties.saturating_add(1);
        record.until = now + length;
        // who goes on has not much more
        record.whole_at = record.until + WHOLE / 10 * 9;
        record.next_at = now;
        Some(Penalty { length, number: record.penalties })
    }

    /// Forgets those of which nothing need be known; whether there is room.
    fn sweep(&mut self, now: Moment) -> bool {
        if now.since(self.swept) >= SWEEP {
            self.swept = now;
            self.of.retain(|_, record| !record.is_over(now));
        }
        self.of.len() < COUNTED
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALLOWANCE: u32 = 1000;

    fn at(millis: u64) -> Moment {
        Moment::from_micros(1_000_000_000 + millis * 1000)
    }

    fn one() -> IpAddr {
        "192.0.2.1".parse().unwrap()
    }

    /// Wastes until a penalty begins: after how many, and which.
    fn until_punished(penalties: &mut Penalties, now: Moment, waste: Waste) -> (u32, Penalty) {
        (1..=ALLOWANCE + 1)
            .find_map(|n| penalties.wasted(now, one(), waste).map(|penalty| (n, penalty)))
            .expect("a penalty")
    }

    #[test]
    fn who_wastes_more_than_the_allowance_is_punished_and_others_are_not() {
        let mut penalties = Penalties::new(ALLOWANCE);
        let (count, penalty) = until_punished(&mut penalties, at(0), Waste::Handshake);
        assert_eq!(count, ALLOWANCE + 1);
        assert_eq!(penalty, Penalty { length: Duration::from_secs(1), number: 1 });
        let admitted = (0..1000).filter(|ms| penalties.admit(at(*ms), one())).count();
        assert_eq!(admitted, 10, "a few, not none");
        assert!(penalties.admit(at(500), "192.0.2.2".parse().unwrap()));
        assert!((0..1000).all(|_| penalties.admit(at(1000), one())), "it ends by itself");
    }

    #[test]
    fn what_costs_more_counts_for_more() {
        for (waste, most) in [(Waste::LongHead, 201), (Waste::Resets, 21)] {
            let mut penalties = Penalties::new(ALLOWANCE);
            assert_eq!(until_punished(&mut penalties, at(0), waste).0, most, "{waste:?}");
        }
    }

    #[test]
    fn penalties_become_longer_while_it_goes_on_and_are_forgiven_after_it() {
        let mut penalties = Penalties::new(ALLOWANCE);
        let (mut now, mut lengths) = (0, Vec::new());
        for _ in 0..8 {
            let (count, penalty) = until_punished(&mut penalties, at(now), Waste::Handshake);
            lengths.push(penalty.length.as_secs());
            assert!(count == ALLOWANCE + 1 || lengths.len() > 1 && count <= ALLOWANCE / 10 + 1);
            assert_eq!(penalties.wasted(at(now), one(), Waste::Resets), None, "it is punished");
            now += penalty.length.as_millis() as u64;
        }
        assert_eq!(lengths, [1, 2, 4, 8, 16, 32, 64, 64]);
        now += FORGIVEN.as_millis() as u64;
        let (count, penalty) = until_punished(&mut penalties, at(now), Waste::Handshake);
        assert_eq!((count, penalty.number), (ALLOWANCE + 1, 1));
    }

    #[test]
    fn a_broken_client_that_tries_again_and_again_is_no_reason() {
        let mut penalties = Penalties::new(ALLOWANCE);
        for n in 0..100_000 {
            // 50 in a second
            assert_eq!(penalties.wasted(at(n * 20), one(), Waste::Handshake), None);
        }
    }

    #[test]
    fn an_allowance_of_0_punishes_nobody() {
        let mut penalties = Penalties::new(0);
        for _ in 0..100_000 {
            assert_eq!(penalties.wasted(at(0), one(), Waste::Resets), None);
        }
        assert!(penalties.admit(at(0), one()));
    }

    #[test]
    fn memory_is_bounded_and_who_is_punished_stays_so() {
        let mut penalties = Penalties::new(ALLOWANCE);
        let of = |n: u32| IpAddr::from(n.to_be_bytes());
        while penalties.wasted(at(0), one(), Waste::Resets).is_none() {}
        for n in 0..2 * COUNTED as u32 {
            penalties.wasted(at(0), of(n), Waste::Resets);
            assert!(penalties.of.len() <= COUNTED);
        }
        assert!(penalties.admit(at(1), one()) && !penalties.admit(at(1), one()));
        // in time there is room for others
        penalties.wasted(at(2000), of(u32::MAX), Waste::Handshake);
        assert!(penalties.of.contains_key(&of(u32::MAX)) && penalties.of.len() < 10);
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one() {
        let mut penalties = Penalties::new(ALLOWANCE);
        let of = |n: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, n]);
        assert!(
            (0..=ALLOWANCE as u16)
                .any(|n| { penalties.wasted(at(0), of(n), Waste::Handshake).is_some() })
        );
        assert!(penalties.admit(at(0), of(0)) && !penalties.admit(at(0), of(7)));
    }

    proptest! {
        #[test]
        fn in_any_time_an_address_wastes_little_more_than_its_allowance_and_its_rate(
            steps in proptest::collection::vec((0u64..3000, 1u32..400), 1..100)
        ) {
            let (mut penalties, mut now) = (Penalties::new(ALLOWANCE), 0);
            let (mut wasted, mut begun) = (0u64, 0u64);
            for (wait, tries) in steps {
                now += wait;
                for _ in 0..tries {
                    if penalties.admit(at(now), one()) {
                        let penalty = penalties.wasted(at(now), one(), Waste::Handshake);
                        begun += u64::from(penalty.is_some());
                        wasted += 1;
                    }
                }
                // its rate, what is admitted while it is punished, and the tenth after that
                let most = 1001 + now / 20 + now / 100 + 8 + 101 * begun;
                prop_assert!(wasted <= most, "{wasted} in {now} ms");
                // penalties become longer, so there are few
                prop_assert!(begun <= 7 + now / 64_000, "{begun} in {now} ms");
            }
        }
    }
}
