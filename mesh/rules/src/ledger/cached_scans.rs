//! Scans of images that proxy projects have cached.
//!
//! The ledger does not know what is cached: the upstream is the authority for that. It has what was
//! found in an image ([`ScanRecord`]), because every node and edge decides by it who may pull. That is
//! little, bounded for each project, and goes when nobody has cached the image any more. Of its layers
//! nothing is kept: they are read again.
//!
//! A scan is asked for by a pull. So the queue has an end, and who pulls many images waits.

use std::time::Duration;

use super::records::{Look, Project, RecordError};
use super::scanning::{DatabaseRecord, ScanRecord, key as scans_key};
use crate::policies::vulnerabilities::metadata::AUTO_SCAN;
use crate::policies::vulnerabilities::metadata::PREVENT;
use crate::policies::vulnerabilities::{
    Allowlist, Decision, Gate, Known, Prevented, ScanStatus, Unscanned, decide,
};
use crate::words::moment::Timestamp;
use crate::words::names::ProjectId;

/// The maximum number of scans of a project that wait because somebody pulls; and of those that
/// somebody has asked for by hand.
pub const MOST_WAITING: usize = 100;
/// The maximum number of images of a project of which something is known. With one more, the one is
/// forgotten whose scan was asked for first.
pub const MOST_KNOWN: u64 = 5_000;
/// After this time a pull asks again for a scan that has failed, or was stopped.
pub const AGAIN: Duration = Duration::from_secs(600);
/// After this time a pull asks again for the report of a scanner that is not built in: nobody tells
/// when it would say something else.
pub const OLD: Duration = Duration::from_secs(86_400);

/// Keys of these records.
pub mod key {
    use super::*;

    /// An image of which something is known, in the order in which scans were asked for; the value is
    /// the key of what is known.
    pub fn known(project: ProjectId, number: u64) -> Vec<u8> {
        [&all_known(project)[..], &number.to_be_bytes()].concat()
    }
    /// All of a project.
    pub fn all_known(project: ProjectId) -> Vec<u8> {
        [b"$o", &project.0.to_be_bytes()[..]].concat()
    }
    /// How many there are.
    pub fn count(project: ProjectId) -> Vec<u8> {
        [b"$z", &project.0.to_be_bytes()[..]].concat()
    }
    /// That vulnerable images of this project may be refused. It is in a table that edges follow.
    pub fn judged(project: ProjectId) -> Vec<u8> {
        [&scans_key::verdicts()[..], &project.0.to_be_bytes()].concat()
    }
}

/// The numbers of the scans in a record: one of them has a key of [`key::known`].
pub fn numbers(record: &ScanRecord) -> impl Iterator<Item = u64> {
    let wanted = record.wanted.as_ref().map(|one| one.number);
    let reported = record.report.as_ref().map(|one| one.number);
    let unfinished = record.unfinished.as_ref().map(|one| one.number);
    [wanted, reported, unfinished].into_iter().flatten()
}

/// Whether images that this project caches are scanned when they are pulled: somebody's policy asks for
/// it.
pub fn wants_scans(project: &Project) -> bool {
    let scans = project.metadata.get(AUTO_SCAN).is_some_and(|value| value == "true");
    project.upstream.is_some() && (scans || Gate::of(&project.metadata).is_some())
}

/// Whether a pull at `now` asks for a scan of an image of which this is known, if the mesh uses this
/// database. A new database is a reason: of what is cached no list of packages is kept that could be
/// compared with it.
pub fn is_due(
    known: Option<&ScanRecord>,
    database: Option<&DatabaseRecord>,
    now: Timestamp,
) -> bool {
    let Some(known) = known else { return true };
    let is_past = |at: Timestamp, rest: Duration| {
        now.0.saturating_sub(at.0) >= u64::try_from(rest.as_millis()).unwrap_or(u64::MAX)
    };
    match known {
        ScanRecord { wanted: Some(_), .. } => false,
        ScanRecord { unfinished: Some(unfinished), .. } => is_past(unfinished.at, AGAIN),
        ScanRecord { report: Some(report), .. } if report.is_from_elsewhere() => {
            is_past(report.at, OLD)
        }
        ScanRecord { report: Some(report), .. } => {
            database.is_some_and(|used| used.digest != report.database)
        }
        ScanRecord { .. } => true,
    }
}

/// Decides about a pull of an image that a proxy project has cached ([`decide`]). The pull itself has
/// asked for a scan, so it waits where nothing is known yet, too.
pub fn decide_cached(
    gate: &Gate,
    known: Known<'_>,
    allowed: &Allowlist,
    now: Timestamp,
) -> Decision {
    match (decide(gate, known, allowed, now), gate.unscanned) {
        (
            Decision::Refuse(why @ Prevented::Unscanned(ScanStatus::NotScanned, _)),
            Unscanned::Wait(wait),
        ) => Decision::Wait(wait, why),
        (decision, _) => decision,
    }
}

