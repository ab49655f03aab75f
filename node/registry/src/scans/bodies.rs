//! Reports as they are sent: readers of one report share its bytes, and all reports that are being sent
//! have a limit together. A report may have tens of megabytes, and a reader may be slow.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rules::words::digest::Digest;
use rules::words::names::RepositoryName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::ScanError;

/// The maximum number of bytes of reports that are being sent.
const ROOM: usize = 128 << 20;
/// Room is counted in pieces of so many bytes.
const PIECE: usize = 1 << 10;

/// Which report it is: the image, the number of its scan, and the database that it was made with.
pub(super) type Key = (RepositoryName, Digest, u64, Option<Digest>);

/// The bytes of a report. They go when the last reader has them.
struct Body {
    bytes: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

/// A reader's hold on the bytes.
struct Held(Arc<Body>);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes
    }
}

/// The reports that are being sent.
pub(super) struct Bodies {
    room: Arc<Semaphore>,
    /// How long a reader waits for room.
    wait: Duration,
    sent: Mutex<BTreeMap<Key, Weak<Body>>>,
}

impl Bodies {
    /// Nothing is being sent. A reader waits so long for room.
    pub(super) fn new(wait: Duration) -> Self {
        Bodies { room: Arc::new(Semaphore::new(ROOM / PIECE)), wait, sent: Mutex::default() }
    }

    /// The bytes of a report that somebody reads now.
    pub(super) fn sent(&self, key: &Key) -> Option<Bytes> {
        let body = self.sent.lock().get(key)?.upgrade()?;
        Some(Bytes::from_owner(Held(body)))
    }

    /// Lets readers have these bytes, when there is room for them.
    pub(super) async fn send(&self, key: Key, bytes: Vec<u8>) -> Result<Bytes, ScanError> {
        let pieces = bytes.len().div_ceil(PIECE).clamp(1, ROOM / PIECE);
        let pieces = u32::try_from(pieces).unwrap_or(u32::MAX);
        let room =
            tokio::time::timeout(self.wait, self.room.clone().acquire_many_owned(pieces)).await;
        let Ok(Ok(room)) = room else {
            let why = "this node sends as many reports as it may; try again in a moment";
            return Err(ScanError::Again(why.into()));
        };
        let body = Arc::new(Body { bytes, _room: room });
        let mut sent = self.sent.lock();
        sent.retain(|_, body| body.strong_count() > 0);
        sent.insert(key, Arc::downgrade(&body));
        Ok(Bytes::from_owner(Held(body)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> Key {
        ("a/b".parse().unwrap(), Digest::sha256(b"image"), number, None)
    }

    #[tokio::test]
    async fn readers_share_a_report_and_all_reports_have_a_limit() {
        let bodies = Bodies::new(Duration::ZERO);
        assert!(bodies.sent(&key(1)).is_none());
        let first = bodies.send(key(1), vec![7; ROOM - PIECE]).await.unwrap();
        let second = bodies.sent(&key(1)).unwrap();
        assert_eq!(first.as_ptr(), second.as_ptr(), "the same bytes");
        assert!(bodies.sent(&key(2)).is_none(), "another report");
        let small = bodies.send(key(2), vec![7; 10]).await.unwrap();
        let full = bodies.send(key(3), vec![7; 10]).await;
        assert!(matches!(full, Err(ScanError::Again(_))), "a small one has a piece");
        drop(small);
        assert!(bodies.send(key(3), vec![7; 10]).await.is_ok());
        drop(first);
        let part = second.slice(1..2);
        drop(second);
        let large = bodies.send(key(4), vec![7; 2 * ROOM]).await;
        assert!(matches!(large, Err(ScanError::Again(_))), "a part is still being sent");
        drop(part);
        assert!(bodies.sent(&key(1)).is_none());
        assert!(bodies.send(key(4), vec![7; 2 * ROOM]).await.is_ok(), "alone, however large");
        assert_eq!(bodies.sent.lock().len(), 1, "what nobody reads is forgotten");
    }
}
