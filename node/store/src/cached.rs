//! What a replica has cached of proxy projects apart from blobs: manifests, what tags named last,
//! and what follows from them ([`rules::ledger::cached`]). It is in a database of its own, so that
//! nothing is lost but a cache if that is lost.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ground::clock;
use ground::grouped::Grouped;
use ground::opening::Opening;
use parking_lot::Mutex;
use redb::{ReadableDatabase, ReadableTable, Table, TableDefinition};
use rules::ledger::cached::{self, CachedManifest, Origin};
use rules::ledger::records::{Pair, ReadRecords, RecordError, TagRecord, WriteRecords};
use rules::proxies::shelf::{Shelf, ShelfTerms};
use rules::words::digest::Digest;
use rules::words::moment::Timestamp;
use rules::words::names::{Reference, RepositoryName, Tag};

use super::StoreError;

/// The records. A key begins with its origin.
const RECORDS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("cached-records-1");
/// From the place of a manifest to its last use, in ms since the epoch, and its size.
const USED: TableDefinition<'static, &[u8], (u64, u64)> = TableDefinition::new("cached-used-1");

/// The size of redb's cache in bytes.
const CACHE: usize = 8 << 20;
/// How far indexes that list indexes are followed.
const DEEP: u32 = 2;
/// From so many manifests on that indexes list, those that these list are not looked for.
const MOST_LISTED: usize = 10_000;
/// The number of manifests that are removed at a time, so that other writes need not wait long.
const PIECE: usize = 200;

/// A manifest's origin and place.
type Place = (Origin, Vec<u8>);

/// A manifest, and what tags that named it are known to name, and when.
pub type Tagged = (CachedManifest, Vec<(Tag, TagRecord)>);

/// The records that this replica has cached.
pub struct CachedRecords {
    file: Grouped,
    shelf: Mutex<Shelf<Origin, Vec<u8>>>,
    /// Manifests that were used, and whose use is not written down yet.
    used: Mutex<HashMap<Place, Timestamp>>,
    /// Held by the task that evicts.
    evicting: tokio::sync::Mutex<()>,
}

fn cache_error(error: impl std::fmt::Display) -> StoreError {
    StoreError::Cached(error.to_string())
}

fn record_error(error: impl std::fmt::Display) -> RecordError {
    RecordError(error.to_string())
}

fn storage(error: RecordError) -> redb::Error {
    redb::Error::Io(std::io::Error::other(error.to_string()))
}

impl CachedRecords {
    /// Opens the cache in `data_dir`. A file that cannot be read is replaced by an empty one. At
    /// most `each` manifests are cached for each project, in a part of `budget` bytes.
    pub fn open(
        data_dir: &Path,
        budget: Option<u64>,
        each: usize,
        opening: &Opening,
    ) -> Result<Arc<Self>, StoreError> {
        opening.begin("the cache of manifests (cached.redb)");
        Self::open_with(data_dir, ShelfTerms::within(budget, each), opening)
    }

    fn open_with(
        data_dir: &Path,
        terms: ShelfTerms,
        opening: &Opening,
    ) -> Result<Arc<Self>, StoreError> {
        let path = data_dir.join("cached.redb");
        let open = || {
            Grouped::open(&path, "store-cached", CACHE, opening, |write| {
                write.open_table(RECORDS)?;
                write.open_table(USED)?;
                Ok(())
            })
        };
        let file = match open() {
            Ok(file) => file,
            Err(error) if path.is_file() => {
                tracing::warn!(%error, "what was cached of manifests (cached.redb in data_dir) cannot be read; the cache begins empty");
                std::fs::remove_file(&path)?;
                open()?
            }
            Err(error) => return Err(error.into()),
        };
        let mut shelf = Shelf::new(terms);
        {
            let read = file.database().begin_read().map_err(cache_error)?;
            let used = read.open_table(USED).map_err(cache_error)?;
            for pair in used.iter().map_err(cache_error)? {
                let (place, value) = pair.map_err(cache_error)?;
                let (at, size) = value.value();
                if let Some(origin) = Origin::at_the_beginning(place.value()) {
                    shelf.add(origin, place.value().to_vec(), size, Timestamp(at));
                }
            }
        }
        let cached = CachedRecords {
            file,
            shelf: Mutex::new(shelf),
            used: Mutex::default(),
            evicting: tokio::sync::Mutex::default(),
        };
        cached.show();
        Ok(Arc::new(cached))
    }

