//! What is measured: one entry for each operation of the goals that one client can time against one
//! server.

use anyhow::{Result, bail};
use clap::ValueEnum;
use serde::Serialize;

use crate::content::{Blob, Bodies, MIB, manifest};
use crate::load::{self, Plan, Round, Sample};
use crate::peers::{Peer, files};
use crate::registry::{self, ACCEPT, blob_path, manifest_path};
use crate::wire::{Client, Request, Sink};

/// The repository that holds what is pulled.
const HELD: &str = "bench/a";
/// The repository that takes uploads.
const TAKEN: &str = "bench/up";
/// The tag of the manifest.
const TAG: &str = "t";
/// Blobs that are mounted, each once into every repository of a round.
const MOUNTED: usize = 64;

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Operation {
    /// GET of a manifest by tag
    ManifestTag,
    /// GET of a manifest by digest
    ManifestDigest,
    /// HEAD of a manifest by tag
    ManifestHead,
    /// GET of a blob of 1 MiB
    #[value(name = "blob-1m")]
    #[serde(rename = "blob-1m")]
    BlobSmall,
    /// GET of a blob of 64 MiB
    #[value(name = "blob-64m")]
    #[serde(rename = "blob-64m")]
    BlobLarge,
    /// upload of 64 MiB over one connection
    #[value(name = "upload-64m")]
    #[serde(rename = "upload-64m")]
    UploadLarge,
    /// upload of 64 MiB over four connections
    #[value(name = "upload-64m-4")]
    #[serde(rename = "upload-64m-4")]
    UploadLargeFour,
    /// upload of 1 MiB over four connections
    #[value(name = "upload-1m-4")]
    #[serde(rename = "upload-1m-4")]
    UploadSmallFour,
    /// mount of a blob from another repository
    Mount,
}

impl Operation {
    /// All of them, in the order of the report.
    pub(crate) fn all() -> &'static [Operation] {
        Operation::value_variants()
    }

    /// The name on the command line and in `serve.json`.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// What it is, in words.
    pub(crate) fn title(self) -> String {
        self.to_possible_value()
            .and_then(|value| Some(value.get_help()?.to_string()))
            .unwrap_or_default()
    }

    /// How much of it a round is. A round takes about a second at the slowest server known.
    pub(crate) fn plan(self) -> Plan {
        let (connections, requests) = match self {
            Operation::ManifestTag | Operation::ManifestDigest | Operation::ManifestHead => {
                (8, 6000)
            }
            Operation::BlobSmall => (8, 600),
            Operation::BlobLarge => (8, 48),
            Operation::UploadLarge => (1, 8),
            Operation::UploadLargeFour => (4, 12),
            Operation::UploadSmallFour => (4, 160),
            Operation::Mount => (4, 6 * MOUNTED),
        };
        Plan { connections, requests }
    }

    /// Whether bytes a second are the point, and not requests.
    pub(crate) fn is_bulk(self) -> bool {
        !matches!(
            self,
            Operation::ManifestTag
                | Operation::ManifestDigest
                | Operation::ManifestHead
                | Operation::Mount
        )
    }

    /// Whether the time to the first byte differs from the time to the last.
    pub(crate) fn has_first_byte(self) -> bool {
        matches!(self, Operation::BlobSmall | Operation::BlobLarge)
    }

    /// Whether a server can be asked for it at all.
    pub(crate) fn fits(self, peer: &Peer) -> bool {
        use Operation::{Mount, UploadLarge, UploadLargeFour, UploadSmallFour};
        peer.takes_pushes()
            || !matches!(self, UploadLarge | UploadLargeFour | UploadSmallFour | Mount)
    }
}

/// What every server holds before anything is timed.
#[derive(Debug)]
pub(crate) struct Held {
    large: Blob,
    small: Blob,
    config: Blob,
    manifest: Blob,
    mounted: Vec<Blob>,
}

impl Held {
    /// Fresh content for this run.
    pub(crate) fn random() -> Self {
        let (large, small, config) = (Blob::random(64 * MIB), Blob::random(MIB), Blob::config());
        let manifest = manifest(&config, &[(small.digest, MIB), (large.digest, 64 * MIB)]);
        let mounted = (0..MOUNTED).map(|_| Blob::random(1024)).collect();
        Held { large, small, config, manifest, mounted }
    }

    /// Pushes it to a registry.
    pub(crate) fn push(&self, peer: &Peer) -> Result<()> {
        let client = &mut peer.writer();
        for blob in [&self.large, &self.small, &self.config].into_iter().chain(&self.mounted) {
            registry::upload_blob(client, HELD, blob)?;
        }
        registry::put_manifest(client, HELD, TAG, &self.manifest)
    }

