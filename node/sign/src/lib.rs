//! Signatures of images: who has signed which digest, and the signatures of the mesh itself.
//!
//! Bytes go in, values come out: no task, no network, no file, no clock. The caller brings manifests
//! and blobs, and decides what a signature is worth (`rules::policies::signatures`).
//!
//! 1. [`evidence::read`] recognises a manifest that has signatures, and names the blobs to read.
//! 2. [`verify()`] says who has signed, for each signature in it.
//! 3. [`making`] signs: [`making::classic`] and [`making::bundle`] make what cosign and skopeo accept,
//!    [`making::notation()`] what notation does.
//! 4. [`union()`] joins two manifests of one `.sig` tag, so that no signature is lost.
//!
//! | room | what it holds |
//! |---|---|
//! | `layers` | a manifest, as far as signatures are about it |
//! | `json` | JSON in which no field is written twice; base64; times |
//! | `keys` | public keys, and which signatures each makes |
//! | `certificates` | X.509: what is read of one, chains of notation, timestamps (RFC 3161) |
//! | [`evidence`] | manifests that have signatures |
//! | [`anchor`] | what a project trusts, read once |
//! | `payload` | what is signed: simple signing, in-toto statements in DSSE |
//! | `cosign` | layers of cosign, Sigstore bundles, Fulcio and Rekor |
//! | `notation` | envelopes of notation: JWS and COSE |
//! | [`mod@verify`] | all of them |
//! | [`mod@union`] | two manifests of one tag |
//! | [`making`] | what the mesh signs; cosign's file of a key, and sealed keys |
//!
//! All that is verified was written by strangers. Sizes are checked before bytes are read, bytes
//! against their digest before they are looked at, and signatures before what they are of is parsed.
//! Which algorithm counts is said by the key that is trusted, never by the envelope.

#![forbid(unsafe_code)]

pub mod anchor;
#[cfg(fuzzing)]
pub mod behind;
mod certificates;
mod cosign;
pub mod evidence;
mod json;
mod keys;
mod layers;
pub mod making;
mod notation;
mod payload;
pub mod union;
pub mod verify;

#[cfg(test)]
mod tests;

pub use anchor::{Anchors, BadAnchor};
pub use evidence::{Evidence, Shape, accessory, is_evidence};
pub use union::{Union, has_all, union};
pub use verify::verify;
