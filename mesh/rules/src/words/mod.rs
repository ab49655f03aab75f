//! Values that are parsed once and are valid from then on.
//!
//! | module | what it holds |
//! |---|---|
//! | [`digest`], [`names`] | names of bytes, and of everything else |
//! | [`lookalikes`] | names that people take for one another |
//! | [`secret`] | passwords, tokens and keys, which are not printed |
//! | [`moment`] | monotonic moments, wall-clock timestamps |
//! | [`network`] | networks of IP addresses, and the client behind a proxy |
//! | [`roles`] | the words of permissions, and the roles in a project |
//! | [`manifest`], [`platform`] | what a manifest refers to; the platforms of an index |
//! | [`image`] | the layers of an image, in their order |
//! | [`fallback`] | tags that say by their names what their manifests are about |
//! | [`range`] | which bytes of a blob a client wants |
//! | [`query`] | what a client wants of a list: conditions and order |

pub mod digest;
pub mod fallback;
pub mod image;
pub mod lookalikes;
pub mod manifest;
pub mod moment;
pub mod names;
pub mod network;
pub mod platform;
pub mod query;
pub mod range;
pub mod roles;
pub mod secret;