    fn show(&self) {
        let (manifests, bytes) = self.totals();
        metrics::gauge!("atoll_cache_manifests").set(manifests as f64);
        metrics::gauge!("atoll_cache_manifest_bytes").set(bytes as f64);
    }

    /// Whether the cache takes no write, not even an empty one.
    pub async fn is_broken(&self) -> bool {
        self.file.has_failed().await
    }

    /// The number of cached manifests, and of their bytes.
    pub fn totals(&self) -> (usize, u64) {
        let shelf = self.shelf.lock();
        (shelf.manifests(), shelf.bytes())
    }

    /// A consistent view of the records. Keys begin with their origin.
    pub fn view(&self) -> Result<CachedView, RecordError> {
        let read = self.file.database().begin_read().map_err(record_error)?;
        Ok(CachedView { table: read.open_table(RECORDS).map_err(record_error)? })
    }

    async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Written<'_>) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let run = move |write: &redb::WriteTransaction| {
            let (records, used) = (write.open_table(RECORDS)?, write.open_table(USED)?);
            job(&mut Written { records: RecordTable(records), used })
        };
        self.file.write(run).await.map_err(cache_error)
    }

    /// Caches manifests, each with what tags named it, and when. They are durable and readable when
    /// this returns. What is newer already stays.
    pub async fn keep(
        &self,
        origin: Origin,
        manifests: Vec<Tagged>,
        used: impl Fn(&CachedManifest) -> Timestamp + Send + 'static,
    ) -> Result<(), StoreError> {
        let kept = self
            .write(move |to| {
                let mut kept = Vec::with_capacity(manifests.len());
                for (manifest, tags) in &manifests {
                    let repository = manifest.repository();
                    cached::keep(&mut to.records, origin, manifest).map_err(storage)?;
                    for (tag, said) in tags {
                        cached::keep_tag(&mut to.records, origin, repository, tag, said)
                            .map_err(storage)?;
                    }
                    let (place, size) = (manifest.place(origin), manifest.size());
                    let before = to.used.get(place.as_slice())?.map(|value| value.value().0);
                    let used = Timestamp(before.unwrap_or(0).max(used(manifest).0));
                    to.used.insert(place.as_slice(), (used.0, size))?;
                    kept.push((place, size, used));
                }
                Ok(kept)
            })
            .await?;
        {
            let mut shelf = self.shelf.lock();
            for (place, size, used) in kept {
                shelf.add(origin, place, size, used);
            }
        }
        self.evict_if_full().await
    }

    /// Notes what a tag of a cached manifest names.
    pub async fn keep_tag(
        &self,
        origin: Origin,
        repository: RepositoryName,
        tag: Tag,
        said: TagRecord,
    ) -> Result<(), StoreError> {
        let news =
            self.view().and_then(|view| cached::is_news(&view, origin, &repository, &tag, &said));
        if !news.map_err(cache_error)? {
            return Ok(());
        }
        let write = self.write(move |to| {
            cached::keep_tag(&mut to.records, origin, &repository, &tag, &said).map_err(storage)
        });
        write.await
    }

    /// Notes what many tags of cached manifests name.
    pub async fn keep_tags(
        &self,
        origin: Origin,
        repository: RepositoryName,
        tags: Vec<(Tag, TagRecord)>,
    ) -> Result<(), StoreError> {
        self.write(move |to| {
            for (tag, said) in &tags {
                cached::keep_tag(&mut to.records, origin, &repository, tag, said)
                    .map_err(storage)?;
            }
            Ok(())
        })
        .await
    }

    /// Forgets a tag, or a manifest with the tags that name it. Returns whether there was one.
    pub async fn forget(
        &self,
        origin: Origin,
        repository: RepositoryName,
        reference: Reference,
    ) -> Result<bool, StoreError> {
        let place = match &reference {
            Reference::Digest(digest) => {
                Some(cached::place_of_manifest(origin, &repository, digest))
            }
            Reference::Tag(_) => None,
        };
        let gone = place.clone();
        let was_there = self
            .write(move |to| {
                if let Some(place) = &gone {
                    to.used.remove(place.as_slice())?;
                }
                cached::forget(&mut to.records, origin, &repository, &reference).map_err(storage)
            })
            .await?;
        if let Some(place) = place {
            self.shelf.lock().remove(&origin, &place);
            self.show();
        }
        Ok(was_there)
    }

    /// A cached manifest was used.
    pub fn touch(&self, origin: Origin, repository: &RepositoryName, digest: &Digest) {
        let (place, now) =
            (cached::place_of_manifest(origin, repository, digest), clock::timestamp());
        self.shelf.lock().touch(&origin, &place, now);
        self.used.lock().insert((origin, place), now);
    }

    /// Writes down when manifests were used, forgets those of projects that are not among `there`,
    /// and evicts what is too much, and what nobody has used for the time that is there said of its
    /// project (`None`: it is not evicted because of its age).
    pub async fn sweep(&self, there: BTreeMap<Origin, Option<Duration>>) -> Result<(), StoreError> {
        let used = std::mem::take(&mut *self.used.lock());
        if !used.is_empty() {
            let listed = self.write(move |to| note_uses(to, used)).await?;
            let mut shelf = self.shelf.lock();
            listed.iter().for_each(|((origin, place), at)| shelf.touch(origin, place, *at));
        }
        {
            let after = |(origin, after): (&Origin, &Option<Duration>)| Some((*origin, (*after)?));
            self.shelf.lock().keep_for(there.iter().filter_map(after).collect());
        }
        let there: BTreeSet<Origin> = there.into_keys().collect();
        loop {
            let others = self.shelf.lock().of_others(&there, PIECE);
            if others.is_empty() {
                break;
            }
            self.remove(others).await?;
        }
        self.evict().await
    }

    async fn evict_if_full(&self) -> Result<(), StoreError> {
        let full = self.shelf.lock().is_overfull();
        self.show();
        if full { self.evict().await } else { Ok(()) }
    }

    async fn evict(&self) -> Result<(), StoreError> {
        let _alone = self.evicting.lock().await;
        let victims = self.shelf.lock().victims(clock::timestamp());
        for piece in victims.chunks(PIECE) {
            self.remove(piece.to_vec()).await?;
            metrics::counter!("atoll_cache_manifests_evicted_total").increment(piece.len() as u64);
        }
        Ok(())
    }

    async fn remove(&self, places: Vec<Vec<u8>>) -> Result<(), StoreError> {
        let gone = places.clone();
        self.write(move |to| {
            for place in &gone {
                to.used.remove(place.as_slice())?;
                if let Some((origin, repository, digest)) = cached::manifest_at(place) {
                    let manifest = Reference::Digest(digest);
                    cached::forget(&mut to.records, origin, &repository, &manifest)
                        .map_err(storage)?;
                }
            }
            Ok(())
        })
        .await?;
        {
            let mut shelf = self.shelf.lock();
            for place in &places {
                if let Some(origin) = Origin::at_the_beginning(place) {
                    shelf.remove(&origin, place);
                }
            }
        }
        self.show();
        Ok(())
    }
}

