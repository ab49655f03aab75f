//! Signatures: whom projects trust, and what their signatures are worth.

pub(super) mod exempting;
mod signing;

use super::next_number;
use crate::ledger::command::{NewManifest, Outcome};
use crate::ledger::level::Level;
use crate::ledger::records::{Look, Project, RecordError, WriteRecords, encode};
use crate::ledger::scanning::LookForScans;
use crate::ledger::sign_log::{
    LogEntry, LogHead, LookForSigning, MOST_KEYS, MOST_PAYLOADS, MeshKey, key as log_key,
};
use crate::ledger::signatures::{
    KEEPS_ITS_KEY, LookForSignatures, MOST_CHILDREN, MOST_EVIDENCE, MOST_IN_ALL, MOST_PARENTS,
    SignatureChange, Unverified, check_signer, has_room, is_short, key,
};
use crate::policies::signatures::{
    Anchor, By, Evidence, Exemption, MESH, MOST_SIGNATURES, Policy, SignatureRecord, Signer, State,
    is_evidence,
};
use crate::words::digest::Digest;
use crate::words::fallback::Fallback;
use crate::words::moment::Timestamp;
use crate::words::names::{ProjectId, RepositoryName, Tag};

/// A manifest was pushed. What may be an artifact of signatures is to be verified.
pub(super) fn pushed<R: WriteRecords>(
    records: &mut R,
    project: &Project,
    new: &NewManifest,
) -> Result<(), RecordError> {
    if records.level()? < Level::SIGNATURES {
        return Ok(());
    }
    let referrer = new.subject.as_ref().map(|subject| &subject.1);
    if referrer.is_some_and(|referrer| is_evidence(referrer.artifact_type.as_deref())) {
        ask(records, project.id, &new.repository, &new.digest, None)?;
    }
    for tag in &new.tags {
        tagged(records, project, &new.repository, &new.digest, tag)?;
    }
    Ok(())
}

/// A manifest has got a tag.
pub(super) fn tagged<R: WriteRecords>(
    records: &mut R,
    project: &Project,
    repository: &RepositoryName,
    digest: &Digest,
    tag: &Tag,
) -> Result<(), RecordError> {
    let signs = is_of_signatures(tag) && records.level()? >= Level::SIGNATURES;
    if signs { ask(records, project.id, repository, digest, Some(tag)) } else { Ok(()) }
}

/// Whether what lies behind a tag may be signatures of something.
fn is_of_signatures(tag: &Tag) -> bool {
    Fallback::of(tag).is_some_and(|fallback| matches!(fallback.ending, ".sig" | ".att"))
}

fn ask<R: WriteRecords>(
    records: &mut R,
    project: ProjectId,
    repository: &RepositoryName,
    manifest: &Digest,
    tag: Option<&Tag>,
) -> Result<(), RecordError> {
    let number = next_number(records, &key::last_unverified())?;
    let (repository, manifest, tag) = (repository.clone(), *manifest, tag.cloned());
    let unverified = Unverified { repository, manifest, tag };
    records.put(&key::unverified(project, number), &encode(&unverified)?)
}

/// A manifest is gone: what was known of its signatures, and what it was worth as one.
pub(super) fn forget<R: WriteRecords>(
    records: &mut R,
    repository: &RepositoryName,
    digest: &Digest,
    subject: Option<&Digest>,
) -> Result<(), RecordError> {
    let record = records.signatures_of(repository, digest)?;
    if record != SignatureRecord::default() {
        // the same bytes may be pushed again, and an edge must not know them as signed then
        if records.level()? >= Level::REVOCATIONS {
            count_change(records)?;
        }
        disinherit(records, repository, digest, &record.children)?;
        // whoever pushes it again finds that an index lists it
        let parents = record.parents;
        keep(records, repository, digest, &SignatureRecord { parents, ..Default::default() })?;
    }
    match subject {
        Some(subject) => without(records, repository, subject, |one| one.manifest == *digest),
        None => Ok(()),
    }
}

