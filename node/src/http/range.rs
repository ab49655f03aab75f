//! The `Range` header of a blob's GET (RFC 9110 section 14). One range is served; several, or another unit, are answered with the whole, as the RFC allows.

use std::ops::Range;

/// What a `Range` header asks of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of it.
    Whole,
    /// These bytes.
    Part(Range<u64>),
    /// Bytes that it does not have.
    Unsatisfiable,
}

/// Reads `header` for a blob of `size` bytes.
pub fn wanted(header: Option<&str>, size: u64) -> Wanted {
    let Some(spec) = header.and_then(|h| h.trim().strip_prefix("bytes=")) else { return Wanted::Whole };
    if spec.contains(',') {
        return Wanted::Whole;
    }
    let Some((first, last)) = spec.split_once('-') else { return Wanted::Whole };
    let number = |text: &str| text.trim().parse::<u64>().ok();
    match (first.trim(), last.trim()) {
        ("", last) => match number(last) {
            Some(0) => Wanted::Unsatisfiable,
            Some(_) if size == 0 => Wanted::Unsatisfiable,
            Some(n) => Wanted::Part(size.saturating_sub(n)..size),
            None => Wanted::Whole,
        },
        (first, last) => match (number(first), last, number(last)) {
            (Some(first), _, _) if first >= size => Wanted::Unsatisfiable,
            (Some(first), "", _) => Wanted::Part(first..size),
            (Some(first), _, Some(last)) if last >= first => Wanted::Part(first..size.min(last.saturating_add(1))),
            (Some(_), _, Some(_)) => Wanted::Unsatisfiable,
            _ => Wanted::Whole,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_read_as_clients_write_them() {
        for (header, expected) in [
            ("bytes=0-", Wanted::Part(0..10)),
            ("bytes=3-", Wanted::Part(3..10)),
            ("bytes=3-5", Wanted::Part(3..6)),
            ("bytes=3-500", Wanted::Part(3..10)),
            ("bytes=-4", Wanted::Part(6..10)),
            ("bytes=-400", Wanted::Part(0..10)),
            ("bytes=10-", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=5-3", Wanted::Unsatisfiable),
            ("bytes=0-1,3-4", Wanted::Whole),
            ("lines=0-1", Wanted::Whole),
            ("bytes=x-", Wanted::Whole),
        ] {
            assert_eq!(wanted(Some(header), 10), expected, "{header}");
        }
        assert_eq!(wanted(None, 10), Wanted::Whole);
    }

    proptest! {
        #[test]
        fn a_part_lies_within_the_blob(header in ".{0,30}|bytes=[0-9]{0,20}-[0-9]{0,20}", size in 0u64..1000) {
            if let Wanted::Part(range) = wanted(Some(&header), size) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }
    }
}
