//! Which repositories and tags a rule is about, in Harbor's terms: a pattern that matches, or that
//! excludes. Patterns are globs (`*`, `**`, `?`, `{a,b}`); a list with commas means any of them.
//! An empty pattern matches all (`src/lib/selector/selectors/doublestar` of Harbor).

use serde::{Deserialize, Serialize};

/// The maximum length of a pattern in bytes.
const LONGEST: usize = 512;

/// A pattern that is not accepted. The text is a sentence for the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadPattern(String);

/// A list of globs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pattern {
    written: String,
}

impl Pattern {
    /// Takes what somebody wrote.
    pub fn new(written: &str) -> Result<Self, BadPattern> {
        if written.len() > LONGEST || written.chars().any(char::is_control) {
            let said = format!("a pattern has at most {LONGEST} bytes, and no control characters");
            return Err(BadPattern(said));
        }
        let (mut braces, mut brackets) = (0i32, 0i32);
        for character in written.chars() {
            match character {
                '{' => braces += 1,
                '}' => braces -= 1,
                '[' => brackets += 1,
                ']' => brackets -= 1,
                _ => {}
            }
            if braces < 0 || brackets < 0 {
                break;
            }
        }
        if braces != 0 || brackets != 0 {
            let said = format!("the braces or brackets of the pattern {written:?} do not match");
            return Err(BadPattern(said));
        }
        Ok(Pattern { written: written.to_owned() })
    }

    /// As it was written.
    pub fn written(&self) -> &str {
        &self.written
    }

    /// Whether it matches `name`.
    pub fn matches(&self, name: &str) -> bool {
        let written = self.written.trim();
        written.is_empty() || parts(written).any(|glob| fast_glob::glob_match(glob, name))
    }
}

/// The globs between commas that are in no braces.
fn parts(written: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    written
        .split(move |c| {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            c == ',' && depth == 0
        })
        .map(str::trim)
}

/// Which repositories of a project, by their names without the project's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repositories {
    /// Whether the pattern names those that are not meant.
    pub excludes: bool,
    /// The pattern.
    pub pattern: Pattern,
}

impl Repositories {
    /// Whether the repository with this name is meant.
    pub fn selects(&self, name: &str) -> bool {
        self.pattern.matches(name) != self.excludes
    }
}

/// Which artifacts of a repository, by their tags.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tags {
    /// Whether the pattern names those that are not meant.
    pub excludes: bool,
    /// The pattern.
    pub pattern: Pattern,
    /// Whether the pattern is also for artifacts without a tag. With one that excludes, those are
    /// excluded.
    pub untagged: bool,
}

impl Default for Tags {
    fn default() -> Self {
        Tags { excludes: false, pattern: Pattern::default(), untagged: true }
    }
}

impl Tags {
    /// Whether the tag with this name is meant.
    pub fn selects_tag(&self, tag: &str) -> bool {
        self.pattern.matches(tag) != self.excludes
    }

    /// Whether an artifact is meant: any of its tags is, or it has none and those are meant
    /// (`doublestar/selector.go` of Harbor).
    pub fn selects<'a>(&self, mut tags: impl Iterator<Item = &'a str>) -> bool {
        let Some(first) = tags.next() else { return self.untagged != self.excludes };
        self.selects_tag(first) || tags.any(|tag| self.selects_tag(tag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(written: &str) -> Pattern {
        Pattern::new(written).unwrap()
    }

    #[test]
    fn patterns_match_as_globs_and_lists() {
        for (written, matches, does_not) in [
            ("", &["a", "a/b"][..], &[][..]),
            ("**", &["a", "a/b"], &[]),
            ("*", &["a"], &["a/b"]),
            ("v1.*", &["v1.0"], &["v2.0", "xv1.0"]),
            ("v1.*, latest", &["v1.0", "latest"], &["late"]),
            ("{prod,stage}-*", &["prod-1", "stage-2"], &["dev-1"]),
            ("{a,b}/x,c", &["a/x", "b/x", "c"], &["a", "x"]),
            ("app?", &["app1"], &["app", "app12"]),
        ] {
            let pattern = pattern(written);
            assert!(matches.iter().all(|name| pattern.matches(name)), "{written}");
            assert!(!does_not.iter().any(|name| pattern.matches(name)), "{written}");
        }
        for written in ["{a", "a}", "}{", "[a", "a\n", &"a".repeat(513)] {
            assert!(Pattern::new(written).is_err(), "{written:?}");
        }
    }

    /// The cases of Harbor's `doublestar/selector_test.go`.
    #[test]
    fn an_artifact_is_selected_as_harbor_selects_it() {
        let tags =
            |excludes, written, untagged| Tags { excludes, pattern: pattern(written), untagged };
        let selects = |one: &Tags, names: &[&str]| one.selects(names.iter().copied());
        let matches = tags(false, "v*", true);
        assert!(selects(&matches, &["v1", "x"]) && selects(&matches, &[]));
        assert!(!selects(&matches, &["x"]) && !selects(&tags(false, "v*", false), &[]));
        let excludes = tags(true, "v*", false);
        assert!(selects(&excludes, &["v1", "x"]), "a tag of it is not excluded");
        assert!(!selects(&excludes, &["v1"]) && selects(&excludes, &[]));
        assert!(!selects(&tags(true, "v*", true), &[]));
        let all = Repositories { excludes: true, pattern: pattern("app/**") };
        assert!(all.selects("other") && !all.selects("app/x"));
    }
}
