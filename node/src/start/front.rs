//! The first that a request meets. While the node opens its files, it says so; after that it passes
//! every request on.

use std::sync::OnceLock;

use ground::opening::Opening;
use http::{Response, StatusCode};
use hyper::body::Incoming;

use super::serving::Serving;
use crate::http::errors::Code;
use crate::http::route::Route;
use crate::http::{Failure, Payload};

/// Answers requests from the moment at which the port is bound.
pub(super) struct Front {
    opening: Opening,
    serving: OnceLock<Serving>,
}

impl Front {
    /// Says what `opening` says until [`Front::open`].
    pub(super) fn new(opening: Opening) -> Self {
        Front { opening, serving: OnceLock::new() }
    }

    /// Passes requests on from now on. Call this once.
    pub(super) fn open(&self, serving: Serving) {
        let _ = self.serving.set(serving);
    }

    /// Answers one request.
    pub(super) async fn answer(&self, request: hyper::Request<Incoming>) -> Response<Payload> {
        match self.serving.get() {
            Some(serving) => serving.answer(request).await,
            None => self.not_yet(request.uri().path()),
        }
    }

    /// The process is alive, so it should not be killed for how long it takes. It is not ready, and
    /// other requests are to come again. What they bring is not read.
    fn not_yet(&self, path: &str) -> Response<Payload> {
        let route = Route::parse(path, false, |_| Err(Failure::new(Code::NameUnknown, "")));
        let (status, why) = match route {
            Ok(Route::Health) => (StatusCode::OK, "alive"),
            Ok(Route::Ready) => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
            _ => {
                let text = format!("this node is starting: {}; try again", self.opening);
                return Failure::new(Code::Unavailable, text).closing().response();
            }
        };
        let text = format!("{why}: this node is starting: {}\n", self.opening);
        let mut response = Response::new(Payload::full(text));
        *response.status_mut() = status;
        response
    }
}
