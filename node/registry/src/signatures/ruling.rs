//! Asks for jobs that sign what is due: by a project's rule, and after its key was replaced.
//!
//! What is due is not remembered anywhere: it is what the records say. So whatever lets an image be
//! signed (a scan, a signature of others, another tag) has it signed, and the next primary goes on
//! where the last one stopped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ground::clock;
use ground::supervise::{Tasks, at_length};
use rules::ledger::events::Actor;
use rules::ledger::jobs::LookForJobs;
use rules::ledger::level::Level;
use rules::ledger::records::{Look, Project, ReadRecords, RecordError};
use rules::ledger::sign_due::{self, Due, LookForDue};
use rules::ledger::signatures::LookForSignatures;
use rules::policies::signatures::Own;
use rules::words::moment::Moment;
use rules::words::names::{JobId, ProjectId};
use tracing::{debug, warn};

use super::Signatures;
use super::signing::{Order, Signing};
use crate::jobs::queue::Jobs;

/// The shortest time between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// The longest, when nothing happens: exemptions and allowlists end without an entry.
const LONGEST: Duration = Duration::from_secs(60);
/// A look is followed by a rest so many times as long as it took: it reads what is known of each
/// signature of the projects that sign.
const REST: u32 = 20;
/// The longest rest after a job that has signed nothing new.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// What was asked for in a project.
struct Asked {
    job: JobId,
    /// What was due.
    due: Vec<Due>,
    pause: Duration,
    not_before: Moment,
}

/// Looks for what is due in the projects whose primary this node is.
pub struct Ruling {
    signatures: Arc<Signatures>,
    jobs: Arc<Jobs>,
}

impl Ruling {
    /// Begins, until the node stops. An edge has no part in it.
    pub fn start(signatures: Arc<Signatures>, jobs: Arc<Jobs>, tasks: &Tasks) {
        if signatures.neighbours.is_edge() {
            return;
        }
        let ruling = Ruling { signatures, jobs };
        tasks.spawn("signatures.due", async move { ruling.work().await });
    }

    async fn work(&self) {
        let mut asked = BTreeMap::<ProjectId, Asked>::new();
        loop {
            let records = &self.signatures.neighbours.records;
            let (seen, began) = (records.version(), clock::now());
            // without a key-encryption key a job would only wait
            if self.signatures.cannot_sign().is_none() && records.connected() {
                match at_length(|| self.look(&asked)) {
                    Ok(found) => {
                        asked.retain(|id, _| found.iter().any(|(project, _)| project.id == *id));
                        for (project, due) in found {
                            self.ask(&mut asked, project, due).await;
                        }
                    }
                    Err(error) => warn!(%error, "what is to be signed cannot be read"),
                }
            }
            let took = clock::now().since(began);
            tokio::time::sleep(LOOK.max(took.saturating_mul(REST))).await;
            records.applied_more(seen, LONGEST).await;
        }
    }

    /// The own projects in which something is due and may be signed, with that; nothing of those whose
    /// last job is not over.
    fn look(
        &self,
        asked: &BTreeMap<ProjectId, Asked>,
    ) -> Result<Vec<(Project, Vec<Due>)>, RecordError> {
        let view = self.signatures.neighbours.records.view()?;
        if view.level()? < Level::SIGNATURES {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for project in view.projects()? {
            let is_own = project.primary == self.signatures.neighbours.me;
            if !is_own || project.upstream.is_some() {
                continue;
            }
            let Some(host) = sign_due::host(&project) else { continue };
            let signers = view.trusted(project.id)?.signers;
            let Some(mut own) = Own::of(&signers) else { continue };
            // a job could not open its key, either
            if !self.signatures.opens(project.id)? {
                continue;
            }
            if own.authority.is_some() && !self.signatures.signs_for_notation(&project, &own)? {
                own.authority = None;
            }
            let runs = match asked.get(&project.id) {
                Some(asked) if clock::now() < asked.not_before => true,
                Some(asked) => view.job(asked.job)?.is_some_and(|job| !job.state.is_over()),
                // one that the primary before has asked for
                None => self.is_asked(&*view, &project)?,
            };
            let due = match runs {
                true => Vec::new(),
                false => self.signatures.due(&project, &own, host)?,
            };
            let mut may = Vec::new();
            for one in due {
                let parts = view.parts_of(&project, &one.repository, one.digest)?;
                let why = view.why_not(&project, &one.repository, &parts, clock::timestamp())?;
                if why.is_none() {
                    may.push(one);
                }
            }
            found.push((project, may));
        }
        Ok(found)
    }

    fn is_asked(&self, view: &dyn ReadRecords, project: &Project) -> Result<bool, RecordError> {
        let task = Signing::task(&project.name, &Order::Due, "");
        let same = |job: &rules::ledger::jobs::Job| {
            job.task.project == project.name
                && job.task.kind == task.kind
                && job.task.subject == task.subject
        };
        Ok(view.active_jobs()?.iter().any(same))
    }

    async fn ask(&self, asked: &mut BTreeMap<ProjectId, Asked>, project: Project, due: Vec<Due>) {
        if due.is_empty() {
            return;
        }
        let by = Actor::mesh();
        let task = Signing::task(&project.name, &Order::Due, &by.name);
        let job = match self.jobs.ask(task, &by).await {
            Ok(job) => job,
            Err(refusal) => {
                debug!(project = %project.name, %refusal, "a job that signs was not asked for");
                return;
            }
        };
        // what a job has not changed, the next one does not soon
        let pause = match asked.get(&project.id) {
            Some(last) if last.due == due => (last.pause * 2).clamp(LOOK, LONGEST_PAUSE),
            _ => Duration::ZERO,
        };
        let not_before = clock::now() + pause;
        asked.insert(project.id, Asked { job, due, pause, not_before });
    }
}
