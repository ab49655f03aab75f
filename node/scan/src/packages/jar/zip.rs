//! A reader for zip archives as their bytes go by: by the heads before the entries, not by the list
//! at the end. So an archive of any size needs little memory.

use std::io::{self, BufRead, Read};

use flate2::bufread::DeflateDecoder;

use super::Budget;

const ENTRY: u32 = 0x0403_4B50;
const DESCRIPTOR: u32 = 0x0807_4B50;
/// What comes after the entries: the list, and the ends of it.
const AFTER: [u32; 4] = [0x0201_4B50, 0x0605_4B50, 0x0606_4B50, 0x0706_4B50];

/// A script may stand before the archive: so many bytes are searched for its begin.
const SCRIPT: u64 = 1 << 20;

/// Why an archive cannot be read further.
#[derive(Debug, thiserror::Error)]
pub(super) enum ZipError {
    #[error("{0}")]
    Damaged(&'static str),
    #[error("it unpacks to too many bytes")]
    TooLarge,
    #[error("stopped")]
    Stopped,
    #[error("{0}")]
    Read(#[from] io::Error),
}

/// How the current entry goes on.
enum Body {
    /// Nothing is left of it.
    None,
    /// So many bytes as they stand there, compressed or not.
    Sized { left: u64, deflated: bool },
    /// Compressed bytes, which say themselves where they end; their sizes follow them.
    Unsized,
}

pub(super) struct Zip<'a> {
    input: &'a mut dyn BufRead,
    budget: &'a Budget<'a>,
    body: Body,
    /// A signature that was read ahead.
    ahead: Option<u32>,
    begun: bool,
}

/// Takes what is unpacked off the budget.
struct Counted<'a, R> {
    inner: R,
    budget: &'a Budget<'a>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !(self.budget.keep_on)() {
            return Err(io::Error::other("stopped"));
        }
        let read = self.inner.read(buffer)?;
        match self.budget.bytes.get().checked_sub(read as u64) {
            Some(left) => self.budget.bytes.set(left),
            None => {
                self.budget.bytes.set(0);
                return Err(io::Error::other("it unpacks to too many bytes"));
            }
        }
        Ok(read)
    }
}

impl<'a> Zip<'a> {
    pub(super) fn new(input: &'a mut dyn BufRead, budget: &'a Budget<'a>) -> Self {
        Zip { input, budget, body: Body::None, ahead: None, begun: false }
    }

