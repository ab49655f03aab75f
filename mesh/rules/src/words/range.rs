//! The `Range` header of a GET of a blob (RFC 9110 section 14). One range is answered with a part,
//! several with parts (`multipart/byteranges`). More than [`MOST`] ranges, ranges with more bytes
//! than the blob, and other units are answered with the whole, as the RFC allows.

use std::ops::Range;

/// The maximum number of ranges that are answered as parts; podman asks for up to this many at
/// once.
pub const MOST: usize = 1024;

/// The bytes that a `Range` header asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranges {
    /// All of it.
    Whole,
    /// These bytes.
    Part(Range<u64>),
    /// These parts, in the order of the request; at least two.
    Parts(Vec<Range<u64>>),
    /// Bytes that the blob does not have.
    Unsatisfiable,
}

/// Parses `header` for a blob of `size` bytes. An invalid header is ignored.
pub fn wanted(header: Option<&str>, size: u64) -> Ranges {
    let Some((unit, set)) = header.and_then(|h| h.split_once('=')) else { return Ranges::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Ranges::Whole;
    }
    // a list may contain empty elements (section 5.6.1)
    let mut specs = set.split(',').map(str::trim).filter(|spec| !spec.is_empty()).peekable();
    if specs.peek().is_none() {
        return Ranges::Whole;
    }
    let (mut parts, mut sum) = (Vec::new(), 0_u64);
    for (count, spec) in specs.enumerate() {
        if count >= MOST {
            return Ranges::Whole;
        }
        match one(spec, size) {
            Some(Some(part)) => {
                sum = sum.saturating_add(part.end - part.start);
                parts.push(part);
            }
            Some(None) => {}
            None => return Ranges::Whole,
        }
    }
    match parts.len() {
        0 => Ranges::Unsatisfiable,
        1 => Ranges::Part(parts.remove(0)),
        // overlapping ranges must not add up to more than the blob
        _ if sum > size => Ranges::Whole,
        _ => Ranges::Parts(parts),
    }
}

/// One range of a blob of `size` bytes; `Some(None)` if the blob has no byte of it, `None` if it is
/// not a valid range.
fn one(spec: &str, size: u64) -> Option<Option<Range<u64>>> {
    let number = |text: &str| text.parse::<u64>().ok();
    let (first, last) = spec.split_once('-')?;
    let (first, last) = (first.trim(), last.trim());
    if first.is_empty() {
        let length = number(last)?;
        return Some((length > 0 && size > 0).then(|| size.saturating_sub(length)..size));
    }
    let first = number(first)?;
    let end = if last.is_empty() { size } else { size.min(number(last)?.saturating_add(1)) };
    Some((first < end).then_some(first..end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_read_as_clients_write_them() {
        for (header, expected) in [
            ("bytes=0-", Ranges::Part(0..10)),
            ("bytes=3-", Ranges::Part(3..10)),
            ("bytes=3-5", Ranges::Part(3..6)),
            ("bytes=3-500", Ranges::Part(3..10)),
            ("bytes=-4", Ranges::Part(6..10)),
            ("bytes=-400", Ranges::Part(0..10)),
            ("bytes=10-", Ranges::Unsatisfiable),
            ("bytes=-0", Ranges::Unsatisfiable),
            ("bytes=5-3", Ranges::Unsatisfiable),
            ("bytes=0-1,3-4", Ranges::Parts(vec![0..2, 3..5])),
            ("bytes=3-4, ,0-1,", Ranges::Parts(vec![3..5, 0..2])),
            ("bytes=0-1,20-30", Ranges::Part(0..2)),
            ("bytes=0-1,", Ranges::Part(0..2)),
            ("Bytes=,-4", Ranges::Part(6..10)),
            ("bytes=10-,20-30", Ranges::Unsatisfiable),
            ("bytes=0-,0-", Ranges::Whole),
            ("bytes=0-1,x-", Ranges::Whole),
            ("bytes=", Ranges::Whole),
            ("bytes", Ranges::Whole),
            ("lines=0-1", Ranges::Whole),
            ("bytes=x-", Ranges::Whole),
        ] {
            assert_eq!(wanted(Some(header), 10), expected, "{header}");
        }
        assert_eq!(wanted(None, 10), Ranges::Whole);
        let many = |count: usize| {
            format!(
                "bytes={}",
                (0..count).map(|n| format!("{n}-{n}")).collect::<Vec<_>>().join(",")
            )
        };
        assert!(
            matches!(wanted(Some(&many(MOST)), 10_000), Ranges::Parts(parts) if parts.len() == MOST)
        );
        assert_eq!(wanted(Some(&many(MOST + 1)), 10_000), Ranges::Whole);
    }

    proptest! {
        #[test]
        fn parts_lie_within_the_blob_and_are_not_more_than_it(
            header in ".{0,30}|bytes=[0-9]{0,20}-[0-9]{0,20}|bytes=([0-9]{0,3}-[0-9]{0,3},?){0,6}", size in 0u64..1000,
        ) {
            let parts = match wanted(Some(&header), size) {
                Ranges::Part(part) => vec![part],
                Ranges::Parts(parts) => parts,
                Ranges::Whole | Ranges::Unsatisfiable => Vec::new(),
            };
            for part in &parts {
                prop_assert!(part.start < part.end && part.end <= size);
            }
            prop_assert!(parts.iter().map(|part| part.end - part.start).sum::<u64>() <= size);
        }
    }
}
