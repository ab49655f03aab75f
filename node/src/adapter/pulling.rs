//! Reads an image's layers as they come from the registry that has it. Nothing is kept on the disk: each
//! layer is read once, front to back, and its bytes are hashed on the way.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{Buf, Bytes};
use ground::supervise::{Tasks, blocking};
use rules::words::digest::{Digest, Hasher};
use rules::words::image::{Image, Layer, Runnable};
use rules::words::secret::Secret;
use scan::adapter::request::RegistryPlace;
use scan::{LayerError, Limits};
use tokio::sync::mpsc;
use upstream::{
    AddressRule, Credentials, Endpoint, Password, Trust, Upstream, UpstreamError, UpstreamSettings,
    UpstreamTerms,
};

/// How many pieces of a layer wait for the reader.
const PIECES: usize = 8;
/// The maximum number of layers of an image, and of packages that they list together.
const MOST_LAYERS: usize = 500;
const MOST_PACKAGES: usize = 200_000;

/// Where this adapter may pull from.
#[derive(Clone)]
pub struct PullingTerms {
    /// The registries that it pulls from; all if it is empty.
    pub registries: Vec<Endpoint>,
    /// The addresses that it may connect to.
    pub rule: AddressRule,
    /// The certificates that are trusted.
    pub trust: Trust,
    /// Limits for each registry.
    pub each: UpstreamTerms,
    /// What one layer may cost.
    pub limits: Limits,
}

/// Pulls.
pub struct Pulling {
    terms: PullingTerms,
    tasks: Tasks,
}

/// A registry that an image is to be pulled from, and what to show it.
pub struct Source {
    endpoint: Endpoint,
    credentials: Option<Credentials>,
}

impl Pulling {
    /// Nothing was pulled yet.
    pub fn new(terms: PullingTerms, tasks: Tasks) -> Self {
        Pulling { terms, tasks }
    }

    /// Reads where an image is. The error is a sentence for whoever asked.
    pub fn source(&self, place: &RegistryPlace) -> Result<Source, String> {
        if !place.url.starts_with("http://") && !place.url.starts_with("https://") {
            return Err("registry.url begins with http:// or https://".into());
        }
        let endpoint: Endpoint =
            place.url.parse().map_err(|error| format!("registry.url: {error}"))?;
        let registries = &self.terms.registries;
        if !registries.is_empty() && !registries.iter().any(|one| one.is_at(&endpoint)) {
            return Err(format!("this adapter does not pull from {endpoint} (--registry)"));
        }
        Ok(Source { endpoint, credentials: credentials(&place.authorization)? })
    }

    /// The client of a registry.
    pub fn client(&self, source: Source) -> Upstream {
        let Source { endpoint, credentials } = source;
        let PullingTerms { trust, rule, each, .. } = self.terms.clone();
        let on_limit = Arc::new(|_, _| {});
        let settings =
            UpstreamSettings { endpoint, credentials, trust, rule, terms: each, on_limit };
        Upstream::new(settings, self.tasks.clone())
    }

    /// What all layers of an image contain, the bottom one first. The error is a sentence.
    pub async fn layers(
        &self,
        source: Source,
        repository: &str,
        digest: &Digest,
    ) -> Result<Vec<scan::Layer>, String> {
        let signs_in = source.credentials.is_some();
        let registry = self.client(source);
        // a registry that refuses the image to who shows nothing need not ask for credentials then: so it
        // is asked first what it wants, as docker asks it
        if signs_in {
            registry.ping().await.map_err(|error| format!("the registry: {error}"))?;
        }
        let manifest = registry.manifest(repository, &digest.to_string()).await;
        let manifest = manifest.map_err(|error| format!("the image's manifest: {error}"))?;
        let image = match Image::read(&manifest.bytes) {
            Runnable::Image(image) => image,
            Runnable::Ambiguous => {
                return Err("clients read its manifest in several ways".into());
            }
            Runnable::Nothing => return Err("it is no image that can be scanned".into()),
        };
        if image.layers.len() > MOST_LAYERS {
            return Err(format!("it has more than {MOST_LAYERS} layers"));
        }
        let (mut found, mut packages) = (Vec::new(), 0);
        for layer in &image.layers {
            let read = self.layer(&registry, repository, layer).await?;
            packages += read.packages();
            if packages > MOST_PACKAGES {
                return Err(format!("its layers list more than {MOST_PACKAGES} packages"));
            }
            found.push(read);
        }
        Ok(found)
    }

