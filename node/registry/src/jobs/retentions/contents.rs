//! What a repository has, as retention judges it: its artifacts, what goes along with each, and how
//! many bytes the repository no longer has when some of it goes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rules::ledger::policies::{LookForPolicies, Policies};
use rules::ledger::records::{Look, ReadRecords, RecordError, TagRecord, key};
use rules::ledger::stored::manifests_of;
use rules::policies::immutability::is_immutable;
use rules::policies::retention::{Candidate, Fate};
use rules::words::digest::Digest;
use rules::words::fallback::Fallback;
use rules::words::manifest::Manifest;
use rules::words::moment::Timestamp;
use rules::words::names::{RepositoryName, Tag};

/// The manifests of a repository.
#[derive(Default)]
pub(super) struct Contents {
    /// What rules may be about. An artifact is what has a tag, or is no part of an index and about
    /// nothing that is there. Tags that name a subject instead of referring to it (`sha256-...`) are
    /// none: the ledger deletes them with that.
    pub(super) candidates: Vec<Candidate>,
    /// Each manifest, and its blobs by their place in `pieces`; the first is the manifest itself.
    manifests: BTreeMap<Digest, Vec<u32>>,
    /// Manifests and blobs, with their bytes as manifests say.
    pieces: Vec<(Digest, u64)>,
    /// Manifests without a tag of their own that indexes list or that are about others: what each depends
    /// on.
    dependent: BTreeMap<Digest, Dependence>,
    /// The indexes that list each manifest.
    listed_by: BTreeMap<Digest, Vec<Digest>>,
}

/// What a manifest without a tag depends on.
struct Dependence {
    /// The indexes that list it.
    listed_by: Vec<Digest>,
    /// What it is about.
    subject: Option<Digest>,
    /// It has tags that name what it is about (`sha256-...`): the ledger deletes it with that.
    by_tag: bool,
}

impl Dependence {
    fn goes(&self, gone: &BTreeSet<Digest>) -> bool {
        match self.listed_by.is_empty() {
            // an index that stays needs it, whatever it is about
            false => self.listed_by.iter().all(|one| gone.contains(one)),
            true => self.subject.is_some_and(|subject| gone.contains(&subject)),
        }
    }
}

/// What goes of a repository.
pub(super) struct Gone {
    /// The number of artifacts.
    pub(super) artifacts: u64,
    /// What goes along with them, each after what it depends on.
    pub(super) along: Vec<Digest>,
    /// All of it.
    pub(super) all: BTreeSet<Digest>,
}

/// Gives each manifest and blob a number.
#[derive(Default)]
struct Numbers {
    pieces: Vec<(Digest, u64)>,
    known: HashMap<Digest, u32>,
}

impl Numbers {
    fn number(&mut self, digest: Digest, size: u64) -> u32 {
        let next = self.pieces.len() as u32;
        let number = *self.known.entry(digest).or_insert(next);
        if number == next {
            self.pieces.push((digest, size));
        }
        number
    }
}

