//! Ctrl-C and SIGTERM end a run early but in order: each worker calls [`check`] now and then, and
//! guards end what was started.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};
use tokio::signal::unix::{SignalKind, signal};

static ASKED: AtomicBool = AtomicBool::new(false);

/// Begins to listen for signals, on a thread of its own that sleeps until one comes.
pub(crate) fn listen() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        });
        ASKED.store(true, Ordering::Relaxed);
        eprintln!("loadtest: stopping");
    });
    Ok(())
}

/// Fails once the run was asked to end.
pub(crate) fn check() -> Result<()> {
    ensure!(!ASKED.load(Ordering::Relaxed), "stopped by a signal");
    Ok(())
}
