//! How each ecosystem orders versions and writes ranges of them.
//!
//! The rules are those of the libraries that trivy uses, so that both say the same about one
//! database. What cannot be read as a version satisfies nothing.
//!
//! | module | whose versions |
//! |---|---|
//! | [`deb`], [`rpm`], [`apk`] | distributions' packages |
//! | [`plain`] | Go's modules and Rust's crates |
//! | [`npm`], [`pep440`], [`maven`] | npm's, Python's and Java's packages |
//! | [`ranges`] | how ranges are written |

pub(crate) mod apk;
pub(crate) mod deb;
pub(crate) mod maven;
pub(crate) mod npm;
pub(crate) mod pep440;
pub(crate) mod plain;
pub(crate) mod ranges;
pub(crate) mod rpm;
