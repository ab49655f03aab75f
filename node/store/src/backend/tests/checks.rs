//! The promises, one after another.

use std::io;
use std::sync::Arc;

use rules::blobs::uploads::UploadId;
use rules::words::digest::{Algorithm, Digest};
use rules::words::names::NodeId;

use super::super::{Arrival, Backend, Filled, KeptUpload, ReadAt, Sum};
use super::{Bucket, Machine, Site};
use crate::{BlobBody, Buffers};

/// More than a part of a multipart upload.
const LONG: usize = 200_000;

/// Bytes that differ from place to place.
pub(super) fn content(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 7) as u8 ^ seed).collect()
}

pub(super) fn all_of(bytes: &dyn ReadAt) -> io::Result<Vec<u8>> {
    let (mut all, mut piece) = (Vec::new(), vec![0; 50_000]);
    loop {
        match bytes.read_at(&mut piece, all.len() as u64)? {
            0 => return Ok(all),
            read => all.extend_from_slice(&piece[..read]),
        }
    }
}

pub(super) async fn named(backend: &dyn Backend, bytes: &[u8]) -> Digest {
    let digest = Digest::sha256(bytes);
    let mut arrival = backend.arrive().unwrap();
    arrival.write(bytes).unwrap();
    arrival.sync().await.unwrap().name(digest).await.unwrap();
    digest
}

pub(super) async fn bytes_of(backend: &dyn Backend, digest: Digest) -> Option<Vec<u8>> {
    let opened = backend.open(digest).await.unwrap()?;
    let bytes = all_of(&*opened.bytes).unwrap();
    assert_eq!(opened.length, bytes.len() as u64);
    Some(bytes)
}

pub(super) async fn everything(backend: &dyn Backend) -> Vec<(Digest, u64)> {
    backend.list(None, usize::MAX).await.unwrap()
}

fn upload(number: u128) -> UploadId {
    UploadId::new(number, NodeId(7))
}

fn sum(count: u64, bytes: usize) -> Sum {
    Sum { count, bytes: bytes as u64 }
}

#[tokio::test]
async fn a_blob_is_there_once_it_has_its_name_and_not_before() {
    for site in Site::each() {
        let backend = site.backend();
        let bytes = content(1, LONG);
        let digest = Digest::sha256(&bytes);
        let nothing = async |backend: &dyn Backend| {
            assert!(backend.open(digest).await.unwrap().is_none());
            assert_eq!(backend.lengths(vec![digest]).await.unwrap(), [None]);
            assert_eq!(everything(backend).await, []);
        };
        let mut arrival = backend.arrive().unwrap();
        nothing(&*backend).await;
        for piece in bytes.chunks(33_000) {
            arrival.write(piece).unwrap();
        }
        assert_eq!(backend.arriving().unwrap(), sum(1, LONG));
        nothing(&*backend).await;
        let nameless = arrival.sync().await.unwrap();
        nothing(&*backend).await;
        nameless.name(digest).await.unwrap();
        assert_eq!(backend.arriving().unwrap(), sum(0, 0));
        for backend in [backend, site.backend()] {
            assert!(bytes_of(&*backend, digest).await.unwrap() == bytes);
            let other = Digest::of(Algorithm::Sha512, &bytes);
            let lengths = backend.lengths(vec![other, digest, digest]).await.unwrap();
            assert_eq!(lengths, [None, Some(LONG as u64), Some(LONG as u64)]);
            assert_eq!(everything(&*backend).await, [(digest, LONG as u64)]);
        }
    }
}

#[tokio::test]
async fn of_what_gets_no_name_nothing_is_left() {
    for site in Site::each() {
        let backend = site.backend();
        let bytes = content(2, LONG);
        for crash in [false, true] {
            let mut begun = backend.arrive().unwrap();
            begun.write(&bytes).unwrap();
            let mut whole = backend.arrive().unwrap();
            whole.write(&bytes).unwrap();
            let whole = whole.sync().await.unwrap();
            if crash {
                // a process that ends drops nothing
                std::mem::forget((begun, whole));
            } else {
                drop((begun, whole));
            }
        }
        assert_eq!(everything(&*backend).await, []);
        drop(backend);
        let backend = site.backend();
        assert_eq!((backend.arriving().unwrap(), everything(&*backend).await), (sum(0, 0), vec![]));
        if let Site::Bucket(_, machine) = &site {
            assert_eq!(machine.objects(), 0);
        }
    }
}

