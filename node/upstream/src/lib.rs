//! A client for other registries: Docker Hub, GHCR, Quay, Amazon ECR, a plain OCI registry, a
//! Harbor, another Atoll.
//!
//! | module | what it does |
//! |---|---|
//! | [`address`] | an upstream's address and its repositories' names; permitted addresses |
//! | [`challenge`] | the `WWW-Authenticate` header, which says what credentials are needed |
//! | [`login`] | one cached token per scope, fetched by one request for all that wait for it |
//! | [`ecr`] | Amazon ECR, where an access key is exchanged for a password |
//! | `sigv4` | AWS's signatures |
//! | [`connect`] | connections: names resolved, addresses checked, TLS, a pool |
//! | [`redirect`] | where a `Location` leads |
//! | `coding` | what bytes are that came compressed though nobody asked |
//! | [`client`] | questions: the digest of a tag, a manifest, a blob |
//! | [`blob`] | a blob that is arriving |
//! | [`directory`] | an LDAP directory |
//! | `kms` | keys in AWS KMS (the feature of this name) |
//! | [`service`] | another service of the operator's, with credentials of its own |
//! | [`web`] | small answers of services that are no registries |
//! | [`budget`] | when to pause requests, and how long answers are used |
//!
//! What an upstream sends is checked, and never rewritten. Nothing is remembered over a restart.
//! Only the renewal of a token and a connection that ended cause a retry: the caller decides
//! whether an older answer is good enough. Credentials are sent to the upstream and to the token
//! service that it names, and never to a host that it redirects to. The secret of an access key is
//! never sent.

pub mod address;
pub mod blob;
pub mod budget;
pub mod challenge;
pub mod client;
mod coding;
pub mod connect;
pub mod directory;
pub mod ecr;
mod headers;
#[cfg(feature = "kms")]
pub mod kms;
pub mod login;
mod password;
pub mod redirect;
pub mod service;
mod sigv4;
pub mod web;

use std::sync::Arc;

use rules::words::moment::Moment;

pub use address::{AddressRule, Endpoint};
pub use blob::BlobStream;
pub use client::{
    FetchedManifest, Resolved, Sample, Upstream, UpstreamSettings, UpstreamStanding, UpstreamTerms,
};
pub use connect::Trust;
pub use ecr::AccessKey;
pub use login::Credentials;
pub use password::Password;
pub use service::{Service, ServiceAnswer, ServiceRequest, ServiceSettings};

/// Why an upstream could not give what was asked for, by what can be done about it. The
/// [`Upstream`] can be used again after every one of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// It answered that it does not have it. This should be remembered for a while
    /// ([`budget::Answers`]), because asking again soon is useless.
    #[error("the upstream does not have it")]
    NotFound,
    /// It wants other credentials, or any. Some registries (Docker Hub, GHCR) also say this for
    /// things that do not exist. Nothing changes until an operator or the upstream's owner acts. A
    /// refused login is not tried again for some seconds.
    #[error("the upstream denies access: {0}")]
    Denied(Arc<str>),
    /// It asked for a pause. Until the pause ends, every question of that kind gets this error
    /// without a request.
    #[error("the upstream limits requests, and is not asked for another {} s", seconds_until(*until))]
    Limited {
        /// When it may be asked again.
        until: Moment,
    },
    /// It did not answer, or not in time, or with an error of its own; or a body broke off or made
    /// no progress. An older answer may be served. A blob can be asked for again from the byte that
    /// was reached.
    #[error("the upstream cannot be reached: {0}")]
    Unreachable(Arc<str>),
    /// It is at an address that this node must not connect to, or it redirected to one, or from
    /// https to http. Nothing was sent there. Only the operator can change this.
    #[error("the upstream's address is refused: {0}")]
    Refused(Arc<str>),
    /// It answered, and its content is something that this mesh cannot store: a manifest of schema
    /// 1, one of another kind, or one that is too long. This does not change until its owner
    /// replaces the content.
    #[error("what the upstream has there cannot be cached: {0}")]
    Unusable(Arc<str>),
    /// The question or the answer is malformed: wrong digest, wrong length, wrong form. Nothing of
    /// it may be stored.
    #[error("the upstream's answer cannot be used: {0}")]
    Bad(Arc<str>),
}

/// The number of seconds from now until `until`, rounded up.
fn seconds_until(until: Moment) -> u64 {
    until.since(ground::clock::now()).as_millis().div_ceil(1000) as u64
}

impl UpstreamError {
    /// The error that it cannot be reached, or could not be asked, with the reason.
    pub fn unreachable(why: impl std::fmt::Display) -> Self {
        UpstreamError::Unreachable(why.to_string().into())
    }

    /// The error that the question or the answer is malformed, with the reason.
    pub fn bad(why: impl std::fmt::Display) -> Self {
        UpstreamError::Bad(why.to_string().into())
    }
}

#[cfg(test)]
mod tests;
