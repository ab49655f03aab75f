//! One pull as a client does it: tag to digest, manifest by digest, blobs, with redirects and
//! tokens.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use http::{Method, StatusCode, Uri};
use rules::words::digest::{Digest, Hasher};
use rules::words::manifest::{Manifest, media_type};
use rules::words::platform::Index;
use rules::words::secret::Secret;

use super::image::{Image, Way, verify};
use crate::cli::client::{ApiAnswer, Call, Client};
use upstream::challenge::{Challenge, parse};

/// The media types that a client accepts.
const ACCEPTED: [&str; 4] = [
    media_type::OCI_INDEX,
    media_type::OCI_MANIFEST,
    media_type::DOCKER_LIST,
    media_type::DOCKER_MANIFEST,
];
/// The maximum number of times that a request is sent: again after each redirect, and with a token.
const HOPS: usize = 6;

/// Pulls images as one user, or anonymously.
pub(super) struct Puller<'a> {
    /// The name and the password's file.
    pub(super) user: Option<(&'a str, &'a Path)>,
    /// The CA to trust.
    pub(super) authority: Option<&'a Path>,
}

/// A successful pull.
pub(super) struct Pulled {
    /// The digest of the tag.
    pub(super) digest: Digest,
    /// The size of all manifests and blobs in bytes.
    pub(super) bytes: u64,
    /// The longest wait for a blob's first byte.
    pub(super) first_byte: Duration,
}

/// A pull that is under way.
struct Pull<'a> {
    puller: &'a Puller<'a>,
    client: Client,
    way: &'a Way,
    image: &'a Image,
    /// The value of `Authorization`.
    token: Option<Secret>,
    bytes: u64,
}

impl Puller<'_> {
    /// Checks that the node at `url` answers as a registry does.
    pub(super) async fn ping(&self, url: &str) -> Result<(), String> {
        let client = Client::new(url, None, self.authority).map_err(|e| e.to_string())?;
        let answer = client.send(Call::get("/v2/")).await.map_err(|e| e.to_string())?;
        match answer.status {
            StatusCode::OK | StatusCode::UNAUTHORIZED => Ok(()),
            status => Err(format!("/v2/ answered {status}")),
        }
    }

    /// Pulls all of `image` through the node at `url`, and checks it.
    pub(super) async fn pull(&self, url: &str, way: &Way, image: &Image) -> Result<Pulled, String> {
        let client = Client::new(url, None, self.authority).map_err(|e| e.to_string())?;
        Pull { puller: self, client, way, image, token: None, bytes: 0 }.run().await
    }
}