/// A tag is gone: what lay behind it counts for nothing any more.
pub(super) fn untagged<R: WriteRecords>(
    records: &mut R,
    repository: &RepositoryName,
    tag: &Tag,
) -> Result<(), RecordError> {
    let subject = Fallback::of(tag).filter(|_| is_of_signatures(tag)).and_then(|of| of.digest());
    match subject {
        Some(subject) => {
            without(records, repository, &subject, |one| one.tag.as_ref() == Some(tag))
        }
        None => Ok(()),
    }
}

fn without<R: WriteRecords>(
    records: &mut R,
    repository: &RepositoryName,
    subject: &Digest,
    goes: impl Fn(&Evidence) -> bool,
) -> Result<(), RecordError> {
    let mut known = records.signatures_of(repository, subject)?;
    let before = known.evidence.len();
    known.evidence.retain(|one| !goes(one));
    if known.evidence.len() == before {
        return Ok(());
    }
    keep(records, repository, subject, &known)?;
    count_change(records)
}

/// Keeps what is known, or nothing if that is nothing.
pub(super) fn keep<R: WriteRecords>(
    records: &mut R,
    repository: &RepositoryName,
    digest: &Digest,
    record: &SignatureRecord,
) -> Result<(), RecordError> {
    let place = key::signatures(repository, digest);
    match *record == SignatureRecord::default() {
        true => records.remove(&place),
        false => records.put(&place, &encode(record)?),
    }
}

/// A project is gone, and it has no images any more. What waits in the queue goes with the next look
/// at it.
pub(super) fn leave_project<R: WriteRecords>(
    records: &mut R,
    project: ProjectId,
    most: usize,
) -> Result<bool, RecordError> {
    let waiting = records.scan(&key::unverified_of(project), None, most)?;
    for (place, _) in &waiting {
        records.remove(place)?;
    }
    if waiting.len() == most {
        return Ok(true);
    }
    for table in [log_key::log(project), log_key::payloads(project)] {
        let some = records.scan(&table, None, most)?;
        for (place, _) in &some {
            records.remove(place)?;
        }
        if some.len() == most {
            return Ok(true);
        }
    }
    records.remove(&log_key::keys(project))?;
    records.remove(&log_key::head(project))?;
    records.remove(&log_key::identity(project))?;
    records.remove(&key::trusted(project))?;
    records.remove(&key::up_to_date(project))?;
    Ok(false)
}

pub(super) fn change<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    project: &Project,
    change: &SignatureChange,
) -> Result<Outcome, RecordError> {
    if records.level()? < Level::SIGNATURES {
        return Ok(Outcome::Refused("no signatures are verified at this feature level".into()));
    }
    match change {
        SignatureChange::Verified { repository, subject, children, evidence, number } => {
            if let Some(number) = number {
                records.remove(&key::unverified(project.id, *number))?;
            }
            verified(records, at, project, (repository, subject), children, evidence)
        }
        SignatureChange::Skip { number, .. } => {
            records.remove(&key::unverified(project.id, *number))?;
            Ok(Outcome::Done)
        }
        SignatureChange::UpToDate { anchors, .. } => {
            records.put(&key::up_to_date(project.id), &encode(anchors)?)?;
            Ok(Outcome::Done)
        }
        SignatureChange::SetSigner { signer, new, .. } => {
            set_signer(records, at, project, signer, *new)
        }
        SignatureChange::RemoveSigner { name, .. } => {
            let mut trusted = records.trusted(project.id)?;
            let ended = |one: &&Signer| one.name == *name && one.state.is_compromised();
            if trusted.signers.iter().any(|one| ended(&one)) {
                let said = "a compromised signer stays, so that nobody trusts its key again";
                return Ok(Outcome::Refused(said.into()));
            }
            let before = trusted.signers.len();
            trusted.signers.retain(|signer| signer.name != *name);
            if trusted.signers.len() == before {
                return Ok(Outcome::NotFound);
            }
            trusted.anchors += 1;
            records.put(&key::trusted(project.id), &encode(&trusted)?)?;
            count_change(records)?;
            Ok(Outcome::Done)
        }
        SignatureChange::SetKey { key, .. } => set_key(records, at, project, key),
        SignatureChange::Log(entry) => log(records, at, project, entry),
        SignatureChange::Exempt { .. } | SignatureChange::ExemptIndex { .. } => {
            exempting::change(records, at, change)
        }
        SignatureChange::SetIdentity { identity, authority, .. } => {
            signing::set_identity(records, project, identity, authority)
        }
        SignatureChange::Reseal { keys, .. } => signing::reseal(records, project, keys),
        SignatureChange::FoundCached { .. } | SignatureChange::ForgetCached { .. } => {
            Ok(Outcome::Refused(format!("project {} caches no registry", project.name)))
        }
    }
}

