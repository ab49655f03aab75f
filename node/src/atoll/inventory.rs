//! `/api/atoll/v1/inventory`: what is on this node's disk, and why. Whoever tests that nothing is lost and
//! nothing dead is left compares it node by node.

use std::collections::HashSet;

use ground::supervise::at_length;
use http::{Response, StatusCode};
use rules::ledger::collecting::LookForGarbage;
use rules::ledger::records::{ReadRecords, RecordError};
use rules::words::digest::Digest;
use serde_json::{Value, json};
use store::inventory::{Inventory, Sum};

use super::Atoll;
use crate::http::answer::json_answer;
use crate::http::{Failure, Payload};

/// The maximum number of blobs that are named.
const NAMED: usize = 20;

/// Why blobs are kept.
#[derive(Default)]
struct Reasons {
    referenced: Sum,
    garbage: Sum,
    granted: Sum,
    unexplained: Sum,
    named: Vec<String>,
}

impl Reasons {
    fn of<R: ReadRecords + ?Sized>(
        records: &R,
        granted: &HashSet<Digest>,
        kept: &[(Digest, u64)],
    ) -> Result<Self, RecordError> {
        let mut reasons = Reasons::default();
        for (digest, size) in kept {
            if records.is_referenced(digest)? {
                reasons.referenced.add(*size);
            } else if granted.contains(digest) {
                reasons.granted.add(*size);
            } else if records.garbage_since(digest)?.is_some() {
                reasons.garbage.add(*size);
            } else {
                reasons.unexplained.add(*size);
                if reasons.named.len() < NAMED {
                    reasons.named.push(digest.to_string());
                }
            }
        }
        Ok(reasons)
    }
}

fn sum(of: Sum) -> Value {
    json!({"count": of.count, "bytes": of.bytes})
}

fn first(digests: &[Digest]) -> Vec<String> {
    digests.iter().take(NAMED).map(ToString::to_string).collect()
}

impl Atoll {
    /// Counts what this node has on its disk.
    pub(super) async fn show_inventory(&self) -> Result<Response<Payload>, Failure> {
        let mut kept = Vec::new();
        let found = self.store.inventory(|digest, size| kept.push((digest, size))).await?;
        let granted = at_length(|| self.store.all_granted())?;
        let Inventory { cached, budget, uploads, arriving, quarantined, strays, missing, .. } =
            found;
        // an edge has no ledger, and keeps nothing for good
        let reasons = match self.neighbours.is_edge() {
            true => Value::Null,
            false => {
                let reasons = at_length(|| {
                    let view = self.records.view()?;
                    Reasons::of(&*view, &granted, &kept)
                })?;
                json!({
                    // by a repository or a trash
                    "referenced": sum(reasons.referenced),
                    // a push may count on them
                    "granted": sum(reasons.granted),
                    // nothing refers to them, and they are collected
                    "garbage": sum(reasons.garbage),
                    // they are reported and collected in a while, or a collection has missed them
                    "unexplained": sum(reasons.unexplained),
                    "unexplained_blobs": reasons.named,
                })
            }
        };
        Ok(json_answer(
            StatusCode::OK,
            &json!({
                "node": self.neighbours.name_of(self.neighbours.me),
                "kept": sum(found.kept),
                "kept_because": reasons,
                "cached": sum(cached),
                "cache_budget": budget,
                "uploads": sum(uploads),
                "arriving": sum(arriving),
                "quarantined": quarantined,
                "stray_files": sum(strays),
                "missing_files": missing.len(),
                "missing_blobs": first(&missing),
            }),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rules::ledger::collecting::key;
    use rules::ledger::records::{
        BlobRecord, MemoryRecords, WriteRecords, encode, key as records_key,
    };
    use rules::words::moment::Timestamp;

    #[test]
    fn each_kept_blob_has_one_reason_or_is_named() {
        let [live, dead, promised, lost] =
            [b"a", b"b", b"c", b"d"].map(|text| Digest::sha256(text));
        let mut records = MemoryRecords::default();
        let blob =
            |repositories| BlobRecord { size: 1, content: None, repositories, kept_by: Vec::new() };
        for (digest, repositories) in [(live, 1), (dead, 0), (promised, 0)] {
            let place = records_key::blob(&digest);
            records.put(&place, &encode(&blob(repositories)).unwrap()).unwrap();
        }
        for garbage in [dead, promised] {
            records.put(&key::garbage(&garbage), &encode(&Timestamp(1)).unwrap()).unwrap();
        }
        let kept = [(live, 1), (dead, 10), (promised, 100), (lost, 1000)];
        let found = Reasons::of(&records, &HashSet::from([promised]), &kept).unwrap();
        let bytes = |of: Sum| (of.count, of.bytes);
        assert_eq!((bytes(found.referenced), bytes(found.garbage)), ((1, 1), (1, 10)));
        assert_eq!((bytes(found.granted), bytes(found.unexplained)), ((1, 100), (1, 1000)));
        assert_eq!(found.named, [lost.to_string()]);
    }
}
