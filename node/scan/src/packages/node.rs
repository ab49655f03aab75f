//! Packages of npm: `package.json`.

use serde::Deserialize;
use serde_json::Value;

use crate::package::{Kind, Package};

use super::Listing;

#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    name: Value,
    #[serde(default)]
    version: Value,
    #[serde(default)]
    license: Value,
}

/// Reads one head. Nothing where it has no name or version (of a workspace, or a hint to bundlers),
/// or is no JSON (templates).
pub(crate) fn read(bytes: &[u8]) -> Listing {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let Ok(head) = serde_json::from_slice::<Head>(bytes) else { return Listing::default() };
    let (Some(name), Some(version)) = (head.name.as_str(), head.version.as_str()) else {
        return Listing::default();
    };
    if !is_name(name) || version.is_empty() {
        return Listing::default();
    }
    let mut package = Package::new(Kind::NodePkg, name, version);
    // old packages write an object
    let licence = head.license.as_str().or_else(|| head.license["type"].as_str());
    package.licenses.extend(licence.filter(|one| !one.is_empty()).map(str::to_owned));
    Listing { packages: vec![package], owned: Vec::new() }
}

/// `name` or `@scope/name`, of what may stand in an address.
fn is_name(name: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "-._~".contains(c))
    };
    match name.strip_prefix('@') {
        Some(scoped) => scoped.split_once('/').is_some_and(|(a, b)| is_part(a) && is_part(b)),
        None => is_part(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read() {
        let read = |text: &str| {
            let packages = read(text.as_bytes()).packages;
            packages.into_iter().map(|one| (one.name, one.version, one.licenses)).next()
        };
        let told = |name: &str, version: &str, licences: &[&str]| {
            let licences = licences.iter().map(|one| (*one).to_owned()).collect();
            Some((name.to_owned(), version.to_owned(), licences))
        };
        let lodash = r#"{"name":"lodash","version":"4.17.15","license":"MIT","private":1}"#;
        assert_eq!(read(lodash), told("lodash", "4.17.15", &["MIT"]));
        let scoped = r#"{"name":"@angular/core","version":"1.0.0","license":{"type":"X"}}"#;
        assert_eq!(read(scoped), told("@angular/core", "1.0.0", &["X"]));
        for nothing in [
            "{}",
            "[]",
            "{",
            r#"{"name":"x"}"#,
            r#"{"name":3,"version":"1"}"#,
            r#"{"name":"a b","version":"1"}"#,
            r#"{"name":"{{name}}","version":"1"}"#,
        ] {
            assert_eq!(read(nothing), None, "{nothing}");
        }
    }
}
