//! Red Hat's packages: advisories are by product, and the repositories from which an image was
//! built say which product it is (trivy's `pkg/detector/ospkg/redhat`).

use std::collections::BTreeMap;

use crate::database::{Database, DatabaseError};
use crate::layer::Inventory;
use crate::package::Package;
use crate::report::{Status, severity_of};
use crate::versions::rpm;

use super::Match;
use super::distributions::modular;
use super::systems::Rules;

/// Who says how bad a finding is.
const SOURCE: &str = "redhat";

/// The repositories of an image that does not say from which it was built.
fn usual(major: &str) -> &'static [&'static str] {
    match major {
        "6" => &["rhel-6-server-rpms", "rhel-6-server-extras-rpms"],
        "7" => &["rhel-7-server-rpms", "rhel-7-server-extras-rpms"],
        "8" => &["rhel-8-for-x86_64-baseos-rpms", "rhel-8-for-x86_64-appstream-rpms"],
        "9" => &["rhel-9-for-x86_64-baseos-rpms", "rhel-9-for-x86_64-appstream-rpms"],
        _ => &[],
    }
}

/// The products that a package belongs to. None: it cannot be judged.
pub(super) fn products(
    package: &Package,
    inventory: &Inventory,
    rules: &Rules,
    database: &Database,
) -> Result<Vec<u64>, DatabaseError> {
    let build = package.build.and_then(|at| inventory.builds.get(at as usize));
    let mut products = Vec::new();
    match build {
        Some(build) => {
            for name in &build.content_sets {
                products.extend(database.products("repository", plain(name))?);
            }
            if !build.nvr.is_empty() {
                products.extend(database.products("nvr", &build.nvr)?);
            }
        }
        None => {
            for name in usual(&rules.release) {
                products.extend(database.products("repository", name)?);
            }
        }
    }
    products.sort_unstable();
    products.dedup();
    Ok(products)
}

/// A repository's name without what some builds append: `repo__9`, but not `repo__9_DOT_2`.
fn plain(name: &str) -> &str {
    match name.rsplit_once("__") {
        Some((plain, end)) if !end.is_empty() && end.bytes().all(|byte| byte.is_ascii_digit()) => {
            plain
        }
        _ => name,
    }
}

/// The advisories that count for a package of these products. Of several for one CVE the one with
/// the latest version counts.
pub(super) fn matches(
    package: &Package,
    products: &[u64],
    database: &Database,
) -> Result<Vec<Match>, DatabaseError> {
    let mut latest: BTreeMap<String, Match> = BTreeMap::new();
    if products.is_empty() {
        return Ok(Vec::new());
    }
    for (id, told) in database.red_hat(&modular(&package.name, &package.module))? {
        let is_cve = id.starts_with("CVE-");
        for entry in told.entries {
            let arches = &entry.arches;
            let arch =
                arches.is_empty() || package.arch == "noarch" || arches.contains(&package.arch);
            if !arch || !entry.affected.iter().any(|one| products.contains(one)) {
                continue;
            }
            for cve in &entry.cves {
                let found = Match {
                    id: if is_cve { id.clone() } else { cve.id.clone() },
                    aliases: if is_cve { Vec::new() } else { vec![id.clone()] },
                    fixed: Some(&entry.fixed_version)
                        .filter(|version| !version.is_empty())
                        .cloned(),
                    status: Status::of_number(entry.status),
                    source: SOURCE.to_owned(),
                    severity: Some((severity_of(cve.severity), SOURCE)),
                };
                let known = latest.get(&found.id).map(|known| version(known));
                if known.is_none_or(|known| known.compare(&version(&found)).is_lt()) {
                    latest.insert(found.id.clone(), found);
                }
            }
        }
    }
    let installed = rpm::Version::parse(&package.version);
    let has_fault =
        |found: &Match| found.fixed.is_none() || installed.compare(&version(found)).is_lt();
    let found = latest.into_values().filter(has_fault);
    Ok(found
        .map(|one| Match {
            fixed: one.fixed.map(|fixed| rpm::Version::parse(&fixed).plain()),
            ..one
        })
        .collect())
}

fn version(found: &Match) -> rpm::Version<'_> {
    rpm::Version::parse(found.fixed.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_repositories_are_plain() {
        for (name, expected) in [
            ("rhel-8-for-x86_64-baseos-rpms__8", "rhel-8-for-x86_64-baseos-rpms"),
            ("rhel-9__9_DOT_2", "rhel-9__9_DOT_2"),
            ("rhel-9", "rhel-9"),
            ("rhel-9__", "rhel-9__"),
        ] {
            assert_eq!(plain(name), expected);
        }
    }
}
