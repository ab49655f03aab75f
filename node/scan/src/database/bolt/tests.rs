//! Files of the tests' writer, which trivy reads, too; whole and broken.

use std::io::Write;

use proptest::prelude::*;

use super::*;
use crate::bolt as writer;

fn opened(bytes: &[u8]) -> Result<Bolt, DatabaseError> {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(bytes).expect("it takes bytes");
    Bolt::open(file)
}

/// All that is in a bucket and below, read by walking, with each key looked up as well.
fn read(bolt: &Bolt, bucket: &Bucket) -> Result<writer::Bucket, DatabaseError> {
    let mut found = Vec::new();
    bolt.each(bucket, &mut |key, entry| {
        found.push((
            key.to_vec(),
            match entry {
                Entry::Value(value) => Err(value.to_vec()),
                Entry::Bucket(bucket) => Ok(bucket),
            },
        ));
        ControlFlow::Continue(())
    })?;
    let mut whole = writer::Bucket::new();
    for (key, entry) in found {
        let entry = match entry {
            Err(value) => {
                assert_eq!(bolt.value(bucket, &key)?.as_ref(), Some(&value));
                writer::Entry::Value(value)
            }
            Ok(inner) => {
                let again = bolt.bucket(bucket, &key)?.expect("it is there");
                assert_eq!(format!("{again:?}"), format!("{inner:?}"));
                writer::Entry::Bucket(read(bolt, &inner)?)
            }
        };
        whole.insert(key, entry);
    }
    Ok(whole)
}

fn large() -> writer::Bucket {
    let mut root = writer::Bucket::new();
    for number in 0..3000 {
        let (package, id) = (format!("p{}", number % 700), format!("CVE-{number}"));
        writer::put(&mut root, &["debian 12", &package], &id, b"{}".to_vec());
        writer::put(&mut root, &["vulnerability"], &id, vec![b'x'; number % 9000]);
    }
    root
}

#[test]
fn what_was_written_is_read() {
    let root = large();
    let bolt = opened(&writer::file(&root)).expect("a bolt file");
    assert!(read(&bolt, &bolt.root()).expect("whole") == root);
    for missing in ["", "CVE-", "CVE-1x", "zzz"] {
        let bucket = bolt.bucket(&bolt.root(), b"vulnerability").expect("whole");
        let value = bolt.value(&bucket.expect("there"), missing.as_bytes());
        assert_eq!(value.expect("whole"), None, "{missing}");
    }
}

#[test]
fn a_file_without_its_first_meta_is_read_by_its_second() {
    let root = large();
    let mut bytes = writer::file(&root);
    bytes[..4096].fill(0);
    let bolt = opened(&bytes).expect("a bolt file");
    assert!(read(&bolt, &bolt.root()).expect("whole") == root);
    bytes[4096..8192].fill(0);
    assert!(matches!(opened(&bytes), Err(DatabaseError::Damaged(_))));
}

/// What can be reached by following buckets, without believing that it is right.
fn wander(bolt: &Bolt, bucket: &Bucket, depth: usize) {
    let mut inside = Vec::new();
    let _ = bolt.each(bucket, &mut |key, entry| {
        if let Entry::Bucket(one) = entry {
            inside.push((key.to_vec(), one));
        }
        if inside.len() > 30 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let _ = bolt.value(bucket, b"CVE-7");
    for (key, one) in inside.into_iter().take(if depth > 0 { 30 } else { 0 }) {
        let _ = bolt.bucket(bucket, &key);
        wander(bolt, &one, depth - 1);
    }
}

#[test]
fn a_tree_that_leads_back_into_itself_ends() {
    let mut bytes = writer::file(&large());
    // each child of a branch becomes the page itself
    for page in 4..bytes.len() / 4096 {
        let at = page * 4096;
        if bytes[at + 8] == 1 {
            let count = usize::from(u16::from_le_bytes([bytes[at + 10], bytes[at + 11]]));
            for element in 0..count {
                let child = at + 16 + element * 16 + 8;
                bytes[child..child + 8].copy_from_slice(&(page as u64).to_le_bytes());
            }
        }
    }
    let bolt = opened(&bytes).expect("the metas are right");
    let top = bolt.bucket(&bolt.root(), b"vulnerability").expect("whole").expect("there");
    assert!(matches!(bolt.value(&top, b"CVE-7"), Err(DatabaseError::Damaged(_))));
    let walked = bolt.each(&top, &mut |_, _| ControlFlow::Continue(()));
    assert!(matches!(walked, Err(DatabaseError::Damaged(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn broken_files_end_in_an_error_or_are_read(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        static FILE: std::sync::LazyLock<Vec<u8>> =
            std::sync::LazyLock::new(|| writer::file(&large()));
        let mut bytes = FILE.clone();
        for (at, byte) in changes {
            // after the metas, or nearly all would end at their sums
            let at = 8192 + at.index(bytes.len() - 8192);
            // most of a page is values: the entries are at its beginning
            let at = if byte % 2 == 0 { at - at % 4096 + at % 64 } else { at };
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(8192 + cut.index(bytes.len() - 8192));
        }
        if let Ok(bolt) = opened(&bytes) {
            wander(&bolt, &bolt.root(), 2);
        }
    }

    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(opened(&bytes).is_err());
    }
}
