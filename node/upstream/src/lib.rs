//! Other registries, as a client sees them: Docker Hub, GHCR, Quay, Amazon ECR, a plain OCI
//! registry, a Harbor, another Atoll.
//!
//! | module | what it does |
//! |---|---|
//! | [`address`] | where an upstream is, what its repositories are called there, which addresses may be connected to |
//! | [`challenge`] | what an upstream says it wants to see: the `WWW-Authenticate` header |
//! | [`login`] | one cached token per scope, fetched by one request however many ask |
//! | [`ecr`] | Amazon ECR, where an access key is exchanged for a password |
//! | `sigv4` | AWS's signatures |
//! | [`connect`] | connections: names resolved, addresses checked, TLS, a pool |
//! | [`redirect`] | where a `Location` leads |
//! | [`client`] | what is asked of an upstream: which digest a tag has, a manifest, a blob |
//! | [`blob`] | a blob that is arriving |
//! | [`budget`] | when to leave an upstream alone, and how long its answers are good for |
//!
//! What an upstream sends is never rewritten, only checked. Nothing here is remembered over a
//! restart, nothing is retried but what a token's renewal asks for: whoever asks decides whether an
//! older answer will do. Credentials go to the upstream and to the token service it names, and
//! never to the host that a redirect leads to; the secret of an access key goes nowhere.

pub mod address;
pub mod blob;
pub mod budget;
pub mod challenge;
pub mod client;
pub mod connect;
pub mod ecr;
mod headers;
pub mod login;
mod password;
pub mod redirect;
mod sigv4;

use std::sync::Arc;

use rules::words::moment::Moment;

pub use address::{AddressRule, Endpoint};
pub use blob::BlobStream;
pub use client::{
    FetchedManifest, Resolved, Upstream, UpstreamSettings, UpstreamStanding, UpstreamTerms,
};
pub use connect::Trust;
pub use ecr::AccessKey;
pub use login::Credentials;
pub use password::Password;

/// Why an upstream could not give what was asked, by what can be done about it. The [`Upstream`]
/// stays usable after every one of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// It answered, and has no such thing. Worth remembering for a while ([`budget::Answers`]);
    /// asking again soon is a waste.
    #[error("the upstream does not have it")]
    NotFound,
    /// It wants other credentials, or any. Some registries (Docker Hub, GHCR) say this of what does
    /// not exist, too. Nothing will change until an operator or the upstream's owner acts; a
    /// refused login is not tried again for some seconds.
    #[error("the upstream denies access: {0}")]
    Denied(Arc<str>),
    /// It asked for a pause. Until then every question of that kind is answered with this error and
    /// does not reach the upstream.
    #[error("the upstream limits requests, and is not asked for another {} s", seconds_until(*until))]
    Limited {
        /// When it may be asked again.
        until: Moment,
    },
    /// It did not answer, not in time, or not as a registry that is well; a body broke off or stood
    /// still. An older answer may be served; a blob can be asked for again from the byte reached.
    #[error("the upstream cannot be reached: {0}")]
    Unreachable(Arc<str>),
    /// It is at an address that this node must not connect to, or led to one, or from https to
    /// http. Nothing was sent there. Only the operator can change that.
    #[error("the upstream's address is refused: {0}")]
    Refused(Arc<str>),
    /// It answered well, and what it has there is nothing that this mesh can keep: a manifest of
    /// schema 1, of another kind, or one that is too long. That will not change before somebody
    /// there puts something else in its place.
    #[error("what the upstream has there cannot be cached: {0}")]
    Unusable(Arc<str>),
    /// What was asked is malformed, or what came is: wrong digest, wrong length, wrong form.
    /// Nothing of it may be kept.
    #[error("the upstream's answer cannot be used: {0}")]
    Bad(Arc<str>),
}

/// Begun seconds from now on.
fn seconds_until(until: Moment) -> u64 {
    until.since(ground::clock::now()).as_millis().div_ceil(1000) as u64
}

impl UpstreamError {
    /// That it cannot be reached, or could not be asked, and why.
    pub fn unreachable(why: impl std::fmt::Display) -> Self {
        UpstreamError::Unreachable(why.to_string().into())
    }

    /// That what was asked or what came is malformed, and why.
    pub fn bad(why: impl std::fmt::Display) -> Self {
        UpstreamError::Bad(why.to_string().into())
    }
}

#[cfg(test)]
mod tests;
