//! Projects that cache other registries.
//!
//! | module | what it does |
//! |---|---|
//! | [`resolving`] | resolves tags and digests at the upstream, once for the whole mesh |
//! | [`confirming`] | confirms that the upstream has a blob of another project |
//! | [`mirrors`] | finds the repository for a request that names another registry |

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
