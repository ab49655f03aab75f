use super::rig::Rig;
use super::*;

use rules::blobs::scrubbing::Position;

const A_MINUTE: Duration = Duration::from_secs(60);

/// A store with one blob, which was uploaded into `demo/a`.
async fn store_with(rig: &Rig, bytes: &[u8]) -> (Arc<Store>, Digest) {
    let store = rig.store(None);
    let digest = Digest::sha256(bytes);
    let repository: RepositoryName = "demo/a".parse().unwrap();
    let grant = Some((&repository, A_MINUTE));
    store.seal(store.ingested(bytes), digest, grant).await.unwrap();
    (store, digest)
}

#[tokio::test]
async fn all_blobs_can_be_read_one_after_the_other_and_a_restart_goes_on_there() {
    for rig in Rig::each() {
        let (store, digest) = store_with(&rig, b"hello").await;
        let mut all = vec![digest];
        for text in [&b"a"[..], b"b", b"c"] {
            all.push(store.kept(text).await);
        }
        all.sort_by_key(Digest::to_key);
        let mut position = store.scrub_position();
        assert_eq!(position, Position::default());
        let mut found = Vec::new();
        let pause = |_| Duration::ZERO;
        while let [(digest, size)] = store.held_after(position.after.as_ref(), 1).unwrap()[..] {
            let sound = store.is_sound_slowly(&digest, pause).await.unwrap() == Some(true);
            position.read(digest, size, sound);
            store.note_scrub_position(&position).unwrap();
            assert_eq!(store.scrub_position(), position);
            found.push(digest);
        }
        assert_eq!(found, all);
        assert_eq!((position.blobs, position.bytes, position.damaged), (4, 8, 0));
        store.overwrite(digest, b"hullo").await;
        assert_eq!(store.is_sound_slowly(&digest, pause).await.unwrap(), Some(false));
        store.lose(digest).await;
        assert_eq!(store.is_sound_slowly(&digest, pause).await.unwrap(), None);
        std::fs::write(rig.folder().join("scrub"), b"\xff").unwrap();
        assert_eq!(store.scrub_position(), Position::default());
    }
}

#[tokio::test]
async fn whether_an_ingest_is_whole_can_be_asked_before_it_is_sealed() {
    for rig in Rig::each() {
        let store = rig.store(None);
        for (bytes, whole) in [(b"hello", true), (b"hullo", false)] {
            let mut ingest = store.ingested(bytes);
            let digest = Digest::sha256(b"hello");
            assert_eq!((ingest.is_whole(&digest), ingest.is_whole(&digest)), (whole, whole));
            assert_eq!(store.seal(ingest, digest, None).await.is_ok(), whole);
        }
    }
}

#[tokio::test]
async fn free_space_is_told_while_there_is_a_file_system() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), None, &Opening::default()).unwrap();
    assert!(store.free_on_disk().is_some_and(|free| free > 0));
    drop(folder);
    assert_eq!(store.free_on_disk(), None);
}

#[tokio::test]
async fn a_sealed_blob_is_held_over_a_restart_and_granted_only_where_it_was_uploaded() {
    for rig in Rig::each() {
        let (store, digest) = store_with(&rig, b"hello").await;
        drop(store);
        let store = rig.store(None);
        let stock = store.stock(&digest, Some(&"demo/a".parse().unwrap())).await.unwrap();
        assert!(stock.granted);
        assert_eq!(stock.held.unwrap().size, 5);
        assert!(!store.granted(&digest, &"demo/b".parse().unwrap()).unwrap());
        assert!(store.ended_grants(10).unwrap().is_empty());
        assert!(store.revoke(digest, &"demo/a".parse().unwrap()).await.unwrap());
        assert!(!store.granted(&digest, &"demo/a".parse().unwrap()).unwrap());
        assert!(!store.revoke(digest, &"demo/a".parse().unwrap()).await.unwrap(), "once");
        // otherwise nobody would ever report its blob, which stayed until all blobs were read again
        let ended = store.ended_grants(10).unwrap();
        assert_eq!(ended.iter().map(|(_, of)| *of).collect::<Vec<_>>(), [digest]);
    }
}

#[tokio::test]
async fn wrong_bytes_are_not_kept() {
    for rig in Rig::each() {
        let store = rig.store(None);
        let (ingest, expected) = (store.ingested(b"hello"), Digest::sha256(b"other"));
        assert!(matches!(store.seal(ingest, expected, None).await, Err(StoreError::Digest { .. })));
        assert!(store.held(&expected).unwrap().is_none());
        assert_eq!(store.backend.arriving().unwrap().count, 0);
    }
}

#[tokio::test]
async fn a_blob_named_by_sha512_is_checked_by_sha512() {
    for rig in Rig::each() {
        let store = rig.store(None);
        for (bytes, right) in [(b"hullo", false), (b"hello", true)] {
            let digest = Digest::of(Algorithm::Sha512, b"hello");
            assert_eq!(store.seal(store.ingested(bytes), digest, None).await.is_ok(), right);
            assert_eq!(store.open_blob(&digest).await.unwrap().is_some(), right);
        }
    }
}

