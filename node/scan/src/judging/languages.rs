//! Packages of languages: an advisory has ranges of versions with the fault and without it
//! (trivy's `pkg/detector/library`).

use crate::database::advisories::Advisory;
use crate::database::{Database, DatabaseError};
use crate::package::{Kind, Package};
use crate::report::Status;
use crate::versions::{maven, npm, pep440, plain};

use super::Match;

/// The advisories that count for a package.
pub(super) fn matches(package: &Package, database: &Database) -> Result<Vec<Match>, DatabaseError> {
    let is_in: fn(&str, &str) -> Option<bool> = match package.kind {
        Kind::PythonPkg => pep440::is_in,
        Kind::NodePkg => npm::is_in,
        Kind::Jar => maven::is_in,
        _ => plain::is_in,
    };
    let Some(ecosystem) = ecosystem(package.kind) else { return Ok(Vec::new()) };
    let name = normalized(package.kind, &package.name);
    let found = database.of_ecosystem(ecosystem, &name)?.into_iter();
    let found = found.filter(|one| has_fault(&package.version, &one.advisory, is_in));
    Ok(found
        .map(|one| Match {
            fixed: fixed(&one.advisory),
            id: one.id,
            aliases: one.advisory.vendor_ids,
            status: Status::Unknown,
            source: one.source.of_severities().to_owned(),
            severity: None,
        })
        .collect())
}

/// The word before `::` in the names of the ecosystem's buckets.
fn ecosystem(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::PythonPkg => "pip",
        Kind::NodePkg => "npm",
        Kind::Gobinary => "go",
        Kind::Rustbinary => "cargo",
        Kind::Jar => "maven",
        Kind::Deb | Kind::Apk | Kind::Rpm | Kind::Other => return None,
    })
}

/// The name as the database writes it. Python takes `_` for `-` and each case for the other; names
/// of Go's modules are as they are.
fn normalized(kind: Kind, name: &str) -> String {
    match kind {
        Kind::Gobinary => name.to_owned(),
        Kind::PythonPkg => name.to_lowercase().replace('_', "-"),
        _ => name.to_lowercase(),
    }
}

/// Whether a version has the fault: it is in a range that has it, if there are any, and in none
/// that does not. What cannot be read counts as without the fault, as with trivy.
fn has_fault(
    version: &str,
    advisory: &Advisory,
    is_in: impl Fn(&str, &str) -> Option<bool>,
) -> bool {
    let told = advisory.vulnerable_versions.iter().chain(&advisory.patched_versions);
    // an empty range: some version has it, and nobody says which
    if told.into_iter().any(String::is_empty) {
        return true;
    }
    let with = &advisory.vulnerable_versions;
    if !with.is_empty() && is_in(version, &with.join(" || ")) != Some(true) {
        return false;
    }
    let without = [&advisory.patched_versions[..], &advisory.unaffected_versions].concat();
    if without.is_empty() {
        return !with.is_empty();
    }
    is_in(version, &without.join(" || ")) == Some(false)
}

/// The versions that mend it: told as such, else where the ranges with the fault end.
fn fixed(advisory: &Advisory) -> Option<String> {
    let ends = advisory.vulnerable_versions.iter().flat_map(|range| range.split(','));
    let ends = ends.filter_map(|bound| {
        let end = bound.trim().strip_prefix('<').filter(|rest| !rest.starts_with('='))?;
        Some(end.trim().to_owned())
    });
    let all: Vec<String> = if advisory.patched_versions.is_empty() {
        ends.collect()
    } else {
        advisory.patched_versions.clone()
    };
    let mut once: Vec<String> = Vec::new();
    for one in all {
        if !once.contains(&one) {
            once.push(one);
        }
    }
    let joined = once.join(", ");
    (!joined.is_empty()).then_some(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advisory(with: &[&str], patched: &[&str], unaffected: &[&str]) -> Advisory {
        let owned = |texts: &[&str]| texts.iter().map(|one| (*one).to_owned()).collect();
        Advisory {
            vulnerable_versions: owned(with),
            patched_versions: owned(patched),
            unaffected_versions: owned(unaffected),
            ..Advisory::default()
        }
    }

    #[test]
    fn a_version_has_the_fault_or_not() {
        for (version, with, patched, unaffected, expected) in [
            ("1.5.0", &["<1.6.0"][..], &[][..], &[][..], true),
            ("1.6.0", &["<1.6.0"], &[], &[], false),
            ("1.6.0", &[], &[">=1.6.1"], &["<0.6.3"], true),
            ("1.6.1", &[], &[">=1.6.1"], &["<0.6.3"], false),
            ("0.6.0", &[], &[">=1.6.1"], &["<0.6.3"], false),
            ("1.0.0", &["<2.0.0"], &[">=0.9.0, <1.1.0"], &[], false),
            ("1.0.0", &[""], &[], &[], true),
            ("1.0.0", &[], &[], &[], false),
            ("1.0.0", &["<x"], &[], &[], false),
            ("3.1.0", &["<1.0.0", ">=3.0.0, <3.2.0"], &[], &[], true),
        ] {
            let told = advisory(with, patched, unaffected);
            assert_eq!(has_fault(version, &told, plain::is_in), expected, "{version} {told:?}");
        }
    }

    #[test]
    fn the_versions_that_mend_it_are_told() {
        for (with, patched, expected) in [
            (&["<1.2"][..], &[][..], Some("1.2")),
            (&[">=1.0, <1.2", ">=2, < 2.1", "<1.2"], &[], Some("1.2, 2.1")),
            (&["<=1.2"], &[], None),
            (&["<1.2"], &["1.3", "1.3"], Some("1.3")),
            (&[">=1"], &[], None),
        ] {
            assert_eq!(fixed(&advisory(with, patched, &[])).as_deref(), expected);
        }
    }
}
