//! What is known of the vulnerabilities of images: records and changes.
//!
//! What was read out of a layer is kept by the layer's digest, for all images that have it. What was
//! found in an image is kept with the image, as far as it decides who may pull it: a report with
//! all its texts is made anew from the layers and a database whenever somebody wants to see one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::level::Level;
use super::records::{Look, RecordError, decode};
use super::scanners::{Elsewhere, RegistrationChange};
use crate::policies::vulnerabilities::{Allowlist, Gate, Known, ScanStatus, Weakness};
use crate::words::digest::Digest;
use crate::words::moment::Timestamp;
use crate::words::names::{ProjectId, ProjectName, RepositoryName, ScannerId};

/// The maximum number of images that one change asks to scan, and of layers in one change.
pub const AT_ONCE: usize = 500;
/// How often a scan is begun before it has failed. One that takes its node down each time must come
/// to an end.
pub const MOST_TRIES: u32 = 3;
/// The maximum length of a layer's contents as they are kept, in bytes.
pub const MOST_KEPT: usize = 512 << 10;
/// The number of records that are read at a time.
const PAGE: usize = 500;
/// The maximum length of a reason and of a log in bytes.
pub const LONGEST_TEXT: usize = 2 << 10;

/// A database of vulnerabilities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseRecord {
    /// The digest of its archive.
    pub digest: Digest,
    /// When it was made, as it says.
    pub updated: Timestamp,
    /// When there will be a newer one, as it says.
    pub next_update: Timestamp,
    /// When this mesh began to use it.
    pub since: Timestamp,
}

/// A scan that somebody waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Its number.
    pub number: u64,
    /// When it was asked for.
    pub at: Timestamp,
    /// Whether it goes before others: somebody has asked for this image alone.
    pub first: bool,
    /// How often it was begun.
    pub tries: u32,
    /// When it was begun last.
    pub begun: Option<Timestamp>,
}

/// What a scan has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The number of the scan.
    pub number: u64,
    /// When it began.
    pub begun: Timestamp,
    /// When it was recorded.
    pub at: Timestamp,
    /// What looked.
    pub engine: String,
    /// The database that was looked in; [`Report::no_database`] if another scanner has looked.
    pub database: Digest,
    /// Why too little is known; `None` if everything was judged.
    pub insufficient: Option<String>,
    /// What was found, each id once.
    pub found: Vec<Weakness>,
    /// What the scan has to say of how it went.
    pub log: String,
}

impl Report {
    /// What a report names that another scanner has made: its database is none of this mesh.
    pub fn no_database() -> Digest {
        Digest::sha256(b"")
    }

    /// Whether another scanner than the one that is built in has made it. A new database of this mesh
    /// says nothing about it.
    pub fn is_from_elsewhere(&self) -> bool {
        self.database == Report::no_database()
    }
}

/// A scan without a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfinished {
    /// Its number.
    pub number: u64,
    /// When it ended.
    pub at: Timestamp,
    /// Why; `None` if somebody stopped it.
    pub why: Option<String>,
}

/// What is known of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanRecord {
    /// The scan that waits or runs.
    pub wanted: Option<Wanted>,
    /// The last report. It stays until there is another.
    pub report: Option<Report>,
    /// The last scan, if it was after the report and has none.
    pub unfinished: Option<Unfinished>,
}

impl ScanRecord {
    /// How far the scan is, of which there is no report yet; the report's if there is nothing after
    /// it.
    pub fn status(&self) -> ScanStatus {
        match self {
            ScanRecord { wanted: Some(Wanted { begun: Some(_), .. }), .. } => ScanStatus::Running,
            ScanRecord { wanted: Some(_), .. } => ScanStatus::Pending,
            ScanRecord { unfinished: Some(Unfinished { why: Some(_), .. }), .. } => {
                ScanStatus::Error
            }
            ScanRecord { unfinished: Some(_), .. } => ScanStatus::Stopped,
            ScanRecord { report: Some(_), .. } => ScanStatus::Success,
            ScanRecord { .. } => ScanStatus::NotScanned,
        }
    }

    /// What decides about a pull. A new scan does not take the last report away.
    pub fn known(&self) -> Known<'_> {
        match &self.report {
            Some(report) => Known::Found(&report.found, report.insufficient.as_deref()),
            None => Known::Nothing(self.status()),
        }
    }
}