fn verified<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    project: &Project,
    (repository, subject): (&RepositoryName, &Digest),
    children: &[Digest],
    evidence: &Evidence,
) -> Result<Outcome, RecordError> {
    let too_much = evidence.signatures.len() > MOST_SIGNATURES || children.len() > MOST_CHILDREN;
    if too_much {
        return Ok(Outcome::Refused("too many signatures, or too many manifests".into()));
    }
    // it was deleted, or the tag has moved on: then another entry of the queue is about that
    let current = match &evidence.tag {
        Some(tag) => {
            records.tag(repository, tag)?.is_some_and(|tag| tag.digest == evidence.manifest)
        }
        None => records.has_manifest(repository, &evidence.manifest)?,
    };
    if !current {
        return Ok(Outcome::Done);
    }
    let mut known = records.signatures_of(repository, subject)?;
    let before = known.clone();
    let replaced = |one: &Evidence| match &evidence.tag {
        Some(tag) => one.tag.as_ref() == Some(tag),
        None => one.manifest == evidence.manifest && one.tag.is_none(),
    };
    let mut new = evidence.clone();
    let older: Vec<&Evidence> = known.evidence.iter().filter(|one| replaced(one)).collect();
    date(records, at, project.id, &mut new, &older)?;
    known.evidence.retain(|one| !replaced(one));
    let is_known = new.is_known();
    known.evidence.push(new);
    bound(&mut known.evidence);
    // an index that nobody has signed who is trusted makes nothing good
    if is_known {
        inherit(records, repository, subject, children)?;
    }
    known.children = children.to_vec();
    if known == before {
        return Ok(Outcome::Done);
    }
    keep(records, repository, subject, &known)?;
    // of a project without a policy edges need not hear: its metadata they follow anyhow
    if Policy::of(&project.metadata).is_some() {
        count_change(records)?;
    }
    Ok(Outcome::Done)
}

/// Says since when the mesh knows each signature, and which of them the sign log has.
pub(super) fn date<R: WriteRecords>(
    records: &R,
    at: Timestamp,
    project: ProjectId,
    new: &mut Evidence,
    older: &[&Evidence],
) -> Result<(), RecordError> {
    for seen in &mut new.signatures {
        let mut older = older.iter().flat_map(|one| &one.signatures);
        let same = older.find(|one| one.signature.is_same(&seen.signature));
        seen.at = same.map_or(at, |one| one.at);
        seen.logged = records.record(&log_key::payload(project, &seen.signature.payload))?;
    }
    Ok(())
}

