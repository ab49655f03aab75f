//! Signatures behind one tag. cosign and skopeo read what is behind `sha256-….sig`, add a signature
//! and write it again, so of two that sign at once one would lose its signature. Here what a client
//! writes is stored as it came, and the tag names a manifest that has what it had and what is new:
//! only deleting the tag takes signatures away.

use bytes::Bytes;
use rules::ledger::command::Outcome;
use rules::ledger::events::Actor;
use rules::ledger::level::Level;
use rules::ledger::precondition::Precondition;
use rules::ledger::records::{Look, ManifestRecord, RecordError};
use rules::policies::signatures::MOST_SIGNATURES;
use rules::wire::{NoLedger, Pushed, WriteError};
use rules::words::digest::Digest;
use rules::words::fallback::Fallback;
use rules::words::image::Image;
use rules::words::names::{OperationId, Reference, Tag};
use tracing::debug;

use super::Writes;
use super::made::MANIFEST;

/// How often the tag is looked at again because somebody else has moved it meanwhile.
const TRIES: usize = 20;

/// The tags of signatures among the tags of a push.
pub(super) fn of_signatures(pushed: &Pushed) -> Vec<Tag> {
    let signs = |tag: &&Tag| {
        Fallback::of(tag).is_some_and(|fallback| matches!(fallback.ending, ".sig" | ".att"))
    };
    pushed.tags.iter().filter(signs).cloned().collect()
}

impl Writes {
    /// As the project's primary: stores signatures, and moves their tag to what has all of them. What
    /// cannot be joined with what is there is refused: only who deletes takes signatures away. A
    /// precondition is about what is there before.
    pub(super) async fn join(
        &self,
        operation: OperationId,
        precondition: Option<Box<Precondition>>,
        pushed: Pushed,
        tags: Vec<Tag>,
        by: Option<&Actor>,
    ) -> Result<Outcome, WriteError> {
        let [tag] = tags.as_slice() else {
            return Err(WriteError::Invalid(
                "a manifest is of the signatures of one image: give it one tag of that form".into(),
            ));
        };
        let storage = |e: RecordError| WriteError::Ledger(NoLedger::Storage(e.to_string()));
        let level = self.records.view().and_then(|view| view.level()).map_err(storage)?;
        if level < Level::CONDITIONS {
            return self.put(operation, precondition, pushed, by).await;
        }
        let layers = Image::parts(&pushed.bytes).map_or(0, |parts| parts.layers.len());
        if layers > MOST_SIGNATURES {
            return Err(too_many(tag));
        }
        let ending = Fallback::of(tag).map(|fallback| fallback.ending);
        let is_one = |bytes: &[u8]| sign::evidence::read(bytes, ending).is_some();
        let reference = Reference::Tag(tag.clone());
        // retries keep this operation; what follows gives the same again
        let (mut others, mut pushed) = (pushed.clone(), pushed);
        others.tags.retain(|other| other != tag);
        pushed.tags = vec![tag.clone()];
        let stored = self.put(operation, precondition, others, by).await?;
        if stored != Outcome::Done {
            return Ok(stored);
        }
        for _ in 0..TRIES {
            let here = self.behind(&pushed, tag).map_err(storage)?;
            let (precondition, next) = match here {
                None => (Precondition::absent(reference.clone()), pushed.clone()),
                Some((digest, _)) if digest == pushed.digest => return Ok(Outcome::Done),
                Some((digest, known)) => {
                    let joined = sign::union(&known.bytes, &pushed.bytes);
                    if joined.as_ref().is_some_and(|joined| joined.left_out > 0) {
                        return Err(too_many(tag));
                    }
                    let stands = sign::has_all(&pushed.bytes, &known.bytes);
                    let next = match joined {
                        Some(joined) => {
                            let config = Bytes::from(joined.config);
                            self.hold(&pushed.repository, config).await.map_err(|e| {
                                WriteError::Ledger(NoLedger::Storage(e.to_string()))
                            })?;
                            Pushed {
                                digest: Digest::sha256(&joined.manifest),
                                media_type: MANIFEST.into(),
                                bytes: joined.manifest,
                                ..pushed.clone()
                            }
                        }
                        None if is_one(&known.bytes) && !stands => {
                            return Err(WriteError::Invalid(format!(
                                "there are signatures behind {tag}, and this manifest cannot be joined with them: delete the tag first, or push what cosign writes"
                            )));
                        }
                        None => pushed.clone(),
                    };
                    if next.digest == digest {
                        return Ok(Outcome::Done);
                    }
                    (Precondition::names(reference.clone(), digest), next)
                }
            };
            let operation = OperationId(rand::random());
            match self.put(operation, Some(Box::new(precondition)), next, by).await? {
                Outcome::PreconditionFailed => {
                    debug!(%tag, "somebody else has signed at the same time");
                }
                outcome => return Ok(outcome),
            }
        }
        Err(WriteError::Ledger(NoLedger::Storage(
            "others write signatures of this image all the time; try again".into(),
        )))
    }

    /// What is behind the tag now.
    fn behind(
        &self,
        pushed: &Pushed,
        tag: &Tag,
    ) -> Result<Option<(Digest, ManifestRecord)>, RecordError> {
        let view = self.records.view()?;
        let Some(record) = view.tag(&pushed.repository, tag)? else { return Ok(None) };
        let manifest = view.manifest(&pushed.repository, &record.digest)?;
        Ok(manifest.map(|manifest| (record.digest, manifest)))
    }
}

fn too_many(tag: &Tag) -> WriteError {
    WriteError::Invalid(format!(
        "there are {MOST_SIGNATURES} signatures behind {tag}, and no more are read; delete the tag to begin anew"
    ))
}
