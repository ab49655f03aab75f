//! One node that is configured and formed by hand: `init`, `invite`, `join`, `serve`, as an
//! operator would.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use rustix::process::Signal;
use rustix::thread::{CpuSet, sched_getaffinity};
use serde_json::Value;

use crate::http::Client;
use crate::image::Blob;
use crate::process::{self, Finished, Running};
use crate::tools::{atoll, packaged};
use crate::wait;

/// Where a node stands.
#[derive(Clone, Debug)]
pub struct Place {
    /// Address and port for clients.
    pub http: String,
    /// Address and port for the other nodes.
    pub mesh: String,
    /// The network namespace, as its file in `/proc`, if it is not the test's own.
    pub network: Option<PathBuf>,
}

/// A node: its settings, its folder and, while it runs, its process.
#[derive(Debug)]
pub struct Member {
    /// Its name.
    pub name: String,
    place: Place,
    folder: PathBuf,
    /// The `atoll` that it runs, if it is not the one under test.
    build: Mutex<Option<PathBuf>>,
    running: Mutex<Option<Running>>,
}

impl Member {
    /// Writes the settings of a node into `folder`: `http` is more lines of the section of that
    /// name, `more` more sections.
    ///
    /// # Panics
    /// When they cannot be written.
    #[must_use]
    pub fn new(
        folder: &Path,
        name: &str,
        region: &str,
        place: Place,
        http: &str,
        more: &str,
    ) -> Self {
        let member = Self {
            name: name.to_owned(),
            place,
            folder: folder.to_owned(),
            build: Mutex::new(None),
            running: Mutex::new(None),
        };
        let text = format!(
            "data_dir: {}\nname: {name}\nregion: {region}\nhttp:\n  listen: {}\n{http}mesh:\n  listen: {}\n{more}",
            member.data().display(),
            member.place.http,
            member.place.mesh
        );
        std::fs::write(member.config(), text).expect("a configuration can be written");
        member
    }

    /// Makes it the first node of a new mesh; the administrator's password.
    ///
    /// # Panics
    /// When that fails.
    pub fn init(&self) -> String {
        self.init_with(&[])
    }

    /// The same, of a mesh that begins at this feature level.
    ///
    /// # Panics
    /// When that fails.
    pub fn init_at(&self, level: u32) -> String {
        self.init_with(&["--level", &level.to_string()])
    }

    fn init_with(&self, arguments: &[&str]) -> String {
        process::succeed(self.atoll("init").args(arguments).arg("--config").arg(self.config()));
        let file = self.data().join("admin-password");
        let password = std::fs::read_to_string(&file)
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        password.trim().to_owned()
    }

    /// A token that lets one replica in.
    ///
    /// # Panics
    /// When the node issues none.
    #[must_use]
    pub fn invite(&self) -> String {
        self.invite_as("replica")
    }

    /// A token that lets one node of a role in.
    ///
    /// # Panics
    /// When the node issues none.
    #[must_use]
    pub fn invite_as(&self, role: &str) -> String {
        self.invite_many(role, 1)
    }

    /// A token that lets so many nodes of a role in.
    ///
    /// # Panics
    /// When the node issues none.
    #[must_use]
    pub fn invite_many(&self, role: &str, nodes: usize) -> String {
        let nodes = nodes.to_string();
        let mut invite = self.atoll("invite");
        let said = process::succeed(
            invite.args(["--role", role, "--nodes", &nodes, "--config"]).arg(self.config()),
        );
        said.lines().last().expect("invite prints a token").trim().to_owned()
    }

    /// Tries to join with a token.
    pub fn join(&self, token: &str) -> Finished {
        process::finish(self.atoll("join").arg(token).arg("--config").arg(self.config()))
    }

    /// Joins with a token that is good.
    ///
    /// # Panics
    /// When it is not let in.
    pub fn must_join(&self, token: &str) {
        let said = self.join(token);
        assert!(
            said.success,
            "{} is not let in ({}):\n{}{}",
            self.name, said.end, said.out, said.err
        );
    }

    /// It is of another build from its next command on.
    pub fn is_of(&self, build: &Path) {
        *self.build.lock().unwrap_or_else(|broken| broken.into_inner()) = Some(build.to_owned());
    }

