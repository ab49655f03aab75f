//! The order of streams to a peer: the more urgent ones go first when they have to wait for the
//! link.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rules::blobs::pacing::{self, Class};

use ground::clock;

/// How long a stream that is held back waits before it asks again.
const AGAIN: Duration = Duration::from_millis(5);

/// The blob streams to one peer.
#[derive(Clone, Debug, Default)]
pub struct Line(Arc<Mutex<pacing::Line>>);

impl Line {
    /// Writes a piece of a stream of this class, when the line lets it.
    pub(crate) async fn write<T>(&self, class: Class, piece: impl Future<Output = T>) -> T {
        while !self.0.lock().may_send(clock::now(), class) {
            tokio::time::sleep(AGAIN).await;
        }
        let mut piece = pin!(piece);
        match futures::poll!(&mut piece) {
            std::task::Poll::Ready(written) => written,
            std::task::Poll::Pending => {
                let _waiting = Waiting::enter(self, class);
                piece.await
            }
        }
    }
}

/// A stream that waits for the link, until this is dropped.
struct Waiting<'a> {
    line: &'a Line,
    class: Class,
}

impl<'a> Waiting<'a> {
    fn enter(line: &'a Line, class: Class) -> Self {
        line.0.lock().enter(class);
        Waiting { line, class }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.line.0.lock().leave(clock::now(), self.class);
    }
}
