//! A reader for Berkeley DB's hash files: the values that are too large for their page, which all
//! heads are (libdb's `db_page.h`).

use std::borrow::Cow;

const MAGIC: u32 = 0x0006_1561;

/// Kinds of pages: hashes (before version 4.6 unsorted), and what did not fit on one.
const UNSORTED: u8 = 2;
const OVERFLOW: u8 = 7;
const HEAD: u8 = 8;
const HASH: u8 = 13;

/// The kind of an entry whose bytes are on other pages.
const ELSEWHERE: u8 = 3;

/// Bytes before a page's entries.
const START: usize = 26;

struct File<'a> {
    bytes: &'a [u8],
    page_size: usize,
    big: bool,
}

/// The heads of a database. `None` if it is damaged, or encrypted.
pub(super) fn blobs(bytes: &[u8]) -> Option<Vec<Cow<'_, [u8]>>> {
    let magic = bytes.get(12..16)?;
    let big = magic == MAGIC.to_be_bytes();
    if !big && magic != MAGIC.to_le_bytes() {
        return None;
    }
    let mut file = File { bytes, page_size: 0, big };
    file.page_size = file.u32(20).filter(|size| size.is_power_of_two() && *size >= 512)?;
    if *bytes.get(24)? != 0 || *bytes.get(25)? != HEAD {
        return None;
    }
    let mut blobs = Vec::new();
    for page in 1..=file.u32(32)? {
        let at = page.checked_mul(file.page_size)?;
        // the last pages may not be written yet
        let Some(kind) = bytes.get(at + 25) else { break };
        if ![UNSORTED, HASH].contains(kind) {
            continue;
        }
        // keys and values in turns, each with its place on the page
        let entries = file.u16(at + 20)?;
        for entry in (1..entries).step_by(2) {
            let place = at + file.u16(at + START + 2 * entry)?;
            if *bytes.get(place)? == ELSEWHERE {
                let (first, length) = (file.u32(place + 4)?, file.u32(place + 8)?);
                blobs.push(Cow::Owned(file.value(first, length)?));
            }
        }
    }
    Some(blobs)
}

impl File<'_> {
    fn u16(&self, at: usize) -> Option<usize> {
        let bytes = self.bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(usize::from(if self.big {
            u16::from_be_bytes(bytes)
        } else {
            u16::from_le_bytes(bytes)
        }))
    }

    fn u32(&self, at: usize) -> Option<usize> {
        let bytes = self.bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        let number = if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
        usize::try_from(number).ok()
    }

    /// The bytes of a chain of pages.
    fn value(&self, first: usize, length: usize) -> Option<Vec<u8>> {
        if length > self.bytes.len() {
            return None;
        }
        let mut value = Vec::with_capacity(length);
        let mut page = first;
        while value.len() < length {
            let at = page.checked_mul(self.page_size).filter(|_| page != 0)?;
            if *self.bytes.get(at + 25)? != OVERFLOW {
                return None;
            }
            let part = (length - value.len()).min(self.page_size - START);
            value.extend_from_slice(self.bytes.get(at + START..at + START + part)?);
            page = self.u32(at + 16)?;
        }
        Some(value)
    }
}
