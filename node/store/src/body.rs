//! Bodies of responses from held blobs, and from blobs that are still arriving.
//!
//! Reads go straight into pooled buffers. On a disk that is `preadv2(RWF_NOWAIT)` from the page
//! cache, and only bytes that are not there are read on a blocking thread. Measured against the
//! alternatives in one run (sendfile, mmap, tokio's files), this is the cheapest for small blobs,
//! close to sendfile for large ones, and, unlike mmap, never stalls a worker on a cold disk.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::backend::{Filled, Pending, ReadAt};

/// The number of bytes in one read. With 256 KiB, a blob of 64 MiB takes 256 reads. A larger value
/// costs processor cache, a smaller one costs more reads.
const CHUNK: usize = 256 << 10;
/// The maximum number of buffers that are kept for later bodies: 16 MiB.
const KEPT: usize = 64;

/// A pool of read buffers.
#[derive(Clone, Default)]
pub struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    fn take(&self) -> Vec<u8> {
        self.0.lock().pop().unwrap_or_else(|| vec![0; CHUNK])
    }

    fn give(&self, buffer: Vec<u8>) {
        let mut kept = self.0.lock();
        if kept.len() < KEPT {
            kept.push(buffer);
        }
    }

    fn bytes(&self, buffer: Vec<u8>, length: usize) -> Bytes {
        Bytes::from_owner(Pooled { buffer, length, pool: self.clone() })
    }
}

struct Pooled {
    buffer: Vec<u8>,
    length: usize,
    pool: Buffers,
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        self.pool.give(std::mem::take(&mut self.buffer));
    }
}

/// How far bytes that are still arriving may be read.
pub type Following = watch::Receiver<Result<u64, Arc<str>>>;

type Waiting = Pin<Box<dyn Future<Output = Result<(), Stopped>> + Send + Sync>>;

/// A part of a blob's bytes.
pub struct BlobBody {
    from: Arc<dyn ReadAt>,
    at: u64,
    end: u64,
    buffers: Buffers,
    /// A backend's futures are not `Sync`, and bodies must be. Nobody ever waits for the lock.
    reading: Option<Mutex<Pending<'static, Filled>>>,
    following: Option<Following>,
    waiting: Option<Waiting>,
    stall: Duration,
    sent: Option<metrics::Counter>,
    unreadable: Option<Box<dyn FnOnce() + Send + Sync>>,
    at_end: AtEnd,
}

/// Calls a function with the number of bytes that were sent, when the body is dropped.
#[derive(Default)]
struct AtEnd {
    sent: u64,
    told: Option<Box<dyn FnOnce(u64) + Send + Sync>>,
}

impl Drop for AtEnd {
    fn drop(&mut self) {
        if let Some(told) = self.told.take() {
            told(self.sent);
        }
    }
}

/// Why what is followed will not grow any more.
enum Stopped {
    Failed(Arc<str>),
    Stalled,
}

impl BlobBody {
    /// A range of what has arrived as a whole.
    pub fn whole(from: Arc<dyn ReadAt>, range: std::ops::Range<u64>, buffers: &Buffers) -> Self {
        BlobBody {
            from,
            at: range.start,
            end: range.end,
            buffers: buffers.clone(),
            reading: None,
            following: None,
            waiting: None,
            stall: Duration::MAX,
            sent: None,
            unreadable: None,
            at_end: AtEnd::default(),
        }
    }

    /// Calls `told` if the bytes cannot be read, or end too early.
    pub fn or_unreadable(mut self, told: impl FnOnce() + Send + Sync + 'static) -> Self {
        self.unreadable = Some(Box::new(told));
        self
    }

    /// A range of what is still arriving. It is never read beyond what `following` allows. The body
    /// ends with an error if the arrival fails, or makes no progress for `stall`.
    pub fn arriving(
        from: Arc<dyn ReadAt>,
        range: std::ops::Range<u64>,
        buffers: &Buffers,
        following: Following,
        stall: Duration,
    ) -> Self {
        BlobBody { following: Some(following), stall, ..BlobBody::whole(from, range, buffers) }
    }

    /// Counts the bytes that are sent.
    pub fn counted(mut self, counter: metrics::Counter) -> Self {
        self.sent = Some(counter);
        self
    }

    /// Calls `told` with the number of bytes that were sent when the body is no longer read: at its
    /// end, or when the client or the bytes broke off.
    pub fn at_end(&mut self, told: impl FnOnce(u64) + Send + Sync + 'static) {
        self.at_end.told = Some(Box::new(told));
    }

