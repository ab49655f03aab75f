//! TLS records that grow with the connection. A client can read nothing of a record before its last
//! byte has come, and a full record (16 KiB) is more than a fresh TCP connection may have in
//! flight. Without this, far clients would wait one more round trip for the first byte.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ground::clock;
use rules::words::moment::Moment;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The size of a small record: three packets on most paths.
const SMALL: usize = 4 << 10;
/// The number of bytes that are sent in small records, until the connection may have more in flight
/// than a full record.
const BEGINNING: usize = 64 << 10;
/// After this time without a write a connection counts as fresh, because TCP starts slowly again.
const IDLE: Duration = Duration::from_secs(1);

/// A TLS stream that writes small records first.
pub(super) struct SmallFirst<S> {
    stream: S,
    small: usize,
    written: Moment,
}

impl<S> SmallFirst<S> {
    pub(super) fn new(stream: S) -> Self {
        SmallFirst { stream, small: BEGINNING, written: clock::now() }
    }

    /// The maximum size of the next record; `None` if there is no limit.
    fn limit(&mut self) -> Option<usize> {
        let now = clock::now();
        if now.since(self.written) > IDLE {
            self.small = BEGINNING;
        }
        self.written = now;
        (self.small > 0).then_some(SMALL)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for SmallFirst<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for SmallFirst<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let limit = self.limit().unwrap_or(bytes.len());
        let written =
            ready!(Pin::new(&mut self.stream).poll_write(cx, &bytes[..bytes.len().min(limit)]))?;
        self.small = self.small.saturating_sub(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.limit().is_none() {
            return Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        }
        let first = slices.iter().find(|slice| !slice.is_empty());
        self.poll_write(cx, first.map_or(&[], |slice| slice))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    /// Accepts everything, and records the size of each write.
    struct Sizes(Vec<usize>);

    impl AsyncWrite for Sizes {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.0.push(bytes.len());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn the_first_records_are_small_and_the_later_ones_are_not() {
        let mut stream = SmallFirst::new(Sizes(Vec::new()));
        stream.write_all(&[0; 300]).await.unwrap();
        stream.write_all(&vec![0; 200 << 10]).await.unwrap();
        let sizes = &stream.stream.0;
        let small = sizes.iter().filter(|size| **size <= SMALL).sum::<usize>();
        assert!((BEGINNING..BEGINNING + SMALL).contains(&small), "{sizes:?}");
        assert_eq!((sizes[0], sizes[1]), (300, SMALL));
        assert_eq!(sizes.iter().sum::<usize>(), 300 + (200 << 10));
        assert_eq!(
            *sizes.last().unwrap(),
            300 + (200 << 10) - small,
            "and what is left goes as it came"
        );
        // after a pause the connection counts as fresh
        stream.written = Moment::from_micros(0);
        stream.stream.0.clear();
        stream.write_all(&vec![0; 2 * SMALL]).await.unwrap();
        assert_eq!(stream.stream.0, [SMALL; 2]);
    }
}
