//! Manifests: read locally with a lease, and written through the project's primary.

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use rules::ledger::change::Change;
use rules::ledger::events::Actor;
use rules::ledger::records::{Look, ManifestRecord, Project};
use rules::people::access::Action;
use rules::people::passes::ScanPass;
use rules::wire::{Pushed, Resolution, WriteKind};
use rules::words::digest::Digest;
use rules::words::manifest::Manifest;
use rules::words::names::{Reference, RepositoryName, Tag};

use super::gate::Served;
use super::{Registry, UNASKED, condition_failed, refuse_proxy};
use crate::http::answer::{answer, mark, moved, set};
use crate::http::conditional::{self, Condition};
use crate::http::door::{Admitted, actor, beyond_the_pass};
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};
use registry::proxies::resolving::Resolving;
use registry::view::Freshness;
use registry::writes::Refusal;

impl Registry {
    pub(super) async fn get_manifest(
        &self,
        request: Request,
        repository: RepositoryName,
        reference: Reference,
    ) -> Result<Response<Payload>, Failure> {
        let admitted = self.door.admit_reader(&request, &repository, |records, _| {
            let digest = match &reference {
                Reference::Digest(digest) => Some(*digest),
                Reference::Tag(tag) => records.tag(&repository, tag)?.map(|t| t.digest),
            };
            let Some(digest) = digest else { return Ok(None) };
            Ok(records.manifest(&repository, &digest)?.map(|manifest| (digest, manifest)))
        });
        let admitted = admitted.await?;
        let by = actor(&admitted.caller, &request);
        // a scan is no pull
        let gets = request.method == Method::GET && admitted.caller.pass().is_none();
        let answered = self.serve_manifest(request, &repository, &reference, admitted).await;
        if gets {
            self.saw_pull(by, &repository, &reference, &answered);
        }
        answered
    }

    async fn serve_manifest(
        &self,
        request: Request,
        repository: &RepositoryName,
        reference: &Reference,
        admitted: Admitted<Option<(Digest, ManifestRecord)>>,
    ) -> Result<Response<Payload>, Failure> {
        let Admitted { caller, project, freshness, found } = admitted;
        if let Some(pass) = caller.pass() {
            return match found {
                Some((digest, manifest)) if pass.opens(repository, &digest) => {
                    self.show_manifest(&request, &digest, manifest, freshness)
                }
                None => match self.cached_for(pass, &project, repository, reference).await {
                    Some((digest, manifest)) => {
                        self.show_manifest(&request, &digest, manifest, freshness)
                    }
                    None => Err(beyond_the_pass()),
                },
                Some(_) => Err(beyond_the_pass()),
            };
        }
        if project.upstream.is_some() {
            if !self.upstreams.admits(&project, repository) {
                let message =
                    format!("project {} does not cache {repository} (its patterns)", project.name);
                return Err(Failure::new(Code::ManifestUnknown, message));
            }
            if found.is_none() {
                self.questions.ask(request.client, &project.name)?;
            }
            return match (reference, found) {
                (Reference::Digest(_), Some((digest, manifest))) => {
                    self.proxies.caches().touch(repository, &digest);
                    let (place, what) = ((repository, reference), Served::of(&digest, &manifest));
                    self.check_cached(&project, place, what, request.client).await?;
                    self.show_manifest(&request, &digest, manifest, freshness)
                }
                (_, found) => {
                    let known = (found, freshness);
                    self.get_proxied(
                        request,
                        &project,
                        repository.clone(),
                        reference.clone(),
                        known,
                    )
                    .await
                }
            };
        }
        let Some((digest, manifest)) = found else {
            let message = format!("repository {repository} has no manifest {reference}");
            return Err(Failure::new(Code::ManifestUnknown, message).if_known(freshness));
        };
        let what = (&digest, &manifest);
        self.check_gates(&caller, &project, repository, reference, what).await?;
        self.show_manifest(&request, &digest, manifest, freshness)
    }

