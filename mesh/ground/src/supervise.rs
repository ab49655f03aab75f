//! One way to start a task and one way to stop them all.
//!
//! Every task has a name (its tracing span), and learns of the stop through its
//! [`Tasks::stopping`]. Blocking work goes through [`Tasks::blocking`]. A task that panics is
//! logged and counted, and does not affect the others.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, error, info_span};

/// A group of tasks that stop together.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// An empty group.
    pub fn new() -> Self {
        Tasks::default()
    }

    /// Starts `task`. It is dropped at its next await when the group stops.
    pub fn spawn<F>(&self, name: &'static str, task: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop.clone();
        self.spawn_draining(name, async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = task => {}
            }
        })
    }

    /// Starts `task`, which ends by itself; a stop waits for it. The task may watch
    /// [`Tasks::stopping`].
    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    pub fn spawn_draining<F>(&self, name: &'static str, task: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let guarded = async move {
            let guard = PanicGuard { name, finished: false };
            task.await;
            guard.finish();
        };
        tokio::spawn(self.tracker.track_future(guarded.instrument(info_span!("task", task = name))))
    }

    /// Completes when the group is asked to stop.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// Whether the group has been asked to stop.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Asks all tasks to stop, and waits for them for at most `grace`. Returns whether all ended in
    /// time.
    pub async fn stop(&self, grace: Duration) -> bool {
        self.stop.cancel();
        self.tracker.close();
        tokio::time::timeout(grace, self.tracker.wait()).await.is_ok()
    }
}

/// Starts `work` at once on a thread that may block.
pub fn blocking<T, F>(work: F) -> JoinHandle<T>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    tokio::task::spawn_blocking(work)
}

/// Does `work` here and now, though it takes long. Other tasks go on: the runtime gives this
/// thread's place to another one meanwhile.
pub fn at_length<T>(work: impl FnOnce() -> T) -> T {
    match tokio::runtime::Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(tokio::runtime::RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        // there are no other threads (a test)
        _ => work(),
    }
}

struct PanicGuard {
    name: &'static str,
    finished: bool,
}

impl PanicGuard {
    fn finish(mut self) {
        self.finished = true;
    }
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if !self.finished && std::thread::panicking() {
            metrics::counter!("atoll_task_panics_total", "task" => self.name).increment(1);
            error!(task = self.name, "a task panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stop_drops_waiting_tasks_and_waits_for_draining_ones() {
        let tasks = Tasks::new();
        tasks.spawn("waits", std::future::pending());
        let inner = tasks.clone();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        tasks.spawn_draining("drains", async move {
            inner.stopping().await;
            let _ = sender.send(());
        });
        assert!(tasks.stop(Duration::from_secs(10)).await);
        assert!(receiver.await.is_ok());
    }
}
