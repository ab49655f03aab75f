//! A reader for tar: the entries of an archive (POSIX ustar, pax, GNU), streamed.
//!
//! Written here because the names of an entry may be of any length in GNU's and pax's extensions,
//! and this reader bounds them.

use std::io::{self, Read};

const BLOCK: usize = 512;

/// The longest extension (GNU's long names, pax records) that is read. Linux takes names of 4 KiB.
const EXTENSION: u64 = 1 << 20;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A file with bytes.
    File,
    /// A folder.
    Folder,
    /// Another name of a file that came before.
    HardLink,
    /// A name that stands for another.
    SymbolicLink,
    /// A device, a pipe, or what else there is.
    Other,
}

/// The head of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// What it is.
    pub(crate) kind: Kind,
    /// Its name as it is written. It may be absolute, and may have `..` in it.
    pub(crate) name: Vec<u8>,
    /// Where a link leads, as it is written.
    pub(crate) target: Vec<u8>,
    /// Bytes that follow.
    pub(crate) size: u64,
    /// Its permissions.
    pub(crate) mode: u32,
}

/// Why an archive cannot be read further.
#[derive(Debug)]
pub(crate) enum TarError {
    /// It is none, or ends too early.
    Damaged(&'static str),
    /// Its source failed.
    Read(io::Error),
}

impl From<io::Error> for TarError {
    fn from(error: io::Error) -> Self {
        TarError::Read(error)
    }
}

/// An archive that is being read.
pub(crate) struct Tar<R> {
    input: R,
    /// Bytes of the current entry that were not read, and the padding after them.
    left: u64,
    padding: u64,
    /// Blocks were read, none of which was an entry.
    begun: bool,
}

/// What extensions say about the next entry.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
}

impl<R: Read> Tar<R> {
    pub(crate) fn new(input: R) -> Self {
        Tar { input, left: 0, padding: 0, begun: false }
    }

    /// The next entry. What was not read of the one before is passed over.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extensions = Extensions::default();
        loop {
            self.pass_over()?;
            let mut block = [0; BLOCK];
            let filled = fill(&mut self.input, &mut block)?;
            // an archive ends with two blocks of zeros; some writers leave them out
            if filled == 0 && self.begun || block.iter().all(|byte| *byte == 0) && filled == BLOCK {
                return Ok(None);
            }
            if filled < BLOCK {
                return Err(TarError::Damaged("the archive ends too early"));
            }
            if !sum_is_right(&block) {
                return Err(TarError::Damaged("it is no tar archive"));
            }
            self.begun = true;
            let size = number(&block[124..136])
                .ok_or(TarError::Damaged("the size of an entry is no number"))?;
            match block[156] {
                b'L' => once(&mut extensions.name, self.text(size)?)?,
                b'K' => once(&mut extensions.target, self.text(size)?)?,
                b'x' => {
                    let records = self.bytes(size)?;
                    read_pax(&records, &mut extensions)?;
                }
                // of all entries that follow: nothing that is needed here is set for all
                b'g' => drop(self.bytes(size)?),
                flag => return self.entry(&block, flag, size, extensions).map(Some),
            }
        }
    }

    fn entry(
        &mut self,
        block: &[u8; BLOCK],
        flag: u8,
        size: u64,
        extensions: Extensions,
    ) -> Result<Entry, TarError> {
        let kind = match flag {
            b'0' | 0 | b'7' => Kind::File,
            b'5' => Kind::Folder,
            b'1' => Kind::HardLink,
            b'2' => Kind::SymbolicLink,
            // GNU's sparse files: where the holes are follows in more blocks
            b'S' => return Err(TarError::Damaged("it has a sparse file in GNU's old format")),
            _ => Kind::Other,
        };
        let size = extensions.size.unwrap_or(size);
        // only files have bytes, whatever the size of another entry says (as libarchive reads it)
        let size = if matches!(kind, Kind::File | Kind::Other) { size } else { 0 };
        let padded = size.checked_next_multiple_of(BLOCK as u64);
        let padded = padded.ok_or(TarError::Damaged("the size of an entry is too large"))?;
        (self.left, self.padding) = (size, padded - size);
        let name = extensions.name.unwrap_or_else(|| {
            let name = until_zero(&block[..100]);
            let prefix = until_zero(&block[345..500]);
            if &block[257..263] == b"ustar\0" && !prefix.is_empty() {
                [prefix, b"/", name].concat()
            } else {
                name.to_vec()
            }
        });
        let target = extensions.target.unwrap_or_else(|| until_zero(&block[157..257]).to_vec());
        // in the first archives a folder was a file whose name ends with a slash
        let kind = if kind == Kind::File && name.ends_with(b"/") { Kind::Folder } else { kind };
        let mode = number(&block[100..108]).unwrap_or_default() as u32;
        Ok(Entry { kind, name, target, size, mode })
    }

    /// The bytes of the current entry, read in pieces. 0 at its end.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let read = self.input.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(TarError::Damaged("the archive ends too early"));
        }
        self.left -= read as u64;
        Ok(read)
    }

    /// Reads what comes after the archive's end: a stream that ends too early shows only there.
    pub(crate) fn finish(&mut self) -> Result<(), TarError> {
        let mut buffer = [0; 16 << 10];
        while fill(&mut self.input, &mut buffer)? > 0 {}
        Ok(())
    }

    fn pass_over(&mut self) -> Result<(), TarError> {
        let mut buffer = [0; 16 << 10];
        while self.read(&mut buffer)? > 0 {}
        // the padding after the last entry may be missing
        let padding = std::mem::take(&mut self.padding) as usize;
        fill(&mut self.input, &mut buffer[..padding])?;
        Ok(())
    }

    /// The whole of a short entry, with its padding.
    fn bytes(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > EXTENSION {
            return Err(TarError::Damaged("the name of an entry is too long"));
        }
        let mut bytes = vec![0; size as usize];
        if fill(&mut self.input, &mut bytes)? < bytes.len() {
            return Err(TarError::Damaged("the archive ends too early"));
        }
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(bytes)
    }

    fn text(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        let bytes = self.bytes(size)?;
        Ok(until_zero(&bytes).to_vec())
    }
}

