//! What the mesh signs: as a job of the project's primary, with the project's own key.
//!
//! The sign log has an entry before the signature can be read anywhere. Both are written under the
//! primary's epoch and by this node only: a node that is no longer primary adds neither, so what it
//! has signed is never served.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ground::clock;
use ground::supervise::at_length;
use rules::ledger::events::Actor;
use rules::ledger::jobs::{Job, LookForJobs, Priority, RunEnd, Task};
use rules::ledger::records::{Look, Project, RecordError};
use rules::ledger::sign_due::{self, Due, LookForDue, Part, Parts};
use rules::ledger::sign_log::{LogEntry, LookForSigning};
use rules::ledger::signatures::{LookForSignatures, SignatureChange, Unverified, key};
use rules::policies::signatures::{Lacking, Own, lacking};
use rules::words::digest::Digest;
use rules::words::names::{ProjectName, RepositoryName, Tag};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sign::making::{Claims, Made, bundle, classic, notation};

use super::keys::Opened;
use super::not_signed::NotSigned;
use super::{LOOK, Signatures, Waiting};
use crate::jobs::{Run, Work};
use crate::writes::Refusal;

/// The name of this kind of jobs.
pub const KIND: &str = "sign";
/// How often a run is tried.
const TRIES: u32 = 4;
/// How often the end of the log is read again because another entry came first.
const PLACES: usize = 10;
/// How long a run waits at most for what others have signed to be verified.
const SETTLE: Duration = Duration::from_secs(5);
/// The longest rest between two images that nobody waits for.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Make a key: the first one, or another one instead of the last.
    Key,
    /// Make a key if there is none when the job runs: it may have waited, and have been asked for again.
    FirstKey,
    /// Sign an image, and what it lists if it is an index.
    Image {
        /// The repository.
        repository: RepositoryName,
        /// The image.
        digest: Digest,
        /// Under which tag; without one, under the repository's name alone.
        tag: Option<Tag>,
    },
    /// Sign all that the project's rule says, and what an earlier key of the project has signed.
    Due,
    /// Sign for notation, too.
    Notation {
        /// The certificates as PEM; without them the mesh makes an authority for the project.
        certificates: Option<String>,
    },
}

/// Signs.
pub struct Signing(pub Arc<Signatures>);

impl Signing {
    /// The job that does this.
    pub fn task(project: &ProjectName, order: &Order, asked_by: &str) -> Task {
        let subject = Signing::subject(project, order);
        // nobody waits for those
        let priority = if *order == Order::Due { Priority::Low } else { Priority::High };
        Task {
            project: project.clone(),
            kind: KIND.into(),
            subject,
            order: serde_json::to_vec(order).unwrap_or_default(),
            priority,
            tries: TRIES,
            asked_by: asked_by.into(),
        }
    }

    /// What is done, for people; and by which the queue knows an order, which it has not read.
    pub(super) fn subject(project: &ProjectName, order: &Order) -> String {
        match order {
            Order::Key | Order::FirstKey => format!("a signing key for {project}"),
            Order::Image { repository, digest, .. } => {
                format!("signatures of {repository}@{digest}")
            }
            Order::Due => format!("signatures in {project}: by its rule, or anew with another key"),
            Order::Notation { .. } => format!("certificates for notation of {project}"),
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
            Order::FirstKey => self.0.make_first_key(&run.job.task.project, &by).await,
            Order::Image { repository, digest, tag } => {
                self.0.sign_asked(repository, *digest, tag.as_ref(), &by, run).await
            }
            Order::Due => self.0.sign_due(&run.job.task.project, &by, run).await,
            Order::Notation { certificates } => {
                self.0.identify(&run.job.task.project, certificates.as_deref(), &by).await
            }
        };
        match signed {
            Ok(said) => RunEnd::Done(said),
            Err(NotSigned::Hopeless(why) | NotSigned::Held(why)) => RunEnd::Hopeless(why),
            Err(NotSigned::Again(why)) => RunEnd::Failed(why),
        }
    }
}

impl Work for Signing {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn lacks(&self, task: &Task) -> Option<String> {
        let makes_a_key = task.subject == Signing::subject(&task.project, &Order::Key);
        self.0.cannot_sign().or_else(|| match makes_a_key {
            true => None,
            false => self.0.cannot_sign_in(&task.project),
        })
    }

    fn carry_out<'a>(&'a self, run: &'a Run) -> Pin<Box<dyn Future<Output = RunEnd> + Send + 'a>> {
        Box::pin(self.run(run))
    }
}

