//! Scans of everything in the mesh, by one schedule: each project has a schedule of its own for it,
//! which its primary keeps as the mesh's settings say. So a run is a job like any other, and goes on
//! when its node dies.

use std::sync::Arc;
use std::time::Duration;

use ground::clock;
use ground::supervise::{Tasks, at_length};
use rules::ledger::directory::LookForGroups;
use rules::ledger::events::Actor;
use rules::ledger::jobs::cron::Cron;
use rules::ledger::jobs::{LookForJobs, Schedule, Task, kept_as};
use rules::ledger::level::Level;
use rules::ledger::records::{Look, RecordError};
use rules::people::configurations::Configured;
use rules::words::names::{NodeId, ProjectName};
use tracing::warn;

use super::rescans::{KIND, Rescans};
use crate::jobs::queue::Jobs;
use crate::view::neighbours::Neighbours;
use crate::writes::Refusal;

/// The schedule's name in each project.
pub const SCHEDULE: &str = "scan-all";
/// The setting that says when (`rules::people::configurations`).
pub const SETTING: &str = "scan_all_schedule";
/// How much later than its time a run may begin, in seconds: not all projects at once.
const SPREAD: u32 = 600;
/// The time between two looks at the setting and the schedules.
const LOOK: Duration = Duration::from_secs(5);
/// The time until what could not be set is tried again.
const AGAIN: Duration = Duration::from_secs(60);

/// Keeps the schedules of the projects whose primary this node is.
pub struct Everything {
    neighbours: Arc<Neighbours>,
    jobs: Arc<Jobs>,
}

impl Everything {
    /// Begins, until the node stops. An edge has no part in it.
    pub fn start(neighbours: Arc<Neighbours>, jobs: Arc<Jobs>, tasks: &Tasks) {
        if neighbours.is_edge() {
            return;
        }
        let everything = Everything { neighbours, jobs };
        tasks.spawn("scan-all", async move { everything.keep().await });
    }

    async fn keep(&self) {
        loop {
            let mut wait = LOOK;
            match at_length(|| self.wrong()) {
                Ok(wrong) => {
                    for (project, cron) in wrong {
                        if let Err(error) = self.set(&project, cron).await {
                            warn!(%project, %error, "the schedule of scan_all_schedule could not be set");
                            wait = AGAIN;
                        }
                    }
                }
                Err(error) => warn!(%error, "schedules of scans cannot be read"),
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// The projects whose schedule is another than the mesh's, with that.
    fn wrong(&self) -> Result<Vec<(ProjectName, Option<Cron>)>, RecordError> {
        let view = self.neighbours.records.view()?;
        if view.level()? < Level::SCANS {
            return Ok(Vec::new());
        }
        let wanted = Configured::of(&view.configurations()?).text(SETTING).parse::<Cron>().ok();
        let is_kept = view.schedules()?.iter().any(|one| one.name == SCHEDULE);
        if wanted.is_none() && !is_kept {
            return Ok(Vec::new());
        }
        let me: NodeId = self.neighbours.me;
        let mut wrong = Vec::new();
        for project in view.projects()?.into_iter().filter(|project| project.primary == me) {
            let known = view.schedule(project.id, SCHEDULE)?;
            if known.as_ref().is_some_and(|known| known.task.kind != KIND) {
                // somebody has given the name to something else, which stays
                continue;
            }
            // what is cached of another registry is not scanned
            let wanted = wanted.as_ref().filter(|_| project.upstream.is_none());
            if !kept_as(known.as_ref(), wanted) {
                wrong.push((project.name, wanted.cloned()));
            }
        }
        Ok(wrong)
    }

    async fn set(&self, project: &ProjectName, cron: Option<Cron>) -> Result<(), Refusal> {
        let by = Actor::mesh();
        let Some(cron) = cron else {
            return match self.jobs.unschedule(project.clone(), SCHEDULE.into(), &by).await {
                Err(Refusal::NotFound) => Ok(()),
                other => other,
            };
        };
        let task: Task = Rescans::task(project, &by.name);
        let now = clock::timestamp();
        let (name, created, next, last) = (SCHEDULE.to_owned(), now, now, None);
        let schedule = Schedule { name, task, cron, spread: SPREAD, created, next, last };
        self.jobs.schedule(schedule, &by).await
    }
}
