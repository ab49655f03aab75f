//! A dockerd, a containerd and a podman of our own, beside whatever the machine runs.
//!
//! A second dockerd started with `--bridge none` deletes the `docker0` it finds, and with it the
//! network of the machine's main dockerd. So ours always gets a bridge of its own, which goes when
//! it goes. It does no firewalling: it pulls, pushes and loads.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use crate::process::{self, Running};
use crate::tools::packaged;
use crate::wait;

static BRIDGES: AtomicU32 = AtomicU32::new(0);

/// A private dockerd.
#[derive(Debug)]
pub struct Docker {
    daemon: Option<Running>,
    bridge: String,
    folder: TempDir,
}

impl Docker {
    /// Starts it and waits until it answers.
    ///
    /// # Panics
    /// When it does not come up; the message holds its last words.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with("{}")
    }

    /// The same with a `daemon.json`.
    ///
    /// # Panics
    /// When it does not come up; the message holds its last words.
    #[must_use]
    pub fn start_with(settings: &str) -> Self {
        let folder = TempDir::with_prefix("atoll-docker-").expect("a temporary folder");
        let (pid, count) = (std::process::id(), BRIDGES.fetch_add(1, Ordering::Relaxed));
        let bridge = format!("atl{pid}x{count}");
        ip(&format!("link add {bridge} type bridge"));
        ip(&format!("addr add 10.{}.{}.1/28 dev {bridge}", 214 + count % 8, pid % 256));
        ip(&format!("link set {bridge} up"));
        let mut docker = Self { daemon: None, bridge, folder };
        let at = |name: &str| docker.folder.path().join(name);
        let mut command = packaged("dockerd", "docker.io");
        command
            .arg("--data-root")
            .arg(at("data"))
            .arg("--exec-root")
            .arg(at("exec"))
            .arg("--pidfile")
            .arg(at("pid"));
        command.args([
            "--bridge",
            &docker.bridge,
            "--iptables=false",
            "--ip6tables=false",
            "--ip-forward=false",
        ]);
        command.arg("-H").arg(docker.socket());
        std::fs::write(at("daemon.json"), settings).expect("settings can be written");
        command.arg("--config-file").arg(at("daemon.json"));
        let mut daemon = Running::start(&mut command, &at("log"));
        wait::until("the private dockerd answers", || {
            assert!(daemon.ended().is_none(), "dockerd ended:\n{}", daemon.last_words());
            process::finish(docker.command().arg("version")).success.then_some(())
        });
        docker.daemon = Some(daemon);
        docker
    }

    /// `docker ...`, which must succeed; what it prints.
    ///
    /// # Panics
    /// When it does not succeed.
    pub fn run(&self, arguments: &[&str]) -> String {
        process::succeed(self.command().args(arguments))
    }

    /// Pulls what it has not got; the digest it found.
    ///
    /// # Panics
    /// When that fails.
    pub fn pull(&self, name: &str) -> String {
        self.run(&["pull", "-q", name]);
        let digests =
            self.run(&["image", "inspect", "--format", "{{join .RepoDigests \"\\n\"}}", name]);
        let (repository, _) = name.rsplit_once(':').expect("a name with a tag");
        let own = digests.lines().find_map(|line| line.strip_prefix(repository)?.strip_prefix('@'));
        own.unwrap_or_else(|| panic!("docker knows no digest of {name}: {digests}")).to_owned()
    }

    /// `docker ...`, to be run by the caller.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = packaged("docker", "docker.io");
        command.arg("--config").arg(self.folder.path()).arg("-H").arg(self.socket());
        command
    }

    /// Logs in, as a person does once.
    ///
    /// # Panics
    /// When the registry does not let it in.
    pub fn login(&self, registry: &str, user: &str, password: &str) {
        self.run(&["login", "-u", user, "-p", password, registry]);
    }

    fn socket(&self) -> String {
        format!("unix://{}", self.folder.path().join("sock").display())
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon.as_ref().filter(|_| std::thread::panicking()) {
            eprintln!("--- dockerd\n{}", daemon.last_words());
        }
        self.daemon = None;
        process::finish(packaged("ip", "iproute2").args(["link", "del", &self.bridge]));
    }
}

/// A private containerd, driven with `ctr`.
#[derive(Debug)]
pub struct Containerd {
    daemon: Option<Running>,
    folder: TempDir,
}

