//! Transfers between this node and others that are under way, for people to see.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rules::words::digest::Digest;
use rules::words::names::NodeId;

/// The direction of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To this node.
    In,
    /// From this node.
    Out,
}

/// The present state of a transfer.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// The blob; `None` while the digest of an upload is not known yet.
    pub digest: Option<Digest>,
    /// The direction.
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
    /// A transfer of a blob with known length begins.
    pub fn begin(
        self: &Arc<Self>,
        digest: Digest,
        direction: Direction,
        peer: NodeId,
        total: u64,
    ) -> Moving {
        self.add(Transfer { digest: Some(digest), direction, peer, bytes: 0, total: Some(total) })
    }

    /// A copy of an upload begins.
    pub fn begin_unnamed(self: &Arc<Self>, direction: Direction, peer: NodeId) -> Moving {
        self.add(Transfer { digest: None, direction, peer, bytes: 0, total: None })
    }

    fn add(self: &Arc<Self>, transfer: Transfer) -> Moving {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.moving.lock().insert(number, transfer);
        Moving { transfers: self.clone(), number }
    }

    /// The transfers that are under way.
    pub fn list(&self) -> Vec<Transfer> {
        self.moving.lock().values().cloned().collect()
    }
}

/// A transfer, which is under way until this is dropped.
pub struct Moving {
    transfers: Arc<Transfers>,
    number: u64,
}

impl Moving {
    /// `bytes` more bytes have moved.
    pub fn advance(&self, bytes: u64) {
        if let Some(transfer) = self.transfers.moving.lock().get_mut(&self.number) {
            transfer.bytes += bytes;
        }
    }

    /// From now on the blob comes from `peer`.
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
