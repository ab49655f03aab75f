//! What a project's administrators decide about its artifacts: which tags never move, what stays.
//!
//! | module | what it holds |
//! |---|---|
//! | [`alone`] | how long an edge that is cut off lets gated images pass |
//! | [`selectors`] | which repositories and tags a rule is about |
//! | [`immutability`] | tags that are never moved or deleted |
//! | [`retention`] | what stays of a repository, and what goes |
//! | [`signatures`] | which images may not be pulled for lack of signatures |
//! | [`keys`] | the keys of a project's metadata |
//! | [`quota`] | how much a project may store |
//! | [`trash`] | how long what was deleted can be restored |
//! | [`vulnerabilities`] | which images may not be pulled for what was found in them |

pub mod alone;
pub mod caching;
pub mod immutability;
pub mod keys;
pub mod quota;
pub mod retention;
pub mod selectors;
pub mod signatures;
pub mod trash;
pub mod vulnerabilities;

/// The maximum number of rules of one kind in a project (`src/controller/immutable` and
/// `handler/retention.go` of Harbor).
pub const MOST_RULES: usize = 15;
