//! How long frames may be.

/// The longest frame, in bytes: a few of the largest manifests in one message of the consensus.
pub const LARGEST: usize = 40 << 20;

/// The longest frame that most messages fit into, and the longest that is taken from a stranger, in
/// bytes.
pub const SMALL: usize = 64 << 10;

/// A manifest of the largest size that `uploads.max_manifest` allows, with the descriptors of all
/// that it refers to.
pub(super) const MANIFEST: usize = 16 << 20;

/// So many bytes of a frame tell what it is for: the version, and the two numbers of
/// [`Open`](super::Open) and [`Ask`](super::Ask) or [`Bulk`](super::Bulk).
pub const HEAD: usize = 3;
