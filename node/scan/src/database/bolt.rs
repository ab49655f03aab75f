//! A reader for bolt files (bbolt 1.3: `page.go`, `bucket.go`, `node.go`): B+ trees of pages, in
//! which a value may be a tree again.
//!
//! The file comes from strangers. Every offset is checked before it is used, every read is one of
//! the file (`pread`) and none of mapped memory, so that a file that shrinks is an error and not a
//! signal. A tree that leads back into itself ends at a limit.

use std::collections::HashMap;
use std::fs::File;
use std::ops::{ControlFlow, Range};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::DatabaseError;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;

/// Bytes of a page's header, of an element of a leaf and of one of a branch.
const HEADER: usize = 16;
const ELEMENT: usize = 16;

const BRANCH: u16 = 1;
const LEAF: u16 = 2;

/// Levels of a tree. One page of 4 KiB branches more than a hundred times.
const DEPTH: usize = 24;

/// Bytes of one page with what overflows from it.
const LARGEST: u64 = 16 << 20;

/// Bytes of pages that are kept, at most twice this: the upper levels of the trees, mostly.
const KEPT: usize = 4 << 20;

/// An open file.
#[derive(Debug)]
pub(super) struct Bolt {
    file: File,
    length: u64,
    page_size: u64,
    root: u64,
    pages: Mutex<Pages>,
}

/// Pages that were read: the young ones, and those that were young before.
#[derive(Debug, Default)]
struct Pages {
    young: HashMap<u64, Arc<[u8]>>,
    old: HashMap<u64, Arc<[u8]>>,
    bytes: usize,
}

/// A bucket: a tree of its own, or one leaf that stands in its parent.
#[derive(Clone, Debug)]
pub(super) enum Bucket {
    Page(u64),
    Inline(Arc<[u8]>),
}

/// What a key stands for.
#[derive(Debug)]
pub(super) enum Entry<'a> {
    Value(&'a [u8]),
    Bucket(Bucket),
}

/// A place in a leaf.
struct Element {
    key: Range<usize>,
    value: Range<usize>,
    is_bucket: bool,
}

fn damaged(what: &str) -> DatabaseError {
    DatabaseError::Damaged(what.to_owned())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// FNV-1a, with 64 bits.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
    })
}

/// Page size, root page and transaction of a meta page whose sum is right.
fn meta(page: &[u8]) -> Option<(u64, u64, u64)> {
    let meta = page.get(HEADER..HEADER + 64)?;
    let good = u32_at(meta, 0)? == MAGIC
        && u32_at(meta, 4)? == VERSION
        && u64_at(meta, 56)? == checksum(meta.get(..56)?);
    let page_size = u64::from(u32_at(meta, 8)?);
    let good = good && page_size.is_power_of_two() && (1024..=65_536).contains(&page_size);
    good.then_some((page_size, u64_at(meta, 16)?, u64_at(meta, 48)?))
}

impl Bolt {
    /// Reads the two metas. The one of the later transaction counts, if its sum is right.
    pub(super) fn open(file: File) -> Result<Self, DatabaseError> {
        let length = file.metadata()?.len();
        let read = |at: u64| -> Result<Vec<u8>, DatabaseError> {
            let mut bytes = vec![0; 80];
            if at.saturating_add(80) <= length {
                file.read_exact_at(&mut bytes, at)?;
            }
            Ok(bytes)
        };
        let first = meta(&read(0)?);
        // the second is where the first ends; without a first its place has to be guessed
        let sizes = first.map_or_else(
            || vec![4096, 8192, 16_384, 32_768, 65_536, 1024, 2048],
            |(size, ..)| vec![size],
        );
        let mut found = first;
        for size in sizes {
            let second = meta(&read(size)?).filter(|(told, ..)| *told == size);
            found = match (found, second) {
                (Some(one), Some(other)) => Some(if other.2 > one.2 { other } else { one }),
                (one, other) => one.or(other),
            };
        }
        let (page_size, root, _) = found.ok_or_else(|| damaged("it is no bolt file"))?;
        Ok(Bolt { file, length, page_size, root, pages: Mutex::default() })
    }

