//! The clients that people have, each told of two hosts: it pulls from the first and may go on at
//! the second, in the way that it has for that.

use std::fmt;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use crate::daemons::{Containerd, Docker, Podman};
use crate::{cri, process, tools};

/// The name by which all clients but dockerd call the mesh. dockerd's mirrors are for Docker Hub
/// only, so it sends no name.
pub const REGISTRY: &str = "registry.test";

/// A client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// dockerd, with `registry-mirrors`.
    Docker,
    /// containerd, asked by `ctr`, with a `hosts.toml`.
    Ctr,
    /// containerd, asked through the CRI as by a kubelet, with the same `hosts.toml`.
    Cri,
    /// podman, with a `registries.conf`.
    Podman,
    /// Debian 12's skopeo, with the same `registries.conf`.
    Skopeo,
    /// Debian 13's skopeo, with the same `registries.conf`.
    NewerSkopeo,
}

impl Who {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Docker, Self::Ctr, Self::Cri, Self::Podman, Self::Skopeo, Self::NewerSkopeo];
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Docker => "dockerd",
            Self::Ctr => "ctr",
            Self::Cri => "CRI",
            Self::Podman => "podman",
            Self::Skopeo => "skopeo",
            Self::NewerSkopeo => "newer skopeo",
        })
    }
}

/// The result of a pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The client says that it has the image. All of them check digests.
    Pulled,
    /// It says why not.
    Failed(String),
    /// It did not come to an end.
    Hung,
}

/// All of them, with daemons and storages of their own.
#[derive(Debug)]
pub struct Pullers {
    docker: Docker,
    containerd: Containerd,
    podman: Podman,
    folder: TempDir,
}

impl Pullers {
    /// Starts those that are daemons, and tells all of the hosts (`ADDRESS:PORT`).
    ///
    /// # Panics
    /// When one does not start.
    #[must_use]
    pub fn start(first: &str, next: &str) -> Self {
        let folder = TempDir::with_prefix("atoll-pullers-").expect("a temporary folder");
        let write = |name: &str, text: String| {
            let file = folder.path().join(name);
            std::fs::create_dir_all(file.parent().expect("a folder"))
                .expect("a folder can be made");
            std::fs::write(&file, text).expect("a file can be written");
            file
        };
        let hosts = write(
            &format!("certs.d/{REGISTRY}/hosts.toml"),
            format!(
                "server = \"http://{next}\"\n[host.\"http://{first}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
            ),
        );
        let registries = write(
            "registries.conf",
            format!(
                "[[registry]]\nprefix = \"{REGISTRY}\"\nlocation = \"{next}\"\ninsecure = true\n\
                 [[registry.mirror]]\nlocation = \"{first}\"\ninsecure = true\n"
            ),
        );
        write("policy.json", r#"{"default": [{"type": "insecureAcceptAnything"}]}"#.into());
        let mirrors = json!({"registry-mirrors": [format!("http://{first}"), format!("http://{next}")],
            "insecure-registries": [first, next]});
        let certs = hosts.parent().and_then(|folder| folder.parent()).expect("certs.d");
        Self {
            docker: Docker::start_with(&mirrors.to_string()),
            containerd: Containerd::start_for_kubelets(certs),
            podman: Podman::with_registries(&registries),
            folder,
        }
    }

    /// Has a client pull `repository:tag`, which it must not have pulled before, and kills it if it
    /// is not done in time.
    ///
    /// # Panics
    /// When the client cannot be started.
    #[must_use]
    pub fn pull(&self, who: Who, repository: &str, tag: &str, patience: Duration) -> Outcome {
        let at = |name: &str| self.folder.path().join(name);
        let name = format!("{REGISTRY}/{repository}:{tag}");
        let skopeo = |mut command: Command| {
            command
                .arg("--registries-conf")
                .arg(at("registries.conf"))
                .arg("--policy")
                .arg(at("policy.json"));
            command.args(["copy", "-q", &format!("docker://{name}")]);
            let to =
                TempDir::with_prefix_in("skopeo-", self.folder.path()).expect("a temporary folder");
            command.arg(format!("dir:{}", to.path().display()));
            finished(&mut command, patience)
        };
        match who {
            Who::Docker => finished(
                self.docker.command().args(["pull", "-q", &format!("{repository}:{tag}")]),
                patience,
            ),
            Who::Ctr => {
                let mut ctr = self.containerd.command();
                finished(
                    ctr.args(["images", "pull", "--hosts-dir"]).arg(at("certs.d")).arg(&name),
                    patience,
                )
            }
            Who::Cri => match cri::pull(&self.containerd.socket(), &name, patience) {
                Ok(_) => Outcome::Pulled,
                Err(None) => Outcome::Hung,
                Err(Some(why)) => {
                    let said = self.containerd.said(&["PullImage", "failed", &name]);
                    let said = said
                        .as_deref()
                        .and_then(|line| line.split_once("error="))
                        .map(|(_, error)| error.to_owned());
                    Outcome::Failed(said.unwrap_or(why))
                }
            },
            Who::Podman => finished(&mut self.podman.pulling(&name), patience),
            Who::Skopeo => skopeo(tools::packaged("skopeo", "skopeo")),
            Who::NewerSkopeo => skopeo(tools::newer_skopeo()),
        }
    }
}

fn finished(command: &mut Command, patience: Duration) -> Outcome {
    match process::finish_within(patience, command) {
        Ok(said) if said.success => Outcome::Pulled,
        Ok(said) => {
            let last = said.err.lines().rfind(|line| !line.trim().is_empty());
            Outcome::Failed(last.unwrap_or("in silence").trim().to_owned())
        }
        Err(_) => Outcome::Hung,
    }
}
