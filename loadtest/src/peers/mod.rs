//! The servers that are measured side by side, each started here with a fresh folder and a free
//! port.
//!
//! All of them serve the same paths, `/v2/bench/...`, so one list of operations fits all. Atoll
//! runs with everything on that a stranger gets (access checks, log, metrics); the others are set
//! as lean as they go, so that no ratio flatters us.

mod atoll;
mod distribution;
pub(crate) mod nginx;
mod zot;

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::cpu::Reading;
use crate::mesh::Mesh;
use crate::process::{self, Running};
use crate::wire::{Client, Target};

pub(crate) use distribution::find as find_distribution;
pub(crate) use nginx::files;

/// How long a peer may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a peer is to the goals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// What is measured.
    Atoll,
    /// The reference registry.
    Distribution,
    /// Any other registry.
    Registry,
    /// A web server with the same files: the least that serving can cost.
    Files,
}

/// A running peer. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Peer {
    /// The name that stands in the report.
    pub(crate) name: String,
    /// What it is to the goals.
    pub(crate) role: Role,
    /// What it says of itself, and how it was set up.
    pub(crate) version: String,
    reads: Target,
    writes: Target,
    host: Host,
}

/// What has to live as long as the peer.
#[derive(Debug)]
enum Host {
    Mesh(Box<Mesh>),
    /// The folder goes when the program has ended.
    Program {
        running: Running,
        _folder: TempDir,
    },
    Elsewhere,
}

impl Peer {
    /// A client that pulls.
    pub(crate) fn reader(&self) -> Client {
        self.reads.client()
    }

    /// A client that pushes.
    pub(crate) fn writer(&self) -> Client {
        self.writes.client()
    }

    /// Its address for pushes.
    pub(crate) fn writes(&self) -> Target {
        self.writes.clone()
    }

    /// Its processes; none if it was started elsewhere.
    pub(crate) fn pids(&self) -> Vec<u32> {
        match &self.host {
            Host::Mesh(mesh) => mesh.pids(),
            Host::Program { running, .. } => {
                [vec![running.pid()], process::children(running.pid())].concat()
            }
            Host::Elsewhere => Vec::new(),
        }
    }

    /// Its CPU time so far, if its processes are known.
    pub(crate) fn cpu(&self) -> Option<Reading> {
        let pids = self.pids();
        (!pids.is_empty()).then(|| Reading::of(&pids))
    }

    /// Whether it takes pushes.
    pub(crate) fn takes_pushes(&self) -> bool {
        self.role != Role::Files
    }
}

/// One more registry to measure: `NAME=PATH` of its binary, or `NAME=URL` of one that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    name: String,
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Binary(PathBuf),
    Url(String),
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, place) =
            text.split_once('=').ok_or("a peer is written NAME=PATH or NAME=URL")?;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        if name.is_empty()
            || !name.chars().all(plain)
            || ["atoll", "distribution", "nginx"].contains(&name)
        {
            return Err(format!("{name:?} cannot name a further peer"));
        }
        let place = if place.contains("://") {
            Place::Url(place.to_owned())
        } else {
            Place::Binary(place.into())
        };
        Ok(Named { name: name.to_owned(), place })
    }
}

/// Starts Atoll as one node; its project `bench` is durable in that one region, the promise that
/// the others make.
pub(crate) fn atoll(binary: &Path) -> Result<Peer> {
    atoll::start(binary).context("atoll")
}

/// Starts Distribution. An old one is called so, wherever it stands: the goals speak of version 3,
/// which costs far less.
pub(crate) fn distribution(binary: &Path) -> Result<Peer> {
    let mut peer =
        distribution::start("distribution", Role::Distribution, binary).context("distribution")?;
    if !peer.version.contains("/v3") {
        peer.name = "distribution (not 3)".to_owned();
        peer.version.push_str("; verdicts against it are kinder than the goals mean");
    }
    Ok(peer)
}

/// Starts, or only addresses, another registry. Binaries named zot get zot's configuration, all
/// others Distribution's.
pub(crate) fn other(named: &Named) -> Result<Peer> {
    let peer = match &named.place {
        Place::Url(url) => elsewhere(&named.name, url),
        Place::Binary(binary) if named.name.starts_with("zot") => zot::start(&named.name, binary),
        Place::Binary(binary) => distribution::start(&named.name, Role::Registry, binary),
    };
    peer.with_context(|| named.name.clone())
}

/// A registry that was started elsewhere: its CPU time is unknown.
fn elsewhere(name: &str, url: &str) -> Result<Peer> {
    let target = Target::of_url(url)?;
    let answer = target.client().get("/v2/")?;
    if answer.status != 200 {
        bail!("{url}/v2/ answers {}", answer.status);
    }
    let version = format!("running at http://{}, CPU time unknown", target.host);
    Ok(Peer {
        name: name.to_owned(),
        role: Role::Registry,
        version,
        reads: target.clone(),
        writes: target,
        host: Host::Elsewhere,
    })
}

/// Waits until a freshly started program answers a path with 200.
fn wait_up(running: &mut Running, target: &Target, path: &str) -> Result<()> {
    process::until("it answers", PATIENCE, || {
        running.must_run()?;
        Ok(target.client().get(path).is_ok_and(|answer| answer.status == 200).then_some(()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_a_binary_or_a_url() {
        let zot = Named { name: "zot".into(), place: Place::Binary("/usr/bin/zot".into()) };
        assert_eq!("zot=/usr/bin/zot".parse(), Ok(zot));
        let far = Named { name: "far".into(), place: Place::Url("http://h:1/?a=b".into()) };
        assert_eq!("far=http://h:1/?a=b".parse(), Ok(far));
        assert!("zot".parse::<Named>().is_err());
        assert!("nginx=/usr/sbin/nginx".parse::<Named>().is_err());
    }
}
