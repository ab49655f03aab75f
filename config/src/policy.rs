//! A file that says what a project decides, as `atoll apply` takes it.

use std::path::Path;

use rules::ledger::jobs::cron::Cron;
use rules::policies::vulnerabilities::{Severity, check, metadata};
use rules::words::names::{BadName, ProjectName};

use crate::document::{Document, Section};
use crate::load::{read_file, read_tree};
use crate::mistake::Mistakes;
use crate::value::{self, Fault};

/// What a file says of a project. What it does not mention stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFile {
    /// The project; the command line may name another.
    pub project: Option<ProjectName>,
    /// `scan_policy`.
    pub scan: ScanPolicy,
    /// `scan_schedule`: when everything is scanned again; never if it is `none`.
    pub schedule: Option<String>,
}

/// What a file says of scans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanPolicy {
    /// `auto_scan`: what is pushed is scanned.
    pub auto_scan: Option<bool>,
    /// `sbom`: SBOMs of what is scanned are kept beside it.
    pub sbom: Option<bool>,
    /// `prevent_vulnerable`: vulnerable images are refused.
    pub prevent: Option<bool>,
    /// `severity_threshold`: the lowest severity that is refused.
    pub threshold: Option<Severity>,
    /// `unscanned`: what becomes of an image without a report.
    pub unscanned: Option<String>,
    /// `insufficient`: what becomes of one of which too little is known.
    pub insufficient: Option<String>,
    /// `fixable_only`: only what has a fix counts.
    pub fixable_only: Option<bool>,
}