impl Contents {
    /// Reads what a repository has. `within` is its name in its project.
    pub(super) fn of(
        view: &dyn ReadRecords,
        policies: &Policies,
        repository: &RepositoryName,
        within: &str,
    ) -> Result<Self, RecordError> {
        let mut tags: BTreeMap<Digest, Vec<(Tag, Timestamp)>> = BTreeMap::new();
        for (place, record) in view.records::<TagRecord>(&key::tags(repository))? {
            if let Ok(tag) = key::tag_of(&place).parse() {
                tags.entry(record.digest).or_default().push((tag, record.pushed));
            }
        }
        let found = manifests_of(view, repository)?;
        let mut numbers = Numbers::default();
        let mut contents = Contents::default();
        let mut listed_by: BTreeMap<Digest, Vec<Digest>> = BTreeMap::new();
        for digest in found.keys() {
            let pieces = contents.manifests.entry(*digest).or_default();
            let Some(whole) = view.manifest(repository, digest)? else { continue };
            pieces.push(numbers.number(*digest, whole.bytes.len() as u64));
            let Ok(manifest) = Manifest::parse(&whole.media_type, &whole.bytes) else { continue };
            pieces.extend(manifest.blobs.iter().map(|blob| numbers.number(blob.digest, blob.size)));
            for child in &manifest.children {
                listed_by.entry(child.digest).or_default().push(*digest);
            }
        }
        (contents.pieces, contents.listed_by) = (numbers.pieces, listed_by);
        let is_there = |subject: Digest| found.contains_key(&subject);
        // the tag of a sha512 has the first half of it only
        let named = |fallback: Fallback<'_>| match fallback.digest() {
            Some(digest) => Some(digest).filter(|digest| is_there(*digest)),
            None => found.keys().copied().find(|digest| fallback.is_about(digest)),
        };
        // what all of its tags are about
        let subjects_of = |tags: &[(Tag, Timestamp)]| -> Option<Vec<Digest>> {
            let subjects = tags.iter().map(|(tag, _)| Fallback::of(tag).and_then(named));
            subjects.collect::<Option<Vec<_>>>().filter(|subjects| !subjects.is_empty())
        };
        for (digest, record) in &found {
            let tags = tags.remove(digest).unwrap_or_default();
            let listed_by = contents.listed_by.get(digest).cloned().unwrap_or_default();
            let subject = record.subject.filter(|subject| is_there(*subject));
            if tags.is_empty() && (!listed_by.is_empty() || subject.is_some()) {
                let on = Dependence { listed_by, subject, by_tag: false };
                contents.dependent.insert(*digest, on);
                continue;
            }
            if let Some(subjects) = subjects_of(&tags) {
                let on = Dependence { listed_by: subjects, subject: None, by_tag: true };
                contents.dependent.insert(*digest, on);
                continue;
            }
            let is_immutable = |(tag, _): &(Tag, Timestamp)| {
                is_immutable(&policies.immutable, within, tag.as_str())
            };
            contents.candidates.push(Candidate {
                digest: *digest,
                immutable: tags.iter().any(is_immutable),
                pushed: tags.iter().map(|(_, pushed)| *pushed).fold(record.pushed, Timestamp::max),
                tags: tags.into_iter().map(|(tag, _)| tag.as_str().to_owned()).collect(),
                pulled: view.pulled(repository, digest)?,
            });
        }
        Ok(contents)
    }

    /// The number of manifests.
    pub(super) fn manifests(&self) -> usize {
        self.manifests.len()
    }

    /// The fates of the candidates, in their order: what an index lists that stays is retained, too.
    pub(super) fn settled(&self, mut fates: Vec<Fate>) -> Vec<Fate> {
        loop {
            let gone = self.gone(&fates).all;
            let mut kept = false;
            for (candidate, fate) in self.candidates.iter().zip(&mut fates) {
                let listed = self.listed_by.get(&candidate.digest).into_iter().flatten();
                if *fate == Fate::Deleted && listed.into_iter().any(|one| !gone.contains(one)) {
                    (*fate, kept) = (Fate::Retained, true);
                }
            }
            if !kept {
                return fates;
            }
        }
    }

    /// What goes if the candidates have these fates, in their order.
    pub(super) fn gone(&self, fates: &[Fate]) -> Gone {
        let deleted = self.candidates.iter().zip(fates).filter(|(_, fate)| **fate == Fate::Deleted);
        let mut all: BTreeSet<Digest> = deleted.map(|(candidate, _)| candidate.digest).collect();
        let artifacts = all.len() as u64;
        let (mut along, mut left): (Vec<Digest>, Vec<_>) =
            (Vec::new(), self.dependent.iter().collect());
        loop {
            let known = along.len();
            left.retain(|(digest, dependence)| {
                let goes = dependence.goes(&all);
                if goes {
                    along.push(**digest);
                }
                !goes
            });
            if along.len() == known {
                along.retain(|digest| !self.dependent[digest].by_tag);
                return Gone { artifacts, along, all };
            }
            all.extend(&along[known..]);
        }
    }

    /// The number of bytes that the repository no longer has without these manifests.
    pub(super) fn freed_by(&self, gone: &BTreeSet<Digest>) -> u64 {
        let mut stays = vec![false; self.pieces.len()];
        for (_, pieces) in self.manifests.iter().filter(|(digest, _)| !gone.contains(digest)) {
            pieces.iter().for_each(|piece| stays[*piece as usize] = true);
        }
        let goes = self.pieces.iter().zip(stays).filter(|(_, stays)| !stays);
        goes.map(|((_, size), _)| *size).fold(0, u64::saturating_add)
    }

    /// Each manifest and blob with its bytes, and in how many of these futures it is still here: a
    /// bit for each, the lowest for the first.
    pub(super) fn stays(&self, futures: &[Gone]) -> impl Iterator<Item = (Digest, u64, u8)> {
        let mut stays = vec![0_u8; self.pieces.len()];
        for (digest, pieces) in &self.manifests {
            let here = futures.iter().enumerate().filter(|(_, gone)| !gone.all.contains(digest));
            let here = here.fold(0, |bits, (at, _)| bits | 1 << at);
            pieces.iter().for_each(|piece| stays[*piece as usize] |= here);
        }
        self.pieces.iter().zip(stays).map(|((digest, size), bits)| (*digest, *size, bits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u8) -> Digest {
        Digest::sha256(&[n])
    }

    fn candidate(n: u8) -> Candidate {
        Candidate {
            digest: digest(n),
            tags: Vec::new(),
            pushed: Timestamp(0),
            pulled: None,
            immutable: false,
        }
    }

    /// A signature that was judged would be among the newest artifacts, in the place of an image.
    #[test]
    fn what_is_part_of_what_goes_or_about_it_goes_along_and_nothing_else() {
        let on = |listed_by: &[u8], subject: Option<u8>| Dependence {
            listed_by: listed_by.iter().map(|n| digest(*n)).collect(),
            subject: subject.map(digest),
            by_tag: false,
        };
        let contents = Contents {
            candidates: vec![candidate(1), candidate(2)],
            listed_by: BTreeMap::new(),
            manifests: (1..=8).map(|n| (digest(n), vec![u32::from(n) - 1])).collect(),
            pieces: (1..=8).map(|n| (digest(n), 1 << n)).collect(),
            dependent: [
                (3, on(&[1], None)),
                (4, on(&[1, 2], None)),
                (5, on(&[], Some(3))),
                (6, on(&[], Some(4))),
                (7, on(&[3], None)),
                (8, on(&[2], Some(1))),
            ]
            .map(|(n, dependence)| (digest(n), dependence))
            .into(),
        };
        let gone = contents.gone(&[Fate::Deleted, Fate::Retained]);
        // the index 2 lists 8, whatever that is about
        assert_eq!(gone.all, [1, 3, 5, 7].map(digest).into());
        assert_eq!((gone.artifacts, gone.along.len()), (1, 3));
        let at = |n: u8| gone.along.iter().position(|one| *one == digest(n));
        assert!(at(3) < at(5) && at(3) < at(7), "what depends on another comes after it");
        assert_eq!(contents.freed_by(&gone.all), 2 + 8 + 32 + 128);
        assert_eq!(contents.freed_by(&BTreeSet::new()), 0);
    }

    /// A retained index once lost the images of a platform, which had tags of their own.
    #[test]
    fn what_an_index_lists_stays_as_long_as_the_index() {
        use Fate::{Deleted, Retained};
        // the index 3 lists 1 and the index 2, which lists 4
        let mut contents = Contents {
            candidates: [1, 2, 3, 4].map(candidate).into(),
            listed_by: [(1, vec![3]), (2, vec![3]), (4, vec![2])]
                .map(|(n, by)| (digest(n), by.into_iter().map(digest).collect()))
                .into(),
            ..Contents::default()
        };
        let fates = contents.settled(vec![Deleted, Deleted, Retained, Deleted]);
        assert_eq!(fates, [Retained; 4]);
        assert_eq!(contents.settled(vec![Deleted; 4]), [Deleted; 4], "they go with it");
        // one that has no tag, and is about 1, is listed as well: deleting 1 does not take it
        let on = Dependence { listed_by: vec![digest(3)], subject: Some(digest(1)), by_tag: false };
        contents.dependent.insert(digest(5), on);
        contents.listed_by.clear();
        let gone = contents.gone(&[Deleted, Retained, Retained, Retained]);
        assert_eq!(gone.all, [digest(1)].into());
        // what only tags tie to 1 goes with it, without being named
        let on = Dependence { listed_by: vec![digest(1)], subject: None, by_tag: true };
        contents.dependent.insert(digest(6), on);
        let gone = contents.gone(&[Deleted, Retained, Retained, Retained]);
        assert_eq!((gone.all.len(), gone.along.len()), (2, 0));
    }

    #[test]
    fn bytes_that_another_manifest_has_are_not_freed() {
        // 1 and 2 share the blob 4; 3 goes in the second future only
        let contents = Contents {
            candidates: [1, 2, 3].map(candidate).into(),
            manifests: [(1, vec![0, 3]), (2, vec![1, 3, 4]), (3, vec![2])]
                .map(|(n, pieces)| (digest(n), pieces))
                .into(),
            pieces: (1..=5).map(|n| (digest(n), 1 << n)).collect(),
            dependent: BTreeMap::new(),
            listed_by: BTreeMap::new(),
        };
        use Fate::{Deleted, Immutable, Retained};
        let now = contents.gone(&[Deleted, Retained, Immutable]);
        assert_eq!(contents.freed_by(&now.all), 2, "the shared blob stays");
        let later = contents.gone(&[Deleted, Deleted, Retained]);
        assert_eq!(contents.freed_by(&later.all), 2 + 4 + 16 + 32);
        let bits: Vec<u8> = contents.stays(&[now, later]).map(|(_, _, bits)| bits).collect();
        assert_eq!(bits, [0b00, 0b01, 0b11, 0b01, 0b01]);
    }
}
