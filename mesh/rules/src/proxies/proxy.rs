//! What a proxy project caches of its upstream.

use serde::{Deserialize, Serialize};

/// The maximum number of patterns of each kind in a project, and the maximum length of one in
/// bytes.
const PATTERNS: usize = 50;
const PATTERN: usize = 256;

/// Which repositories of its upstream a proxy project serves, and whether it serves what the
/// upstream no longer has. Patterns are matched against the repository's name at the upstream: `*`
/// within a part, `**` across parts, `?`, `[a-z]`, `{a,b}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyRules {
    /// One of these must match. If there are none, everything may be pulled.
    pub allow: Vec<String>,
    /// None of these may match. This takes precedence over `allow`.
    pub deny: Vec<String>,
    /// Whether cached content is served when the upstream says that it is gone (Harbor's
    /// `proxy_cache_local_on_not_found`).
    pub local_on_not_found: bool,
}

/// A change of [`ProxyRules`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyChange {
    /// New patterns to allow.
    pub allow: Option<Vec<String>>,
    /// New patterns to deny.
    pub deny: Option<Vec<String>>,
    /// See [`ProxyRules::local_on_not_found`].
    pub local_on_not_found: Option<bool>,
}

impl ProxyRules {
    /// These rules after `change`.
    pub fn changed(&self, change: &ProxyChange) -> Self {
        ProxyRules {
            allow: change.allow.clone().unwrap_or_else(|| self.allow.clone()),
            deny: change.deny.clone().unwrap_or_else(|| self.deny.clone()),
            local_on_not_found: change.local_on_not_found.unwrap_or(self.local_on_not_found),
        }
    }

    /// Whether `repository`, by its name at the upstream, may be pulled.
    pub fn admits(&self, repository: &str) -> bool {
        let matches = |pattern: &String| fast_glob::glob_match(pattern, repository);
        (self.allow.is_empty() || self.allow.iter().any(matches)) && !self.deny.iter().any(matches)
    }
}

/// Parses a list of patterns, separated by commas outside of braces. The error is a sentence for
/// the user who wrote it.
pub fn patterns(text: &str) -> Result<Vec<String>, String> {
    let mut depth = 0usize;
    let parts = text.split(|c| {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    });
    let patterns: Vec<String> =
        parts.map(str::trim).filter(|p| !p.is_empty()).map(str::to_owned).collect();
    if patterns.len() > PATTERNS {
        return Err(format!("at most {PATTERNS} patterns"));
    }
    let odd = |c: char| !(c.is_ascii_alphanumeric() || "._-/*?[]{},!^".contains(c));
    for pattern in &patterns {
        if pattern.len() > PATTERN {
            return Err(format!("a pattern has at most {PATTERN} characters"));
        }
        if pattern.contains(odd) {
            return Err(format!(
                "'{pattern}' is not a pattern; write e.g. library/* or team/** or {{a,b}}/app"
            ));
        }
        let balanced = pattern.matches('{').count() == pattern.matches('}').count()
            && pattern.matches('[').count() == pattern.matches(']').count();
        if !balanced {
            return Err(format!("'{pattern}' has a bracket that is not closed"));
        }
    }
    Ok(patterns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules(allow: &str, deny: &str) -> ProxyRules {
        ProxyRules {
            allow: patterns(allow).unwrap(),
            deny: patterns(deny).unwrap(),
            local_on_not_found: false,
        }
    }

    #[test]
    fn patterns_say_which_repositories_are_served() {
        for (allow, deny, repository, admitted) in [
            ("", "", "library/nginx", true),
            ("library/*", "", "library/nginx", true),
            ("library/*", "", "team/nginx", false),
            ("library/*", "", "library/a/b", false),
            ("library/**", "", "library/a/b", true),
            ("{library,team}/*, other/app", "", "team/x", true),
            ("{library,team}/*, other/app", "", "other/app", true),
            ("**", "**/secret", "a/b/secret", false),
            ("", "library/ngin?", "library/nginx", false),
            ("", "library/ngin?", "library/redis", true),
        ] {
            assert_eq!(
                rules(allow, deny).admits(repository),
                admitted,
                "{allow:?} {deny:?} {repository}"
            );
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["a b", "{a", "a]", "x\u{e9}", &"a".repeat(300), &"a,".repeat(60)] {
            assert!(patterns(text).is_err(), "{text}");
        }
        assert_eq!(patterns(" , ").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_change_leaves_alone_what_it_does_not_name() {
        let before = rules("a/*", "b/*");
        let change = ProxyChange { deny: Some(Vec::new()), ..ProxyChange::default() };
        assert_eq!(before.changed(&change), ProxyRules { deny: Vec::new(), ..before.clone() });
    }

    proptest! {
        #[test]
        fn no_pattern_makes_the_match_panic(pattern in "[a-z/*?{},!^\\[\\]-]{0,24}", name in "[a-z0-9/._-]{0,30}") {
            let rules = ProxyRules { allow: vec![pattern], ..ProxyRules::default() };
            let _ = rules.admits(&name);
        }

        #[test]
        fn a_name_is_its_own_pattern(name in "[a-z0-9]{1,8}(/[a-z0-9]{1,8}){0,3}") {
            prop_assert!(rules(&name, "").admits(&name));
            prop_assert!(!rules("", &name).admits(&name));
        }
    }
}
