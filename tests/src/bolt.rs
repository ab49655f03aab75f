//! Writes bolt files, as small ones as tests need: the format of bbolt 1.3 (`bucket.go`,
//! `page.go`).
//!
//! `node/scan` takes this file into its own tests by its path, so that its reader is tested against
//! a writer that trivy reads, too.

use std::collections::BTreeMap;

/// Bytes of a page.
const PAGE: usize = 4096;

/// The first pages: two metas, the list of free pages, and one free page.
const FIRST: u64 = 4;

/// What a key of a bucket stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Bytes.
    Value(Vec<u8>),
    /// A bucket in the bucket.
    Bucket(Bucket),
}

/// A bucket, in the order of its keys.
pub type Bucket = BTreeMap<Vec<u8>, Entry>;

/// Puts a value at the end of a path of buckets, which are made where they are missing.
pub fn put(root: &mut Bucket, path: &[&str], key: &str, value: Vec<u8>) {
    match path {
        [] => {
            root.insert(key.as_bytes().to_vec(), Entry::Value(value));
        }
        [first, rest @ ..] => {
            let made = root.entry(first.as_bytes().to_vec());
            let made = made.or_insert_with(|| Entry::Bucket(Bucket::new()));
            let Entry::Bucket(bucket) = made else { panic!("{first} is a value") };
            put(bucket, rest, key, value);
        }
    }
}

/// The file of a root bucket.
pub fn file(root: &Bucket) -> Vec<u8> {
    let mut pages = Pages { next: FIRST, bytes: Vec::new() };
    let items = pages.items(root);
    let root = pages.tree(items);
    let mut file = [meta(0, root, pages.next), meta(1, root, pages.next)].concat();
    let mut free = header(2, 0x10, 1, 0);
    free.extend(3_u64.to_le_bytes());
    free.resize(2 * PAGE, 0);
    file.extend(free);
    file.extend(pages.bytes);
    file
}

/// A key, what stands there, and whether that is a bucket.
type Item = (Vec<u8>, Vec<u8>, bool);

struct Pages {
    next: u64,
    bytes: Vec<u8>,
}

impl Pages {
    fn items(&mut self, bucket: &Bucket) -> Vec<Item> {
        let mut items = Vec::new();
        for (key, entry) in bucket {
            let (value, is_bucket) = match entry {
                Entry::Value(value) => (value.clone(), false),
                Entry::Bucket(inner) => (self.bucket(inner), true),
            };
            items.push((key.clone(), value, is_bucket));
        }
        items
    }

    /// What stands in a parent for a bucket: small ones without buckets in them are written inline.
    fn bucket(&mut self, bucket: &Bucket) -> Vec<u8> {
        let items = self.items(bucket);
        let inline = leaf(&items, 0, 0);
        if items.iter().all(|(_, _, is_bucket)| !is_bucket) && inline.len() <= PAGE / 4 {
            return [&[0; 16][..], &inline].concat();
        }
        let root = self.tree(items);
        [root.to_le_bytes(), 0_u64.to_le_bytes()].concat()
    }

    /// Writes items as a tree, and says which page is its root.
    fn tree(&mut self, items: Vec<Item>) -> u64 {
        let mut level = Vec::new();
        for chunk in chunks(items, |(key, value, _)| 16 + key.len() + value.len()) {
            let first = chunk.first().map(|(key, _, _)| key.clone()).unwrap_or_default();
            level.push((first, self.page(|id, overflow| leaf(&chunk, id, overflow))));
        }
        while level.len() > 1 {
            let mut above = Vec::new();
            for chunk in chunks(level, |(key, _)| 16 + key.len()) {
                let first = chunk[0].0.clone();
                above.push((first, self.page(|id, _| branch(&chunk, id))));
            }
            level = above;
        }
        level[0].1
    }

    fn page(&mut self, write: impl Fn(u64, u32) -> Vec<u8>) -> u64 {
        let pages = write(0, 0).len().div_ceil(PAGE);
        let id = self.next;
        self.next += pages as u64;
        let mut bytes = write(id, pages as u32 - 1);
        bytes.resize(pages * PAGE, 0);
        self.bytes.extend(bytes);
        id
    }
}

/// Items in pieces that fit into a page, of at least two where that is possible.
fn chunks<T>(items: Vec<T>, size: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let (mut chunks, mut chunk, mut bytes) = (Vec::new(), Vec::new(), 16);
    for item in items {
        if chunk.len() >= 2 && bytes + size(&item) > PAGE {
            chunks.push(std::mem::take(&mut chunk));
            bytes = 16;
        }
        bytes += size(&item);
        chunk.push(item);
    }
    chunks.push(chunk);
    chunks
}

fn header(id: u64, flags: u16, count: u16, overflow: u32) -> Vec<u8> {
    let mut bytes = id.to_le_bytes().to_vec();
    bytes.extend(flags.to_le_bytes());
    bytes.extend(count.to_le_bytes());
    bytes.extend(overflow.to_le_bytes());
    bytes
}

fn leaf(items: &[Item], id: u64, overflow: u32) -> Vec<u8> {
    let mut page = header(id, 2, items.len() as u16, overflow);
    let mut data = Vec::new();
    for (at, (key, value, is_bucket)) in items.iter().enumerate() {
        let position = (16 * (items.len() - at) + data.len()) as u32;
        for number in [u32::from(*is_bucket), position, key.len() as u32, value.len() as u32] {
            page.extend(number.to_le_bytes());
        }
        data.extend_from_slice(key);
        data.extend_from_slice(value);
    }
    page.extend(data);
    page
}

fn branch(items: &[(Vec<u8>, u64)], id: u64) -> Vec<u8> {
    let mut page = header(id, 1, items.len() as u16, 0);
    let mut data = Vec::new();
    for (at, (key, child)) in items.iter().enumerate() {
        let position = (16 * (items.len() - at) + data.len()) as u32;
        page.extend(position.to_le_bytes());
        page.extend((key.len() as u32).to_le_bytes());
        page.extend(child.to_le_bytes());
        data.extend_from_slice(key);
    }
    page.extend(data);
    page
}

fn meta(number: u64, root: u64, high_water: u64) -> Vec<u8> {
    let mut meta = Vec::new();
    for word in [0xED0C_DAED_u32, 2, PAGE as u32, 0] {
        meta.extend(word.to_le_bytes());
    }
    // the root bucket and its sequence, the list of free pages, the end, the transaction
    for word in [root, 0, 2, high_water, number] {
        meta.extend(word.to_le_bytes());
    }
    let sum = meta.iter().fold(0xCBF2_9CE4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
    });
    meta.extend(sum.to_le_bytes());
    let mut page = [header(number, 4, 0, 0), meta].concat();
    page.resize(PAGE, 0);
    page
}