    /// Starts it, for the first time or again.
    pub fn serve(&self) {
        self.start(self.atoll("serve"));
    }

    /// The same with more on its command line.
    pub fn serve_with(&self, more: &[&str]) {
        let mut serve = self.atoll("serve");
        serve.args(more);
        self.start(serve);
    }

    /// The same on a disk with moods.
    pub fn serve_on(&self, disk: &crate::disk::Disk) {
        let mut serve = self.atoll("serve");
        serve.envs(disk.environment());
        self.start(serve);
    }

    /// The same with these variables in its environment.
    pub fn serve_in(&self, environment: &[(String, String)]) {
        let mut serve = self.atoll("serve");
        serve.envs(environment.iter().cloned());
        self.start(serve);
    }

    /// The same with a clock that is so many days ahead (Debian's `faketime`). Only the time of day is
    /// another one: what lasts for a while lasts as long.
    ///
    /// # Panics
    /// When there is no `faketime`.
    pub fn serve_days_later(&self, days: u32) {
        let mut serve = self.atoll("serve");
        serve.env("FAKETIME", format!("+{days}d"));
        self.start_with_another_clock(serve);
    }

    /// The same with a clock that is as far ahead as the file says at each moment (`+0`, `+31d`), so
    /// that all nodes that read it leap at once, while they serve.
    ///
    /// # Panics
    /// When there is no `faketime`.
    pub fn serve_by_the_clock_of(&self, file: &Path) {
        let mut serve = self.atoll("serve");
        serve.env("FAKETIME_TIMESTAMP_FILE", file).env("FAKETIME_NO_CACHE", "1");
        self.start_with_another_clock(serve);
    }

    fn start_with_another_clock(&self, mut serve: Command) {
        let known = ["x86_64-linux-gnu", "aarch64-linux-gnu"];
        let library = known
            .map(|triple| format!("/usr/lib/{triple}/faketime/libfaketimeMT.so.1"))
            .into_iter()
            .find(|file| std::path::Path::new(file).is_file())
            .unwrap_or_else(|| panic!("there is no faketime: apt-get install faketime"));
        serve.env("LD_PRELOAD", library);
        serve.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
        self.start(serve);
    }

    /// Waits until it has ended by itself; how.
    ///
    /// # Panics
    /// When it does not run, or does not end.
    pub fn wait_ended(&self) -> std::process::ExitStatus {
        let ended = wait::until(&format!("{} has ended", self.name), || {
            self.running().as_mut().unwrap_or_else(|| panic!("{} does not run", self.name)).ended()
        });
        drop(self.running().take());
        ended
    }

