//! The file of a snapshot: a mark, the description, the records as pairs of blocks, and the hash of
//! all that.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use rules::words::digest::{Algorithm, Hasher};

use super::database::{decode, other};
use super::types::SnapshotMeta;

/// The beginning of the file.
pub(super) const MAGIC: &[u8; 8] = b"atolls1\n";

/// Reads the description in a snapshot's file.
pub(super) fn snapshot_meta(file: &mut File) -> io::Result<SnapshotMeta> {
    let mut left = file.metadata()?.len();
    let mut reader = BufReader::new(file);
    reader.read_exact(&mut [0; MAGIC.len()])?;
    decode(&read_block(&mut reader, &mut left)?)
}

/// The length of the hash at the end of a snapshot's file. It is the SHA-256 of everything before
/// it.
pub(super) const HASH_BYTES: u64 = 32;

/// Hashes what is written through it, and writes the hash at the end.
pub(super) struct Hashed<W> {
    inner: W,
    hasher: Hasher,
}

impl<W: Write> Hashed<W> {
    pub(super) fn new(inner: W) -> Self {
        Hashed { inner, hasher: Hasher::new(Algorithm::Sha256) }
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.inner.write_all(self.hasher.finish().as_bytes())?;
        Ok(self.inner)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

pub(super) fn write_block(file: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(other)?;
    file.write_all(&length.to_be_bytes())?;
    file.write_all(bytes)
}

pub(super) fn read_block(file: &mut impl Read, left: &mut u64) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    file.read_exact(&mut length)?;
    let length = u64::from(u32::from_be_bytes(length));
    *left = left.checked_sub(4 + length).ok_or_else(|| other("the snapshot is cut off"))?;
    let mut bytes = vec![0; length as usize];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Fails if the file is not complete.
pub(super) fn check_snapshot(path: &Path) -> io::Result<()> {
    let mut file = File::open(path)?;
    let body = file
        .metadata()?
        .len()
        .checked_sub(HASH_BYTES)
        .ok_or_else(|| other("the snapshot is cut off"))?;
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut reader = BufReader::with_capacity(1 << 16, (&mut file).take(body));
    let mut chunk = vec![0; 1 << 16];
    let mut first = true;
    loop {
        let n = reader.read(&mut chunk)?;
        if n == 0 {
            break;
        }
        if std::mem::take(&mut first) && !chunk.starts_with(MAGIC) {
            return Err(other("not a snapshot of this version"));
        }
        hasher.update(&chunk[..n]);
    }
    let mut hash = [0; HASH_BYTES as usize];
    file.read_exact(&mut hash)?;
    if hasher.finish().as_bytes() == hash {
        Ok(())
    } else {
        Err(other("the snapshot's hash does not match"))
    }
}
