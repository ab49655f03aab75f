//! A backend on an object store: that of the crate `object_store` which is in memory.
//!
//! It is as a real one would be: bytes arrive in a spool, go up in parts under a temporary name,
//! are copied to their own, and what is removed while it is open is deleted at the end of its
//! readers. The spool is in memory, too, and requests can be made to fail.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use futures::StreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;
use rules::blobs::uploads::UploadId;
use rules::words::digest::Digest;

use crate::backend::{
    Arrival, Arrivals, Blobs, Filled, KeptUpload, Nameless, Opened, Outboards, Pending, ReadAt,
    Space, Sum, Uploads,
};

/// The size of a part. Real ones have 5 MiB or more.
const PART: usize = 64 << 10;

/// What outlives the process: the objects, and the files of the spool.
#[derive(Clone, Default)]
pub(crate) struct Machine {
    objects: Arc<InMemory>,
    uploads: Arc<Mutex<BTreeMap<UploadId, Upload>>>,
}

/// An upload in the spool. Its bytes are gone when it has become a blob.
struct Upload {
    note: String,
    bytes: Option<Spooled>,
}

/// A file of the spool.
#[derive(Clone, Default)]
struct Spooled(Arc<Mutex<Vec<u8>>>);

/// The backend.
pub(crate) struct Bucket(Arc<Inner>);

struct Inner {
    machine: Machine,
    /// The arrivals that are under way.
    arriving: Mutex<HashMap<u64, Spooled>>,
    open: Mutex<HashMap<Digest, Open>>,
    names: AtomicU64,
    /// How many more requests are answered.
    answered: AtomicU64,
}

/// A blob that is open.
#[derive(Default)]
struct Open {
    readers: usize,
    /// Whether its object is deleted when nobody reads it any more.
    removed: bool,
}

fn failed(error: object_store::Error) -> io::Error {
    match error {
        object_store::Error::NotFound { .. } => io::ErrorKind::NotFound.into(),
        error => io::Error::other(error),
    }
}

fn place(kind: &str, digest: &Digest) -> Path {
    Path::from(format!("{kind}/{}/{}", digest.algorithm().name(), digest.hex()))
}

fn digest_at(place: &Path) -> Option<Digest> {
    let mut parts = place.as_ref().split('/').skip(1);
    format!("{}:{}", parts.next()?, parts.next()?).parse().ok()
}

/// What is in memory is never waited for.
fn at_once<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a request to the memory waits"),
    }
}

impl Machine {
    /// As it is if the process ends now.
    pub(crate) fn after_a_crash(&self) -> Self {
        let uploads = self.uploads.lock();
        let uploads = uploads.iter().map(|(id, upload)| {
            let bytes = upload.bytes.as_ref().map(|bytes| bytes.0.lock().clone());
            let bytes = bytes.map(|bytes| Spooled(Arc::new(Mutex::new(bytes))));
            (*id, Upload { note: upload.note.clone(), bytes })
        });
        let uploads = Arc::new(Mutex::new(uploads.collect()));
        Machine { objects: Arc::new(self.objects.fork()), uploads }
    }

    /// The number of objects, whatever they are.
    pub(crate) fn objects(&self) -> usize {
        at_once(self.objects.list(None).collect::<Vec<_>>()).len()
    }
}

impl Bucket {
    /// Opens it, and removes what a crash left of arrivals and uploads.
    pub(crate) fn open(machine: &Machine) -> Self {
        let objects = machine.objects.clone();
        let prefix = Path::from("temporary");
        for left in at_once(objects.list(Some(&prefix)).collect::<Vec<_>>()) {
            at_once(objects.delete(&left.unwrap().location)).unwrap();
        }
        machine.uploads.lock().retain(|_, upload| upload.bytes.is_some());
        Bucket(Arc::new(Inner {
            machine: machine.clone(),
            arriving: Mutex::default(),
            open: Mutex::default(),
            names: AtomicU64::new(0),
            answered: AtomicU64::new(u64::MAX),
        }))
    }

    /// Of the requests from now on only the first `answered` are.
    pub(crate) fn fail_after(&self, answered: u64) {
        self.0.answered.store(answered, Ordering::Relaxed);
    }
}

impl Inner {
    /// The store, for one request.
    fn request(&self) -> io::Result<&InMemory> {
        let less = |left: u64| left.checked_sub(1);
        let answered = self.answered.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        answered.map_err(|_| io::Error::other("no answer from the object store"))?;
        Ok(&self.machine.objects)
    }

