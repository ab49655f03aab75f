//! What the mesh signs: as a job of the project's primary, with the project's own key.
//!
//! The sign log has an entry before the signature can be read anywhere. Both are written under the
//! primary's epoch and by this node only: a node that is no longer primary adds neither, so what it
//! has signed is never served.

use std::pin::Pin;
use std::sync::Arc;

use ground::clock;
use ground::supervise::at_length;
use rules::ledger::events::Actor;
use rules::ledger::jobs::{Priority, RunEnd, Task};
use rules::ledger::records::{Look, MeshRecord, Project, RecordError, key as records_key};
use rules::ledger::scanning::LookForScans;
use rules::ledger::sign_log::{LogEntry, LookForSigning, MeshKey};
use rules::ledger::signatures::{LookForSignatures, SignatureChange};
use rules::policies::signatures::{
    By, Context, Decision, Format, MESH, Mode, Policy, SignatureRecord, State, decide, metadata,
};
use rules::policies::vulnerabilities::{self, Gate};
use rules::words::digest::Digest;
use rules::words::image::{Image, Runnable};
use rules::words::manifest::Manifest;
use rules::words::moment::Timestamp;
use rules::words::names::{ProjectName, RepositoryName, Tag};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use sign::making::{Claims, SigningKey, bundle, classic, sealed};

use super::Signatures;
use crate::jobs::{Run, Work};
use crate::writes::Refusal;

/// The name of this kind of jobs.
pub const KIND: &str = "sign";
/// How often a run is tried.
const TRIES: u32 = 4;
/// How often the end of the log is read again because another entry came first.
const PLACES: usize = 10;
/// The maximum number of manifests of an index that are signed with it.
const MOST_SIGNED: usize = 200;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Make a key: the first one, or another one instead of the last.
    Key,
    /// Sign an image, and what it lists if it is an index.
    Image {
        /// The repository.
        repository: RepositoryName,
        /// The image.
        digest: Digest,
        /// Under which tag; without one, under the repository's name alone.
        tag: Option<Tag>,
    },
}

/// Why something was not signed.
#[derive(Debug, thiserror::Error)]
enum NotSigned {
    /// No other try helps. A sentence for the operator.
    #[error("{0}")]
    Hopeless(String),
    /// Another try may help.
    #[error("{0}")]
    Again(String),
}

impl From<RecordError> for NotSigned {
    fn from(error: RecordError) -> Self {
        NotSigned::Again(error.to_string())
    }
}

impl From<Refusal> for NotSigned {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound => NotSigned::Hopeless("it is not there any more".into()),
            Refusal::Conflict(why) | Refusal::OverQuota(why) => NotSigned::Hopeless(why),
            refusal => NotSigned::Again(refusal.to_string()),
        }
    }
}

/// One manifest that is to be signed.
struct Unsigned {
    digest: Digest,
    media_type: String,
    size: u64,
    pushed: Timestamp,
    /// Whether a runtime could run it.
    is_image: bool,
}

/// Signs.
pub struct Signing(pub Arc<Signatures>);

impl Signing {
    /// The job that does this.
    pub fn task(project: &ProjectName, order: &Order, asked_by: &str) -> Task {
        let subject = match order {
            Order::Key => format!("a signing key for {project}"),
            Order::Image { repository, digest, .. } => {
                format!("signatures of {repository}@{digest}")
            }
        };
        Task {
            project: project.clone(),
            kind: KIND.into(),
            subject,
            order: serde_json::to_vec(order).unwrap_or_default(),
            priority: Priority::High,
            tries: TRIES,
            asked_by: asked_by.into(),
        }
    }

