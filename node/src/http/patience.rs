//! A connection that gives up a client that reads nothing; otherwise a stopped reader would hold a
//! file, buffers and a drain for ever. It also closes gently: if a socket is closed while the
//! client still sends, it answers with a reset, and the client loses the response before it has
//! read it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// A stream whose writes fail when none has made progress for `stall`. Reads have their own
/// deadlines: for heads in the server, for bodies in `request`.
pub(super) struct Patient<S> {
    stream: S,
    stall: Duration,
    sleep: Pin<Box<Sleep>>,
    stuck: bool,
    lingering: bool,
}

/// How long a connection reads and drops what its client still sends after the last answer.
const LINGER: Duration = Duration::from_secs(2);

impl<S> Patient<S> {
    pub(super) fn new(stream: S, stall: Duration) -> Self {
        Patient {
            stream,
            stall,
            sleep: Box::pin(tokio::time::sleep(stall)),
            stuck: false,
            lingering: false,
        }
    }

    /// Passes `progress` on. The clock runs while it is pending.
    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        progress: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if progress.is_ready() {
            self.stuck = false;
            return progress;
        }
        if !self.stuck {
            self.stuck = true;
            self.sleep.as_mut().reset(Instant::now() + self.stall);
        }
        match self.sleep.as_mut().poll(cx) {
            Poll::Ready(()) => {
                metrics::counter!("atoll_clients_stalled_total").increment(1);
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, progress)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watch(cx, progress)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let progress = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, progress)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.lingering {
            let progress = Pin::new(&mut self.stream).poll_shutdown(cx);
            ready!(self.watch(cx, progress))?;
            self.lingering = true;
            self.sleep.as_mut().reset(Instant::now() + LINGER);
        }
        let mut scratch = [0; 16 << 10];
        loop {
            if self.sleep.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn a_reader_that_takes_nothing_is_given_up() {
        let (writer, _reader) = tokio::io::duplex(64);
        let mut patient = Patient::new(writer, Duration::from_millis(20));
        let error = patient.write_all(&[0; 1000]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn what_a_client_still_sends_is_taken_in_before_the_end() {
        let (server, client) = tokio::io::duplex(64);
        let mut patient = Patient::new(server, Duration::from_secs(5));
        let (mut from_server, mut to_server) = tokio::io::split(client);
        let sent = async {
            to_server.write_all(&[0; 10_000]).await.unwrap();
            to_server.shutdown().await.unwrap();
        };
        let mut answer = Vec::new();
        let answered = async {
            patient.write_all(b"no").await.unwrap();
            patient.shutdown().await.unwrap();
        };
        let read = tokio::io::AsyncReadExt::read_to_end(&mut from_server, &mut answer);
        let ((), (), read) = tokio::join!(sent, answered, read);
        read.unwrap();
        assert_eq!(answer, b"no");
    }

    #[tokio::test]
    async fn a_slow_reader_is_served_to_the_end() {
        let (writer, mut reader) = tokio::io::duplex(64);
        let mut patient = Patient::new(writer, Duration::from_secs(5));
        let taken = async {
            let mut bytes = [0; 100];
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_millis(2)).await;
                tokio::io::AsyncReadExt::read_exact(&mut reader, &mut bytes).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(patient.write_all(&[0; 1000]), taken);
        written.unwrap();
    }
}