    async fn put(&self, place: &Path, bytes: Vec<u8>) -> io::Result<()> {
        if bytes.len() <= PART {
            return self.request()?.put(place, bytes.into()).await.map(drop).map_err(failed);
        }
        let mut parts = self.request()?.put_multipart(place).await.map_err(failed)?;
        for part in bytes.chunks(PART) {
            self.request()?;
            parts.put_part(part.to_vec().into()).await.map_err(failed)?;
        }
        self.request()?;
        parts.complete().await.map(drop).map_err(failed)
    }

    async fn delete(&self, place: &Path) -> io::Result<()> {
        match self.request()?.delete(place).await {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            deleted => deleted.map_err(failed),
        }
    }

    async fn length(&self, digest: &Digest) -> io::Result<Option<u64>> {
        if self.open.lock().get(digest).is_some_and(|open| open.removed) {
            return Ok(None);
        }
        match self.request()?.head(&place("blobs", digest)).await {
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            about => Ok(Some(about.map_err(failed)?.size)),
        }
    }
}

impl ReadAt for Spooled {
    fn read_ready(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.read_at(buffer, at)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let bytes = self.0.lock();
        let rest = bytes.get(at as usize..).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }
}

/// Bytes that arrive, or have arrived.
struct Landing {
    inner: Arc<Inner>,
    name: u64,
    bytes: Spooled,
    /// Set if they are an upload's.
    upload: Option<UploadId>,
    /// Whether they stay when this is dropped.
    stays: bool,
}

impl Landing {
    fn temporary(&self) -> Path {
        Path::from(format!("temporary/{}", self.name))
    }
}

impl Arrival for Landing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes.0.lock().extend_from_slice(bytes);
        Ok(())
    }

    fn bytes(&self) -> Arc<dyn ReadAt> {
        Arc::new(self.bytes.clone())
    }

    fn sync(mut self: Box<Self>) -> Pending<'static, Box<dyn Nameless>> {
        Box::pin(async move {
            let bytes = self.bytes.0.lock().clone();
            self.inner.put(&self.temporary(), bytes).await?;
            self.stays = false;
            Ok(self as Box<dyn Nameless>)
        })
    }
}

impl Nameless for Landing {
    fn name(self: Box<Self>, digest: Digest) -> Pending<'static, ()> {
        Box::pin(async move {
            // its last reader must not delete it now
            let removed = {
                let mut open = self.inner.open.lock();
                open.get_mut(&digest).is_some_and(|open| std::mem::take(&mut open.removed))
            };
            let copied = match self.inner.request() {
                Ok(objects) => {
                    let to = place("blobs", &digest);
                    objects.copy(&self.temporary(), &to).await.map_err(failed)
                }
                Err(error) => Err(error),
            };
            if copied.is_err()
                && removed
                && let Some(open) = self.inner.open.lock().get_mut(&digest)
            {
                open.removed = true;
            }
            copied
        })
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.inner.arriving.lock().remove(&self.name);
        if !self.stays {
            // a real one would not wait for it
            let _ = at_once(self.inner.delete(&self.temporary()));
            let mut uploads = self.inner.machine.uploads.lock();
            if let Some(upload) = self.upload.and_then(|id| uploads.get_mut(&id)) {
                upload.bytes = None;
            }
        }
    }
}

impl Arrivals for Bucket {
    fn arrive(&self) -> io::Result<Box<dyn Arrival>> {
        let name = self.0.names.fetch_add(1, Ordering::Relaxed);
        let bytes = Spooled::default();
        self.0.arriving.lock().insert(name, bytes.clone());
        Ok(Box::new(Landing { inner: self.0.clone(), name, bytes, upload: None, stays: false }))
    }

    fn arriving(&self) -> io::Result<Sum> {
        let mut all = Sum::default();
        self.0.arriving.lock().values().for_each(|bytes| all.add(bytes.0.lock().len() as u64));
        Ok(all)
    }

    fn space(&self) -> Option<Space> {
        None
    }
}

/// A blob that is open.
struct Reader {
    inner: Arc<Inner>,
    digest: Digest,
    length: u64,
}

impl Reader {
    async fn read_some(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let end = self.length.min(at.saturating_add(buffer.len() as u64));
        if at >= end {
            return Ok(0);
        }
        let place = place("blobs", &self.digest);
        let bytes = self.inner.request()?.get_range(&place, at..end).await.map_err(failed)?;
        buffer[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }
}

impl ReadAt for Reader {
    fn read_ready(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        at_once(self.read_some(buffer, at))
    }

    fn read(
        self: Arc<Self>,
        mut buffer: Vec<u8>,
        length: usize,
        at: u64,
    ) -> Pending<'static, Filled> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            let read = self.read_some(&mut buffer[..length], at).await?;
            Ok(Filled { buffer, read })
        })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut all = self.inner.open.lock();
        let Some(open) = all.get_mut(&self.digest) else { return };
        open.readers -= 1;
        if open.readers == 0 {
            if open.removed {
                // if this fails it is a stray
                let _ = at_once(self.inner.delete(&place("blobs", &self.digest)));
            }
            all.remove(&self.digest);
        }
    }
}

