//! Programs that a run starts. Each is ended by its pid when its guard is dropped, however the run
//! ends.

use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, kill_process};

pub(crate) use rustix::process::Signal;

use crate::stop;

/// A program that runs until this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts `command` without a terminal; what it says is appended to `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let out = OpenOptions::new().create(true).append(true).open(log)?;
        let err = out.try_clone()?;
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn();
        let child =
            child.with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Running { child, log: log.to_owned() })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// The end of what it said.
    pub(crate) fn last_words(&self) -> String {
        tail(&self.log)
    }

    /// Fails with its last words if it has ended.
    pub(crate) fn must_run(&mut self) -> Result<()> {
        match self.ended() {
            None => Ok(()),
            Some(status) => bail!("it ended with {status}:\n{}", self.last_words()),
        }
    }

    /// Sends a signal and waits; whether it has ended in `time`.
    pub(crate) fn stop(&mut self, with: Signal, time: Duration) -> bool {
        let end = Instant::now() + time;
        if self.ended().is_none() {
            signal(self.pid(), with);
        }
        while self.ended().is_none() {
            if Instant::now() > end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.stop(Signal::TERM, Duration::from_secs(15)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Sends a signal to one process. One that is already gone is no mistake.
pub(crate) fn signal(pid: u32, what: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, what);
    }
}

/// Whether the process runs (a zombie does not) and `word` is on its command line: a pid may soon
/// belong to another process.
pub(crate) fn lives(pid: u32, word: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    state.is_some_and(|state| state != 'Z') && String::from_utf8_lossy(&line).contains(word)
}

/// The children of a process that it started from its main thread.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let listed =
        std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    listed.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Asks `probe` again and again until it has a value; fails when it fails, or after `patience`.
pub(crate) fn until<T>(
    what: &str,
    patience: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + patience;
    loop {
        stop::check()?;
        if let Some(value) = probe().with_context(|| format!("while waiting until {what}"))? {
            return Ok(value);
        }
        if Instant::now() > end {
            bail!("waited {patience:?} in vain until {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The first line that a program prints on either stream, or nothing if it fails.
pub(crate) fn first_line(command: &mut Command) -> Option<String> {
    let output =
        command.stdin(Stdio::null()).output().ok().filter(|output| output.status.success())?;
    let said = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    let said = String::from_utf8_lossy(&said).lines().next()?.trim().to_owned();
    (!said.is_empty()).then_some(said)
}

/// A program's file on the path, or where administration tools are.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let also = ["/usr/sbin", "/sbin", "/usr/local/go/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(also)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// A port of loopback that is not in use.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The end of a log, without lines that show a password: what is printed here ends up in other
/// logs.
fn tail(log: &Path) -> String {
    let text = File::open(log).and_then(std::io::read_to_string).unwrap_or_default();
    let lines: Vec<_> =
        text.lines().filter(|line| !line.to_ascii_lowercase().contains("password")).collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
