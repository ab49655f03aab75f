//! Uploads. Their bytes outlive the process, so that a client can go on with an upload after a
//! restart of its node.
//!
//! An upload is its bytes, and a note that says whose they are. Nothing is durable before the
//! upload becomes a blob: after a power failure its bytes may be wrong, which its digest shows.

use std::io;

use ground::supervise::blocking;
use rules::blobs::uploads::UploadId;
use rules::words::digest::Algorithm;
use rules::words::names::{ProjectId, RepositoryName};

use super::backend::KeptUpload;
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

impl Store {
    /// Begins to receive an upload. Its bytes stay, also when the [`Ingest`] is dropped, until it
    /// is sealed or [`Store::forget_upload`] is called.
    pub fn begin_upload(
        &self,
        id: &UploadId,
        repository: &RepositoryName,
        project: ProjectId,
        algorithm: Algorithm,
    ) -> Result<Ingest, StoreError> {
        let note = format!("{} {repository} {}\n", algorithm.name(), project.0);
        let arrival = self.backend.begin_upload(id, &note)?;
        Ok(Ingest::new(arrival, algorithm, self.room.clone()))
    }

    /// Goes on with an upload of before a restart. All of it is read and hashed first. Nothing else
    /// may have it open.
    pub async fn reopen_upload(&self, rested: &Rested) -> Result<Ingest, StoreError> {
        let (id, algorithm) = (rested.id, rested.algorithm);
        let (backend, room) = (self.backend.clone(), self.room.clone());
        let reopened =
            blocking(move || Ingest::resume(backend.resume_upload(&id)?, algorithm, room));
        Ok(reopened.await.map_err(io::Error::other)??)
    }

    /// Removes what is left of an upload.
    pub fn forget_upload(&self, id: &UploadId) -> Result<(), StoreError> {
        Ok(self.backend.forget_upload(id)?)
    }

    /// The uploads that were open when this node was stopped. Those whose notes cannot be read are
    /// removed. Call this before the first [`Store::begin_upload`].
    pub fn rested_uploads(&self) -> Result<Vec<Rested>, StoreError> {
        let mut found = Vec::new();
        for upload in self.backend.uploads()? {
            match read(&upload) {
                Some(rested) => found.push(rested),
                None => self.forget_upload(&upload.id)?,
            }
        }
        Ok(found)
    }
}

/// What the note of an upload says; `None` if a crash left only a part of it.
fn read(upload: &KeptUpload) -> Option<Rested> {
    let mut words = upload.note.strip_suffix('\n')?.split(' ');
    let (algorithm, repository) = (words.next()?, words.next()?.parse().ok()?);
    let project = match words.next() {
        Some(number) => Some(ProjectId(number.parse().ok()?)),
        None => None,
    };
    let algorithm = [Algorithm::Sha256, Algorithm::Sha512]
        .into_iter()
        .find(|known| known.name() == algorithm)?;
    Some(Rested { id: upload.id, repository, project, algorithm, written: upload.length })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::Rig;
    use bytes::Bytes;
    use rules::words::digest::Digest;
    use rules::words::names::NodeId;

    #[tokio::test]
    async fn an_upload_goes_on_after_a_restart_and_leaves_nothing_behind() {
        for rig in Rig::each() {
            let repository: RepositoryName = "demo/a".parse().unwrap();
            for (number, algorithm) in
                [Algorithm::Sha256, Algorithm::Sha512].into_iter().enumerate()
            {
                let [id, other] =
                    [1, 2].map(|random| UploadId::new(random + 10 * number as u128, NodeId(7)));
                let bytes = vec![7u8; 300_000];
                let store = rig.store(None);
                let project = ProjectId(7);
                let ingest = store.begin_upload(&id, &repository, project, algorithm).unwrap();
                let first = Bytes::copy_from_slice(&bytes[..170_000]);
                drop(ingest.write_all(vec![first]).await.unwrap());
                // as a build wrote it that did not note the project
                let note = format!("{} {repository}\n", algorithm.name());
                drop(store.backend.begin_upload(&other, &note).unwrap());
                drop(store);

                let store = rig.store(None);
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
                let grant = Some((&repository, std::time::Duration::from_secs(60)));
                assert_eq!(store.seal(ingest, digest, grant).await.unwrap().size, 300_000);
                store.forget_upload(&id).unwrap();
                store.forget_upload(&other).unwrap();
                assert_eq!(store.rested_uploads().unwrap(), []);
            }
        }
    }

    #[tokio::test]
    async fn an_upload_whose_note_is_cut_off_is_removed() {
        for rig in Rig::each() {
            let store = rig.store(None);
            let notes =
                ["", "sha256", "sha256 de", "sha256 demo/a", "md5 demo/a 7\n", "sha256 / 7\n"];
            for (number, note) in notes.into_iter().enumerate() {
                let id = UploadId::new(number as u128, NodeId(7));
                drop(store.backend.begin_upload(&id, note).unwrap());
            }
            assert_eq!(store.rested_uploads().unwrap(), []);
            assert_eq!(store.backend.uploads().unwrap(), []);
        }
    }
}
