//! A distribution's packages: an advisory names the version that mends it (trivy's
//! `pkg/detector/ospkg`).

use std::cmp::Ordering;

use crate::database::advisories::{Advisory, Found};
use crate::database::{Database, DatabaseError};
use crate::package::Package;
use crate::report::{Severity, Status, severity_of};
use crate::versions::{apk, deb, rpm};

use super::Match;
use super::systems::{Advised, By, Order, Rules};

/// The advisories that count for a package.
pub(super) fn matches(
    package: &Package,
    rules: &Rules,
    database: &Database,
) -> Result<Vec<Match>, DatabaseError> {
    let source = package.source.as_ref();
    let (name, version) = match (rules.by, source) {
        (By::Source, Some(source)) => (source.name.as_str(), source.version.as_str()),
        // Photon: the name of the source, and the package's own version
        (By::SourceName, Some(source)) => (source.name.as_str(), package.version.as_str()),
        _ => (package.name.as_str(), package.version.as_str()),
    };
    let module = match rules.advised {
        Advised::Module | Advised::ModuleAndArch => modular(name, &package.module),
        _ => name.to_owned(),
    };
    if rules.bucket.starts_with("alma ") && package.module.is_empty() {
        // AlmaLinux does not say which module such a package is of (its bug 173)
        if package.version.rsplit('-').next().is_some_and(|one| one.contains(".module_el")) {
            return Ok(Vec::new());
        }
    }
    let mut matches = Vec::new();
    for found in database.advisories(&rules.bucket, &module)? {
        for advisory in told(&found, package, rules) {
            if has_fault(version, advisory, rules) {
                matches.push(matched(&found, advisory, rules));
            }
        }
    }
    Ok(matches)
}

/// An advisory, or the parts of it that are about the package's architecture.
fn told<'a>(found: &'a Found, package: &Package, rules: &Rules) -> Vec<&'a Advisory> {
    let whole = &found.advisory;
    let by_arch = matches!(rules.advised, Advised::ModuleAndArch | Advised::Arch);
    if !by_arch || whole.entries.is_empty() {
        return vec![whole];
    }
    whole.entries.iter().filter(|entry| entry.arches.contains(&package.arch)).collect()
}

fn has_fault(version: &str, advisory: &Advisory, rules: &Rules) -> bool {
    if !advisory.affected_version.is_empty() {
        match rules.order.compare(version, &advisory.affected_version) {
            Some(order) if order.is_lt() => return false,
            None => return false,
            Some(_) => {}
        }
    }
    if advisory.fixed_version.is_empty() {
        return rules.unfixed;
    }
    if rules.bucket.starts_with("Oracle") {
        let release = version.rsplit('-').next().unwrap_or(version);
        if flavour(&advisory.fixed_version) != flavour(release) {
            return false;
        }
    }
    rules.order.compare(version, &advisory.fixed_version) == Some(Ordering::Less)
}

fn matched(found: &Found, advisory: &Advisory, rules: &Rules) -> Match {
    let fixed = Some(&advisory.fixed_version).filter(|version| !version.is_empty());
    let fixed = fixed.map(|version| {
        if rules.plain_fixed { rpm::Version::parse(version).plain() } else { version.clone() }
    });
    let own = severity_of(advisory.severity);
    Match {
        id: found.id.clone(),
        aliases: found.advisory.vendor_ids.clone(),
        fixed,
        // of the others' advisories trivy reads none
        status: rules.own_severity.map_or(Status::Unknown, |_| Status::of_number(advisory.status)),
        source: found.source.of_severities().to_owned(),
        // Debian may say something else for one package than for another
        severity: rules.own_severity.filter(|_| own != Severity::Unknown).map(|who| (own, who)),
    }
}

/// `nodejs:12::npm` of the package `npm` in the module `nodejs:12:8030020201124152102:229f0a1c`.
pub(super) fn modular(name: &str, module: &str) -> String {
    match module.match_indices(':').nth(1) {
        Some((at, _)) => format!("{}::{name}", &module[..at]),
        None => name.to_owned(),
    }
}

/// What else than its own build of a package Oracle has: only advisories of the same count.
#[derive(Debug, PartialEq, Eq)]
enum Flavour {
    Normal,
    Fips,
    Ksplice,
}

fn flavour(version: &str) -> Flavour {
    let version = version.to_ascii_lowercase();
    if version.ends_with("_fips") {
        Flavour::Fips
    } else if version.split('.').any(|part| part.starts_with("ksplice")) {
        Flavour::Ksplice
    } else {
        Flavour::Normal
    }
}

impl Order {
    /// Which of two versions is the later one. `None` if one of them cannot be read.
    fn compare(self, one: &str, other: &str) -> Option<Ordering> {
        match self {
            Order::Deb => Some(deb::Version::parse(one)?.compare(&deb::Version::parse(other)?)),
            Order::Apk => apk::compare(one, other),
            Order::Rpm => Some(rpm::Version::parse(one).compare(&rpm::Version::parse(other))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_and_flavours_are_told_apart() {
        assert_eq!(modular("npm", "nodejs:12:8030020201124152102:229f0a1c"), "nodejs:12::npm");
        assert_eq!(modular("npm", ""), "npm");
        assert_eq!(flavour("10:3.6.16-4.0.1.el8_fips"), Flavour::Fips);
        assert_eq!(flavour("2:2.17-307.0.1.ksplice1.el7.1"), Flavour::Ksplice);
        assert_eq!(flavour("2.17-307.el7.1"), Flavour::Normal);
    }
}