    /// The name of the next entry. What was not read of the one before is passed over.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, ZipError> {
        self.nested(|_| Ok(()))?;
        if !(self.budget.keep_on)() {
            return Err(ZipError::Stopped);
        }
        if self.budget.bytes.get() == 0 {
            return Err(ZipError::TooLarge);
        }
        let signature = match self.ahead.take() {
            Some(signature) => signature,
            None if self.begun => self.u32()?,
            None => self.search()?,
        };
        self.begun = true;
        if AFTER.contains(&signature) {
            return Ok(None);
        }
        if signature != ENTRY {
            return Err(ZipError::Damaged("it is no zip archive, or damaged"));
        }
        let mut head = [0; 26];
        self.input.read_exact(&mut head)?;
        let u16_at = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let u32_at = |at: usize| u64::from(u16_at(at)) | (u64::from(u16_at(at + 2)) << 16);
        let (flags, method) = (u16_at(2), u16_at(4));
        let (mut packed, unpacked) = (u32_at(14), u32_at(18));
        let mut name = vec![0; usize::from(u16_at(22))];
        self.input.read_exact(&mut name)?;
        let mut extra = vec![0; usize::from(u16_at(24))];
        self.input.read_exact(&mut extra)?;
        if packed == u64::from(u32::MAX) {
            packed = wide_size(&extra, unpacked)
                .ok_or(ZipError::Damaged("an entry of it does not say its size"))?;
        }
        let follows = flags & 8 != 0;
        self.body = match method {
            _ if flags & 1 != 0 && follows => {
                return Err(ZipError::Damaged("an entry of it is encrypted"));
            }
            0 if follows && packed == 0 => {
                // a folder, mostly. Whether its sizes follow shows
                self.after_nothing()?;
                Body::None
            }
            8 if follows && packed == 0 => Body::Unsized,
            8 => Body::Sized { left: packed, deflated: flags & 1 == 0 },
            0 => Body::Sized { left: packed, deflated: false },
            _ if follows && packed == 0 => {
                return Err(ZipError::Damaged("it is compressed in an unknown way"));
            }
            // its bytes are passed over, and mean nothing to who reads them
            _ => Body::Sized { left: packed, deflated: false },
        };
        Ok(Some(name))
    }

    /// The first bytes of the current entry, unpacked.
    pub(super) fn head(&mut self, most: u64) -> Result<Vec<u8>, ZipError> {
        let mut bytes = Vec::new();
        self.nested(|input| {
            input.take(most).read_to_end(&mut bytes)?;
            Ok(())
        })?;
        Ok(bytes)
    }

    /// Lets `take` read the current entry, unpacked, and passes over what it leaves. What `take`
    /// cannot read is no fault of this archive, unless the budget is used up.
    pub(super) fn nested(
        &mut self,
        take: impl FnOnce(&mut dyn BufRead) -> Result<(), ZipError>,
    ) -> Result<(), ZipError> {
        let budget = self.budget;
        match std::mem::replace(&mut self.body, Body::None) {
            Body::None => {}
            Body::Sized { left, deflated } => {
                let mut packed = (&mut *self.input).take(left);
                let taken = if deflated {
                    let inner = DeflateDecoder::new(&mut packed);
                    take(&mut io::BufReader::new(Counted { inner, budget }))
                } else {
                    take(&mut io::BufReader::new(Counted { inner: &mut packed, budget }))
                };
                io::copy(&mut packed, &mut io::sink())?;
                if packed.limit() > 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
                self.not_this_archives(taken)?;
                self.after_sized()?;
            }
            Body::Unsized => {
                let mut inner = DeflateDecoder::new(&mut *self.input);
                let taken = {
                    let mut counted = io::BufReader::new(Counted { inner: &mut inner, budget });
                    let taken = take(&mut counted);
                    io::copy(&mut counted, &mut io::sink())?;
                    taken
                };
                let (packed, unpacked) = (inner.total_in(), inner.total_out());
                self.not_this_archives(taken)?;
                self.descriptor(packed, unpacked)?;
            }
        }
        Ok(())
    }

    fn not_this_archives(&self, taken: Result<(), ZipError>) -> Result<(), ZipError> {
        match taken {
            Err(ZipError::Stopped) => Err(ZipError::Stopped),
            Err(_) if self.budget.bytes.get() == 0 => Err(ZipError::TooLarge),
            _ => Ok(()),
        }
    }

    fn u32(&mut self) -> Result<u32, ZipError> {
        let mut bytes = [0; 4];
        self.input.read_exact(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// The first signature, which a script may stand before.
    fn search(&mut self) -> Result<u32, ZipError> {
        let mut window = self.u32()?;
        for _ in 0..SCRIPT {
            if window == ENTRY || window == 0x0605_4B50 {
                return Ok(window);
            }
            let mut byte = [0];
            self.input.read_exact(&mut byte)?;
            window = (window >> 8) | (u32::from(byte[0]) << 24);
        }
        Err(ZipError::Damaged("it is no zip archive"))
    }

    /// After an entry whose size its head says: its sizes may follow once more.
    fn after_sized(&mut self) -> Result<(), ZipError> {
        let signature = self.u32()?;
        if signature == DESCRIPTOR {
            let mut sizes = [0; 12];
            self.input.read_exact(&mut sizes)?;
        } else {
            self.ahead = Some(signature);
        }
        Ok(())
    }

    /// After the head of an entry without bytes, whose sizes may follow.
    fn after_nothing(&mut self) -> Result<(), ZipError> {
        self.after_sized()?;
        match self.ahead {
            None => Ok(()),
            Some(signature) if signature == ENTRY || AFTER.contains(&signature) => Ok(()),
            Some(_) => Err(ZipError::Damaged("an entry of it does not say its size")),
        }
    }

    /// The sizes that follow an entry: with a signature or without, of 32 bits or of 64.
    fn descriptor(&mut self, packed: u64, unpacked: u64) -> Result<(), ZipError> {
        let wrong = ZipError::Damaged("the sizes of an entry of it are wrong");
        let mut first = self.u32()?;
        if first == DESCRIPTOR {
            first = self.u32()?; // the sum
        }
        let _sum = first;
        if self.u32()? != packed as u32 {
            return Err(wrong);
        }
        let next = self.u32()?;
        if next == unpacked as u32 && u64::from(next) == unpacked {
            return Ok(());
        }
        if u64::from(next) != packed >> 32 || self.u32()? != unpacked as u32 {
            return Err(wrong);
        }
        if u64::from(self.u32()?) != unpacked >> 32 {
            return Err(wrong);
        }
        Ok(())
    }
}

/// The packed size in the extra field of large archives. The unpacked size is before it, where that
/// one does not fit into the head either.
fn wide_size(extra: &[u8], unpacked: u64) -> Option<u64> {
    let mut rest = extra;
    loop {
        let kind = u16::from_le_bytes(rest.get(..2)?.try_into().ok()?);
        let length = usize::from(u16::from_le_bytes(rest.get(2..4)?.try_into().ok()?));
        let field = rest.get(4..4 + length)?;
        if kind == 1 {
            let at = if unpacked == u64::from(u32::MAX) { 8 } else { 0 };
            return Some(u64::from_le_bytes(field.get(at..at + 8)?.try_into().ok()?));
        }
        rest = &rest[4 + length..];
    }
}
