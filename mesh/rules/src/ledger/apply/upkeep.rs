//! Runs of the mesh's upkeep.

use crate::ledger::command::Outcome;
use crate::ledger::jobs::bounded;
use crate::ledger::level::Level;
use crate::ledger::records::{Look, RecordError, WriteRecords, encode};
use crate::ledger::upkeep::{KEPT, LONGEST, UpkeepRun, key};

/// Records a run that has ended, and forgets the oldest beyond [`KEPT`].
pub(super) fn ran<R: WriteRecords>(
    records: &mut R,
    run: &UpkeepRun,
) -> Result<Outcome, RecordError> {
    if records.level()? < Level::UPKEEP {
        return Ok(Outcome::Refused("runs are not recorded at this feature level".into()));
    }
    let place = key::run(run.kind, run.began.0);
    if records.get(&place)?.is_some() {
        return Ok(Outcome::Exists);
    }
    let run = UpkeepRun {
        parameters: bounded(&run.parameters, LONGEST),
        failed: run.failed.as_ref().map(|why| bounded(why, LONGEST)),
        log: bounded(&run.log, LONGEST),
        ..run.clone()
    };
    records.put(&place, &encode(&run)?)?;
    let all = records.scan(&key::runs(run.kind), None, KEPT + 1)?;
    if all.len() > KEPT {
        records.remove(&all[0].0)?;
    }
    Ok(Outcome::Done)
}
