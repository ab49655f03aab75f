//! Which held blobs are known to have wrong bytes. Each has an empty file in `damaged` in data_dir, so
//! that a restart does not forget it: clients were given such bytes again until a scrub, a peer or one
//! of them noticed.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rules::words::digest::Digest;

/// The folder of the marks.
const FOLDER: &str = "damaged";

pub(super) struct Damaged {
    folder: PathBuf,
    known: Mutex<HashSet<Digest>>,
}

/// The name of a blob's mark.
fn name(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm().name(), digest.hex())
}

impl Damaged {
    /// The marks in `data_dir` of blobs that are held; others are removed.
    pub(super) fn open(data_dir: &Path, is_held: impl Fn(&Digest) -> bool) -> io::Result<Self> {
        let folder = data_dir.join(FOLDER);
        fs::create_dir_all(&folder)?;
        let mut known = HashSet::new();
        for mark in fs::read_dir(&folder)? {
            let mark = mark?;
            let digest = mark.file_name().to_str().and_then(|name| {
                let (algorithm, hex) = name.split_once('-')?;
                format!("{algorithm}:{hex}").parse::<Digest>().ok()
            });
            match digest.filter(|digest| is_held(digest)) {
                Some(digest) => drop(known.insert(digest)),
                None => fs::remove_file(mark.path())?,
            }
        }
        Ok(Damaged { folder, known: Mutex::new(known) })
    }

    pub(super) fn note(&self, digest: &Digest) {
        if self.known.lock().insert(*digest)
            && let Err(error) = fs::write(self.folder.join(name(digest)), b"")
        {
            tracing::warn!(%digest, %error, "that a blob is damaged will be forgotten at a restart");
        }
    }

    /// It is sound, or not held any more.
    pub(super) fn forget(&self, digest: &Digest) {
        if self.known.lock().remove(digest)
            && let Err(error) = fs::remove_file(self.folder.join(name(digest)))
        {
            tracing::warn!(%digest, %error, "the mark of a damaged blob could not be removed");
        }
    }

    pub(super) fn contains(&self, digest: &Digest) -> bool {
        self.known.lock().contains(digest)
    }

    /// The first `most` in the order of digests.
    pub(super) fn first(&self, most: usize) -> Vec<Digest> {
        let mut all: Vec<Digest> = self.known.lock().iter().copied().collect();
        all.sort_unstable();
        all.truncate(most);
        all
    }

    pub(super) fn count(&self) -> usize {
        self.known.lock().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_damaged_is_known_after_a_restart_as_long_as_it_is_held() {
        let folder = tempfile::tempdir().unwrap();
        let digests = [1_u8, 2, 3].map(|n| Digest::sha256(&[n]));
        let damaged = Damaged::open(folder.path(), |_| true).unwrap();
        digests.iter().for_each(|digest| damaged.note(digest));
        damaged.note(&digests[0]);
        damaged.forget(&digests[1]);
        drop(damaged);
        let damaged = Damaged::open(folder.path(), |digest| *digest != digests[2]).unwrap();
        assert_eq!(digests.map(|digest| damaged.contains(&digest)), [true, false, false]);
        assert_eq!((damaged.first(9), damaged.first(0)), (vec![digests[0]], vec![]));
        damaged.forget(&digests[0]);
        damaged.forget(&digests[0]);
        assert_eq!(fs::read_dir(folder.path().join(FOLDER)).unwrap().count(), 0);
        assert_eq!(damaged.count(), 0);
    }
}