    /// The next piece, for callers that send it elsewhere than to an HTTP client.
    pub async fn next(&mut self) -> Option<io::Result<Bytes>> {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut *self).poll_frame(cx)).await?;
        Some(frame.map(|f| f.into_data().unwrap_or_default()))
    }

    /// The number of bytes that may be read now. Pending while no more has arrived.
    fn poll_allowed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        let Some(following) = &mut self.following else { return Poll::Ready(Ok(self.end)) };
        loop {
            let known = following.borrow_and_update().clone();
            let reached = match known {
                Ok(allowed) if allowed > self.at => return Poll::Ready(Ok(allowed.min(self.end))),
                Ok(allowed) => allowed,
                Err(reason) => return Poll::Ready(Err(io::Error::other(reason.to_string()))),
            };
            if self.waiting.is_none() {
                let (following, stall) = (following.clone(), self.stall);
                self.waiting = Some(Box::pin(grown(following, reached, stall)));
            }
            let Some(waiting) = &mut self.waiting else { continue };
            let result = ready!(waiting.as_mut().poll(cx));
            self.waiting = None;
            match result {
                Ok(()) => {}
                Err(Stopped::Failed(reason)) => {
                    return Poll::Ready(Err(io::Error::other(reason.to_string())));
                }
                Err(Stopped::Stalled) => return Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        if self.reading.is_none() {
            let allowed = ready!(self.poll_allowed(cx))?;
            let wanted = ((allowed - self.at) as usize).min(CHUNK);
            let mut buffer = self.buffers.take();
            match self.from.read_ready(&mut buffer[..wanted], self.at) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(n) => return Poll::Ready(Ok(self.buffers.bytes(buffer, n))),
                // if it is not for the waiting, the other way of reading finds it, too
                Err(_) => {
                    let read = self.from.clone().read(buffer, wanted, self.at);
                    self.reading = Some(Mutex::new(read));
                }
            }
        }
        let Some(reading) = &mut self.reading else { return Poll::Pending };
        let result = ready!(reading.get_mut().as_mut().poll(cx));
        self.reading = None;
        Poll::Ready(match result {
            Ok(Filled { read: 0, .. }) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(Filled { buffer, read }) => Ok(self.buffers.bytes(buffer, read)),
            Err(error) => Err(error),
        })
    }
}

/// Waits until more than `reached` may be read. As long as more arrives there is no stall,
/// however far the range is ahead of what has arrived.
async fn grown(mut following: Following, reached: u64, stall: Duration) -> Result<(), Stopped> {
    let more =
        following.wait_for(|allowed| allowed.as_ref().map_or(true, |allowed| *allowed > reached));
    match tokio::time::timeout(stall, more).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err(Stopped::Failed("the transfer ended".into())),
        Err(_) => Err(Stopped::Stalled),
    }
}

impl Body for BlobBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let body = self.get_mut();
        if body.at >= body.end {
            return Poll::Ready(None);
        }
        let read = ready!(body.poll_read(cx));
        if read.is_err()
            && let Some(told) = body.unreadable.take()
        {
            told();
        }
        let bytes = read?;
        body.at += bytes.len() as u64;
        body.at_end.sent += bytes.len() as u64;
        if let Some(sent) = &body.sent {
            sent.increment(bytes.len() as u64);
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.at >= self.end
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.end - self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    async fn all(mut body: BlobBody) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while let Some(piece) = body.next().await {
            bytes.extend_from_slice(&piece?);
        }
        Ok(bytes)
    }

    #[tokio::test]
    async fn a_range_is_exactly_that() {
        let mut file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..1_000_000u32).map(|i| i as u8).collect();
        file.write_all(&content).unwrap();
        let body = BlobBody::whole(Arc::new(file), 3..999_001, &Buffers::default());
        assert_eq!(all(body).await.unwrap(), &content[3..999_001]);
    }

    #[tokio::test]
    async fn whoever_wants_to_know_hears_once_how_much_was_sent() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![1; CHUNK + 5]).unwrap();
        let file = Arc::new(file);
        let (told, ended) = std::sync::mpsc::channel();
        let body = || {
            let told = told.clone();
            let mut whole = BlobBody::whole(file.clone(), 0..CHUNK as u64 + 5, &Buffers::default());
            whole.at_end(move |sent| told.send(sent).unwrap());
            whole
        };
        let mut given_up = body();
        given_up.next().await.unwrap().unwrap();
        assert!(ended.try_recv().is_err());
        drop(given_up);
        all(body()).await.unwrap();
        assert_eq!(ended.try_iter().collect::<Vec<_>>(), [CHUNK as u64, CHUNK as u64 + 5]);
    }

    #[tokio::test]
    async fn bytes_that_cannot_be_read_are_told_of() {
        let (told, unreadable) = std::sync::mpsc::channel();
        let body =
            BlobBody::whole(Arc::new(tempfile::tempfile().unwrap()), 0..5, &Buffers::default());
        let body = body.or_unreadable(move || told.send(()).unwrap());
        assert!(all(body).await.is_err());
        unreadable.try_recv().unwrap();
    }

    #[tokio::test]
    async fn what_arrives_is_followed_and_a_failure_ends_it() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let (sender, following) = watch::channel(Ok(4));
        let file = Arc::new(file);
        let follow = |f: Following| {
            BlobBody::arriving(file.clone(), 0..10, &Buffers::default(), f, Duration::from_secs(9))
        };
        let mut body = follow(following.clone());
        assert_eq!(body.next().await.unwrap().unwrap(), &b"0123"[..]);
        let _ = sender.send_replace(Ok(10));
        assert_eq!(body.next().await.unwrap().unwrap(), &b"456789"[..]);
        assert!(body.next().await.is_none());
        let _ = sender.send_replace(Err("gone".into()));
        assert!(all(follow(following)).await.is_err());
    }

    #[tokio::test]
    async fn a_range_far_ahead_of_what_arrives_is_given_up_only_when_nothing_more_comes() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789abcdefghij").unwrap();
        let (sender, following) = watch::channel(Ok(0));
        // a machine that is busy for a while is no stall
        let stall = Duration::from_secs(1);
        let file = Arc::new(file);
        let arrives = async {
            for allowed in 1..=20 {
                tokio::time::sleep(stall / 10).await;
                let _ = sender.send_replace(Ok(allowed));
            }
        };
        let late =
            BlobBody::arriving(file.clone(), 19..20, &Buffers::default(), following.clone(), stall);
        let (late, ()) = tokio::join!(all(late), arrives);
        assert_eq!(late.unwrap(), b"j");
        let _ = sender.send_replace(Ok(5));
        let never = BlobBody::arriving(file, 19..20, &Buffers::default(), following, stall);
        assert_eq!(all(never).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
