//! What is read only behind a signature, for fuzz targets: none of them can make one of each key.

use rules::words::digest::Digest;

use crate::certificates::{Certificate, chain, timestamp};
use crate::payload::{dsse, simple, statement};
use crate::{cosign, notation};

/// Payloads and what is beside them in cosign's forms.
pub fn cosign(bytes: &[u8], subject: &Digest) {
    let _ = (simple::read(bytes, subject), statement::read(bytes, subject));
    if let Ok(envelope) = serde_json::from_slice::<dsse::Envelope>(bytes) {
        let _ = envelope.open();
    }
    cosign::read(bytes);
}

/// The payload and the signed headers of an envelope of notation.
pub fn notation(media_type: &str, bytes: &[u8], subject: &Digest) {
    notation::read_all(media_type, bytes, subject);
}

/// Certificates and timestamps.
pub fn certificates(bytes: &[u8]) {
    let _ = (Certificate::read(bytes), chain::Chain::read(&[bytes.to_vec()]));
    let _ = timestamp::verify(bytes, b"signature", &[]);
}
