//! Pushing to and pulling from one repository through one node, as the distribution specification
//! has it.
//!
//! A pull hashes every byte: a digest that does not fit its bytes is no error to be reported but
//! the end of the run.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::json;

use crate::http::{Answer, Client, Unanswered};
use crate::image::{ANY_KIND, Blob, Image, MANIFEST, digest};

/// A repository as seen through one node.
#[derive(Clone, Debug)]
pub struct Repository {
    client: Client,
    name: String,
}

/// Why something did not go through.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// No answer came; whether it was done is not known.
    Unanswered(Unanswered),
    /// The node said no.
    Answered(Box<Answer>),
}

impl Refusal {
    /// The answer, if there was one.
    #[must_use]
    pub fn answer(&self) -> Option<&Answer> {
        match self {
            Self::Unanswered(_) => None,
            Self::Answered(answer) => Some(answer),
        }
    }
}

impl From<Unanswered> for Refusal {
    fn from(none: Unanswered) -> Self {
        Self::Unanswered(none)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unanswered(none) => none.fmt(f),
            Self::Answered(answer) => answer.fmt(f),
        }
    }
}

/// What a pull found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The digest of the manifest.
    pub digest: String,
    /// The node warned that this may be stale.
    pub may_be_stale: bool,
}

impl Repository {
    /// The repository `name`, through `client`'s node and with its credentials.
    #[must_use]
    pub fn new(client: &Client, name: &str) -> Self {
        Self { client: client.clone(), name: name.to_owned() }
    }

    /// The client it is seen with.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The path of something in it: `manifests/1`.
    #[must_use]
    pub fn path(&self, what: &str) -> String {
        format!("/v2/{}/{what}", self.name)
    }

    /// Opens an upload; its path.
    ///
    /// # Errors
    /// When the node does not open one.
    ///
    /// # Panics
    /// When the node opens one and does not say where.
    pub fn open_upload(&self) -> Result<String, Refusal> {
        let opened = self.client.ask(Method::POST, &self.path("blobs/uploads/")).send()?;
        let opened = expect(opened, 202)?;
        Ok(opened.header("location").expect("an upload has a location").to_owned())
    }

    /// Uploads a blob in one stream, as docker does: POST, PATCH in chunks, PUT. `watch` hears how
    /// many bytes have gone.
    ///
    /// # Errors
    /// When a step is not answered, or answered with an error.
    ///
    /// # Panics
    /// When an answer lacks its location.
    pub fn upload_watched(
        &self,
        blob: &Blob,
        watch: impl FnMut(usize) + Send + 'static,
    ) -> Result<(), Refusal> {
        let place = self.open_upload()?;
        let patch = self
            .client
            .ask(Method::PATCH, &place)
            .header("content-type", "application/octet-stream");
        let patched = expect(patch.streamed(blob.bytes.clone(), watch).send()?, 202)?;
        let place = patched.header("location").expect("an upload has a location").to_owned();
        self.close_upload(&place, &blob.digest, Bytes::new())
    }

    /// Uploads a blob: POST, then one PUT with all of it.
    ///
    /// # Errors
    /// When a step is not answered, or answered with an error.
    pub fn upload(&self, blob: &Blob) -> Result<(), Refusal> {
        let place = self.open_upload()?;
        self.close_upload(&place, &blob.digest, blob.bytes.clone())
    }

    /// Ends an upload with (the rest of) its bytes and its name.
    ///
    /// # Errors
    /// When it is not answered, or answered with an error.
    pub fn close_upload(&self, place: &str, digest: &str, rest: Bytes) -> Result<(), Refusal> {
        let separator = if place.contains('?') { '&' } else { '?' };
        let put = self.client.ask(Method::PUT, &format!("{place}{separator}digest={digest}"));
        expect(put.header("content-type", "application/octet-stream").body(rest).send()?, 201)
            .map(drop)
    }

    /// Puts an image's manifest under a tag or its digest.
    ///
    /// # Errors
    /// When it is not answered, or answered with an error.
    pub fn put_manifest(&self, reference: &str, image: &Image) -> Result<(), Refusal> {
        self.put_bytes(reference, MANIFEST, image.manifest.bytes.clone()).map(drop)
    }

