//! How a replica gets another's records without those that it has already: the receiver cuts its
//! own records into ranges of keys and sends the fingerprint of each; the sender says which are the
//! same, and sends the records of the others.
//!
//! So a replica that was away gets what has changed, one that is empty gets all, and a transfer
//! that broke goes on where it was, also from another sender: what has arrived is cut into ranges,
//! too.

use serde::{Deserialize, Serialize};

use super::fingerprint::Fingerprint;
use super::records::Pair;

/// The number of bytes of records after which a range ends.
pub const RANGE: usize = 1 << 20;
/// The number of bytes of a range's records that a sender holds until it knows whether they are
/// the same: a whole range and the largest record.
const HELD: usize = RANGE + (17 << 20);

/// The records after those of the range before, up to and with the key `last`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The last key. There may be no record with this key.
    #[serde(with = "serde_bytes")]
    pub last: Vec<u8>,
    /// The fingerprint of the records.
    pub fingerprint: Fingerprint,
}

/// Cuts records into ranges.
#[derive(Debug, Default)]
pub struct Cutter {
    bytes: usize,
    fingerprint: Fingerprint,
    last: Option<Vec<u8>>,
}

impl Cutter {
    /// The next record, in the order of keys. Returns the range that ends with it, if one does.
    pub fn add(&mut self, key: &[u8], value: &[u8]) -> Option<Range> {
        self.bytes += key.len() + value.len();
        self.fingerprint.add(key, value);
        let last = self.last.get_or_insert_default();
        last.clear();
        last.extend_from_slice(key);
        if self.bytes < RANGE { None } else { self.end() }
    }

    /// Ends the range that has begun, if there is one, with its last record.
    pub fn end(&mut self) -> Option<Range> {
        let Cutter { fingerprint, last, .. } = std::mem::take(self);
        last.map(|last| Range { last, fingerprint })
    }
}

/// What a sender says of a range. Any number of [`Said::Some`] may come before one of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// The receiver has the sender's records there.
    Same,
    /// The first, or the next, of the sender's records there.
    Some(Vec<Pair>),
    /// The last of the sender's records there; perhaps none.
    Rest(Vec<Pair>),
}

/// Says what the sender has in `range`, or in all that follows the last one if that is `None`.
/// Takes the records of the range from `records`, and returns their fingerprint.
///
/// # Errors
/// The first of `records` or of `say`.
pub fn tell<E>(
    records: &mut std::iter::Peekable<impl Iterator<Item = Result<Pair, E>>>,
    range: Option<&Range>,
    mut say: impl FnMut(Said) -> Result<(), E>,
) -> Result<Fingerprint, E> {
    let mut fingerprint = Fingerprint::default();
    let (mut held, mut bytes, mut differs) = (Vec::new(), 0, range.is_none());
    let within = |next: &Result<Pair, E>| match (next, range) {
        (Ok((key, _)), Some(range)) => *key <= range.last,
        _ => true,
    };
    while let Some(next) = records.next_if(within) {
        let (key, value) = next?;
        fingerprint.add(&key, &value);
        let length = key.len() + value.len();
        // what is held is one message, so it must not grow by much over a range
        if differs && bytes > 0 && bytes + length > RANGE {
            say(Said::Some(std::mem::take(&mut held)))?;
            bytes = 0;
        }
        bytes += length;
        held.push((key, value));
        if !differs && bytes > HELD {
            differs = true;
            bytes = say_in_parts(&mut held, &mut say)?;
        }
    }
    if range.is_some_and(|range| !differs && range.fingerprint == fingerprint) {
        say(Said::Same)?;
    } else {
        say_in_parts(&mut held, &mut say)?;
        say(Said::Rest(held))?;
    }
    Ok(fingerprint)
}

/// Says all of `held` but the last part, which has at most a range's bytes or is one record.
/// Returns the number of bytes of what is left.
fn say_in_parts<E>(
    held: &mut Vec<Pair>,
    say: &mut impl FnMut(Said) -> Result<(), E>,
) -> Result<usize, E> {
    let (mut part, mut bytes) = (Vec::new(), 0);
    for (key, value) in held.drain(..) {
        let length = key.len() + value.len();
        if bytes > 0 && bytes + length > RANGE {
            say(Said::Some(std::mem::take(&mut part)))?;
            bytes = 0;
        }
        bytes += length;
        part.push((key, value));
    }
    *held = part;
    Ok(bytes)
}

/// Checks, at the receiver, that what a sender says is in the order of keys and within the ranges.
#[derive(Debug, Default)]
pub struct Order {
    /// The greatest key of what was said, or of a range that is complete.
    until: Option<Vec<u8>>,
}

impl Order {
    /// Takes the records of one part of `range`, which is all that follows the last one if `None`.
    /// Returns their fingerprint; `None` if one is not in its place.
    pub fn take(&mut self, pairs: &[Pair], range: Option<&Range>) -> Option<Fingerprint> {
        let mut fingerprint = Fingerprint::default();
        for (key, value) in pairs {
            let follows = self.until.as_ref().is_none_or(|until| key > until);
            let within = range.is_none_or(|range| *key <= range.last);
            if !follows || !within {
                return None;
            }
            fingerprint.add(key, value);
            self.until = Some(key.clone());
        }
        Some(fingerprint)
    }

