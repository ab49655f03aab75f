//! Bytes in files of a local disk.
//!
//! | in data_dir | what |
//! |---|---|
//! | `blobs/ALGORITHM/xx/HEX` | a blob; `xx` are the first two digits of `HEX` |
//! | `arriving/RANDOM` | bytes that arrive; emptied when the disk is opened |
//! | `uploads/ID`, `uploads/ID.about` | the bytes of an upload, and its note |
//! | `outboards/ALGORITHM/xx/HEX` | the list of a blob's groups |
//!
//! A blob gets its name so: fdatasync of the file, rename, fsync of the folder. A removal is not
//! fsynced, nor are uploads and lists.

mod arrivals;
mod outboards;
mod uploads;
mod writeback;

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ground::supervise::{at_length, blocking};
use rules::blobs::uploads::UploadId;
use rules::words::digest::{Algorithm, Digest};
use rustix::fs::{AtFlags, CWD};
use rustix::io::ReadWriteFlags;

use super::{Blobs, Opened, Pending, ReadAt};

const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

/// The files of one data_dir.
pub struct Disk {
    layout: Layout,
}

/// Where each file is.
#[derive(Clone)]
struct Layout(Arc<Path>);

impl Layout {
    fn in_two_levels(&self, kind: &str, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.0.join(kind).join(digest.algorithm().name()).join(&hex[..2]).join(hex)
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.in_two_levels("blobs", digest)
    }

    fn blobs(&self, algorithm: Algorithm) -> PathBuf {
        self.0.join("blobs").join(algorithm.name())
    }

    fn outboard(&self, digest: &Digest) -> PathBuf {
        self.in_two_levels("outboards", digest)
    }

    fn arriving(&self) -> PathBuf {
        self.0.join("arriving")
    }

    fn uploads(&self) -> PathBuf {
        self.0.join("uploads")
    }

    fn upload(&self, id: &UploadId) -> PathBuf {
        self.uploads().join(id.to_string())
    }
}

impl Disk {
    /// Opens the files in `data_dir`, and removes what a crash left of arrivals and uploads.
    pub fn open(data_dir: &Path) -> io::Result<Self> {
        let layout = Layout(data_dir.into());
        for algorithm in ALGORITHMS {
            fs::create_dir_all(layout.blobs(algorithm))?;
        }
        let arriving = layout.arriving();
        if arriving.exists() {
            fs::remove_dir_all(&arriving)?;
        }
        fs::create_dir_all(&arriving)?;
        fs::create_dir_all(layout.uploads())?;
        uploads::remove_parts(&layout)?;
        Ok(Disk { layout })
    }
}

/// Removes files, on a thread that may block. Tries all of them, and returns the first error.
fn remove_files(paths: Vec<PathBuf>) -> Pending<'static, ()> {
    Box::pin(async move {
        let removed = blocking(move || {
            let mut removed = Ok(());
            for path in paths {
                match fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        removed = removed.and(Err(error));
                    }
                    _ => {}
                }
            }
            removed
        });
        removed.await.map_err(io::Error::other)?
    })
}

impl Blobs for Disk {
    // in place: a thread would cost a small pull more than the two system calls
    fn open(&self, digest: Digest) -> Pending<'_, Option<Opened>> {
        Box::pin(async move {
            match File::open(self.layout.blob(&digest)) {
                Ok(file) => {
                    let length = file.metadata()?.len();
                    Ok(Some(Opened { bytes: Arc::new(file), length }))
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    fn lengths(&self, digests: Vec<Digest>) -> Pending<'_, Vec<Option<u64>>> {
        Box::pin(async move {
            let length =
                |digest| fs::metadata(self.layout.blob(digest)).ok().map(|about| about.len());
            Ok(match &digests[..] {
                [one] => vec![length(one)],
                many => at_length(|| many.iter().map(length).collect()),
            })
        })
    }

    fn list(&self, after: Option<Digest>, most: usize) -> Pending<'_, Vec<(Digest, u64)>> {
        let layout = self.layout.clone();
        Box::pin(async move {
            blocking(move || list(&layout, after, most)).await.map_err(io::Error::other)?
        })
    }

    fn remove(&self, digests: Vec<Digest>) -> Pending<'_, ()> {
        remove_files(digests.iter().map(|digest| self.layout.blob(digest)).collect())
    }
}

/// The names in a folder, sorted; none if it is gone.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

fn list(layout: &Layout, after: Option<Digest>, most: usize) -> io::Result<Vec<(Digest, u64)>> {
    let mut found = Vec::new();
    let begun = after.map(|after| (after.algorithm(), after.hex()));
    for algorithm in ALGORITHMS {
        let folders = names(&layout.blobs(algorithm))?;
        // one folder after another, so that a page costs what is in a few of them
        let is_ahead = |folder: &str| match &begun {
            Some((of, hex)) => (algorithm, folder) >= (*of, &hex[..2]),
            None => true,
        };
        for folder in folders.iter().filter(|name| name.len() == 2 && is_ahead(name)) {
            for name in names(&layout.blobs(algorithm).join(folder))? {
                let digest = format!("{}:{name}", algorithm.name()).parse::<Digest>();
                let Ok(digest) = digest else { continue };
                if after.is_some_and(|after| digest <= after) || !name.starts_with(folder) {
                    continue;
                }
                if found.len() == most {
                    return Ok(found);
                }
                match fs::metadata(layout.blob(&digest)) {
                    Ok(about) => found.push((digest, about.len())),
                    // it was removed since
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(found)
}

impl ReadAt for File {
    /// From the page cache.
    fn read_ready(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let slices = &mut [io::IoSliceMut::new(buffer)];
        // any error: not in the page cache, a file system without RWF_NOWAIT, or a bad disk
        rustix::io::preadv2(self, slices, at, ReadWriteFlags::NOWAIT)
            .map_err(|_| io::ErrorKind::WouldBlock.into())
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            match FileExt::read_at(self, &mut buffer[read..], at + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    /// A hard link, to what is open, whatever became of its name. None on another disk.
    fn link(&self, place: &Path) -> io::Result<bool> {
        let from = format!("/proc/self/fd/{}", self.as_raw_fd());
        match rustix::fs::linkat(CWD, &from, CWD, place, AtFlags::SYMLINK_FOLLOW) {
            Err(rustix::io::Errno::XDEV) => Ok(false),
            linked => Ok(linked.map(|()| true)?),
        }
    }
}
