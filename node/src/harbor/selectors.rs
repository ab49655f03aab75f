//! Selectors of rules as Harbor's clients write them (`RetentionSelector` and `ImmutableSelector` of
//! its `api/v2.0/swagger.yaml`).

use std::collections::BTreeMap;

use rules::policies::selectors::{Pattern, Repositories, Tags};
use serde::Deserialize;
use serde_json::{Value, json};

use super::bad;
use crate::http::Failure;

/// A selector.
#[derive(Deserialize)]
pub(super) struct Selector {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    decoration: String,
    #[serde(default)]
    pattern: String,
    #[serde(default)]
    extras: String,
}

/// What is in `extras`.
#[derive(Deserialize)]
struct Extras {
    untagged: Option<bool>,
}

impl Selector {
    fn checked(
        &self,
        field: &str,
        matches: &str,
        excludes: &str,
    ) -> Result<(bool, Pattern), Failure> {
        if !matches!(self.kind.as_str(), "" | "doublestar") {
            return Err(bad(format!("{field}.kind is doublestar")));
        }
        let excluding = match self.decoration.as_str() {
            word if word == matches || word.is_empty() => false,
            word if word == excludes => true,
            _ => return Err(bad(format!("{field}.decoration is {matches} or {excludes}"))),
        };
        let pattern = Pattern::new(&self.pattern);
        Ok((excluding, pattern.map_err(|e| bad(format!("{field}.pattern: {e}")))?))
    }
}

/// The selector of repositories in `scope_selectors`; all if there is none.
pub(super) fn repositories(
    scope: &BTreeMap<String, Vec<Selector>>,
) -> Result<Repositories, Failure> {
    let field = "scope_selectors.repository";
    match scope.get("repository").map(Vec::as_slice) {
        None | Some([]) => Ok(Repositories::default()),
        Some([one]) => {
            let (excludes, pattern) = one.checked(field, "repoMatches", "repoExcludes")?;
            Ok(Repositories { excludes, pattern })
        }
        Some(_) => Err(bad(format!("{field} has one selector"))),
    }
}

/// The selector in `tag_selectors`; all artifacts if there is none.
pub(super) fn tags(selectors: &[Selector]) -> Result<Tags, Failure> {
    let field = "tag_selectors";
    match selectors {
        [] => Ok(Tags::default()),
        [one] => {
            let (excludes, pattern) = one.checked(field, "matches", "excludes")?;
            let extras = match one.extras.is_empty() {
                true => Extras { untagged: None },
                false => serde_json::from_str(&one.extras)
                    .map_err(|e| bad(format!("{field}.extras: {e}")))?,
            };
            // the defaults of Harbor's selector
            let untagged = extras.untagged.unwrap_or(!excludes);
            Ok(Tags { excludes, pattern, untagged })
        }
        _ => Err(bad(format!("{field} has one selector"))),
    }
}

/// `scope_selectors`.
pub(super) fn show_repositories(of: &Repositories) -> Value {
    let decoration = if of.excludes { "repoExcludes" } else { "repoMatches" };
    let pattern = of.pattern.written();
    json!({"repository": [{"kind": "doublestar", "decoration": decoration, "pattern": pattern}]})
}

/// `tag_selectors`.
pub(super) fn show_tags(of: &Tags) -> Value {
    let decoration = if of.excludes { "excludes" } else { "matches" };
    let extras = json!({"untagged": of.untagged}).to_string();
    let pattern = of.pattern.written();
    json!([{"kind": "doublestar", "decoration": decoration, "pattern": pattern, "extras": extras}])
}