    /// `range` is complete.
    pub fn complete(&mut self, range: &Range) {
        self.until = Some(range.last.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    type Records = BTreeMap<Vec<u8>, Vec<u8>>;

    fn ranges(records: &Records) -> Vec<Range> {
        let mut cutter = Cutter::default();
        let mut ranges: Vec<_> =
            records.iter().filter_map(|(key, value)| cutter.add(key, value)).collect();
        ranges.extend(cutter.end());
        ranges
    }

    /// Brings `has` to `wanted`. Returns what it has then, and the bytes that were sent.
    fn brought(has: &Records, wanted: &Records) -> (Records, usize) {
        let mut source = wanted
            .iter()
            .map(|(key, value)| Ok::<_, Infallible>((key.clone(), value.clone())))
            .peekable();
        let (mut result, mut whole, mut sent) = (Records::new(), Fingerprint::default(), 0);
        let mut order = Order::default();
        let ranges = ranges(has);
        let mut after: Option<Vec<u8>> = None;
        for range in ranges.iter().map(Some).chain([None]) {
            let mut end = false;
            let of_range = tell(&mut source, range, |said| {
                assert!(!end, "nothing follows the end of a range");
                let pairs = match said {
                    Said::Same => {
                        let range = range.expect("the rest is never the same");
                        let own = has.iter().filter(|(key, _)| {
                            after.as_ref().is_none_or(|after| *key > after) && **key <= range.last
                        });
                        result.extend(own.map(|(key, value)| (key.clone(), value.clone())));
                        end = true;
                        return Ok(());
                    }
                    Said::Some(pairs) => {
                        assert!(!pairs.is_empty());
                        pairs
                    }
                    Said::Rest(pairs) => {
                        end = true;
                        pairs
                    }
                };
                let bytes: usize = pairs.iter().map(|(key, value)| key.len() + value.len()).sum();
                assert!(bytes <= RANGE || pairs.len() == 1, "a part has {bytes} bytes");
                order.take(&pairs, range).expect("the order is right");
                sent += bytes;
                result.extend(pairs);
                Ok(())
            });
            assert!(end, "each range has an end");
            whole.join(&of_range.unwrap_or_else(|never| match never {}));
            if let Some(range) = range {
                order.complete(range);
                after = Some(range.last.clone());
            }
        }
        let mut expected = Fingerprint::default();
        wanted.iter().for_each(|(key, value)| expected.add(key, value));
        assert_eq!(whole, expected);
        (result, sent)
    }

    fn record(number: usize, bytes: usize) -> (Vec<u8>, Vec<u8>) {
        (format!("m{number:06}").into_bytes(), vec![number as u8; bytes])
    }

    #[test]
    fn only_what_differs_is_sent() {
        let records: Records = (0..10_000).map(|number| record(number, 1000)).collect();
        assert_eq!(brought(&records, &records), (records.clone(), 0));
        let (all, sent) = brought(&Records::new(), &records);
        assert_eq!(all, records);
        assert!(sent > 10_000_000);
        let mut newer = records.clone();
        newer.insert(record(777, 0).0, b"other".to_vec());
        newer.remove(&record(5000, 0).0);
        newer.extend([record(20_000, 1000)]);
        let (all, sent) = brought(&records, &newer);
        assert_eq!(all, newer);
        assert!(sent < 3 * RANGE, "{sent} bytes");
        assert_eq!(brought(&records, &Records::new()), (Records::new(), 0));
    }

    #[test]
    fn what_lies_between_two_keys_of_the_receiver_may_be_of_any_size() {
        let few: Records = [record(0, 10), record(999_999, 10)].into();
        let mut many = few.clone();
        many.extend((1..200).map(|number| record(number, 300_000)));
        many.extend([record(500, 16 << 20), record(501, 16 << 20)]);
        assert_eq!(brought(&few, &many).0, many);
        assert_eq!(brought(&many, &few).0, few);
    }

    #[test]
    fn a_sender_that_goes_back_or_leaves_the_range_is_caught() {
        let range = Range { last: b"k".to_vec(), fingerprint: Fingerprint::default() };
        let pair = |key: &str| (key.as_bytes().to_vec(), vec![]);
        let mut order = Order::default();
        assert!(order.take(&[pair("b"), pair("a")], Some(&range)).is_none());
        let mut order = Order::default();
        assert!(order.take(&[pair("b")], Some(&range)).is_some());
        assert!(order.take(&[pair("b")], Some(&range)).is_none(), "twice");
        assert!(order.take(&[pair("l")], Some(&range)).is_none(), "behind the range");
        order.complete(&range);
        assert!(order.take(&[pair("j")], None).is_none(), "in a range that is complete");
        assert!(order.take(&[pair("l")], None).is_some());
    }

    proptest! {
        #[test]
        fn any_records_become_any_others(
            has in proptest::collection::btree_map(
                proptest::collection::vec(0u8..4, 0..4), 0usize..400_000, 0..12),
            wanted in proptest::collection::btree_map(
                proptest::collection::vec(0u8..4, 0..4), 0usize..400_000, 0..12),
        ) {
            let filled = |sizes: BTreeMap<Vec<u8>, usize>| -> Records {
                sizes.into_iter().map(|(key, size)| (key, vec![size as u8; size])).collect()
            };
            let (has, wanted) = (filled(has), filled(wanted));
            prop_assert_eq!(brought(&has, &wanted).0, wanted);
        }
    }
}