/// Writes down when manifests were used. Whoever has what an index lists asks for the index alone, so
/// that was used with it: the places of such manifests are returned.
fn note_uses(
    to: &mut Written<'_>,
    used: HashMap<Place, Timestamp>,
) -> Result<Vec<(Place, Timestamp)>, redb::Error> {
    let mut listed: Vec<(Place, Timestamp)> = Vec::new();
    let mut indexes: Vec<(Place, Timestamp, u32)> =
        used.iter().map(|(place, at)| (place.clone(), *at, DEEP)).collect();
    while let Some(((origin, place), at, deep)) = indexes.pop() {
        let Some((_, repository, digest)) = cached::manifest_at(&place) else { continue };
        let children = cached::listed(&mut to.records, origin, &repository, &digest);
        for child in children.map_err(storage)? {
            listed.push(((origin, child.clone()), at));
            if deep > 0 && listed.len() < MOST_LISTED {
                indexes.push(((origin, child), at, deep - 1));
            }
        }
    }
    for ((_, place), at) in used.into_iter().chain(listed.iter().cloned()) {
        let known = to.used.get(place.as_slice())?.map(|value| value.value());
        if let Some((before, size)) = known
            && before < at.0
        {
            to.used.insert(place.as_slice(), (at.0, size))?;
        }
    }
    Ok(listed)
}

