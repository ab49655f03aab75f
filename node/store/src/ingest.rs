//! Receiving bytes: they are written and hashed off the socket's path.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use ground::supervise::blocking;
use rules::blobs::groups::{Checked, GroupHasher};
use rules::words::digest::{Algorithm, ContentHash, Digest, Hasher};
use tokio::task::JoinHandle;

use super::StoreError;
use super::backend::{Arrival, Nameless, ReadAt};
use super::room::{Room, Taken};

/// The number of bytes that are read at a time to hash them again.
const READ: usize = 1 << 18;

/// Bytes that have no digest yet. If this is dropped before it is sealed, they are removed, unless
/// they are an upload's.
pub struct Ingest {
    arrival: Box<dyn Arrival>,
    written: u64,
    hasher: Option<Hasher>,
    /// The digest, once it was computed.
    actual: Option<Digest>,
    algorithm: Algorithm,
    content: GroupHasher,
    taken: Taken,
}

/// A sealed ingest. If it is dropped before it got its name, nothing is left.
pub(super) struct Sealed {
    /// Its bytes.
    pub nameless: Box<dyn Nameless>,
    /// Its length in bytes.
    pub size: u64,
    /// Its content hash.
    pub content: ContentHash,
    /// The list of its groups, unless it is too long.
    pub list: Option<Vec<u8>>,
}

/// Shows all bytes from the start, in pieces. Blocks.
fn read_all(bytes: &dyn ReadAt, mut show: impl FnMut(&[u8])) -> io::Result<u64> {
    let (mut piece, mut at) = (vec![0; READ], 0);
    loop {
        match bytes.read_at(&mut piece, at)? {
            0 => return Ok(at),
            n => {
                show(&piece[..n]);
                at += n as u64;
            }
        }
    }
}

impl Ingest {
    /// Writes to `arrival`, which has no bytes.
    pub(super) fn new(arrival: Box<dyn Arrival>, algorithm: Algorithm, room: Arc<Room>) -> Self {
        Ingest {
            arrival,
            written: 0,
            hasher: Some(Hasher::new(algorithm)),
            actual: None,
            algorithm,
            content: GroupHasher::new(),
            taken: Taken::nothing_of(room),
        }
    }

    /// Goes on with the bytes of `arrival`. This reads and hashes all of them, and blocks.
    pub(super) fn resume(
        arrival: Box<dyn Arrival>,
        algorithm: Algorithm,
        room: Arc<Room>,
    ) -> io::Result<Self> {
        let mut ingest = Ingest::new(arrival, algorithm, room);
        let (mut hasher, mut content) = (Hasher::new(algorithm), GroupHasher::new());
        ingest.written = read_all(&*ingest.arrival.bytes(), |piece| {
            hasher.update(piece);
            content.update(piece);
        })?;
        (ingest.hasher, ingest.content) = (Some(hasher), content);
        Ok(ingest)
    }

    /// The number of bytes written.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Reserves room for all `size` bytes that will have been written in the end. This blocks while
    /// cached blobs are evicted.
    pub(super) fn reserve(&mut self, size: u64) -> io::Result<()> {
        self.taken.reserve(size.saturating_sub(self.written))
    }

    /// The bytes, for readers that follow what arrives.
    pub fn bytes(&self) -> Arc<dyn ReadAt> {
        self.arrival.bytes()
    }

    /// Adds bytes. This blocks: see [`Ingest::write_all`].
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.append(bytes)?;
        self.content.update(bytes);
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.taken.spend(bytes.len() as u64)?;
        self.arrival.write(bytes)?;
        self.written += bytes.len() as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        Ok(())
    }

    /// Adds pieces on a thread that may block, and returns the ingest.
    pub async fn write_all(self, pieces: Vec<Bytes>) -> io::Result<Self> {
        self.start_write(pieces).await.map_err(io::Error::other)?
    }

    /// Adds checked groups of the blob, whose hashes are not computed again, on a thread that may
    /// block, and returns the ingest.
    pub async fn write_groups(mut self, groups: Vec<Checked>) -> io::Result<Self> {
        if groups.is_empty() {
            return Ok(self); // only a part of a group has come: no need for a thread
        }
        let written = blocking(move || {
            for group in groups {
                self.append(group.bytes())?;
                self.content.add(&group);
            }
            Ok(self)
        });
        written.await.map_err(io::Error::other)?
    }

    /// Starts adding pieces at once, so that the next ones can be received meanwhile.
    pub fn start_write(mut self, pieces: Vec<Bytes>) -> JoinHandle<io::Result<Self>> {
        blocking(move || {
            for piece in pieces {
                self.write(&piece)?;
            }
            Ok(self)
        })
    }

    /// Whether all bytes are here and match `expected`. Nothing may be written after this call, and
    /// nothing is durable yet.
    pub fn is_whole(&mut self, expected: &Digest) -> bool {
        if self.algorithm == expected.algorithm()
            && let Some(hasher) = self.hasher.take()
        {
            self.actual = Some(hasher.finish());
        }
        self.actual == Some(*expected)
    }

    /// Checks the hash, and makes the bytes durable where they are.
    pub(super) async fn seal(mut self, expected: Digest) -> Result<Sealed, StoreError> {
        let actual = match (self.actual, self.hasher.take()) {
            (Some(actual), _) => actual,
            (None, Some(hasher)) if self.algorithm == expected.algorithm() => hasher.finish(),
            _ => self.rehash(expected.algorithm()).await?,
        };
        if actual != expected {
            return Err(StoreError::Digest { expected: expected.into(), actual: actual.into() });
        }
        let (content, list) = self.content.finish();
        Ok(Sealed { nameless: self.arrival.sync().await?, size: self.written, content, list })
    }

    /// The client named the blob by another algorithm than it had announced, so the bytes are read
    /// again.
    async fn rehash(&self, algorithm: Algorithm) -> io::Result<Digest> {
        let bytes = self.bytes();
        let hashed = blocking(move || {
            let mut hasher = Hasher::new(algorithm);
            read_all(&*bytes, |piece| hasher.update(piece))?;
            Ok(hasher.finish())
        });
        hashed.await.map_err(io::Error::other)?
    }
}
