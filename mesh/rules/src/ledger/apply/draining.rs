//! Which replicas drain.

use crate::ledger::command::Outcome;
use crate::ledger::draining::{DrainChange, LookForDraining, key};
use crate::ledger::level::Level;
use crate::ledger::records::{
    Look, NodeRecord, RecordError, Role, WriteRecords, encode, key as records_key,
};
use crate::words::moment::Timestamp;

pub(super) fn change<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    change: DrainChange,
) -> Result<Outcome, RecordError> {
    if records.level()? < Level::DRAINS {
        return Ok(Outcome::Refused("no replica drains at this feature level".into()));
    }
    let draining = records.draining()?;
    let id = change.node();
    match change {
        DrainChange::Begin(_) => {
            let Some(node) = records.record::<NodeRecord>(&records_key::node(id))? else {
                return Ok(Outcome::NotFound);
            };
            if node.role != Role::Replica {
                let said = format!("{} is an edge, which nobody depends on: stop it", node.name);
                return Ok(Outcome::Refused(said));
            }
            if draining.contains(&id) {
                return Ok(Outcome::Exists);
            }
            let takes = |other: &NodeRecord| {
                other.role == Role::Replica && other.id != id && !draining.contains(&other.id)
            };
            if !records.nodes()?.iter().any(takes) {
                let said =
                    format!("{} cannot drain: no other replica would take what it has", node.name);
                return Ok(Outcome::Refused(said));
            }
            records.put(&key::draining(id), &encode(&at)?)?;
        }
        DrainChange::End(_) if !draining.contains(&id) => return Ok(Outcome::NotFound),
        DrainChange::End(_) => records.remove(&key::draining(id))?,
    }
    Ok(Outcome::Done)
}
