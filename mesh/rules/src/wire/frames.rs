//! Limits for the length of frames.

/// The maximum length of a frame in bytes. A few of the largest manifests fit into one message of
/// the consensus.
pub const LARGEST: usize = 40 << 20;

/// The maximum length in bytes of most messages, and of every frame from a stranger.
pub const SMALL: usize = 64 << 10;

/// The maximum length in bytes of a message with a manifest: the largest one that
/// `uploads.max_manifest` allows, with descriptors of everything it refers to.
pub(super) const MANIFEST: usize = 16 << 20;

/// The number of bytes of a frame that tell its kind: the version, and the two numbers of
/// [`Open`](super::Open) and [`Ask`](super::Ask) or [`Bulk`](super::Bulk).
pub const HEAD: usize = 3;