    /// Puts any bytes as a manifest.
    ///
    /// # Errors
    /// When it is not answered, or answered with an error.
    pub fn put_bytes(
        &self,
        reference: &str,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Answer, Refusal> {
        let put = self.client.ask(Method::PUT, &self.path(&format!("manifests/{reference}")));
        expect(put.header("content-type", media_type).body(bytes).send()?, 201)
    }

    /// Pushes an image: its blobs, then its manifest under `tag`.
    ///
    /// # Errors
    /// With the first step that is not answered, or answered with an error. `Ok` means that the
    /// registry has acknowledged it.
    pub fn push(&self, image: &Image, tag: &str) -> Result<(), Refusal> {
        for blob in &image.blobs {
            self.upload(blob)?;
        }
        self.put_manifest(tag, image)
    }

    /// Reads a manifest by tag or digest; the answer's bytes fit its digest.
    ///
    /// # Errors
    /// When it is not answered, or answered with an error.
    ///
    /// # Panics
    /// When the bytes are not what they are said to be.
    pub fn manifest(&self, reference: &str) -> Result<(Found, Bytes), Refusal> {
        let get = self.client.ask(Method::GET, &self.path(&format!("manifests/{reference}")));
        // one header line for each type, as dockerd sends them
        let get = ANY_KIND.iter().fold(get, |get, kind| get.header("accept", kind));
        let answer = expect(get.send()?, 200)?;
        let real = digest(&answer.body);
        let said = answer.header("docker-content-digest");
        assert_eq!(
            said,
            Some(real.as_str()),
            "{} names other bytes as {reference}",
            self.client.authority()
        );
        assert!(
            !reference.starts_with("sha256:") || reference == real,
            "asked for {reference}, got {real}"
        );
        Ok((Found { digest: real, may_be_stale: answer.may_be_stale() }, answer.body))
    }

    /// What a tag points at.
    ///
    /// # Errors
    /// When it is not answered, or answered with an error.
    pub fn resolve(&self, tag: &str) -> Result<Found, Refusal> {
        self.manifest(tag).map(|(found, _)| found)
    }

    /// Reads a blob; its bytes fit its digest.
    ///
    /// # Errors
    /// When it is not answered, or answered with an error.
    ///
    /// # Panics
    /// When the bytes are not what was asked for.
    pub fn blob(&self, name: &str) -> Result<Bytes, Refusal> {
        let answer = expect(self.client.get(&self.path(&format!("blobs/{name}")))?, 200)?;
        assert_eq!(digest(&answer.body), name, "{} serves wrong bytes", self.client.authority());
        Ok(answer.body)
    }

    /// A client that wants a blob from a byte on and either stays to the end or hangs up after the
    /// first piece.
    ///
    /// # Panics
    /// When it is refused, broken off, or given other bytes.
    pub fn read_from(&self, blob: &Blob, from: usize, stays: bool) {
        let client = self.client.clone().patient_for(Duration::from_secs(120));
        let mut ask = client.ask(Method::GET, &self.path(&format!("blobs/{}", blob.digest)));
        if from > 0 {
            ask = ask.header("range", &format!("bytes={from}-"));
        }
        let mut coming = ask.open().unwrap_or_else(|none| panic!("from {from}: {none}"));
        assert_eq!(
            coming.status,
            if from > 0 { 206 } else { 200 },
            "from {from}: {:?}",
            coming.headers
        );
        let wanted = &blob.bytes[from..];
        assert_eq!(
            coming.header("content-length"),
            Some(wanted.len().to_string().as_str()),
            "from {from}"
        );
        if stays {
            return coming.rest_is(wanted).unwrap_or_else(|no| panic!("from {from}: {no}"));
        }
        let first = coming
            .next()
            .expect("a first piece")
            .unwrap_or_else(|none| panic!("from {from}: {none}"));
        assert_eq!(wanted[..first.len()], first, "from {from}");
    }

    /// Pulls an image by tag or digest: the manifest, then everything it names, all of it hashed.
    ///
    /// # Errors
    /// With the first object that is not answered, or answered with an error.
    ///
    /// # Panics
    /// When a manifest is not JSON.
    pub fn pull(&self, reference: &str) -> Result<Found, Refusal> {
        let (found, bytes) = self.manifest(reference)?;
        let manifest: serde_json::Value =
            serde_json::from_slice(&bytes).expect("a manifest is JSON");
        let layers = manifest["layers"].as_array().cloned().unwrap_or_default();
        for named in std::iter::once(&manifest["config"]).chain(&layers) {
            self.blob(named["digest"].as_str().expect("a descriptor has a digest"))?;
        }
        Ok(found)
    }
}

/// Makes a project, as the administrator.
///
/// # Panics
/// When the mesh refuses.
pub fn create_project(administrator: &Client, name: &str, public: bool, durability: u8) {
    let what = json!({"project_name": name,
        "metadata": {"public": public.to_string(), "durability": durability.to_string()}});
    let made = administrator.send_json(Method::POST, "/api/v2.0/projects", &what);
    let made = made.unwrap_or_else(|none| panic!("project {name}: {none}"));
    assert_eq!(made.status, 201, "project {name}: {made}");
}

/// Chooses in how many regions a project keeps its blobs, as the administrator.
///
/// # Panics
/// When the mesh refuses.
pub fn set_durability(administrator: &Client, project: &str, regions: u8) {
    let what = json!({"metadata": {"durability": regions.to_string()}});
    let set = administrator.send_json(Method::PUT, &format!("/api/v2.0/projects/{project}"), &what);
    let set = set.unwrap_or_else(|none| panic!("durability of {project}: {none}"));
    assert_eq!(set.status, 200, "durability of {project}: {set}");
}

fn expect(answer: Answer, status: u16) -> Result<Answer, Refusal> {
    if answer.status == status { Ok(answer) } else { Err(Refusal::Answered(Box::new(answer))) }
}
