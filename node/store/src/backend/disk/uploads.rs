//! Uploads: two files each, the bytes and a note.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use rules::blobs::uploads::UploadId;

use super::arrivals::Arriving;
use super::{Disk, Layout};
use crate::backend::{Arrival, KeptUpload, Uploads};

/// The ending of a note's name.
const NOTE: &str = "about";

/// Whether a file there is a note.
fn is_note(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == NOTE)
}

/// Removes files that belong to no upload, and those of which a crash left one of the two.
pub(super) fn remove_parts(layout: &Layout) -> io::Result<()> {
    for entry in fs::read_dir(layout.uploads())? {
        let path = entry?.path();
        let bytes = if is_note(&path) { path.with_extension("") } else { path.clone() };
        let is_whole = bytes.exists() && bytes.with_extension(NOTE).exists();
        if id(&bytes).is_none() || !is_whole {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn id(path: &Path) -> Option<UploadId> {
    path.file_name()?.to_str()?.parse().ok()
}

impl Uploads for Disk {
    fn begin_upload(&self, id: &UploadId, note: &str) -> io::Result<Box<dyn Arrival>> {
        let path = self.layout.upload(id);
        fs::write(path.with_extension(NOTE), note)?;
        Ok(Box::new(Arriving::create(&self.layout, path)?.staying()))
    }

    fn resume_upload(&self, id: &UploadId) -> io::Result<Box<dyn Arrival>> {
        Ok(Box::new(Arriving::resume(&self.layout, self.layout.upload(id))?.staying()))
    }

    fn forget_upload(&self, id: &UploadId) -> io::Result<()> {
        let path = self.layout.upload(id);
        for file in [path.with_extension(NOTE), path] {
            match fs::remove_file(file) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn uploads(&self) -> io::Result<Vec<KeptUpload>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.layout.uploads())? {
            let path = entry?.path();
            let Some(id) = id(&path) else { continue };
            // it may have ended since
            let (Ok(note), Ok(about)) = (fs::read(path.with_extension(NOTE)), fs::metadata(&path))
            else {
                continue;
            };
            let note = String::from_utf8_lossy(&note).into_owned();
            found.push(KeptUpload { id, note, length: about.len() });
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_crash_left_of_an_upload_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        drop(Disk::open(folder.path()).unwrap());
        let id = "1".repeat(48);
        let uploads = folder.path().join("uploads");
        for (name, text) in [
            (format!("{id}.about"), "a note, and no bytes"),
            (id.replace('1', "2"), "bytes, and no note"),
            ("noise".to_owned(), "x"),
            ("noise.about".to_owned(), "x"),
            (id.replace('1', "3"), "bytes, and a note"),
            (format!("{}.about", id.replace('1', "3")), "the note"),
        ] {
            fs::write(uploads.join(name), text).unwrap();
        }
        let disk = Disk::open(folder.path()).unwrap();
        let left = disk.uploads().unwrap();
        let note = "the note".to_owned();
        let third = id.replace('1', "3").parse().unwrap();
        assert_eq!(left, [KeptUpload { id: third, note, length: 17 }]);
        assert_eq!(fs::read_dir(&uploads).unwrap().count(), 2);
        disk.forget_upload(&third).unwrap();
        assert_eq!(fs::read_dir(&uploads).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn an_upload_that_became_a_blob_leaves_no_file_behind() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        let id = "1".repeat(48).parse().unwrap();
        let arrival = disk.begin_upload(&id, "note").unwrap();
        let digest = rules::words::digest::Digest::sha256(b"");
        arrival.sync().await.unwrap().name(digest).await.unwrap();
        disk.forget_upload(&id).unwrap();
        assert_eq!(fs::read_dir(folder.path().join("uploads")).unwrap().count(), 0);
    }
}
