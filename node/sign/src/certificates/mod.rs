//! X.509: what is read of a certificate, chains as notation wants them, paths to an authority, and
//! timestamps.

mod certificate;
pub(crate) mod chain;
pub(crate) mod path;
pub(crate) mod timestamp;

pub(crate) use certificate::Certificate;
