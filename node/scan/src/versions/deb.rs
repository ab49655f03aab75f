//! Debian's versions: `[epoch:]upstream[-revision]` (deb-version(7)).

use std::cmp::Ordering;

/// A version, taken apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Version<'a> {
    pub(crate) epoch: u64,
    pub(crate) upstream: &'a str,
    pub(crate) revision: &'a str,
}

impl<'a> Version<'a> {
    /// Reads a version, by the policy's grammar.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let text = text.trim();
        let (epoch, rest) = match text.split_once(':') {
            Some((epoch, rest)) => (epoch.parse().ok()?, rest),
            None => (0, text),
        };
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        let allowed = |c: char| c.is_ascii_alphanumeric() || ".-+~:_".contains(c);
        let good = upstream.starts_with(|c: char| c.is_ascii_digit())
            && upstream.chars().all(allowed)
            && revision.chars().all(|c| allowed(c) && c != '-' && c != ':');
        good.then_some(Version { epoch, upstream, revision })
    }

    /// Which of two is the later one.
    pub(crate) fn compare(&self, other: &Version<'_>) -> Ordering {
        self.epoch
            .cmp(&other.epoch)
            .then_with(|| compare_part(self.upstream, other.upstream))
            .then_with(|| compare_part(self.revision, other.revision))
    }
}

/// Where a character sorts: `~` before the end, letters before all others.
fn weight(c: Option<u8>) -> i32 {
    match c {
        Some(b'~') => -1,
        None => 0,
        Some(c) if c.is_ascii_digit() => 0,
        Some(c) if c.is_ascii_alphabetic() => i32::from(c),
        Some(c) => i32::from(c) + 256,
    }
}

/// Compares two parts by turns: what is no digit, character by character, then the number.
fn compare_part(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one.as_bytes(), other.as_bytes());
    while !one.is_empty() || !other.is_empty() {
        let is_text = |rest: &[u8]| rest.first().is_some_and(|c| !c.is_ascii_digit());
        while is_text(one) || is_text(other) {
            let compared = weight(one.first().copied()).cmp(&weight(other.first().copied()));
            if compared.is_ne() {
                return compared;
            }
            one = one.get(1..).unwrap_or_default();
            other = other.get(1..).unwrap_or_default();
        }
        let (first, rest) = number(one);
        let (second, other_rest) = number(other);
        let compared = first.len().cmp(&second.len()).then_with(|| first.cmp(second));
        if compared.is_ne() {
            return compared;
        }
        (one, other) = (rest, other_rest);
    }
    Ordering::Equal
}

/// The digits at the beginning, without leading zeros, and the rest.
fn number(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|c| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let zeros = digits.iter().position(|c| *c != b'0').unwrap_or(digits.len());
    (&digits[zeros..], rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(one: &str, other: &str) -> Option<Ordering> {
        Some(Version::parse(one)?.compare(&Version::parse(other)?))
    }

    #[test]
    fn versions_are_ordered_as_dpkg_orders_them() {
        // each is before the next one
        let sorted = [
            "1.0~~",
            "1.0~~a",
            "1.0~",
            "1.0~rc1-1",
            "1.0",
            "1.0-1",
            "1.0-1+b1",
            "1.0-1+deb11u1",
            "1.0-1+deb11u9",
            "1.0-1+deb11u10",
            "1.0-2",
            "1.0a",
            "1.0+b",
            "1.0.1",
            "1.2",
            "1.10",
            "1:0.1",
        ];
        for (at, one) in sorted.iter().enumerate() {
            for (other_at, other) in sorted.iter().enumerate() {
                assert_eq!(order(one, other), Some(at.cmp(&other_at)), "{one} {other}");
            }
        }
        assert_eq!(order("0:1.0", "1.0"), Some(Ordering::Equal));
        assert_eq!(order("1.0", "1.0-0"), Some(Ordering::Equal));
        assert_eq!(order("1.01", "1.1"), Some(Ordering::Equal));
        assert_eq!(order("2.31-13+deb11u11", "2.31-13+deb11u14"), Some(Ordering::Less));
        for wrong in ["", "x1", "a:1", "1:", "1.0-1$", "1 0"] {
            assert!(Version::parse(wrong).is_none(), "{wrong}");
        }
    }
}
