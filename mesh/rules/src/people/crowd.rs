//! How many connections clients may have open: in all, and from one address, so that no single one
//! can take all of them. When nearly all are taken, a client that has few takes the place of one of
//! the address that has most: those who only hold connections keep nobody out.

use core::net::IpAddr;
use std::collections::{BTreeSet, HashMap, VecDeque};

use crate::proxies::budget::client_of;

/// Why a connection is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// As many are open as may be in all.
    All,
    /// As many are open from this address as may be from one.
    Address,
}

impl Full {
    /// A word for metrics.
    pub fn word(self) -> &'static str {
        match self {
            Full::All => "all",
            Full::Address => "address",
        }
    }
}

/// A connection that is counted. It is to be given back to [`Crowd::leave`] at its end.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Place {
    address: IpAddr,
    number: u64,
}

impl Place {
    /// The number of the connection. None has the number of another one.
    pub fn number(&self) -> u64 {
        self.number
    }
}

/// The open connections of one address.
#[derive(Debug, Default)]
struct Client {
    /// All of them.
    open: usize,
    /// Those that were not told to end, the oldest first.
    staying: VecDeque<u64>,
}

/// The open connections of a node.
#[derive(Debug)]
pub struct Crowd {
    most: usize,
    each: usize,
    all: usize,
    next: u64,
    of: HashMap<IpAddr, Client>,
    /// The addresses that are no proxies, by how many of their connections stay.
    by_number: BTreeSet<(usize, IpAddr)>,
}

impl Crowd {
    /// None is open yet. At most `most` may be, and `each` from one address (of an IPv6 address the
    /// network counts, see [`client_of`]).
    pub fn new(most: usize, each: usize) -> Self {
        let (of, by_number) = (HashMap::new(), BTreeSet::new());
        Crowd { most, each, all: 0, next: 0, of, by_number }
    }

    /// A connection was opened from `address`. Many clients stand behind a `proxy`, so only the sum
    /// of all counts for it, and none of its connections is told to end. If it may stay, its place;
    /// and, when nine of ten that may be are open, the number of the connection that is to end for
    /// it: the oldest one of the address that has most, if it has more than this one. If it has not,
    /// only a client without a connection, or a proxy, has a place in the last tenth.
    pub fn enter(&mut self, address: IpAddr, proxy: bool) -> Result<(Place, Option<u64>), Full> {
        let address = client_of(address);
        if self.all >= self.most {
            return Err(Full::All);
        }
        let open = self.of.get(&address).map_or(0, |client| client.open);
        if open >= self.each && !proxy {
            return Err(Full::Address);
        }
        let nearly_full = self.all >= self.most - self.most / 10;
        let ended = if nearly_full { self.end_one_for(if proxy { 0 } else { open }) } else { None };
        // else those who have most would fill the rest, too
        if nearly_full && ended.is_none() && open > 0 && !proxy {
            return Err(Full::All);
        }
        let number = self.next;
        self.next += 1;
        self.all += 1;
        let client = self.of.entry(address).or_default();
        client.open += 1;
        if !proxy {
            self.by_number.remove(&(client.staying.len(), address));
            client.staying.push_back(number);
            self.by_number.insert((client.staying.len(), address));
        }
        Ok((Place { address, number }, ended))
    }

    /// Chooses the connection that is to end for a client that has `open`.
    fn end_one_for(&mut self, open: usize) -> Option<u64> {
        let &(most, address) = self.by_number.last()?;
        if most <= open + 1 {
            return None;
        }
        let client = self.of.get_mut(&address)?;
        let ended = client.staying.pop_front();
        self.by_number.remove(&(most, address));
        self.by_number.insert((most - 1, address));
        ended
    }

    /// A connection has ended.
    pub fn leave(&mut self, place: Place) {
        let Place { address, number } = place;
        let Some(client) = self.of.get_mut(&address) else { return };
        client.open -= 1;
        self.all -= 1;
        self.by_number.remove(&(client.staying.len(), address));
        // numbers grow from the front to the back
        if let Ok(at) = client.staying.binary_search(&number) {
            client.staying.remove(at);
        }
        if !client.staying.is_empty() {
            self.by_number.insert((client.staying.len(), address));
        }
        if client.open == 0 {
            self.of.remove(&address);
        }
    }

    /// The number of open connections.
    pub fn open(&self) -> usize {
        self.all
    }
}

