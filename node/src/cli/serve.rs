//! `atoll serve`: runs one node until a signal. The first signal drains, a second one ends it at
//! once.

use std::io::{self, Read};
use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use crate::start::{self, Failed, observe, private};

/// The exit status of a node that was removed, or whose disk is older than it should be (EX_CONFIG
/// of sysexits.h): a supervisor should not start it again.
const REMOVED: i32 = 78;

/// How long a node that has drained waits for work that no stop reaches.
const LAST_WORK: Duration = Duration::from_secs(5);

/// The stack of a thread, in bytes: twice the usual. A write of a person goes through many layers, and
/// in a debug build each has a large frame. Only what is used becomes memory.
const STACK: usize = 4 << 20;

/// Arguments of `serve`.
#[derive(clap::Args)]
pub(super) struct Serve {
    /// The node's settings.
    #[arg(long, value_name = "node.yaml")]
    config: PathBuf,
    /// Take part although other nodes have seen more of this node's disk than it has. Only for a
    /// mesh that was restored from backups as a whole: what was acknowledged since is lost.
    #[arg(long)]
    accept_older_disk: bool,
    /// Drain when standard input closes, for a parent process that may be killed.
    #[arg(long, hide = true)]
    stop_with_stdin: bool,
}

/// Runs the node.
pub(super) fn run(serve: Serve) -> io::Result<()> {
    private::from_now_on();
    let settings = super::load(&serve.config)?;
    observe::start_logging(&settings.log)?;
    settings.retired.iter().for_each(|says| tracing::warn!("{says}"));
    let metrics = observe::start_metrics()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(STACK)
        .build()?;
    let result = runtime.block_on(async {
        let data_dir = settings.data_dir.clone();
        let pid_file = settings.data_dir.join("pid");
        let running = start::start(settings, metrics, serve.accept_older_disk).await?;
        if let Err(error) = std::fs::write(&pid_file, std::process::id().to_string()) {
            warn!(%error, "the pid file could not be written");
        }
        tokio::select! {
            result = wait_for_a_reason_to_stop(serve.stop_with_stdin) => result?,
            failed = running.failed() => match failed {
                Failed::Ledger(reason) => {
                    error!(reason, data_dir = %data_dir.display(), "this node ends: its ledger cannot write. Repair the disk and start the node again");
                    let _ = std::fs::remove_file(&pid_file);
                    // no drain and no destructors: each may wait for the disk
                    std::process::exit(1);
                }
                Failed::Database(name) => {
                    error!(name, data_dir = %data_dir.display(), "this node ends: a database in data_dir takes no write any more, most likely because of the disk. It must be opened again: repair the disk and start the node again");
                    let _ = std::fs::remove_file(&pid_file);
                    std::process::exit(1);
                }
                Failed::OlderDisk(reason) => {
                    error!(reason, data_dir = %data_dir.display(), "this node ends: its disk is older than what other nodes have seen of it, as after a restored backup or machine snapshot. It could lose what was acknowledged. Remove this node at another one (`atoll remove`), move its data_dir away, and run `atoll join` with a new invitation. Only if the whole mesh was restored from backups: `atoll serve --accept-older-disk`");
                    let _ = std::fs::remove_file(&pid_file);
                    std::process::exit(REMOVED);
                }
                Failed::Removed => {
                    error!(data_dir = %data_dir.display(), "this node ends: it was removed from the mesh, and no node talks to it any more. To let it in anew, move its data_dir away and run `atoll join` with another invitation");
                    let _ = std::fs::remove_file(&pid_file);
                    std::process::exit(REMOVED);
                }
            },
        }
        let in_order = tokio::select! {
            () = running.stop() => true,
            result = wait_for_a_reason_to_stop(false) => {
                result?;
                warn!("a second signal: stopping at once");
                false
            }
        };
        let _ = std::fs::remove_file(&pid_file);
        Ok(in_order)
    });
    // What still reads or writes a database holds it. One that is not closed is checked as a whole
    // at the next start.
    let last = if matches!(result, Ok(true)) { LAST_WORK } else { Duration::ZERO };
    runtime.shutdown_timeout(last);
    result.map(|_| ())
}

async fn wait_for_a_reason_to_stop(watch_stdin: bool) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let closed = async {
        if !watch_stdin {
            std::future::pending::<()>().await;
        }
        // a thread of its own: the runtime would wait at its end for a read that it had begun
        let (tell, told) = tokio::sync::oneshot::channel();
        let reading = std::thread::Builder::new().name("stdin".into()).spawn(move || {
            let mut byte = [0; 1];
            while let Ok(1..) = io::stdin().read(&mut byte) {}
            let _ = tell.send(());
        });
        match reading {
            Ok(_) => drop(told.await),
            Err(error) => {
                warn!(%error, "standard input is not watched");
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        _ = terminate.recv() => info!("SIGTERM"),
        _ = interrupt.recv() => info!("SIGINT"),
        () = closed => info!("the parent has gone"),
    }
    Ok(())
}
