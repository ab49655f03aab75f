//! Versions that look like SemVer, with any number of numbers: Go's modules and Rust's crates.
//! (aquasecurity/go-version.)

use std::cmp::Ordering;

use super::ranges::{self, fulfils};

/// A version, taken apart. What follows `+` does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    numbers: Vec<u64>,
    pre: Vec<Identifier>,
}

/// A part of what makes a version earlier than the release.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Identifier {
    /// Numbers are before words.
    Number(u64),
    /// Compared byte by byte.
    Word(String),
}

/// The identifiers of a pre-release, which are separated by points.
pub(crate) fn identifiers(text: &str) -> Option<Vec<Identifier>> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '~';
    text.split('.')
        .map(|part| {
            let good = !part.is_empty() && part.chars().all(allowed);
            let number = part.parse().map(Identifier::Number);
            good.then(|| number.unwrap_or_else(|_| Identifier::Word(part.to_owned())))
        })
        .collect()
}

/// Pre-releases are before their release, and compared identifier by identifier (SemVer 11).
pub(crate) fn compare_pre(one: &[Identifier], other: &[Identifier]) -> Ordering {
    match (one.is_empty(), other.is_empty()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => one.cmp(other),
    }
}

impl Version {
    /// Reads a version: `v1.2.3-rc.1+build`. The `-` may be missing before a letter (`1.2b1`).
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let (text, build) = match text.split_once('+') {
            Some((text, build)) => (text, Some(build)),
            None => (text, None),
        };
        if build.is_some_and(|build| identifiers(build).is_none()) {
            return None;
        }
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (numbers, rest) = text.split_at(end);
        let numbers = numbers.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
        let pre = match rest {
            "" => Vec::new(),
            rest => identifiers(rest.strip_prefix('-').unwrap_or(rest))?,
        };
        Some(Version { numbers, pre })
    }

    /// Which of two is the later one. Missing numbers are zeros.
    pub(crate) fn compare(&self, other: &Version) -> Ordering {
        let most = self.numbers.len().max(other.numbers.len());
        let number = |version: &Version, at| version.numbers.get(at).copied().unwrap_or_default();
        (0..most)
            .map(|at| number(self, at).cmp(&number(other, at)))
            .find(|compared| compared.is_ne())
            .unwrap_or_else(|| compare_pre(&self.pre, &other.pre))
    }

    fn with(&self, change: impl FnOnce(&mut Vec<u64>)) -> Version {
        let mut numbers = self.numbers.clone();
        change(&mut numbers);
        Version { numbers, pre: Vec::new() }
    }

    /// Where `~> 1.2.3` ends: 1.3.0; of `~> 1.2`: 2.0.
    fn after_pessimistic(&self) -> Version {
        self.with(|numbers| {
            let last = numbers.len() - 1;
            if last == 0 {
                numbers[0] = numbers[0].saturating_add(1);
            } else {
                numbers[last] = 0;
                numbers[last - 1] = numbers[last - 1].saturating_add(1);
            }
        })
    }

    /// Where `~1.2.3` ends: 1.3.0; of `~1.2`: 1.3.
    fn after_tilde(&self) -> Version {
        if self.numbers.len() == 2 {
            self.with(|numbers| numbers[1] = numbers[1].saturating_add(1))
        } else {
            self.after_pessimistic()
        }
    }

    /// Where `^1.2.3` ends: 2.0.0; of `^0.2.3`: 0.3.0.
    fn after_caret(&self) -> Version {
        self.with(|numbers| {
            let last = numbers.len() - 1;
            let first = numbers.iter().position(|number| *number != 0).unwrap_or(last);
            numbers[first] = numbers[first].saturating_add(1);
            numbers[first + 1..].fill(0);
        })
    }
}

/// Whether a version is in a range. `None` if one of them cannot be read.
pub(crate) fn is_in(version: &str, range: &str) -> Option<bool> {
    let version = Version::parse(version)?;
    ranges::satisfies(range, |bound| {
        let told = Version::parse(bound.version)?;
        let compared = version.compare(&told);
        let before = |end: Version| Some(compared.is_ge() && version.compare(&end).is_lt());
        match bound.operator {
            "~>" => before(told.after_pessimistic()),
            "~" => before(told.after_tilde()),
            "^" => before(told.after_caret()),
            operator => fulfils(operator, compared),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_go_and_rust_hold() {
        for (version, range, expected) in [
            ("v1.2.3", "<1.2.4", Some(true)),
            ("v1.2.3", ">= 1.0.0, < 1.2.3 || >=2", Some(false)),
            ("1.6.0", ">=0.6.14, <1.0.0", Some(false)),
            (
                "v0.0.0-20200622213623-75b288015ac9",
                "<0.0.0-20201216223049-8b5274cf687f",
                Some(true),
            ),
            ("v2.0.0+incompatible", "<2.0.1", Some(true)),
            ("1.0.0-rc.1", "<1.0.0", Some(true)),
            ("1.0.0-rc.1", "<1.0.0-rc.2", Some(true)),
            ("1.21.3", ">=1.21.0-0, <1.21.4", Some(true)),
            ("v1.22rc1", "<1.22.0", Some(true)),
            ("1.2", "=1.2.0", Some(true)),
            ("1.2.9", "~1.2.3", Some(true)),
            ("1.3.0", "~1.2.3", Some(false)),
            ("1.9", "~>1.2", Some(true)),
            ("0.2.9", "^0.2.3", Some(true)),
            ("0.3.0", "^0.2.3", Some(false)),
            ("(devel)", "<1", None),
            ("1.0", "<x", None),
            ("1..0", "<2", None),
        ] {
            assert_eq!(is_in(version, range), expected, "{version} {range}");
        }
    }
}
