//! What keeps the bytes of blobs, as the store sees it.
//!
//! A [`Backend`] is four small traits: bytes that arrive ([`Arrivals`]), blobs that have a name
//! ([`Blobs`]), bytes of uploads, which outlive the process ([`Uploads`]), and the lists of blobs'
//! groups ([`Outboards`]). [`Disk`](disk::Disk) implements them with files. Code outside of a
//! backend knows no file and no path of one.
//!
//! **What is not in it.** The index of held blobs, cached manifests, marks of damaged blobs and the
//! position of the scrub are databases and small files on a local disk, whatever keeps the bytes.
//! The index alone says what is held: a blob that a backend has and the index lacks is a *stray*,
//! which is removed some time, and one that the index has and the backend lacks is *lost*, and is
//! fetched again. So no promise here spans both, and a crash between the two costs a copy at most.
//!
//! **What waits.** Calls that may have to wait for a network return a [`Pending`]. Calls that need
//! no more than a local disk return their result: an arrival's bytes have to be on the node,
//! because others read along. Of those, the ones that move bytes are marked *blocks*: call them on
//! a thread that may block. A pull costs one boxed future when it opens its blob, and none for each
//! piece that [`ReadAt::read_ready`] has.
//!
//! **Crashes.** Between any two instructions a process may end, and a machine may lose what was not
//! durable. Afterwards the backend is opened again, and then: each name leads to all bytes that
//! were given it or to none; nothing is left of arrivals that were not named; the bytes of uploads
//! are there, or, after a crash of the machine, may be short or wrong, which their digest shows. A
//! removal may be undone: then the blob is a stray.
//!
//! # What a backend on an object store has to do
//!
//! Such a store gives no rename, no append, no reading of what is under way, and no order between
//! requests that overlap. A node's objects have a prefix of their own: two nodes that shared one
//! would remove each other's blobs.
//!
//! | call | with an object store |
//! |---|---|
//! | [`Arrival::write`], [`Arrival::bytes`] | a local spool, which `disk` has; parts of a multipart upload can begin meanwhile |
//! | [`Arrival::sync`] | the multipart upload under a temporary name is completed |
//! | [`Nameless::name`] | a copy within the store to the blob's name, then a delete of the temporary object; S3 copies 5 GiB at a time |
//! | [`Blobs::open`], [`Blobs::lengths`] | `HEAD` |
//! | [`ReadAt`] | ranged `GET`s, ahead of the reader, so that `read_ready` has most pieces |
//! | [`Blobs::list`] | `LIST` with `start-after`: names sort as digests do |
//! | [`Blobs::remove`] | `DELETE`, put off while the blob is open; a crash meanwhile leaves a stray |
//! | [`Uploads`] | the local spool: an upload belongs to the node that began it |
//! | [`Outboards`] | small objects beside the blobs; they can be computed again, but only by reading the blob |
//! | [`Arrivals::space`] | the room of the spool's disk |
//! | opening it | multipart uploads of before are aborted, temporary objects deleted |

pub mod disk;
#[cfg(test)]
pub(crate) mod tests;

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use ground::supervise::blocking;
use rules::blobs::uploads::UploadId;
use rules::words::digest::Digest;

/// A result that may have to be waited for. If it is dropped before it is there, what it was about
/// may still happen, whole or not at all.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

/// All that a store needs of what keeps its bytes.
pub trait Backend: Arrivals + Blobs + Uploads + Outboards + 'static {}

impl<T: Arrivals + Blobs + Uploads + Outboards + 'static> Backend for T {}

/// A buffer, and the number of bytes that were read into it.
pub struct Filled {
    /// The buffer that was given.
    pub buffer: Vec<u8>,
    /// How much of it.
    pub read: usize,
}

/// Bytes that can be read from any place. They stay readable for as long as this lives, whatever
/// becomes of their name.
pub trait ReadAt: Send + Sync + 'static {
    /// Reads what can be had at once, without blocking, which may be less than `buffer` takes. No
    /// bytes only where they end.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if the bytes must be waited for, or if they cannot
    /// be read: [`ReadAt::read`] then waits, or says why.
    fn read_ready(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;

    /// Fills `buffer`. Fewer bytes are read only where the bytes end. Blocks.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;

    /// The same into the first `length` bytes of `buffer`. A backend whose bytes come over a
    /// network needs no thread for it.
    fn read(
        self: Arc<Self>,
        mut buffer: Vec<u8>,
        length: usize,
        at: u64,
    ) -> Pending<'static, Filled> {
        let read = blocking(move || {
            let read = self.read_at(&mut buffer[..length], at)?;
            Ok(Filled { buffer, read })
        });
        Box::pin(async move { read.await.map_err(io::Error::other)? })
    }

    /// Gives the bytes another name in the file system, for programs that want a file. The file
    /// must not be written to. False if they are in no file that can have one: then the caller
    /// makes a copy. Blocks.
    fn link(&self, _place: &Path) -> io::Result<bool> {
        Ok(false)
    }
}

