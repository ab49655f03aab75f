//! Python's versions and specifiers (PEP 440), with pre-releases.

use std::cmp::Ordering;

use super::ranges::{self, Bound, fulfils};

/// A version, taken apart and normalized.
#[derive(Clone, Debug)]
struct Version {
    epoch: u64,
    release: Vec<u64>,
    /// `a`, `b` or `rc`, with its number.
    pre: Option<(char, u64)>,
    post: Option<u64>,
    dev: Option<u64>,
    /// What follows `+`.
    local: Vec<Local>,
}

/// A part of a local version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Local {
    Word(String),
    Number(u64),
}

/// What is left to read of a version in lower case.
struct Text<'a>(&'a str);

impl Text<'_> {
    fn take(&mut self, words: &[&str]) -> Option<usize> {
        let at = words.iter().position(|word| self.0.starts_with(word))?;
        self.0 = &self.0[words[at].len()..];
        Some(at)
    }

    fn number(&mut self) -> Option<u64> {
        let end = self.0.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.0.len());
        let (digits, rest) = self.0.split_at(end);
        let number = digits.parse().ok()?;
        self.0 = rest;
        Some(number)
    }

    /// `[-_.]?WORD[-_.]?[0-9]*`: the place of the word in `words`, and the number (0 for none).
    fn segment(&mut self, words: &[&str]) -> Option<(usize, u64)> {
        let mut ahead = Text(self.0);
        ahead.take(&["-", "_", "."]);
        let word = ahead.take(words)?;
        let mut after = Text(ahead.0);
        after.take(&["-", "_", "."]);
        if after.0.starts_with(|c: char| c.is_ascii_digit()) {
            ahead.0 = after.0;
            let number = ahead.number()?;
            self.0 = ahead.0;
            return Some((word, number));
        }
        self.0 = ahead.0;
        Some((word, 0))
    }
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let lower = text.trim().to_ascii_lowercase();
        let mut rest = Text(lower.strip_prefix('v').unwrap_or(&lower));
        let mut epoch = 0;
        if let Some((told, after)) = rest.0.split_once('!') {
            epoch = told.parse().ok()?;
            rest = Text(after);
        }
        let mut release = vec![rest.number()?];
        while let Some(after) = rest.0.strip_prefix('.') {
            if !after.starts_with(|c: char| c.is_ascii_digit()) {
                break;
            }
            rest = Text(after);
            release.push(rest.number()?);
        }
        let words = ["alpha", "a", "beta", "b", "preview", "pre", "c", "rc"];
        let pre = rest
            .segment(&words)
            .map(|(word, number)| (['a', 'a', 'b', 'b', 'r', 'r', 'r', 'r'][word], number));
        let mut post = rest.segment(&["post", "rev", "r"]).map(|(_, number)| number);
        if post.is_none()
            && let Some(after) = rest.0.strip_prefix('-')
            && after.starts_with(|c: char| c.is_ascii_digit())
        {
            rest = Text(after);
            post = Some(rest.number()?);
        }
        let dev = rest.segment(&["dev"]).map(|(_, number)| number);
        let mut local = Vec::new();
        if let Some(after) = rest.0.strip_prefix('+') {
            for part in after.split(['-', '_', '.']) {
                if part.is_empty() || !part.chars().all(|c| c.is_ascii_alphanumeric()) {
                    return None;
                }
                local.push(part.parse().map_or(Local::Word(part.to_owned()), Local::Number));
            }
            rest.0 = "";
        }
        rest.0.is_empty().then_some(Version { epoch, release, pre, post, dev, local })
    }

    fn compare_release(&self, other: &Version) -> Ordering {
        let number = |version: &Version, at| version.release.get(at).copied().unwrap_or_default();
        let most = self.release.len().max(other.release.len());
        self.epoch.cmp(&other.epoch).then_with(|| {
            (0..most)
                .map(|at| number(self, at).cmp(&number(other, at)))
                .find(|compared| compared.is_ne())
                .unwrap_or(Ordering::Equal)
        })
    }

    /// Where the phase sorts: a development release is before all others of its release, and the
    /// release itself is after its pre-releases.
    fn phase(&self) -> (u8, char, u64) {
        match self.pre {
            Some((word, number)) => (1, word, number),
            None if self.post.is_none() && self.dev.is_some() => (0, ' ', 0),
            None => (2, ' ', 0),
        }
    }

    fn compare(&self, other: &Version) -> Ordering {
        // no post-release is before all of them, and no development release after all of them
        let dev = |version: &Version| version.dev.unwrap_or(u64::MAX);
        self.compare_release(other)
            .then_with(|| self.phase().cmp(&other.phase()))
            .then_with(|| self.post.cmp(&other.post))
            .then_with(|| dev(self).cmp(&dev(other)))
            .then_with(|| self.local.cmp(&other.local))
    }

    fn without_local(&self) -> Version {
        Version { local: Vec::new(), ..self.clone() }
    }

    /// Whether it begins with the release (and pre-release) of `prefix`.
    fn begins_with(&self, prefix: &Version) -> bool {
        let number = |at| self.release.get(at).copied().unwrap_or_default();
        let release = prefix.release.iter().enumerate().all(|(at, one)| number(at) == *one);
        self.epoch == prefix.epoch && release && (prefix.pre.is_none() || prefix.pre == self.pre)
    }
}