/// What a signed index lists is as good as the index, and so is what an exempted one lists.
pub(super) fn inherit<R: WriteRecords>(
    records: &mut R,
    repository: &RepositoryName,
    subject: &Digest,
    children: &[Digest],
) -> Result<(), RecordError> {
    for child in children {
        let mut of_child = records.signatures_of(repository, child)?;
        if child != subject && !of_child.parents.contains(subject) {
            of_child.parents.push(*subject);
            let surplus = of_child.parents.len().saturating_sub(MOST_PARENTS);
            of_child.parents.drain(..surplus);
            keep(records, repository, child, &of_child)?;
        }
    }
    Ok(())
}

/// What an index lists has nothing of it any more.
pub(super) fn disinherit<R: WriteRecords>(
    records: &mut R,
    repository: &RepositoryName,
    index: &Digest,
    children: &[Digest],
) -> Result<(), RecordError> {
    for child in children {
        let mut known = records.signatures_of(repository, child)?;
        known.parents.retain(|parent| parent != index);
        keep(records, repository, child, &known)?;
    }
    Ok(())
}

/// Whether what makes them known is the same: a key, or the same identities of an authority.
fn shares(one: &Signer, other: &Signer, level: Level) -> bool {
    match (&one.anchor, &other.anchor) {
        (Anchor::Key { id, .. }, Anchor::Key { id: other, .. }) => id == other,
        (one, other) if level >= Level::COMPROMISED => one.is_same(other),
        (one, other) => one == other,
    }
}

/// Keeps as much as there is room for. Signatures by nobody go first; then the oldest of those of which
/// the same signer has several: nobody pushes out the signatures of others.
pub(super) fn bound(evidence: &mut Vec<Evidence>) {
    let signer = |one: &Evidence| {
        let known = one.signatures.iter().map(|seen| &seen.signature);
        known.filter(|one| one.fault.is_none()).map(|one| one.by.clone()).next()
    };
    let count = |all: &[Evidence]| all.iter().map(|one| one.signatures.len()).sum::<usize>();
    while evidence.len() > MOST_EVIDENCE || count(evidence) > MOST_IN_ALL {
        let unknown = evidence.iter().position(|one| !one.is_known());
        let several = || {
            let signers: Vec<_> = evidence.iter().map(signer).collect();
            let times = |by| signers.iter().filter(|other| *other == by).count();
            let most = signers.iter().map(times).max().unwrap_or_default();
            signers.iter().position(|by| times(by) == most).filter(|_| most > 1)
        };
        // if all are of different signers, the one that came last has no room
        let place = unknown.or_else(several).unwrap_or(evidence.len() - 1);
        evidence.remove(place);
    }
}

