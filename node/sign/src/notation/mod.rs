//! Envelopes of notation.

use rules::words::digest::Digest;

use crate::anchor::Anchors;
use crate::layers::Layer;
use crate::payload::Verdict;

/// The signature of an envelope.
pub(crate) fn envelope(
    _layer: &Layer,
    _bytes: &[u8],
    _subject: &Digest,
    _anchors: &Anchors,
) -> Vec<Verdict> {
    vec![Verdict::unknown(None, None)]
}
