//! Drills: begun and ended.

use crate::ledger::command::Outcome;
use crate::ledger::drills::{Drill, DrillChange, LONGEST, LookForDrills, key};
use crate::ledger::events::Actor;
use crate::ledger::jobs::bounded;
use crate::ledger::level::Level;
use crate::ledger::records::{Look, NodeRecord, RecordError, Role, WriteRecords, encode};
use crate::words::moment::Timestamp;

pub(super) fn change<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    by: Option<&Actor>,
    change: &DrillChange,
) -> Result<Outcome, RecordError> {
    if records.level()? < Level::DRILLS {
        return Ok(Outcome::Refused("there are no drills at this feature level".into()));
    }
    let under_way = records.drill(at)?;
    match change {
        DrillChange::Begin { region, time } => {
            if let Some(drill) = under_way {
                return Ok(Outcome::Refused(format!(
                    "a drill of {} is under way until {}; `atoll dr drill --stop` ends it",
                    drill.region, drill.until
                )));
            }
            if time.is_zero() || *time > LONGEST {
                let said = format!("a drill lasts at most {} minutes", LONGEST.as_secs() / 60);
                return Ok(Outcome::Refused(said));
            }
            let nodes = records.nodes()?;
            if !nodes.iter().any(|node| node.region == *region) {
                return Ok(Outcome::Refused(format!("no node is in a region called {region}")));
            }
            let serves = |node: &NodeRecord| node.role == Role::Replica && node.region != *region;
            if !nodes.iter().any(serves) {
                return Ok(Outcome::Refused(format!(
                    "no other region than {region} has replicas, and a drill of it would refuse all clients of the mesh"
                )));
            }
            let until = Timestamp(at.0.saturating_add(time.as_millis() as u64));
            let by = bounded(&by.cloned().unwrap_or_else(Actor::mesh).name, 255);
            let drill = Drill { region: region.clone(), began: at, until, by };
            records.put(&key::drill(), &encode(&drill)?)?;
            Ok(Outcome::Done)
        }
        DrillChange::End => {
            let Some(drill) = under_way else { return Ok(Outcome::NotFound) };
            // what is shown of it is when it ended
            records.put(&key::drill(), &encode(&Drill { until: at, ..drill })?)?;
            Ok(Outcome::Done)
        }
    }
}
