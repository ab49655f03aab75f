//! An upstream registry that counts: who asked for a blob how often, and how many bytes went out
//! for it. It serves from memory.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result};
use rules::words::digest::Digest;

use crate::content::{Blob, MANIFEST, manifest};
use crate::network;

/// Bytes are counted in pieces of this size, when the socket has taken them.
const PIECE: usize = 64 << 10;

/// The requests for one blob.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// GETs of it or of a part of it.
    pub(super) gets: u64,
    /// Bytes that went out.
    pub(super) bytes: u64,
}

/// The registry. Dropping it ends its listener; connections end with their clients.
#[derive(Debug)]
pub(super) struct Upstream {
    /// Where it listens.
    pub(super) address: SocketAddr,
    shelf: Arc<Shelf>,
    end: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct Shelf(Mutex<Content>);

#[derive(Debug, Default)]
struct Content {
    manifests: HashMap<String, Arc<Blob>>,
    blobs: HashMap<Digest, Arc<Blob>>,
    asked: HashMap<Digest, Asked>,
}

impl Shelf {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(|broken| broken.into_inner())
    }
}

impl Upstream {
    /// Listens on port 5000 of an address inside a network namespace.
    pub(super) fn start(namespace: &Path, host: &str) -> Result<Self> {
        let address: SocketAddr = format!("{host}:5000").parse()?;
        let listener = network::inside(namespace, || TcpListener::bind(address))?
            .context("the upstream's address")?;
        listener.set_nonblocking(true)?;
        let upstream = Upstream { address, shelf: Arc::default(), end: Arc::default() };
        let (shelf, end) = (upstream.shelf.clone(), upstream.end.clone());
        std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let shelf = shelf.clone();
                        std::thread::spawn(move || converse(&stream, &shelf));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            }
        });
        Ok(upstream)
    }

    /// A fresh image of one layer under a tag of its own in every repository; the layer.
    pub(super) fn shelve(&self, size: usize) -> Arc<Blob> {
        let (layer, config) = (Arc::new(Blob::random(size)), Arc::new(Blob::config()));
        let manifest = Arc::new(manifest(&config, &[(layer.digest, size)]));
        let mut content = self.shelf.content();
        content.blobs.clear(); // nobody asks for the images before this one again
        content.manifests.clear();
        for name in [super::tag_of(&layer), manifest.digest.to_string()] {
            content.manifests.insert(name, manifest.clone());
        }
        for blob in [&layer, &config] {
            content.blobs.insert(blob.digest, blob.clone());
        }
        layer
    }

    /// The requests for a blob so far.
    pub(super) fn asked(&self, digest: &Digest) -> Asked {
        self.shelf.content().asked.get(digest).copied().unwrap_or_default()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
}

/// Answers one connection until it closes.
fn converse(stream: &TcpStream, shelf: &Shelf) {
    let _ = (stream.set_nonblocking(false), stream.set_nodelay(true));
    let mut lines = BufReader::new(stream).lines();
    while let Some(request) = Request::read(&mut lines) {
        if answer(stream, &request, shelf).is_err() {
            return;
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Request {
    head: bool,
    path: String,
    /// First byte and, if it is told, the last one.
    range: Option<(u64, Option<u64>)>,
}

impl Request {
    /// Reads a head; nothing at the end or of what is no request.
    fn read(lines: &mut impl Iterator<Item = std::io::Result<String>>) -> Option<Self> {
        let first = lines.next()?.ok()?;
        let mut words = first.split(' ');
        let (method, path) = (words.next()?, words.next()?);
        let mut request = Request {
            head: method == "HEAD",
            path: path.split('?').next()?.to_owned(),
            range: None,
        };
        loop {
            let line = lines.next()?.ok()?;
            if line.is_empty() {
                return Some(request);
            }
            let (name, value) = line.split_once(':')?;
            if name.eq_ignore_ascii_case("range") {
                let (from, to) = value.trim().strip_prefix("bytes=")?.split_once('-')?;
                request.range = Some((from.parse().ok()?, to.parse().ok()));
            }
        }
    }
}

fn answer(mut stream: &TcpStream, request: &Request, shelf: &Shelf) -> std::io::Result<()> {
    let path = request.path.as_str();
    let (mut kind, mut found) = (MANIFEST, None);
    if let Some((_, name)) = path.rsplit_once("/manifests/") {
        found = shelf.content().manifests.get(name).cloned();
    } else if let Some((_, name)) = path.rsplit_once("/blobs/") {
        kind = "application/octet-stream";
        found = name
            .parse()
            .ok()
            .and_then(|digest: Digest| shelf.content().blobs.get(&digest).cloned());
    } else if path.trim_end_matches('/') == "/v2" {
        return stream.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
        );
    }
    let Some(blob) = found else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    };
    let size = blob.bytes.len();
    let (from, to) = request.range.unwrap_or((0, None));
    let to = to.map_or(size, |last| size.min(last as usize + 1));
    let from = to.min(from as usize);
    let status = if request.range.is_some() { "206 Partial Content" } else { "200 OK" };
    let mut head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nDocker-Content-Digest: {}\r\nETag: \"{}\"\r\nAccept-Ranges: bytes\r\n",
        to - from,
        blob.digest,
        blob.digest,
    );
    if request.range.is_some() {
        head += &format!("Content-Range: bytes {from}-{}/{size}\r\n", to.saturating_sub(1));
    }
    stream.write_all((head + "\r\n").as_bytes())?;
    if request.head {
        return Ok(());
    }
    shelf.content().asked.entry(blob.digest).or_default().gets += 1;
    for piece in blob.bytes[from..to].chunks(PIECE) {
        stream.write_all(piece)?;
        shelf.content().asked.entry(blob.digest).or_default().bytes += piece.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Request> {
        Request::read(&mut text.split("\r\n").map(|line| Ok(line.to_owned())))
    }

    #[test]
    fn a_request_is_a_method_a_path_and_perhaps_a_range() {
        let range =
            read("GET /v2/a/blobs/b?ns=c HTTP/1.1\r\nHost: h\r\nRange: bytes=5-\r\n\r\n").unwrap();
        assert_eq!(
            range,
            Request { head: false, path: "/v2/a/blobs/b".into(), range: Some((5, None)) }
        );
        let head = read("HEAD / HTTP/1.1\r\nRange: bytes=5-7\r\n\r\n").unwrap();
        assert_eq!(head, Request { head: true, path: "/".into(), range: Some((5, Some(7))) });
        assert_eq!(read("GET / HTTP/1.1\r\nHost: h"), None, "a head that does not end is none");
    }
}