impl PolicyFile {
    /// The metadata of a project that says the same, as keys with values.
    pub fn metadata(&self) -> Vec<(&'static str, String)> {
        use rules::policies::vulnerabilities::metadata::{
            AUTO_SBOM, AUTO_SCAN, FIXABLE, INSUFFICIENT, PREVENT, SCHEDULE, SEVERITY, UNSCANNED,
        };
        let ScanPolicy { auto_scan, prevent, threshold, .. } = &self.scan;
        let severity = threshold.map(|severity| severity.word().to_ascii_lowercase());
        [
            (AUTO_SCAN, auto_scan.map(|on| on.to_string())),
            (AUTO_SBOM, self.scan.sbom.map(|on| on.to_string())),
            (PREVENT, prevent.map(|on| on.to_string())),
            (SEVERITY, severity),
            (UNSCANNED, self.scan.unscanned.clone()),
            (INSUFFICIENT, self.scan.insufficient.clone()),
            (FIXABLE, self.scan.fixable_only.map(|on| on.to_string())),
            (SCHEDULE, self.schedule.clone()),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
    }
}

/// Reads the file. A mistake names its line.
pub fn policy(path: &Path) -> Result<PolicyFile, Mistakes> {
    let (name, text) = read_file(path)?;
    parse_policy(&name, &text)
}

/// Reads such a text. `file_name` is only used in mistakes.
pub fn parse_policy(file_name: &str, text: &str) -> Result<PolicyFile, Mistakes> {
    let document = Document::new(file_name);
    let Some(root) = read_tree(&document, text) else {
        return Err(Mistakes(document.into_mistakes()));
    };
    let file = {
        let mut top = Section::new(&document, "", root);
        let project = top.optional("project", |text| {
            let remedy = "write the name of a project, e.g. team";
            text.parse().map_err(|e: BadName| Fault::new(format!("'{text}': {e}"), remedy))
        });
        let schedule = top.optional("scan_schedule", cron);
        let mut scan = top.section("scan_policy");
        let flag = |text: &str| value::choice(text, &[("true", true), ("false", false)]);
        // there is one scanner, which reads trivy's database
        let _ =
            scan.optional("scanner", |text| value::choice(text, &[("trivy", ()), ("atoll", ())]));
        let auto_scan = scan.optional("auto_scan", flag);
        let sbom = scan.optional("sbom", flag);
        let prevent = scan.optional("prevent_vulnerable", flag);
        let threshold = scan.optional("severity_threshold", severity);
        let unscanned = scan.optional("unscanned", |text| word(metadata::UNSCANNED, text));
        let insufficient = scan.optional("insufficient", |text| word(metadata::INSUFFICIENT, text));
        let fixable_only = scan.optional("fixable_only", flag);
        let scan = ScanPolicy {
            auto_scan,
            sbom,
            prevent,
            threshold,
            unscanned,
            insufficient,
            fixable_only,
        };
        PolicyFile { project, scan, schedule }
    };
    let mistakes = document.into_mistakes();
    if mistakes.is_empty() { Ok(file) } else { Err(Mistakes(mistakes)) }
}

fn cron(text: &str) -> Result<String, Fault> {
    let remedy = "write it as in cron, e.g. \"0 0 * * *\", or none";
    match text == "none" || text.parse::<Cron>().is_ok() {
        true => Ok(text.to_owned()),
        false => Err(Fault::new(format!("'{text}' is no schedule"), remedy)),
    }
}

/// A value that the project's metadata takes under this key.
fn word(key: &str, text: &str) -> Result<String, Fault> {
    match check(key, text) {
        Ok(()) => Ok(text.to_owned()),
        Err(why) => Err(Fault::new(format!("'{text}' is no choice here"), why)),
    }
}

fn severity(text: &str) -> Result<Severity, Fault> {
    Severity::named(text).ok_or_else(|| {
        let remedy = "write NONE, NEGLIGIBLE, LOW, MEDIUM, HIGH or CRITICAL";
        Fault::new(format!("'{text}' is no severity"), remedy)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_policy_is_read_word_for_word() {
        let text = "scan_policy:\n  scanner: trivy\n  auto_scan: true\n  prevent_vulnerable: true\n  severity_threshold: HIGH\nscan_schedule: \"0 0 * * *\"\n";
        let file = parse_policy("policy.yaml", text).unwrap();
        let expected = [
            ("auto_scan", "true"),
            ("prevent_vul", "true"),
            ("severity", "high"),
            ("scan_schedule", "0 0 * * *"),
        ]
        .map(|(key, value)| (key, value.to_owned()));
        assert_eq!(file.metadata(), expected);
        assert_eq!(file.project, None);
    }

    #[test]
    fn what_is_not_mentioned_stays_and_a_mistake_names_its_line() {
        let file =
            parse_policy("p", "project: team\nscan_policy: {auto_scan: false, sbom: true}\n")
                .unwrap();
        let becomes = [("auto_scan", "false"), ("auto_sbom_generation", "true")];
        assert_eq!(file.metadata(), becomes.map(|(key, value)| (key, value.to_owned())));
        assert_eq!(file.project, Some("team".parse().unwrap()));
        let all = "scan_policy: {unscanned: wait 20, insufficient: allow, fixable_only: true}\n";
        let all = parse_policy("p", all).unwrap().metadata();
        assert_eq!(
            all.iter().map(|(key, _)| *key).collect::<Vec<_>>(),
            ["vul_unscanned", "vul_insufficient", "vul_fixable_only"]
        );
        for (text, line, says) in [
            ("scan_policy:\n  severity_threshold: severe\n", 2, "no severity"),
            ("scan_schedule: daily-ish\n", 1, "no schedule"),
            ("scan_policy:\n  autoscan: true\n", 2, "auto_scan"),
            ("replication: {}\n", 1, "replication"),
            ("scan_policy: {scanner: clair}\n", 1, "trivy or atoll"),
            ("scan_policy: {unscanned: wait 900}\n", 1, "wait 30"),
        ] {
            let mistakes = parse_policy("p.yaml", text).unwrap_err().to_string();
            assert!(mistakes.contains(&format!("p.yaml:{line}:")), "{mistakes}");
            assert!(mistakes.contains(says), "{mistakes}");
        }
    }
}
