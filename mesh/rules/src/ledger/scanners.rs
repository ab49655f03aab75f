//! Other scanners than the one that is built in: which there are, and what they have reported.
//!
//! A scanner is asked over Harbor's API for pluggable scanners. What it reports is kept whole, because
//! nothing here could make it anew; what decides about pulls is kept with the image, as of every scan
//! ([`scanning`](super::scanning)).

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::records::{Look, RecordError};
use crate::words::digest::Digest;
use crate::words::moment::Timestamp;
use crate::words::names::{RepositoryName, ScannerId};
use crate::words::secret::Secret;

/// The maximum number of registered scanners.
pub const MOST: usize = 50;
/// The maximum length of a name, a description and a URL in bytes (Harbor's columns,
/// `src/pkg/scan/dao/scanner/model.go`).
pub const LONGEST_NAME: usize = 128;
/// See [`LONGEST_NAME`].
pub const LONGEST_DESCRIPTION: usize = 1024;
/// See [`LONGEST_NAME`].
pub const LONGEST_URL: usize = 512;
/// The maximum length of what the mesh shows a scanner, sealed, in bytes.
const LONGEST_CREDENTIAL: usize = 4 << 10;
/// The maximum length of what is kept of a report, in bytes: compressed, as of a layer.
pub const MOST_KEPT: usize = 512 << 10;
/// The maximum length of a scanner's name, vendor and version in a report, in bytes.
pub const LONGEST_WORD: usize = 128;

/// What the mesh shows a scanner (Harbor's `auth`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScannerAuth {
    /// Nothing.
    #[default]
    Nothing,
    /// A name and a password, as `name:password`.
    Basic,
    /// A token.
    Bearer,
    /// A key, in `X-ScannerAdapter-API-Key`.
    ApiKey,
}

impl ScannerAuth {
    /// All.
    pub const ALL: [ScannerAuth; 4] =
        [ScannerAuth::Nothing, ScannerAuth::Basic, ScannerAuth::Bearer, ScannerAuth::ApiKey];

    /// Harbor's word (`src/pkg/scan/rest/auth`).
    pub fn word(self) -> &'static str {
        match self {
            ScannerAuth::Nothing => "",
            ScannerAuth::Basic => "Basic",
            ScannerAuth::Bearer => "Bearer",
            ScannerAuth::ApiKey => "X-ScannerAdapter-API-Key",
        }
    }

    /// The one with this word.
    pub fn named(word: &str) -> Option<Self> {
        ScannerAuth::ALL.into_iter().find(|auth| auth.word() == word)
    }
}

/// A registered scanner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScannerRecord {
    /// Its number.
    pub id: ScannerId,
    /// Its name; names are unique.
    pub name: String,
    /// A description for people.
    pub description: String,
    /// Where it is; URLs are unique.
    pub url: String,
    /// What it is shown.
    pub auth: ScannerAuth,
    /// The secret for that, sealed for [`place`].
    pub credential: Option<Secret>,
    /// Whether its certificate is not checked.
    pub skips_certificate: bool,
    /// Whether it pulls at the address that nodes have for each other's clients, and not at the public
    /// one (Harbor's `use_internal_addr`).
    pub internal: bool,
    /// Whether nothing is scanned by it now.
    pub disabled: bool,
    /// When it was registered.
    pub created: Timestamp,
    /// When its record changed last.
    pub changed: Timestamp,
}

/// What stands in place of a URL for the program trivy, which each node starts by itself. A build from
/// before there was this takes it for a wrong URL, and its scans fail with a sentence.
pub const TRIVY: &str = "program:trivy";

impl ScannerRecord {
    /// Whether it is a program that the nodes start, and nothing that they connect to.
    pub fn is_program(&self) -> bool {
        self.url == TRIVY
    }

    /// Checks the lengths. The error is a sentence.
    pub fn check(&self) -> Result<(), String> {
        if self.id.is_built_in() {
            return Err("this number is that of a scanner that is built in".into());
        }
        if self.name.is_empty() || self.name.len() > LONGEST_NAME {
            return Err(format!("a scanner's name has 1 to {LONGEST_NAME} bytes"));
        }
        if self.description.len() > LONGEST_DESCRIPTION {
            return Err(format!("a scanner's description has at most {LONGEST_DESCRIPTION} bytes"));
        }
        if self.url.is_empty() || self.url.len() > LONGEST_URL {
            return Err(format!("a scanner's url has 1 to {LONGEST_URL} bytes"));
        }
        if self.credential.as_ref().is_some_and(|one| one.expose().len() > LONGEST_CREDENTIAL) {
            return Err("a scanner's access_credential is too long".into());
        }
        if self.credential.is_some() != (self.auth != ScannerAuth::Nothing) {
            return Err("a scanner's auth and access_credential belong together".into());
        }
        Ok(())
    }
}

/// The place for which a scanner's secret is sealed: it does not change with its name.
pub fn place(id: ScannerId) -> String {
    format!("scanner {id}")
}

/// A change of which scanners there are. A variant's position is its number in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegistrationChange {
    /// Registers a scanner. Its times are that of the entry.
    Add(ScannerRecord),
    /// Changes a scanner, if its record has not changed since the decision.
    Change {
        /// The record at the time of the decision.
        was: Box<ScannerRecord>,
        /// The new record; number and first time stay.
        becomes: Box<ScannerRecord>,
    },
    /// Forgets a scanner. Projects that have chosen it use the default from then on.
    Remove(ScannerId),
    /// From now on this is the scanner of projects that have chosen none.
    MakeDefault(ScannerId),
}