/// How long a scan rests that was begun this often and may be tried again: what it lacked may be
/// there after a while, and others have their turn meanwhile.
pub fn rest(tries: u32) -> Duration {
    Duration::from_secs(5) * 6_u32.saturating_pow(tries.saturating_sub(1)).min(60)
}

/// A change of what is known of a project's images, by its primary. A variant's position is its
/// number in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScanChange {
    /// Somebody wants these images to be scanned. One that waits already stays where it is, and one
    /// that is not there is left out.
    Ask {
        /// The repository.
        repository: RepositoryName,
        /// The images, at most [`AT_ONCE`].
        digests: Vec<Digest>,
        /// Whether they go before others.
        first: bool,
    },
    /// The scan begins.
    Begin {
        /// The repository.
        repository: RepositoryName,
        /// The image.
        digest: Digest,
        /// The number of the scan.
        number: u64,
    },
    /// The scan has ended with a report. Its time is that of the entry.
    Report {
        /// The repository.
        repository: RepositoryName,
        /// The image.
        digest: Digest,
        /// The report. One with the number of the last report replaces that: the database has
        /// changed.
        report: Report,
    },
    /// The scan has failed.
    Fail {
        /// The repository.
        repository: RepositoryName,
        /// The image.
        digest: Digest,
        /// The number of the scan.
        number: u64,
        /// Why.
        why: String,
        /// Whether another try may help.
        again: bool,
    },
    /// Nobody wants the scan any more.
    Stop {
        /// The repository.
        repository: RepositoryName,
        /// The image.
        digest: Digest,
    },
    /// All reports of the project are what this database says.
    Matched {
        /// The project.
        project: ProjectName,
        /// The database.
        database: Digest,
    },
    /// Sets the project's allowlist.
    Allow {
        /// The project.
        project: ProjectName,
        /// The list.
        list: Allowlist,
    },
    /// The scan has ended with a report of another scanner.
    ReportElsewhere {
        /// The repository.
        repository: RepositoryName,
        /// The image.
        digest: Digest,
        /// What decides about pulls.
        report: Report,
        /// The rest of the report.
        elsewhere: Box<Elsewhere>,
    },
    /// Nobody wants the scans any more that were asked for of many images at once, a limited number at a
    /// time. Those of images that somebody has asked for alone go on.
    StopAll {
        /// The project.
        project: ProjectName,
    },
    /// These images, which a proxy project has cached, are to be scanned
    /// ([`cached_scans`](super::cached_scans)).
    AskCached {
        /// The repository.
        repository: RepositoryName,
        /// The images, at most [`AT_ONCE`].
        digests: Vec<Digest>,
        /// Whether they go before others: somebody has asked for these alone.
        first: bool,
    },
    /// Nobody has cached these images any more, and what is known of them is forgotten.
    ForgetCached {
        /// The repository.
        repository: RepositoryName,
        /// The images, at most [`AT_ONCE`].
        digests: Vec<Digest>,
    },
}

impl ScanChange {
    /// The minimum feature level, see [`Command::level`](super::command::Command::level).
    pub fn level(&self) -> Level {
        match self {
            ScanChange::ReportElsewhere { .. } | ScanChange::StopAll { .. } => Level::SCANNERS,
            ScanChange::AskCached { .. } | ScanChange::ForgetCached { .. } => Level::CACHED_SCANS,
            _ => Level::SCANS,
        }
    }

    /// The project.
    pub fn project(&self) -> ProjectName {
        match self {
            ScanChange::Ask { repository, .. }
            | ScanChange::Begin { repository, .. }
            | ScanChange::Report { repository, .. }
            | ScanChange::Fail { repository, .. }
            | ScanChange::ReportElsewhere { repository, .. }
            | ScanChange::AskCached { repository, .. }
            | ScanChange::ForgetCached { repository, .. }
            | ScanChange::Stop { repository, .. } => repository.project(),
            ScanChange::Matched { project, .. }
            | ScanChange::Allow { project, .. }
            | ScanChange::StopAll { project } => project.clone(),
        }
    }

