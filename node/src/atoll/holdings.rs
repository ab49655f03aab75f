//! What all replicas keep of some blobs.

use std::collections::{BTreeMap, BTreeSet};

use registry::view::neighbours::Neighbours;
use rules::blobs::holding::Stock;
use rules::words::digest::Digest;
use rules::words::names::NodeId;
use store::Store;

use crate::http::Failure;

/// What each replica that answers keeps for good of `wanted`, this node included. Copies that are
/// only cached do not count. A silent node delays the answer by one deadline.
pub(super) async fn kept_by_all(
    neighbours: &Neighbours,
    store: &Store,
    wanted: BTreeSet<Digest>,
) -> Result<BTreeMap<NodeId, BTreeSet<Digest>>, Failure> {
    let wanted: Vec<Digest> = wanted.into_iter().collect();
    let kept = |stocks: Vec<Stock>| -> BTreeSet<Digest> {
        let kept = wanted.iter().zip(stocks);
        kept.filter(|(_, s)| s.held.is_some() && !s.cached).map(|(digest, _)| *digest).collect()
    };
    let stocks = neighbours.have(&wanted, None).await;
    let mut holdings: BTreeMap<NodeId, BTreeSet<Digest>> =
        stocks.into_iter().map(|(node, stocks)| (node, kept(stocks))).collect();
    holdings.insert(neighbours.me, kept(store.stocks(&wanted, None).await?));
    Ok(holdings)
}
