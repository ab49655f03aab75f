//! Which jobs a node begins now, and which of its runs it ends: the decisions of the queue, without
//! clock and ledger.
//!
//! A node begins the jobs of the projects whose primary it is. It claims each in the ledger first,
//! and only a claim that the ledger took begins a run. A run whose claim is not the newest any more,
//! or whose epoch is over, is dropped at once: its end would be refused.

use std::collections::BTreeMap;

use super::{Job, JobState, Task};
use crate::words::moment::Timestamp;
use crate::words::names::{Epoch, JobId, NodeId, ProjectName};

/// A job that waits or runs, with the primary of its project.
#[derive(Clone, Debug)]
pub struct Active {
    /// The job.
    pub job: Job,
    /// The primary of its project.
    pub primary: NodeId,
    /// The primary's epoch.
    pub epoch: Epoch,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Claim this job, and begin the run if the ledger takes the claim.
    Claim {
        /// The job.
        id: JobId,
        /// Its project.
        project: ProjectName,
        /// The epoch.
        epoch: Epoch,
        /// The runs of the job so far.
        runs: u32,
    },
    /// Ask this run to stop. It ends by itself.
    Stop(JobId),
    /// Drop this run. It is not this node's any more, and its end does not count.
    Drop(JobId),
}

/// A run of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    epoch: Epoch,
    /// `None` while its claim is under way.
    number: Option<u32>,
    /// Whether it was asked to stop, or dropped.
    told: Told,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    Nothing,
    ToStop,
    Dropped,
}

/// The runs of one node.
#[derive(Clone, Debug)]
pub struct Queue {
    me: NodeId,
    at_a_time: usize,
    runs: BTreeMap<JobId, Run>,
}

impl Queue {
    /// Of node `me`, which runs up to `at_a_time` jobs. After a restart it knows of no runs: those
    /// of the process before are over.
    pub fn new(me: NodeId, at_a_time: usize) -> Self {
        Queue { me, at_a_time, runs: BTreeMap::new() }
    }

    /// What to do now. `active` are all jobs in the ledger that wait or run; `can` says whether this
    /// node has what one needs, and knows its kind. What it returns counts as done.
    pub fn decide(
        &mut self,
        now: Timestamp,
        active: &[Active],
        can: impl Fn(&Task) -> bool,
    ) -> Vec<Step> {
        let mut steps = Vec::new();
        for (id, run) in &mut self.runs {
            // one whose claim is under way is looked at when the ledger has answered
            let Some(number) = run.number else { continue };
            let found = active.iter().find(|one| one.job.id == *id);
            let mine = found.filter(|one| {
                one.primary == self.me
                    && one.epoch == run.epoch
                    && one.job.runs == number
                    && one.job.state == JobState::Running(run.epoch)
            });
            match mine {
                None if run.told < Told::Dropped => {
                    run.told = Told::Dropped;
                    steps.push(Step::Drop(*id));
                }
                Some(one) if one.job.stop && run.told < Told::ToStop => {
                    run.told = Told::ToStop;
                    steps.push(Step::Stop(*id));
                }
                _ => {}
            }
        }
        let mut ready: Vec<&Active> = active
            .iter()
            .filter(|one| {
                one.primary == self.me
                    && !self.runs.contains_key(&one.job.id)
                    && can(&one.job.task)
                    && self.may_begin(now, one)
            })
            .collect();
        // what was begun under another primary goes first, because somebody waits for it longest
        ready.sort_by_key(|one| {
            let waits = one.job.state == JobState::Waiting;
            (std::cmp::Reverse(one.job.task.priority), waits, one.job.not_before, one.job.id)
        });
        let free = self.at_a_time.saturating_sub(self.runs.len());
        for one in ready.into_iter().take(free) {
            self.runs
                .insert(one.job.id, Run { epoch: one.epoch, number: None, told: Told::Nothing });
            steps.push(Step::Claim {
                id: one.job.id,
                project: one.job.task.project.clone(),
                epoch: one.epoch,
                runs: one.job.runs,
            });
        }
        steps
    }

    fn may_begin(&self, now: Timestamp, one: &Active) -> bool {
        match one.job.state {
            JobState::Waiting => one.job.not_before <= now,
            // its owner is no primary any more, or it is this node before a restart
            JobState::Running(epoch) => epoch < one.epoch || one.job.owner == Some(self.me),
            JobState::Done | JobState::Failed | JobState::Stopped => false,
        }
    }

    /// The ledger took the claim, as the run `number`.
    pub fn begun(&mut self, id: JobId, number: u32) {
        if let Some(run) = self.runs.get_mut(&id) {
            run.number = Some(number);
        }
    }

    /// A run has ended, or its claim was not taken. Nothing of it is under way any more.
    pub fn over(&mut self, id: JobId) {
        self.runs.remove(&id);
    }

