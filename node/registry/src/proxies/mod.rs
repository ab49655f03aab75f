//! Projects that cache other registries.
//!
//! | module | what it does |
//! |---|---|
//! | [`listing`] | which tags an upstream's repository has, asked once for the whole mesh |
//! | [`resolving`] | what a tag or digest means upstream, asked once for the whole mesh |
//! | [`confirming`] | whether the upstream has a blob that is in the mesh for another's sake |
//! | [`mirrors`] | which repository a request means that names another registry |

pub mod confirming;
pub mod listing;
pub mod mirrors;
pub mod resolving;

use std::time::Duration;

use upstream::UpstreamError;

/// How long an upstream may take before cached content is served. The question continues, so that a
/// slow answer is there for the next client.
const UPSTREAM: Duration = Duration::from_millis(2200);
/// How long the primary may take; with [`UPSTREAM`] once more after it, a client has its answer
/// within five seconds.
const PRIMARY: Duration = Duration::from_millis(2500);
/// After a failure an upstream is not asked about the same thing for this long.
const RETRY: Duration = Duration::from_secs(5);
/// What an upstream's 401 or 403 means: some registries say it of what does not exist.
const DENIED: &str = "it is not there, or the registry's credential may not see it";

/// How long what upstreams say is good for; see the settings of the same names.
#[derive(Clone, Copy, Debug)]
pub struct ProxyTerms {
    /// How long a resolved tag counts as fresh, and a list of tags.
    pub fresh_for: Duration,
    /// How long a 404 is remembered.
    pub missing_for: Duration,
}

fn slow() -> UpstreamError {
    UpstreamError::Unreachable("it did not answer in time".into())
}
