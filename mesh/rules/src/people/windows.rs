//! How much of bodies a client may send over an HTTP/2 connection before the node has read it.
//!
//! A window is a promise of memory: each byte of it may have to be kept. And it bounds how fast one
//! upload is, because no more than a window is under way: 1 MiB, over a path of 100 ms, is 10 MiB/s. So
//! each connection has a small window for certain, and what the operator gives beyond that is lent to
//! those that are open, the most to the first.

/// The window that each connection has, in bytes.
pub const LEAST: u32 = 1 << 20;
/// The largest window.
pub const MOST: u32 = 16 << 20;

/// What is left to be lent to connections.
#[derive(Debug)]
pub struct Windows {
    left: u64,
}

impl Windows {
    /// `bytes` may be lent beyond [`LEAST`] for each connection.
    pub fn new(bytes: u64) -> Self {
        Windows { left: bytes }
    }

    /// The window of a new connection. [`Windows::give_back`] is to be called with it at its end. No
    /// connection takes more than a quarter of what is left, so that there is something for the next.
    pub fn lend(&mut self) -> u32 {
        let more = u32::try_from(self.left / 4).unwrap_or(u32::MAX).min(MOST - LEAST);
        self.left -= u64::from(more);
        LEAST + more
    }

    /// A connection with this window has ended.
    pub fn give_back(&mut self, window: u32) {
        self.left += u64::from(window.saturating_sub(LEAST));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn few_connections_have_large_windows_and_many_have_the_least() {
        let mut windows = Windows::new(256 << 20);
        let all: Vec<u32> = (0..1000).map(|_| windows.lend()).collect();
        assert_eq!(all[..12], [MOST; 12]);
        assert!(all.is_sorted_by(|one, next| one >= next));
        assert!((LEAST..LEAST + 100).contains(&all[999]), "{}", all[999]);
        windows.give_back(all[0]);
        assert!(windows.lend() > all[999], "what was given back is lent again");
        assert_eq!(Windows::new(0).lend(), LEAST);
    }

    proptest! {
        #[test]
        fn no_more_is_lent_than_there_is(
            bytes in 0u64..1 << 33,
            ends in prop::collection::vec(any::<bool>(), 0..200),
        ) {
            let (mut windows, mut open) = (Windows::new(bytes), Vec::new());
            for end in ends {
                match (end, open.pop()) {
                    (true, Some(window)) => windows.give_back(window),
                    (_, popped) => {
                        open.extend(popped);
                        open.push(windows.lend());
                    }
                }
                let lent: u64 = open.iter().map(|window| u64::from(window - LEAST)).sum();
                prop_assert!(lent <= bytes);
                prop_assert!(open.iter().all(|window| (LEAST..=MOST).contains(window)));
            }
            open.into_iter().for_each(|window| windows.give_back(window));
            prop_assert_eq!(windows.left, bytes);
        }
    }
}
