//! What the mesh shall sign without being asked for each image, and what keeps it from that.
//!
//! Nothing of this is stored. It is what the records say now: a tag that was moved, a verdict that has
//! changed, a signature that has come and a key that was replaced need no entry of their own, and no
//! node has to remember what it has begun.

use std::collections::{BTreeMap, BTreeSet};

use super::records::{
    Look, ManifestRecord, Project, RecordError, SPARSE_INDEXES, TagRecord, decode,
    key as records_key,
};
use super::scanning::LookForScans;
use super::sign_log::LookForSigning;
use super::signatures::{LookForSignatures, key};
use crate::policies::signatures::{
    Anchor, Context, Decision, Own, Policy, Rule, SignatureRecord, Signer, decide, metadata,
    signed_ever, signed_under, without_own,
};
use crate::policies::vulnerabilities::{self, Gate};
use crate::words::digest::Digest;
use crate::words::image::{Image, Runnable};
use crate::words::manifest::Manifest;
use crate::words::moment::Timestamp;
use crate::words::names::{RepositoryName, Tag};

/// The number of records that are read in one scan.
const PAGE: usize = 500;

/// An image that the mesh shall sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Its repository.
    pub repository: RepositoryName,
    /// The image.
    pub digest: Digest,
    /// Under which tag; without one, under the repository's name alone.
    pub tag: Option<Tag>,
}

/// The name under which the mesh signs.
pub fn reference(host: &str, repository: &RepositoryName, tag: Option<&Tag>) -> String {
    match tag {
        Some(tag) => format!("{host}/{repository}:{tag}"),
        None => format!("{host}/{repository}"),
    }
}

/// What decides whether one manifest may be signed.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its repository.
    pub repository: &'a RepositoryName,
    /// The manifest.
    pub digest: &'a Digest,
    /// When it was pushed.
    pub pushed: Timestamp,
    /// Whether a runtime could run it: others have no scans.
    pub is_image: bool,
}

/// The maximum number of manifests of an index that are signed with it.
const MOST_SIGNED: usize = 200;

/// One manifest that is signed with an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its length in bytes.
    pub size: u64,
    /// When it was pushed.
    pub pushed: Timestamp,
    /// Whether a runtime could run it.
    pub is_image: bool,
}

/// An image and what it lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parts {
    /// It is not there any more.
    Gone,
    /// It lists this manifest, which is not there, and the project takes no sparse indexes: something
    /// was deleted, and who signs it would sign what nobody has looked at.
    Lacks(Digest),
    /// It lists more than are signed with one image, or so much in indexes within indexes.
    TooMany,
    /// The image first, then all that it lists, and that indexes among these list. Of a sparse index
    /// those that are there.
    All(Vec<Part>),
}

/// The signers of whom one of each list is required, for people.
fn said(lists: &[Vec<String>]) -> String {
    lists.iter().map(|list| list.join(" or ")).collect::<Vec<_>>().join(" and ")
}

/// What is known of one image of a repository.
#[derive(Default)]
struct Summary {
    /// The names under which it is signed as it shall be.
    under: BTreeSet<String>,
    /// The names under which it was ever signed.
    ever: BTreeSet<String>,
    children: Vec<Digest>,
}

/// Reading of what is to be signed.
pub trait LookForDue: Look {
    /// Why the project's own rules do not let an image be signed, if they do not: a signature of the
    /// mesh says that they were met. The mesh's own signature is not asked for.
    fn objection(
        &self,
        project: &Project,
        subject: Subject<'_>,
        now: Timestamp,
    ) -> Result<Option<String>, RecordError> {
        let Subject { repository, digest, pushed, is_image } = subject;
        if let Some(gate) = Gate::of(&project.metadata).filter(|_| is_image)
            && let Some(facts) = self.scan_facts(&gate, project.id, repository, digest)?
        {
            match vulnerabilities::decide(&gate, facts.known(), &facts.allowed, now) {
                vulnerabilities::Decision::Pass => {}
                vulnerabilities::Decision::Wait(_, why)
                | vulnerabilities::Decision::Refuse(why) => return Ok(Some(why.to_string())),
            }
        }
        let Some(policy) = Policy::of(&project.metadata) else { return Ok(None) };
        let facts = self.signature_facts_by_digest(project.id, repository, digest)?;
        let facts = facts.without_exemptions();
        let Some(policy) = without_own(policy, &facts.signers) else { return Ok(None) };
        let tags = facts.tags();
        let context = Context { repository, cached: false, tag: None, tags, pushed, now };
        Ok(match decide(&policy, &facts.signers, &facts.own, &facts.parents, &context) {
            Decision::Refuse(why) => Some(match policy.require.is_empty() {
                true => why.to_string(),
                // whoever reads "it is not signed" of what he wants to have signed must know by whom
                false => format!(
                    "{why}; {} must have signed it first (signature_require)",
                    said(&policy.require)
                ),
            }),
            _ => None,
        })
    }

