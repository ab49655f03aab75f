//! Whether an image may be pulled, by what is known of its vulnerabilities (Harbor's
//! `src/server/middleware/vulnerable/vulnerable.go`).
//!
//! Every node decides this by itself: the ledger has what was found in each image, and the project
//! what it does not let pass.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::words::moment::Timestamp;
use crate::words::names::ScannerId;

/// The metadata of a project that this reads.
pub mod metadata {
    /// Whether what is pushed is scanned: `"true"`.
    pub const AUTO_SCAN: &str = "auto_scan";
    /// Whether SBOMs of what is scanned are kept beside it: `"true"`.
    pub const AUTO_SBOM: &str = "auto_sbom_generation";
    /// Whether vulnerable images are refused: `"true"`.
    pub const PREVENT: &str = "prevent_vul";
    /// The lowest severity that is refused.
    pub const SEVERITY: &str = "severity";
    /// Whether the mesh's allowlist counts, and not the project's: `"true"`, and if it is missing.
    pub const SYSTEM_ALLOWLIST: &str = "reuse_sys_cve_allowlist";
    /// What becomes of an image that is not scanned: `block`, `allow`, or `wait SECONDS`. Not in
    /// Harbor.
    pub const UNSCANNED: &str = "vul_unscanned";
    /// What becomes of an image about which the database knows too little: `block`, `allow`, or
    /// `unscanned`. Not in Harbor.
    pub const INSUFFICIENT: &str = "vul_insufficient";
    /// When everything is scanned again, as in cron (UTC); `none`, or missing: never. Not in Harbor.
    pub const SCHEDULE: &str = "scan_schedule";
    /// Which SBOM of an image is shown: `made` by this mesh (also if it is missing), or `attached`: the
    /// one that came with the image, if there is one. Not in Harbor.
    pub const SBOM_SOURCE: &str = "sbom_source";
    /// Whether only what has a fix counts: `"true"`. Not in Harbor.
    pub const FIXABLE: &str = "vul_fixable_only";
    /// The number of the scanner that the project has chosen; the mesh's default if it is missing.
    pub const SCANNER: &str = "scanner";
}

/// How bad a vulnerability is.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Severity {
    /// Nobody has said.
    #[default]
    Unknown,
    /// Of no practical importance.
    Negligible,
    /// Low.
    Low,
    /// Medium.
    Medium,
    /// High.
    High,
    /// Critical.
    Critical,
}

impl Severity {
    /// All, the least bad first.
    pub const ALL: [Severity; 6] = [
        Severity::Unknown,
        Severity::Negligible,
        Severity::Low,
        Severity::Medium,
        Severity::High,
        Severity::Critical,
    ];

    /// Its word in Harbor.
    pub fn word(self) -> &'static str {
        match self {
            Severity::Unknown => "Unknown",
            Severity::Negligible => "Negligible",
            Severity::Low => "Low",
            Severity::Medium => "Medium",
            Severity::High => "High",
            Severity::Critical => "Critical",
        }
    }

    /// The severity with this word, in any case. `none` is Harbor's other word for unknown.
    pub fn named(word: &str) -> Option<Self> {
        if word.eq_ignore_ascii_case("none") {
            return Some(Severity::Unknown);
        }
        Severity::ALL.into_iter().find(|severity| severity.word().eq_ignore_ascii_case(word))
    }
}

/// The id of a vulnerability. Ids of CVE take a few bytes, because the ledger has those of all
/// images.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum VulnerabilityId {
    /// `CVE-YEAR-NUMBER`.
    Cve(u16, u32),
    /// Any other.
    Other(String),
}

impl From<&str> for VulnerabilityId {
    fn from(text: &str) -> Self {
        let read = || {
            let (year, number) = text.strip_prefix("CVE-")?.split_once('-')?;
            let id = VulnerabilityId::Cve(year.parse().ok()?, number.parse().ok()?);
            // one that would be written in another way stays as it is
            (id.to_string() == text).then_some(id)
        };
        read().unwrap_or_else(|| VulnerabilityId::Other(text.to_owned()))
    }
}