    /// Starts nginx over the same content, if it is installed.
    pub(crate) fn serve_as_files(&self) -> Result<Option<Peer>> {
        files(&[
            (blob_path(HELD, &self.large.digest), &self.large.bytes),
            (blob_path(HELD, &self.small.digest), &self.small.bytes),
            (manifest_path(HELD, TAG), &self.manifest.bytes),
            (manifest_path(HELD, &self.manifest.digest.to_string()), &self.manifest.bytes),
        ])
    }

    /// What an operation GETs or HEADs.
    fn read(&self, operation: Operation) -> Option<(String, &Blob)> {
        match operation {
            Operation::ManifestTag | Operation::ManifestHead => {
                Some((manifest_path(HELD, TAG), &self.manifest))
            }
            Operation::ManifestDigest => {
                Some((manifest_path(HELD, &self.manifest.digest.to_string()), &self.manifest))
            }
            Operation::BlobSmall => Some((blob_path(HELD, &self.small.digest), &self.small)),
            Operation::BlobLarge => Some((blob_path(HELD, &self.large.digest), &self.large)),
            _ => None,
        }
    }
}

/// Checks an operation's bytes once and warms its path, outside of what is timed.
pub(crate) fn prepare(operation: Operation, peer: &Peer, held: &Held) -> Result<()> {
    let Some((path, blob)) = held.read(operation) else { return Ok(()) };
    registry::verify(&mut peer.reader(), &path, &blob.digest)?;
    let plan = operation.plan();
    get(Plan { requests: plan.requests / 8, ..plan }, operation, peer, &path)?;
    Ok(())
}

/// One round of an operation at one server.
pub(crate) fn round(
    operation: Operation,
    number: usize,
    peer: &Peer,
    held: &Held,
) -> Result<Round> {
    let plan = operation.plan();
    match operation {
        Operation::UploadLarge | Operation::UploadLargeFour => upload(plan, 64 * MIB, peer),
        Operation::UploadSmallFour => upload(plan, MIB, peer),
        Operation::Mount => mount(plan, number, peer, held),
        _ => {
            let Some((path, _)) = held.read(operation) else {
                bail!("{} reads nothing", operation.name())
            };
            get(plan, operation, peer, &path)
        }
    }
}

fn get(plan: Plan, operation: Operation, peer: &Peer, path: &str) -> Result<Round> {
    let method = if operation == Operation::ManifestHead { "HEAD" } else { "GET" };
    let accept = [ACCEPT];
    let request = Request::new(method, path).headers(&accept);
    load::run(plan, peer, Peer::reader, |client, _| {
        let answer = client.send(&request, &mut Sink::Discard)?;
        registry::expect(&answer, 200, method, path)?;
        let bytes = if operation.is_bulk() { answer.bytes } else { 0 };
        let first = operation.has_first_byte().then_some(answer.first);
        Ok(Sample { first, total: answer.total, bytes })
    })
}

/// Uploads unique bodies, then reads one back and hashes it.
fn upload(plan: Plan, length: usize, peer: &Peer) -> Result<Round> {
    let bodies = Bodies::random(plan.requests, length);
    rustix::fs::sync(); // the last server's dirty pages are not this one's
    let round = load::run(plan, peer, Peer::writer, |client, number| {
        let begun = std::time::Instant::now();
        registry::upload(client, TAKEN, &bodies.parts(number), &bodies.digest(number))?;
        Ok(Sample { first: None, total: begun.elapsed(), bytes: bodies.length() as u64 })
    })?;
    let last = bodies.digest(bodies.count() - 1);
    registry::verify(&mut peer.writer(), &blob_path(TAKEN, &last), &last)?;
    Ok(round)
}

/// Mounts blobs into repositories that do not have them, so that every mount is a fact to be kept.
fn mount(plan: Plan, round: usize, peer: &Peer, held: &Held) -> Result<Round> {
    let into = |number: usize| format!("bench/m{round}x{}", number / MOUNTED);
    rustix::fs::sync();
    let measured = load::run(plan, peer, Peer::writer, |client: &mut Client, number| {
        let blob = &held.mounted[number % MOUNTED];
        let answer = registry::mount(client, &into(number), HELD, &blob.digest)?;
        Ok(Sample { first: None, total: answer.total, bytes: 0 })
    })?;
    let last = &held.mounted[(plan.requests - 1) % MOUNTED].digest;
    registry::verify(&mut peer.writer(), &blob_path(&into(plan.requests - 1), last), last)?;
    Ok(measured)
}
