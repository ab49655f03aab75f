//! A reader for SQLite's files: the blobs of one table (https://sqlite.org/fileformat.html).
//!
//! RPM's table is `Packages(hnum INTEGER PRIMARY KEY, blob BLOB)`: a walk through one B-tree. What
//! stands in a write-ahead log beside the file is not seen, as with trivy.

use std::borrow::Cow;

const MAGIC: &[u8] = b"SQLite format 3\0";

/// Levels of a tree, and what all blobs together may have. The file is in memory, too.
const DEPTH: usize = 20;

struct Database<'a> {
    bytes: &'a [u8],
    page_size: usize,
    /// Bytes of a page that are used.
    usable: usize,
    /// Pages that may still be read: a tree that leads back into itself ends.
    left: usize,
}

/// The blobs of a table. `None` if the file is damaged, or has no such table.
pub(super) fn blobs<'a>(bytes: &'a [u8], table: &str) -> Option<Vec<Cow<'a, [u8]>>> {
    if bytes.get(..16)? != MAGIC {
        return None;
    }
    let page_size = match u16_at(bytes, 16)? {
        1 => 65_536,
        size if size.is_power_of_two() && size >= 512 => usize::from(size),
        _ => return None,
    };
    let usable = page_size.checked_sub(usize::from(*bytes.get(20)?)).filter(|size| *size >= 480)?;
    let pages = bytes.len() / page_size;
    let mut database = Database { bytes, page_size, usable, left: 2 * pages + 2 };
    let mut root = None;
    database.walk(1, DEPTH, &mut |row| {
        // type, name, table, root page, SQL
        let values = values(&row)?;
        let text =
            |at: usize| values.get(at).and_then(|(kind, bytes)| is_text(*kind).then_some(*bytes));
        if text(0) == Some(b"table") && text(1) == Some(table.as_bytes()) {
            let (kind, bytes) = values.get(3)?;
            root = integer(*kind, bytes);
        }
        Some(())
    })?;
    let root = usize::try_from(root?).ok()?;
    let mut blobs = Vec::new();
    database.walk(root, DEPTH, &mut |row| {
        let values = values(&row)?;
        let (_, blob) = values.iter().find(|(kind, _)| is_blob(*kind))?;
        // where it lies in the file it need not be copied
        blobs.push(match &row {
            Cow::Borrowed(whole) => {
                let start = blob.as_ptr().addr() - whole.as_ptr().addr();
                Cow::Borrowed(&whole[start..start + blob.len()])
            }
            Cow::Owned(_) => Cow::Owned(blob.to_vec()),
        });
        Some(())
    })?;
    Some(blobs)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(bytes)).ok()
}

/// A number of one to nine bytes, and how many these are.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut number = 0;
    for at in 0..8 {
        let byte = *bytes.get(at)?;
        number = (number << 7) | u64::from(byte & 0x7F);
        if byte & 0x80 == 0 {
            return Some((number, at + 1));
        }
    }
    Some(((number << 8) | u64::from(*bytes.get(8)?), 9))
}

fn is_text(kind: u64) -> bool {
    kind >= 13 && kind % 2 == 1
}

fn is_blob(kind: u64) -> bool {
    kind >= 12 && kind.is_multiple_of(2)
}

/// The values of a row: their types, and their bytes.
fn values(row: &[u8]) -> Option<Vec<(u64, &[u8])>> {
    let (head, mut at) = varint(row)?;
    let head = usize::try_from(head).ok()?;
    let mut data = head;
    let mut values = Vec::new();
    while at < head {
        let (kind, length) = varint(row.get(at..head)?)?;
        at += length;
        let size = match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind as usize,
            5 => 6,
            6 | 7 => 8,
            10 | 11 => return None,
            kind => usize::try_from((kind - 12) / 2).ok()?,
        };
        let end = data.checked_add(size)?;
        values.push((kind, row.get(data..end)?));
        data = end;
    }
    Some(values)
}

fn integer(kind: u64, bytes: &[u8]) -> Option<u64> {
    match kind {
        8 => Some(0),
        9 => Some(1),
        1..=6 => Some(bytes.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte))),
        _ => None,
    }
}

impl<'a> Database<'a> {
    fn page(&mut self, number: usize) -> Option<&'a [u8]> {
        self.left = self.left.checked_sub(1)?;
        let at = number.checked_sub(1)?.checked_mul(self.page_size)?;
        self.bytes.get(at..at.checked_add(self.page_size)?)
    }

    /// Calls `take` for each row of a table's tree.
    fn walk(
        &mut self,
        number: usize,
        depth: usize,
        take: &mut dyn FnMut(Cow<'a, [u8]>) -> Option<()>,
    ) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        let page = self.page(number)?;
        // the file's own head is on the first page
        let head = if number == 1 { 100 } else { 0 };
        let cells = usize::from(u16_at(page, head + 3)?);
        let is_leaf = match page.get(head)? {
            13 => true,
            5 => false,
            _ => return None,
        };
        let pointers = head + if is_leaf { 8 } else { 12 };
        for cell in 0..cells {
            let at = usize::from(u16_at(page, pointers + 2 * cell)?);
            if is_leaf {
                take(self.row(page, at)?)?;
            } else {
                self.walk(u32_at(page, at)?, depth, take)?;
            }
        }
        if is_leaf { Some(()) } else { self.walk(u32_at(page, head + 8)?, depth, take) }
    }

    /// A row: what does not fit on its page goes on in a chain of others.
    fn row(&mut self, page: &'a [u8], at: usize) -> Option<Cow<'a, [u8]>> {
        let (length, size) = varint(page.get(at..)?)?;
        let (_, key) = varint(page.get(at + size..)?)?;
        let (length, start) = (usize::try_from(length).ok()?, at + size + key);
        let most = self.usable - 35;
        if length <= most {
            return page.get(start..start.checked_add(length)?).map(Cow::Borrowed);
        }
        if length > self.bytes.len() {
            return None;
        }
        let least = (self.usable - 12) * 32 / 255 - 23;
        let wanted = least + (length - least) % (self.usable - 4);
        let local = if wanted <= most { wanted } else { least };
        let mut row = Vec::with_capacity(length);
        row.extend_from_slice(page.get(start..start + local)?);
        let mut next = u32_at(page, start + local)?;
        while row.len() < length {
            let more = self.page(next)?;
            let part = (length - row.len()).min(self.usable - 4);
            row.extend_from_slice(more.get(4..4 + part)?);
            next = u32_at(more, 0)?;
        }
        Some(Cow::Owned(row))
    }
}
