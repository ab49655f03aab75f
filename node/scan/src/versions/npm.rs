//! npm's versions: SemVer, with ranges in which numbers may be missing. (aquasecurity/go-npm-version
//! with pre-releases.)

use std::cmp::Ordering;

use super::plain::{Identifier, compare_pre, identifiers};
use super::ranges::{self, fulfils};

/// A version, or a bound of which numbers may be missing.
struct Version {
    /// `None`: any.
    numbers: [Option<u64>; 3],
    pre: Vec<Identifier>,
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let text = text.split_once('+').map_or(text, |(text, _)| text);
        let (numbers, pre) = match text.split_once('-') {
            Some((numbers, pre)) => (numbers, identifiers(pre)?),
            None => (text, Vec::new()),
        };
        let mut parsed = [None; 3];
        for (at, part) in numbers.split('.').enumerate() {
            let place = parsed.get_mut(at)?;
            *place = match part {
                "*" | "x" | "X" => None,
                part => Some(part.parse().ok()?),
            };
        }
        Some(Version { numbers: parsed, pre })
    }

    fn is_partial(&self) -> bool {
        self.numbers.contains(&None)
    }

    /// Compares with a bound. From its first missing number on all are equal to it.
    fn compare(&self, bound: &Version) -> Ordering {
        for (one, other) in self.numbers.iter().zip(&bound.numbers) {
            let (Some(one), Some(other)) = (one, other) else { return Ordering::Equal };
            let compared = one.cmp(other);
            if compared.is_ne() {
                return compared;
            }
        }
        compare_pre(&self.pre, &bound.pre)
    }

    /// Where `~1.2.3` ends (1.3.0), and `^1.2.3` (2.0.0): the number at `at` goes up by one.
    fn after(&self, at: usize) -> Version {
        let mut numbers = self.numbers.map(|number| Some(number.unwrap_or_default()));
        numbers[at] = numbers[at].map(|number| number.saturating_add(1));
        numbers[at + 1..].fill(Some(0));
        Version { numbers, pre: Vec::new() }
    }
}

/// Whether a version is in a range. `None` if one of them cannot be read.
pub(crate) fn is_in(version: &str, range: &str) -> Option<bool> {
    let version = Version::parse(version.trim()).filter(|version| !version.is_partial())?;
    ranges::satisfies(range, |bound| {
        let told = Version::parse(bound.version)?;
        if told.is_partial() && !told.pre.is_empty() {
            return Some(false);
        }
        let compared = version.compare(&told);
        let before = |at| Some(compared.is_ge() && version.compare(&told.after(at)).is_lt());
        match bound.operator {
            "~" if told.numbers[0].is_none() => Some(true),
            "~" => before(usize::from(told.numbers[1].is_some())),
            "^" if told.numbers[0].is_none() => Some(true),
            "^" => {
                // the first number that is not 0, else the last one that is told
                let told_numbers = told.numbers.iter().take_while(|number| number.is_some());
                let last = told_numbers.count().saturating_sub(1);
                let first = told.numbers.iter().position(|one| one.is_some_and(|one| one != 0));
                before(first.unwrap_or(last))
            }
            // npm has none, and nor has the library that trivy uses
            "!=" => None,
            operator => fulfils(operator, compared),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_npm_hold() {
        for (version, range, expected) in [
            ("4.17.15", "<4.17.21", Some(true)),
            ("4.17.21", "<4.17.21", Some(false)),
            ("4.17.15", ">=3.7.0, <4.17.19", Some(true)),
            ("1.2.3-alpha", "<1.2.3-beta", Some(true)),
            ("1.4.5-lts.1", ">=1.4.4-lts.1, <2.0.0", Some(true)),
            ("2.3.4", "==2", Some(true)),
            ("0.0.1-alpha", ">0", Some(false)),
            ("0.0.1-alpha", ">=0-0", Some(false)),
            ("4.0.0", "<1.2.3 || > 3.0.0,\t< 4.0.0", Some(false)),
            ("0.3.0-alpha", "~0.2", Some(true)),
            ("1.0.1", "~0", Some(false)),
            ("1.2.4-beta.2", "~1.2.3-beta.2", Some(true)),
            ("1.3.4-beta.2", "~1.2.3-beta.2", Some(false)),
            ("1.2.1-alpha.1", "^1.2.0", Some(true)),
            ("0.2.4-beta.2", "^0.2.3-beta.2", Some(true)),
            ("0.3.4-beta.2", "^0.2.3-beta.2", Some(false)),
            ("1.2", "<2", None),
            ("latest", "<2", None),
            ("1.2.3", "<2.x.y", None),
            ("1.2.3", "!=1.2.4", None),
        ] {
            assert_eq!(is_in(version, range), expected, "{version} {range}");
        }
    }
}
