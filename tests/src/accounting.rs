//! That each node has on its disk what the ledger says, and nothing else.

use serde_json::Value;

use crate::http::Client;
use crate::wait;

/// What a node has on its disk, as it counts it.
///
/// # Errors
/// When it does not say.
pub fn inventory(client: &Client) -> Result<Value, String> {
    let answer = client.get("/api/atoll/v1/inventory").map_err(|none| none.to_string())?;
    if answer.status == 200 { Ok(answer.json()) } else { Err(answer.to_string()) }
}

/// What is wrong with a node's disk, or not settled yet, if anything is.
#[must_use]
pub fn fault(inventory: &Value) -> Option<String> {
    let zero = [
        "/kept_because/unexplained/count",
        "/kept_because/garbage/count",
        "/kept_because/granted/count",
        "/stray_files/count",
        "/arriving/count",
        "/uploads/count",
        "/missing_files",
        "/quarantined",
    ];
    // an edge keeps nothing, and has no reasons
    let wrong = zero
        .iter()
        .find(|place| inventory.pointer(place).is_some_and(|count| count.as_u64() != Some(0)));
    if let Some(place) = wrong {
        return Some(format!("{place} is not 0: {inventory}"));
    }
    let (cached, budget) = (&inventory["cached"]["bytes"], &inventory["cache_budget"]);
    let over = budget.as_u64().is_some_and(|budget| cached.as_u64() > Some(budget));
    over.then(|| format!("more is cached than may be: {inventory}"))
}

/// Waits until each node's kept bytes are exactly those that something refers to, its cached bytes are
/// within the budget, and nothing else is on its disk. Needs short `uploads.expire_after` and
/// `collection.grace`.
///
/// # Panics
/// When that does not come true.
pub fn settles(nodes: &[Client]) {
    wait::until_ok("each disk has what the ledger says, and nothing else", || {
        for node in nodes {
            if let Some(fault) = fault(&inventory(node)?) {
                return Err(fault);
            }
        }
        Ok(())
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_belongs_to_nothing_is_a_fault() {
        let none = json!({"count": 0, "bytes": 0});
        let mut node = json!({"kept_because": {"unexplained": none, "garbage": none,
            "granted": none}, "stray_files": none, "arriving": none, "uploads": none,
            "missing_files": 0, "quarantined": 0, "cached": {"count": 1, "bytes": 10},
            "cache_budget": 10});
        assert_eq!(fault(&node), None);
        node["cache_budget"] = 9.into();
        assert!(fault(&node).is_some_and(|why| why.contains("cached")));
        node["cache_budget"] = Value::Null;
        assert_eq!(fault(&node), None);
        node["kept_because"]["unexplained"]["count"] = 1.into();
        assert!(fault(&node).is_some_and(|why| why.contains("unexplained")));
        node["kept_because"] = Value::Null;
        assert_eq!(fault(&node), None);
    }
}
