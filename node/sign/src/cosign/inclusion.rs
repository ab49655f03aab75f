//! Proofs that an entry is in a transparency log (RFC 6962 section 2.1), under a root that the log has
//! signed (a checkpoint: C2SP `tlog-checkpoint`).

use rules::words::digest::Digest;
use serde::Deserialize;

use super::number::Number;
use crate::json::base64;
use crate::keys::PublicKey;

/// The longest path, which is one of a log of 2^64 entries.
const LONGEST: usize = 64;
/// The maximum number of signatures of a checkpoint that are tried: the log's and those of witnesses.
const SIGNATURES: usize = 16;

type Hash = [u8; 32];

/// What a bundle says of where its entry is in the log. Nothing of it is verified.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Inclusion {
    #[serde(default)]
    log_index: Number,
    #[serde(default)]
    tree_size: Number,
    #[serde(default)]
    hashes: Vec<String>,
    checkpoint: Checkpoint,
}

#[derive(Debug, Deserialize)]
struct Checkpoint {
    envelope: String,
}

impl Inclusion {
    /// Whether a log with this key has these bytes as an entry. The error is the end of a sentence.
    pub(super) fn verify(&self, entry: &[u8], key: &PublicKey) -> Result<(), String> {
        let (size, root) = signed(&self.checkpoint.envelope, key)?;
        let read = |number: &Number| number.value().and_then(|value| u64::try_from(value).ok());
        let place = read(&self.log_index).zip(read(&self.tree_size));
        let Some((index, _)) = place.filter(|(_, of)| *of == size) else {
            return Err("the transparency log's proof is not of the size that it has signed".into());
        };
        let path = self.hashes.iter().take(LONGEST + 1);
        let path: Option<Vec<Hash>> = path.map(|one| base64(one)?.try_into().ok()).collect();
        let path = path.filter(|path| path.len() <= LONGEST);
        match path.and_then(|path| root_of(entry, index, size, &path)) {
            Some(found) if found == root => Ok(()),
            _ => Err("the transparency log does not prove that it has its entry".into()),
        }
    }
}

/// The size and the root of a checkpoint that is signed with this key.
fn signed(checkpoint: &str, key: &PublicKey) -> Result<(u64, Hash), String> {
    let unsigned = || "the transparency log has not signed the root of its proof".to_owned();
    let (text, signatures) = checkpoint.split_once("\n\n").ok_or_else(unsigned)?;
    let text = format!("{text}\n");
    let is_signature = |line: &str| {
        let named = line.strip_prefix("\u{2014} ").and_then(|rest| rest.split_once(' '));
        // four bytes that name a key are before it
        let bytes = named.and_then(|(_, signature)| base64(signature)).unwrap_or_default();
        bytes.get(4..).is_some_and(|signature| key.verifies(text.as_bytes(), signature))
    };
    if !signatures.lines().take(SIGNATURES).any(is_signature) {
        return Err(unsigned());
    }
    let mut lines = text.lines().skip(1);
    let size = lines.next().and_then(|size| size.parse().ok());
    let root = lines.next().and_then(base64).and_then(|root| root.try_into().ok());
    size.zip(root).ok_or_else(|| "the transparency log's checkpoint cannot be read".into())
}

fn hash(parts: &[&[u8]]) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(Digest::sha256(&parts.concat()).as_bytes());
    hash
}

/// The root of a log of this size that has this entry at this place (RFC 9162 section 2.1.3.2); `None`
/// if the path has not the length that this takes.
fn root_of(entry: &[u8], index: u64, size: u64, path: &[Hash]) -> Option<Hash> {
    let (mut at, mut last) = (index, size.checked_sub(1)?);
    if at > last {
        return None;
    }
    let mut root = hash(&[&[0], entry]);
    for beside in path {
        if last == 0 {
            return None;
        }
        if at & 1 == 1 || at == last {
            root = hash(&[&[1], beside, &root]);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            root = hash(&[&[1], &root, beside]);
        }
        at >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(root)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The root of these entries, as RFC 6962 section 2.1 defines it.
    fn root(entries: &[Vec<u8>]) -> Hash {
        match entries {
            [one] => hash(&[&[0], one]),
            _ => {
                let (left, right) = entries.split_at(half(entries.len()));
                hash(&[&[1], &root(left), &root(right)])
            }
        }
    }

    /// The greatest power of two below.
    fn half(length: usize) -> usize {
        length.next_power_of_two() / 2
    }

    /// The path of an entry, as section 2.1.1 defines it.
    fn path(at: usize, entries: &[Vec<u8>]) -> Vec<Hash> {
        if entries.len() == 1 {
            return Vec::new();
        }
        let middle = half(entries.len());
        let (left, right) = entries.split_at(middle);
        let (mut below, beside) = match at < middle {
            true => (path(at, left), root(right)),
            false => (path(at - middle, right), root(left)),
        };
        below.push(beside);
        below
    }

    proptest! {
        #[test]
        fn each_entry_leads_to_the_root_and_nothing_else_does(size in 1_usize..70, at in any::<prop::sample::Index>(), bit in 0_usize..256) {
            let entries: Vec<Vec<u8>> = (0..size).map(|n| format!("entry {n}").into_bytes()).collect();
            let (at, whole) = (at.index(size), root(&entries));
            let (index, length) = (at as u64, size as u64);
            let path = path(at, &entries);
            prop_assert_eq!(root_of(&entries[at], index, length, &path), Some(whole));
            prop_assert_ne!(root_of(b"another", index, length, &path), Some(whole));
            prop_assert_eq!(root_of(&entries[at], length, length, &path), None);
            let longer = [path.clone(), vec![[7; 32]]].concat();
            prop_assert_ne!(root_of(&entries[at], index, length, &longer), Some(whole));
            if !path.is_empty() {
                let mut damaged = path.clone();
                let which = bit % path.len();
                damaged[which][bit / 8] ^= 1 << (bit % 8);
                prop_assert_ne!(root_of(&entries[at], index, length, &damaged), Some(whole));
                prop_assert_ne!(root_of(&entries[at], index, length, &path[1..]), Some(whole));
            }
        }
    }

    #[test]
    fn a_log_without_entries_has_none() {
        assert_eq!(root_of(b"entry", 0, 0, &[]), None);
    }
}
