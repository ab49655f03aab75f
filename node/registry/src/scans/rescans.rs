//! Scans of everything that a project has, as a job: by its schedule.

use std::pin::Pin;
use std::sync::Arc;

use rules::ledger::events::Actor;
use rules::ledger::jobs::{Priority, RunEnd, Task};
use rules::words::names::ProjectName;

use super::Scans;
use crate::jobs::{Run, Work};

/// The name of this kind of jobs.
pub const KIND: &str = "scan";
/// How often a run is tried.
const TRIES: u32 = 3;

/// Asks for the scans.
pub struct Rescans(pub Arc<Scans>);

impl Rescans {
    /// The job that asks for scans of all images of a project.
    pub fn task(project: &ProjectName, asked_by: &str) -> Task {
        Task {
            project: project.clone(),
            kind: KIND.into(),
            subject: format!("scans of all images of {project}"),
            order: Vec::new(),
            priority: Priority::Low,
            tries: TRIES,
            asked_by: asked_by.into(),
        }
    }

    async fn ask(&self, run: &Run) -> RunEnd {
        let by = Actor { name: run.job.task.asked_by.clone(), ..Actor::mesh() };
        match self.0.ask_for_all(&run.job.task.project, &by).await {
            Ok(count) => RunEnd::Done(format!("scans of {count} images are asked for")),
            Err(refusal) => RunEnd::Failed(refusal.to_string()),
        }
    }
}

impl Work for Rescans {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn carry_out<'a>(&'a self, run: &'a Run) -> Pin<Box<dyn Future<Output = RunEnd> + Send + 'a>> {
        Box::pin(self.ask(run))
    }
}
