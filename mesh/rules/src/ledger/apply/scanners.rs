//! Other scanners: registered, changed, forgotten; and what they have reported.

use crate::ledger::command::Outcome;
use crate::ledger::records::{RecordError, WriteRecords, encode};
use crate::ledger::scanners::{
    Elsewhere, LookForScanners, MOST, RegistrationChange, ScannerRecord, key,
};
use crate::ledger::scanning::{DEFAULT, LookForScans, USED, key as scanning_key};
use crate::words::digest::Digest;
use crate::words::moment::Timestamp;
use crate::words::names::{RepositoryName, ScannerId};

pub(super) fn change<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    change: &RegistrationChange,
) -> Result<Outcome, RecordError> {
    match change {
        RegistrationChange::Add(record) => {
            let record = ScannerRecord { created: at, changed: at, ..record.clone() };
            if let Err(why) = record.check() {
                return Ok(Outcome::Refused(why));
            }
            let known = records.scanners()?;
            if known.len() >= MOST {
                return Ok(Outcome::Refused(format!("a mesh has at most {MOST} scanners")));
            }
            if known.iter().any(|one| one.id == record.id || is_alike(one, &record)) {
                return Ok(Outcome::Exists);
            }
            records.put(&key::scanner(record.id), &encode(&record)?)?;
            records.put(&scanning_key::known_scanner(record.id), &encode(&USED)?)?;
        }
        RegistrationChange::Change { was, becomes } => {
            let known = records.scanners()?;
            let Some(now) = known.iter().find(|one| one.id == was.id) else {
                return Ok(Outcome::NotFound);
            };
            if *now != **was {
                let name = &now.name;
                let why =
                    format!("scanner {name} was changed by another request just now; try again");
                return Ok(Outcome::Refused(why));
            }
            let (id, created) = (now.id, now.created);
            let record = ScannerRecord { id, created, changed: at, ..(**becomes).clone() };
            if let Err(why) = record.check() {
                return Ok(Outcome::Refused(why));
            }
            if known.iter().any(|one| one.id != id && is_alike(one, &record)) {
                return Ok(Outcome::Exists);
            }
            records.put(&key::scanner(id), &encode(&record)?)?;
        }
        RegistrationChange::Remove(id) => {
            if records.scanner(*id)?.is_none() {
                return Ok(Outcome::NotFound);
            }
            // projects without a choice have the one that is built in then
            records.remove(&key::scanner(*id))?;
            records.remove(&scanning_key::known_scanner(*id))?;
        }
        RegistrationChange::MakeDefault(id) => {
            let is_there = id.is_built_in() || records.scanner(*id)?.is_some();
            if !is_there {
                return Ok(Outcome::NotFound);
            }
            let before = records.known_scanners()?.usual();
            if before == *id {
                return Ok(Outcome::Exists);
            }
            if before != ScannerId::NATIVE {
                records.put(&scanning_key::known_scanner(before), &encode(&USED)?)?;
            }
            if *id != ScannerId::NATIVE {
                records.put(&scanning_key::known_scanner(*id), &encode(&DEFAULT)?)?;
            }
        }
    }
    Ok(Outcome::Done)
}

/// Whether two scanners cannot be there together.
fn is_alike(one: &ScannerRecord, other: &ScannerRecord) -> bool {
    one.name == other.name || one.url == other.url
}

/// The name of the scanner that a change is about, for events.
pub(super) fn name_of<R: WriteRecords>(
    records: &R,
    change: &RegistrationChange,
) -> Result<String, RecordError> {
    let (id, default) = match change {
        RegistrationChange::Add(record) => return Ok(record.name.clone()),
        RegistrationChange::Change { was, .. } => return Ok(was.name.clone()),
        RegistrationChange::Remove(id) => (*id, ""),
        RegistrationChange::MakeDefault(id) => (*id, " is the default"),
    };
    let name = match id {
        ScannerId::NATIVE => "Atoll".to_owned(),
        _ => records.scanner(id)?.map_or_else(|| id.to_string(), |record| record.name),
    };
    Ok(name + default)
}

/// Keeps what another scanner has reported of an image.
pub(super) fn keep<R: WriteRecords>(
    records: &mut R,
    repository: &RepositoryName,
    digest: &Digest,
    reported: &Elsewhere,
) -> Result<(), RecordError> {
    records.put(&key::elsewhere(repository, digest), &encode(reported)?)
}

/// The image is gone, or has a report of the scanner that is built in.
pub(super) fn forget<R: WriteRecords>(
    records: &mut R,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<(), RecordError> {
    let place = key::elsewhere(repository, digest);
    match records.get(&place)? {
        Some(_) => records.remove(&place),
        None => Ok(()),
    }
}
