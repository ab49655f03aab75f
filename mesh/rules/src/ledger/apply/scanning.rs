//! Scans: asked for, carried out, and what they found.

use super::scan_queue::ask;
use super::{EMPTIED_AT_ONCE, cached_scans, scanners};
use crate::ledger::command::{NewManifest, Outcome};
use crate::ledger::level::Level;
use crate::ledger::records::{
    BlobRecord, Look, Project, RecordError, WriteRecords, decode, encode, key as records_key,
};
use crate::ledger::scanners::LookForScanners;
use crate::ledger::scanning::{
    AT_ONCE, DatabaseRecord, LONGEST_TEXT, LookForScans, MOST_KEPT, MOST_TRIES, Report, ScanChange,
    ScanRecord, ScannerChange, Unfinished, Wanted, key,
};
use crate::policies::vulnerabilities::metadata::AUTO_SCAN;
use crate::policies::vulnerabilities::{Decision, Gate, Known, chosen_scanner, decide};
use crate::words::digest::Digest;
use crate::words::image::{Image, Runnable};
use crate::words::moment::Timestamp;
use crate::words::names::{ProjectId, RepositoryName};

/// An image was pushed to a project that wants all of them to be scanned.
pub(super) fn pushed<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    project: &Project,
    new: &NewManifest,
) -> Result<(), RecordError> {
    let wants = project.metadata.get(AUTO_SCAN).is_some_and(|value| value == "true");
    if !wants || records.level()? < Level::SCANS {
        return Ok(());
    }
    let scannable = Image::read(&new.bytes) != Runnable::Nothing;
    let known = records.scan_of(&new.repository, &new.digest)?;
    if scannable && known.is_none_or(|known| known.report.is_none()) {
        ask(records, at, project.id, &new.repository, &new.digest, false)?;
    }
    Ok(())
}

/// A project is gone, and it has no images any more.
pub(super) fn leave_project<R: WriteRecords>(
    records: &mut R,
    project: ProjectId,
) -> Result<(), RecordError> {
    records.remove(&key::allowlist(project))?;
    records.remove(&key::matched(project))
}

/// A blob was collected.
pub(super) fn forget_layer<R: WriteRecords>(
    records: &mut R,
    digest: &Digest,
) -> Result<(), RecordError> {
    records.remove(&key::layer(digest))
}

pub(super) fn change<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    project: &Project,
    change: &ScanChange,
) -> Result<Outcome, RecordError> {
    if records.level()? < change.level() {
        return Ok(Outcome::Refused("there are no such scans at this feature level".into()));
    }
    let outcome = change_scan(records, at, project, change)?;
    // of a project without a gate edges need not hear: its metadata they follow anyhow
    let decides = match change {
        ScanChange::Ask { .. }
        | ScanChange::AskCached { .. }
        | ScanChange::ForgetCached { .. }
        | ScanChange::Begin { .. }
        | ScanChange::Matched { .. } => false,
        ScanChange::Report { .. }
        | ScanChange::ReportElsewhere { .. }
        | ScanChange::Fail { .. }
        | ScanChange::Stop { .. }
        | ScanChange::StopAll { .. } => Gate::of(&project.metadata).is_some(),
        ScanChange::Allow { .. } => true,
    };
    if decides && matches!(outcome, Outcome::Done | Outcome::Unfinished) {
        count_change(records)?;
    }
    Ok(outcome)
}

/// Counts a change of what decides about vulnerable images.
fn count_change<R: WriteRecords>(records: &mut R) -> Result<(), RecordError> {
    let version = records.verdicts_version()? + 1;
    records.put(&key::verdicts(), &encode(&version)?)
}

