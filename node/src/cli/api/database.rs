//! `atoll scan db`: the database of vulnerabilities, for meshes without a way to where it is made.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::Subcommand;
use http::Method;
use rules::words::digest::Digest;
use serde_json::{Value, json};

use super::{Api, part};
use crate::cli::client::{Call, refusal};
use crate::cli::shown::safe;

/// The media types of `trivy-db` (trivy's `pkg/db`).
const CONFIG: &str = "application/vnd.aquasec.trivy.config.v1+json";
const LAYER: &str = "application/vnd.aquasec.trivy.db.layer.v1.tar+gzip";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// How many bytes are sent at a time: each answer comes well before the node's patience ends.
const CHUNK: usize = 4 << 20;
/// The largest file that is taken. trivy's has less than 200 MiB in 2026.
const LARGEST: u64 = 4 << 30;
/// The time between two looks whether the node has opened it, and how many there are.
const LOOK: Duration = Duration::from_millis(500);
const LOOKS: usize = 240;

/// What of the database.
#[derive(Subcommand)]
pub(super) enum DatabaseVerb {
    /// Show the database that the mesh uses, and what this node has of it.
    Status,
    /// Push a database from a file to where the mesh looks for it (scan.database), and wait until
    /// this node uses it.
    Import {
        /// `db.tar.gz`, as `oras pull ghcr.io/aquasecurity/trivy-db:2` writes it.
        file: PathBuf,
    },
}

/// What the node says of its scanner.
async fn scanner(api: &Api) -> io::Result<Value> {
    Ok(api.get("/api/v2.0/scanners").await?[0].clone())
}

/// Runs `scan db import`.
pub(super) async fn import(api: &Api, file: &Path) -> io::Result<()> {
    let here = scanner(api).await?["database_here"].clone();
    let place = here["source"].as_str().ok_or_else(|| {
        io::Error::other(
            "this node does not look for a database: set scan.database on each replica",
        )
    })?;
    let (repository, tag) = place
        .rsplit_once(':')
        .ok_or_else(|| io::Error::other(format!("{} is no REPOSITORY:TAG", safe(place))))?;
    let layer = read(file)?;
    let digest = Digest::sha256(&layer);
    let config = Bytes::from_static(b"{}");
    for blob in [&config, &layer] {
        upload(api, repository, blob).await?;
    }
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": CONFIG,
        "config": {
            "mediaType": CONFIG,
            "digest": Digest::sha256(&config).to_string(),
            "size": config.len(),
        },
        "layers": [{
            "mediaType": LAYER,
            "digest": digest.to_string(),
            "size": layer.len(),
            // trivy itself looks for this name
            "annotations": {"org.opencontainers.image.title": "db.tar.gz"},
        }],
    });
    let path = format!("/v2/{repository}/manifests/{}", part(tag));
    send(api, Method::PUT, &path, manifest.to_string().into(), MANIFEST).await?;
    if !api.is_json() {
        println!("{} is pushed to {}", file.display(), safe(place));
    }
    wait(api, &digest.to_string()).await
}

/// The whole file, if it can be a database.
fn read(path: &Path) -> io::Result<Bytes> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    let file = File::open(path).map_err(named)?;
    let length = file.metadata().map_err(named)?.len();
    if length > LARGEST {
        let message = format!("{}: {length} bytes, and {LARGEST} are taken", path.display());
        return Err(io::Error::other(message));
    }
    let mut bytes = Vec::with_capacity(length as usize);
    file.take(LARGEST).read_to_end(&mut bytes).map_err(named)?;
    if !bytes.starts_with(b"\x1f\x8b") {
        let message = format!(
            "{} is no gzip: a database is db.tar.gz, as oras pulls it, with trivy.db and metadata.json",
            path.display()
        );
        return Err(io::Error::other(message));
    }
    Ok(bytes.into())
}

/// Sends one request, and returns its `Location`.
async fn send(
    api: &Api,
    method: Method,
    path: &str,
    body: Bytes,
    content_type: &str,
) -> io::Result<Option<String>> {
    let call = Call { method, body, content_type, ..Call::get(path) };
    let answer = api.client.send(call).await?;
    let (status, location) = (answer.status, answer.header("location").map(str::to_owned));
    let bytes = answer.whole().await?;
    match status.is_success() {
        true => Ok(location),
        false => Err(io::Error::other(refusal(status, &bytes))),
    }
}

async fn upload(api: &Api, repository: &str, blob: &Bytes) -> io::Result<()> {
    let begin = format!("/v2/{repository}/blobs/uploads/");
    let mut place = next(send(api, Method::POST, &begin, Bytes::new(), "").await?)?;
    let binary = "application/octet-stream";
    for start in (0..blob.len()).step_by(CHUNK) {
        let piece = blob.slice(start..blob.len().min(start + CHUNK));
        place = next(send(api, Method::PATCH, &place, piece, binary).await?)?;
    }
    let mark = if place.contains('?') { '&' } else { '?' };
    let end = format!("{place}{mark}digest={}", part(&Digest::sha256(blob).to_string()));
    send(api, Method::PUT, &end, Bytes::new(), "").await.map(drop)
}

/// The path of where an upload goes on.
fn next(location: Option<String>) -> io::Result<String> {
    let location = location.ok_or_else(|| io::Error::other("the node names no upload"))?;
    let path = match location.split_once("://") {
        Some((_, rest)) => rest.find('/').map(|slash| rest[slash..].to_owned()),
        None => Some(location),
    };
    path.ok_or_else(|| io::Error::other("the node names an upload without a path"))
}

/// Waits until the node uses the database, or says why it does not.
async fn wait(api: &Api, digest: &str) -> io::Result<()> {
    for _ in 0..LOOKS {
        let scanner = scanner(api).await?;
        let here = &scanner["database_here"];
        if here["open"] == digest && scanner["database"]["digest"] == digest {
            match api.is_json() {
                true => api.print_one(&scanner["database"]),
                false => println!(
                    "the mesh uses it: made {}",
                    safe(scanner["database"]["updated_at"].as_str().unwrap_or("?"))
                ),
            }
            return Ok(());
        }
        // a problem is of what the tag names
        if let (Some(problem), true) = (here["problem"].as_str(), here["named"] == digest) {
            return Err(io::Error::other(format!("it is not used: {}", safe(problem))));
        }
        tokio::time::sleep(LOOK).await;
    }
    let message = "it is pushed, and this node does not use it yet: look at `atoll scan db status`";
    Err(io::Error::other(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_goes_on_where_the_node_says() {
        let path = "/v2/a/b/blobs/uploads/1?x=y";
        for location in [path.to_owned(), format!("http://node:5000{path}")] {
            assert_eq!(next(Some(location)).unwrap(), path);
        }
        assert!(next(None).is_err() && next(Some("http://node".into())).is_err());
    }
}