    /// An image, and what it lists.
    fn parts_of(
        &self,
        project: &Project,
        repository: &RepositoryName,
        digest: Digest,
    ) -> Result<Parts, RecordError> {
        let Some(image) = self.manifest(repository, &digest)? else { return Ok(Parts::Gone) };
        let listed = |record: &ManifestRecord| {
            let manifest = Manifest::read_served(&record.media_type, &record.bytes);
            let children = manifest.map(|manifest| manifest.children).unwrap_or_default();
            children.into_iter().filter(|child| child.manifest).map(|child| child.digest)
        };
        let mut seen = BTreeSet::from([digest]);
        let mut left: Vec<Digest> = listed(&image).collect();
        let part = |digest, record: ManifestRecord| Part {
            digest,
            size: record.bytes.len() as u64,
            pushed: record.pushed,
            is_image: Image::read(&record.bytes) != Runnable::Nothing,
            media_type: record.media_type,
        };
        let mut all = vec![part(digest, image)];
        while let Some(child) = left.pop() {
            if !seen.insert(child) {
                continue;
            }
            if seen.len() > MOST_SIGNED {
                return Ok(Parts::TooMany);
            }
            match self.manifest(repository, &child)? {
                Some(record) => {
                    left.extend(listed(&record));
                    all.push(part(child, record));
                }
                None if project.is_set(SPARSE_INDEXES) => {}
                None => return Ok(Parts::Lacks(child)),
            }
        }
        Ok(Parts::All(all))
    }

    /// Why an image, with what it lists, may not be signed now; `None` if it may.
    fn why_not(
        &self,
        project: &Project,
        repository: &RepositoryName,
        parts: &Parts,
        now: Timestamp,
    ) -> Result<Option<String>, RecordError> {
        let parts = match parts {
            Parts::Gone => return Ok(Some("it is not there any more".into())),
            Parts::Lacks(child) => {
                return Ok(Some(format!(
                    "it lists {child}, which is not there: push that, or set sparse_indexes=true if \
                     it was left out on purpose"
                )));
            }
            Parts::TooMany => {
                return Ok(Some(format!("it lists more than {MOST_SIGNED} manifests")));
            }
            Parts::All(parts) => parts,
        };
        for Part { digest, pushed, is_image, .. } in parts {
            let (pushed, is_image) = (*pushed, *is_image);
            let subject = Subject { repository, digest, pushed, is_image };
            if let Some(why) = self.objection(project, subject, now)? {
                return Ok(Some(format!("{digest}: {why}")));
            }
        }
        Ok(None)
    }