fn change_scan<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    project: &Project,
    change: &ScanChange,
) -> Result<Outcome, RecordError> {
    match change {
        ScanChange::Ask { repository, digests, first } => {
            if digests.len() > AT_ONCE {
                return Ok(Outcome::Refused("too many images".into()));
            }
            let mut asked = false;
            for digest in digests {
                if records.has_manifest(repository, digest)? {
                    ask(records, at, project.id, repository, digest, *first)?;
                    asked = true;
                }
            }
            Ok(if asked { Outcome::Done } else { Outcome::NotFound })
        }
        ScanChange::AskCached { repository, digests, first } => {
            cached_scans::ask(records, at, project, repository, digests, *first)
        }
        ScanChange::ForgetCached { repository, digests } => {
            cached_scans::forget(records, project, repository, digests)
        }
        ScanChange::Begin { repository, digest, number } => {
            of_wanted(records, repository, digest, *number, |_, record, wanted| {
                record.wanted = Some(Wanted { tries: wanted.tries + 1, begun: Some(at), ..wanted });
                Ok(())
            })
        }
        ScanChange::Report { repository, digest, report } => {
            let report = Report { at, log: bounded(&report.log), ..report.clone() };
            let known = records.scan_of(repository, digest)?.unwrap_or_default();
            let again = known.report.as_ref().is_some_and(|last| last.number == report.number);
            // it was made while the database changed: the project is compared once more
            if records.matched_database(project.id)?.is_some_and(|one| one != report.database) {
                records.remove(&key::matched(project.id))?;
            }
            // what another scanner has found does not change with this mesh's database
            if again && known.report.as_ref().is_some_and(Report::is_from_elsewhere) {
                return Ok(Outcome::NotFound);
            }
            if again {
                let record = ScanRecord { report: Some(report), ..known };
                records.put(&key::scan(repository, digest), &encode(&record)?)?;
                return Ok(Outcome::Done);
            }
            of_wanted(records, repository, digest, report.number, |records, record, wanted| {
                records.remove(&key::queued(project.id, wanted.first, wanted.number))?;
                scanners::forget(records, repository, digest)?;
                (record.report, record.unfinished) = (Some(report.clone()), None);
                Ok(())
            })
        }
        ScanChange::ReportElsewhere { repository, digest, report, elsewhere } => {
            if let Err(why) = elsewhere.check() {
                return Ok(Outcome::Refused(why));
            }
            // one that was disabled, removed or given up meanwhile decides nothing any more
            let chosen = records.known_scanners()?.of(chosen_scanner(&project.metadata));
            let scanner = records.scanner(elsewhere.scanner)?.filter(|one| !one.disabled);
            if scanner.is_none_or(|one| one.id != chosen) {
                return Ok(Outcome::PreconditionFailed);
            }
            let log = bounded(&report.log);
            let report = Report { at, log, database: Report::no_database(), ..report.clone() };
            of_wanted(records, repository, digest, report.number, |records, record, wanted| {
                records.remove(&key::queued(project.id, wanted.first, wanted.number))?;
                scanners::keep(records, repository, digest, elsewhere)?;
                (record.report, record.unfinished) = (Some(report.clone()), None);
                Ok(())
            })
        }
        ScanChange::Fail { repository, digest, number, why, again } => {
            of_wanted(records, repository, digest, *number, |records, record, wanted| {
                if *again && wanted.tries < MOST_TRIES {
                    record.wanted = Some(Wanted { begun: None, ..wanted });
                    return Ok(());
                }
                records.remove(&key::queued(project.id, wanted.first, wanted.number))?;
                let why = Some(bounded(why));
                record.unfinished = Some(Unfinished { number: *number, at, why });
                Ok(())
            })
        }
        ScanChange::Stop { repository, digest } => {
            let known = records.scan_of(repository, digest)?;
            let Some(number) = known.and_then(|known| Some(known.wanted?.number)) else {
                return Ok(Outcome::NotFound);
            };
            of_wanted(records, repository, digest, number, |records, record, wanted| {
                records.remove(&key::queued(project.id, wanted.first, wanted.number))?;
                record.unfinished = Some(Unfinished { number, at, why: None });
                Ok(())
            })
        }
        ScanChange::StopAll { .. } => {
            let queue = key::queue_of_many(project.id);
            let waiting = records.scan(&queue, None, EMPTIED_AT_ONCE + 1)?;
            for (place, image) in waiting.iter().take(EMPTIED_AT_ONCE) {
                records.remove(place)?;
                let Some((repository, digest)) = key::scanned(image) else { continue };
                let Some(mut known) = records.scan_of(&repository, &digest)? else { continue };
                if let Some(Wanted { number, .. }) = known.wanted.take() {
                    known.unfinished = Some(Unfinished { number, at, why: None });
                    records.put(image, &encode(&known)?)?;
                }
            }
            Ok(match waiting.len() {
                0 => Outcome::NotFound,
                count if count > EMPTIED_AT_ONCE => Outcome::Unfinished,
                _ => Outcome::Done,
            })
        }
        ScanChange::Matched { database, .. } => {
            records.put(&key::matched(project.id), &encode(database)?)?;
            Ok(Outcome::Done)
        }
        ScanChange::Allow { list, .. } => {
            if let Err(why) = list.check() {
                return Ok(Outcome::Refused(why));
            }
            records.put(&key::allowlist(project.id), &encode(list)?)?;
            Ok(Outcome::Done)
        }
    }
}

/// Changes the record of an image if this scan of it is wanted. What was wanted is taken out first.
fn of_wanted<R: WriteRecords>(
    records: &mut R,
    repository: &RepositoryName,
    digest: &Digest,
    number: u64,
    change: impl FnOnce(&mut R, &mut ScanRecord, Wanted) -> Result<(), RecordError>,
) -> Result<Outcome, RecordError> {
    let Some(mut record) = records.scan_of(repository, digest)? else {
        return Ok(Outcome::NotFound);
    };
    let Some(wanted) = record.wanted.take_if(|wanted| wanted.number == number) else {
        return Ok(Outcome::NotFound);
    };
    change(records, &mut record, wanted)?;
    records.put(&key::scan(repository, digest), &encode(&record)?)?;
    Ok(Outcome::Done)
}