    async fn run(&self, run: &Run) -> RunEnd {
        let order = match serde_json::from_slice::<Order>(&run.job.task.order) {
            Ok(order) => order,
            Err(error) => return RunEnd::Hopeless(format!("the job's order is damaged: {error}")),
        };
        let by = Actor { name: run.job.task.asked_by.clone(), ..Actor::mesh() };
        let signed = match &order {
            Order::Key => self.0.make_key(&run.job.task.project, &by).await,
            Order::Image { repository, digest, tag } => {
                self.0.sign_all(repository, *digest, tag.as_ref(), &by, run).await
            }
        };
        match signed {
            Ok(said) => RunEnd::Done(said),
            Err(NotSigned::Hopeless(why)) => RunEnd::Hopeless(why),
            Err(NotSigned::Again(why)) => RunEnd::Failed(why),
        }
    }
}

impl Work for Signing {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn carry_out<'a>(&'a self, run: &'a Run) -> Pin<Box<dyn Future<Output = RunEnd> + Send + 'a>> {
        Box::pin(self.run(run))
    }
}

impl Signatures {
    /// The key-encryption key of this node.
    fn kek(&self) -> Result<&[u8; 32], NotSigned> {
        self.terms.kek.as_ref().map(|kek| &***kek).ok_or_else(|| {
            let me = self.neighbours.name_of(self.neighbours.me);
            NotSigned::Hopeless(format!(
                "{me}, the project's primary, has no key-encryption key: set signing.passphrase_file in its settings"
            ))
        })
    }

    /// Where a key belongs: it opens nowhere else.
    fn binding(&self, project: &Project, version: u32) -> Result<Vec<u8>, NotSigned> {
        let view = self.neighbours.records.view()?;
        let mesh: Option<MeshRecord> = view.record(&records_key::mesh())?;
        let mesh = mesh.map_or(0, |mesh| mesh.id);
        Ok(format!("atoll|{mesh:032x}|{}|{version}", project.id.0).into_bytes())
    }

    fn project(&self, name: &ProjectName) -> Result<Project, NotSigned> {
        let project = self.neighbours.records.view()?.project(name)?;
        project.ok_or_else(|| NotSigned::Hopeless("the project is not there any more".into()))
    }