/// As many connections as `files` open files are enough for: each may need a socket and a file, and
/// `others` are for everything else. At most `wanted`, and never none.
pub fn bearable(wanted: usize, files: u64, others: u64) -> usize {
    let enough = usize::try_from(files.saturating_sub(others) / 2).unwrap_or(usize::MAX);
    wanted.min(enough).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    fn entered(crowd: &mut Crowd, n: u8) -> (Place, Option<u64>) {
        crowd.enter(at(n), false).unwrap()
    }

    #[test]
    fn one_address_cannot_take_all_and_a_proxy_may() {
        let mut crowd = Crowd::new(5, 2);
        let (first, _) = entered(&mut crowd, 1);
        entered(&mut crowd, 1);
        assert_eq!(crowd.enter(at(1), false), Err(Full::Address));
        for _ in 0..3 {
            assert!(matches!(crowd.enter(at(2), true), Ok((_, None))), "of a proxy none is ended");
        }
        assert_eq!(crowd.enter(at(3), false), Err(Full::All));
        crowd.leave(first);
        assert!(crowd.enter(at(3), false).is_ok());
        assert_eq!(crowd.open(), 5);
    }

    #[test]
    fn who_has_few_takes_the_place_of_the_oldest_of_who_has_most() {
        let mut crowd = Crowd::new(20, 15);
        let mut many: Vec<_> = (0..15).map(|_| entered(&mut crowd, 1).0).collect();
        for _ in 0..3 {
            assert_eq!(entered(&mut crowd, 2).1, None, "there is room");
        }
        let (oldest, next) = (many[0].number(), many[1].number());
        assert_eq!(entered(&mut crowd, 3).1, Some(oldest));
        // it has not ended yet, and nothing more than the maximum is taken
        assert_eq!(entered(&mut crowd, 3).1, Some(next));
        assert_eq!(crowd.enter(at(4), false), Err(Full::All));
        crowd.leave(many.remove(0));
        assert_eq!(entered(&mut crowd, 4).1, Some(many[1].number()), "each is told once");
    }

    #[test]
    fn nobody_makes_room_for_who_has_as_many() {
        let mut crowd = Crowd::new(10, 10);
        for n in 0..9 {
            entered(&mut crowd, n % 3);
        }
        assert_eq!(
            crowd.enter(at(0), false),
            Err(Full::All),
            "it would have four, others have three"
        );
        assert!(entered(&mut crowd, 9).1.is_some(), "who has none has a place");
        assert_eq!(crowd.enter(at(9), false), Err(Full::All));
    }

    #[test]
    fn the_last_tenth_is_for_who_has_none() {
        let mut crowd = Crowd::new(20, 20);
        for n in 0..18 {
            entered(&mut crowd, n);
        }
        assert_eq!(crowd.enter(at(0), false), Err(Full::All));
        assert_eq!(entered(&mut crowd, 18).1, None, "nobody has more than one");
        assert!(matches!(crowd.enter(at(0), true), Ok((_, None))), "behind a proxy there are many");
    }

    #[test]
    fn there_are_no_more_than_the_system_lets_open() {
        assert_eq!(bearable(10_000, 1_048_576, 512), 10_000);
        assert_eq!(bearable(10_000, 1024, 512), 256);
        assert_eq!(bearable(10_000, 100, 512), 1);
    }

    proptest! {
        #[test]
        fn who_left_is_not_counted_and_nothing_is_kept(steps in proptest::collection::vec((0u8..4, any::<bool>()), 0..200)) {
            let (mut crowd, mut here) = (Crowd::new(6, 3), Vec::<(u8, Place)>::new());
            let mut told = std::collections::BTreeSet::new();
            for (n, enters) in steps {
                if enters {
                    let most = (0..4).map(|n| here.iter().filter(|(one, _)| *one == n).count()).max();
                    if let Ok((place, ended)) = crowd.enter(at(n), false) {
                        if let Some(ended) = ended {
                            prop_assert!(told.insert(ended), "told twice");
                            prop_assert!(here.iter().any(|(_, place)| place.number() == ended));
                            prop_assert!(most > Some(1));
                        }
                        here.push((n, place));
                    }
                } else if let Some(place) = here.iter().position(|(one, _)| *one == n) {
                    crowd.leave(here.swap_remove(place).1);
                }
                prop_assert_eq!(crowd.open(), here.len());
                prop_assert!(here.len() <= 6);
                prop_assert!(here.iter().filter(|(one, _)| *one == n).count() <= 3);
            }
            for (_, place) in here {
                crowd.leave(place);
            }
            prop_assert!(crowd.of.is_empty() && crowd.by_number.is_empty());
        }
    }
}
