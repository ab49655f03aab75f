//! The lists of blobs' groups, each in a file.

use std::fs;
use std::io;

use ground::supervise::blocking;
use rules::words::digest::Digest;

use super::{Disk, remove_files};
use crate::backend::{Outboards, Pending};

impl Outboards for Disk {
    fn keep_outboard(&self, digest: Digest, list: Vec<u8>) -> Pending<'_, ()> {
        let path = self.layout.outboard(&digest);
        Box::pin(async move {
            let written = blocking(move || {
                if let Some(folder) = path.parent() {
                    fs::create_dir_all(folder)?;
                }
                fs::write(&path, list)
            });
            written.await.map_err(io::Error::other)?
        })
    }

    fn outboard(&self, digest: Digest) -> Pending<'_, Option<Vec<u8>>> {
        let path = self.layout.outboard(&digest);
        Box::pin(async move {
            let read = blocking(move || match fs::read(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                list => list.map(Some),
            });
            read.await.map_err(io::Error::other)?
        })
    }

    fn drop_outboards(&self, digests: Vec<Digest>) -> Pending<'_, ()> {
        remove_files(digests.iter().map(|digest| self.layout.outboard(digest)).collect())
    }
}
