//! Which key signs tokens, which keys are accepted, and when there is a new one.
//!
//! A key is in the ledger for a while before anything is signed with it, so that edges know it by
//! then. It is accepted for as long as a token that it has signed may be valid.

use std::time::Duration;

use crate::ledger::people::TokenKey;
use crate::words::moment::Timestamp;

/// How long a key signs, before the next one does.
pub const SIGNS_FOR: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long a key is known before it signs. An edge looks for new keys every two seconds while it
/// can reach a replica.
pub const KNOWN_FOR: Duration = Duration::from_secs(600);

fn after(at: Timestamp, wait: Duration) -> Timestamp {
    Timestamp(at.0.saturating_add(wait.as_millis() as u64))
}

/// The key that signs at `now`: the newest that has been known for a while, and the first key at
/// once. `keys` are in the order of their numbers.
pub fn signing(keys: &[TokenKey], now: Timestamp) -> Option<&TokenKey> {
    keys.iter().rev().find(|key| after(key.created, KNOWN_FOR) <= now).or(keys.first())
}

/// The key with this number, if tokens that it has signed are accepted.
pub fn accepted(keys: &[TokenKey], number: u64) -> Option<&TokenKey> {
    keys.iter().find(|key| key.number == number)
}

/// Whether a token that was signed with the mesh's old shared secret at `issued` is accepted: only
/// if there was no key then, but for what nodes and clocks may be behind.
pub fn accepts_shared_secret(keys: &[TokenKey], issued: Timestamp) -> bool {
    keys.first().is_none_or(|first| issued <= after(first.created, KNOWN_FOR))
}

/// A new key that is due: the number of the newest key now (0 if there is none), and the number
/// below which keys are not needed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// The newest key's number.
    pub after: u64,
    /// Keys below this are not needed: no token that they have signed is valid.
    pub forget_below: u64,
}

/// Whether a new key is due at `now`. `lasts` is the longest validity of a token.
pub fn due(keys: &[TokenKey], now: Timestamp, lasts: Duration) -> Option<Due> {
    let Some(newest) = keys.last() else { return Some(Due { after: 0, forget_below: 0 }) };
    if now < after(newest.created, SIGNS_FOR) {
        return None;
    }
    // a key signs until its successor has been known for a while
    let ended = |pair: &[TokenKey]| after(pair[1].created, KNOWN_FOR + lasts) < now;
    let needed = keys.windows(2).find(|pair| !ended(pair)).map_or(newest.number, |p| p[0].number);
    Some(Due { after: newest.number, forget_below: needed })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600 * 1000;

    fn key(number: u64, day: u64) -> TokenKey {
        TokenKey {
            number,
            public: vec![number as u8],
            sealed: "sealed".into(),
            created: Timestamp(day * DAY),
        }
    }

    #[test]
    fn a_new_key_is_known_before_it_signs() {
        let keys = [key(1, 0), key(2, 30)];
        let signs = |at| signing(&keys, Timestamp(at)).map(|key| key.number);
        assert_eq!(signs(0), Some(1), "the first one at once");
        assert_eq!(signs(30 * DAY), Some(1));
        assert_eq!(signs(30 * DAY + 600_000), Some(2));
        assert_eq!(signing(&[], Timestamp(0)), None);
        // a clock that is behind signs with what there is
        assert_eq!(signing(&keys[1..], Timestamp(0)).map(|key| key.number), Some(2));
    }

    #[test]
    fn a_key_is_made_in_time_and_forgotten_when_nothing_needs_it() {
        let lasts = Duration::from_secs(10 * 24 * 3600);
        assert_eq!(due(&[], Timestamp(0), lasts), Some(Due { after: 0, forget_below: 0 }));
        assert_eq!(due(&[key(1, 0)], Timestamp(29 * DAY), lasts), None);
        let due = |keys: &[TokenKey], day| due(keys, Timestamp(day * DAY), lasts);
        assert_eq!(due(&[key(1, 0)], 30), Some(Due { after: 1, forget_below: 1 }));
        // key 1 signed until day 30, so its tokens are valid until day 40
        assert_eq!(due(&[key(1, 0), key(2, 30)], 60), Some(Due { after: 2, forget_below: 2 }));
        let three = [key(1, 0), key(2, 30), key(3, 60)];
        assert_eq!(due(&three, 90), Some(Due { after: 3, forget_below: 3 }));
        let long = Duration::from_secs(45 * 24 * 3600);
        let due = super::due(&three, Timestamp(95 * DAY), long);
        assert_eq!(due, Some(Due { after: 3, forget_below: 2 }));
    }

    #[test]
    fn the_old_secret_is_accepted_for_as_long_as_it_was_the_only_one() {
        assert!(accepts_shared_secret(&[], Timestamp(9)));
        let keys = [key(1, 1)];
        assert!(accepts_shared_secret(&keys, Timestamp(DAY)));
        assert!(accepts_shared_secret(&keys, Timestamp(DAY + 600_000)));
        assert!(!accepts_shared_secret(&keys, Timestamp(DAY + 600_001)));
    }
}