impl Containerd {
    /// Starts it and waits until it answers.
    ///
    /// # Panics
    /// When it does not come up; the message holds its last words.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with("disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n", "")
    }

    /// The same with the CRI, as a kubelet uses it, which finds its hosts in the folder `certs`.
    ///
    /// # Panics
    /// When it does not come up; the message holds its last words.
    #[must_use]
    pub fn start_for_kubelets(certs: &Path) -> Self {
        let cri = "plugins.\"io.containerd.grpc.v1.cri\".registry";
        Self::start_with("", &format!("[{cri}]\n  config_path = \"{}\"\n", certs.display()))
    }

    fn start_with(first: &str, last: &str) -> Self {
        let folder = TempDir::with_prefix("atoll-containerd-").expect("a temporary folder");
        let config = folder.path().join("config.toml");
        std::fs::write(&config, configuration(folder.path(), first, last))
            .expect("a configuration can be written");
        let mut daemon = Running::start(
            packaged("containerd", "containerd").arg("-c").arg(&config),
            &folder.path().join("log"),
        );
        let mut containerd = Self { daemon: None, folder };
        wait::until("the private containerd answers", || {
            assert!(daemon.ended().is_none(), "containerd ended:\n{}", daemon.last_words());
            process::finish(containerd.command().arg("version")).success.then_some(())
        });
        containerd.daemon = Some(daemon);
        containerd
    }

    /// `ctr ...`, which must succeed; what it prints.
    ///
    /// # Panics
    /// When it does not succeed.
    pub fn run(&self, arguments: &[&str]) -> String {
        process::succeed(self.command().args(arguments))
    }

    /// Pulls and unpacks an image with more flags; the digest it found.
    ///
    /// # Panics
    /// When that fails.
    pub fn pull(&self, flags: &[&str], name: &str) -> String {
        self.run(&[&["images", "pull"], flags, &[name]].concat());
        self.digest(name)
    }

    /// The digest of an image that it has.
    ///
    /// # Panics
    /// When it has none of that name.
    pub fn digest(&self, name: &str) -> String {
        let listed = self.run(&["images", "ls", &format!("name=={name}")]);
        let word = listed.split_whitespace().find(|word| word.starts_with("sha256:"));
        word.unwrap_or_else(|| panic!("ctr lists no digest: {listed}")).to_owned()
    }

    /// `ctr ...`, to be run by the caller.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = packaged("ctr", "containerd");
        command.arg("--address").arg(self.socket());
        command
    }

    /// Its socket, which speaks the CRI if it was started for that.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        socket(self.folder.path())
    }

    /// The last line of its log that has all of these words.
    #[must_use]
    pub fn said(&self, words: &[&str]) -> Option<String> {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        log.lines()
            .rev()
            .find(|line| words.iter().all(|word| line.contains(word)))
            .map(str::to_owned)
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon.as_ref().filter(|_| std::thread::panicking()) {
            eprintln!("--- containerd\n{}", daemon.last_words());
        }
        self.daemon = None;
    }
}

/// podman and buildah with a storage of their own. They have no daemon.
#[derive(Debug)]
pub struct Podman {
    folder: TempDir,
}

impl Podman {
    /// With this `registries.conf` and no other.
    ///
    /// # Panics
    /// When its files cannot be written.
    #[must_use]
    pub fn with_registries(conf: &Path) -> Self {
        let folder = TempDir::with_prefix("atoll-podman-").expect("a temporary folder");
        std::fs::copy(conf, folder.path().join("registries.conf"))
            .expect("a configuration can be copied");
        let policy = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#;
        std::fs::write(folder.path().join("policy.json"), policy).expect("a policy can be written");
        Self { folder }
    }

    /// Pulls an image; the digest it found.
    ///
    /// # Panics
    /// When that fails.
    pub fn pull(&self, name: &str) -> String {
        let policy = self.folder.path().join("policy.json").display().to_string();
        self.run(&["pull", "-q", "--signature-policy", &policy, name]);
        self.run(&["image", "inspect", "--format", "{{.Digest}}", name])
    }

    /// `podman pull ...` of an image, to be run by the caller.
    #[must_use]
    pub fn pulling(&self, name: &str) -> Command {
        let mut command = self.command();
        command
            .args(["pull", "-q", "--signature-policy"])
            .arg(self.folder.path().join("policy.json"))
            .arg(name);
        command
    }

    /// `podman ...`, which must succeed; what it prints.
    ///
    /// # Panics
    /// When it does not succeed.
    pub fn run(&self, arguments: &[&str]) -> String {
        process::succeed(self.command().args(arguments))
    }

    /// `buildah ...` with the same storage, which must succeed; what it prints.
    ///
    /// # Panics
    /// When it does not succeed.
    pub fn buildah(&self, arguments: &[&str]) -> String {
        let at = |name: &str| self.folder.path().join(name);
        let mut command = packaged("buildah", "buildah");
        command.arg("--root").arg(at("root")).arg("--runroot").arg(at("run"));
        command.args(["--storage-driver", "vfs"]);
        command.env("CONTAINERS_REGISTRIES_CONF", at("registries.conf"));
        command.env("BUILDAH_ISOLATION", "chroot");
        process::succeed(command.args(arguments))
    }

    /// `podman ...`, to be run by the caller.
    #[must_use]
    pub fn command(&self) -> Command {
        let at = |name: &str| self.folder.path().join(name);
        let mut command = packaged("podman", "podman");
        command
            .arg("--root")
            .arg(at("root"))
            .arg("--runroot")
            .arg(at("run"))
            .arg("--tmpdir")
            .arg(at("tmp"));
        command.args([
            "--storage-driver",
            "vfs",
            "--cgroup-manager",
            "cgroupfs",
            "--events-backend",
            "file",
        ]);
        command.env("CONTAINERS_REGISTRIES_CONF", at("registries.conf"));
        command
    }
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("sock")
}

fn configuration(folder: &Path, first: &str, last: &str) -> String {
    let (folder, socket) = (folder.display(), socket(folder));
    format!(
        "version = 2\nroot = \"{folder}/root\"\nstate = \"{folder}/state\"\n\
         {first}[grpc]\n  address = \"{}\"\n{last}",
        socket.display()
    )
}

fn ip(arguments: &str) {
    process::succeed(packaged("ip", "iproute2").args(arguments.split(' ')));
}