    /// A word for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            ScanChange::Ask { .. } | ScanChange::AskCached { .. } => "ask_scan",
            ScanChange::ForgetCached { .. } => "forget_scans",
            ScanChange::Begin { .. } => "begin_scan",
            ScanChange::Report { .. } | ScanChange::ReportElsewhere { .. } => "report_scan",
            ScanChange::Fail { .. } => "fail_scan",
            ScanChange::Stop { .. } => "stop_scan",
            ScanChange::StopAll { .. } => "stop_scans",
            ScanChange::Matched { .. } => "match_reports",
            ScanChange::Allow { .. } => "set_allowlist",
        }
    }
}

/// A change for all projects. A variant's position is its number in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScannerChange {
    /// Keeps what was read out of layers, as compressed JSON. Layers that no image has are left out.
    Layers(Vec<(Digest, serde_bytes::ByteBuf)>),
    /// From now on this database is used.
    Database {
        /// The digest of its archive.
        digest: Digest,
        /// When it was made.
        updated: Timestamp,
        /// When there will be a newer one.
        next_update: Timestamp,
    },
    /// Sets the mesh's allowlist.
    Allow(Allowlist),
    /// Changes which other scanners there are.
    Registration(Box<RegistrationChange>),
}

impl ScannerChange {
    /// The minimum feature level, see [`Command::level`](super::command::Command::level).
    pub fn level(&self) -> Level {
        match self {
            ScannerChange::Registration(_) => Level::SCANNERS,
            _ => Level::SCANS,
        }
    }

    /// A word for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            ScannerChange::Layers(_) => "keep_layers",
            ScannerChange::Database { .. } => "use_vulnerability_database",
            ScannerChange::Allow(_) => "set_system_allowlist",
            ScannerChange::Registration(change) => change.name(),
        }
    }
}

/// Keys of scans in the map. All letters and digits have a table.
pub mod key {
    use super::*;

    /// What is known of an image.
    pub fn scan(repository: &RepositoryName, digest: &Digest) -> Vec<u8> {
        [b"#", repository.as_str().as_bytes(), b"\0", &digest.to_key()].concat()
    }
    /// What is known of the images of a project.
    pub fn scans_of(project: &ProjectName) -> Vec<u8> {
        [b"#", project.as_str().as_bytes(), b"/"].concat()
    }
    /// The repository and digest in a key of [`scan`].
    pub fn scanned(key: &[u8]) -> Option<(RepositoryName, Digest)> {
        let (table, rest) = key.split_first()?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        let name = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
        (*table == b'#').then_some((name, Digest::from_key(&rest[end + 1..]).ok()?))
    }
    /// A scan that waits or runs; the value is the key of [`scan`].
    pub fn queued(project: ProjectId, first: bool, number: u64) -> Vec<u8> {
        let order = [u8::from(!first)];
        [b"$q", &project.0.to_be_bytes()[..], &order, &number.to_be_bytes()].concat()
    }
    /// The scans of a project that wait or run, in the order in which they are begun.
    pub fn queue(project: ProjectId) -> Vec<u8> {
        [b"$q", &project.0.to_be_bytes()[..]].concat()
    }
    /// Those of them that go after the others.
    pub fn queue_of_many(project: ProjectId) -> Vec<u8> {
        [&queue(project)[..], &[1]].concat()
    }
    /// Those of them that go before the others.
    pub fn queue_of_few(project: ProjectId) -> Vec<u8> {
        [&queue(project)[..], &[0]].concat()
    }
    /// The number of the last scan.
    pub fn last_scan() -> Vec<u8> {
        b"$n".to_vec()
    }
    /// The mesh's allowlist.
    pub fn system_allowlist() -> Vec<u8> {
        b"$a".to_vec()
    }
    /// A project's allowlist.
    pub fn allowlist(project: ProjectId) -> Vec<u8> {
        [b"$p", &project.0.to_be_bytes()[..]].concat()
    }
    /// The database that is used.
    pub fn database() -> Vec<u8> {
        b"$d".to_vec()
    }
    /// How often what decides about vulnerable images was changed.
    pub fn verdicts() -> Vec<u8> {
        b"$v".to_vec()
    }
    /// That there is another scanner; the value is [`USED`] or [`DEFAULT`](super::DEFAULT). It is in a
    /// table that edges follow, and has no secret.
    ///
    /// [`USED`]: super::USED
    pub fn known_scanner(id: ScannerId) -> Vec<u8> {
        [&verdicts()[..], &id.0.to_be_bytes()].concat()
    }
    /// The scanner of a key of [`known_scanner`].
    pub fn scanner_of(key: &[u8]) -> Option<ScannerId> {
        let id = key.strip_prefix(&verdicts()[..])?.try_into().ok()?;
        Some(ScannerId(u128::from_be_bytes(id)))
    }
    /// The tables that an edge follows, to hear soon that what it has kept is not true any more.
    pub fn followed() -> [Vec<u8>; 2] {
        [database(), verdicts()]
    }
    /// Whether a record decides about vulnerable images: a change of one is counted.
    pub fn is_of_verdicts(key: &[u8]) -> bool {
        key.starts_with(b"#") || key.starts_with(b"$a") || key.starts_with(b"$p")
    }
    /// The database of which all reports of a project are.
    pub fn matched(project: ProjectId) -> Vec<u8> {
        [b"$m", &project.0.to_be_bytes()[..]].concat()
    }
    /// What was read out of a layer.
    pub fn layer(digest: &Digest) -> Vec<u8> {
        [&b"%"[..], &digest.to_key()].concat()
    }
}