/// Whether a change of a project's metadata makes it one whose images may be refused.
pub fn begins_to_judge<'a>(
    caches: bool,
    mut entries: impl Iterator<Item = (&'a String, &'a String)>,
) -> bool {
    caches && entries.any(|(key, value)| key == PREVENT && value == "true")
}

/// Typed reading of these records.
pub trait LookForCachedScans: Look {
    /// Whether vulnerable images of a proxy project may be refused. What its metadata said before
    /// [`Level::CACHED_SCANS`](super::level::Level::CACHED_SCANS) had no effect, and has none until
    /// somebody says it again. Edges are told no feature level, and read this as a table that they
    /// follow.
    fn are_cached_judged(&self, project: ProjectId) -> Result<bool, RecordError> {
        let judged = key::judged(project);
        let table = self.records::<u64>(&scans_key::verdicts())?;
        Ok(table.iter().any(|(place, _)| *place == judged))
    }
    /// The gate of a project, whether it caches a registry or not.
    fn gate_of(&self, project: &Project) -> Result<Option<Gate>, RecordError> {
        match Gate::of(&project.metadata) {
            Some(gate) if project.upstream.is_none() || self.are_cached_judged(project.id)? => {
                Ok(Some(gate))
            }
            _ => Ok(None),
        }
    }
    /// Whether one more scan of a cached image can be asked for.
    fn has_room_for_scans(&self, project: ProjectId, first: bool) -> Result<bool, RecordError> {
        let queue = match first {
            true => scans_key::queue_of_few(project),
            false => scans_key::queue_of_many(project),
        };
        Ok(self.scan(&queue, None, MOST_WAITING)?.len() < MOST_WAITING)
    }
}

impl<R: Look + ?Sized> LookForCachedScans for R {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::scanning::{Report, Unfinished, Wanted};
    use crate::words::digest::Digest;

    #[test]
    fn a_pull_waits_for_the_scan_that_it_has_asked_for_itself() {
        let gate = |unscanned: &str| {
            let entries = [("prevent_vul", "true"), ("vul_unscanned", unscanned)];
            let entries = entries.map(|(key, value)| (key.to_owned(), value.to_owned()));
            Gate::of(&entries.into()).expect("it prevents")
        };
        let none = Allowlist::default();
        let decide = |unscanned: &str, status| {
            decide_cached(&gate(unscanned), Known::Nothing(status), &none, Timestamp(0))
        };
        use ScanStatus::{Error, NotScanned, Running};
        for (unscanned, status, waits) in [
            ("wait 5", NotScanned, true),
            ("wait 5", Running, true),
            ("wait 5", Error, false),
            ("block", NotScanned, false),
        ] {
            let decision = decide(unscanned, status);
            assert_eq!(matches!(decision, Decision::Wait(..)), waits, "{unscanned} {status:?}");
            assert_ne!(decision, Decision::Pass);
        }
        assert_eq!(decide("allow", NotScanned), Decision::Pass);
    }

    #[test]
    fn a_pull_asks_for_what_is_not_known_or_out_of_date_and_does_not_repeat_itself() {
        let (database, newer) = (Digest::sha256(b"1"), Digest::sha256(b"2"));
        let used = |digest| DatabaseRecord {
            digest,
            updated: Timestamp(0),
            next_update: Timestamp(0),
            since: Timestamp(0),
        };
        let report = |database| Report {
            number: 1,
            begun: Timestamp(0),
            at: Timestamp(1_000),
            engine: String::new(),
            database,
            insufficient: None,
            found: vec![],
            log: String::new(),
        };
        let ended = |at| Unfinished { number: 2, at: Timestamp(at), why: None };
        let wanted = Wanted { number: 3, at: Timestamp(0), first: false, tries: 0, begun: None };
        let of =
            |report: Option<Report>, unfinished| ScanRecord { wanted: None, report, unfinished };
        let day = 86_400_000;
        let elsewhere = report(Report::no_database());
        for (known, now, due) in [
            (None, 0, true),
            (Some(ScanRecord::default()), 0, true),
            (Some(of(Some(report(database)), None)), 9 * day, false),
            (Some(of(Some(report(newer)), None)), 1_000, true),
            (Some(of(Some(elsewhere.clone()), None)), day, false),
            (Some(of(Some(elsewhere.clone()), None)), day + 1_000, true),
            (Some(of(Some(report(newer)), Some(ended(5_000)))), 600_000, false),
            (Some(of(None, Some(ended(5_000)))), 605_000, true),
            (
                Some(ScanRecord { wanted: Some(wanted), ..of(Some(report(newer)), None) }),
                day,
                false,
            ),
        ] {
            let said = is_due(known.as_ref(), Some(&used(database)), Timestamp(now));
            assert_eq!(said, due, "{known:?} at {now}");
        }
    }
}