impl Signatures {
    /// Why nothing can be signed in a project now, and may be later: its key is being made, or is sealed
    /// under a key-encryption key that this node does not have.
    fn cannot_sign_in(&self, name: &ProjectName) -> Option<String> {
        let look = || {
            let view = self.neighbours.records.view()?;
            let Some(project) = view.project(name)? else { return Ok(None) };
            let subject = Signing::subject(name, &Order::Key);
            let is_it = |job: &Job| job.task.kind == KIND && job.task.subject == subject;
            Ok::<_, RecordError>(if view.active_jobs()?.iter().any(is_it) {
                Some("its key is being made".to_owned())
            } else if self.opens(project.id)? {
                None
            } else {
                Some("its key is sealed under a key that this node does not have".to_owned())
            })
        };
        // one that cannot be read is no reason to wait for ever
        look().unwrap_or_default()
    }

    /// Under which name the project signs.
    fn host(project: &Project) -> Result<&str, NotSigned> {
        sign_due::host(project).ok_or_else(|| {
            let name = &project.name;
            NotSigned::Hopeless(format!(
                "say under which name clients know this registry: atoll project set {name} signature_host=registry.example.com"
            ))
        })
    }

    async fn sign_asked(
        &self,
        repository: &RepositoryName,
        digest: Digest,
        tag: Option<&Tag>,
        by: &Actor,
        run: &Run,
    ) -> Result<String, NotSigned> {
        let project = self.project(&repository.project())?;
        let host = Self::host(&project)?.to_owned();
        let opened = self.opened(&project, by).await?;
        self.settle(&project).await?;
        let due = Due { repository: repository.clone(), digest, tag: tag.cloned() };
        let (signed, count) = self.sign_image(&project, &due, &host, &opened, by, run).await?;
        let reference = sign_due::reference(&host, repository, tag);
        Ok(format!("{signed} of {count} manifests are signed, the others were, as {reference}"))
    }

    /// Signs everything that is due, with rests as long as the work, so that pulls do not wait for it.
    async fn sign_due(
        &self,
        name: &ProjectName,
        by: &Actor,
        run: &Run,
    ) -> Result<String, NotSigned> {
        let project = self.project(name)?;
        let host = Self::host(&project)?.to_owned();
        let opened = self.opened(&project, by).await?;
        self.settle(&project).await?;
        let due = at_length(|| self.due(&project, &opened.own, &host))?;
        let (mut signed, mut held) = (0, 0);
        let progress = |signed: usize, held: usize| {
            let left = due.len() - signed - held;
            run.progress(json!({"signed": signed, "held": held, "left": left}).to_string());
        };
        for (at, one) in due.iter().enumerate() {
            if run.is_stopped() {
                return Err(NotSigned::Hopeless(format!("it was stopped; {signed} are signed")));
            }
            progress(signed, held);
            let image = match &one.tag {
                Some(tag) => format!("{}:{tag}", one.repository),
                None => format!("{}@{}", one.repository, one.digest),
            };
            let began = clock::now();
            match self.sign_image(&project, one, &host, &opened, by, run).await {
                Ok(_) => signed += 1,
                Err(NotSigned::Held(why) | NotSigned::Hopeless(why)) => {
                    held += 1;
                    run.log(format!("{image} is not signed: {why}"));
                }
                Err(NotSigned::Again(why)) => return Err(NotSigned::Again(why)),
            }
            if at + 1 < due.len() {
                tokio::time::sleep(clock::now().since(began).min(LONGEST_REST)).await;
            }
        }
        progress(signed, held);
        Ok(format!("{signed} images are signed, {held} may not be yet"))
    }

    /// What is due in a project. What is held back by its rules is among it.
    pub(super) fn due(
        &self,
        project: &Project,
        own: &Own,
        host: &str,
    ) -> Result<Vec<Due>, RecordError> {
        let view = self.neighbours.records.view()?;
        let signers = view.trusted(project.id)?.signers;
        let mut due = Vec::new();
        for repository in self.repositories(&project.name)? {
            due.extend(view.due_in(project, &signers, own, host, &repository)?);
        }
        Ok(due)
    }