impl std::fmt::Display for VulnerabilityId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            VulnerabilityId::Cve(year, number) => write!(f, "CVE-{year:04}-{number:04}"),
            VulnerabilityId::Other(text) => f.write_str(text),
        }
    }
}

/// A vulnerability that was found in an image, in whatever packages: the worst of them counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Weakness {
    /// Its id.
    pub id: VulnerabilityId,
    /// How bad it is.
    pub severity: Severity,
    /// Whether a version without it exists, for every package that has it.
    pub fixable: bool,
}

/// Ids that do not count, until a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowlist {
    /// The ids, as they were written.
    pub ids: Vec<String>,
    /// When the whole list ends; never if `None`.
    pub expires: Option<Timestamp>,
}

impl Allowlist {
    /// The maximum number of ids.
    pub const MOST: usize = 5_000;
    /// The maximum length of an id in bytes.
    pub const LONGEST: usize = 128;

    /// Whether this id does not count at `now`. The case matters.
    pub fn allows(&self, id: &VulnerabilityId, now: Timestamp) -> bool {
        if self.expires.is_some_and(|end| now >= end) {
            return false;
        }
        let id = id.to_string();
        self.ids.contains(&id)
    }

    /// The moment after `now` at which time alone may change what [`decide`] says of an image that
    /// passes; `None` if there is none.
    pub fn changes_at(&self, now: Timestamp) -> Option<Timestamp> {
        self.expires.filter(|end| *end > now)
    }

    /// Checks what a client wrote. The error is a sentence.
    pub fn check(&self) -> Result<(), String> {
        if self.ids.len() > Allowlist::MOST {
            return Err(format!("an allowlist has at most {} entries", Allowlist::MOST));
        }
        let mut seen = std::collections::BTreeSet::new();
        for id in &self.ids {
            if id.trim().is_empty() || id.len() > Allowlist::LONGEST {
                let most = Allowlist::LONGEST;
                return Err(format!("the id of a vulnerability has 1 to {most} bytes"));
            }
            if !seen.insert(id) {
                return Err(format!("duplicate CVE ID in the allowlist: {id}"));
            }
        }
        Ok(())
    }
}

/// What becomes of an image of which too little is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unscanned {
    /// It is refused.
    Block,
    /// It may be pulled.
    Allow,
    /// A pull waits so long for the scan, and is refused then.
    Wait(Duration),
}

/// The longest that a pull may be made to wait for a scan. Clients give up after about a minute.
pub const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What a project does not let pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// The lowest severity that is refused.
    pub threshold: Severity,
    /// Whether only what has a fix counts.
    pub fixable_only: bool,
    /// What becomes of an image that is not scanned.
    pub unscanned: Unscanned,
    /// What becomes of one about which the database knows too little.
    pub insufficient: Unscanned,
    /// Whether the mesh's allowlist counts, and not the project's.
    pub system_allowlist: bool,
    /// The scanner that the project has chosen.
    pub scanner: Option<ScannerId>,
}

/// The scanner that a project with this metadata has chosen.
pub fn chosen_scanner(entries: &BTreeMap<String, String>) -> Option<ScannerId> {
    entries.get(metadata::SCANNER)?.parse().ok()
}

/// Whether a project with this metadata has a [`Gate`].
pub fn is_on(entries: &BTreeMap<String, String>) -> bool {
    entries.get(metadata::PREVENT).is_some_and(|value| value == "true")
}