fn set_signer<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    project: &Project,
    signer: &Signer,
    new: bool,
) -> Result<Outcome, RecordError> {
    let mut signer = signer.clone();
    let is_ours = signer.logged || !new;
    if !is_ours && (signer.name == MESH || signer.name.starts_with("mesh-")) {
        return Ok(Outcome::Refused("names of this form are for the mesh's own keys".into()));
    }
    if let Err(why) = check_signer(&signer) {
        return Ok(Outcome::Refused(why));
    }
    let level = records.level()?;
    let mut trusted = records.trusted(project.id)?;
    let others = || trusted.signers.iter().filter(|one| one.name != signer.name);
    if let Some(other) =
        others().find(|one| one.state.is_compromised() && shares(one, &signer, level))
    {
        let said = format!("it is what {} was, which is compromised", other.name);
        return Ok(Outcome::Refused(said));
    }
    let same_key =
        |one: &&Signer| matches!(one.anchor, Anchor::Key { .. }) && shares(one, &signer, level);
    if let Some(other) = others().find(same_key) {
        let said = format!("the project trusts this key already, as {}", other.name);
        return Ok(Outcome::Refused(said));
    }
    let place = trusted.signers.iter().position(|one| one.name == signer.name);
    if let State::Revoked { at: when, .. } = &mut signer.state {
        // a signer is revoked when the ledger hears of it
        let before = place.map(|place| &trusted.signers[place].state);
        *when = match before {
            Some(State::Revoked { at, .. }) => *at,
            _ => at,
        };
    }
    match place {
        Some(_) if new => return Ok(Outcome::Exists),
        None if !new => return Ok(Outcome::NotFound),
        // only a key that the mesh has made is one of the mesh
        None if signer.logged => {
            return Ok(Outcome::Refused("only the mesh adds its own keys".into()));
        }
        None if !has_room(&trusted, level) => {
            return Ok(Outcome::Refused("a project trusts at most 50 signers".into()));
        }
        Some(place) => {
            let before = &trusted.signers[place];
            if before.logged != signer.logged || before.logged && before.anchor != signer.anchor {
                return Ok(Outcome::Refused("the key is the mesh's own; rotate it".into()));
            }
            let was_compromised = before.state.is_compromised();
            if was_compromised && !signer.state.is_compromised() {
                let said = "a signer that is compromised stays so; add another one";
                return Ok(Outcome::Refused(said.into()));
            }
            // nobody may forget what it was
            if was_compromised && before.anchor != signer.anchor && level >= Level::COMPROMISED {
                return Ok(Outcome::Refused(KEEPS_ITS_KEY.into()));
            }
            // certificates of its key, and of its authority under other keys, are looked for
            if !was_compromised && signer.state.is_compromised() && level >= Level::COMPROMISED {
                trusted.anchors += 1;
            }
            if trusted.signers[place].anchor != signer.anchor {
                trusted.anchors += 1;
            }
            trusted.signers[place] = signer;
        }
        None => {
            trusted.anchors += 1;
            trusted.signers.push(signer);
        }
    }
    records.put(&key::trusted(project.id), &encode(&trusted)?)?;
    count_change(records)?;
    Ok(Outcome::Done)
}

fn set_key<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    project: &Project,
    key: &MeshKey,
) -> Result<Outcome, RecordError> {
    let level = records.level()?;
    let mut keys = records.mesh_keys(project.id)?;
    let last = keys.last().map_or(0, |key| key.version);
    if key.version != last + 1 {
        return Ok(Outcome::PreconditionFailed);
    }
    if keys.len() >= MOST_KEYS {
        return Ok(Outcome::Refused(format!("a project has at most {MOST_KEYS} keys of its own")));
    }
    let mut trusted = records.trusted(project.id)?;
    // a key that somebody imports may be one that others have
    let same = trusted.signers.iter().find(|one| one.is(&By::Key(key.id)));
    if let Some(same) = same.filter(|_| level >= Level::SIGNING) {
        let said = match same.state.is_compromised() {
            true => format!("it is what {} was, which is compromised", same.name),
            false => format!("the project trusts this key already, as {}", same.name),
        };
        return Ok(Outcome::Refused(said));
    }
    let name = MeshKey::signer(key.version);
    if trusted.signers.iter().any(|signer| signer.name == name) {
        return Ok(Outcome::Refused(format!("there is a signer {name} already; remove it first")));
    }
    if !has_room(&trusted, level) {
        return Ok(Outcome::Refused("a project trusts at most 50 signers".into()));
    }
    for signer in trusted.signers.iter_mut().filter(|signer| signer.logged) {
        // an authority for notation certifies the next key, too
        let is_key = matches!(signer.anchor, Anchor::Key { .. });
        if is_key && signer.state == State::Active {
            signer.state = State::VerifyOnly;
        }
    }
    let anchor = Anchor::Key { id: key.id, pem: key.pem.clone() };
    trusted.signers.push(Signer::of_the_mesh(name, anchor));
    trusted.anchors += 1;
    keys.push(MeshKey { created: at, ..key.clone() });
    records.put(&log_key::keys(project.id), &encode(&keys)?)?;
    records.put(&key::trusted(project.id), &encode(&trusted)?)?;
    count_change(records)?;
    Ok(Outcome::Done)
}

