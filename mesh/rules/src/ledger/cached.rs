//! What proxy projects cache of their upstreams: manifests, and what a tag named last.
//!
//! The upstream is its authority, so it is no part of the ledger. Each replica has what was pulled
//! through it, in records of the same form as the ledger's (tags, manifests, links, referrers,
//! repositories), and asks other replicas for what it lacks. Each project's records are under an
//! [`Origin`]. A project that is made anew under an old name, or whose upstream has moved, has
//! another origin, and nothing is cached under that yet.
//!
//! The records of blobs, and of manifests' bytes, are those of the whole node, not of one project:
//! they count the repositories that refer to them, whichever they are.

use std::collections::BTreeSet;

use crate::ledger::apply::manifests;
use crate::ledger::apply::trash::Deletion;
use crate::ledger::command::{NewManifest, Outcome};
use crate::ledger::level::Level;
use crate::ledger::records::{
    BlobDescriptor, BlobRecord, Look, ManifestRecord, Pair, Project, ReadRecords, RecordError,
    TagRecord, UpstreamRecord, WriteRecords, decode, encode, key,
};
use crate::words::digest::Digest;
use crate::words::manifest::{BadManifest, Listed, Manifest};
use crate::words::moment::Timestamp;
use crate::words::names::{Epoch, ProjectName, Reference, RepositoryName, Tag};

/// After this time a tag that still names the same is written again, in ms. Of two nodes' records
/// the newer one counts, so the time must not be much older than the upstream's last word.
const REWRITE: u64 = 60_000;

/// The maximum number of tags of one cached manifest that are known. Anybody may ask for as many as
/// the upstream has.
pub const TAGS: usize = 500;

/// A proxy project's content, as long as the project is the same and its upstream is at the same
/// place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin([u8; 16]);

impl Origin {
    /// The length of an origin in bytes.
    pub const LENGTH: usize = 16;
    /// Where the records of blobs and of manifests' bytes are, which belong to no project.
    pub const WHOLE_NODE: Origin = Origin([0; 16]);

    /// The origin of `project`, which caches `upstream`. The credentials are no part of it: a new
    /// password does not change what the registry has.
    pub fn of(project: &Project, upstream: &UpstreamRecord) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&project.id.0.to_be_bytes()).update(&upstream.id.0.to_be_bytes());
        for text in [&upstream.kind, &upstream.url] {
            hasher.update(&(text.len() as u64).to_be_bytes()).update(text.as_bytes());
        }
        let mut origin = [0; Self::LENGTH];
        origin.copy_from_slice(&hasher.finalize().as_bytes()[..Self::LENGTH]);
        Origin(origin)
    }

    /// The origin of the project called `name`; `None` if it does not exist or caches nothing.
    pub fn of_project<R: Look + ?Sized>(
        records: &R,
        name: &ProjectName,
    ) -> Result<Option<Self>, RecordError> {
        let Some(project) = records.project(name)? else { return Ok(None) };
        let Some(id) = project.upstream else { return Ok(None) };
        let upstream = records.record::<UpstreamRecord>(&key::upstream(id))?;
        Ok(upstream.map(|upstream| Origin::of(&project, &upstream)))
    }

    /// The origins of all projects that cache something, with their projects.
    pub fn all<R: Look + ?Sized>(records: &R) -> Result<Vec<(ProjectName, Self)>, RecordError> {
        let upstreams = records.upstreams()?;
        let of = |project: Project| {
            let id = project.upstream?;
            let upstream = upstreams.iter().find(|upstream| upstream.id == id)?;
            let origin = Origin::of(&project, upstream);
            Some((project.name, origin))
        };
        Ok(records.projects()?.into_iter().filter_map(of).collect())
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }

    /// The origin with these bytes at the beginning.
    pub fn at_the_beginning(bytes: &[u8]) -> Option<Self> {
        Some(Origin(bytes.get(..Self::LENGTH)?.try_into().ok()?))
    }
}

/// Whose records a key, or the keys with a prefix, are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Of this project's content.
    Project(ProjectName),
    /// Of a blob, or of a manifest's bytes.
    Content,
    /// The repositories of all projects.
    AllProjects,
    /// Nothing that is cached.
    Other,
}