#[tokio::test]
async fn others_read_along_and_to_the_end_whatever_comes_of_it() {
    for site in Site::each() {
        let backend = site.backend();
        let bytes = content(3, LONG);
        for is_named in [true, false] {
            let mut arrival = backend.arrive().unwrap();
            let early = arrival.bytes();
            assert_eq!(all_of(&*early).unwrap(), b"");
            arrival.write(&bytes[..70_000]).unwrap();
            assert!(all_of(&*early).unwrap() == bytes[..70_000]);
            let late = arrival.bytes();
            arrival.write(&bytes[70_000..]).unwrap();
            let mut some = [0; 10];
            assert_eq!(late.read_at(&mut some, 69_995).unwrap(), 10);
            assert_eq!(some, bytes[69_995..70_005]);
            assert_eq!(late.read_at(&mut some, LONG as u64 - 4).unwrap(), 4, "where they end");
            assert_eq!(late.read_at(&mut some, LONG as u64 + 4).unwrap(), 0, "and behind it");
            let nameless = arrival.sync().await.unwrap();
            if is_named {
                nameless.name(Digest::sha256(&bytes)).await.unwrap();
            } else {
                drop(nameless);
            }
            assert!(all_of(&*early).unwrap() == bytes && all_of(&*late).unwrap() == bytes);
        }
    }
}