impl Gate {
    /// The gate of a project with this metadata; `None` if everything passes. A value that cannot be
    /// read counts as the strictest: it is refused when it is written ([`check`]), so it came from
    /// an earlier build.
    pub fn of(entries: &BTreeMap<String, String>) -> Option<Self> {
        let entry = |key: &str| entries.get(key).map(String::as_str);
        if !is_on(entries) {
            return None;
        }
        let unscanned =
            entry(metadata::UNSCANNED).and_then(unscanned_of).unwrap_or(Unscanned::Block);
        let insufficient = match entry(metadata::INSUFFICIENT) {
            Some("unscanned") | None => unscanned,
            Some("allow") => Unscanned::Allow,
            Some(_) => Unscanned::Block,
        };
        Some(Gate {
            threshold: entry(metadata::SEVERITY).map_or(Severity::Low, |word| {
                Severity::named(word).map_or(Severity::Unknown, from_negligible)
            }),
            fixable_only: entry(metadata::FIXABLE) == Some("true"),
            unscanned,
            insufficient,
            system_allowlist: entry(metadata::SYSTEM_ALLOWLIST) != Some("false"),
            scanner: chosen_scanner(entries),
        })
    }

    /// Whether a weakness is bad enough to be refused, if no allowlist lets it pass.
    fn minds(&self, weakness: &Weakness) -> bool {
        weakness.severity >= self.threshold && (weakness.fixable || !self.fixable_only)
    }

    /// What of `found` is refused.
    pub fn counted<'a>(
        &'a self,
        found: &'a [Weakness],
        allowed: &'a Allowlist,
        now: Timestamp,
    ) -> impl Iterator<Item = &'a Weakness> {
        found
            .iter()
            .filter(move |weakness| self.minds(weakness) && !allowed.allows(&weakness.id, now))
    }

    /// What of `found` would be refused if the allowlist did not let it pass.
    pub fn exempted<'a>(
        &'a self,
        found: &'a [Weakness],
        allowed: &'a Allowlist,
        now: Timestamp,
    ) -> impl Iterator<Item = &'a Weakness> {
        found
            .iter()
            .filter(move |weakness| self.minds(weakness) && allowed.allows(&weakness.id, now))
    }
}

/// The threshold `negligible` means everything that was found, as in Harbor.
fn from_negligible(severity: Severity) -> Severity {
    if severity == Severity::Negligible { Severity::Unknown } else { severity }
}

fn unscanned_of(text: &str) -> Option<Unscanned> {
    match text {
        "block" => Some(Unscanned::Block),
        "allow" => Some(Unscanned::Allow),
        _ => {
            let seconds: u64 = text.strip_prefix("wait ")?.trim().parse().ok()?;
            let wait = Duration::from_secs(seconds);
            (wait <= LONGEST_WAIT).then_some(Unscanned::Wait(wait))
        }
    }
}

/// Checks a value that a client wrote under one of [`metadata`]'s keys. The error is a sentence.
pub fn check(key: &str, value: &str) -> Result<(), String> {
    let boolean = || match value {
        "true" | "false" => Ok(()),
        _ => Err(format!("metadata.{key} is \"true\" or \"false\"")),
    };
    match key {
        metadata::AUTO_SCAN
        | metadata::AUTO_SBOM
        | metadata::PREVENT
        | metadata::SYSTEM_ALLOWLIST
        | metadata::FIXABLE => boolean(),
        metadata::SEVERITY if Severity::named(value).is_none() => {
            Err("metadata.severity is none, negligible, low, medium, high or critical".into())
        }
        metadata::UNSCANNED if unscanned_of(value).is_none() => Err(format!(
            "metadata.{key} is block, allow, or wait with up to {} seconds, as in \"wait 30\"",
            LONGEST_WAIT.as_secs()
        )),
        metadata::SBOM_SOURCE if !["made", "attached"].contains(&value) => {
            Err(format!("metadata.{key} is made or attached"))
        }
        metadata::INSUFFICIENT if !["block", "allow", "unscanned"].contains(&value) => {
            Err(format!("metadata.{key} is block, allow or unscanned"))
        }
        _ => Ok(()),
    }
}