impl Owner {
    /// The owner of the records under `key`, which may be a prefix of keys.
    pub fn of(key: &[u8]) -> Self {
        let Some((table, name)) = key.split_first() else { return Owner::Other };
        // what is known of signatures has a table of two letters
        let (table, name) = match name.strip_prefix(b"s") {
            Some(name) if *table == b'$' => (&b'#', name),
            _ => (table, name),
        };
        match table {
            b'b' | b'd' if !name.is_empty() => Owner::Content,
            b'y' if name.is_empty() => Owner::AllProjects,
            b'y' | b't' | b'm' | b'l' | b'r' | b'w' | b'z' | b'#' => {
                let Some(end) = name.iter().position(|b| *b == b'/') else { return Owner::Other };
                let name = std::str::from_utf8(&name[..end]).ok();
                let name = name.and_then(|name| name.parse().ok());
                name.map_or(Owner::Other, Owner::Project)
            }
            _ => Owner::Other,
        }
    }
}

/// The first `limit` of two lists in the order of their keys. Of two records under one key the
/// `cached` one counts.
pub fn merged(cached: Vec<Pair>, recorded: Vec<Pair>, limit: usize) -> Vec<Pair> {
    let known: BTreeSet<&[u8]> = cached.iter().map(|(key, _)| key.as_slice()).collect();
    let recorded: Vec<Pair> =
        recorded.into_iter().filter(|(key, _)| !known.contains(key.as_slice())).collect();
    let mut all = cached;
    all.extend(recorded);
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all.truncate(limit);
    all
}

/// What several nodes say that a tag named: what the upstream said last comes first, and each
/// manifest only once.
pub fn newest_first(said: impl IntoIterator<Item = TagRecord>) -> Vec<TagRecord> {
    let mut said: Vec<TagRecord> = said.into_iter().collect();
    said.sort_by_key(|said| std::cmp::Reverse(said.pushed));
    let mut seen = BTreeSet::new();
    said.retain(|said| seen.insert(said.digest));
    said
}

/// Whether a tag's record is written that says `new`, where `known` is there.
fn replaces(new: &TagRecord, known: Option<&TagRecord>) -> bool {
    known.is_none_or(|known| {
        let later = new.pushed > known.pushed;
        later && (new.digest != known.digest || new.pushed.0 - known.pushed.0 >= REWRITE)
    })
}

/// A manifest as it is cached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedManifest {
    new: NewManifest,
    fetched: Timestamp,
}

impl CachedManifest {
    /// Reads what must be known of `record`, whose bytes have been checked to be `digest`'s. Only
    /// the blobs that the record lists are linked.
    pub fn of(
        repository: &RepositoryName,
        digest: Digest,
        record: ManifestRecord,
    ) -> Result<Self, BadManifest> {
        let ManifestRecord { media_type, bytes, blobs: linked, pushed, .. } = record;
        let manifest = Manifest::read_served(&media_type, &bytes)?;
        let describe = |digest: &Digest| {
            let blob = manifest.blobs.iter().find(|blob| blob.digest == *digest)?;
            let (content, kept_by) = (None, Vec::new());
            Some(BlobDescriptor { digest: *digest, size: blob.size, content, kept_by })
        };
        let blobs = linked.iter().filter_map(describe).collect();
        let subject = manifest.referrer(digest, &media_type, bytes.len());
        let new = NewManifest {
            epoch: Epoch::FIRST,
            repository: repository.clone(),
            digest,
            media_type,
            bytes,
            tags: Vec::new(),
            blobs,
            subject,
        };
        Ok(CachedManifest { new, fetched: pushed })
    }

    /// Its repository.
    pub fn repository(&self) -> &RepositoryName {
        &self.new.repository
    }

    /// The place of its record in a cache.
    pub fn place(&self, origin: Origin) -> Vec<u8> {
        place_of_manifest(origin, &self.new.repository, &self.new.digest)
    }

    /// When the upstream gave it.
    pub fn fetched(&self) -> Timestamp {
        self.fetched
    }

    /// Its size in a cache, in bytes.
    pub fn size(&self) -> u64 {
        size_of_manifest(self.new.bytes.len())
    }
}

/// The size in a cache of a manifest with so many bytes: with what is recorded beside it.
pub fn size_of_manifest(bytes: usize) -> u64 {
    bytes as u64 + 512
}

