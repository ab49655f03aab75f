//! `atoll mirror`: clients' files that make them ask the mesh first, and the proof that it answers.

mod check;
mod containerd;
mod docker;
mod files;
mod image;
mod nodes;
mod podman;
mod pull;

use std::io;
use std::path::PathBuf;

use clap::Subcommand;

use super::client::Client;
use nodes::MirrorList;

/// Arguments of `mirror`.
#[derive(clap::Args)]
pub(super) struct Mirror {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make containerd (Kubernetes, ctr) ask the mesh first: hosts.toml.
    Containerd(containerd::Containerd),
    /// Make dockerd ask the mesh first for images of Docker Hub: daemon.json.
    Docker(docker::Docker),
    /// Make podman, buildah, skopeo and CRI-O ask the mesh first: registries.conf.d.
    Podman(podman::Podman),
    /// Pull images through every node as each client would, and hash every byte.
    Check(check::Check),
}

/// Whom to ask, and which nodes to use.
#[derive(clap::Args)]
struct Asking {
    /// The node that this machine's clients are to ask first, http://HOST:PORT: one next door, or
    /// an edge on the machine itself. Without it: the first node of the mesh that `atoll up`
    /// started in --data.
    #[arg(long)]
    url: Option<String>,
    /// The CA to trust for https nodes (PEM), beside the public ones.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Where `atoll up` keeps its mesh.
    #[arg(long, default_value = "atoll-data", value_name = "DIR")]
    data: PathBuf,
    /// Nodes of other regions, too, after those of the asked node's own. A far node that answers
    /// nothing costs a client 15 to 120 s a pull.
    #[arg(long)]
    all_regions: bool,
}

impl Asking {
    fn url(&self) -> io::Result<String> {
        let url = match &self.url {
            Some(url) => url.clone(),
            None => super::node::from_up(&self.data)?.url,
        };
        Ok(url.trim_end_matches('/').to_owned())
    }

    /// What the asked node tells of the mesh.
    fn ask(&self) -> io::Result<MirrorList> {
        let url = self.url()?;
        let client = Client::new(&url, None, self.ca.as_deref())?;
        let answer = super::small_runtime()?.block_on(client.get("/api/atoll/v1/mirrors"))?;
        MirrorList::read(&url, &answer)
    }

    /// The nodes to write into a client's file; says on the standard error what was left out.
    fn nodes(&self, known: &MirrorList) -> Vec<String> {
        let chosen = known.choose(self.all_regions);
        for left_out in &chosen.left_out {
            eprintln!("left out: {left_out}");
        }
        chosen.urls
    }

    /// The CA's file as other programs find it.
    fn authority(&self) -> io::Result<Option<PathBuf>> {
        let named = |path: &PathBuf| {
            std::path::absolute(path)
                .map_err(|e| io::Error::other(format!("--ca {}: {e}", path.display())))
        };
        self.ca.as_ref().map(named).transpose()
    }
}

/// Runs the command.
pub(super) fn run(mirror: &Mirror) -> io::Result<()> {
    match &mirror.verb {
        Verb::Containerd(containerd) => containerd::run(containerd),
        Verb::Docker(docker) => docker::run(docker),
        Verb::Podman(podman) => podman::run(podman),
        Verb::Check(check) => check::run(check),
    }
}
