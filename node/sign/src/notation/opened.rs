//! What both envelopes have.

use rules::words::moment::Timestamp;

use crate::keys::Algorithm;

pub(super) const SIGNING_SCHEME: &str = "io.cncf.notary.signingScheme";
pub(super) const SIGNING_TIME: &str = "io.cncf.notary.signingTime";
pub(super) const EXPIRY: &str = "io.cncf.notary.expiry";
pub(super) const TIMESTAMP: &str = "io.cncf.notary.timestampSignature";

/// An envelope that was taken apart. Nothing of it is verified.
pub(super) struct Opened {
    /// The signed bytes.
    pub(super) signed: Vec<u8>,
    pub(super) signature: Vec<u8>,
    /// Certificates in DER, the signer's first.
    pub(super) chain: Vec<Vec<u8>>,
    /// A timestamp of the signature.
    pub(super) timestamp: Option<Vec<u8>>,
    pub(super) payload: Vec<u8>,
}

/// What the signed headers say.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) algorithm: Algorithm,
    pub(super) content_type: String,
    pub(super) scheme: String,
    /// The headers that must be understood.
    pub(super) critical: Vec<String>,
    pub(super) signed: Timestamp,
    pub(super) expiry: Option<Timestamp>,
}