/// Bytes on their way in, from the first to the last. If this is dropped, nothing is left of them,
/// unless they are an upload's. Then they stay until [`Uploads::forget_upload`].
pub trait Arrival: Send + Sync {
    /// Adds bytes behind those that are there, all or, after an error, any number of them. Blocks.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// The bytes, for readers that follow: all that was written before they read is there. They can
    /// be read on after the arrival has ended, however it has ended.
    fn bytes(&self) -> Arc<dyn ReadAt>;

    /// Makes all bytes durable, where they are. Nobody but the caller knows of them yet. After an
    /// error nothing is left, unless they are an upload's.
    fn sync(self: Box<Self>) -> Pending<'static, Box<dyn Nameless>>;
}

/// Bytes that are whole and durable, and have no name. If this is dropped, nothing is left of them,
/// also if they were an upload's.
pub trait Nameless: Send {
    /// Makes them the blob `digest`, which the caller has checked, in one step: whoever opens or
    /// lists it finds all bytes or none, also after a crash. If there is such a blob, they replace
    /// it, and its readers get the bytes of either. Durable when it has returned. After an error
    /// the blob is there as a whole, or as it was before; otherwise nothing is left.
    fn name(self: Box<Self>, digest: Digest) -> Pending<'static, ()>;
}

/// How much room there is for bytes that arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// The free bytes.
    pub free: u64,
    /// All bytes, used or not.
    pub all: u64,
}

/// A number of things and of their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Sum {
    /// Adds one.
    pub fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

/// Where bytes arrive.
pub trait Arrivals: Send + Sync {
    /// Begins to receive bytes that have no name yet.
    fn arrive(&self) -> io::Result<Box<dyn Arrival>>;

    /// The arrivals that are under way, without uploads. Blocks.
    fn arriving(&self) -> io::Result<Sum>;

    /// The room for what arrives; `None` if that is not known, or has no limit.
    fn space(&self) -> Option<Space>;
}

/// A blob that was opened.
pub struct Opened {
    /// Its bytes.
    pub bytes: Arc<dyn ReadAt>,
    /// Their number.
    pub length: u64,
}

/// Bytes that have a digest for their name. Whether they still hash to it is for the caller to find
/// out.
pub trait Blobs: Send + Sync {
    /// Opens a blob; `None` if there is none of that name.
    fn open(&self, digest: Digest) -> Pending<'_, Option<Opened>>;

    /// The lengths of blobs in the same order; `None` for those that are not there, or that cannot
    /// be looked at. None of their bytes are read.
    fn lengths(&self, digests: Vec<Digest>) -> Pending<'_, Vec<Option<u64>>>;

    /// The next blobs behind `after` in the order of their digests, at most `most`, with their
    /// lengths. Blobs that come or go meanwhile may be listed or not; all others are, exactly once.
    /// None behind the last.
    fn list(&self, after: Option<Digest>, most: usize) -> Pending<'_, Vec<(Digest, u64)>>;

    /// Removes blobs. They are not opened or listed from now on; whoever has one open reads to its
    /// end. Those that are not there are no error. Tries all of them, and returns the first error.
    fn remove(&self, digests: Vec<Digest>) -> Pending<'_, ()>;
}

/// An upload whose bytes are here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptUpload {
    /// Its id.
    pub id: UploadId,
    /// What was noted of it when it began.
    pub note: String,
    /// The number of its bytes.
    pub length: u64,
}

/// Bytes of uploads. They outlive the process, so that a client can go on after a restart. They are
/// durable only once they are a blob: after a crash of the machine they may be short or wrong.
pub trait Uploads: Send + Sync {
    /// Begins an upload. An id is used once.
    fn begin_upload(&self, id: &UploadId, note: &str) -> io::Result<Box<dyn Arrival>>;

    /// Goes on behind the bytes of an upload that nothing else has open. An error if there is none.
    fn resume_upload(&self, id: &UploadId) -> io::Result<Box<dyn Arrival>>;

    /// Removes what is left of an upload. Nothing is left of one that became a blob, except its
    /// note. That there is none is no error.
    fn forget_upload(&self, id: &UploadId) -> io::Result<()>;

    /// The uploads that have both bytes and a note, in any order. What a crash left of others is
    /// removed when the backend is opened. Blocks.
    fn uploads(&self) -> io::Result<Vec<KeptUpload>>;
}

/// The lists of blobs' groups. They are checked whenever they are read, and can be computed again
/// from the blob. So they need not be durable, and may be wrong after a crash.
pub trait Outboards: Send + Sync {
    /// Keeps a list, in the place of an earlier one.
    fn keep_outboard(&self, digest: Digest, list: Vec<u8>) -> Pending<'_, ()>;

    /// The list that was kept, if there is one.
    fn outboard(&self, digest: Digest) -> Pending<'_, Option<Vec<u8>>>;

    /// Removes lists. Those that are not there are no error. Tries all of them, and returns the
    /// first error.
    fn drop_outboards(&self, digests: Vec<Digest>) -> Pending<'_, ()>;
}