impl Pull<'_> {
    async fn run(&mut self) -> Result<Pulled, String> {
        let what = format!("manifests/{}", self.image.reference);
        let head = match self.ask(Method::HEAD, &what).await {
            Ok(head) => head,
            // a HEAD has no body that could say why
            Err(status) => return Err(self.ask(Method::GET, &what).await.err().unwrap_or(status)),
        };
        let told = head
            .header("docker-content-digest")
            .ok_or("the answer to HEAD has no Docker-Content-Digest")?;
        let digest: Digest = told
            .parse()
            .map_err(|_| format!("the answer to HEAD names '{told}', which is not a digest"))?;
        let (mut manifest, bytes) = self.manifest(digest).await?;
        if !manifest.children.is_empty() {
            let index = Index::read(&bytes)?;
            (manifest, _) = self
                .manifest(index.chosen(std::env::consts::ARCH).ok_or("the index is empty")?)
                .await?;
        }
        let mut first_byte = Duration::ZERO;
        let blobs: BTreeSet<(Digest, u64)> =
            manifest.blobs.iter().map(|blob| (blob.digest, blob.size)).collect();
        for (blob, size) in blobs {
            first_byte = first_byte.max(self.blob(blob, size).await?);
        }
        Ok(Pulled { digest, bytes: self.bytes, first_byte })
    }

    async fn manifest(&mut self, digest: Digest) -> Result<(Manifest, Vec<u8>), String> {
        let answer = self.ask(Method::GET, &format!("manifests/{digest}")).await?;
        let kind = answer.header("content-type").unwrap_or_default().to_owned();
        let bytes = answer.whole().await.map_err(|e| format!("manifest {digest}: {e}"))?;
        self.bytes += bytes.len() as u64;
        verify(&digest, &Digest::of(digest.algorithm(), &bytes))?;
        let manifest =
            Manifest::read_served(&kind, &bytes).map_err(|e| format!("manifest {digest}: {e}"))?;
        Ok((manifest, bytes.into()))
    }

    /// Reads a blob to its end. Returns the time to its first byte.
    async fn blob(&mut self, digest: Digest, size: u64) -> Result<Duration, String> {
        let named = |e: &dyn std::fmt::Display| format!("blob {digest}: {e}");
        let begun = Instant::now();
        let mut answer = self.ask(Method::GET, &format!("blobs/{digest}")).await?;
        let (mut hasher, mut length, mut first) = (Hasher::new(digest.algorithm()), 0, None);
        while let Some(piece) = answer.next().await.map_err(|e| named(&e))? {
            first.get_or_insert_with(|| begun.elapsed());
            hasher.update(&piece);
            length += piece.len() as u64;
        }
        if length != size {
            return Err(named(&format!("{length} bytes came, but the manifest says {size}")));
        }
        verify(&digest, &hasher.finish())?;
        self.bytes += length;
        Ok(first.unwrap_or_else(|| begun.elapsed()))
    }

    /// Requests something of the repository, and follows redirects.
    async fn ask(&mut self, method: Method, what: &str) -> Result<ApiAnswer, String> {
        let mut path =
            format!("/v2/{}{}/{what}{}", self.way.prefix, self.image.repository, self.way.query);
        for _ in 0..HOPS {
            let call = Call {
                method: method.clone(),
                path: &path,
                host: self.way.host.as_deref(),
                authorization: self.token.as_ref(),
                accept: if what.starts_with("manifests/") { &ACCEPTED } else { &[] },
                names: false,
                body: bytes::Bytes::new(),
            };
            let answer = self.client.send(call).await.map_err(|e| e.to_string())?;
            match answer.status {
                StatusCode::OK => return Ok(answer),
                StatusCode::UNAUTHORIZED if self.token.is_none() => {
                    self.token =
                        Some(self.fetch_token(&answer).await.map_err(|e| format!("{what}: {e}"))?);
                }
                status if status.is_redirection() => {
                    let to = answer.header("location").unwrap_or_default();
                    if !to.starts_with('/') {
                        return Err(format!(
                            "{what} is redirected to '{to}', which is not at this node"
                        ));
                    }
                    path = to.to_owned();
                }
                status => {
                    return Err(format!(
                        "{method} {path} answered {status}{}",
                        reason(answer).await
                    ));
                }
            }
        }
        Err(format!("{what} is redirected in circles"))
    }

    /// Gets a token as the challenge in `answer` requires.
    async fn fetch_token(&self, answer: &ApiAnswer) -> Result<Secret, String> {
        let challenges = parse(
            answer.headers.get_all("www-authenticate").iter().filter_map(|v| v.to_str().ok()),
        );
        let bearer = challenges.into_iter().find_map(|challenge| match challenge {
            Challenge::Bearer { realm, service, scope } => Some((realm, service, scope)),
            Challenge::Basic => None,
        });
        let (realm, service, scope) =
            bearer.ok_or("401 without a challenge that says where to get a token")?;
        let at: Uri = realm.parse().map_err(|_| format!("the realm '{realm}' is not a URL"))?;
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in [("service", service), ("scope", scope)] {
            value.map(|value| query.append_pair(name, &value));
        }
        let path = format!("{}?{}", at.path(), query.finish());
        let origin = format!(
            "{}://{}",
            at.scheme_str().unwrap_or("http"),
            at.authority().map_or("", |a| a.as_str())
        );
        // a name of the mirrors' domain need not resolve here; the node that was asked is meant
        let host = self
            .way
            .host
            .as_deref()
            .filter(|host| at.authority().is_some_and(|a| a.as_str() == *host));
        let url = if host.is_some() { self.client.url() } else { origin };
        let failed = |e: io::Error| format!("no token from {realm}: {e}");
        let client = Client::new(&url, self.puller.user, self.puller.authority).map_err(failed)?;
        let answer = client.send(Call { host, ..Call::get(&path) }).await.map_err(failed)?;
        if answer.status != StatusCode::OK {
            let status = answer.status;
            return Err(format!("no token from {realm}: {status}{}", reason(answer).await));
        }
        let body = answer.whole().await.map_err(failed)?;
        let told: serde_json::Value = serde_json::from_slice(&body).map_err(|e| e.to_string())?;
        let token = told["token"].as_str().ok_or_else(|| format!("{realm} gives no token"))?;
        Ok(format!("Bearer {token}").into())
    }
}

/// The message of an answer that is an error.
async fn reason(answer: ApiAnswer) -> String {
    let body = answer.whole().await.unwrap_or_default();
    let told: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    told["errors"][0]["message"].as_str().map(|message| format!(": {message}")).unwrap_or_default()
}
