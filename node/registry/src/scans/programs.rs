//! Other programs: started with bounds on time, output, memory and files, and ended with all that they
//! have started.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use ground::clock;
use ground::supervise::at_length;
use rustix::process::{
    Pid, Resource, Rlimit, Signal, kill_process, kill_process_group, prlimit, setpriority_process,
};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

/// The time between two looks whether a program keeps to its bounds.
const LOOK: Duration = Duration::from_millis(500);
/// What is kept of what a program says of errors, in bytes: the end.
const SAID: usize = 2 << 10;
/// The maximum number of files that a program may have in its folder.
const MOST_FILES: usize = 200_000;
/// How far a program stands behind this process where a core is wanted by both.
const PRIORITY: i32 = 10;

/// What a program may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) time: Duration,
    /// The maximum number of bytes of its output.
    pub(super) output: usize,
    /// The maximum number of bytes of its memory.
    pub(super) memory: u64,
    /// The maximum number of bytes of its files.
    pub(super) files: u64,
}

/// What a program has done.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) output: Vec<u8>,
    /// The end of what it said of errors.
    pub(super) said: String,
}

/// Why a program was ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error("it cannot be started: {0}")]
    NotStarted(std::io::Error),
    #[error("it took longer than {} s", .0.as_secs())]
    Late(Duration),
    #[error("it has written more than {0} bytes")]
    Output(usize),
    #[error("its files had more than {0} bytes, or were too many")]
    Files(u64),
    #[error("nobody wants it any more")]
    Unwanted,
    #[error("its end is not known: {0}")]
    Lost(std::io::Error),
}

/// The processes of a program. Dropping this ends all of them: its process group, and what has left that
/// but was seen below the program.
///
/// A process that leaves the group and whose parents have ended between two looks is not found. A
/// subreaper would get it as a child, but the whole node would be the parent of all strays then, and
/// would have to reap what it does not know; a cgroup needs a tree that the node may write, which
/// most do not have. The kernel's limits are inherited, so such a process is bounded all the same.
struct Group {
    leader: Pid,
    /// With when each was started: numbers are given again.
    left: BTreeSet<(i32, u64)>,
}

