//! Uploads on disk. Their bytes outlive the process, so that a client can go on with an upload after
//! a restart of its node.
//!
//! An upload is two files: its bytes, and a note that says whose they are. Nothing is fsynced before
//! the upload becomes a blob: after a power failure its bytes may be wrong, which its digest shows.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use ground::supervise::blocking;
use rules::blobs::uploads::UploadId;
use rules::words::digest::Algorithm;
use rules::words::names::{ProjectId, RepositoryName};

use super::ingest::Ingest;
use super::{Store, StoreError};

/// An upload that this node received before it was restarted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rested {
    /// Its id.
    pub id: UploadId,
    /// The repository in which it will be granted.
    pub repository: RepositoryName,
    /// The project in which it was begun; `None` if an earlier build has begun it.
    pub project: Option<ProjectId>,
    /// The algorithm that its client announced.
    pub algorithm: Algorithm,
    /// The number of its bytes.
    pub written: u64,
}

/// The ending of a note's name.
const NOTE: &str = "about";

/// Whether a file there is a note about an upload.
pub(super) fn is_note(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == NOTE)
}

pub(super) fn folder(data: &Path) -> PathBuf {
    data.join("uploads")
}

impl Store {
    fn upload_path(&self, id: &UploadId) -> PathBuf {
        folder(&self.folder).join(id.to_string())
    }

    /// Begins to receive an upload. Its bytes stay, also when the [`Ingest`] is dropped, until it
    /// is sealed or [`Store::forget_upload`] is called.
    pub fn begin_upload(
        &self,
        id: &UploadId,
        repository: &RepositoryName,
        project: ProjectId,
        algorithm: Algorithm,
    ) -> Result<Ingest, StoreError> {
        let path = self.upload_path(id);
        let note = format!("{} {repository} {}\n", algorithm.name(), project.0);
        fs::write(path.with_extension(NOTE), note)?;
        Ok(Ingest::create(path, algorithm, self.room.clone())?.kept())
    }

    /// Goes on with an upload of before a restart. All of it is read and hashed first. Nothing else
    /// may have it open.
    pub async fn reopen_upload(&self, rested: &Rested) -> Result<Ingest, StoreError> {
        let (path, algorithm, room) =
            (self.upload_path(&rested.id), rested.algorithm, self.room.clone());
        let reopened = blocking(move || Ingest::reopen(path, algorithm, room));
        Ok(reopened.await.map_err(io::Error::other)??.kept())
    }

    /// Removes what is left of an upload.
    pub fn forget_upload(&self, id: &UploadId) -> Result<(), StoreError> {
        let path = self.upload_path(id);
        for file in [path.with_extension(NOTE), path] {
            match fs::remove_file(file) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// The uploads that were open when this node was stopped. Files that belong to none are removed.
    /// Call this before the first [`Store::begin_upload`].
    pub fn rested_uploads(&self) -> Result<Vec<Rested>, StoreError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder(&self.folder))? {
            let path = entry?.path();
            if is_note(&path) {
                continue;
            }
            match read(&path) {
                Some(rested) => found.push(rested),
                None => fs::remove_file(&path)?,
            }
        }
        for entry in fs::read_dir(folder(&self.folder))? {
            let path = entry?.path();
            if path.extension().is_some_and(|ending| ending == NOTE)
                && !path.with_extension("").exists()
            {
                fs::remove_file(&path)?;
            }
        }
        Ok(found)
    }
}

/// What the files of an upload say; `None` if a crash left only a part of it.
fn read(path: &Path) -> Option<Rested> {
    let id: UploadId = path.file_name()?.to_str()?.parse().ok()?;
    let note = fs::read_to_string(path.with_extension(NOTE)).ok()?;
    let mut words = note.strip_suffix('\n')?.split(' ');
    let (algorithm, repository) = (words.next()?, words.next()?);
    let project = match words.next() {
        Some(number) => Some(ProjectId(number.parse().ok()?)),
        None => None,
    };
    let algorithm = [Algorithm::Sha256, Algorithm::Sha512]
        .into_iter()
        .find(|known| known.name() == algorithm)?;
    let written = File::open(path).ok()?.metadata().ok()?.len();
    Some(Rested { id, repository: repository.parse().ok()?, project, algorithm, written })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use ground::opening::Opening;
    use rules::words::digest::Digest;
    use rules::words::names::NodeId;

    fn names(folder: &Path) -> usize {
        fs::read_dir(folder.join("uploads")).unwrap().count()
    }

    #[tokio::test]
    async fn an_upload_goes_on_after_a_restart_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let [id, other] = [1, 2].map(|random| UploadId::new(random, NodeId(7)));
        let repository: RepositoryName = "demo/a".parse().unwrap();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let bytes = vec![7u8; 300_000];
            let store = Store::open(folder.path(), None, &Opening::default()).unwrap();
            let project = ProjectId(7);
            let ingest = store.begin_upload(&id, &repository, project, algorithm).unwrap();
            let first = Bytes::copy_from_slice(&bytes[..170_000]);
            drop(ingest.write_all(vec![first]).await.unwrap());
            drop(store.begin_upload(&other, &repository, project, algorithm).unwrap());
            // as a build wrote it that did not note the project
            let note = folder.path().join(format!("uploads/{other}.about"));
            fs::write(note, format!("{} {repository}\n", algorithm.name())).unwrap();
            drop(store);

            let store = Store::open(folder.path(), None, &Opening::default()).unwrap();
            let mut rested = store.rested_uploads().unwrap();
            rested.sort_by_key(|upload| upload.id);
            let of = |id, project, written| Rested {
                id,
                repository: repository.clone(),
                project,
                algorithm,
                written,
            };
            assert_eq!(rested, [of(id, Some(project), 170_000), of(other, None, 0)]);
            let ingest = store.reopen_upload(&rested[0]).await.unwrap();
            assert_eq!(ingest.written(), 170_000);
            let rest = Bytes::copy_from_slice(&bytes[170_000..]);
            let ingest = ingest.write_all(vec![rest]).await.unwrap();
            let digest = Digest::of(algorithm, &bytes);
            let held =
                store.seal(ingest, digest, Some((&repository, std::time::Duration::from_secs(60))));
            assert_eq!(held.await.unwrap().size, 300_000);
            store.forget_upload(&id).unwrap();
            store.forget_upload(&other).unwrap();
            assert_eq!(names(folder.path()), 0);
        }
    }

    #[test]
    fn what_a_crash_left_of_an_upload_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), None, &Opening::default()).unwrap();
        let id = UploadId::new(1, NodeId(7)).to_string();
        let uploads = folder.path().join("uploads");
        for (name, text) in [
            (format!("{id}.about"), "sha256 demo/a\n"), // and no bytes
            (id.replace('1', "2"), "bytes, and no note"),
            ("noise".to_owned(), "x"),
            (id.replace('1', "3"), "bytes, and half a note"),
            (format!("{}.about", id.replace('1', "3")), "sha256 de"),
        ] {
            fs::write(uploads.join(name), text).unwrap();
        }
        assert_eq!(store.rested_uploads().unwrap(), []);
        assert_eq!(names(folder.path()), 0);
    }
}
