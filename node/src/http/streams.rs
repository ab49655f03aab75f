//! The streams of one HTTP/2 connection. A socket shows whether a client reads (see `patience`), but
//! not whether it reads each stream: a stream whose window is shut would hold its file and buffers
//! for as long as the others go on. So each answer's body is watched, and what it holds is given
//! back when its client has taken nothing for too long.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use ground::clock;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use rules::people::streams::{Streams, Verdict};
use rules::words::moment::Moment;
use tokio::sync::Notify;

use super::Payload;

/// The streams of a connection, shared by its requests.
#[derive(Clone)]
pub(super) struct Connection {
    streams: Arc<Mutex<Streams>>,
    bodies: Arc<Mutex<Vec<Weak<Mutex<Held>>>>>,
    /// Told when a request was broken off, or the connection is over.
    broken_off: Arc<Notify>,
}

/// An answer's body, as long as its client takes it.
struct Held {
    payload: Option<Payload>,
    /// When the client was last given something, if it is its turn.
    given: Option<Moment>,
}

/// A request that is open until this is dropped.
pub(super) struct Open {
    connection: Connection,
    answered: bool,
}

/// The body of an answer over HTTP/2.
pub(super) struct Watched {
    held: Arc<Mutex<Held>>,
    _open: Open,
}

impl Connection {
    /// A new one, which may be without a request for `rest`, and may have `most` open.
    pub(super) fn new(rest: Duration, most: usize) -> Self {
        Connection {
            streams: Arc::new(Mutex::new(Streams::new(clock::now(), rest, most))),
            bodies: Arc::default(),
            broken_off: Arc::default(),
        }
    }

    /// A request has begun.
    pub(super) fn begin(&self) -> Open {
        let is_over = {
            let mut streams = self.streams.lock();
            streams.begun();
            streams.is_over()
        };
        if is_over {
            self.broken_off.notify_one();
        }
        Open { connection: self.clone(), answered: false }
    }

    /// Whether the connection is to be ended at once, so that nothing more is to be begun.
    pub(super) fn is_over(&self) -> bool {
        self.streams.lock().is_over()
    }

    /// What is to be done with the connection now.
    pub(super) fn verdict(&self) -> Verdict {
        self.streams.lock().verdict(clock::now())
    }

    /// Completes when a request was broken off since the last call, or the connection is over.
    pub(super) async fn request_broken_off(&self) {
        self.broken_off.notified().await;
    }

    /// Takes the files and buffers of the answers of which their client has taken nothing for
    /// `stall`. Their streams end with an error.
    pub(super) fn give_up_stalled(&self, stall: Duration) {
        let now = clock::now();
        let bodies = std::mem::take(&mut *self.bodies.lock());
        let mut left = Vec::with_capacity(bodies.len());
        for body in bodies {
            let Some(held) = body.upgrade() else { continue };
            let mut held = held.lock();
            match held.given {
                Some(given) if now.since(given) > stall => {
                    let given_up = held.payload.take();
                    drop(held);
                    if given_up.is_some() {
                        metrics::counter!("atoll_clients_stalled_total").increment(1);
                    }
                }
                _ => left.push(body),
            }
        }
        self.bodies.lock().append(&mut left);
    }
}

impl Open {
    /// The answer, whose body keeps the request open.
    pub(super) fn answer(mut self, response: Response<Payload>) -> Response<Watched> {
        self.answered = true;
        let connection = self.connection.clone();
        response.map(|payload| {
            let held = Arc::new(Mutex::new(Held { payload: Some(payload), given: None }));
            connection.bodies.lock().push(Arc::downgrade(&held));
            Watched { held, _open: self }
        })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connection.streams.lock().ended(clock::now(), self.answered);
        if !self.answered {
            self.connection.broken_off.notify_one();
        }
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let mut held = self.held.lock();
        let Some(payload) = &mut held.payload else {
            return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
        };
        let frame = Pin::new(payload).poll_frame(cx);
        held.given = frame.is_ready().then(clock::now);
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.held.lock().payload.as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.held.lock().payload.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}
