//! What a client says to a registry: the few requests of the distribution-spec that are measured.

use anyhow::{Context, Result, ensure};
use rules::words::digest::{Algorithm, Digest, Hasher};

use crate::content::{Blob, MANIFEST};
use crate::wire::{Answer, Client, Request, Sink};

/// What is asked for when a manifest is.
pub(crate) const ACCEPT: (&str, &str) = ("Accept", MANIFEST);

/// The path of a blob.
pub(crate) fn blob_path(repository: &str, digest: &Digest) -> String {
    format!("/v2/{repository}/blobs/{digest}")
}

/// The path of a manifest by tag or digest.
pub(crate) fn manifest_path(repository: &str, reference: &str) -> String {
    format!("/v2/{repository}/manifests/{reference}")
}

/// Uploads a blob: a POST that opens the upload and one PUT with all bytes.
pub(crate) fn upload(
    client: &mut Client,
    repository: &str,
    parts: &[&[u8]],
    digest: &Digest,
) -> Result<()> {
    let place = open_upload(client, repository)?;
    close_upload(client, &place, parts, digest)
}

/// Opens an upload; where it goes on.
pub(crate) fn open_upload(client: &mut Client, repository: &str) -> Result<String> {
    let path = format!("/v2/{repository}/blobs/uploads/");
    let mut said = Vec::new();
    let opened = client.send(&Request::new("POST", &path).body(&[]), &mut Sink::Keep(&mut said))?;
    let opened = expect(&opened, 202, "POST", &path);
    place_of(opened.with_context(|| String::from_utf8_lossy(&said).into_owned())?)
}

/// Sends a chunk that begins at this byte; where the upload goes on.
pub(crate) fn add_to_upload(
    client: &mut Client,
    place: &str,
    begin: u64,
    parts: &[&[u8]],
) -> Result<String> {
    let length: u64 = parts.iter().map(|part| part.len() as u64).sum();
    let range = format!("{begin}-{}", (begin + length).saturating_sub(1));
    let headers = [("Content-Type", "application/octet-stream"), ("Content-Range", &range)];
    let request = Request::new("PATCH", place).headers(&headers).body(parts);
    let added = client.send(&request, &mut Sink::Discard)?;
    place_of(expect(&added, 202, "PATCH", place)?)
}

/// Ends an upload with its last bytes, or all of them.
pub(crate) fn close_upload(
    client: &mut Client,
    place: &str,
    parts: &[&[u8]],
    digest: &Digest,
) -> Result<()> {
    let join = if place.contains('?') { '&' } else { '?' };
    let path = format!("{place}{join}digest={digest}");
    let request = Request::new("PUT", &path)
        .headers(&[("Content-Type", "application/octet-stream")])
        .body(parts);
    let stored = client.send(&request, &mut Sink::Discard)?;
    expect(&stored, 201, "PUT", &path)?;
    Ok(())
}

fn place_of(answer: &Answer) -> Result<String> {
    let location = answer.location.as_deref().context("an upload without a Location")?;
    Ok(path_of(location).to_owned())
}

/// Uploads a whole blob.
pub(crate) fn upload_blob(client: &mut Client, repository: &str, blob: &Blob) -> Result<()> {
    upload(client, repository, &[&blob.bytes], &blob.digest)
}

/// Stores a manifest under a tag or its digest.
pub(crate) fn put_manifest(
    client: &mut Client,
    repository: &str,
    reference: &str,
    manifest: &Blob,
) -> Result<()> {
    let path = manifest_path(repository, reference);
    let body: [&[u8]; 1] = [&manifest.bytes];
    let request = Request::new("PUT", &path).headers(&[("Content-Type", MANIFEST)]).body(&body);
    let stored = client.send(&request, &mut Sink::Discard)?;
    expect(&stored, 201, "PUT", &path)?;
    Ok(())
}

/// Takes a blob over from another repository of the same registry.
pub(crate) fn mount(
    client: &mut Client,
    into: &str,
    from: &str,
    digest: &Digest,
) -> Result<Answer> {
    let path = format!("/v2/{into}/blobs/uploads/?mount={digest}&from={from}");
    let mounted = client.send(&Request::new("POST", &path).body(&[]), &mut Sink::Discard)?;
    expect(&mounted, 201, "POST", &path)?;
    Ok(mounted)
}

/// GETs a path and compares what comes with the sha256 it must have.
pub(crate) fn verify(client: &mut Client, path: &str, digest: &Digest) -> Result<()> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let answer =
        client.send(&Request::new("GET", path).headers(&[ACCEPT]), &mut Sink::Hash(&mut hasher))?;
    expect(&answer, 200, "GET", path)?;
    let found = hasher.finish();
    ensure!(found == *digest, "GET {path}: the bytes are {found}, not {digest}");
    Ok(())
}

/// Passes on an answer that has this status.
pub(crate) fn expect<'a>(
    answer: &'a Answer,
    status: u16,
    method: &str,
    path: &str,
) -> Result<&'a Answer> {
    ensure!(
        answer.status == status,
        "{method} {path}: status {}, expected {status}",
        answer.status
    );
    Ok(answer)
}

/// A Location without scheme and host: we stay on the connection we have.
fn path_of(location: &str) -> &str {
    if location.starts_with('/') {
        return location;
    }
    let Some((_, rest)) = location.split_once("://") else { return location };
    rest.find('/').map_or("/", |at| &rest[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_may_be_a_path_or_a_whole_url() {
        assert_eq!(path_of("/v2/a/blobs/uploads/1?x=y://z"), "/v2/a/blobs/uploads/1?x=y://z");
        assert_eq!(path_of("http://h:1/v2/a?_state=b://c"), "/v2/a?_state=b://c");
        assert_eq!(path_of("http://h:1"), "/");
    }
}
