//! Room for bytes: cached blobs are evicted for whatever arrives. The last part of the disk is
//! reserved for the ledger and the index, and blobs may not use it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rules::blobs::cache::{missing_on_disk, reserve};
use tokio::sync::Notify;

use super::backend::{Backend, Space};

/// The number of bytes that are reserved together, so that the file system is not asked for every
/// piece.
const STEP: u64 = 4 << 20;
/// How often, and how long each time, an arrival that found no room waits for evictions.
const PATIENCE: (u32, Duration) = (40, Duration::from_millis(100));
/// After so many evictions that were not enough an arrival waits no longer: the first of them may
/// have begun before it came.
const ENOUGH: u64 = 2;

/// The room of one store, which is that of a disk.
pub(super) struct Room {
    backend: Arc<dyn Backend>,
    wanted: Notify,
    /// Bytes that arrivals may write but have not written yet. They are not free for others.
    promised: AtomicU64,
    /// The number of evictions that could not make all the room that was wanted.
    short: AtomicU64,
}

impl Room {
    pub(super) fn of(backend: Arc<dyn Backend>) -> Self {
        Room {
            backend,
            wanted: Notify::new(),
            promised: AtomicU64::new(0),
            short: AtomicU64::new(0),
        }
    }

    /// The number of free bytes and of all bytes; `None` if that is not known.
    pub(super) fn free(&self) -> Option<(u64, u64)> {
        self.backend.space().map(|Space { free, all }| (free, all))
    }

    /// How many bytes of cached blobs must be evicted for `room` more, beside those that were
    /// promised.
    pub(super) fn missing(&self, room: u64) -> u64 {
        let promised = self.promised.load(Ordering::Relaxed);
        self.free()
            .map_or(0, |(free, all)| missing_on_disk(free.saturating_sub(promised), all, room))
    }

    /// Completes when an arrival has found less free space than there should be.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// All that can be evicted now was evicted, and less is free than there should be.
    pub(super) fn note_short(&self) {
        self.short.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether `bytes` more can be written without the reserve. Requests an eviction if there is
    /// less free space than there should be.
    fn has(&self, bytes: u64) -> bool {
        let Some((free, all)) = self.free() else { return true };
        let free = free.saturating_sub(self.promised.load(Ordering::Relaxed));
        if missing_on_disk(free, all, bytes) == 0 {
            return true;
        }
        self.wanted.notify_one();
        free >= bytes.saturating_add(reserve(all))
    }

    /// Blocks until `bytes` more can be written without the reserve.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] if this is not possible even after every cached blob that is
    /// not being read was evicted. Nothing was written.
    fn wait_for(&self, bytes: u64) -> io::Result<()> {
        let (tries, pause) = PATIENCE;
        let short = self.short.load(Ordering::Relaxed);
        for _ in 0..tries {
            // read first: what an eviction has freed since is seen below
            let hopeless = self.short.load(Ordering::Relaxed) >= short + ENOUGH;
            if self.has(bytes) {
                return Ok(());
            }
            if hopeless {
                break;
            }
            std::thread::sleep(pause);
        }
        let (free, all) = self.free().unwrap_or_default();
        Err(io::Error::new(
            io::ErrorKind::StorageFull,
            format!(
                "the disk of data_dir has {free} bytes free, of which {} are kept for the ledger; make room there, or give this node a larger disk",
                reserve(all)
            ),
        ))
    }
}

/// One arrival's account of the bytes that it may write.
pub(super) struct Taken {
    room: Arc<Room>,
    left: u64,
}

impl Taken {
    pub(super) fn nothing_of(room: Arc<Room>) -> Self {
        Taken { room, left: 0 }
    }

    /// `length` bytes are about to be written. Reserves more if the reserved bytes are used up.
    pub(super) fn spend(&mut self, length: u64) -> io::Result<()> {
        if length > self.left {
            self.give_back(self.left);
            let step = length.max(STEP);
            // near the end, a whole step may be too much although the piece still fits
            let promised = if self.room.has(step) {
                step
            } else {
                self.room.wait_for(length).map(|()| length)?
            };
            self.room.promised.fetch_add(promised, Ordering::Relaxed);
            self.left = promised;
        }
        self.give_back(length);
        Ok(())
    }

    /// `length` bytes will be written, in pieces. Blocks until there is room for all of them.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] if there is none even after evictions.
    pub(super) fn reserve(&mut self, length: u64) -> io::Result<()> {
        if length > self.left {
            let more = length - self.left;
            if self.room.free().is_some_and(|(_, all)| all > 0 && more > all) {
                let why = format!("a blob of {length} bytes is larger than the disk of data_dir");
                return Err(io::Error::new(io::ErrorKind::StorageFull, why));
            }
            self.room.wait_for(more)?;
            self.room.promised.fetch_add(more, Ordering::Relaxed);
            self.left = length;
        }
        Ok(())
    }

    fn give_back(&mut self, bytes: u64) {
        self.room.promised.fetch_sub(bytes, Ordering::Relaxed);
        self.left -= bytes;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.give_back(self.left);
    }
}