pub(super) fn change_scanner<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    change: &ScannerChange,
) -> Result<Outcome, RecordError> {
    if records.level()? < change.level() {
        return Ok(Outcome::Refused("there are no such scanners at this feature level".into()));
    }
    match change {
        ScannerChange::Registration(change) => {
            let outcome = scanners::change(records, at, change)?;
            if outcome == Outcome::Done {
                count_change(records)?;
            }
            Ok(outcome)
        }
        ScannerChange::Layers(layers) => {
            if layers.len() > AT_ONCE || layers.iter().any(|(_, kept)| kept.len() > MOST_KEPT) {
                return Ok(Outcome::Refused("too many layers, or too much in one".into()));
            }
            for (digest, kept) in layers {
                let blob = records.get(&records_key::blob(digest))?;
                let blob = blob.map(|blob| decode::<BlobRecord>(&blob)).transpose()?;
                if blob.is_some_and(|blob| blob.repositories > 0) {
                    records.put(&key::layer(digest), kept)?;
                }
            }
            Ok(Outcome::Done)
        }
        ScannerChange::Database { digest, updated, next_update } => {
            let known = records.scan_database()?;
            if known.as_ref().is_some_and(|known| known.digest == *digest) {
                return Ok(Outcome::Exists);
            }
            // a node that was away may have an older one
            if known.is_some_and(|known| known.updated > *updated) {
                return Ok(Outcome::Refused("a newer database is used already".into()));
            }
            let (digest, updated, next_update) = (*digest, *updated, *next_update);
            let record = DatabaseRecord { digest, updated, next_update, since: at };
            records.put(&key::database(), &encode(&record)?)?;
            Ok(Outcome::Done)
        }
        ScannerChange::Allow(list) => {
            if let Err(why) = list.check() {
                return Ok(Outcome::Refused(why));
            }
            records.put(&key::system_allowlist(), &encode(list)?)?;
            count_change(records)?;
            Ok(Outcome::Done)
        }
    }
}

/// What an event says of a change, as an operation, a kind and a name: who asked for a scan or stopped
/// it, and that an image may be pulled or may not any more. The reports of other scans are no events.
pub(super) fn news<R: WriteRecords>(
    records: &R,
    change: &ScanChange,
) -> Result<Option<(&'static str, &'static str, String)>, RecordError> {
    Ok(match change {
        // pulls, which nobody is told of one by one
        ScanChange::AskCached { first: false, .. } | ScanChange::ForgetCached { .. } => None,
        ScanChange::Ask { repository, digests, .. }
        | ScanChange::AskCached { repository, digests, .. } => Some(match digests.as_slice() {
            [digest] => ("create", "scan", format!("{repository}@{digest}")),
            many => ("create", "scan", format!("{repository}: {} artifacts", many.len())),
        }),
        ScanChange::Stop { repository, digest } => {
            Some(("stop", "scan", format!("{repository}@{digest}")))
        }
        ScanChange::StopAll { project } => {
            Some(("stop", "scan", format!("those of many images of {project}")))
        }
        ScanChange::Allow { project, .. } => Some(("update", "allowlist", project.to_string())),
        ScanChange::Report { repository, digest, report }
        | ScanChange::ReportElsewhere { repository, digest, report, .. } => {
            let verdict = verdict(records, repository, digest, report)?;
            verdict.map(|what| ("update", "scan", format!("{repository}@{digest}{what}")))
        }
        ScanChange::Begin { .. } | ScanChange::Fail { .. } | ScanChange::Matched { .. } => None,
    })
}

/// What becomes of an image by a report, if that is another than before.
fn verdict<R: WriteRecords>(
    records: &R,
    repository: &RepositoryName,
    digest: &Digest,
    report: &Report,
) -> Result<Option<String>, RecordError> {
    let Some(project) = records.project(&repository.project())? else { return Ok(None) };
    let Some(gate) = Gate::of(&project.metadata) else { return Ok(None) };
    let (allowed, now) = (records.allowed(&gate, project.id)?, report.begun);
    let known = records.scan_of(repository, digest)?.unwrap_or_default();
    let before = decide(&gate, known.known(), &allowed, now);
    let new = Known::Found(&report.found, report.insufficient.as_deref());
    Ok(match (before, decide(&gate, new, &allowed, now)) {
        (Decision::Refuse(_), Decision::Refuse(_)) if known.report.is_some() => None,
        (_, Decision::Refuse(_)) => {
            let count = gate.counted(&report.found, &allowed, now).count();
            Some(format!(" is refused: {count} vulnerabilities"))
        }
        (Decision::Refuse(_), Decision::Pass) if known.report.is_some() => {
            Some(" is served again".into())
        }
        _ => None,
    })
}

fn bounded(text: &str) -> String {
    let end = (0..=LONGEST_TEXT.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text[..end.unwrap_or(0)].to_owned()
}
