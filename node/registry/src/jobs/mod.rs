//! Background work, for which no client waits.
//!
//! A kind of job is one file (or folder) here with a type that is [`Work`]. It is given to the queue
//! at the start of the node, and neither the queue nor the ledger has to know of it.

pub mod preheats;
pub mod queue;
pub mod repairs;
pub mod retentions;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use ground::clock;
use parking_lot::Mutex;
use rules::ledger::jobs::{Job, RunEnd, Task, bounded};
use rules::wire::{JobReport, LOG_LINE, LOG_LINES, PROGRESS};
use rules::words::moment::Timestamp;
use tokio::sync::watch;

/// A kind of job.
pub trait Work: Send + Sync {
    /// Its name in the ledger, the API and tables. It never changes.
    fn kind(&self) -> &'static str;

    /// What this node lacks for a job, in a sentence: it waits until the node has that, or until another
    /// node is the primary. The task is as the queue has it, without its order.
    fn lacks(&self, _task: &Task) -> Option<String> {
        None
    }

    /// Carries out a run. It may be dropped at any await, when the job is not this node's any more,
    /// and what it does may be done again by another node's run: what it writes to the ledger
    /// carries the run's epoch, and the rest does no harm twice.
    fn carry_out<'a>(&'a self, run: &'a Run) -> Pin<Box<dyn Future<Output = RunEnd> + Send + 'a>>;
}

/// One run of a job.
pub struct Run {
    /// The job, as it was when the run began. Its state has the epoch.
    pub job: Job,
    stop: watch::Receiver<bool>,
    report: Arc<Report>,
}

impl Run {
    /// Whether somebody wants the job to stop.
    pub fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// Adds a line to the log. No secret may be in it: whoever may list jobs reads it.
    pub fn log(&self, line: impl AsRef<str>) {
        self.report.log(line.as_ref());
    }

    /// Sets the progress: JSON, as the kind defines it.
    pub fn progress(&self, progress: String) {
        if progress.len() <= PROGRESS {
            *self.report.progress.lock() = progress;
        }
    }
}

/// What this node has of a run.
#[derive(Default)]
struct Report {
    progress: Mutex<String>,
    log: Mutex<VecDeque<(Timestamp, String)>>,
}

impl Report {
    fn log(&self, line: &str) {
        let mut log = self.log.lock();
        if log.len() >= LOG_LINES {
            log.pop_front();
        }
        log.push_back((clock::timestamp(), bounded(line, LOG_LINE)));
    }

    fn read(&self) -> JobReport {
        let progress = self.progress.lock().clone();
        JobReport { progress, log: self.log.lock().iter().cloned().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_keeps_its_newest_lines_and_none_is_long() {
        let report = Report::default();
        for n in 0..LOG_LINES + 5 {
            report.log(&format!("{n}: {}", "x".repeat(1000)));
        }
        let log = report.read().log;
        assert_eq!(log.len(), LOG_LINES);
        assert!(log[0].1.starts_with("5: ") && log.iter().all(|l| l.1.chars().count() <= LOG_LINE));
    }
}
