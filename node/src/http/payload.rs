//! What a response carries.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::store::FileBody;

/// A response's body.
pub enum Payload {
    /// Nothing; or bytes in memory.
    Full(Option<Bytes>),
    /// Bytes of a file.
    File(Box<FileBody>),
}

impl Payload {
    /// Nothing.
    pub fn empty() -> Self {
        Payload::Full(None)
    }

    /// Says how many bytes were sent when the body is done with; at once, of one that is in memory.
    pub fn at_end(&mut self, told: impl FnOnce(u64) + Send + Sync + 'static) {
        match self {
            Payload::Full(bytes) => told(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Payload::File(body) => body.at_end(told),
        }
    }

    /// Bytes in memory.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Payload::Full(Some(bytes.into()).filter(|b| !b.is_empty()))
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Payload::Full(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Payload::File(body) => Pin::new(&mut **body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Payload::Full(bytes) => bytes.is_none(),
            Payload::File(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Payload::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Payload::File(body) => body.size_hint(),
        }
    }
}
