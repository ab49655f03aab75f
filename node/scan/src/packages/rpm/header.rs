//! A package's head as RPM keeps it: an index of tags, and the data that they point into
//! (rpm's `lib/header.c`).

pub(super) const NAME: u32 = 1000;
pub(super) const VERSION: u32 = 1001;
pub(super) const RELEASE: u32 = 1002;
pub(super) const EPOCH: u32 = 1003;
pub(super) const VENDOR: u32 = 1011;
pub(super) const LICENCE: u32 = 1014;
pub(super) const ARCH: u32 = 1022;
pub(super) const SOURCE: u32 = 1044;
/// For each file the number of its folder in [`FOLDERS`].
pub(super) const FOLDER_OF: u32 = 1116;
pub(super) const FILES: u32 = 1117;
pub(super) const FOLDERS: u32 = 1118;
/// `MODULARITYLABEL`.
pub(super) const MODULE: u32 = 5096;

/// Numbers of 32 bits, a text, several texts, a text in several languages.
const INT32: u32 = 4;
const STRING: u32 = 6;
const STRINGS: u32 = 8;
const LANGUAGES: u32 = 9;

/// The most tags. rpm's own limit is 64 Ki.
const MOST: usize = 65_536;

/// A head.
pub(super) struct Header<'a> {
    /// Tag, type, offset, count; 16 bytes each.
    index: &'a [u8],
    data: &'a [u8],
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

impl<'a> Header<'a> {
    /// Reads the index's place.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let count = u32_at(bytes, 0)? as usize;
        let length = u32_at(bytes, 4)? as usize;
        if count == 0 || count > MOST {
            return None;
        }
        let index = bytes.get(8..8 + 16 * count)?;
        let data = bytes.get(8 + 16 * count..)?;
        Some(Header { index, data: data.get(..length)? })
    }

    /// Type, data from its begin on, and count of a tag. The later one of two counts: what was
    /// changed at the installation follows what was signed.
    fn find(&self, tag: u32) -> Option<(u32, &'a [u8], usize)> {
        let entries = self.index.chunks_exact(16).rev();
        let entry = entries.into_iter().find(|entry| u32_at(entry, 0) == Some(tag))?;
        let (kind, offset) = (u32_at(entry, 4)?, u32_at(entry, 8)? as usize);
        Some((kind, self.data.get(offset..)?, u32_at(entry, 12)? as usize))
    }

    /// The first text of a tag.
    pub(super) fn text(&self, tag: u32) -> Option<&'a str> {
        let (kind, data, _) = self.find(tag)?;
        let text = data.split(|byte| *byte == 0).next()?;
        [STRING, STRINGS, LANGUAGES].contains(&kind).then(|| std::str::from_utf8(text).ok())?
    }

    /// The texts of a tag. Those that are no UTF-8 are empty, so that the others keep their places.
    pub(super) fn texts(&self, tag: u32) -> Vec<&'a str> {
        match self.find(tag) {
            Some((STRINGS, data, count)) => data
                .split(|byte| *byte == 0)
                .take(count)
                .map(|text| std::str::from_utf8(text).unwrap_or_default())
                .collect(),
            _ => Vec::new(),
        }
    }

    /// The numbers of a tag.
    pub(super) fn numbers(&self, tag: u32) -> Vec<u32> {
        match self.find(tag) {
            Some((INT32, data, count)) => {
                let numbers = data.chunks_exact(4).take(count);
                numbers.filter_map(|number| u32_at(number, 0)).collect()
            }
            _ => Vec::new(),
        }
    }
}