    /// What a scanner's pass opens of a proxy project, if another node has cached it.
    async fn cached_for(
        &self,
        pass: &ScanPass,
        project: &Project,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Option<(Digest, ManifestRecord)> {
        let Reference::Digest(digest) = reference else { return None };
        if project.upstream.is_none() || !pass.opens(repository, digest) {
            return None;
        }
        let manifest = self.proxies.caches().manifest(repository, digest, false).await?;
        Some((*digest, manifest))
    }

    fn show_manifest(
        &self,
        request: &Request,
        digest: &Digest,
        manifest: ManifestRecord,
        freshness: Freshness,
    ) -> Result<Response<Payload>, Failure> {
        let mut response = show(request, digest, &manifest.media_type, manifest.bytes.into())?;
        mark(&mut response, freshness);
        Ok(response)
    }

    /// A manifest of a proxy project. The upstream decides what the reference names; what is cached
    /// is served if the upstream fails. `known` is what the records have for the reference; without
    /// it, this was counted as a question.
    async fn get_proxied(
        &self,
        request: Request,
        project: &Project,
        repository: RepositoryName,
        reference: Reference,
        (known, freshness): (Option<(Digest, ManifestRecord)>, Freshness),
    ) -> Result<Response<Payload>, Failure> {
        if let Some(elsewhere) = self.upstreams.canonical(&repository) {
            return Ok(moved(&request.place(&elsewhere, &format!("manifests/{reference}"))));
        }
        let missing = || {
            let message = format!(
                "neither repository {repository} nor its upstream has a manifest {reference}"
            );
            Failure::new(Code::ManifestUnknown, message)
        };
        let answered = match self.proxies.resolve(project, &repository, &reference).await {
            Resolving::Direct(fetched) => {
                let read = Manifest::read_served(&fetched.media_type, &fetched.bytes).ok();
                let (digest, bytes) = (&fetched.digest, &fetched.bytes[..]);
                let what = Served { digest, bytes, subject: read.and_then(|read| read.subject) };
                let place = (&repository, &reference);
                self.check_cached(project, place, what, request.client).await?;
                let mut response =
                    show(&request, &fetched.digest, &fetched.media_type, fetched.bytes)?;
                set(
                    &mut response,
                    "warning",
                    "199 atoll \"asked the upstream directly: the project's primary cannot be reached\"",
                );
                return Ok(response);
            }
            Resolving::Mesh(answered) => answered,
        };
        if known.is_none() && answered.known {
            self.questions.give_back(request.client, &project.name);
        }
        let (digest, stale) = match answered.resolution {
            Resolution::Fresh(digest) => (digest, false),
            Resolution::Stale(digest, _) => (digest, true),
            Resolution::Missing => return Err(missing()),
            Resolution::Denied(why) => {
                return Err(Failure::new(
                    Code::ManifestUnknown,
                    format!("{reference} of {repository}: {why}"),
                ));
            }
            Resolution::Failed(reason) => {
                let Some((digest, manifest)) = known else {
                    return Err(Failure::new(Code::Unavailable, reason));
                };
                let (place, what) = ((&repository, &reference), Served::of(&digest, &manifest));
                self.check_cached(project, place, what, request.client).await?;
                let mut response = self.show_manifest(&request, &digest, manifest, freshness)?;
                set(&mut response, "warning", UNASKED);
                return Ok(response);
            }
            Resolution::NotPrimary | Resolution::Unrecorded => {
                return Err(Failure::new(
                    Code::Unavailable,
                    "the project's primary has just changed",
                ));
            }
        };
        // an edge keeps what the tag names along with the manifest
        let read = self.door.read(|records| {
            if let Reference::Tag(tag) = &reference {
                records.tag(&repository, tag)?;
            }
            records.manifest(&repository, &digest)
        });
        let (recorded, freshness) = read.await?;
        // it was cached a moment ago, at the project's primary
        let lost =
            || Failure::new(Code::Unavailable, "the manifest cannot be had right now; try again");
        let manifest = answered.manifest.or(recorded).ok_or_else(lost)?;
        self.proxies.caches().touch(&repository, &digest);
        let (place, what) = ((&repository, &reference), Served::of(&digest, &manifest));
        self.check_cached(project, place, what, request.client).await?;
        let mut response = self.show_manifest(&request, &digest, manifest, freshness)?;
        if stale {
            set(&mut response, "warning", UNASKED);
        }
        Ok(response)
    }

    /// Counts a pull that was answered with the manifest itself.
    fn saw_pull(
        &self,
        by: Actor,
        repository: &RepositoryName,
        reference: &Reference,
        answered: &Result<Response<Payload>, Failure>,
    ) {
        if answered.as_ref().is_ok_and(|answer| answer.status() == StatusCode::OK) {
            let sign = if matches!(reference, Reference::Tag(_)) { ':' } else { '@' };
            let digest = answered.as_ref().ok().and_then(|answer| {
                answer.headers().get("docker-content-digest")?.to_str().ok()?.parse().ok()
            });
            let shown = format!("{sign}{reference}");
            self.witness.saw_pull(by, repository, &shown, digest.as_ref());
        }
    }

    pub(super) async fn put_manifest(
        &self,
        mut request: Request,
        repository: RepositoryName,
        reference: Reference,
    ) -> Result<Response<Payload>, Failure> {
        let check = async {
            let admitted =
                self.door.admit(&request, Action::Push, &repository, |_, _| Ok(())).await?;
            refuse_proxy(&admitted.project)?;
            if request.content_length().is_some_and(|n| n > self.terms.max_manifest) {
                let message = format!(
                    "a manifest may have {} bytes (uploads.max_manifest)",
                    self.terms.max_manifest
                );
                return Err(Failure::new(Code::TooLarge, message));
            }
            let named =
                request.tags().iter().map(|t| t.parse::<Tag>()).collect::<Result<Vec<_>, _>>();
            named.map_err(|e| Failure::new(Code::TagInvalid, e.to_string()))
        };
        let mut tags = check.await.map_err(|failure| failure.closing_unless_read(&request))?;
        let bytes = request.body.whole(self.terms.max_manifest).await?;
        // decided again: a body may come slowly, and its sender may have lost the right by now
        let admitted = self.door.admit(&request, Action::Push, &repository, |_, _| Ok(())).await?;
        refuse_proxy(&admitted.project)?;
        let manifest = Manifest::parse(request.content_type(), &bytes)
            .map_err(|e| Failure::new(Code::ManifestInvalid, e.to_string()))?;
        let digest = match &reference {
            Reference::Digest(digest) => {
                let actual = Digest::of(digest.algorithm(), &bytes);
                if actual != *digest {
                    let message = format!("the manifest hashes to {actual}, not to {digest}");
                    return Err(Failure::new(Code::DigestInvalid, message));
                }
                *digest
            }
            Reference::Tag(_) => {
                match request.query("digest").map(str::parse::<Digest>).transpose()? {
                    Some(digest) if Digest::of(digest.algorithm(), &bytes) == digest => digest,
                    Some(digest) => {
                        let message = format!("the manifest does not hash to {digest}");
                        return Err(Failure::new(Code::DigestInvalid, message));
                    }
                    None => Digest::sha256(&bytes),
                }
            }
        };
        let asked_tags = tags.clone();
        if let Reference::Tag(tag) = &reference {
            tags.push(tag.clone());
        }
        // copies that began with the uploads end at about this time, and waiting for them is
        // cheaper than copying again
        self.uploads
            .sessions
            .settled(manifest.all_blobs().map(|blob| blob.digest), self.terms.replicate)
            .await;
        let pushed = Pushed {
            repository: repository.clone(),
            digest,
            media_type: manifest.media_type,
            bytes: bytes.to_vec(),
            tags,
        };
        let kind = match conditional::precondition(&request.head.headers, &reference) {
            Some(precondition) => WriteKind::PutManifestIf(Box::new(precondition), pushed),
            None => WriteKind::PutManifest(pushed),
        };
        let by = actor(&admitted.caller, &request);
        self.writes.commit(&repository.project(), kind, &by).await?;
        let mut response = answer(StatusCode::CREATED);
        set(&mut response, "location", format!("/v2/{repository}/manifests/{digest}"));
        set(&mut response, "docker-content-digest", digest.to_string());
        if let Some(subject) = manifest.subject {
            set(&mut response, "oci-subject", subject.to_string());
        }
        for tag in &asked_tags {
            if let Ok(value) = HeaderValue::from_str(tag.as_str()) {
                response.headers_mut().append("oci-tag", value);
            }
        }
        Ok(response)
    }

    pub(super) async fn delete_manifest(
        &self,
        request: Request,
        repository: RepositoryName,
        reference: Reference,
    ) -> Result<Response<Payload>, Failure> {
        let admitted = self.door.admit(&request, Action::Delete, &repository, |records, _| {
            Ok(match &reference {
                Reference::Digest(digest) => Some(*digest),
                Reference::Tag(tag) => records.tag(&repository, tag)?.map(|tag| tag.digest),
            })
        });
        let Admitted { caller, project, found: named, .. } = admitted.await?;
        let by = actor(&caller, &request);
        let precondition = conditional::precondition(&request.head.headers, &reference);
        let change = match (precondition, &reference) {
            (Some(precondition), _) => Change::DeleteIf {
                repository: repository.clone(),
                precondition: Box::new(precondition),
            },
            (None, Reference::Tag(tag)) => {
                Change::DeleteTag { repository: repository.clone(), tag: tag.clone() }
            }
            (None, Reference::Digest(digest)) => {
                Change::DeleteManifest { repository: repository.clone(), digest: *digest }
            }
        };
        let mut forgotten = false;
        if project.upstream.is_some() && self.proxies.caches().are_used() {
            if let Some(precondition) = conditional::precondition(&request.head.headers, &reference)
                && !precondition.holds(named.as_ref())
            {
                return Err(Refusal::Precondition.into());
            }
            forgotten = self.proxies.caches().forget(&repository, &reference).await;
        }
        match self.writes.commit(&repository.project(), WriteKind::Fenced(change), &by).await {
            Ok(_) => Ok(answer(StatusCode::ACCEPTED)),
            Err(Refusal::NotFound) if forgotten => Ok(answer(StatusCode::ACCEPTED)),
            Err(Refusal::NotFound) => Err(Failure::new(
                Code::ManifestUnknown,
                format!("repository {repository} has no manifest {reference}"),
            )),
            Err(refusal) => Err(refusal.into()),
        }
    }
}

/// A manifest for the client, if its conditions are met. The caller has already been admitted, so
/// the conditions reveal nothing.
fn show(
    request: &Request,
    digest: &Digest,
    media_type: &str,
    bytes: Bytes,
) -> Result<Response<Payload>, Failure> {
    let verdict = conditional::verdict(&request.head.headers, &digest.to_string());
    if verdict == Condition::Failed {
        return Err(condition_failed(digest));
    }
    metrics::counter!("atoll_manifest_pulls_total").increment(1);
    let mut response = answer(StatusCode::OK);
    set(&mut response, "docker-content-digest", digest.to_string());
    set(&mut response, "etag", format!("\"{digest}\""));
    if verdict == Condition::NotModified {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    set(&mut response, "content-type", media_type);
    response.headers_mut().insert(header::CONTENT_LENGTH, (bytes.len() as u64).into());
    *response.body_mut() = match request.method {
        Method::HEAD => Payload::empty(),
        _ => Payload::full(bytes),
    };
    Ok(response)
}