/// A name that is told once. Of two, one reader takes the first and another the last.
fn once(name: &mut Option<Vec<u8>>, told: Vec<u8>) -> Result<(), TarError> {
    match name.replace(told) {
        None => Ok(()),
        Some(_) => Err(TarError::Damaged("an entry has two names")),
    }
}

/// Reads until `buffer` is full or the input ends.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> Result<usize, TarError> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(filled)
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number: octal digits, or GNU's binary form, which begins with a byte above 127.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        if field[0] != 0x80 {
            return None; // a negative number, or one above 2^64
        }
        return field[1..]
            .iter()
            .try_fold(0_u64, |sum, byte| Some(sum.checked_mul(256)? + u64::from(*byte)));
    }
    let text = std::str::from_utf8(until_zero(field)).ok()?.trim();
    if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
}

/// Whether the head's sum is right. Old writers added the bytes up as signed ones.
fn sum_is_right(block: &[u8; BLOCK]) -> bool {
    let told = number(&block[148..156]);
    let byte = |at: usize| if (148..156).contains(&at) { b' ' } else { block[at] };
    let sum: u64 = (0..BLOCK).map(|at| u64::from(byte(at))).sum();
    let signed: i64 = (0..BLOCK).map(|at| i64::from(byte(at) as i8)).sum();
    told == Some(sum) || told.and_then(|told| i64::try_from(told).ok()) == Some(signed)
}

/// Records of pax: `LENGTH KEY=VALUE\n`, where the length counts the whole record.
fn read_pax(records: &[u8], extensions: &mut Extensions) -> Result<(), TarError> {
    let mut rest = records;
    while !rest.is_empty() && rest[0] != 0 {
        let record = || {
            let space = rest.iter().position(|byte| *byte == b' ')?;
            let length: usize = std::str::from_utf8(&rest[..space]).ok()?.parse().ok()?;
            let record = rest.get(space + 1..length)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            Some((&record[..equals], &record[equals + 1..], length))
        };
        let Some((key, value, length)) = record() else {
            return Err(TarError::Damaged("a pax record is damaged"));
        };
        match key {
            b"path" => once(&mut extensions.name, until_zero(value).to_vec())?,
            b"linkpath" => once(&mut extensions.target, until_zero(value).to_vec())?,
            b"size" => {
                let size = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                let wrong = TarError::Damaged("the size of an entry is no number");
                extensions.size = Some(size.ok_or(wrong)?);
            }
            _ if key.starts_with(b"GNU.sparse.") => {
                return Err(TarError::Damaged("it has a sparse file"));
            }
            _ => {}
        }
        rest = &rest[length..];
    }
    Ok(())
}