#[tokio::test]
async fn the_budget_evicts_the_least_recently_used_but_nothing_kept_and_nothing_being_read() {
    for rig in Rig::each() {
        let store = rig.store(Some(250));
        let kept = store.kept(&[9; 1000]).await;
        let first = store.kept_cached(&[1; 100]).await;
        let reading = store.open_blob(&first).await.unwrap().unwrap();
        let second = store.kept_cached(&[2; 100]).await;
        assert_eq!(store.cached(), (2, 200, Some(250)));
        let third = store.kept_cached(&[3; 100]).await;
        assert!(store.held(&second).unwrap().is_none() && !store.has_bytes(second).await);
        assert!(store.held(&first).unwrap().is_some() && store.held(&third).unwrap().is_some());
        assert!(store.held(&kept).unwrap().is_some());
        drop(reading);
        store.make_room(100).await.unwrap();
        assert!(store.held(&first).unwrap().is_none());
        assert!(store.open_blob(&first).await.unwrap().is_none());
        assert!(store.stock(&third, None).await.unwrap().cached);
        store.keep(&third).await.unwrap();
        store.make_room(250).await.unwrap();
        assert!(store.held(&third).unwrap().is_some());
        assert!(!store.stock(&third, None).await.unwrap().cached);
    }
}

/// Else the reading of all blobs would make the next one to evict a matter of digests.
#[tokio::test]
async fn to_check_a_cached_blob_is_no_use_of_it() {
    for rig in Rig::each() {
        let store = rig.store(Some(250));
        let mut known = Vec::new();
        for byte in [1, 2] {
            known.push(store.kept_cached(&[byte; 100]).await);
            // times are in milliseconds
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        assert!(store.is_sound(&known[0]).await.unwrap());
        store.kept_cached(&[3; 100]).await;
        assert!(store.held(&known[0]).unwrap().is_none(), "it is the least recently used");
        assert!(store.held(&known[1]).unwrap().is_some());
    }
}

#[tokio::test]
async fn room_that_was_reserved_is_not_reserved_again_until_it_is_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), None, &Opening::default()).unwrap();
    let (free, all) = store.room.free().unwrap();
    let ingest = || store.ingest(Algorithm::Sha256).unwrap();
    let full = |result: Result<Ingest, StoreError>| matches!(result, Err(StoreError::Disk(e)) if e.kind() == std::io::ErrorKind::StorageFull);
    // larger than the disk, as somebody may say that a blob is
    assert!(full(store.reserve(ingest(), u64::MAX).await));
    assert!(full(store.reserve(ingest(), all + 1).await));
    let most = free / 3 * 2;
    let first = store.reserve(ingest(), most).await.unwrap();
    assert!(full(store.reserve(ingest(), most).await), "it is promised to another");
    assert!(store.reserve(ingest(), 1000).await.is_ok(), "what is left is for others");
    drop(first);
    let mut second = store.reserve(ingest(), most).await.unwrap();
    second.write(&[1; 1000]).unwrap();
    assert!(store.reserve(second, most).await.is_ok(), "it has its room already");
}

#[tokio::test]
async fn what_is_cached_is_known_over_a_restart_and_an_upload_makes_it_kept() {
    for rig in Rig::each() {
        let store = rig.store(Some(1000));
        let (a, b) = (store.kept_cached(&[1; 100]).await, store.kept_cached(&[2; 100]).await);
        store.open_blob(&a).await.unwrap();
        store.note_uses().await.unwrap();
        assert_eq!(store.kept(&[2; 100]).await, b);
        drop(store);
        let store = rig.store(Some(120));
        assert_eq!(store.cached(), (1, 100, Some(120)));
        store.make_room(50).await.unwrap();
        assert!(store.held(&a).unwrap().is_none() && store.held(&b).unwrap().is_some());
    }
}

#[tokio::test]
async fn lost_bytes_are_noticed_and_no_longer_held() {
    for rig in Rig::each() {
        let (store, digest) = store_with(&rig, b"hello").await;
        store.lose(digest).await;
        assert!(store.open_blob(&digest).await.unwrap().is_none());
        assert!(store.held(&digest).unwrap().is_none());
        assert_eq!(store.kept_cached(b"hello").await, digest);
        let stock = store.stock(&digest, None).await.unwrap();
        assert!(!stock.cached, "it was kept for good before it was lost");
    }
}

#[tokio::test]
async fn what_was_uploaded_while_it_was_fetched_for_a_pull_is_kept() {
    for rig in Rig::each() {
        let (store, digest) = store_with(&rig, b"hello").await;
        assert_eq!(store.kept_cached(b"hello").await, digest);
        assert!(!store.stock(&digest, None).await.unwrap().cached);
        assert_eq!(store.cached().0, 0);
    }
}