/// A consistent, read-only view of what is cached.
pub struct CachedView {
    table: redb::ReadOnlyTable<&'static [u8], &'static [u8]>,
}

impl ReadRecords for CachedView {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RecordError> {
        Ok(self.table.get(key).map_err(record_error)?.map(|v| v.value().to_vec()))
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Pair>, RecordError> {
        scan(&self.table, prefix, after, limit)
    }
}

/// The tables in a transaction.
struct Written<'txn> {
    records: RecordTable<'txn>,
    used: Table<'txn, &'static [u8], (u64, u64)>,
}

struct RecordTable<'txn>(Table<'txn, &'static [u8], &'static [u8]>);

impl ReadRecords for RecordTable<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RecordError> {
        Ok(self.0.get(key).map_err(record_error)?.map(|v| v.value().to_vec()))
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Pair>, RecordError> {
        scan(&self.0, prefix, after, limit)
    }
}

impl WriteRecords for RecordTable<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), RecordError> {
        self.0.insert(key, value).map_err(record_error)?;
        Ok(())
    }

    fn remove(&mut self, key: &[u8]) -> Result<(), RecordError> {
        self.0.remove(key).map_err(record_error)?;
        Ok(())
    }
}

fn scan(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<Pair>, RecordError> {
    let start = match after {
        Some(after) if after >= prefix => Bound::Excluded(after),
        _ => Bound::Included(prefix),
    };
    let mut pairs = Vec::new();
    for pair in table.range::<&[u8]>((start, Bound::Unbounded)).map_err(record_error)? {
        let (key, value) = pair.map_err(record_error)?;
        if pairs.len() >= limit || !key.value().starts_with(prefix) {
            break;
        }
        pairs.push((key.value().to_vec(), value.value().to_vec()));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rules::ledger::records::ManifestRecord;

    /// The records of a manifest with one tag: itself, its bytes, the tag, and the tag's entry in the
    /// index.
    const OF_MANIFEST: usize = 4;
    /// The records of a repository: itself, and that its tags are indexed.
    const OF_REPOSITORY: usize = 2;

    fn origin(n: u8) -> Origin {
        Origin::at_the_beginning(&[n; Origin::LENGTH]).unwrap()
    }

    fn repository() -> RepositoryName {
        "hub/app".parse().unwrap()
    }

    fn manifest(n: u32) -> (Digest, CachedManifest) {
        let config = Digest::sha256(b"config");
        let bytes = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"c","digest":"{config}","size":7}},"layers":[],"annotations":{{"n":"{n}"}}}}"#
        );
        let bytes = bytes.into_bytes();
        let digest = Digest::sha256(&bytes);
        let media_type = "application/vnd.oci.image.manifest.v1+json".into();
        let pushed = Timestamp(u64::from(n));
        let record = ManifestRecord { media_type, bytes, blobs: vec![], subject: None, pushed };
        (digest, CachedManifest::of(&repository(), digest, record).unwrap())
    }

    async fn keep(cached: &CachedRecords, origin: Origin, n: u32, used: u64) -> Digest {
        let (digest, manifest) = manifest(n);
        let said = TagRecord { digest, pushed: Timestamp(used) };
        let tags = vec![(format!("t{n}").parse().unwrap(), said)];
        let kept = vec![(manifest, tags)];
        cached.keep(origin, kept, move |_| Timestamp(used)).await.unwrap();
        digest
    }

    fn has(cached: &CachedRecords, origin: Origin, digest: &Digest) -> bool {
        let place = cached::place_of_manifest(origin, &repository(), digest);
        cached.view().unwrap().get(&place).unwrap().is_some()
    }

    fn all(cached: &CachedRecords) -> usize {
        cached.view().unwrap().scan(&[], None, usize::MAX).unwrap().len()
    }

    fn terms(each: usize) -> ShelfTerms {
        ShelfTerms { each, bytes: None }
    }

    #[tokio::test]
    async fn what_was_cached_is_there_after_a_restart_with_its_last_use() {
        let folder = tempfile::tempdir().unwrap();
        let now = clock::timestamp().0;
        let cached =
            CachedRecords::open(folder.path(), None, 2, &ground::opening::Opening::default())
                .unwrap();
        let first = keep(&cached, origin(1), 1, now).await;
        let second = keep(&cached, origin(1), 2, now + 1).await;
        cached.shelf.lock().touch(
            &origin(1),
            &cached::place_of_manifest(origin(1), &repository(), &first),
            Timestamp(now + 5),
        );
        let place = cached::place_of_manifest(origin(1), &repository(), &first);
        cached.used.lock().insert((origin(1), place), Timestamp(now + 5));
        cached.sweep([(origin(1), None)].into()).await.unwrap();
        drop(cached);
        let cached =
            CachedRecords::open(folder.path(), None, 2, &ground::opening::Opening::default())
                .unwrap();
        assert_eq!(cached.totals().0, 2);
        let third = keep(&cached, origin(1), 3, now + 2).await;
        let there = [first, second, third].map(|digest| has(&cached, origin(1), &digest));
        assert_eq!(there, [true, false, true], "the least recently used makes room");
    }

    #[tokio::test]
    async fn a_flood_of_one_project_is_bounded_and_leaves_the_others_theirs() {
        let folder = tempfile::tempdir().unwrap();
        let cached =
            CachedRecords::open_with(folder.path(), terms(5), &ground::opening::Opening::default())
                .unwrap();
        let quiet = keep(&cached, origin(2), 1000, 1).await;
        let now = clock::timestamp().0;
        // older than anything may be, so it goes with the next eviction
        let month = Some(Duration::from_secs(30 * 24 * 3600));
        cached.sweep([(origin(1), month), (origin(2), month)].into()).await.unwrap();
        for n in 0..40 {
            keep(&cached, origin(1), n, now + u64::from(n)).await;
            assert!(cached.totals().0 <= 6);
        }
        assert!(!has(&cached, origin(2), &quiet), "nobody has used it for thirty days");
        keep(&cached, origin(2), 1000, now).await;
        for n in 40..80 {
            keep(&cached, origin(1), n, now + u64::from(n)).await;
        }
        assert!(has(&cached, origin(2), &quiet));
        assert_eq!((cached.totals().0, all(&cached)), (6, 6 * OF_MANIFEST + 2 * OF_REPOSITORY));
    }

    #[tokio::test]
    async fn what_belongs_to_no_project_any_more_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let cached = CachedRecords::open_with(
            folder.path(),
            terms(1000),
            &ground::opening::Opening::default(),
        )
        .unwrap();
        let now = clock::timestamp().0;
        for n in 0..PIECE as u32 + 7 {
            let (digest, manifest) = manifest(n);
            let said = TagRecord { digest, pushed: Timestamp(now) };
            let tags = vec![("latest".parse().unwrap(), said)];
            let kept = vec![(manifest, tags)];
            cached.keep(origin(1), kept, move |_| Timestamp(now)).await.unwrap();
        }
        let other = keep(&cached, origin(2), 1, now).await;
        cached.sweep([(origin(2), None)].into()).await.unwrap();
        assert!(has(&cached, origin(2), &other));
        assert_eq!((cached.totals().0, all(&cached)), (1, OF_MANIFEST + OF_REPOSITORY));
        let (of, manifest) = (origin(2), Reference::Digest(other));
        assert!(cached.forget(of, repository(), manifest.clone()).await.unwrap());
        assert!(!cached.forget(of, repository(), manifest).await.unwrap());
        assert_eq!((cached.totals(), all(&cached)), ((0, 0), 0));
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_is_an_empty_cache() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cached.redb"), b"this is no database").unwrap();
        let cached = CachedRecords::open(
            folder.path(),
            Some(1 << 20),
            9,
            &ground::opening::Opening::default(),
        )
        .unwrap();
        assert_eq!(all(&cached), 0);
        keep(&cached, origin(1), 1, clock::timestamp().0).await;
        drop(cached);
        assert_eq!(
            CachedRecords::open(folder.path(), None, 9, &ground::opening::Opening::default())
                .unwrap()
                .totals()
                .0,
            1
        );
    }
}
