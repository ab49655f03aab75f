//! Which advisory counts for which package.

use rules::words::moment::Timestamp;

use crate::database::{Database, DatabaseError};
use crate::layer::Inventory;
use crate::report::{Coverage, Report};

/// Compares an inventory with a database. `now` decides which distributions have ended.
pub fn judge(
    inventory: &Inventory,
    database: &Database,
    now: Timestamp,
) -> Result<Report, DatabaseError> {
    let _ = (inventory, database, now);
    let coverage = Coverage::Insufficient { why: "the distribution is not known".to_owned() };
    Ok(Report { format: Report::FORMAT, coverage, findings: Vec::new() })
}
