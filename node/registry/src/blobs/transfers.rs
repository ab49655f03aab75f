//! What moves between this node and others right now, for people to see.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rules::words::digest::Digest;
use rules::words::names::NodeId;

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To this node.
    In,
    /// From this node.
    Out,
}

/// One transfer as it stands.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// The blob; `None` while an upload has no name yet.
    pub digest: Option<Digest>,
    /// Which way.
    pub direction: Direction,
    /// The other node.
    pub peer: NodeId,
    /// Bytes moved.
    pub bytes: u64,
    /// Bytes to move, if that is known.
    pub total: Option<u64>,
}

/// All transfers of this node.
#[derive(Default)]
pub struct Transfers {
    next: AtomicU64,
    moving: Mutex<BTreeMap<u64, Transfer>>,
}

impl Transfers {
    /// A blob of known length begins to move.
    pub fn begin(
        self: &Arc<Self>,
        digest: Digest,
        direction: Direction,
        peer: NodeId,
        total: u64,
    ) -> Moving {
        self.add(Transfer { digest: Some(digest), direction, peer, bytes: 0, total: Some(total) })
    }

    /// An upload begins to be copied.
    pub fn begin_unnamed(self: &Arc<Self>, direction: Direction, peer: NodeId) -> Moving {
        self.add(Transfer { digest: None, direction, peer, bytes: 0, total: None })
    }

    fn add(self: &Arc<Self>, transfer: Transfer) -> Moving {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.moving.lock().insert(number, transfer);
        Moving { transfers: self.clone(), number }
    }

    /// What moves now.
    pub fn list(&self) -> Vec<Transfer> {
        self.moving.lock().values().cloned().collect()
    }
}

/// A transfer that moves until this is dropped.
pub struct Moving {
    transfers: Arc<Transfers>,
    number: u64,
}

impl Moving {
    /// So many more bytes have moved.
    pub fn advance(&self, bytes: u64) {
        if let Some(transfer) = self.transfers.moving.lock().get_mut(&self.number) {
            transfer.bytes += bytes;
        }
    }

    /// It comes from another node from now on.
    pub fn turn_to(&self, peer: NodeId) {
        if let Some(transfer) = self.transfers.moving.lock().get_mut(&self.number) {
            transfer.peer = peer;
        }
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        self.transfers.moving.lock().remove(&self.number);
    }
}
