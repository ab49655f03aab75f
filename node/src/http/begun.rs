//! A connection whose first bytes were read to see which protocol it speaks. Without TLS nothing
//! else says that: a proxy that speaks HTTP/2 simply begins (h2c with prior knowledge, RFC 9113
//! section 3.3).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// What every HTTP/2 connection begins with (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream that gives the bytes that were read of it once more.
pub(super) struct Begun<S> {
    stream: S,
    first: [u8; PREFACE.len()],
    read: usize,
    given: usize,
}

impl<S: AsyncRead + Unpin> Begun<S> {
    /// Reads until it is certain whether `stream` begins like HTTP/2. Waits for as long as the
    /// client sends nothing. It is an error if it ends without a byte.
    pub(super) async fn read(mut stream: S) -> io::Result<(Self, bool)> {
        let mut first = [0; PREFACE.len()];
        let mut read = 0;
        while read < first.len() && first[..read] == PREFACE[..read] {
            match stream.read(&mut first[read..]).await? {
                0 => break,
                more => read += more,
            }
        }
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let is_http2 = read == first.len() && first == PREFACE;
        Ok((Begun { stream, first, read, given: 0 }, is_http2))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Begun<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.given < this.read {
            let end = this.read.min(this.given + buffer.remaining());
            buffer.put_slice(&this.first[this.given..end]);
            this.given = end;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Begun<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
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

    /// Sends `pieces` one after another; what was found, and what is read afterwards.
    async fn told(pieces: &[&[u8]]) -> (bool, Vec<u8>) {
        let (mut client, server) = tokio::io::duplex(7);
        let send = async {
            for piece in pieces {
                client.write_all(piece).await.unwrap();
            }
            drop(client);
        };
        let read = async {
            let (mut begun, is_http2) = Begun::read(server).await.unwrap();
            let mut all = Vec::new();
            begun.read_to_end(&mut all).await.unwrap();
            (is_http2, all)
        };
        tokio::join!(send, read).1
    }

    #[tokio::test]
    async fn http2_is_told_by_its_preface_however_it_is_cut_and_no_byte_is_lost() {
        let whole = [PREFACE, b"then frames"].concat();
        for cut in 0..PREFACE.len() {
            let (is_http2, all) = told(&[&whole[..cut], &whole[cut..]]).await;
            assert!(is_http2 && all == whole, "cut at {cut}");
            if cut == 0 {
                continue; // ended without a byte
            }
            let (is_http2, all) = told(&[&whole[..cut]]).await;
            assert!(!is_http2 && all == whole[..cut], "ended at {cut}");
        }
        for other in
            [&b"PUT /v2/ HTTP/1.1\r\n\r\n"[..], b"PRI * HTTP/1.1\r\n\r\nand more than it", b"G"]
        {
            let (is_http2, all) = told(&[other]).await;
            assert!(!is_http2 && all == other, "{other:?}");
        }
    }
}
