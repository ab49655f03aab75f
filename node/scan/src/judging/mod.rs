//! Which advisory counts for which package.
//!
//! | module | what it decides |
//! |---|---|
//! | `systems` | which bucket a distribution's release has, how its versions compare, what has ended |
//! | `distributions` | which advisories of a distribution count |
//! | `ended` | when releases have ended |
//! | `red_hat` | the same for Red Hat, whose advisories are by product |
//! | `languages` | which advisories of an ecosystem count |
//! | `details` | how bad a finding is, and what is known of it |

mod details;
mod distributions;
mod ended;
mod languages;
mod red_hat;
mod systems;

use rules::words::moment::Timestamp;

use crate::database::{Database, DatabaseError};
use crate::layer::Inventory;
use crate::package::{Package, System};
use crate::report::{Coverage, Finding, Report, Severity, Status};

use systems::{Advised, Rules};

/// The most findings of a report, which hold some 2 KiB each. A kernel with its headers has some
/// thousands.
const MOST: usize = 50_000;

/// What an advisory says about a package that has its fault.
struct Match {
    id: String,
    aliases: Vec<String>,
    fixed: Option<String>,
    status: Status,
    /// Whose severities count for it.
    source: String,
    /// A severity for this package alone, and who says it.
    severity: Option<(Severity, &'static str)>,
}

/// Compares an inventory with a database. `now` decides which distributions have ended.
///
/// It never calls an image clean of which it could not judge all: [`Coverage::Insufficient`] says
/// what is missing, and the findings that there are stand beside it.
pub fn judge(
    inventory: &Inventory,
    database: &Database,
    now: Timestamp,
) -> Result<Report, DatabaseError> {
    let mut missing = Vec::new();
    let mut findings = Vec::new();
    let system_packages: Vec<&Package> =
        inventory.packages.iter().filter(|package| package.kind.is_system()).collect();
    match (&inventory.system, system_packages.is_empty()) {
        (None, true) if inventory.packages.is_empty() => {
            missing.push("no packages were found in it".to_owned());
        }
        (None, true) => {}
        (None, false) => missing
            .push("it has packages of a distribution, and no file in it says of which".to_owned()),
        (Some(system), _) => {
            let context = Context { inventory, database, system, packages: &system_packages, now };
            context.judge(&mut findings, &mut missing)?;
        }
    }
    for package in inventory.packages.iter().filter(|package| !package.kind.is_system()) {
        if findings.len() > MOST {
            break;
        }
        for found in languages::matches(package, database)? {
            findings.push(details::finding(package, found, database)?);
        }
    }
    if findings.len() > MOST {
        findings.truncate(MOST);
        missing.push(format!("it has more than {MOST} findings: the others are left out"));
    }
    if !inventory.gaps.is_empty() {
        let more = inventory.gaps.len().saturating_sub(3);
        let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
        let first: Vec<_> = inventory.gaps.iter().take(3).map(String::as_str).collect();
        missing.push(format!("some files could not be read: {}{more}", first.join("; ")));
    }
    let coverage = if missing.is_empty() {
        Coverage::Whole
    } else {
        Coverage::Insufficient { why: missing.join("; ") }
    };
    Ok(Report { format: Report::FORMAT, coverage, findings: unique(findings) })
}

/// A distribution's packages, and what is needed to judge them.
struct Context<'a> {
    inventory: &'a Inventory,
    database: &'a Database,
    system: &'a System,
    packages: &'a [&'a Package],
    now: Timestamp,
}

impl Context<'_> {
    fn judge(
        &self,
        findings: &mut Vec<Finding>,
        missing: &mut Vec<String>,
    ) -> Result<(), DatabaseError> {
        let System { family, release } = self.system;
        let Some(rules) = Rules::of(self.system, self.inventory.repository.as_deref(), self.now)
        else {
            missing.push(format!("nothing is known of the distribution {family} {release}"));
            return Ok(());
        };
        if self.packages.is_empty() {
            missing.push(format!("it is {family}, and no list of its packages was found in it"));
        }
        if !self.database.knows(&rules.bucket) {
            missing.push(format!("the vulnerability database has nothing about {}", rules.bucket));
        }
        if let Some(date) = rules.ended {
            missing.push(format!(
                "{family} {release} has ended ({date}): nobody looks for its faults any more"
            ));
        }
        let judged = self.packages.iter().filter(|package| !package.third_party);
        let mut outside = 0;
        for package in judged {
            if findings.len() > MOST {
                break;
            }
            let found = match rules.advised {
                Advised::RedHat => {
                    let products =
                        red_hat::products(package, self.inventory, &rules, self.database)?;
                    outside += usize::from(products.is_empty());
                    red_hat::matches(package, &products, self.database)?
                }
                _ => distributions::matches(package, &rules, self.database)?,
            };
            for one in found {
                findings.push(details::finding(package, one, self.database)?);
            }
        }
        if outside > 0 {
            missing.push(format!(
                "of {outside} packages the database does not know which product of Red Hat's \
                 they belong to"
            ));
        }
        Ok(())
    }
}

/// One finding for each fault of each package in each place. Of two the one with the later fixed
/// version stays, as with trivy.
fn unique(mut findings: Vec<Finding>) -> Vec<Finding> {
    let key = |one: &Finding| {
        (one.id.clone(), one.package.clone(), one.installed.clone(), one.path.clone(), one.kind)
    };
    findings
        .sort_by(|one, other| key(one).cmp(&key(other)).then_with(|| other.fixed.cmp(&one.fixed)));
    findings.dedup_by(|later, first| key(later) == key(first));
    findings.sort_by(|one, other| {
        let order = |one: &Finding| {
            (std::cmp::Reverse(one.severity), one.id.clone(), one.package.clone(), one.path.clone())
        };
        order(one).cmp(&order(other))
    });
    findings
}

#[cfg(test)]
mod tests;