impl RegistrationChange {
    /// A word for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            RegistrationChange::Add(_) => "add_scanner",
            RegistrationChange::Change { .. } => "change_scanner",
            RegistrationChange::Remove(_) => "remove_scanner",
            RegistrationChange::MakeDefault(_) => "set_default_scanner",
        }
    }

    /// What it does, in the words of events.
    pub fn operation(&self) -> &'static str {
        match self {
            RegistrationChange::Add(_) => "create",
            RegistrationChange::Change { .. } | RegistrationChange::MakeDefault(_) => "update",
            RegistrationChange::Remove(_) => "delete",
        }
    }
}

/// What another scanner has reported of an image, besides what decides about pulls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elsewhere {
    /// The scanner.
    pub scanner: ScannerId,
    /// What it calls itself.
    pub name: String,
    /// Whose it is, as it says.
    pub vendor: String,
    /// Its version, as it says.
    pub version: String,
    /// When its database was made, if it says so.
    pub updated: Option<Timestamp>,
    /// The findings with their texts, as compressed JSON.
    pub findings: ByteBuf,
}

impl Elsewhere {
    /// Checks the lengths. The error is a sentence.
    pub fn check(&self) -> Result<(), String> {
        if [&self.name, &self.vendor, &self.version].iter().any(|word| word.len() > LONGEST_WORD) {
            return Err(format!("what a scanner calls itself has at most {LONGEST_WORD} bytes"));
        }
        if self.findings.len() > MOST_KEPT {
            return Err(format!("a scanner's report has at most {MOST_KEPT} bytes"));
        }
        Ok(())
    }
}

/// Keys of these records in the map.
pub mod key {
    use super::*;

    /// A registered scanner. Its secret is sealed.
    pub fn scanner(id: ScannerId) -> Vec<u8> {
        [&scanners()[..], &id.0.to_be_bytes()].concat()
    }
    /// All of them.
    pub fn scanners() -> Vec<u8> {
        b"$g".to_vec()
    }
    /// Whether a record is for replicas only: it may hold something sealed, or all that is known of an
    /// image's faults.
    pub fn is_for_replicas(key: &[u8]) -> bool {
        key.starts_with(b"$g") || key.starts_with(b"$r")
    }
    /// What another scanner has reported of an image.
    pub fn elsewhere(repository: &RepositoryName, digest: &Digest) -> Vec<u8> {
        [b"$r", repository.as_str().as_bytes(), b"\0", &digest.to_key()].concat()
    }
}

/// Typed reading of these records.
pub trait LookForScanners: Look {
    /// A registered scanner.
    fn scanner(&self, id: ScannerId) -> Result<Option<ScannerRecord>, RecordError> {
        self.record(&key::scanner(id))
    }
    /// All registered scanners, by name.
    fn scanners(&self) -> Result<Vec<ScannerRecord>, RecordError> {
        let all = self.records::<ScannerRecord>(&key::scanners())?;
        let mut all: Vec<_> = all.into_iter().map(|(_, record)| record).collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }
    /// What another scanner has reported of an image, if the last report is of one.
    fn reported_elsewhere(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Elsewhere>, RecordError> {
        self.record(&key::elsewhere(repository, digest))
    }
}

impl<R: Look + ?Sized> LookForScanners for R {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scanner_has_a_secret_exactly_if_it_is_shown_one() {
        let record = |auth, credential: Option<&str>| ScannerRecord {
            id: ScannerId(7),
            name: "clair".into(),
            description: String::new(),
            url: "https://clair.example".into(),
            auth,
            credential: credential.map(Secret::from),
            skips_certificate: false,
            internal: false,
            disabled: false,
            created: Timestamp(0),
            changed: Timestamp(0),
        };
        assert!(record(ScannerAuth::Nothing, None).check().is_ok());
        assert!(record(ScannerAuth::Bearer, Some("sealed")).check().is_ok());
        assert!(record(ScannerAuth::Bearer, None).check().is_err());
        assert!(record(ScannerAuth::Nothing, Some("sealed")).check().is_err());
        for auth in ScannerAuth::ALL {
            assert_eq!(ScannerAuth::named(auth.word()), Some(auth));
        }
        assert_eq!(ScannerAuth::named("basic"), None, "Harbor compares letter by letter");
        let built_in =
            ScannerRecord { id: ScannerId::NATIVE, ..record(ScannerAuth::Nothing, None) };
        assert!(built_in.check().is_err());
    }

    #[test]
    fn a_number_is_written_as_harbor_writes_it() {
        let native = "00000000-0000-4000-8000-00000000a701";
        assert_eq!(ScannerId::NATIVE.to_string(), native);
        assert_eq!(native.parse(), Ok(ScannerId::NATIVE));
        assert_eq!(native.to_uppercase().parse(), Ok(ScannerId::NATIVE));
        for wrong in
            ["", "7", "00000000000040008000-00000000a701", "g0000000-0000-4000-8000-00000000a701"]
        {
            assert!(wrong.parse::<ScannerId>().is_err(), "{wrong}");
        }
    }
}