impl Drop for Group {
    fn drop(&mut self) {
        // it may be over already
        let _ = kill_process_group(self.leader, Signal::KILL);
        for (pid, started) in &self.left {
            if about(*pid).is_some_and(|about| about.started == *started)
                && let Some(pid) = Pid::from_raw(*pid)
            {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

impl Group {
    /// Notes which processes below the program are in another group.
    fn look(&mut self) {
        let mut below: BTreeMap<i32, Vec<(i32, About)>> = BTreeMap::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if let Some((pid, about)) = pid.and_then(|pid| Some((pid, about(pid)?))) {
                below.entry(about.parent).or_default().push((pid, about));
            }
        }
        let leader = self.leader.as_raw_nonzero().get();
        // what has left goes on having children
        let mut parents = vec![leader];
        parents.extend(self.left.iter().map(|(pid, _)| *pid));
        while let Some(parent) = parents.pop() {
            for (pid, about) in below.remove(&parent).unwrap_or_default() {
                parents.push(pid);
                if about.group != leader {
                    self.left.insert((pid, about.started));
                }
            }
        }
    }
}

/// What the kernel says of a process.
#[derive(Clone, Copy, Debug)]
struct About {
    parent: i32,
    group: i32,
    started: u64,
}

/// The same of one process; `None` if it has ended.
fn about(pid: i32) -> Option<About> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // its name may have anything in it
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let (_state, parent, group) = (fields.next()?, fields.next()?, fields.next()?);
    let started = fields.nth(16)?.parse().ok()?;
    Some(About { parent: parent.parse().ok()?, group: group.parse().ok()?, started })
}

/// Runs a program in `folder`, which is its own. It gets nothing of this process's environment.
pub(super) async fn run(
    mut command: Command,
    folder: &Path,
    bounds: Bounds,
    is_wanted: impl Fn() -> bool,
) -> Result<Ended, RunError> {
    let end = clock::now() + bounds.time;
    command
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(RunError::NotStarted)?;
    let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let Some(pid) = pid else {
        return Err(RunError::Lost(std::io::Error::other("it has no number")));
    };
    let mut group = Group { leader: pid, left: BTreeSet::new() };
    limit(pid, bounds);
    let (output, said) = (child.stdout.take(), child.stderr.take());
    let work = async {
        let (output, said) = tokio::join!(read(output, bounds.output), last(said));
        let output = output?;
        let status = child.wait().await.map_err(RunError::Lost)?;
        Ok(Ended { status, output, said })
    };
    tokio::pin!(work);
    let ended = loop {
        tokio::select! {
            ended = &mut work => break ended,
            () = tokio::time::sleep(LOOK) => {
                at_length(|| group.look());
                if !is_wanted() {
                    break Err(RunError::Unwanted);
                }
                if clock::now() >= end {
                    break Err(RunError::Late(bounds.time));
                }
                if at_length(|| has_more(folder, bounds.files)) {
                    break Err(RunError::Files(bounds.files));
                }
            }
        }
    };
    drop(group);
    ended
}

/// The kernel's limits for a program and for what it starts.
fn limit(pid: Pid, bounds: Bounds) {
    let most = |bytes: u64| Rlimit { current: Some(bytes), maximum: Some(bytes) };
    // a process that has ended already needs no limits
    let _ = prlimit(Some(pid), Resource::Data, most(bounds.memory));
    let _ = prlimit(Some(pid), Resource::Fsize, most(bounds.files));
    let _ = prlimit(Some(pid), Resource::Core, most(0));
    // if this node dies, and cannot end it
    let seconds = bounds.time.as_secs().saturating_mul(2).max(1);
    let _ = prlimit(Some(pid), Resource::Cpu, most(seconds));
    let _ = setpriority_process(Some(pid), PRIORITY);
}

/// All that a program writes, or an error if that is too much.
async fn read(from: Option<impl AsyncRead + Unpin>, most: usize) -> Result<Vec<u8>, RunError> {
    let Some(from) = from else { return Ok(Vec::new()) };
    let mut output = Vec::new();
    let mut from = from.take(most as u64 + 1);
    from.read_to_end(&mut output).await.map_err(RunError::Lost)?;
    if output.len() > most { Err(RunError::Output(most)) } else { Ok(output) }
}

/// The end of what a program writes.
async fn last(from: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut from) = from else { return String::new() };
    let (mut kept, mut buffer) = (Vec::new(), [0; 4 << 10]);
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..read]);
        let excess = kept.len().saturating_sub(SAID);
        kept.drain(..excess);
    }
    let text = String::from_utf8_lossy(&kept);
    text.chars().filter(|c| !c.is_control() || *c == '\n').collect()
}

