//! Writes files in the folders of other programs. It overwrites only files that this command wrote
//! before.

use std::io::{self, Write};
use std::path::Path;

/// The first line of every file that this command writes and may overwrite.
pub(super) const MARK: &str = "# Written by `atoll mirror`, which writes it anew each time; remove this line and it leaves the file alone.";

/// Prints a file, or with `install` writes it. It is an error if the file exists and was not
/// written by this command; then it is not changed.
pub(super) fn put(path: &Path, contents: &str, install: bool) -> io::Result<()> {
    let whole = format!("{MARK}\n{contents}");
    if !install {
        println!("# {}\n{whole}", path.display());
        return Ok(());
    }
    match std::fs::read_to_string(path) {
        Ok(there) if there.lines().next() != Some(MARK) => {
            let message = format!(
                "{} exists and was not written by this command, so it was not changed. Move it away, or add this to it by hand:\n\n{contents}",
                path.display()
            );
            return Err(io::Error::other(message));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(named(path, &error)),
    }
    replace(path, whole.as_bytes())?;
    println!("written: {}", path.display());
    Ok(())
}

/// Replaces the file at `path` atomically: readers see the old file or the new one. Its permissions
/// stay.
pub(super) fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    place(path, contents, path)
}

/// Saves `contents`, which are those of `original`, at `path`, with the same permissions. If an
/// earlier call has saved a file there, it stays, because it is older.
pub(super) fn keep(path: &Path, contents: &[u8], original: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => place(path, contents, original),
        Err(error) => Err(named(path, &error)),
    }
}

/// Replaces the file at `path` atomically, with the permissions of `like`, if that exists.
fn place(path: &Path, contents: &[u8], like: &Path) -> io::Result<()> {
    let write = || {
        let folder = path.parent().ok_or_else(|| io::Error::other("it is in no folder"))?;
        std::fs::create_dir_all(folder)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let beside = folder.join(format!(".{name}.atoll"));
        let mut file = std::fs::File::create(&beside)?;
        if let Ok(there) = std::fs::metadata(like) {
            file.set_permissions(there.permissions())?;
        }
        file.write_all(contents)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    write().map_err(|error| named(path, &error))
}

/// Copies the CA to where a client looks for the CA of `authority` (`host[:port]`).
pub(super) fn put_authority(
    folder: &Path,
    authority: &str,
    ca: &Path,
    install: bool,
) -> io::Result<()> {
    let path = folder.join(authority).join("ca.crt");
    if !install {
        println!("# {}: a copy of {}", path.display(), ca.display());
        return Ok(());
    }
    let pem = std::fs::read(ca).map_err(|error| named(ca, &error))?;
    match std::fs::read(&path) {
        Ok(there) if there == pem => return Ok(()),
        Ok(_) => {
            let message = format!(
                "{} exists and is another CA, so it was not changed. Move it away first",
                path.display()
            );
            return Err(io::Error::other(message));
        }
        Err(_) => {}
    }
    replace(&path, &pem)?;
    println!("written: {}", path.display());
    Ok(())
}

/// Adds the file's name to an error.
pub(super) fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// A string in double quotes, as TOML reads it back.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_else_wrote_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub/hosts.toml");
        put(&path, "a = 1\n", true).unwrap();
        put(&path, "a = 2\n", true).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{MARK}\na = 2\n"));
        std::fs::write(&path, "mine\n").unwrap();
        let refused = put(&path, "a = 3\n", true).unwrap_err().to_string();
        assert!(refused.contains("a = 3") && refused.contains("hosts.toml"), "{refused}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine\n");
        assert_eq!(
            std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
    }

    #[test]
    fn what_was_there_first_is_kept_as_closed_as_it_was() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let [path, kept] = ["daemon.json", "daemon.json.bak"].map(|name| folder.path().join(name));
        std::fs::write(&path, "first").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        for (before, after) in [("first", "second"), ("second", "third")] {
            keep(&kept, before.as_bytes(), &path).unwrap();
            replace(&path, after.as_bytes()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&kept).unwrap(), "first");
        for path in [&path, &kept] {
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn another_authority_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, "one").unwrap();
        put_authority(folder.path(), "r:5000", &ca, true).unwrap();
        put_authority(folder.path(), "r:5000", &ca, true).unwrap();
        std::fs::write(&ca, "two").unwrap();
        assert!(put_authority(folder.path(), "r:5000", &ca, true).is_err());
        assert_eq!(std::fs::read_to_string(folder.path().join("r:5000/ca.crt")).unwrap(), "one");
    }
}
