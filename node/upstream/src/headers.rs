//! Headers that several questions send or read.

use std::time::Duration;

use ground::clock;
use http::{HeaderMap, header};

use super::budget::retry_after;

/// The name of this client.
pub(super) const USER_AGENT: &str = concat!("atoll/", env!("CARGO_PKG_VERSION"));

/// A header, if it is present and text.
pub(super) fn text(headers: &HeaderMap, name: impl header::AsHeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// How long `Retry-After` asks to wait.
pub(super) fn wait_of(headers: &HeaderMap) -> Option<Duration> {
    retry_after(
        text(headers, header::RETRY_AFTER)?,
        text(headers, header::DATE),
        clock::timestamp(),
    )
}