/// The records of one origin within a cache, whose keys begin with their origin.
struct Within<'a, R> {
    cache: &'a mut R,
    origin: Origin,
}

/// A record's key in a cache.
fn place(origin: Origin, key: &[u8]) -> Vec<u8> {
    let origin = if Owner::of(key) == Owner::Content { Origin::WHOLE_NODE } else { origin };
    [origin.as_bytes(), key].concat()
}

fn get_within<R: ReadRecords>(
    cache: &R,
    origin: Origin,
    key: &[u8],
) -> Result<Option<Vec<u8>>, RecordError> {
    cache.get(&place(origin, key))
}

fn scan_within<R: ReadRecords>(
    cache: &R,
    origin: Origin,
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<Pair>, RecordError> {
    let after = after.map(|after| place(origin, after));
    let pairs = cache.scan(&place(origin, prefix), after.as_deref(), limit)?;
    Ok(pairs.into_iter().map(|(key, value)| (key[Origin::LENGTH..].to_vec(), value)).collect())
}

impl<R: ReadRecords> ReadRecords for Within<'_, R> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RecordError> {
        if key == key::level() {
            // later levels are about the ledger only
            return encode(&Level::CACHES).map(Some);
        }
        get_within(self.cache, self.origin, key)
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Pair>, RecordError> {
        scan_within(self.cache, self.origin, prefix, after, limit)
    }
}

impl<R: WriteRecords> WriteRecords for Within<'_, R> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), RecordError> {
        self.cache.put(&place(self.origin, key), value)
    }

    fn remove(&mut self, key: &[u8]) -> Result<(), RecordError> {
        self.cache.remove(&place(self.origin, key))
    }
}

/// Caches a manifest. If it is cached already, blobs that it did not link are linked.
pub fn keep<R: WriteRecords>(
    cache: &mut R,
    origin: Origin,
    manifest: &CachedManifest,
) -> Result<(), RecordError> {
    manifests::put(&mut Within { cache, origin }, manifest.fetched, &manifest.new).map(|_| ())
}

