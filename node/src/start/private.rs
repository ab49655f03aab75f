//! Makes a node's data readable for its own user only: keys, the ledger with password hashes, blobs
//! of private projects, logs.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::Mode;
use tracing::warn;

/// Removes all permissions of other users from files and folders that this process creates from now
/// on. Call this before anything is written.
pub fn from_now_on() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}

/// Creates `folder`, or makes an existing one private.
///
/// # Errors
/// A sentence for the operator, if the folder cannot be created, or is open to others and belongs
/// to another user. Nothing was changed then.
pub fn folder(folder: &Path) -> io::Result<()> {
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("data_dir {}: {error}", folder.display()))
    };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(named)?;
    let found = fs::metadata(folder).map_err(named)?;
    let mode = found.mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    fs::set_permissions(folder, Permissions::from_mode(mode & 0o700)).map_err(|error| {
        let (folder, owner) = (folder.display(), found.uid());
        let message = format!(
            "data_dir {folder} is open to other users ({mode:o}) and cannot be closed: {error}; make it this process's own (it belongs to user {owner}) with mode 700"
        );
        io::Error::new(error.kind(), message)
    })?;
    warn!(folder = %folder.display(), was = format!("{mode:o}"), "data_dir was open to other users of this machine; it is 700 now");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_made_private_whether_it_was_there_or_not() {
        let top = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        let fresh = top.path().join("a/b");
        folder(&fresh).unwrap();
        assert_eq!(mode(&fresh), 0o700);
        let open = top.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o755)).unwrap();
        folder(&open).unwrap();
        assert_eq!(mode(&open), 0o700);
        fs::write(top.path().join("file"), "").unwrap();
        assert!(folder(&top.path().join("file")).unwrap_err().to_string().contains("data_dir"));
    }
}
