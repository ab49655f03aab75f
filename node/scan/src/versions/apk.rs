//! Alpine's versions: `1.2.3b_rc1_p2-r4` (apk-tools' `version.c`).

use std::cmp::Ordering;

/// Suffixes that make a version earlier, then those that make it later, in their order.
const BEFORE: [&str; 4] = ["alpha", "beta", "pre", "rc"];
const AFTER: [&str; 5] = ["cvs", "svn", "git", "hg", "p"];

/// What the next part of a version is. The order is the one in which apk-tools compares them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Invalid,
    DigitOrZero,
    Digit,
    Letter,
    Suffix,
    SuffixNumber,
    Revision,
    End,
}

/// A version that is being read.
struct Reading<'a> {
    next: Part,
    rest: &'a [u8],
}

impl<'a> Reading<'a> {
    fn new(text: &'a str) -> Self {
        Reading { next: Part::Digit, rest: text.as_bytes() }
    }

    /// The value of the next part. Afterwards `next` says what follows it.
    fn value(&mut self) -> i64 {
        if self.rest.is_empty() {
            self.next = Part::End;
            return 0;
        }
        let digits = |rest: &[u8]| rest.iter().take_while(|c| c.is_ascii_digit()).count();
        let mut becomes = None;
        let (value, length) = match self.next {
            // after a point, leading zeros make a fraction: 1.05 is before 1.1
            Part::DigitOrZero if self.rest[0] == b'0' => {
                let zeros = self.rest.iter().take_while(|c| **c == b'0').count();
                let more = self.rest.get(zeros).is_some_and(u8::is_ascii_digit);
                self.next = Part::Digit;
                becomes = more.then_some(Part::Digit);
                (-(zeros as i64), zeros)
            }
            Part::DigitOrZero | Part::Digit | Part::SuffixNumber | Part::Revision => {
                let length = digits(self.rest);
                let value = self.rest[..length].iter().fold(0_i64, |sum, digit| {
                    sum.saturating_mul(10).saturating_add(i64::from(digit - b'0'))
                });
                if length == 0 {
                    becomes = Some(Part::Invalid);
                }
                (value, length)
            }
            Part::Letter => (i64::from(self.rest[0]), 1),
            Part::Suffix => self.suffix().unwrap_or_else(|| {
                becomes = Some(Part::Invalid);
                (0, 0)
            }),
            Part::Invalid | Part::End => return 0,
        };
        self.rest = &self.rest[length..];
        match becomes {
            Some(Part::Invalid) => self.next = Part::Invalid,
            _ if self.rest.is_empty() => self.next = Part::End,
            Some(part) => self.next = part,
            None => self.follow(),
        }
        value
    }

    fn suffix(&self) -> Option<(i64, usize)> {
        let find =
            |words: &[&str]| words.iter().position(|word| self.rest.starts_with(word.as_bytes()));
        // the longer of two that begin alike: `pre` before `p`
        match (find(&BEFORE), find(&AFTER)) {
            (Some(at), _) => Some((at as i64 - BEFORE.len() as i64, BEFORE[at].len())),
            (None, Some(at)) => Some((at as i64, AFTER[at].len())),
            (None, None) => None,
        }
    }

    /// Finds out what the next part is, by its first characters.
    fn follow(&mut self) {
        let before = self.next;
        let first = self.rest[0];
        let (part, length) = match (before, first) {
            (Part::Digit | Part::DigitOrZero, b'a'..=b'z') => (Part::Letter, 0),
            (Part::Letter, b'0'..=b'9') => (Part::Digit, 0),
            (Part::Suffix, b'0'..=b'9') => (Part::SuffixNumber, 0),
            (_, b'.') => (Part::DigitOrZero, 1),
            (_, b'_') => (Part::Suffix, 1),
            (_, b'-') if self.rest.get(1) == Some(&b'r') => (Part::Revision, 2),
            _ => (Part::Invalid, 0),
        };
        let backwards = part < before
            && !matches!(
                (before, part),
                (Part::Digit, Part::DigitOrZero)
                    | (Part::SuffixNumber, Part::Suffix)
                    | (Part::Letter, Part::Digit)
            );
        self.next = if backwards { Part::Invalid } else { part };
        self.rest = &self.rest[length..];
        if self.rest.is_empty() && self.next != Part::Suffix {
            self.next = Part::Invalid; // a sign at the end, and nothing after it
        }
    }
}

/// Whether a text is a version.
pub(crate) fn is_version(text: &str) -> bool {
    let mut reading = Reading::new(text);
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return false;
    }
    while !matches!(reading.next, Part::End | Part::Invalid) {
        reading.value();
    }
    reading.next == Part::End
}

/// Which of two is the later one. `None` if one of them is no version.
pub(crate) fn compare(one: &str, other: &str) -> Option<Ordering> {
    if !is_version(one) || !is_version(other) {
        return None;
    }
    let (mut a, mut b) = (Reading::new(one), Reading::new(other));
    let (mut left, mut right) = (0, 0);
    while a.next == b.next && !matches!(a.next, Part::End | Part::Invalid) && left == right {
        (left, right) = (a.value(), b.value());
    }
    if left != right {
        return Some(left.cmp(&right));
    }
    if a.next == Part::End && b.next == Part::End {
        return Some(Ordering::Equal);
    }
    // the longer one is later, but for a suffix that makes it earlier
    if a.next == Part::Suffix && a.value() < 0 {
        return Some(Ordering::Less);
    }
    if b.next == Part::Suffix && b.value() < 0 {
        return Some(Ordering::Greater);
    }
    Some(b.next.cmp(&a.next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_apk_orders_them() {
        for (one, other, expected) in [
            ("2.34", "0.1.0_alpha", Ordering::Greater),
            ("0.1.0_alpha", "0.1.0_beta", Ordering::Less),
            ("0.1.0_beta", "0.1.0", Ordering::Less),
            ("0.1.0_rc2", "0.1.0_p1", Ordering::Less),
            ("1.0.4", "1.0.4_p1", Ordering::Less),
            ("1.0", "1.0.0", Ordering::Less),
            ("1.05", "1.1", Ordering::Less),
            ("1.05", "1.06", Ordering::Less),
            ("1.1.1k-r0", "1.1.1l-r0", Ordering::Less),
            ("1.1.1l-r0", "1.1.1l-r10", Ordering::Less),
            ("3.0.8-r0", "3.0.8-r0", Ordering::Equal),
            ("3.0.9-r1", "3.0.10-r0", Ordering::Less),
            ("1.2", "1.2-r1", Ordering::Less),
            ("6.0_pre1", "6.0", Ordering::Less),
            ("6.1_pre1", "6.0", Ordering::Greater),
            ("6.0_p1", "6.0", Ordering::Greater),
            ("6.1_pre1", "6.1_pre2", Ordering::Less),
            ("6.1a", "6.1b", Ordering::Less),
            ("1.0_git20200101", "1.0_git20210101", Ordering::Less),
        ] {
            assert_eq!(compare(one, other), Some(expected), "{one} {other}");
            assert_eq!(compare(other, one), Some(expected.reverse()), "{other} {one}");
        }
        for wrong in ["", "a1", "1.", "1.2-", "1.2-x1", "1_foo", "1.2 ", "1..2"] {
            assert!(!is_version(wrong), "{wrong}");
        }
    }
}
