//! What one artifact of signatures is worth.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use ground::supervise::{at_length, blocking};
use rules::blobs::pacing::Class;
use rules::ledger::records::{Look, ManifestRecord, RecordError};
use rules::ledger::signatures::{MOST_CHILDREN, SignatureChange, Unverified};
use rules::policies::signatures::{Evidence, MOST_SIGNATURES, Seen, Signature};
use rules::words::digest::Digest;
use rules::words::fallback::Fallback;
use rules::words::image::{Image, Layer};
use rules::words::manifest::Manifest;
use rules::words::moment::Timestamp;
use serde::de::IgnoredAny;
use store::StoreError;

use super::{Signatures, Waiting};
use crate::blobs::flights::Sources;

/// The maximum number of bytes of one artifact's blobs that are in memory together.
const MOST_BYTES: u64 = 8 << 20;

/// Why an artifact cannot be verified now. Another try may help.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotYet {
    /// The ledger cannot be read.
    #[error(transparent)]
    Records(#[from] RecordError),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A blob is not here.
    #[error("blob {0} is not here: {1}")]
    Missing(Digest, String),
    /// The blob cannot be read, or the work ended early.
    #[error("{0}")]
    Failed(String),
}

/// How many bytes may still be read.
pub(super) struct Allowance(AtomicU64);

impl Allowance {
    /// So many.
    pub(super) fn new(bytes: u64) -> Self {
        Allowance(AtomicU64::new(bytes))
    }

    /// For one artifact.
    pub(super) fn of_one() -> Self {
        Allowance::new(MOST_BYTES)
    }