/// Whether a version is in a range. `None` if one of them cannot be read.
pub(crate) fn is_in(version: &str, range: &str) -> Option<bool> {
    let version = Version::parse(version)?;
    let alternatives: Vec<_> =
        range.split("||").map(|one| if one.trim() == "*" { ">=0.0.0" } else { one }).collect();
    ranges::satisfies(&alternatives.join("||"), |bound| holds(&version, bound))
}

fn holds(version: &Version, bound: Bound<'_>) -> Option<bool> {
    if bound.operator == "===" {
        return Some(version.compare(&Version::parse(bound.version)?).is_eq());
    }
    if let Some(prefix) = bound.version.strip_suffix(".*") {
        let told = Version::parse(prefix)?;
        let begins = version.begins_with(&told);
        return match bound.operator {
            "" | "=" | "==" => Some(begins),
            "!=" => Some(!begins),
            _ => None,
        };
    }
    let told = Version::parse(bound.version)?;
    let is_equality = matches!(bound.operator, "" | "=" | "==" | "!=");
    if !told.local.is_empty() && !is_equality {
        return None;
    }
    // a local version counts only where the bound has one
    let version = if told.local.is_empty() { version.without_local() } else { version.clone() };
    let compared = version.compare(&told);
    let same_release = version.compare_release(&told).is_eq();
    match bound.operator {
        // the post-releases of a release are not after it, unless the bound has one itself. (Its
        // pre-releases are before it: a fault that a release mends is in them.)
        ">" => Some(
            compared.is_gt() && (told.post.is_some() || version.post.is_none() || !same_release),
        ),
        "~=" => {
            let prefix = Version {
                release: told.release[..told.release.len().checked_sub(1).filter(|n| *n > 0)?]
                    .to_vec(),
                pre: None,
                ..told
            };
            Some(compared.is_ge() && version.begins_with(&prefix))
        }
        operator => fulfils(operator, compared),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_pep_440_orders_them() {
        let sorted = [
            "1.0.dev456",
            "1.0a1",
            "1.0a2.dev456",
            "1.0a12.dev456",
            "1.0a12",
            "1.0b1.dev456",
            "1.0b2",
            "1.0b2.post345.dev456",
            "1.0b2.post345",
            "1.0rc1.dev456",
            "1.0rc1",
            "1.0",
            "1.0+abc.5",
            "1.0+abc.7",
            "1.0+5",
            "1.0.post456.dev34",
            "1.0.post456",
            "1.1.dev1",
            "1!0.1",
        ];
        for (at, one) in sorted.iter().enumerate() {
            for (other_at, other) in sorted.iter().enumerate() {
                let (a, b) = (Version::parse(one), Version::parse(other));
                let (a, b) = (a.expect("a version"), b.expect("a version"));
                assert_eq!(a.compare(&b), at.cmp(&other_at), "{one} {other}");
            }
        }
        for (one, other) in [
            ("1.0", "1"),
            ("v1.0-alpha.1", "1a1"),
            ("1.0-1", "1.0.post1"),
            ("1.0c1", "1.0rc1"),
            ("1.0-rev3", "1.0post3"),
            ("1.0_DEV", "1.0.dev0"),
        ] {
            let (a, b) = (Version::parse(one), Version::parse(other));
            assert_eq!(a.expect("one").compare(&b.expect("one")), Ordering::Equal, "{one} {other}");
        }
        for wrong in ["", "x", "1.0.x", "1.0+", "1.0-", "latest"] {
            assert!(Version::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn specifiers_hold() {
        for (version, range, expected) in [
            ("2.10", "<2.11.3", Some(true)),
            ("5.3", "<5.3.1", Some(true)),
            ("1.23", ">=1.23,<1.24.1 || <1.22", Some(true)),
            ("3.1.dev0", "<3.1", Some(true)),
            ("3.0.dev0", "<3.1", Some(true)),
            ("3.1.post1", ">3.1", Some(false)),
            ("3.2.post0", ">3.1", Some(true)),
            ("2.2.5", "~=2.2", Some(true)),
            ("3.0", "~=2.2", Some(false)),
            ("2.2.0", "~=2.2.0", Some(true)),
            ("2.3.0", "~=2.2.0", Some(false)),
            ("1.1.7", "==1.1.*", Some(true)),
            ("1.2", "!=1.1.*", Some(true)),
            ("1.0+ubuntu1", "==1.0", Some(true)),
            ("1.0+ubuntu1", "<=1.0", Some(true)),
            ("0.1", "*", Some(true)),
            ("1.0", "<1.0+x", None),
            ("1.0", "~=1", None),
        ] {
            assert_eq!(is_in(version, range), expected, "{version} {range}");
        }
    }
}
