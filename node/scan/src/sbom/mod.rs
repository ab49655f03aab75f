//! An inventory as CycloneDX 1.6 and SPDX 2.3.

use rules::words::digest::Digest;
use rules::words::moment::Timestamp;
use serde_json::{Value, json};

use crate::layer::Inventory;

/// The media type of a CycloneDX document in JSON.
pub const CYCLONEDX: &str = "application/vnd.cyclonedx+json";

/// The media type of an SPDX document in JSON.
pub const SPDX: &str = "application/spdx+json";

/// What a document is about, and who made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The image's repository, with its registry where that is known: `mesh.example/team/app`.
    pub repository: String,
    /// The image's digest.
    pub digest: Digest,
    /// When the document was made.
    pub at: Timestamp,
    /// The version of the program that made it.
    pub tool_version: String,
}

/// The inventory as CycloneDX 1.6. The same inventory and subject make the same bytes.
pub fn cyclonedx(inventory: &Inventory, about: &Subject) -> Value {
    let _ = (inventory, about);
    json!({})
}

/// The inventory as SPDX 2.3. The same inventory and subject make the same bytes.
pub fn spdx(inventory: &Inventory, about: &Subject) -> Value {
    let _ = (inventory, about);
    json!({})
}