    /// The bucket that all others are in.
    pub(super) fn root(&self) -> Bucket {
        Bucket::Page(self.root)
    }

    /// The bucket with this name in another.
    pub(super) fn bucket(
        &self,
        parent: &Bucket,
        name: &[u8],
    ) -> Result<Option<Bucket>, DatabaseError> {
        self.find(parent, name, |entry| match entry {
            Entry::Bucket(bucket) => Some(bucket),
            Entry::Value(_) => None,
        })
        .map(Option::flatten)
    }

    /// The value of a key in a bucket.
    pub(super) fn value(
        &self,
        bucket: &Bucket,
        key: &[u8],
    ) -> Result<Option<Vec<u8>>, DatabaseError> {
        self.find(bucket, key, |entry| match entry {
            Entry::Value(value) => Some(value.to_vec()),
            Entry::Bucket(_) => None,
        })
        .map(Option::flatten)
    }

    /// Calls `take` for each key of a bucket, in their order, until it breaks off.
    pub(super) fn each(
        &self,
        bucket: &Bucket,
        take: &mut dyn FnMut(&[u8], Entry<'_>) -> ControlFlow<()>,
    ) -> Result<(), DatabaseError> {
        match bucket {
            Bucket::Inline(page) => leaf(page, take).map(|_| ()),
            Bucket::Page(id) => {
                // no tree has more pages than its file: one that does leads back into itself
                let mut left = self.length / self.page_size + 1;
                self.walk(*id, DEPTH, &mut left, take).map(|_| ())
            }
        }
    }

    fn walk(
        &self,
        id: u64,
        depth: usize,
        left: &mut u64,
        take: &mut dyn FnMut(&[u8], Entry<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, DatabaseError> {
        *left = left.checked_sub(1).ok_or_else(|| damaged("its pages form a circle"))?;
        let depth = depth.checked_sub(1).ok_or_else(|| damaged("its trees are too deep"))?;
        let page = self.page(id)?;
        if flags(&page)? & LEAF != 0 {
            return leaf(&page, take);
        }
        for at in 0..count(&page)? {
            let (_, child) = branch_element(&page, at)?;
            if self.walk(child, depth, left, take)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Looks a key up: a binary search in each page from the root to a leaf.
    fn find<T>(
        &self,
        bucket: &Bucket,
        key: &[u8],
        read: impl FnOnce(Entry<'_>) -> T,
    ) -> Result<Option<T>, DatabaseError> {
        let mut page = match bucket {
            Bucket::Inline(page) => Arc::clone(page),
            Bucket::Page(id) => self.page(*id)?,
        };
        for _ in 0..DEPTH {
            let count = count(&page)?;
            if flags(&page)? & LEAF != 0 {
                let (mut low, mut high) = (0, count);
                while low < high {
                    let middle = low + (high - low) / 2;
                    let element = leaf_element(&page, middle)?;
                    match page[element.key.clone()].cmp(key) {
                        std::cmp::Ordering::Less => low = middle + 1,
                        std::cmp::Ordering::Greater => high = middle,
                        std::cmp::Ordering::Equal => {
                            return Ok(Some(read(entry(&page, &element)?)));
                        }
                    }
                }
                return Ok(None);
            }
            // the last child whose first key is not after the one that is looked for
            let (mut low, mut high) = (0, count);
            while low < high {
                let middle = low + (high - low) / 2;
                let (first, _) = branch_element(&page, middle)?;
                if &page[first] <= key { low = middle + 1 } else { high = middle }
            }
            if count == 0 {
                return Ok(None);
            }
            let (_, child) = branch_element(&page, low.saturating_sub(1))?;
            page = self.page(child)?;
        }
        Err(damaged("its trees are too deep"))
    }

    /// A page with what overflows from it. The two metas and pages after the end are none.
    fn page(&self, id: u64) -> Result<Arc<[u8]>, DatabaseError> {
        if let Some(page) = self.pages.lock().get(id) {
            return Ok(page);
        }
        let outside = || damaged("a page lies outside of the file");
        let at = id.checked_mul(self.page_size).filter(|_| id >= 2).ok_or_else(outside)?;
        let end = at.checked_add(self.page_size).ok_or_else(outside)?;
        if end > self.length {
            return Err(outside());
        }
        let mut page = vec![0; self.page_size as usize];
        self.file.read_exact_at(&mut page, at)?;
        if u64_at(&page, 0) != Some(id) || flags(&page)? & (BRANCH | LEAF) == 0 {
            return Err(damaged("a page is not what its parent says"));
        }
        let overflow = u64::from(u32_at(&page, 12).unwrap_or_default());
        if overflow > 0 {
            let size = (overflow + 1).checked_mul(self.page_size).ok_or_else(outside)?;
            if size > LARGEST || at.checked_add(size).is_none_or(|end| end > self.length) {
                return Err(outside());
            }
            page = vec![0; size as usize];
            self.file.read_exact_at(&mut page, at)?;
        }
        let page: Arc<[u8]> = page.into();
        if overflow == 0 {
            self.pages.lock().keep(id, &page);
        }
        Ok(page)
    }
}

impl Pages {
    fn get(&mut self, id: u64) -> Option<Arc<[u8]>> {
        if let Some(page) = self.young.get(&id) {
            return Some(Arc::clone(page));
        }
        let page = self.old.remove(&id)?;
        self.keep(id, &page);
        Some(page)
    }

    fn keep(&mut self, id: u64, page: &Arc<[u8]>) {
        if self.bytes + page.len() > KEPT {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes += page.len();
        self.young.insert(id, Arc::clone(page));
    }
}

fn flags(page: &[u8]) -> Result<u16, DatabaseError> {
    u16_at(page, 8).ok_or_else(|| damaged("a page is too short"))
}

fn count(page: &[u8]) -> Result<usize, DatabaseError> {
    u16_at(page, 10).map(usize::from).ok_or_else(|| damaged("a page is too short"))
}

fn leaf(
    page: &[u8],
    take: &mut dyn FnMut(&[u8], Entry<'_>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, DatabaseError> {
    for at in 0..count(page)? {
        let element = leaf_element(page, at)?;
        if take(&page[element.key.clone()], entry(page, &element)?).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn leaf_element(page: &[u8], at: usize) -> Result<Element, DatabaseError> {
    let read = || {
        let start = HEADER + at * ELEMENT;
        let key = start.checked_add(u32_at(page, start + 4)? as usize)?;
        let value = key.checked_add(u32_at(page, start + 8)? as usize)?;
        let end = value.checked_add(u32_at(page, start + 12)? as usize)?;
        let is_bucket = u32_at(page, start)? & 1 != 0;
        (end <= page.len()).then_some(Element { key: key..value, value: value..end, is_bucket })
    };
    read().ok_or_else(|| damaged("a page's entry lies outside of the page"))
}

fn branch_element(page: &[u8], at: usize) -> Result<(Range<usize>, u64), DatabaseError> {
    let read = || {
        let start = HEADER + at * ELEMENT;
        let key = start.checked_add(u32_at(page, start)? as usize)?;
        let end = key.checked_add(u32_at(page, start + 4)? as usize)?;
        let child = u64_at(page, start + 8)?;
        (end <= page.len()).then_some((key..end, child))
    };
    read().ok_or_else(|| damaged("a page's entry lies outside of the page"))
}

fn entry<'a>(page: &'a [u8], element: &Element) -> Result<Entry<'a>, DatabaseError> {
    let value = &page[element.value.clone()];
    if !element.is_bucket {
        return Ok(Entry::Value(value));
    }
    let root = u64_at(value, 0).filter(|_| value.len() >= 16);
    let root = root.ok_or_else(|| damaged("a bucket is too short"))?;
    if root != 0 {
        return Ok(Entry::Bucket(Bucket::Page(root)));
    }
    let inline = &value[16..];
    if inline.len() < HEADER || flags(inline)? & LEAF == 0 {
        return Err(damaged("a bucket is too short"));
    }
    Ok(Entry::Bucket(Bucket::Inline(inline.into())))
}

#[cfg(test)]
mod tests;
