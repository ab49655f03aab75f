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
use rules::wire::{NoLedger, Pushed, WriteError};
use rules::words::digest::Digest;
use rules::words::fallback::Fallback;
use rules::words::names::{OperationId, Reference, Tag};
use tracing::debug;

use super::Writes;
use super::made::MANIFEST;

/// How often the tag is looked at again because somebody else has moved it meanwhile.
const TRIES: usize = 20;

/// The tag of signatures among the tags of a push; a push has at most one, or is none of signatures.
pub(super) fn of_signatures(pushed: &Pushed) -> Option<Tag> {
    let [tag] = pushed.tags.as_slice() else { return None };
    let fallback = Fallback::of(tag)?;
    matches!(fallback.ending, ".sig" | ".att").then(|| tag.clone())
}

impl Writes {
    /// As the project's primary: stores signatures, and moves their tag to what has all of them.
    pub(super) async fn join(
        &self,
        operation: OperationId,
        pushed: Pushed,
        tag: Tag,
        by: Option<&Actor>,
    ) -> Result<Outcome, WriteError> {
        let storage = |e: RecordError| WriteError::Ledger(NoLedger::Storage(e.to_string()));
        let level = self.records.view().and_then(|view| view.level()).map_err(storage)?;
        if level < Level::CONDITIONS {
            return self.put(operation, None, pushed, by).await;
        }
        let ending = Fallback::of(&tag).map(|fallback| fallback.ending);
        let is_one = |bytes: &[u8]| sign::evidence::read(bytes, ending).is_some();
        let reference = Reference::Tag(tag.clone());
        // retries keep this operation; what follows gives the same again
        let alone = Pushed { tags: Vec::new(), ..pushed.clone() };
        let stored = self.put(operation, None, alone, by).await?;
        if stored != Outcome::Done {
            return Ok(stored);
        }
        for _ in 0..TRIES {
            let here = self.behind(&pushed, &tag).map_err(storage)?;
            let (precondition, next) = match here {
                None => (Precondition::absent(reference.clone()), pushed.clone()),
                Some((digest, _)) if digest == pushed.digest => return Ok(Outcome::Done),
                Some((digest, known)) => {
                    let joined = sign::union(&known.bytes, &pushed.bytes);
                    if joined.as_ref().is_some_and(|joined| joined.left_out > 0) {
                        return Err(WriteError::Invalid(format!(
                            "there are 64 signatures behind {tag}, and no more are read; delete the tag to begin anew"
                        )));
                    }
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
                        // what has no signatures does not take the place of what has some
                        None if is_one(&known.bytes) && !is_one(&pushed.bytes) => {
                            return Ok(Outcome::Done);
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