    /// The same on one CPU alone, the first that this process may use.
    ///
    /// # Panics
    /// When there is none.
    pub fn serve_on_one_cpu(&self) {
        let allowed = sched_getaffinity(None).expect("the CPUs of this process");
        let first = (0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)).expect("a CPU");
        let serve = self.atoll("serve");
        // it replaces itself by the command, so its pid is the command's
        let mut pinned = packaged("taskset", "util-linux");
        pinned
            .args(["--cpu-list", &first.to_string()])
            .arg(serve.get_program())
            .args(serve.get_args());
        self.start(pinned);
    }

    fn start(&self, mut serve: Command) {
        *self.running() =
            Some(Running::start(serve.arg("--config").arg(self.config()), &self.log()));
    }

    /// Ends it and waits for that; how it ended.
    ///
    /// # Panics
    /// When it does not run, or does not end.
    pub fn stop(&self, with: Signal) -> std::process::ExitStatus {
        let mut running =
            self.running().take().unwrap_or_else(|| panic!("{} does not run", self.name));
        let ended = running.stop(with, wait::PATIENCE);
        ended.unwrap_or_else(|| {
            panic!("{} does not end on {with:?}:\n{}", self.name, running.last_words())
        })
    }

    /// Sends it a signal that it may live with: STOP, CONT.
    ///
    /// # Panics
    /// When it does not run.
    pub fn signal(&self, what: Signal) {
        let pid =
            self.running().as_ref().unwrap_or_else(|| panic!("{} does not run", self.name)).pid();
        process::signal(pid, what);
    }

    /// The most memory that its process ever had, in bytes.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn memory(&self) -> u64 {
        let pid =
            self.running().as_ref().unwrap_or_else(|| panic!("{} does not run", self.name)).pid();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        peak.trim().trim_end_matches(" kB").parse::<u64>().expect("kilobytes") << 10
    }

    /// Whether it was started and has not been stopped since.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.running().is_some()
    }

    /// Waits until it is ready: it answers reads from its own records.
    ///
    /// # Panics
    /// When it is not for too long, or its process has ended.
    pub fn wait_ready(&self) {
        wait::until_ok(&format!("{} is ready", self.name), || {
            let ended = self.running().as_mut().is_none_or(|running| running.ended().is_some());
            assert!(!ended, "{} has ended:\n{}", self.name, self.last_words());
            let ready = self.anyone().patient_for(Duration::from_secs(5)).get("/readyz");
            let ready = ready.map_err(|none| none.to_string())?;
            if ready.status == 200 { Ok(()) } else { Err(ready.to_string()) }
        });
    }

    /// An anonymous client at this node.
    #[must_use]
    pub fn anyone(&self) -> Client {
        let client = Client::of(&format!("http://{}", self.place.http));
        match &self.place.network {
            Some(network) => client.inside(network.clone()),
            None => client,
        }
    }

    /// Whether it has an identity: whether it is a member of any mesh.
    #[must_use]
    pub fn has_identity(&self) -> bool {
        self.data().join("identity").read_dir().is_ok_and(|mut files| files.next().is_some())
    }

    /// Where it stands.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Its data folder.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.join(format!("{}.data", self.name))
    }

    /// Flips one bit of a blob on its disk.
    ///
    /// # Panics
    /// When it does not hold the blob.
    pub fn flip(&self, blob: &Blob, offset: usize) {
        let path = blob.file(&self.data());
        // what a client has whole may still be on its way to the disk
        let open = || std::fs::File::options().read(true).write(true).open(&path);
        let file = wait::until_ok(&format!("{} is there", path.display()), open);
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset as u64).expect("a byte to flip");
        file.write_all_at(&[byte[0] ^ 0x10], offset as u64).expect("a flipped byte");
    }

    /// `atoll VERB` in its network.
    #[must_use]
    pub fn atoll(&self, verb: &str) -> Command {
        let build = self.build.lock().unwrap_or_else(|broken| broken.into_inner()).clone();
        let atoll = build.unwrap_or_else(atoll);
        let mut command = match &self.place.network {
            None => Command::new(atoll),
            Some(network) => {
                // it replaces itself by the command, so its pid is the command's
                let mut command = packaged("nsenter", "util-linux");
                command.arg(format!("--net={}", network.display())).arg(atoll);
                command
            }
        };
        command.arg(verb);
        command
    }

    /// All that it has said.
    ///
    /// # Panics
    /// When its log cannot be read.
    #[must_use]
    pub fn words(&self) -> String {
        let file = self.log();
        std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    }

    /// The last lines of its log.
    #[must_use]
    pub fn last_words(&self) -> String {
        process::tail(&self.log(), 60)
    }

    /// The file with its settings.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder.join(format!("{}.yaml", self.name))
    }

    fn log(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.name))
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(|broken| broken.into_inner())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let runs = self.running().is_some();
        if runs && std::thread::panicking() {
            eprintln!("--- {}\n{}", self.name, self.last_words());
        }
    }
}

/// The blobs that a node is sending or receiving. Unlike [`status`], this asks no other node, so
/// that on a busy machine a transfer is not over before it is seen.
///
/// # Errors
/// When it does not say.
pub fn transfers(client: &Client) -> Result<Vec<Value>, String> {
    let answer =
        client.get("/api/atoll/v1/status?copies=false").map_err(|none| none.to_string())?;
    match answer.json()["transfers"].as_array() {
        Some(transfers) => Ok(transfers.clone()),
        None => Err(answer.to_string()),
    }
}

/// What a node says about the mesh to its administrator.
///
/// # Errors
/// When it does not say.
pub fn status(client: &Client) -> Result<Value, String> {
    let answer = client.get("/api/atoll/v1/status").map_err(|none| none.to_string())?;
    if answer.status == 200 { Ok(answer.json()) } else { Err(answer.to_string()) }
}