    async fn make_key(&self, name: &ProjectName, by: &Actor) -> Result<String, NotSigned> {
        let (kek, project) = (self.kek()?, self.project(name)?);
        let version =
            self.neighbours.records.view()?.mesh_keys(project.id)?.last().map_or(0, |k| k.version)
                + 1;
        let binding = self.binding(&project, version)?;
        let failed = |why: String| NotSigned::Again(why);
        let key = SigningKey::generate().map_err(|e| failed(e.to_string()))?;
        let sealed = sealed::seal(&key, kek, &binding).map_err(|e| failed(e.to_string()))?;
        let key = MeshKey {
            id: key.id(),
            pem: key.public_pem(),
            version,
            created: clock::timestamp(),
            sealed: ByteBuf::from(sealed),
        };
        let (id, signer) = (key.id, MeshKey::signer(version));
        let change = SignatureChange::SetKey { project: name.clone(), key: Box::new(key) };
        match self.commit(change, by).await {
            Ok(_) => Ok(format!("{name} signs with the key {id} ({signer})")),
            Err(Refusal::Precondition) => {
                Err(NotSigned::Again("another key was made at the same time".into()))
            }
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// The key that signs now, opened. It is in memory for this run only.
    fn active_key(&self, project: &Project) -> Result<SigningKey, NotSigned> {
        let kek = self.kek()?;
        let view = self.neighbours.records.view()?;
        let trusted = view.trusted(project.id)?;
        let keys = view.mesh_keys(project.id)?;
        let active = keys.iter().rev().find(|key| {
            trusted.signers.iter().any(|signer| {
                signer.logged && signer.state == State::Active && signer.is(&By::Key(key.id))
            })
        });
        let Some(key) = active else {
            let name = &project.name;
            return Err(NotSigned::Hopeless(format!(
                "project {name} has no key of its own: atoll sign key --project {name}"
            )));
        };
        let binding = self.binding(project, key.version)?;
        sealed::open(&key.sealed, kek, &binding).map_err(|error| {
            let me = self.neighbours.name_of(self.neighbours.me);
            NotSigned::Hopeless(format!("{me} cannot open the project's key: {error}"))
        })
    }

    async fn sign_all(
        &self,
        repository: &RepositoryName,
        digest: Digest,
        tag: Option<&Tag>,
        by: &Actor,
        run: &Run,
    ) -> Result<String, NotSigned> {
        let project = self.project(&repository.project())?;
        let Some(host) = project.metadata.get(metadata::HOST) else {
            let name = &project.name;
            return Err(NotSigned::Hopeless(format!(
                "say under which name clients know this registry: atoll project set {name} signature_host=registry.example.com"
            )));
        };
        let reference = match tag {
            Some(tag) => format!("{host}/{repository}:{tag}"),
            None => format!("{host}/{repository}"),
        };
        let key = self.active_key(&project)?;
        let all = at_length(|| self.to_sign(repository, digest))?;
        for one in &all {
            if let Some(why) = at_length(|| self.objection(&project, repository, one))? {
                return Err(NotSigned::Hopeless(format!("{} is not signed: {why}", one.digest)));
            }
        }
        let (count, mut signed) = (all.len(), 0);
        for one in all {
            if run.is_stopped() {
                return Err(NotSigned::Hopeless("it was stopped".into()));
            }
            if self.is_signed(repository, &one.digest, &key, &reference)? {
                continue;
            }
            self.sign_one(&project, repository, &one, &reference, &key, by).await?;
            run.log(format!("{} is signed", one.digest));
            signed += 1;
        }
        Ok(format!("{signed} of {count} manifests are signed, the others were, as {reference}"))
    }

    /// Why the project's own rules do not let it be signed, if they do not: a signature of the mesh
    /// says that they were met. Its own signature is not asked for.
    fn objection(
        &self,
        project: &Project,
        repository: &RepositoryName,
        one: &Unsigned,
    ) -> Result<Option<String>, RecordError> {
        let (view, now) = (self.neighbours.records.view()?, clock::timestamp());
        if let Some(gate) = Gate::of(&project.metadata).filter(|_| one.is_image)
            && let Some(facts) = view.scan_facts(&gate, project.id, repository, &one.digest)?
        {
            match vulnerabilities::decide(&gate, facts.known(), &facts.allowed, now) {
                vulnerabilities::Decision::Pass => {}
                vulnerabilities::Decision::Wait(_, why)
                | vulnerabilities::Decision::Refuse(why) => {
                    return Ok(Some(why.to_string()));
                }
            }
        }
        let Some(policy) = Policy::of(&project.metadata) else { return Ok(None) };
        let facts = view.signature_facts(&policy, project.id, repository, &one.digest)?;
        let own: Vec<&str> = facts
            .signers
            .iter()
            .filter(|signer| signer.logged)
            .map(|signer| signer.name.as_str())
            .chain([MESH])
            .collect();
        let by_others = |list: &Vec<String>| !list.iter().any(|name| own.contains(&name.as_str()));
        let require: Vec<Vec<String>> =
            policy.require.iter().filter(|l| by_others(l)).cloned().collect();
        if require.is_empty() {
            return Ok(None);
        }
        let policy = Policy {
            mode: Mode::Enforce,
            require,
            cosign: false,
            notation: false,
            wait: std::time::Duration::ZERO,
            ..policy
        };
        let context = Context { repository, tag: None, pushed: one.pushed, now };
        let decided = decide(&policy, &facts.signers, &facts.own, &facts.parents, &context);
        Ok(match decided {
            Decision::Refuse(why) => Some(why.to_string()),
            _ => None,
        })
    }

    /// An image and what it lists, as far as that is there.
    fn to_sign(
        &self,
        repository: &RepositoryName,
        digest: Digest,
    ) -> Result<Vec<Unsigned>, NotSigned> {
        let view = self.neighbours.records.view()?;
        let gone = || NotSigned::Hopeless(format!("{repository}@{digest} is not there any more"));
        let image = view.manifest(repository, &digest)?.ok_or_else(gone)?;
        let children = match Manifest::read_served(&image.media_type, &image.bytes) {
            Ok(manifest) => manifest.children,
            Err(_) => Vec::new(),
        };
        let unsigned = |digest, record: rules::ledger::records::ManifestRecord| Unsigned {
            digest,
            size: record.bytes.len() as u64,
            pushed: record.pushed,
            is_image: Image::read(&record.bytes) != Runnable::Nothing,
            media_type: record.media_type,
        };
        let mut all = vec![unsigned(digest, image)];
        for child in children.iter().filter(|child| child.manifest).take(MOST_SIGNED) {
            if let Some(record) = view.manifest(repository, &child.digest)? {
                all.push(unsigned(child.digest, record));
            }
        }
        Ok(all)
    }

    /// Whether both forms are there, by this key under this name.
    fn is_signed(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        key: &SigningKey,
        reference: &str,
    ) -> Result<bool, NotSigned> {
        let record = self.neighbours.records.view()?.signatures_of(repository, digest)?;
        let has = |record: &SignatureRecord, format: Format| {
            let mut all = record.evidence.iter().flat_map(|one| &one.signatures);
            all.any(|seen| {
                let one = &seen.signature;
                let named = format == Format::Bundle || one.reference.as_deref() == Some(reference);
                one.format == format
                    && one.by == By::Key(key.id())
                    && one.fault.is_none()
                    && seen.logged.is_some()
                    && named
            })
        };
        Ok(has(&record, Format::Cosign) && has(&record, Format::Bundle))
    }

    async fn sign_one(
        &self,
        project: &Project,
        repository: &RepositoryName,
        one: &Unsigned,
        reference: &str,
        key: &SigningKey,
        by: &Actor,
    ) -> Result<(), NotSigned> {
        let node = self.neighbours.me;
        for _ in 0..PLACES {
            let now = clock::timestamp();
            let (head, epoch) = {
                let project = self.project(&project.name)?;
                (self.neighbours.records.view()?.log_head(project.id)?, project.epoch)
            };
            let number = head.number + 1;
            let optional = [
                ("mesh.epoch".to_owned(), epoch.get().to_string()),
                ("mesh.node".to_owned(), self.neighbours.name_of(node).to_string()),
                ("mesh.seq".to_owned(), number.to_string()),
            ];
            let claims = Claims {
                reference: reference.to_owned(),
                subject: one.digest,
                subject_size: one.size,
                subject_media_type: one.media_type.clone(),
                optional: optional.into(),
                timestamp: now,
            };
            let (tagged, referrer) = (classic(key, &claims), bundle(key, &claims));
            let entry = LogEntry {
                number,
                repository: repository.clone(),
                subject: one.digest,
                reference: reference.to_owned(),
                key: key.id(),
                payloads: vec![tagged.payload, referrer.payload],
                epoch,
                node,
                by: by.name.clone(),
                at: now,
                before: head.hash,
            };
            let change = SignatureChange::Log(Box::new(entry));
            match self.commit_here(change, by).await {
                Ok(_) => {}
                // another entry came first
                Err(Refusal::Precondition) => continue,
                Err(refusal) => return Err(refusal.into()),
            }
            let tag = rules::words::fallback::tags_about(&one.digest)
                .into_iter()
                .find(|tag| tag.as_str().ends_with(".sig"));
            self.writes
                .put_here(repository, one.digest, tagged.blobs, tagged.manifest, tag, by)
                .await?;
            self.writes
                .put_here(repository, one.digest, referrer.blobs, referrer.manifest, None, by)
                .await?;
            metrics::counter!("atoll_signed_total").increment(1);
            return Ok(());
        }
        Err(NotSigned::Again("others sign all the time".into()))
    }
}