    /// Takes so many, if they are left. Otherwise nothing is left from now on.
    pub(super) fn take(&self, bytes: u64) -> bool {
        let taken = |left: u64| Some(left.saturating_sub(bytes));
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken);
        before.is_ok_and(|left| left >= bytes)
    }

    /// Whether nothing is left.
    pub(super) fn is_used_up(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

/// The manifests that an index lists, and what indexes among these list as far as `find` has them: the
/// nearest first, each once, at most [`MOST_CHILDREN`].
pub(super) fn listed(
    index: &ManifestRecord,
    find: impl Fn(&Digest) -> Result<Option<ManifestRecord>, RecordError>,
) -> Result<Vec<Digest>, RecordError> {
    let direct = |index: &ManifestRecord| {
        let read = Manifest::read_served(&index.media_type, &index.bytes);
        let children = read.map(|manifest| manifest.children).unwrap_or_default();
        let children = children.into_iter().filter(|child| child.manifest);
        children.map(|child| child.digest).collect::<Vec<_>>()
    };
    let mut all = Vec::new();
    let add = |all: &mut Vec<Digest>, some: Vec<Digest>| {
        for one in some {
            if all.len() < MOST_CHILDREN && !all.contains(&one) {
                all.push(one);
            }
        }
    };
    add(&mut all, direct(index));
    let mut next = 0;
    while next < all.len() && all.len() < MOST_CHILDREN {
        if let Some(child) = find(&all[next])? {
            add(&mut all, direct(&child));
        }
        next += 1;
    }
    Ok(all)
}

impl Signatures {
    /// What to record of it; `None` if it is not there any more, no artifact of signatures, or longer
    /// than the allowance. At the `last` try blobs that are not here count as missing.
    pub(super) async fn verify(
        &self,
        one: &Waiting,
        last: bool,
        allowance: &Allowance,
    ) -> Result<Option<SignatureChange>, NotYet> {
        let Unverified { repository, manifest, tag } = &one.what;
        let fallback = tag.as_ref().and_then(Fallback::of);
        let read = at_length(|| {
            let view = self.neighbours.records.view()?;
            // a tag may have moved on; what it names now is what counts
            let digest = match tag {
                Some(tag) => match view.tag(repository, tag)? {
                    Some(tag) => tag.digest,
                    None => return Ok(None),
                },
                None => *manifest,
            };
            let Some(record) = view.manifest(repository, &digest)? else { return Ok(None) };
            let anchors = self.anchors(&*view, one.project.id)?;
            Ok::<_, RecordError>(Some((digest, record, anchors)))
        });
        let Some((digest, record, anchors)) = read? else { return Ok(None) };
        let read = sign::evidence::read(&record.bytes, fallback.map(|of| of.ending));
        // a tag that names something else has no signatures any more
        let nothing =
            || sign::Evidence { format: sign::Shape::Classic, subject: None, blobs: Vec::new() };
        let Some(evidence) = read.or_else(|| fallback.map(|_| nothing())) else { return Ok(None) };
        let subject = match fallback {
            Some(fallback) => fallback.digest(),
            None => evidence.subject,
        };
        let Some(subject) = subject else { return Ok(None) };
        let mut blobs = BTreeMap::new();
        let mut total = 0_u64;
        for (blob, size) in &evidence.blobs {
            total = total.saturating_add(*size);
            if total > MOST_BYTES {
                break; // the rest counts as missing
            }
            if !allowance.take(*size) {
                return Ok(None);
            }
            match self.bytes_of(one, *blob, *size).await {
                Ok(bytes) => drop(blobs.insert(*blob, bytes)),
                Err(NotYet::Missing(..)) if last => {}
                Err(error) => return Err(error),
            }
        }
        let parts = Image::parts(&record.bytes).unwrap_or_default();
        let is_json = |layer: &Layer| {
            let bytes = blobs.get(&layer.digest);
            bytes.is_some_and(|bytes| serde_json::from_slice::<IgnoredAny>(bytes).is_ok())
        };
        let is_text = !parts.layers.is_empty() && parts.layers.iter().all(is_json);
        let bytes = record.bytes;
        let verified =
            blocking(move || sign::verify(&bytes, &evidence, &blobs, &subject, &anchors));
        let verified = verified.await.map_err(|e| NotYet::Failed(e.to_string()))?;
        for signature in &verified {
            let result = if signature.fault.is_some() { "fault" } else { "verified" };
            metrics::counter!("atoll_signatures_total", "result" => result).increment(1);
        }
        let seen = verified.into_iter().take(MOST_SIGNATURES);
        // the ledger says when; what else was signed with it is not kept, because each pull would
        // read it
        let seen = seen.map(|signature| {
            let signature = Signature { claims: BTreeMap::new(), ..signature };
            Seen { at: Timestamp(0), logged: None, signature }
        });
        let evidence =
            Evidence { manifest: digest, tag: tag.clone(), is_text, signatures: seen.collect() };
        let children = at_length(|| {
            let view = self.neighbours.records.view()?;
            let subject = view.manifest(repository, &subject)?;
            let find = |digest: &Digest| view.manifest(repository, digest);
            let children = subject.as_ref().map(|subject| listed(subject, find)).transpose()?;
            Ok::<_, RecordError>(children.unwrap_or_default())
        })?;
        Ok(Some(SignatureChange::Verified {
            repository: repository.clone(),
            subject,
            children,
            evidence,
            number: one.number,
        }))
    }

    /// A blob's bytes, fetched if they are elsewhere. What is not as long as its manifest said has
    /// none. Neither is what the upstream has not shown of what is cached: it may be here for another
    /// project.
    async fn bytes_of(&self, one: &Waiting, digest: Digest, size: u64) -> Result<Bytes, NotYet> {
        let repository = &one.what.repository;
        let via = one.project.upstream.map(|_| repository.clone());
        if via.is_some() {
            match self.confirming.is_theirs(repository, &digest).await {
                Ok(true) => {}
                Ok(false) => {
                    let why = "the upstream does not show it in this repository";
                    return Err(NotYet::Missing(digest, why.into()));
                }
                Err(error) => return Err(NotYet::Missing(digest, error.to_string())),
            }
        }
        let open = match self.store.open_sound(&digest).await? {
            Some(open) => open,
            None => {
                // one for a client ends when nobody waits for it
                let class = if via.is_some() { Class::Pull } else { Class::Copy };
                let flight = self.flights.join(digest, Sources::Find { via }, class);
                let whole = async {
                    let begun = flight.begun(digest, self.terms.fetch).await?;
                    match begun.size == size {
                        true => flight.finished().await.map(Some),
                        false => Ok(None),
                    }
                };
                match tokio::time::timeout(self.terms.fetch, whole).await {
                    Ok(Ok(Some(_))) => {}
                    // nobody needs the rest of a blob that is longer than its manifest says
                    Ok(Ok(None)) => return Ok(Bytes::new()),
                    Ok(Err(error)) => return Err(NotYet::Missing(digest, error.to_string())),
                    Err(_) => {
                        return Err(NotYet::Missing(digest, "it did not arrive in time".into()));
                    }
                }
                let gone = || NotYet::Missing(digest, "it was here for a moment only".into());
                self.store.open_sound(&digest).await?.ok_or_else(gone)?
            }
        };
        // a manifest that lies about a length would have a part of the blob taken for all of it
        if open.size != size {
            return Ok(Bytes::new());
        }
        let read = blocking(move || {
            let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
            open.read_exact_at(&mut bytes, 0).map(|()| Bytes::from(bytes))
        });
        let read = read.await.map_err(|e| NotYet::Failed(e.to_string()))?;
        read.map_err(|e| NotYet::Failed(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    #[test]
    fn what_indexes_within_an_index_list_is_listed_by_it_the_nearest_first() {
        let media_type = "application/vnd.oci.image.index.v1+json";
        let index = |listed: &[&Digest]| {
            let listed = listed.iter().map(|digest| {
                json!({
                    "mediaType": media_type, "digest": digest.to_string(), "size": 2,
                })
            });
            let manifests = listed.collect::<Vec<_>>();
            let bytes = json!({
                "schemaVersion": 2, "mediaType": media_type, "manifests": manifests,
            });
            let bytes = bytes.to_string().into_bytes();
            (Digest::sha256(&bytes), bytes)
        };
        let record = |bytes: &[u8]| ManifestRecord {
            media_type: media_type.into(),
            bytes: bytes.to_vec(),
            blobs: Vec::new(),
            subject: None,
            pushed: Timestamp(0),
        };
        let (images, gone) = ([Digest::sha256(b"1"), Digest::sha256(b"2")], Digest::sha256(b"3"));
        let (deep, deep_bytes) = index(&[&images[0]]);
        let (inner, inner_bytes) = index(&[&deep, &images[1]]);
        let (outer, outer_bytes) = index(&[&inner, &gone, &images[1]]);
        let known = BTreeMap::from([(deep, deep_bytes), (inner, inner_bytes)]);
        let find = |digest: &Digest| Ok(known.get(digest).map(|bytes| record(bytes)));
        let all = listed(&record(&outer_bytes), find).expect("records");
        let nearest: BTreeSet<Digest> = all[..3].iter().copied().collect();
        assert_eq!(nearest, BTreeSet::from([inner, gone, images[1]]));
        assert_eq!(all[3..], [deep, images[0]], "each once");
        assert!(!all.contains(&outer));
        let many: Vec<Digest> =
            (0..MOST_CHILDREN as u32 + 9).map(|n| Digest::sha256(&n.to_be_bytes())).collect();
        let (_, bytes) = index(&many.iter().collect::<Vec<_>>());
        assert_eq!(listed(&record(&bytes), find).expect("records").len(), MOST_CHILDREN);
    }

    #[test]
    fn what_does_not_fit_ends_the_allowance_so_that_nothing_smaller_comes_after_it() {
        let allowance = Allowance::new(10);
        assert!(allowance.take(4) && !allowance.is_used_up());
        assert!(!allowance.take(7), "six are left");
        assert!(allowance.is_used_up() && !allowance.take(1));
        let exactly = Allowance::new(3);
        assert!(exactly.take(3) && exactly.is_used_up() && exactly.take(0));
        assert!(Allowance::new(u64::MAX).take(u64::MAX), "sizes are what manifests say");
    }
}