/// Whether the files below a folder have more bytes than that, or are too many. What has another name
/// elsewhere was given to the program, and does not count.
fn has_more(folder: &Path, most: u64) -> bool {
    let (mut bytes, mut files, mut folders) = (0, 0, vec![folder.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            // what is removed meanwhile is gone
            let Ok(about) = entry.metadata() else { continue };
            files += 1;
            if about.is_dir() {
                folders.push(entry.path());
            } else if about.is_file() && about.nlink() == 1 {
                bytes += about.len();
            }
            if bytes > most || files > MOST_FILES {
                return true;
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds =
        Bounds { time: Duration::from_secs(60), output: 1000, memory: 1 << 30, files: 1 << 20 };

    async fn shell(script: &str, bounds: Bounds, wanted: bool) -> Result<Ended, RunError> {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("/bin/sh");
        command.env_clear().args(["-c", script]);
        run(command, folder.path(), bounds, || wanted).await
    }

    /// Whether a process runs; one that has ended and was not asked for its end does not.
    fn runs(pid: &str) -> bool {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.is_ok_and(|stat| !stat.contains(") Z"))
    }

    #[tokio::test]
    async fn what_a_program_says_comes_back() {
        let ended = shell("echo out; echo err >&2; exit 3", BOUNDS, true).await.unwrap();
        assert_eq!((ended.output.as_slice(), ended.said.as_str()), (&b"out\n"[..], "err\n"));
        assert_eq!(ended.status.code(), Some(3));
        let environment = shell("export -p | grep -c =", BOUNDS, true).await.unwrap();
        let own = ["1\n", "2\n", "3\n", "4\n"];
        let count = String::from_utf8(environment.output).unwrap();
        assert!(own.contains(&count.as_str()), "only what the shell makes itself: {count}");
        let long = shell("yes x | head -c 100000 >&2", BOUNDS, true).await.unwrap();
        assert_eq!(long.said.len(), SAID);
    }

    #[tokio::test]
    async fn a_program_that_goes_too_far_is_ended() {
        let much = shell("yes", BOUNDS, true).await;
        assert!(matches!(much, Err(RunError::Output(1000))), "{much:?}");
        let late = Bounds { time: Duration::from_millis(1), ..BOUNDS };
        let late = shell("sleep 600", late, true).await;
        assert!(matches!(late, Err(RunError::Late(_))), "{late:?}");
        let unwanted = shell("sleep 600", BOUNDS, false).await;
        assert!(matches!(unwanted, Err(RunError::Unwanted)), "{unwanted:?}");
        let many = "i=0; while true; do i=$((i+1)); head -c 300000 /dev/zero > f$i; done";
        let many = shell(many, BOUNDS, true).await;
        assert!(matches!(many, Err(RunError::Files(_))), "{many:?}");
        // one file that is too large: the kernel's signal ends it
        let large = shell("exec head -c 2000000 /dev/zero > f", BOUNDS, true).await.unwrap();
        assert!(!large.status.success(), "{large:?}");
        let missing = Command::new("/nonexistent/program");
        let folder = tempfile::tempdir().unwrap();
        let missing = run(missing, folder.path(), BOUNDS, || true).await;
        assert!(matches!(missing, Err(RunError::NotStarted(_))), "{missing:?}");
    }

    #[tokio::test]
    async fn memory_has_an_end() {
        // a shell's variable of 200 MB
        let script = "sleep 0.2; x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo ${#x}";
        let bounds = Bounds { memory: 64 << 20, ..BOUNDS };
        let ended = shell(script, bounds, true).await.unwrap();
        let output = String::from_utf8_lossy(&ended.output).into_owned();
        assert!(!output.starts_with("200000000"), "{output}");
    }

    #[tokio::test]
    async fn what_a_program_has_started_ends_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("/bin/sh");
        command.env_clear().args(["-c", "sleep 600 >/dev/null 2>&1 & echo $!"]);
        let ended = run(command, folder.path(), BOUNDS, || true).await.unwrap();
        is_over(std::str::from_utf8(&ended.output).unwrap()).await;
    }

    async fn is_over(pid: &str) {
        for _ in 0..1000 {
            if !runs(pid.trim()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{pid} still runs");
    }

    #[tokio::test]
    async fn what_leaves_the_group_of_a_program_ends_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("/bin/sh");
        let script = "setsid sleep 600 >/dev/null 2>&1 & echo $! > pid; sleep 600";
        command.env("PATH", "/usr/bin:/bin").args(["-c", script]);
        let place = folder.path().join("pid");
        // it is seen in the look in which nobody wants the program any more
        let has_left = || {
            let pid = fs::read_to_string(&place).unwrap_or_default();
            let pid: Option<i32> = pid.trim().parse().ok();
            pid.is_some_and(|pid| about(pid).is_some_and(|about| about.group == pid))
        };
        let seen = std::cell::Cell::new(false);
        let wanted = || !seen.replace(has_left());
        let ended = run(command, folder.path(), BOUNDS, wanted).await;
        assert!(matches!(ended, Err(RunError::Unwanted)), "{ended:?}");
        is_over(&fs::read_to_string(&place).unwrap()).await;
    }
}
