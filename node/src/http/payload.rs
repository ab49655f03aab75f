//! Bodies of responses.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use store::BlobBody;
use tokio::sync::mpsc;

/// A response's body.
pub enum Payload {
    /// Empty, or bytes in memory.
    Full(Option<Bytes>),
    /// Bytes of a file.
    File(Box<BlobBody>),
    /// Parts of a file, with the bytes between them.
    Parts(Box<Parts>),
    /// Bytes that are made while they are sent.
    Made(Box<Made>),
}

/// A body whose length is not known before its end. An error in it cuts it off.
pub struct Made {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    sent: u64,
    told: Option<Box<dyn FnOnce(u64) + Send + Sync>>,
}

impl Drop for Made {
    fn drop(&mut self) {
        if let Some(told) = self.told.take() {
            told(self.sent);
        }
    }
}

/// A body of several parts, one after another (RFC 9110 section 14.6).
pub struct Parts {
    pieces: VecDeque<Piece>,
    left: u64,
    sent: u64,
    told: Option<Box<dyn FnOnce(u64) + Send + Sync>>,
}

/// One piece of such a body.
pub enum Piece {
    /// Bytes between the parts.
    Between(Bytes),
    /// A part.
    Part(Box<BlobBody>),
}

impl Parts {
    /// The pieces in this order.
    pub fn new(pieces: VecDeque<Piece>) -> Self {
        let length = |piece: &Piece| match piece {
            Piece::Between(bytes) => bytes.len() as u64,
            Piece::Part(body) => body.size_hint().lower(),
        };
        let left = pieces.iter().map(length).sum();
        Parts { pieces, left, sent: 0, told: None }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            let frame = match self.pieces.front_mut() {
                None => return Poll::Ready(None),
                Some(Piece::Between(bytes)) => {
                    Some(Ok(Frame::data(std::mem::take(bytes)))).filter(|frame| !is_empty(frame))
                }
                Some(Piece::Part(body)) => ready!(Pin::new(&mut **body).poll_frame(cx)),
            };
            match frame {
                None => drop(self.pieces.pop_front()),
                Some(frame) => {
                    let length = frame
                        .as_ref()
                        .ok()
                        .and_then(Frame::data_ref)
                        .map_or(0, |bytes| bytes.len() as u64);
                    self.left = self.left.saturating_sub(length);
                    self.sent += length;
                    return Poll::Ready(Some(frame));
                }
            }
        }
    }
}

fn is_empty(frame: &io::Result<Frame<Bytes>>) -> bool {
    frame.as_ref().ok().and_then(Frame::data_ref).is_some_and(Bytes::is_empty)
}

impl Drop for Parts {
    fn drop(&mut self) {
        if let Some(told) = self.told.take() {
            told(self.sent);
        }
    }
}

impl Payload {
    /// An empty body.
    pub fn empty() -> Self {
        Payload::Full(None)
    }

    /// Calls `told` with the number of bytes that were sent when the body is dropped, or at once if
    /// it is in memory.
    pub fn at_end(&mut self, told: impl FnOnce(u64) + Send + Sync + 'static) {
        match self {
            Payload::Full(bytes) => told(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Payload::File(body) => body.at_end(told),
            Payload::Parts(parts) => parts.told = Some(Box::new(told)),
            Payload::Made(made) => made.told = Some(Box::new(told)),
        }
    }

    /// Bytes that come piece by piece.
    pub fn made(pieces: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Payload::Made(Box::new(Made { pieces, sent: 0, told: None }))
    }

    /// Bytes in memory.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Payload::Full(Some(bytes.into()).filter(|b| !b.is_empty()))
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Payload::Full(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Payload::File(body) => Pin::new(&mut **body).poll_frame(cx),
            Payload::Parts(parts) => parts.poll_frame(cx),
            Payload::Made(made) => {
                let piece = ready!(made.pieces.poll_recv(cx));
                let length = piece.as_ref().and_then(|piece| Some(piece.as_ref().ok()?.len()));
                made.sent += length.unwrap_or_default() as u64;
                Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Payload::Full(bytes) => bytes.is_none(),
            Payload::File(body) => body.is_end_stream(),
            Payload::Parts(parts) => parts.left == 0,
            Payload::Made(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Payload::Full(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            Payload::File(body) => body.size_hint(),
            Payload::Parts(parts) => SizeHint::with_exact(parts.left),
            Payload::Made(_) => SizeHint::new(),
        }
    }
}
