//! Upstreams: recorded, changed, forgotten.

use super::next_number;
use crate::ledger::command::Outcome;
use crate::ledger::records::{Look, RecordError, UpstreamRecord, WriteRecords, encode, key};
use crate::words::names::UpstreamId;

/// Records an upstream under the next number.
pub(super) fn create<R: WriteRecords>(
    records: &mut R,
    name: &str,
    numbered: impl FnOnce(UpstreamId) -> UpstreamRecord,
) -> Result<Outcome, RecordError> {
    if records.upstreams()?.iter().any(|u| u.name == name) {
        return Ok(Outcome::Exists);
    }
    let record = numbered(UpstreamId(next_number(records, &key::last_upstream())?));
    records.put(&key::upstream(record.id), &encode(&record)?)?;
    Ok(Outcome::Done)
}

pub(super) fn change<R: WriteRecords>(
    records: &mut R,
    was: &UpstreamRecord,
    becomes: &UpstreamRecord,
) -> Result<Outcome, RecordError> {
    let known = records.upstreams()?;
    match known.iter().find(|u| u.id == was.id) {
        None => return Ok(Outcome::NotFound),
        Some(now) if now != was => {
            return Ok(Outcome::Refused(format!(
                "registry {} was changed by another request just now; try again",
                was.id
            )));
        }
        Some(_) => {}
    }
    if known.iter().any(|u| u.id != was.id && u.name == becomes.name) {
        return Ok(Outcome::Exists);
    }
    let record = UpstreamRecord { id: was.id, created: was.created, ..becomes.clone() };
    records.put(&key::upstream(was.id), &encode(&record)?)?;
    Ok(Outcome::Done)
}

/// Forgets an upstream that no project caches.
pub(super) fn delete<R: WriteRecords>(
    records: &mut R,
    id: UpstreamId,
) -> Result<Outcome, RecordError> {
    if records.get(&key::upstream(id))?.is_none() {
        return Ok(Outcome::NotFound);
    }
    if let Some(user) = records.projects()?.into_iter().find(|p| p.upstream == Some(id)) {
        return Ok(Outcome::Refused(format!(
            "project {} caches this registry; delete the project first",
            user.name
        )));
    }
    records.remove(&key::upstream(id))?;
    Ok(Outcome::Done)
}