    /// Waits until what had been pushed so far is verified: a run before this one may have died between
    /// its last signature and the record of it.
    async fn settle(&self, project: &Project) -> Result<(), NotSigned> {
        let last = |found: Vec<(Vec<u8>, Vec<u8>)>| {
            let numbers = found.iter().filter_map(|(place, _)| key::queued(place));
            numbers.map(|(_, number)| number).max()
        };
        let queue = || {
            let view = self.neighbours.records.view()?;
            view.scan(&key::unverified_of(project.id), None, usize::MAX)
        };
        let (until, Some(last)) = (clock::now() + SETTLE, last(queue()?)) else { return Ok(()) };
        while clock::now() < until {
            let is_older = |place: &[u8]| key::queued(place).is_some_and(|(_, n)| n <= last);
            if !queue()?.iter().any(|(place, _)| is_older(place)) {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Signs an image and all that it lists, as far as that is not done. Returns how many manifests were
    /// signed now, and of how many.
    async fn sign_image(
        &self,
        project: &Project,
        due: &Due,
        host: &str,
        opened: &Opened,
        by: &Actor,
        run: &Run,
    ) -> Result<(usize, usize), NotSigned> {
        let Due { repository, digest, tag } = due;
        let reference = sign_due::reference(host, repository, tag.as_ref());
        // somebody may ask for what the rule is about to sign
        let turn = self.turns.lock().entry(project.id).or_default().clone();
        let _turn = turn.lock().await;
        let parts = at_length(|| {
            let view = self.neighbours.records.view()?;
            // the project's settings may have changed since the run began
            let project = view.project(&project.name)?.unwrap_or_else(|| project.clone());
            let parts = view.parts_of(&project, repository, *digest)?;
            let why = view.why_not(&project, repository, &parts, clock::timestamp())?;
            Ok::<_, RecordError>(match (parts, why) {
                (Parts::All(parts), None) => Ok(parts),
                (_, why) => Err(why.unwrap_or_default()),
            })
        });
        let parts = parts?.map_err(NotSigned::Held)?;
        let (count, mut signed) = (parts.len(), 0);
        for part in parts {
            if run.is_stopped() {
                return Err(NotSigned::Hopeless("it was stopped".into()));
            }
            let lacks = {
                let view = self.neighbours.records.view()?;
                let known = view.signatures_of(repository, &part.digest)?;
                let named = view.named_in_log(project.id, &known, &opened.own)?;
                lacking(&known, &opened.own, &reference, &named)
            };
            if lacks == Lacking::default() {
                continue;
            }
            self.sign_one(project, repository, &part, &reference, lacks, opened, by).await?;
            run.log(format!("{} is signed as {reference}", part.digest));
            signed += 1;
        }
        Ok((signed, count))
    }

    #[expect(clippy::too_many_arguments, reason = "what, under which name, by whom, with what")]
    async fn sign_one(
        &self,
        project: &Project,
        repository: &RepositoryName,
        one: &Part,
        reference: &str,
        lacks: Lacking,
        opened: &Opened,
        by: &Actor,
    ) -> Result<(), NotSigned> {
        let (node, key) = (self.neighbours.me, &opened.key);
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
            let tagged = lacks.cosign.then(|| classic(key, &claims));
            let mut referrers = Vec::new();
            referrers.extend(lacks.cosign.then(|| bundle(key, &claims)));
            if let Some(identity) = opened.identity.as_ref().filter(|_| lacks.notation) {
                referrers.push(notation(key, identity, &claims));
            }
            let payloads = tagged.iter().chain(&referrers).map(|made| made.payload);
            let entry = LogEntry {
                number,
                repository: repository.clone(),
                subject: one.digest,
                reference: reference.to_owned(),
                key: key.id(),
                payloads: payloads.collect(),
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
            self.publish(project, repository, one.digest, tagged, referrers, by).await?;
            metrics::counter!("atoll_signed_total").increment(1);
            return Ok(());
        }
        Err(NotSigned::Again("others sign all the time".into()))
    }

    /// Makes what was signed readable, and counts it at once: nobody who asks again signs it twice.
    async fn publish(
        &self,
        project: &Project,
        repository: &RepositoryName,
        subject: Digest,
        tagged: Option<Made>,
        referrers: Vec<Made>,
        by: &Actor,
    ) -> Result<(), NotSigned> {
        let tag = rules::words::fallback::tags_about(&subject)
            .into_iter()
            .find(|tag| tag.as_str().ends_with(".sig"));
        let mut made = Vec::new();
        if let Some(Made { blobs, manifest, .. }) = tagged {
            made.push((tag.clone(), Digest::sha256(&manifest)));
            self.writes.put_here(repository, subject, blobs, manifest, tag, by).await?;
        }
        for referrer in referrers {
            made.push((None, Digest::sha256(&referrer.manifest)));
            let Made { blobs, manifest, .. } = referrer;
            self.writes.put_here(repository, subject, blobs, manifest, None, by).await?;
        }
        for (tag, manifest) in made {
            let what = Unverified { repository: repository.clone(), manifest, tag };
            let waiting = Waiting { project: project.clone(), number: None, what };
            if !self.carry_out(waiting, false).await {
                return Err(NotSigned::Again("what was signed is not recorded yet".into()));
            }
        }
        Ok(())
    }
}