#[tokio::test]
async fn all_ways_to_read_read_the_same() {
    for site in Site::each() {
        let backend = site.backend();
        let bytes = content(4, LONG);
        let digest = named(&*backend, &bytes).await;
        let from = backend.open(digest).await.unwrap().unwrap().bytes;
        let parts = [(0, 1), (0, LONG), (LONG - 5, 5), (LONG - 5, 9), (LONG, 3), (9_999, 70_000)];
        for (at, length) in parts {
            let expected = &bytes[at..LONG.min(at + length)];
            let Filled { buffer, read } =
                from.clone().read(vec![9; LONG], length, at as u64).await.unwrap();
            assert!(buffer[..read] == *expected && buffer.len() == LONG, "{at} {length}");
            let mut buffer = vec![0; length];
            let read = from.read_at(&mut buffer, at as u64).unwrap();
            assert!(buffer[..read] == *expected, "{at} {length}");
            match from.read_ready(&mut buffer, at as u64) {
                Ok(0) => assert_eq!(expected.len(), 0),
                Ok(read) => assert!(buffer[..read] == expected[..read]),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
    }
}

#[tokio::test]
async fn one_digest_may_get_its_bytes_many_times() {
    for site in Site::each() {
        let backend = site.backend();
        let bytes = content(5, LONG);
        let digest = named(&*backend, &bytes).await;
        let reading = backend.open(digest).await.unwrap().unwrap().bytes;
        let again = (0..8).map(|_| named(&*backend, &bytes));
        futures::future::join_all(again).await;
        assert!(all_of(&*reading).unwrap() == bytes);
        assert!(bytes_of(&*backend, digest).await.unwrap() == bytes);
        assert_eq!(everything(&*backend).await, [(digest, LONG as u64)]);
        // what was there may have been damaged
        let mut arrival = backend.arrive().unwrap();
        arrival.write(b"short").unwrap();
        arrival.sync().await.unwrap().name(digest).await.unwrap();
        assert_eq!(bytes_of(&*backend, digest).await.unwrap(), b"short");
        named(&*backend, &bytes).await;
        assert!(bytes_of(&*backend, digest).await.unwrap() == bytes);
    }
}

#[tokio::test]
async fn arrivals_beside_each_other_do_not_mix() {
    for site in Site::each() {
        let backend = site.backend();
        let all: Vec<_> = (0..20).map(|seed| content(seed, LONG / 10)).collect();
        let mut arrivals: Vec<_> = all.iter().map(|_| backend.arrive().unwrap()).collect();
        for at in (0..LONG / 10).step_by(3000) {
            for (arrival, bytes) in arrivals.iter_mut().zip(&all) {
                arrival.write(&bytes[at..bytes.len().min(at + 3000)]).unwrap();
            }
        }
        assert_eq!(backend.arriving().unwrap(), sum(20, 2 * LONG));
        let end = async |arrival: Box<dyn Arrival>, bytes: &Vec<u8>| {
            arrival.sync().await.unwrap().name(Digest::sha256(bytes)).await.unwrap();
        };
        let ends = arrivals.into_iter().zip(&all).map(|(arrival, bytes)| end(arrival, bytes));
        futures::future::join_all(ends).await;
        for bytes in &all {
            assert!(bytes_of(&*backend, Digest::sha256(bytes)).await.unwrap() == *bytes);
        }
    }
}

#[tokio::test]
async fn what_is_removed_is_gone_for_all_but_those_who_read_it() {
    for site in Site::each() {
        let backend = site.backend();
        let bytes = content(6, LONG);
        let digest = named(&*backend, &bytes).await;
        let stays = named(&*backend, b"stays").await;
        let absent = Digest::sha256(b"absent");
        let reading = backend.open(digest).await.unwrap().unwrap().bytes;
        let other = backend.open(digest).await.unwrap().unwrap().bytes;
        for _ in 0..2 {
            backend.remove(vec![absent, digest, digest]).await.unwrap();
            assert!(backend.open(digest).await.unwrap().is_none());
            assert_eq!(backend.lengths(vec![digest, stays]).await.unwrap(), [None, Some(5)]);
            assert_eq!(everything(&*backend).await, [(stays, 5)]);
            assert!(all_of(&*reading).unwrap() == bytes);
        }
        drop(reading);
        assert!(all_of(&*other).unwrap() == bytes, "one more reads it");
        // it comes back while it is still read, and the end of that does not take it away
        named(&*backend, &bytes).await;
        drop(other);
        assert!(bytes_of(&*backend, digest).await.unwrap() == bytes);
        backend.remove(vec![digest]).await.unwrap();
        drop(backend);
        let backend = site.backend();
        assert_eq!(everything(&*backend).await, [(stays, 5)]);
    }
}

#[tokio::test]
async fn blobs_are_listed_in_order_from_any_position() {
    for site in Site::each() {
        let backend = site.backend();
        assert_eq!(everything(&*backend).await, []);
        let mut all = Vec::new();
        for seed in 0..40 {
            let bytes = content(seed, 10 + usize::from(seed));
            let algorithm = if seed % 3 == 0 { Algorithm::Sha512 } else { Algorithm::Sha256 };
            let digest = Digest::of(algorithm, &bytes);
            let mut arrival = backend.arrive().unwrap();
            arrival.write(&bytes).unwrap();
            arrival.sync().await.unwrap().name(digest).await.unwrap();
            all.push((digest, bytes.len() as u64));
        }
        all.sort_unstable();
        for most in [1, 2, 7, 39, 40, 41] {
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                let page = backend.list(after, most).await.unwrap();
                let Some((last, _)) = page.last() else { break };
                assert!(page.len() <= most);
                after = Some(*last);
                found.extend(page);
            }
            assert_eq!(found, all, "{most} at a time");
        }
        // a position need not be a blob
        for seed in 100..130 {
            let nowhere = Digest::of(Algorithm::Sha256, &[seed]);
            let next: Vec<_> = all.iter().filter(|(d, _)| *d > nowhere).take(3).copied().collect();
            assert_eq!(backend.list(Some(nowhere), 3).await.unwrap(), next);
        }
        // one that was removed is none either
        backend.remove(vec![all[20].0]).await.unwrap();
        assert_eq!(backend.list(Some(all[20].0), 2).await.unwrap(), all[21..23]);
        assert_eq!(backend.list(Some(all[19].0), 1).await.unwrap(), all[21..22]);
    }
}

#[tokio::test]
async fn the_empty_blob_is_a_blob() {
    for site in Site::each() {
        let backend = site.backend();
        let digest = Digest::sha256(b"");
        let arrival = backend.arrive().unwrap();
        arrival.sync().await.unwrap().name(digest).await.unwrap();
        assert_eq!(bytes_of(&*backend, digest).await.unwrap(), b"");
        assert_eq!(backend.lengths(vec![digest]).await.unwrap(), [Some(0)]);
        assert_eq!(everything(&*backend).await, [(digest, 0)]);
    }
}

#[tokio::test]
async fn bytes_of_uploads_rest_until_they_are_forgotten_or_a_blob() {
    for site in Site::each() {
        let [id, other] = [upload(1), upload(2)];
        let bytes = content(8, LONG);
        let backend = site.backend();
        let mut arrival = backend.begin_upload(&id, "a note\n").unwrap();
        arrival.write(&bytes[..70_000]).unwrap();
        let along = arrival.bytes();
        drop(arrival);
        std::mem::forget(backend.begin_upload(&other, "").unwrap());
        let kept = |id, note: &str, length| KeptUpload { id, note: note.into(), length };
        let listed = |backend: &dyn Backend| {
            let mut listed = backend.uploads().unwrap();
            listed.sort_by_key(|upload| upload.id);
            listed
        };
        let expected = [kept(id, "a note\n", 70_000), kept(other, "", 0)];
        assert_eq!(listed(&*backend), expected);
        assert_eq!(backend.arriving().unwrap(), sum(0, 0), "they are counted apart");
        drop(backend);

        let backend = site.backend();
        assert_eq!(listed(&*backend), expected);
        let mut arrival = backend.resume_upload(&id).unwrap();
        assert!(all_of(&*arrival.bytes()).unwrap() == bytes[..70_000]);
        arrival.write(&bytes[70_000..]).unwrap();
        assert!(all_of(&*along).unwrap().len() >= 70_000, "who read along reads on");
        drop(arrival);
        assert_eq!(listed(&*backend)[0].length, LONG as u64);
        let arrival = backend.resume_upload(&id).unwrap();
        let digest = Digest::sha256(&bytes);
        arrival.sync().await.unwrap().name(digest).await.unwrap();
        assert!(bytes_of(&*backend, digest).await.unwrap() == bytes);
        assert_eq!(listed(&*backend), expected[1..]);
        // its note is forgotten, or removed as what a crash left
        backend.forget_upload(&other).unwrap();
        backend.forget_upload(&other).unwrap();
        for backend in [backend, site.backend()] {
            assert_eq!(listed(&*backend), []);
            for id in [id, other] {
                assert!(backend.resume_upload(&id).is_err());
            }
            assert!(bytes_of(&*backend, digest).await.unwrap() == bytes);
        }
    }
}

#[tokio::test]
async fn an_upload_that_was_whole_and_got_no_name_is_gone() {
    for site in Site::each() {
        let backend = site.backend();
        let mut arrival = backend.begin_upload(&upload(1), "note").unwrap();
        arrival.write(b"whole").unwrap();
        drop(arrival.sync().await.unwrap());
        assert_eq!(backend.uploads().unwrap(), []);
        assert!(backend.resume_upload(&upload(1)).is_err());
        backend.forget_upload(&upload(1)).unwrap();
    }
}

#[tokio::test]
async fn lists_of_groups_come_and_go_without_their_blobs() {
    for site in Site::each() {
        let backend = site.backend();
        let (digest, other) = (Digest::sha256(b"a"), Digest::of(Algorithm::Sha512, b"a"));
        assert_eq!(backend.outboard(digest).await.unwrap(), None);
        for list in [content(1, LONG), b"short".to_vec(), Vec::new(), content(2, 100)] {
            backend.keep_outboard(digest, list.clone()).await.unwrap();
            assert_eq!(backend.outboard(digest).await.unwrap(), Some(list));
        }
        assert_eq!(backend.outboard(other).await.unwrap(), None);
        assert_eq!(everything(&*backend).await, []);
        let backend = site.backend();
        assert_eq!(backend.outboard(digest).await.unwrap().map(|list| list.len()), Some(100));
        backend.keep_outboard(other, b"x".to_vec()).await.unwrap();
        for _ in 0..2 {
            backend.drop_outboards(vec![other, digest]).await.unwrap();
            assert_eq!(backend.outboard(digest).await.unwrap(), None);
            assert_eq!(backend.outboard(other).await.unwrap(), None);
        }
    }
}

#[tokio::test]
async fn a_program_gets_a_file_that_stays_or_is_told_that_there_is_none() {
    for site in Site::each() {
        let backend = site.backend();
        let bytes = content(9, LONG);
        let digest = named(&*backend, &bytes).await;
        let opened = backend.open(digest).await.unwrap().unwrap();
        let file = site.folder().join("for-a-program");
        if opened.bytes.link(&file).unwrap() {
            backend.remove(vec![digest]).await.unwrap();
            assert!(std::fs::read(&file).unwrap() == bytes);
            assert!(opened.bytes.link(&file).is_err(), "nothing is replaced");
        } else {
            assert!(!file.exists());
        }
    }
}

#[tokio::test]
async fn room_is_no_more_than_there_is() {
    for site in Site::each() {
        if let Some(space) = site.backend().space() {
            assert!(space.free <= space.all && space.all > 0);
        }
    }
}

/// Each request in turn is the first that gets no answer, and the process ends right after it.
#[tokio::test]
async fn whatever_request_fails_a_blob_is_whole_or_not_there() {
    let bytes = content(10, LONG);
    let digest = Digest::sha256(&bytes);
    let mut whole = 0;
    for answered in 0.. {
        let machine = Machine::default();
        let bucket = Bucket::open(&machine);
        bucket.fail_after(answered);
        let bucket: Arc<dyn Backend> = Arc::new(bucket);
        let mut arrival = bucket.arrive().unwrap();
        arrival.write(&bytes).unwrap();
        let named = match arrival.sync().await {
            Ok(nameless) => nameless.name(digest).await.is_ok(),
            Err(_) => false,
        };
        let left = machine.after_a_crash();
        let bucket: Arc<dyn Backend> = Arc::new(Bucket::open(&left));
        let found = bytes_of(&*bucket, digest).await;
        assert!(found.as_ref().is_none_or(|found| *found == bytes));
        assert_eq!(found.is_some(), left.objects() == 1, "nothing else is left");
        if named {
            assert!(found.is_some(), "what was told to be there is there");
            whole += 1;
            if whole == 2 {
                assert!(answered > 5, "only {answered} requests");
                return;
            }
        }
    }
}

/// A disk has no requests, but a name may be refused.
#[tokio::test]
async fn a_name_that_a_disk_refuses_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Backend> = Arc::new(super::Disk::open(folder.path()).unwrap());
    let digest = Digest::sha256(b"refused");
    let hex = digest.hex();
    let place = folder.path().join("blobs/sha256").join(&hex[..2]).join(&hex);
    std::fs::create_dir_all(place.join("in the way")).unwrap();
    let mut arrival = disk.begin_upload(&upload(1), "note").unwrap();
    arrival.write(b"refused").unwrap();
    assert!(arrival.sync().await.unwrap().name(digest).await.is_err());
    assert_eq!(disk.uploads().unwrap(), []);
    std::fs::remove_dir_all(&place).unwrap();
    assert_eq!(everything(&*disk).await, []);
    // and what is no blob is not taken for one
    std::fs::write(place.with_file_name("notes.txt"), b"x").unwrap();
    std::fs::create_dir_all(folder.path().join("blobs/sha256/zz")).unwrap();
    std::fs::write(folder.path().join("blobs/sha256/zz").join(&hex), b"x").unwrap();
    std::fs::write(folder.path().join("blobs/sha512/note"), b"x").unwrap();
    assert_eq!(everything(&*disk).await, []);
}

