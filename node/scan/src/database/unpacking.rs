//! The artifact `trivy-db`: one layer, which is an archive of the database and its `metadata.json`.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use crate::archive::compression::{Compression, decompress};
use crate::archive::tar::{Kind, Tar, TarError};

use super::{About, DATABASE, Database, DatabaseError, METADATA};

/// The most that a database may have. trivy's has less than 2 GiB in 2026.
const LARGEST: u64 = 16 << 30;

/// The most that `metadata.json` may have.
const LARGEST_METADATA: u64 = 64 << 10;

/// Unpacks the one layer of the artifact `trivy-db` (tar, gzip) into `folder`, which must be there:
/// `trivy.db` and `metadata.json`, and opens them once. The two files are whole and belong together
/// only when this returns `Ok`: a caller that replaces a database unpacks into a new folder and
/// renames that. The files are fsynced, the folder is not.
pub fn unpack_database(layer: impl Read, folder: &Path) -> Result<About, DatabaseError> {
    let mut archive = Tar::new(decompress(layer, Compression::Gzip));
    let (mut database, mut metadata) = (false, false);
    while let Some(entry) = archive.next().map_err(unreadable)? {
        if entry.kind != Kind::File {
            continue;
        }
        let name = entry.name.strip_prefix(b"./").unwrap_or(&entry.name);
        let (name, largest, seen) = match name {
            name if name == DATABASE.as_bytes() => (DATABASE, LARGEST, &mut database),
            name if name == METADATA.as_bytes() => (METADATA, LARGEST_METADATA, &mut metadata),
            _ => continue,
        };
        if std::mem::replace(seen, true) {
            return Err(DatabaseError::Damaged(format!("{name} is in it twice")));
        }
        if entry.size > largest {
            return Err(DatabaseError::TooLarge(format!(
                "{name} has {} bytes, and may have {largest}",
                entry.size
            )));
        }
        let mut file = File::create(folder.join(name))?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            match archive.read(&mut buffer).map_err(unreadable)? {
                0 => break,
                read => file.write_all(&buffer[..read])?,
            }
        }
        file.sync_all()?;
    }
    archive.finish().map_err(unreadable)?;
    for (seen, name) in [(database, DATABASE), (metadata, METADATA)] {
        if !seen {
            return Err(DatabaseError::Damaged(format!("{name} is not in it")));
        }
    }
    Database::open(&folder.join(DATABASE)).map(|opened| opened.about().clone())
}

/// What the layer's bytes could not be read for. (Errors of the disk come from its files.)
fn unreadable(error: TarError) -> DatabaseError {
    DatabaseError::Damaged(match error {
        TarError::Damaged(what) => what.to_owned(),
        TarError::Read(error) => error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::write::GzEncoder;

    use super::*;
    use crate::vulnerabilities::{Advisory, database_of};

    fn layer() -> Vec<u8> {
        let (bucket, fixed) = ("debian 12", "3.0.12-1");
        let advisory =
            Advisory::of_distribution(bucket, "debian", "openssl", "CVE-1", fixed, (Some(3), None));
        database_of(&[advisory], "2026-11-29T00:00:00Z", "2026-11-30T00:00:00Z")
    }

    #[test]
    fn an_artifact_becomes_a_database() {
        let folder = tempfile::tempdir().expect("a folder");
        let about = unpack_database(&layer()[..], folder.path()).expect("a database");
        assert_eq!(about.updated_at.to_string(), "2026-11-29T00:00:00Z");
        let database = Database::open(&folder.path().join(DATABASE)).expect("a database");
        assert_eq!(database.about(), &about);
        let found = database.advisories("debian 12", "openssl").expect("it is read");
        assert_eq!((found[0].id.as_str(), found[0].source.id.as_str()), ("CVE-1", "debian"));
        assert!(database.advisories("debian 12", "zlib").expect("it is read").is_empty());
        assert!(database.knows("debian 12") && !database.knows("debian 11"));
    }

    #[test]
    fn what_is_no_database_is_refused() {
        let whole = layer();
        let zip = |bytes: &[u8]| {
            let mut zipped = GzEncoder::new(Vec::new(), flate2::Compression::fast());
            zipped.write_all(bytes).expect("memory takes bytes");
            zipped.finish().expect("memory takes bytes")
        };
        for wrong in [b"".to_vec(), b"x".to_vec(), zip(b""), zip(&[0; 1024]), zip(&[1; 2048])] {
            let folder = tempfile::tempdir().expect("a folder");
            assert!(unpack_database(&wrong[..], folder.path()).is_err());
        }
        for cut in [10, whole.len() / 2, whole.len() - 1] {
            let folder = tempfile::tempdir().expect("a folder");
            let refused = unpack_database(&whole[..cut], folder.path());
            assert!(matches!(refused, Err(DatabaseError::Damaged(_))), "{cut}: {refused:?}");
        }
    }
}
