//! Caps on what this node sends to a region. They are asked before each piece is sent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ground::clock;
use parking_lot::Mutex;
use rules::blobs::pacing::{Bucket, Class};
use rules::words::names::{NodeId, Region};

use crate::view::neighbours::Neighbours;

/// The maximum time until a waiting stream asks again, because the streams ahead of it may have
/// gone away.
const AGAIN: Duration = Duration::from_millis(100);

type Cap = Arc<Mutex<Bucket>>;

/// The caps of this node.
pub struct Pacing {
    neighbours: Arc<Neighbours>,
    caps: BTreeMap<Region, Cap>,
}

impl Pacing {
    /// Caps in bytes per second by region. Other regions have no cap.
    pub fn new(
        neighbours: Arc<Neighbours>,
        caps: impl IntoIterator<Item = (Region, u64)>,
    ) -> Arc<Self> {
        let bucket = |rate| Arc::new(Mutex::new(Bucket::new(clock::now(), rate)));
        Arc::new(Pacing {
            neighbours,
            caps: caps.into_iter().map(|(region, rate)| (region, bucket(rate))).collect(),
        })
    }

    /// The pace of a stream to `node`.
    pub fn towards(&self, node: NodeId, class: Class) -> Pace {
        let cap = if self.caps.is_empty() {
            None
        } else {
            let to = self.neighbours.nodes().into_iter().find(|known| known.id == node);
            to.and_then(|to| self.caps.get(&to.region)).cloned()
        };
        Pace { cap, class }
    }
}

/// The pace of one stream, with a cap or without.
pub struct Pace {
    cap: Option<Cap>,
    class: Class,
}

impl Pace {
    /// Waits until a piece may be sent, and splits it off; `None` when nothing is left.
    pub async fn next(&self, bytes: &mut Bytes) -> Option<Bytes> {
        if bytes.is_empty() {
            return None;
        }
        let Some(cap) = &self.cap else { return Some(std::mem::take(bytes)) };
        let _waiting = Waiting::enter(cap, self.class);
        loop {
            let asked = {
                let mut bucket = cap.lock();
                let piece = bucket.piece().min(bytes.len() as u64);
                bucket.take(clock::now(), self.class, piece).map(|()| piece)
            };
            match asked {
                Ok(piece) => return Some(bytes.split_to(piece as usize)),
                Err(wait) => tokio::time::sleep(wait.min(AGAIN)).await,
            }
        }
    }
}

/// A stream that wants to send, until this is dropped.
struct Waiting<'a> {
    cap: &'a Cap,
    class: Class,
}

impl<'a> Waiting<'a> {
    fn enter(cap: &'a Cap, class: Class) -> Self {
        cap.lock().enter(class);
        Waiting { cap, class }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.cap.lock().leave(self.class);
    }
}