#[tokio::test]
async fn what_is_beyond_four_gibibytes_is_read_as_well() {
    use std::os::unix::fs::FileExt;
    const FAR: u64 = 5 << 30;
    let folder = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Backend> = Arc::new(super::Disk::open(folder.path()).unwrap());
    let digest = named(&*disk, b"begins").await;
    let hex = digest.hex();
    let place = folder.path().join("blobs/sha256").join(&hex[..2]).join(&hex);
    let file = std::fs::File::options().write(true).open(&place).unwrap();
    // all between is a hole
    file.write_all_at(b"far away", FAR).unwrap();
    assert_eq!(disk.lengths(vec![digest]).await.unwrap(), [Some(FAR + 8)]);
    let opened = disk.open(digest).await.unwrap().unwrap();
    let mut bytes = [0; 20];
    assert_eq!(opened.bytes.read_at(&mut bytes, FAR - 2).unwrap(), 10);
    assert_eq!(&bytes[..10], b"\0\0far away");
    let Filled { buffer, read } = opened.bytes.clone().read(vec![1; 4], 4, FAR).await.unwrap();
    assert_eq!((&buffer[..], read), (&b"far "[..], 4));
    let mut body = BlobBody::whole(opened.bytes, FAR + 4..FAR + 8, &Buffers::default());
    assert_eq!(body.next().await.unwrap().unwrap(), &b"away"[..]);
}