    /// The images of a repository that the mesh shall sign under `host` and has not: those whose tags
    /// the project's rule covers, and those that one of its keys has signed under a name that they
    /// still have.
    fn due_in(
        &self,
        project: &Project,
        signers: &[Signer],
        own: &Own,
        host: &str,
        repository: &RepositoryName,
    ) -> Result<Vec<Due>, RecordError> {
        let rule = Rule::of(&project.metadata);
        let mut known = BTreeMap::<Digest, Summary>::new();
        let (prefix, mut after) = (key::signatures_in(repository), None::<Vec<u8>>);
        loop {
            let some = self.scan(&prefix, after.as_deref(), PAGE)?;
            let Some((last, _)) = some.last() else { break };
            after = Some(last.clone());
            for (place, record) in some {
                let Some((_, digest)) = key::signed(&place) else { continue };
                let record: SignatureRecord = decode(&record)?;
                let named = self.named_in_log(project.id, &record, own)?;
                let under = signed_under(&record, own, &named);
                let ever = signed_ever(&record, signers);
                if !ever.is_empty() {
                    let children = record.children;
                    known.insert(digest, Summary { under, ever, children });
                }
            }
        }
        if rule.is_none() && known.is_empty() {
            return Ok(Vec::new());
        }
        let nothing = Summary::default();
        let mut due = Vec::new();
        let (prefix, mut after) = (records_key::tags(repository), None::<Vec<u8>>);
        loop {
            let some = self.scan(&prefix, after.as_deref(), PAGE)?;
            let Some((last, _)) = some.last() else { break };
            after = Some(last.clone());
            for (place, record) in some {
                let Ok(tag) = records_key::tag_of(&place).parse::<Tag>() else { continue };
                let TagRecord { digest, .. } = decode(&record)?;
                let summary = known.get(&digest).unwrap_or(&nothing);
                let name = reference(host, repository, Some(&tag));
                let wanted = summary.ever.contains(&name)
                    || rule.as_ref().is_some_and(|rule| rule.covers(&tag));
                if wanted && !is_whole(self, repository, summary, &known, &name)? {
                    due.push(Due { repository: repository.clone(), digest, tag: Some(tag) });
                }
            }
        }
        let name = reference(host, repository, None);
        for (digest, summary) in &known {
            if summary.ever.contains(&name)
                && !is_whole(self, repository, summary, &known, &name)?
                && self.has_manifest(repository, digest)?
            {
                due.push(Due { repository: repository.clone(), digest: *digest, tag: None });
            }
        }
        Ok(due)
    }

    /// How many images each key of the project (by the name of its signer) has signed that no other of
    /// them has, in this repository: they are refused when that key is revoked.
    fn signed_only_by(
        &self,
        signers: &[Signer],
        repository: &RepositoryName,
        count: &mut BTreeMap<String, u64>,
    ) -> Result<(), RecordError> {
        let (prefix, mut after) = (key::signatures_in(repository), None::<Vec<u8>>);
        loop {
            let some = self.scan(&prefix, after.as_deref(), PAGE)?;
            let Some((last, _)) = some.last() else { return Ok(()) };
            after = Some(last.clone());
            for (_, record) in some {
                let record: SignatureRecord = decode(&record)?;
                let seen = record.evidence.iter().flat_map(|one| &one.signatures);
                let seen = seen.filter(|one| one.logged.is_some() && one.signature.fault.is_none());
                let keys: BTreeSet<&str> = seen
                    .flat_map(|one| {
                        let own = signers.iter().filter(|signer| signer.logged);
                        // certificates are of the same keys
                        let own = own.filter(|signer| matches!(signer.anchor, Anchor::Key { .. }));
                        own.filter(|signer| signer.is(&one.signature.by)).map(|one| &*one.name)
                    })
                    .collect();
                if let (Some(only), 1) = (keys.first(), keys.len()) {
                    *count.entry((*only).to_owned()).or_default() += 1;
                }
            }
        }
    }
}

impl<R: Look + ?Sized> LookForDue for R {}

/// Whether an image and all that it lists are signed under this name.
fn is_whole<R: Look + ?Sized>(
    records: &R,
    repository: &RepositoryName,
    of: &Summary,
    known: &BTreeMap<Digest, Summary>,
    name: &str,
) -> Result<bool, RecordError> {
    if !of.under.contains(name) {
        return Ok(false);
    }
    for child in &of.children {
        let is_signed = known.get(child).is_some_and(|one| one.under.contains(name));
        // what was left out on purpose is not here to be signed
        if !is_signed && records.has_manifest(repository, child)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Under which name clients know this registry, if the project says so.
pub fn host(project: &Project) -> Option<&str> {
    project.metadata.get(metadata::HOST).map(String::as_str)
}