impl Blobs for Bucket {
    fn open(&self, digest: Digest) -> Pending<'_, Option<Opened>> {
        Box::pin(async move {
            self.0.open.lock().entry(digest).or_default().readers += 1;
            let mut reader = Reader { inner: self.0.clone(), digest, length: 0 };
            let Some(length) = self.0.length(&digest).await? else { return Ok(None) };
            reader.length = length;
            Ok(Some(Opened { bytes: Arc::new(reader), length }))
        })
    }

    fn lengths(&self, digests: Vec<Digest>) -> Pending<'_, Vec<Option<u64>>> {
        Box::pin(async move {
            let mut lengths = Vec::new();
            for digest in &digests {
                lengths.push(self.0.length(digest).await?);
            }
            Ok(lengths)
        })
    }

    fn list(&self, after: Option<Digest>, most: usize) -> Pending<'_, Vec<(Digest, u64)>> {
        Box::pin(async move {
            let prefix = Path::from("blobs");
            let objects = self.0.request()?;
            let mut listed = match after {
                Some(after) => objects.list_with_offset(Some(&prefix), &place("blobs", &after)),
                None => objects.list(Some(&prefix)),
            };
            let mut found = Vec::new();
            while found.len() < most
                && let Some(object) = listed.next().await
            {
                let object = object.map_err(failed)?;
                let Some(digest) = digest_at(&object.location) else { continue };
                if !self.0.open.lock().get(&digest).is_some_and(|open| open.removed) {
                    found.push((digest, object.size));
                }
            }
            Ok(found)
        })
    }

    fn remove(&self, digests: Vec<Digest>) -> Pending<'_, ()> {
        Box::pin(async move {
            let mut removed = Ok(());
            for digest in digests {
                let is_open = match self.0.open.lock().get_mut(&digest) {
                    Some(open) => {
                        open.removed = true;
                        true
                    }
                    None => false,
                };
                if !is_open {
                    removed = removed.and(self.0.delete(&place("blobs", &digest)).await);
                }
            }
            removed
        })
    }
}

impl Uploads for Bucket {
    fn begin_upload(&self, id: &UploadId, note: &str) -> io::Result<Box<dyn Arrival>> {
        let upload = Upload { note: note.to_owned(), bytes: Some(Spooled::default()) };
        self.0.machine.uploads.lock().insert(*id, upload);
        self.resume_upload(id)
    }

    fn resume_upload(&self, id: &UploadId) -> io::Result<Box<dyn Arrival>> {
        let uploads = self.0.machine.uploads.lock();
        let bytes = uploads.get(id).and_then(|upload| upload.bytes.clone());
        let bytes = bytes.ok_or(io::ErrorKind::NotFound)?;
        let name = self.0.names.fetch_add(1, Ordering::Relaxed);
        let (inner, upload) = (self.0.clone(), Some(*id));
        Ok(Box::new(Landing { inner, name, bytes, upload, stays: true }))
    }

    fn forget_upload(&self, id: &UploadId) -> io::Result<()> {
        self.0.machine.uploads.lock().remove(id);
        Ok(())
    }

    fn uploads(&self) -> io::Result<Vec<KeptUpload>> {
        let uploads = self.0.machine.uploads.lock();
        let found = uploads.iter().filter_map(|(id, upload)| {
            let length = upload.bytes.as_ref()?.0.lock().len() as u64;
            Some(KeptUpload { id: *id, note: upload.note.clone(), length })
        });
        Ok(found.collect())
    }
}

impl Outboards for Bucket {
    fn keep_outboard(&self, digest: Digest, list: Vec<u8>) -> Pending<'_, ()> {
        Box::pin(async move { self.0.put(&place("outboards", &digest), list).await })
    }

    fn outboard(&self, digest: Digest) -> Pending<'_, Option<Vec<u8>>> {
        Box::pin(async move {
            match self.0.request()?.get(&place("outboards", &digest)).await {
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                list => {
                    let bytes = list.map_err(failed)?.bytes().await.map_err(failed)?;
                    Ok(Some(bytes.to_vec()))
                }
            }
        })
    }

    fn drop_outboards(&self, digests: Vec<Digest>) -> Pending<'_, ()> {
        Box::pin(async move {
            let mut dropped = Ok(());
            for digest in digests {
                dropped = dropped.and(self.0.delete(&place("outboards", &digest)).await);
            }
            dropped
        })
    }
}