/// The places of the manifests that a cached index lists; none if it is no index, or not cached.
pub fn listed<R: WriteRecords>(
    cache: &mut R,
    origin: Origin,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Vec<Vec<u8>>, RecordError> {
    let whole = Within { cache, origin }.manifest(repository, digest)?;
    let read = whole.and_then(|whole| Manifest::read_served(&whole.media_type, &whole.bytes).ok());
    let children = read.map(|manifest| manifest.children).unwrap_or_default();
    let place = |child: &Listed| place_of_manifest(origin, repository, &child.digest);
    Ok(children.iter().map(place).collect())
}

/// Whether it is worth noting that a tag names `new`: its manifest is cached, and nothing newer is
/// known.
pub fn is_news<R: ReadRecords>(
    cache: &R,
    origin: Origin,
    repository: &RepositoryName,
    tag: &Tag,
    new: &TagRecord,
) -> Result<bool, RecordError> {
    let manifest = key::manifest(repository, &new.digest);
    if get_within(cache, origin, &manifest)?.is_none() {
        return Ok(false);
    }
    let known = get_within(cache, origin, &key::tag(repository, tag))?;
    let known = known.map(|known| decode::<TagRecord>(&known)).transpose()?;
    Ok(replaces(new, known.as_ref()))
}

/// Notes what a tag names, if [`is_news`] says so. If the manifest has [`TAGS`] tags already, the one
/// is forgotten of which the upstream has spoken least lately.
pub fn keep_tag<R: WriteRecords>(
    cache: &mut R,
    origin: Origin,
    repository: &RepositoryName,
    tag: &Tag,
    new: &TagRecord,
) -> Result<(), RecordError> {
    if !is_news(cache, origin, repository, tag, new)? {
        return Ok(());
    }
    let mut records = Within { cache, origin };
    let named = key::all_named(repository, &new.digest);
    let others = records.scan(&named, None, TAGS)?;
    if others.len() >= TAGS {
        let mut oldest = None;
        for (place, _) in &others {
            let name = place.get(named.len()..).unwrap_or_default();
            let other = [&key::tags(repository), name].concat();
            let Some(record) = records.record::<TagRecord>(&other)? else { continue };
            if oldest.as_ref().is_none_or(|(pushed, _)| record.pushed < *pushed) {
                oldest = Some((record.pushed, key::tag_of(&other)));
            }
        }
        if let Some(oldest) = oldest.and_then(|(_, name)| name.parse().ok())
            && oldest != *tag
        {
            manifests::delete_tag(&mut records, &forgotten(), repository, &oldest)?;
        }
    }
    manifests::set_tag(&mut records, repository, tag, new)
}

/// A cache has no trash: it is below the level of it.
fn forgotten() -> Deletion {
    Deletion::of(Timestamp(0), None)
}

/// Forgets a tag, or a manifest with the tags that name it. Returns whether there was one.
pub fn forget<R: WriteRecords>(
    cache: &mut R,
    origin: Origin,
    repository: &RepositoryName,
    reference: &Reference,
) -> Result<bool, RecordError> {
    let mut records = Within { cache, origin };
    let outcome = match reference {
        Reference::Tag(tag) => manifests::delete_tag(&mut records, &forgotten(), repository, tag)?,
        Reference::Digest(digest) => {
            manifests::delete(&mut records, &forgotten(), repository, digest)?
        }
    };
    Ok(outcome == Outcome::Done)
}

/// The place of a manifest's record in a cache.
pub fn place_of_manifest(origin: Origin, repository: &RepositoryName, digest: &Digest) -> Vec<u8> {
    place(origin, &key::manifest(repository, digest))
}

/// The manifest whose record is at `place` in a cache; `None` if it is no manifest's.
pub fn manifest_at(place: &[u8]) -> Option<(Origin, RepositoryName, Digest)> {
    let origin = Origin::at_the_beginning(place)?;
    let key = &place[Origin::LENGTH..];
    let name = key.strip_prefix(b"m")?;
    let end = name.iter().position(|b| *b == 0)?;
    let repository = std::str::from_utf8(&name[..end]).ok()?.parse().ok()?;
    Some((origin, repository, key::digest_of(key)?))
}

/// A replica's records together with what it has cached.
pub struct WithCached<L, C> {
    /// The ledger's.
    pub ledger: L,
    /// The cache's, whose keys begin with their origin.
    pub cache: C,
}

impl<L: ReadRecords, C: ReadRecords> ReadRecords for WithCached<L, C> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RecordError> {
        let recorded = self.ledger.get(key)?;
        match Owner::of(key) {
            Owner::Project(project) => {
                let Some(origin) = Origin::of_project(&self.ledger, &project)? else {
                    return Ok(recorded);
                };
                let cached = get_within(&self.cache, origin, key)?;
                // until it is emptied, the ledger may have an older one, or one that a build
                // recorded that knows no caches
                match (cached, recorded) {
                    (Some(cached), Some(recorded)) if key.first() == Some(&b't') => {
                        let (a, b): (TagRecord, TagRecord) = (decode(&cached)?, decode(&recorded)?);
                        Ok(Some(if b.pushed > a.pushed { recorded } else { cached }))
                    }
                    (cached, recorded) => Ok(cached.or(recorded)),
                }
            }
            Owner::Content => {
                let referred = |record: &[u8]| {
                    decode::<BlobRecord>(record).is_ok_and(|record| record.repositories > 0)
                };
                let is_blob = key.first() == Some(&b'b');
                if recorded.as_deref().is_some_and(|record| !is_blob || referred(record)) {
                    return Ok(recorded);
                }
                Ok(get_within(&self.cache, Origin::WHOLE_NODE, key)?.or(recorded))
            }
            Owner::AllProjects | Owner::Other => Ok(recorded),
        }
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Pair>, RecordError> {
        let recorded = self.ledger.scan(prefix, after, limit)?;
        let origins: Vec<Origin> = match Owner::of(prefix) {
            Owner::Project(project) => {
                Origin::of_project(&self.ledger, &project)?.into_iter().collect()
            }
            Owner::AllProjects => {
                Origin::all(&self.ledger)?.into_iter().map(|(_, origin)| origin).collect()
            }
            Owner::Content | Owner::Other => Vec::new(),
        };
        let mut all = recorded;
        for origin in origins {
            all = merged(scan_within(&self.cache, origin, prefix, after, limit)?, all, limit);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests;
