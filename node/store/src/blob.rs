//! Held blobs that are open.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use rules::blobs::holding::Held;

use super::backend::ReadAt;

/// A held blob, open for reading. It can be read to its end, whatever becomes of the blob.
#[derive(Clone)]
pub struct OpenBlob {
    /// Its bytes.
    pub bytes: Arc<dyn ReadAt>,
    /// Its length.
    pub size: u64,
    /// What was recorded when it was stored.
    pub held: Held,
}

impl OpenBlob {
    /// Fills `buffer` from `at` on, or fails. Blocks.
    pub fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        match self.bytes.read_at(buffer, at)? {
            read if read == buffer.len() => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Reads it from the start, wherever others read. Reading blocks.
    pub fn reader(&self) -> BlobReader {
        BlobReader { bytes: self.bytes.clone(), at: 0 }
    }

    /// Makes a file of it for programs that want one, which must not write to it: another name of
    /// the blob's own file, or, where that cannot be, a copy. Blocks.
    pub fn place(&self, to: &Path) -> io::Result<()> {
        if self.bytes.link(to)? {
            return Ok(());
        }
        let mut bytes = io::BufReader::with_capacity(1 << 20, self.reader());
        io::copy(&mut bytes, &mut File::create_new(to)?).map(drop)
    }
}

/// Reads a blob from start to end.
pub struct BlobReader {
    bytes: Arc<dyn ReadAt>,
    at: u64,
}

impl BlobReader {
    /// The number of bytes that were read.
    pub fn position(&self) -> u64 {
        self.at
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.bytes.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}
