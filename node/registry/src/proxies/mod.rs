//! Projects that cache other registries.
//!
//! | module | what it does |
//! |---|---|
//! | [`resolving`] | what a tag or digest means upstream, asked once for the whole mesh |
//! | [`confirming`] | whether the upstream has a blob that is in the mesh for another's sake |
//! | [`mirrors`] | which repository a request means that names another registry |

pub mod confirming;
pub mod mirrors;
pub mod resolving;

use std::time::Duration;

use upstream::UpstreamError;

/// How long an upstream may take before cached content is served. The question continues, so that a
/// slow answer is there for the next client.
const UPSTREAM: Duration = Duration::from_millis(2200);
fn slow() -> UpstreamError {
    UpstreamError::Unreachable("it did not answer in time".into())
}