/// The value of [`key::known_scanner`] of a scanner that projects may choose.
pub const USED: u64 = 1;
/// The same of the scanner of all projects that have chosen none.
pub const DEFAULT: u64 = 2;

/// Which scanners there are besides the one that is built in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownScanners {
    default: Option<ScannerId>,
    others: Vec<ScannerId>,
}

impl KnownScanners {
    /// The scanner of a project that has chosen this one, or none. One that is not there any more
    /// counts as none.
    pub fn of(&self, chosen: Option<ScannerId>) -> ScannerId {
        let is_there = |id: &ScannerId| id.is_built_in() || self.others.contains(id);
        chosen.filter(is_there).unwrap_or_else(|| self.usual())
    }

    /// The scanner of projects that have chosen none.
    pub fn usual(&self) -> ScannerId {
        self.default.unwrap_or(ScannerId::NATIVE)
    }
}

/// What the records say about a pull of one image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// What is known of the image.
    pub scan: Option<ScanRecord>,
    /// The allowlist that counts.
    pub allowed: Allowlist,
}

impl Facts {
    /// What decides.
    pub fn known(&self) -> Known<'_> {
        self.scan.as_ref().map_or(Known::Nothing(ScanStatus::NotScanned), ScanRecord::known)
    }
}

/// Typed reading of scans.
pub trait LookForScans: Look {
    /// What is known of an image.
    fn scan_of(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<ScanRecord>, RecordError> {
        self.record(&key::scan(repository, digest))
    }
    /// The database that is used; `None` if nothing is scanned in this mesh. It is read as a table,
    /// which edges follow: they ask for nothing else of scans until there is one, because replicas
    /// of earlier builds would refuse them.
    fn scan_database(&self) -> Result<Option<DatabaseRecord>, RecordError> {
        let table = self.records::<DatabaseRecord>(&key::database())?;
        Ok(table.into_iter().next().map(|(_, record)| record))
    }
    /// How often what decides about vulnerable images was changed; edges ask again when it has. It
    /// is read as a table, as [`LookForScans::scan_database`] is.
    fn verdicts_version(&self) -> Result<u64, RecordError> {
        let table = self.records::<u64>(&key::verdicts())?;
        let counted = table.into_iter().find(|(place, _)| *place == key::verdicts());
        Ok(counted.map_or(0, |(_, version)| version))
    }
    /// Which scanners there are besides the one that is built in, as edges know it, too.
    fn known_scanners(&self) -> Result<KnownScanners, RecordError> {
        let mut known = KnownScanners::default();
        for (place, value) in self.records::<u64>(&key::verdicts())? {
            let Some(id) = key::scanner_of(&place) else { continue };
            if value == DEFAULT {
                known.default = Some(id);
            }
            known.others.push(id);
        }
        Ok(known)
    }
    /// Whether images can be scanned of a project that has chosen this scanner, or none: the mesh has a
    /// database, or the project has another scanner.
    fn can_be_scanned(&self, chosen: Option<ScannerId>) -> Result<bool, RecordError> {
        Ok(self.scan_database()?.is_some()
            || self.known_scanners()?.of(chosen) != ScannerId::NATIVE)
    }
    /// The mesh's allowlist.
    fn system_allowlist(&self) -> Result<Allowlist, RecordError> {
        Ok(self.record(&key::system_allowlist())?.unwrap_or_default())
    }
    /// A project's own allowlist.
    fn allowlist(&self, project: ProjectId) -> Result<Allowlist, RecordError> {
        Ok(self.record(&key::allowlist(project))?.unwrap_or_default())
    }
    /// The allowlist that counts for a project with this gate.
    fn allowed(&self, gate: &Gate, project: ProjectId) -> Result<Allowlist, RecordError> {
        if gate.system_allowlist { self.system_allowlist() } else { self.allowlist(project) }
    }
    /// Calls `take` with what is known of each image of a project, some hundreds in memory at a time.
    fn each_scan(
        &self,
        project: &ProjectName,
        mut take: impl FnMut(RepositoryName, Digest, ScanRecord) -> Result<(), RecordError>,
    ) -> Result<(), RecordError> {
        let (prefix, mut after) = (key::scans_of(project), None);
        loop {
            let some = self.scan(&prefix, after.as_deref(), PAGE)?;
            let Some((last, _)) = some.last() else { return Ok(()) };
            after = Some(last.clone());
            for (place, record) in some {
                if let Some((repository, digest)) = key::scanned(&place) {
                    take(repository, digest, decode(&record)?)?;
                }
            }
        }
    }
    /// What decides about a pull of an image from a project with this gate; `None` if nothing can be
    /// scanned there, so that everything passes: the mesh has no database, and the project has no
    /// other scanner.
    fn scan_facts(
        &self,
        gate: &Gate,
        project: ProjectId,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Facts>, RecordError> {
        if !self.can_be_scanned(gate.scanner)? {
            return Ok(None);
        }
        // an edge asks for both at once
        let scan = self.scan_of(repository, digest)?;
        let allowed = self.allowed(gate, project)?;
        Ok(Some(Facts { scan, allowed }))
    }
    /// The scans of a project that wait or run, in their order, at most `limit`.
    fn queued_scans(
        &self,
        project: ProjectId,
        limit: usize,
    ) -> Result<Vec<(RepositoryName, Digest)>, RecordError> {
        let queue = self.scan(&key::queue(project), None, limit)?;
        Ok(queue.iter().filter_map(|(_, place)| key::scanned(place)).collect())
    }
    /// The database of which all reports of a project are.
    fn matched_database(&self, project: ProjectId) -> Result<Option<Digest>, RecordError> {
        self.record(&key::matched(project))
    }
    /// What was read out of a layer, as compressed JSON.
    fn layer_contents(&self, digest: &Digest) -> Result<Option<Vec<u8>>, RecordError> {
        self.get(&key::layer(digest))
    }
}

impl<R: Look + ?Sized> LookForScans for R {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_has_the_scanner_that_it_chose_for_as_long_as_that_is_there() {
        let (one, other, gone) = (ScannerId(7), ScannerId(8), ScannerId(9));
        let none = KnownScanners::default();
        assert_eq!(none.of(None), ScannerId::NATIVE);
        assert_eq!(none.of(Some(gone)), ScannerId::NATIVE);
        let known = KnownScanners { default: Some(one), others: vec![one, other] };
        assert_eq!(known.of(None), one);
        assert_eq!(known.of(Some(other)), other);
        assert_eq!(known.of(Some(gone)), one);
        assert_eq!(known.of(Some(ScannerId::NATIVE)), ScannerId::NATIVE);
        assert_eq!(key::scanner_of(&key::known_scanner(other)), Some(other));
        assert_eq!(key::scanner_of(&key::verdicts()), None);
    }

    #[test]
    fn a_scan_that_fails_rests_longer_each_time() {
        assert_eq!([1, 2, 3].map(|tries| rest(tries).as_secs()), [5, 30, 180]);
        assert_eq!(rest(u32::MAX), Duration::from_secs(300));
    }
}