/// What is known of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known<'a> {
    /// What was found, and why that may be too little.
    Found(&'a [Weakness], Option<&'a str>),
    /// Nothing: nobody has asked for a scan, or one waits or runs, or ended so.
    Nothing(ScanStatus),
}

/// How far the scan of an image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanStatus {
    /// There was none.
    NotScanned,
    /// It waits.
    Pending,
    /// It runs.
    Running,
    /// It failed.
    Error,
    /// Somebody stopped it.
    Stopped,
    /// It has a report.
    Success,
}

impl ScanStatus {
    /// Its word in Harbor.
    pub fn word(self) -> &'static str {
        match self {
            ScanStatus::NotScanned => "Not Scanned",
            ScanStatus::Pending => "Pending",
            ScanStatus::Running => "Running",
            ScanStatus::Error => "Error",
            ScanStatus::Stopped => "Stopped",
            ScanStatus::Success => "Success",
        }
    }
}

/// Why an image may not be pulled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prevented {
    /// It has vulnerabilities that count.
    Vulnerable {
        /// How many.
        count: usize,
        /// The project's threshold.
        threshold: Severity,
    },
    /// It is not scanned.
    Unscanned(ScanStatus, Severity),
    /// The database knows too little about it.
    Insufficient(String, Severity),
}

impl std::fmt::Display for Prevented {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let policy = |severity: &Severity| {
            format!(
                "due to configured policy in 'Prevent images with vulnerability severity of \"{}\" or higher from running.'",
                severity.word()
            )
        };
        let contact = "To continue with pull, please contact your project administrator";
        match self {
            Prevented::Vulnerable { count, threshold } => write!(
                f,
                "current image with {count} vulnerabilities cannot be pulled {} {contact} to exempt matched vulnerabilities through configuring the CVE allowlist.",
                policy(threshold)
            ),
            Prevented::Unscanned(ScanStatus::NotScanned, threshold) => write!(
                f,
                "current image without vulnerability scanning cannot be pulled {} {contact} for help.",
                policy(threshold)
            ),
            Prevented::Unscanned(status, threshold) => write!(
                f,
                "current image with \"{}\" status of vulnerability scanning cannot be pulled {} {contact} for help.",
                status.word(),
                policy(threshold)
            ),
            Prevented::Insufficient(why, threshold) => write!(
                f,
                "current image of which too little is known ({why}) cannot be pulled {} {contact} for help.",
                policy(threshold)
            ),
        }
    }
}

/// What becomes of a pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It passes.
    Pass,
    /// It waits so long for the scan at most. If there is no report then, it is refused for this.
    Wait(Duration, Prevented),
    /// It is refused.
    Refuse(Prevented),
}

/// Decides at `now`. `allowed` is the allowlist that counts for the project.
pub fn decide(gate: &Gate, known: Known<'_>, allowed: &Allowlist, now: Timestamp) -> Decision {
    match known {
        Known::Found(found, insufficient) => {
            let count = gate.counted(found, allowed, now).count();
            if count > 0 {
                let threshold = gate.threshold;
                return Decision::Refuse(Prevented::Vulnerable { count, threshold });
            }
            match insufficient {
                None => Decision::Pass,
                // no scan makes it better
                Some(why) => match gate.insufficient {
                    Unscanned::Allow => Decision::Pass,
                    _ => Decision::Refuse(Prevented::Insufficient(why.to_owned(), gate.threshold)),
                },
            }
        }
        Known::Nothing(status) => {
            let why = Prevented::Unscanned(status, gate.threshold);
            match (status, gate.unscanned) {
                (ScanStatus::Pending | ScanStatus::Running, Unscanned::Wait(wait)) => {
                    Decision::Wait(wait, why)
                }
                // it will not come by itself
                (_, Unscanned::Block | Unscanned::Wait(_)) => Decision::Refuse(why),
                (_, Unscanned::Allow) => Decision::Pass,
            }
        }
    }
}

#[cfg(test)]
mod tests;
