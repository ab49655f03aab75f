//! How artifacts are named on the command line.

use std::io;

/// A repository and a reference in it.
pub(super) fn named(artifact: &str) -> io::Result<(&str, &str)> {
    let parts = artifact.split_once('@').or_else(|| {
        // a colon before a slash would be a port
        artifact.rsplit_once(':').filter(|(_, tag)| !tag.contains('/'))
    });
    parts.ok_or_else(|| {
        io::Error::other(format!("{artifact} is not PROJECT/NAME:TAG or PROJECT/NAME@DIGEST"))
    })
}