    async fn layer(
        &self,
        registry: &Upstream,
        repository: &str,
        layer: &Layer,
    ) -> Result<scan::Layer, String> {
        let digest = layer.digest;
        let named = |error: UpstreamError| format!("layer {digest}: {error}");
        let mut blob = registry.blob(repository, &digest, 0).await.map_err(named)?;
        let (sender, receiver) = mpsc::channel(PIECES);
        let limits = self.terms.limits;
        let keep_on = Arc::new(AtomicBool::new(true));
        let (media_type, watched) = (layer.media_type.clone(), keep_on.clone());
        // whoever gives up stops the reader, too
        let _stop = StopAtEnd(keep_on);
        let reading = blocking(move || {
            let bytes = Pieces { receiver, piece: Bytes::new() };
            let keep_on = || watched.load(Ordering::Relaxed);
            scan::read_layer(
                io::BufReader::with_capacity(1 << 18, bytes),
                &media_type,
                &limits,
                &keep_on,
            )
        });
        let mut hasher = Hasher::new(digest.algorithm());
        let fed = loop {
            match blob.next().await {
                Ok(Some(piece)) => {
                    hasher.update(&piece);
                    // a reader that has seen the end takes no more, and the rest is hashed all the same
                    let _ = sender.send(piece).await;
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(named(error)),
            }
        };
        drop(sender);
        let read = reading.await.map_err(|error| format!("layer {digest}: {error}"))?;
        fed?;
        if hasher.finish() != digest {
            return Err(format!("layer {digest}: its bytes have another digest"));
        }
        read.map_err(|error| match error {
            LayerError::Stopped => "the scan took too long".to_owned(),
            error => format!("layer {digest}: {error}"),
        })
    }
}

/// What `registry.authorization` says. The error is a sentence without the secret.
fn credentials(written: &str) -> Result<Option<Credentials>, String> {
    let wrong = || "registry.authorization is `Basic ..` or `Bearer ..`".to_owned();
    if written.trim().is_empty() {
        return Ok(None);
    }
    let (scheme, value) = written.trim().split_once(' ').ok_or_else(wrong)?;
    let value = value.trim();
    match scheme.to_ascii_lowercase().as_str() {
        "basic" => {
            let pair = BASE64_STANDARD.decode(value).map_err(|_| wrong())?;
            let pair = String::from_utf8(pair).map_err(|_| wrong())?;
            let (user, password) = pair.split_once(':').ok_or_else(wrong)?;
            let (user, password) = (user.to_owned(), password.into());
            Ok(Some(Credentials::Password(Password { user, password })))
        }
        "bearer" if !value.is_empty() => Ok(Some(Credentials::Token(Secret::from(value)))),
        _ => Err(wrong()),
    }
}

/// Stops a reader when it is dropped.
struct StopAtEnd(Arc<AtomicBool>);

impl Drop for StopAtEnd {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// The pieces of a layer, read on a thread of its own.
struct Pieces {
    receiver: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_registry_shows_its_scanner_is_read_in_both_forms() {
        let basic = format!("Basic {}", BASE64_STANDARD.encode("robot$scan:se:cret"));
        let read = credentials(&basic).unwrap();
        let expected = Password { user: "robot$scan".into(), password: "se:cret".into() };
        assert_eq!(read, Some(Credentials::Password(expected)));
        assert_eq!(
            credentials("bearer token").unwrap(),
            Some(Credentials::Token(Secret::from("token")))
        );
        assert_eq!(credentials(" ").unwrap(), None);
        for wrong in ["Basic", "Basic !", "Digest hunter2", "Bearer ", "hunter2"] {
            let said = credentials(wrong).unwrap_err();
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}
