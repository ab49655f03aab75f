//! What a node stands on, and how it is made ill while the node runs: its clock and its disk.
//!
//! A small library (`ailing.c`, built with the machine's C compiler) stands between a node and its
//! system calls. It reads a file that this module writes. It also keeps what a file of records was
//! before each write that no sync has followed yet, so that [`Ground::lose_power`] can take such
//! writes back: `kill -9` alone cannot show what a power cut does, since the kernel's cache
//! survives it.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::network::succeed;

const LIBRARY: &str = include_str!("ailing.c");

/// A page of a file, as the library keeps it.
const PAGE: usize = 4096;
/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// What is wrong with a disk or a clock. All of nothing: it is well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Illness {
    /// How far the clock is off, in milliseconds.
    pub(crate) clock_ms: i64,
    /// The longest that a sync takes, in milliseconds.
    pub(crate) slow_ms: i32,
    /// No sync comes back.
    pub(crate) hangs: bool,
    /// Every sync fails with EIO.
    pub(crate) fails: bool,
    /// No file grows: ENOSPC.
    pub(crate) full: bool,
}

impl Illness {
    /// `struct control` of the library.
    fn bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&self.clock_ms.to_ne_bytes());
        let words = [self.slow_ms, self.hangs.into(), self.fails.into(), self.full.into(), 1];
        for (at, word) in words.into_iter().enumerate() {
            bytes[8 + at * 4..12 + at * 4].copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}

/// Builds the library into a folder; its file.
///
/// # Errors
/// Without a C compiler there is none.
pub(crate) fn library(folder: &Path) -> Result<PathBuf> {
    let (source, library) = (folder.join("ailing.c"), folder.join("ailing.so"));
    fs::write(&source, LIBRARY)?;
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).arg("-ldl");
    succeed(&mut compile).context("a trial needs a C compiler: apt-get install build-essential")?;
    Ok(library)
}

/// What one node stands on.
#[derive(Debug)]
pub(crate) struct Ground {
    control: PathBuf,
    library: PathBuf,
    data: PathBuf,
}

impl Ground {
    /// Well ground for a node whose data are in `data`; its own files are in `folder`.
    pub(crate) fn new(folder: &Path, library: &Path, node: usize, data: &Path) -> Result<Self> {
        let control = folder.join(format!("{node}.control"));
        fs::write(&control, Illness::default().bytes())?;
        Ok(Ground { control, library: library.to_owned(), data: data.to_owned() })
    }

    /// What a process on it must find in its environment.
    pub(crate) fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        vec![
            ("LD_PRELOAD", self.library.clone()),
            ("TRIAL_CONTROL", self.control.clone()),
            ("TRIAL_DATA", self.data.clone()),
        ]
    }

    /// It is as ill as this from now on.
    pub(crate) fn suffer(&self, illness: Illness) -> Result<()> {
        // in place: the node has the file mapped
        let control = OpenOptions::new().write(true).open(&self.control)?;
        Ok(control.write_all_at(&illness.bytes(), 0)?)
    }

    /// After the node was killed: of what it had written and not synced, each page is on the disk,
    /// or is as it was, or is torn between two sectors. How many pages are not what was written.
    pub(crate) fn lose_power(&self, dice: &mut StdRng) -> Result<usize> {
        let mut changed = 0;
        for number in 0.. {
            let mut name = self.control.clone().into_os_string();
            name.push(format!(".{number}"));
            let Ok(undo) = fs::read(&name) else { break };
            let Some((head, records)) = undo.split_at_checked(PAGE) else { continue };
            let path: Vec<u8> = head.iter().copied().take_while(|byte| *byte != 0).collect();
            let path = PathBuf::from(String::from_utf8(path).context("the path of a file")?);
            ensure!(path.starts_with(&self.data), "{} is not the node's", path.display());
            let Ok(file) = OpenOptions::new().read(true).write(true).open(&path) else { continue };
            for record in records.chunks_exact(8 + PAGE) {
                changed += usize::from(take_back(&file, record, dice)?);
            }
            file.sync_all()?;
            let _ = fs::remove_file(&name); // two power cuts of one node may overlap
        }
        Ok(changed)
    }
}

/// Takes one write back, or a part of it, or leaves it; whether the page has changed.
fn take_back(file: &File, record: &[u8], dice: &mut StdRng) -> Result<bool> {
    let (number, before) = record.split_at(8);
    let at = u64::from_ne_bytes(number.try_into()?) * PAGE as u64;
    let length = file.metadata()?.len();
    let end = usize::try_from(length.saturating_sub(at).min(PAGE as u64))?;
    let begin = match dice.random_range(0..4) {
        0 | 1 => return Ok(false),
        2 => 0,
        _ => dice.random_range(0..PAGE / SECTOR) * SECTOR,
    };
    if begin >= end {
        return Ok(false);
    }
    file.write_all_at(&before[begin..end], at + begin as u64)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn what_was_not_synced_may_be_lost_and_what_was_may_not() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        let ground = Ground::new(folder.path(), Path::new("none"), 0, &data).unwrap();
        let file = data.join("ledger.redb");
        fs::write(&file, [vec![1; PAGE], vec![2; PAGE], vec![2; PAGE / 2]].concat()).unwrap();
        let mut undo = vec![0; PAGE];
        undo[..file.as_os_str().len()].copy_from_slice(file.as_os_str().as_encoded_bytes());
        for page in 1..3_u64 {
            undo.extend_from_slice(&page.to_ne_bytes());
            undo.extend_from_slice(&[9; PAGE]);
        }
        let (mut lost, mut torn) = (false, false);
        for seed in 0..40 {
            fs::write(&file, [vec![1; PAGE], vec![2; PAGE], vec![2; PAGE / 2]].concat()).unwrap();
            fs::write(folder.path().join("0.control.0"), &undo).unwrap();
            ground.lose_power(&mut StdRng::seed_from_u64(seed)).unwrap();
            let after = fs::read(&file).unwrap();
            assert_eq!(after.len(), PAGE * 2 + PAGE / 2, "its length stays");
            assert!(after[..PAGE].iter().all(|byte| *byte == 1), "what was synced stays");
            let page = &after[PAGE..2 * PAGE];
            lost |= page.iter().all(|byte| *byte == 9);
            torn |= page.contains(&2) && page.contains(&9);
        }
        assert!(lost && torn, "lost {lost}, torn {torn}");
    }
}
