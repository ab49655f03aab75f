//! What this node's records say about peers: the links ask this before they admit a peer.

use std::net::SocketAddr;

use mesh::links::Judge;
use rules::ledger::level::Level;
use rules::ledger::records::{Look, NodeRecord, ReadRecords, RecordError, key};
use rules::ledger::trust::LookForTrust;
use rules::members::door::Known;
use rules::words::names::NodeId;

use crate::view::Records;

/// The records, as the links see them.
pub struct Listed(pub Records);

impl std::fmt::Debug for Listed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Listed")
    }
}

impl Judge for Listed {
    /// If the records cannot be read, nothing is known. Then only a certificate that names its role
    /// is accepted.
    fn known(&self, node: NodeId) -> Known {
        let unreadable = Known {
            role: None,
            removed: false,
            nothing_known: false,
            level: Level::NEWEST,
            pin: None,
            authority: 0,
            trusted_from: 0,
        };
        let mut known = self.0.view().and_then(|view| look_up(&*view, node)).unwrap_or(unreadable);
        if let Records::Edge(_) = &self.0 {
            // an edge keeps the current members only, so a node that is not listed counts as
            // removed
            known.removed = known.role.is_none() && !known.nothing_known;
        }
        known
    }

    fn authorities(&self) -> Vec<String> {
        let all = self.0.view().and_then(|view| view.authorities());
        all.unwrap_or_default().into_iter().map(|authority| authority.certificate).collect()
    }

    fn address_of(&self, node: NodeId) -> Option<SocketAddr> {
        let record = self.0.view().and_then(|view| view.record::<NodeRecord>(&key::node(node)));
        record.ok().flatten().map(|record| record.address)
    }
}

fn look_up(view: &(dyn ReadRecords + Send), node: NodeId) -> Result<Known, RecordError> {
    let role = view.record::<NodeRecord>(&key::node(node))?.map(|record| record.role);
    Ok(Known {
        role,
        removed: view.get(&key::removed(node))?.is_some(),
        nothing_known: role.is_none() && view.scan(&key::nodes(), None, 1)?.is_empty(),
        level: view.level()?,
        pin: view.pin(node)?,
        authority: view.authorities()?.last().map_or(0, |authority| authority.version),
        trusted_from: view.trusted_from()?,
    })
}
