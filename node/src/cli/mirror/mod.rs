//! `atoll mirror`: writes clients' files that make them ask the mesh first, and checks that the
//! mesh answers.

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

/// The node to ask, and the nodes to use.
#[derive(clap::Args)]
struct Asking {
    /// The node that the clients on this machine should ask first, http://HOST:PORT: a nearby node,
    /// or an edge on this machine. Without it: the first node of the mesh that `atoll up` started
    /// in --data.
    #[arg(long)]
    url: Option<String>,
    /// The CA to trust for https nodes (PEM), in addition to the public ones.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The folder in which `atoll up` keeps its mesh.
    #[arg(long, default_value = "atoll-data", value_name = "DIR")]
    data: PathBuf,
    /// Also use nodes of other regions, after those of the asked node's own region. A far node that
    /// does not answer costs a client 15 to 120 s for each pull.
    #[arg(long)]
    all_regions: bool,
}

impl Asking {
    fn url(&self) -> io::Result<String> {
        let url = match &self.url {
            Some(url) if !url.contains("://") => {
                return Err(io::Error::other(format!(
                    "--url {url} does not say how the node is reached: write http://{url} or https://{url}"
                )));
            }
            Some(url) => url.clone(),
            None => super::node::from_up(&self.data)?.url,
        };
        Ok(url.trim_end_matches('/').to_owned())
    }

    /// The asked node's answer about the mesh.
    fn ask(&self) -> io::Result<MirrorList> {
        let url = self.url()?;
        let client = Client::new(&url, None, self.ca.as_deref())?;
        let answer = super::small_runtime()?.block_on(client.get("/api/atoll/v1/mirrors"))?;
        MirrorList::read(&url, &answer)
    }

    /// The nodes to write into a client's file. Prints on standard error which nodes were left out.
    fn nodes(&self, known: &MirrorList) -> Vec<String> {
        let chosen = known.choose(self.all_regions);
        for left_out in &chosen.left_out {
            eprintln!("left out: {left_out}");
        }
        chosen.urls
    }

    /// The path of the CA's file, as other programs find it.
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