#[tokio::test]
async fn clients_are_not_given_what_is_damaged_until_it_was_replaced() {
    for rig in Rig::each() {
        let (store, digest) = store_with(&rig, b"hello").await;
        store.note_damaged(&digest);
        drop(store);
        let store = rig.store(None);
        assert!(store.open_sound(&digest).await.unwrap().is_none(), "it is not forgotten");
        assert!(store.open_blob(&digest).await.unwrap().is_some(), "peers check what they get");
        store.kept_cached(b"hello").await;
        assert!(store.open_sound(&digest).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn bytes_that_nobody_believes_in_are_removed() {
    for rig in Rig::each() {
        let (store, digest) = store_with(&rig, b"hello").await;
        let stray = Digest::sha256(b"stray");
        store.overwrite(stray, b"stray").await;
        assert_eq!(store.remove_strays().await.unwrap(), 1);
        assert!(!store.has_bytes(stray).await);
        assert!(store.open_blob(&digest).await.unwrap().is_some());
        assert_eq!(store.remove_strays().await.unwrap(), 0);
        store.forget(digest).await.unwrap();
        let removed = store.remove_strays().await.unwrap();
        assert_eq!(removed, 0, "an index without any blob may be a new one");
        assert!(store.has_bytes(digest).await);
    }
}

#[tokio::test]
async fn what_is_larger_than_the_budget_takes_nothing_elses_place() {
    for rig in Rig::each() {
        let store = rig.store(Some(250));
        let small = store.kept_cached(&[1; 100]).await;
        store.make_room(300).await.unwrap();
        let large = store.kept_cached(&[2; 300]).await;
        assert!(store.held(&small).unwrap().is_some() && store.held(&large).unwrap().is_none());
        assert_eq!(store.cached(), (1, 100, Some(250)));
    }
}

#[tokio::test]
async fn what_was_granted_in_a_project_is_not_in_a_later_one_of_that_name() {
    use std::sync::atomic::{AtomicU64, Ordering};
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), None, &Opening::default()).unwrap();
    let number = Arc::new(AtomicU64::new(7));
    let now = number.clone();
    store.know_projects(Box::new(move |_| {
        Some(now.load(Ordering::Relaxed)).filter(|number| *number > 0)
    }));
    let (place, other) = ("vault/keys".parse().unwrap(), "vaults/keys".parse().unwrap());
    let digests = [b"a", b"b"].map(|bytes| Digest::sha256(bytes));
    let lasts = A_MINUTE;
    for repository in [&place, &other] {
        store.grant(digests[0], repository, lasts).await.unwrap();
        assert!(store.granted(&digests[0], repository).unwrap());
    }
    for later in [0, 8] {
        number.store(later, Ordering::Relaxed);
        assert!(!store.granted(&digests[0], &place).unwrap());
        assert!(!store.granted_within(&digests[0], &place.project()).unwrap());
    }
    // nor after something was granted in the later one, which does not prolong it either
    store.grant(digests[1], &place, lasts).await.unwrap();
    store.extend_grants(&place, lasts * 2).await.unwrap();
    assert!(store.granted(&digests[1], &place).unwrap());
    assert!(!store.granted(&digests[0], &place).unwrap());
    assert_eq!(store.ended_grants(9).unwrap().len(), 1, "its blob can be collected");
    number.store(7, Ordering::Relaxed);
    assert!(store.granted(&digests[0], &other).unwrap(), "another project has what it had");
}

/// The layout on the disk is a promise to later builds.
#[tokio::test]
async fn a_blob_has_the_place_on_the_disk_that_it_always_had() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), None, &Opening::default()).unwrap();
    let bytes = vec![7; 200 << 10];
    let digest = store.kept(&bytes).await;
    let other = Digest::of(Algorithm::Sha512, b"other");
    store.seal(store.ingested(b"other"), other, None).await.unwrap();
    let read = |kind: &str, digest: &Digest| {
        let (algorithm, hex) = (digest.algorithm().name(), digest.hex());
        std::fs::read(folder.path().join(kind).join(algorithm).join(&hex[..2]).join(hex)).ok()
    };
    assert!(read("blobs", &digest) == Some(bytes));
    assert_eq!(read("blobs", &other).unwrap(), b"other");
    assert_eq!(read("outboards", &digest).map(|list| list.len()), Some(4 * 32));
    let mut there: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    there.sort_unstable();
    assert_eq!(there, ["arriving", "blobs", "damaged", "outboards", "store.redb", "uploads"]);
}

#[tokio::test]
async fn a_program_gets_a_file_of_any_blob() {
    for rig in Rig::each() {
        let bytes = vec![3; 150 << 10];
        let (store, digest) = store_with(&rig, &bytes).await;
        let open = store.open_blob(&digest).await.unwrap().unwrap();
        let place = rig.folder().join("for-a-program");
        open.place(&place).unwrap();
        assert!(std::fs::read(&place).unwrap() == bytes);
        assert!(open.place(&place).is_err(), "nothing is replaced");
        let mut read = Vec::new();
        let mut reader = open.reader();
        std::io::Read::read_to_end(&mut reader, &mut read).unwrap();
        assert!(read == bytes && reader.position() == bytes.len() as u64);
        assert!(open.read_exact_at(&mut [0; 2], bytes.len() as u64 - 1).is_err());
    }
}
