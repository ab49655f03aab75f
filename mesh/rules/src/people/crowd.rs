//! How many connections clients may have open: in all, and from one address, so that no single one
//! can take all of them.

use core::net::IpAddr;
use std::collections::HashMap;

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

/// The open connections of a node.
#[derive(Debug)]
pub struct Crowd {
    most: usize,
    each: usize,
    all: usize,
    of: HashMap<IpAddr, usize>,
}

impl Crowd {
    /// None is open yet. At most `most` may be, and `each` from one address (of an IPv6 address the
    /// network counts, see [`client_of`]).
    pub fn new(most: usize, each: usize) -> Self {
        Crowd { most, each, all: 0, of: HashMap::new() }
    }

    /// A connection was opened from `address`. If it may stay, [`Crowd::leave`] is to be called at
    /// its end. Many clients stand behind a `proxy`, so only the sum of all counts for it.
    pub fn enter(&mut self, address: IpAddr, proxy: bool) -> Result<(), Full> {
        if self.all >= self.most {
            return Err(Full::All);
        }
        let of = self.of.entry(client_of(address)).or_default();
        if *of >= self.each && !proxy {
            return Err(Full::Address);
        }
        *of += 1;
        self.all += 1;
        Ok(())
    }

    /// A connection that had entered has ended.
    pub fn leave(&mut self, address: IpAddr) {
        let address = client_of(address);
        let Some(of) = self.of.get_mut(&address) else { return };
        *of -= 1;
        self.all -= 1;
        if *of == 0 {
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

    #[test]
    fn one_address_cannot_take_all_and_a_proxy_may() {
        let mut crowd = Crowd::new(5, 2);
        assert_eq!([(); 2].map(|()| crowd.enter(at(1), false)), [Ok(()); 2]);
        assert_eq!(crowd.enter(at(1), false), Err(Full::Address));
        assert_eq!([(); 3].map(|()| crowd.enter(at(2), true)), [Ok(()); 3]);
        assert_eq!(crowd.enter(at(3), false), Err(Full::All));
        crowd.leave(at(1));
        assert_eq!(crowd.enter(at(3), false), Ok(()));
        assert_eq!(crowd.open(), 5);
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
            let (mut crowd, mut here) = (Crowd::new(6, 3), Vec::new());
            for (n, enters) in steps {
                if enters {
                    if crowd.enter(at(n), false).is_ok() {
                        here.push(n);
                    }
                } else if let Some(place) = here.iter().position(|one| *one == n) {
                    here.swap_remove(place);
                    crowd.leave(at(n));
                }
                prop_assert_eq!(crowd.open(), here.len());
                prop_assert!(here.len() <= 6);
                prop_assert!(here.iter().filter(|one| **one == n).count() <= 3);
            }
            for n in here {
                crowd.leave(at(n));
            }
            prop_assert!(crowd.of.is_empty());
        }
    }
}