fn log<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    project: &Project,
    entry: &LogEntry,
) -> Result<Outcome, RecordError> {
    let head = records.log_head(project.id)?;
    if entry.number != head.number + 1 {
        return Ok(Outcome::PreconditionFailed);
    }
    if !records.has_manifest(&entry.repository, &entry.subject)? {
        return Ok(Outcome::NotFound);
    }
    let fits = (1..=MOST_PAYLOADS).contains(&entry.payloads.len())
        && is_short(&entry.reference)
        && is_short(&entry.by);
    if !fits {
        return Ok(Outcome::Refused("an entry of the sign log is not as it must be".into()));
    }
    let trusted = records.trusted(project.id)?;
    let signs = trusted.signers.iter().any(|signer| {
        signer.logged && signer.state == State::Active && signer.is(&By::Key(entry.key))
    });
    if !signs {
        return Ok(Outcome::Refused("the project does not sign with this key any more".into()));
    }
    let entry = LogEntry { at, epoch: project.epoch, before: head.hash, ..entry.clone() };
    let head = LogHead { number: entry.number, hash: entry.hash()? };
    for payload in &entry.payloads {
        records.put(&log_key::payload(project.id, payload), &encode(&entry.number)?)?;
    }
    records.put(&log_key::entry(project.id, entry.number), &encode(&entry)?)?;
    records.put(&log_key::head(project.id), &encode(&head)?)?;
    Ok(Outcome::Done)
}

/// Counts a change of what decides about images; edges hear of it.
pub(super) fn count_change<R: WriteRecords>(records: &mut R) -> Result<(), RecordError> {
    let version = records.verdicts_version()? + 1;
    records.put(&crate::ledger::scanning::key::verdicts(), &encode(&version)?)
}

/// What an event says of a change, as an operation, a kind and a name. What the primary found by
/// itself is no event.
pub(super) fn news(change: &SignatureChange) -> Option<(&'static str, &'static str, String)> {
    Some(match change {
        SignatureChange::SetSigner { project, signer, new } => {
            let what = format!("{project}/{}: {}", signer.name, signer.describe());
            (if *new { "create" } else { "update" }, "signer", what)
        }
        SignatureChange::RemoveSigner { project, name } => {
            ("delete", "signer", format!("{project}/{name}"))
        }
        SignatureChange::Exempt { repository, digest, exemption: Some(exemption) } => {
            let Exemption { until, why, .. } = exemption;
            let what = format!("{repository}@{digest} until {until}: {why}");
            ("create", "signature exemption", what)
        }
        SignatureChange::ExemptIndex { repository, digest, children, exemption } => {
            let Exemption { until, why, .. } = exemption;
            let count = children.len();
            let what = format!("{repository}@{digest} and {count} in it until {until}: {why}");
            ("create", "signature exemption", what)
        }
        SignatureChange::Exempt { repository, digest, exemption: None } => {
            ("delete", "signature exemption", format!("{repository}@{digest}"))
        }
        SignatureChange::SetKey { project, key } => {
            let what = format!("{project}/{}: key {}", MeshKey::signer(key.version), key.id);
            ("create", "signing key", what)
        }
        SignatureChange::Log(entry) => {
            let LogEntry { repository, subject, reference, number, .. } = &**entry;
            (
                "create",
                "signature",
                format!("{repository}@{subject} as {reference}, number {number}"),
            )
        }
        SignatureChange::SetIdentity { project, identity, .. } => {
            let what = format!("{project}: key {}, until {}", identity.key, identity.until);
            ("create", "notation certificates", what)
        }
        SignatureChange::Reseal { project, keys } => {
            let what = format!("{project}: {} sealed anew", keys.len());
            ("update", "signing key", what)
        }
        SignatureChange::Verified { .. }
        | SignatureChange::FoundCached { .. }
        | SignatureChange::ForgetCached { .. }
        | SignatureChange::Skip { .. }
        | SignatureChange::UpToDate { .. } => return None,
    })
}