    /// The number of runs, with those whose claims are under way.
    pub fn running(&self) -> usize {
        self.runs.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Priority;
    use super::*;

    fn active(id: u64, state: JobState, priority: Priority) -> Active {
        let task = Task {
            project: "demo".parse().unwrap(),
            kind: "preheat".into(),
            subject: String::new(),
            order: Vec::new(),
            priority,
            tries: 1,
            asked_by: String::new(),
        };
        let job = Job {
            id: JobId(id),
            task,
            schedule: None,
            created: Timestamp(id),
            not_before: Timestamp(id),
            state,
            runs: u32::from(state != JobState::Waiting),
            runs_before: 0,
            failures: 0,
            owner: (state != JobState::Waiting).then_some(NodeId(2)),
            stop: false,
            began: None,
            ended: None,
            result: String::new(),
        };
        Active { job, primary: NodeId(1), epoch: Epoch::FIRST.next() }
    }

    fn claimed(steps: &[Step]) -> Vec<u64> {
        steps
            .iter()
            .filter_map(|step| match step {
                Step::Claim { id, .. } => Some(id.0),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn what_is_urgent_goes_first_and_only_as_many_as_there_is_room_for() {
        let mut queue = Queue::new(NodeId(1), 2);
        let mut all = vec![
            active(1, JobState::Waiting, Priority::Low),
            active(2, JobState::Waiting, Priority::Normal),
            active(3, JobState::Waiting, Priority::Normal),
            active(4, JobState::Waiting, Priority::High),
        ];
        let steps = queue.decide(Timestamp(100), &all, |_| true);
        assert_eq!(claimed(&steps), [4, 2]);
        assert_eq!(queue.decide(Timestamp(100), &all, |_| true), [], "there is no room");
        queue.over(JobId(4));
        all.remove(3);
        assert_eq!(claimed(&queue.decide(Timestamp(100), &all, |_| true)), [3]);
        assert_eq!(queue.running(), 2);
    }

    #[test]
    fn a_job_waits_for_its_time_its_primary_and_a_build_that_has_its_kind() {
        let mut queue = Queue::new(NodeId(1), 9);
        let mut other = active(2, JobState::Waiting, Priority::Normal);
        other.primary = NodeId(3);
        let all = vec![active(50, JobState::Waiting, Priority::Normal), other];
        assert_eq!(queue.decide(Timestamp(49), &all, |_| true), []);
        assert_eq!(queue.decide(Timestamp(50), &all, |task| task.kind != "preheat"), []);
        assert_eq!(claimed(&queue.decide(Timestamp(50), &all, |_| true)), [50]);
    }

    #[test]
    fn a_run_of_a_former_primary_is_taken_over_and_one_of_this_epoch_only_after_a_restart() {
        let (old, new) = (JobState::Running(Epoch::FIRST), JobState::Running(Epoch::FIRST.next()));
        let mut queue = Queue::new(NodeId(1), 9);
        let all = [active(1, old, Priority::Normal), active(2, new, Priority::Normal)];
        assert_eq!(claimed(&queue.decide(Timestamp(9), &all, |_| true)), [1]);
        // the owner of both is node 2: if that is this node, its process was another
        let mut queue = Queue::new(NodeId(2), 9);
        let all = all.map(|one| Active { primary: NodeId(2), ..one });
        assert_eq!(claimed(&queue.decide(Timestamp(9), &all, |_| true)), [1, 2]);
    }

    #[test]
    fn a_run_is_stopped_once_and_dropped_when_it_is_no_longer_this_nodes() {
        let mut queue = Queue::new(NodeId(1), 9);
        let mut one = active(1, JobState::Waiting, Priority::Normal);
        queue.decide(Timestamp(9), std::slice::from_ref(&one), |_| true);
        one.job.state = JobState::Running(one.epoch);
        one.job.runs = 1;
        assert_eq!(queue.decide(Timestamp(9), &[], |_| true), [], "its claim is under way");
        queue.begun(JobId(1), 1);
        assert_eq!(queue.decide(Timestamp(9), std::slice::from_ref(&one), |_| true), []);
        one.job.stop = true;
        for expected in [vec![Step::Stop(JobId(1))], vec![]] {
            assert_eq!(queue.decide(Timestamp(9), std::slice::from_ref(&one), |_| true), expected);
        }
        let another = Active { epoch: one.epoch.next(), ..one.clone() };
        for expected in [vec![Step::Drop(JobId(1))], vec![]] {
            let steps = queue.decide(Timestamp(9), std::slice::from_ref(&another), |_| true);
            assert_eq!(steps, expected, "and not claimed before the old run is over");
        }
        queue.over(JobId(1));
        let steps = queue.decide(Timestamp(9), std::slice::from_ref(&another), |_| true);
        assert_eq!(claimed(&steps), [1]);
    }
}
