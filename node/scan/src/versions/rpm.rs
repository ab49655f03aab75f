//! RPM's versions: `[epoch:]version[-release]` (rpm's `rpmvercmp`).

use std::cmp::Ordering;

/// A version, taken apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Version<'a> {
    pub(crate) epoch: u64,
    pub(crate) version: &'a str,
    pub(crate) release: &'a str,
}

impl<'a> Version<'a> {
    /// Reads a version. Every text is one; an epoch that is no number is 0.
    pub(crate) fn parse(text: &'a str) -> Self {
        let (epoch, rest) = match text.split_once(':') {
            Some((epoch, rest)) => (epoch.trim_start().parse().unwrap_or_default(), rest),
            None => (0, text),
        };
        let (version, release) = rest.split_once('-').unwrap_or((rest, ""));
        Version { epoch, version, release }
    }

    /// The version without an epoch of 0.
    pub(crate) fn plain(&self) -> String {
        let epoch = if self.epoch == 0 { String::new() } else { format!("{}:", self.epoch) };
        let release =
            if self.release.is_empty() { String::new() } else { format!("-{}", self.release) };
        format!("{epoch}{}{release}", self.version)
    }

    /// Which of two is the later one.
    pub(crate) fn compare(&self, other: &Version<'_>) -> Ordering {
        self.epoch
            .cmp(&other.epoch)
            .then_with(|| compare_part(self.version, other.version))
            .then_with(|| compare_part(self.release, other.release))
    }
}

/// Pieces: runs of digits, runs of letters, and each `~` and `^`. All else separates.
fn pieces(text: &str) -> Vec<&str> {
    let class = |c: u8| match c {
        b'0'..=b'9' => 1,
        b'a'..=b'z' | b'A'..=b'Z' => 2,
        b'~' | b'^' => 3,
        _ => 0,
    };
    let bytes = text.as_bytes();
    let (mut pieces, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let (start, kind) = (at, class(bytes[at]));
        at += 1;
        while kind != 3 && at < bytes.len() && class(bytes[at]) == kind {
            at += 1;
        }
        if kind != 0 {
            pieces.push(&text[start..at]);
        }
    }
    pieces
}

fn compare_part(one: &str, other: &str) -> Ordering {
    if one == other {
        return Ordering::Equal;
    }
    let (one, other) = (pieces(one), pieces(other));
    for (a, b) in one.iter().zip(&other) {
        let compared = compare_piece(a, b);
        if compared.is_ne() {
            return compared;
        }
    }
    let first_left = |pieces: &[&str], others: &[&str]| pieces.get(others.len()) == Some(&"~");
    if first_left(&one, &other) {
        Ordering::Less
    } else if first_left(&other, &one) {
        Ordering::Greater
    } else {
        one.len().cmp(&other.len())
    }
}

fn compare_piece(a: &str, b: &str) -> Ordering {
    for sign in ["~", "^"] {
        match (a == sign, b == sign) {
            (true, true) => return Ordering::Equal,
            (true, false) => return Ordering::Less,
            (false, true) => return Ordering::Greater,
            (false, false) => {}
        }
    }
    let is_number = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    match (is_number(a), is_number(b)) {
        (true, true) => {
            let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
            a.len().cmp(&b.len()).then_with(|| a.cmp(b))
        }
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => a.cmp(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_rpm_orders_them() {
        for (one, other, expected) in [
            ("1.0", "1.0", Ordering::Equal),
            ("1.0", "2.0", Ordering::Less),
            ("2.0.1a", "2.0.1", Ordering::Greater),
            ("5.5p1", "5.5p10", Ordering::Less),
            ("10xyz", "10.1xyz", Ordering::Less),
            ("xyz.4", "8", Ordering::Less),
            ("6.5p1", "5.6p1", Ordering::Greater),
            ("10.0001", "10.0039", Ordering::Less),
            ("2_0", "2.0", Ordering::Equal),
            ("1.0~rc1", "1.0", Ordering::Less),
            ("1.0~rc1~git123", "1.0~rc1", Ordering::Less),
            ("1.0^", "1.0", Ordering::Greater),
            ("1.0^git1", "1.01", Ordering::Less),
            ("1:1.0", "2.0", Ordering::Greater),
            ("0:3.0-1.el9", "3.0-1.el9", Ordering::Equal),
            ("3.0.7-18.el9_2", "3.0.7-25.el9_3", Ordering::Less),
        ] {
            let compared = Version::parse(one).compare(&Version::parse(other));
            assert_eq!(compared, expected, "{one} {other}");
            let back = Version::parse(other).compare(&Version::parse(one));
            assert_eq!(back, expected.reverse(), "{other} {one}");
        }
        assert_eq!(Version::parse("0:1.2-3").plain(), "1.2-3");
        assert_eq!(Version::parse("2:1.2-3").plain(), "2:1.2-3");
    }
}
