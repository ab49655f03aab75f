//! Tags that are never moved or deleted (`src/pkg/immutable` of Harbor). The rules are decided in
//! `apply`, by the one writer of the project, so that no race passes them.

use serde::{Deserialize, Serialize};

use super::selectors::{Repositories, Tags};

/// A rule. A tag is immutable if any rule that is not disabled is about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImmutableRule {
    /// Its number in the mesh.
    pub id: u64,
    /// Whether it has no effect.
    pub disabled: bool,
    /// In which repositories.
    pub repositories: Repositories,
    /// Which tags.
    pub tags: Tags,
}

impl ImmutableRule {
    /// Whether it is about the same tags as `other`.
    pub fn is_as(&self, other: &ImmutableRule) -> bool {
        self.repositories == other.repositories && self.tags == other.tags
    }
}

/// Whether the tag is immutable. `repository` is the name without the project's.
pub fn is_immutable(rules: &[ImmutableRule], repository: &str, tag: &str) -> bool {
    rules.iter().any(|rule| {
        !rule.disabled && rule.repositories.selects(repository) && rule.tags.selects_tag(tag)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policies::selectors::Pattern;

    #[test]
    fn any_rule_makes_a_tag_immutable_and_a_disabled_one_does_not() {
        let rule = |repository: &str, tag: &str, disabled| ImmutableRule {
            id: 1,
            disabled,
            repositories: Repositories {
                excludes: false,
                pattern: Pattern::new(repository).unwrap(),
            },
            tags: Tags { pattern: Pattern::new(tag).unwrap(), ..Tags::default() },
        };
        let rules =
            [rule("app/**", "v*", false), rule("**", "release", false), rule("**", "**", true)];
        assert!(is_immutable(&rules, "app/web", "v1") && is_immutable(&rules, "x", "release"));
        assert!(!is_immutable(&rules, "x", "v1") && !is_immutable(&rules, "app/web", "latest"));
        assert!(!is_immutable(&[], "x", "v1"));
    }
}
