//! Programs started by a scenario: each is ended by its pid when the scenario ends, however it
//! ends.
//!
//! They stay in the process group of the test run on purpose: Ctrl-C reaches them too.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::wait;

/// A program that runs beside the scenario until it is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts `command` without a terminal; what it says is appended to `log`.
    ///
    /// # Panics
    /// When it cannot be started at all.
    #[must_use]
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let out = OpenOptions::new().create(true).append(true).open(log);
        let out = out.unwrap_or_else(|error| panic!("cannot open {}: {error}", log.display()));
        let err = out.try_clone().expect("a file handle can be cloned");
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn();
        let child = child.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Self { child, log: log.to_owned() }
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    ///
    /// # Panics
    /// When the system cannot say.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be asked")
    }

    /// Sends a signal, waits for the end and tells how it was; nothing if it has not ended in
    /// `time`.
    pub fn stop(&mut self, with: Signal, time: Duration) -> Option<ExitStatus> {
        if self.ended().is_none() {
            signal(self.pid(), with);
        }
        wait::within(time, || self.ended())
    }

    /// The last lines it said.
    #[must_use]
    pub fn last_words(&self) -> String {
        tail(&self.log, 40)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.stop(Signal::TERM, Duration::from_secs(20)).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Sends a signal to one process. A process that is already gone is no mistake.
pub fn signal(pid: u32, what: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, what);
    }
}

/// Whether the process still runs (a zombie does not) and has `word` on its command line, so that a
/// reused pid is not taken for it.
#[must_use]
pub fn lives(pid: u32, word: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = stat.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
    let fields: Vec<&str> = after.split(' ').collect();
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    // the first thread is a zombie before the others have ended, and until then they hold the
    // process's files; a list of /proc/PID/task may miss some of those that are just ending
    let threads = fields.get(17).and_then(|threads| threads.parse::<u32>().ok()).unwrap_or(0);
    let runs = fields.first().is_some_and(|state| match *state {
        "" => false,
        "Z" => threads > 1,
        _ => true,
    });
    // in the middle of an exec the line is empty for a moment
    runs && (line.is_empty() || String::from_utf8_lossy(&line).contains(word))
}

/// What a finished program said, and whether it went well.
#[derive(Debug)]
pub struct Finished {
    /// Whether it ended with status 0.
    pub success: bool,
    /// How it ended, for people.
    pub end: String,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

/// Runs a program to its end and hands back what it said.
///
/// # Panics
/// When it cannot be started, or is still running after ten minutes.
pub fn finish(command: &mut Command) -> Finished {
    finish_within(Duration::from_secs(600), command)
        .unwrap_or_else(|said| panic!("{command:?} did not come to an end: {said:?}"))
}

/// Runs a program and hands back what it said, if it ends in this time.
///
/// # Errors
/// With what it said until then, when it does not: it was killed.
///
/// # Panics
/// When it cannot be started.
pub fn finish_within(time: Duration, command: &mut Command) -> Result<Finished, Finished> {
    let (mut out, mut err) = (scratch(), scratch());
    command
        .stdin(Stdio::null())
        .stdout(out.try_clone().expect("clone"))
        .stderr(err.try_clone().expect("clone"));
    let mut child =
        command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let ended = wait::within(time, || child.try_wait().expect("a child can be asked"));
    if ended.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let end = ended.map_or_else(|| "still running".to_owned(), |status| status.to_string());
    let success = ended.is_some_and(|status| status.success());
    let said = Finished { success, end, out: read(&mut out), err: read(&mut err) };
    if ended.is_some() { Ok(said) } else { Err(said) }
}

/// Runs a program that must succeed; its trimmed standard output.
///
/// # Panics
/// When it does not succeed; the message holds what it said.
pub fn succeed(command: &mut Command) -> String {
    let Finished { success, end, out, err } = finish(command);
    assert!(success, "{command:?} failed ({end}):\n{out}\n{err}");
    out.trim().to_owned()
}

/// The last `lines` lines of a file, or a word on why there are none.
#[must_use]
pub fn tail(file: &Path, lines: usize) -> String {
    match std::fs::read(file) {
        Ok(text) => {
            let text = String::from_utf8_lossy(&text);
            let all: Vec<_> = text.lines().collect();
            all[all.len().saturating_sub(lines)..].join("\n")
        }
        Err(error) => format!("({}: {error})", file.display()),
    }
}

fn scratch() -> File {
    tempfile::tempfile().expect("a temporary file")
}

fn read(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind()
        .and_then(|()| file.read_to_end(&mut bytes))
        .expect("what was written can be read");
    String::from_utf8_lossy(&bytes).into_owned()
}
