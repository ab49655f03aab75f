//! Projects that cache other registries.
//!
//! | module | what it does |
//! |---|---|
//! | [`resolving`] | what a tag or digest means upstream, asked once for the whole mesh |
//! | [`confirming`] | whether the upstream has a blob that is in the mesh for another's sake |
//! | [`mirrors`] | which repository a request means that names another registry |

pub mod confirming;
pub mod mirrors;
pub mod resolving;
