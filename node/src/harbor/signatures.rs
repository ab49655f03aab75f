//! Who has signed an image, and whom its project trusts: `../accessories` as in Harbor, and what
//! Harbor has not: signers, verified signatures, exemptions, and what a policy would refuse.

use ground::clock;
use http::{Response, StatusCode};
use registry::writes::Refusal;
use rules::ledger::events::Actor;
use rules::ledger::level::Level;
use rules::ledger::policies::LookForPolicies;
use rules::ledger::records::{Project, ReadRecords, RecordError, TagRecord, decode, key};
use rules::ledger::signatures::{KEEPS_ITS_KEY, LookForSignatures, SignatureChange, check_signer};
use rules::policies::selectors::Pattern;
use rules::policies::signatures::{
    Anchor, By, Context, Decision, Exemption, Format, Mode, Policy, Seen, Signer, State, counts,
    decide, exempting, is_required, metadata, without,
};
use rules::words::digest::Digest;
use rules::words::fallback::Fallback;
use rules::words::moment::Timestamp;
use rules::words::names::{Reference, RepositoryName, Tag};
use serde::Deserialize;
use serde_json::{Value, json};

use super::lists::PageRequest;
use super::stored::missing;
use super::{Harbor, bad, body, created};
use crate::http::answer::{answer, json_answer};
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthorityBody {
    certificates: String,
    #[serde(default)]
    timestamps: String,
    #[serde(default)]
    subjects: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeylessBody {
    certificates: String,
    #[serde(default)]
    rekor: String,
    issuer: String,
    subject: String,
}

/// A signer as it is written. What is left out stays as it is, or as it is by default.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignerBody {
    name: Option<String>,
    key: Option<String>,
    authority: Option<AuthorityBody>,
    keyless: Option<KeylessBody>,
    formats: Option<Vec<String>>,
    predicates: Option<Vec<String>>,
    repositories: Option<String>,
    tags: Option<String>,
    /// Seconds since 1970; 0: none.
    not_before: Option<u64>,
    not_after: Option<u64>,
    state: Option<String>,
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExemptionBody {
    reason: String,
    /// Seconds since 1970.
    until: u64,
}

impl SignerBody {
    fn anchor(&self) -> Result<Option<Anchor>, Failure> {
        let read = match (&self.key, &self.authority, &self.keyless) {
            (None, None, None) => return Ok(None),
            (Some(pem), None, None) => sign::anchor::key(pem),
            (None, Some(one), None) => {
                sign::anchor::authority(&one.certificates, &one.timestamps, &one.subjects)
            }
            (None, None, Some(one)) => {
                sign::anchor::keyless(&one.certificates, &one.rekor, &one.issuer, &one.subject)
            }
            _ => return Err(bad("a signer has one of key, authority and keyless")),
        };
        read.map(Some).map_err(|why| bad(why.to_string()))
    }

    /// What `signer` becomes.
    fn change(&self, signer: &mut Signer) -> Result<(), Failure> {
        if let Some(anchor) = self.anchor()? {
            signer.anchor = anchor;
        }
        if let Some(formats) = &self.formats {
            let read = formats.iter().map(|one| one.parse::<Format>());
            signer.formats = read.collect::<Result<_, _>>().map_err(bad)?;
        }
        if let Some(predicates) = &self.predicates {
            signer.predicates.clone_from(predicates);
        }
        let pattern = |text: &str| match text {
            "" => Ok(None),
            text => Pattern::new(text).map(Some).map_err(|why| bad(why.to_string())),
        };
        if let Some(text) = &self.repositories {
            signer.repositories = pattern(text)?;
        }
        if let Some(text) = &self.tags {
            signer.tags = pattern(text)?;
        }
        let time = |seconds: u64| match seconds {
            0 => None,
            seconds => Some(Timestamp(seconds.saturating_mul(1000))),
        };
        if let Some(seconds) = self.not_before {
            signer.not_before = time(seconds);
        }
        if let Some(seconds) = self.not_after {
            signer.not_after = time(seconds);
        }
        let why = self.reason.clone().unwrap_or_default();
        let revoked = |compromised| State::Revoked { at: Timestamp(0), compromised, why };
        match self.state.as_deref() {
            None if self.reason.is_some() => return Err(bad("a reason goes with a state")),
            None => {}
            Some("pending") => signer.state = State::Pending,
            Some("active") => signer.state = State::Active,
            Some("verify-only") => signer.state = State::VerifyOnly,
            Some("superseded") => signer.state = revoked(false),
            Some("compromised") => signer.state = revoked(true),
            Some(_) => {
                return Err(bad(
                    "the state of a signer is pending, active, verify-only, superseded or compromised",
                ));
            }
        }
        check_signer(signer).map_err(bad)
    }
}

fn seconds(time: Option<Timestamp>) -> Value {
    time.map_or(Value::Null, |time| (time.0 / 1000).into())
}

fn show_signer(signer: &Signer) -> Value {
    let mut shown = json!({
        "name": signer.name,
        "formats": signer.formats.iter().map(|one| one.as_str()).collect::<Vec<_>>(),
        "predicates": signer.predicates,
        "repositories": signer.repositories.as_ref().map_or("", Pattern::written),
        "tags": signer.tags.as_ref().map_or("", Pattern::written),
        "not_before": seconds(signer.not_before),
        "not_after": seconds(signer.not_after),
        "state": signer.state.as_str(),
    });
    if let State::Revoked { at, why, .. } = &signer.state {
        shown["revoked_at"] = (at.0 / 1000).into();
        shown["reason"] = why.as_str().into();
    }
    match &signer.anchor {
        Anchor::Key { id, pem } => {
            shown["id"] = id.to_string().into();
            shown["key"] = pem.as_str().into();
        }
        Anchor::Authority { ids, pem, timestamps, subjects } => {
            shown["authority"] = json!({
                "ids": ids.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "certificates": pem,
                "timestamps": timestamps,
                "subjects": subjects,
            });
        }
        Anchor::Keyless { ids, pem, rekor, issuer, subject } => {
            shown["keyless"] = json!({
                "ids": ids.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "certificates": pem,
                "rekor": rekor,
                "issuer": issuer,
                "subject": subject,
            });
        }
    }
    shown
}

/// Who has signed, in words.
fn show_by(by: &By, signers: &[Signer]) -> Value {
    let names: Vec<&str> =
        signers.iter().filter(|one| one.is(by)).map(|one| one.name.as_str()).collect();
    match by {
        By::Unknown { hint } => {
            json!({"kind": "unknown", "hint": hint.map(|hint| hint.to_string())})
        }
        By::Key(id) => json!({"kind": "key", "id": id.to_string(), "signers": names}),
        By::Certificate { root, subject } => json!({
            "kind": "certificate", "id": root.to_string(), "subject": subject, "signers": names
        }),
        By::Identity { root, issuer, subject } => json!({
            "kind": "identity", "id": root.to_string(), "issuer": issuer, "subject": subject,
            "signers": names
        }),
    }
}

/// A signature, and whether it counts under `policy` now.
fn show_seen(seen: &Seen, policy: &Policy, signers: &[Signer], context: &Context<'_>) -> Value {
    let one = &seen.signature;
    let judged = counts(policy, signers, seen, context);
    json!({
        "format": one.format.as_str(),
        "by": show_by(&one.by, signers),
        "counts": judged.is_ok(),
        "why_not": judged.err(),
        "predicate_type": one.predicate,
        "reference": one.reference,
        "signed_at": one.signed.map(|at| at.to_string()),
        "expires_at": one.until.map(|at| at.to_string()),
        "first_seen": seen.at.to_string(),
        "payload": one.payload.to_string(),
        "claims": one.claims,
    })
}

impl Harbor {
    pub(super) async fn list_signers(
        &self,
        request: &Request,
        project: &Project,
    ) -> Result<Response<Payload>, Failure> {
        let wanted = PageRequest::pages(request)?;
        let signers = self.read(|records| records.trusted(project.id)).await?.signers;
        Ok(wanted.answer(&signers, |signer| &signer.name, show_signer))
    }

    pub(super) async fn show_one_signer(
        &self,
        project: &Project,
        name: &str,
    ) -> Result<Response<Payload>, Failure> {
        let signer = self.signer(project, name).await?;
        Ok(json_answer(StatusCode::OK, &show_signer(&signer)))
    }

    async fn signer(&self, project: &Project, name: &str) -> Result<Signer, Failure> {
        let signers = self.read(|records| records.trusted(project.id)).await?.signers;
        signers.into_iter().find(|signer| signer.name == name).ok_or_else(|| {
            Failure::new(Code::NotFound, format!("project {} has no signer {name}", project.name))
        })
    }

    pub(super) async fn add_signer(
        &self,
        mut request: Request,
        project: &Project,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let written: SignerBody = body(&mut request).await?;
        self.writes.check_level(match project.upstream {
            None => Level::SIGNATURES,
            Some(_) => Level::CACHED_SIGNATURES,
        })?;
        let Some(name) = written.name.clone() else { return Err(bad("a signer has a name")) };
        let Some(anchor) = written.anchor()? else {
            return Err(bad("a signer has one of key, authority and keyless"));
        };
        let mut signer = Signer {
            name: name.clone(),
            anchor,
            formats: Vec::new(),
            predicates: Vec::new(),
            repositories: None,
            tags: None,
            logged: false,
            not_before: None,
            not_after: None,
            state: State::Active,
        };
        written.change(&mut signer)?;
        self.keep_signer(project, signer, true, by).await?;
        Ok(created(Some(format!("/api/v2.0/projects/{}/signers/{name}", project.id.0))))
    }

    pub(super) async fn change_signer(
        &self,
        mut request: Request,
        project: &Project,
        name: &str,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let written: SignerBody = body(&mut request).await?;
        let mut signer = self.signer(project, name).await?;
        if written.name.as_ref().is_some_and(|new| new != name) {
            return Err(bad("a signer keeps its name: policies name it"));
        }
        let before = signer.clone();
        written.change(&mut signer)?;
        if before.state.is_compromised() && !signer.state.is_compromised() {
            return Err(bad("a signer that is compromised stays so; add another one"));
        }
        if before.state.is_compromised() && before.anchor != signer.anchor {
            return Err(bad(KEEPS_ITS_KEY));
        }
        self.keep_signer(project, signer, false, by).await?;
        Ok(answer(StatusCode::OK))
    }

    async fn keep_signer(
        &self,
        project: &Project,
        signer: Signer,
        new: bool,
        by: &Actor,
    ) -> Result<(), Failure> {
        let name = signer.name.clone();
        match self.signatures.set_signer(&project.name, signer, new, by).await {
            Ok(()) => Ok(()),
            Err(Refusal::Exists) => Err(Failure::new(
                Code::Conflict,
                format!("project {} has a signer {name} already", project.name),
            )),
            Err(Refusal::NotFound) => Err(Failure::new(
                Code::NotFound,
                format!("project {} has no signer {name}", project.name),
            )),
            Err(Refusal::Conflict(why)) => Err(bad(why)),
            Err(refusal) => Err(refusal.into()),
        }
    }

    pub(super) async fn remove_signer(
        &self,
        project: &Project,
        name: &str,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let signers = self.read(|records| records.trusted(project.id)).await?.signers;
        let required = project.metadata.get(metadata::REQUIRE);
        if required.is_some_and(|text| is_required(text, &signers, name)) {
            let (project, key) = (&project.name, metadata::REQUIRE);
            return Err(Failure::new(
                Code::Conflict,
                format!(
                    "{key} of project {project} names the signer {name}: nothing would have its signature any more. Take it out of that first: atoll project set {project} {key}=..."
                ),
            ));
        }
        let (project, name) = (project.name.clone(), name.to_owned());
        let change = SignatureChange::RemoveSigner { project, name };
        match self.signatures.commit(change, by).await {
            Ok(_) => Ok(answer(StatusCode::OK)),
            Err(Refusal::NotFound) => Err(missing("the signer")),
            Err(Refusal::Conflict(why)) => Err(bad(why)),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// The signatures of an artifact, and whether each counts.
    pub(super) async fn show_signatures(
        &self,
        project: &Project,
        name: &RepositoryName,
        reference: &Reference,
    ) -> Result<Response<Payload>, Failure> {
        let digest = self.digest_of(name, reference).await?;
        let policy = Policy::of(&project.metadata).unwrap_or(Policy::NOTHING);
        let by_digest = matches!(reference, Reference::Digest(_)) && project.upstream.is_none();
        let look = |records: &dyn ReadRecords| match by_digest {
            true => records.signature_facts_by_digest(project.id, name, &digest),
            false => records.signature_facts(project.id, name, &digest),
        };
        let facts = self.read(look).await?;
        let tag = match reference {
            Reference::Tag(tag) => Some(tag),
            Reference::Digest(_) => None,
        };
        let (pushed, now) = (Timestamp(0), clock::timestamp());
        let cached = project.upstream.is_some();
        let tags = facts.tags();
        let context = Context { repository: name, cached, tag, tags, pushed, now };
        let show = |seen: &Seen| show_seen(seen, &policy, &facts.signers, &context);
        let evidence = facts.own.evidence.iter().map(|one| {
            json!({
                "digest": one.manifest.to_string(),
                "tag": one.tag.as_ref().map(ToString::to_string),
                "signatures": one.signatures.iter().map(show).collect::<Vec<_>>(),
            })
        });
        let inherited = facts.own.parents.iter().zip(&facts.parents).filter(|_| policy.children);
        let inherited = inherited.map(|(digest, record)| {
            let signatures = record.evidence.iter().flat_map(|one| &one.signatures).map(show);
            json!({
                "index": digest.to_string(),
                "signatures": signatures.collect::<Vec<_>>(),
            })
        });
        let exempt = exempting(&facts.own, &facts.parents, now);
        // one that has ended is told of, too
        let exempt = exempt.or_else(|| facts.own.exempt.as_ref().map(|own| (None, own)));
        let exempt = exempt.map(|(index, exemption)| {
            let index = index.and_then(|at| facts.own.parents.get(at));
            json!({
                "index": index.map(ToString::to_string),
                "until": exemption.until.to_string(),
                "reason": exemption.why,
                "by": exemption.by,
                "ended": now >= exemption.until,
            })
        });
        let shown = json!({
            "artifact": format!("{name}@{digest}"),
            "policy": policy.mode.as_str(),
            "artifacts": evidence.collect::<Vec<_>>(),
            "inherited": inherited.collect::<Vec<_>>(),
            "exemption": exempt,
        });
        Ok(json_answer(StatusCode::OK, &shown))
    }

    /// What the project would refuse now if it enforced its policy, the most recently pulled first:
    /// to be looked at before it does. With `without`, only what it would refuse for losing this
    /// signer (`compromised`: for that, and not for its removal).
    pub(super) async fn list_unsigned(
        &self,
        request: &Request,
        project: &Project,
    ) -> Result<Response<Payload>, Failure> {
        let mut policy = Policy::of(&project.metadata).unwrap_or(Policy::NOTHING);
        policy.mode = Mode::Enforce;
        let since = match request.query("pulled_within_days") {
            None => None,
            Some(text) => {
                let days = text.parse::<u64>().ok().filter(|days| (1..=3650).contains(days));
                let days = days.ok_or_else(|| bad("pulled_within_days is 1 to 3650"))?;
                Some(clock::timestamp().0.saturating_sub(days * 86_400_000))
            }
        };
        let compromised = request.query("compromised") == Some("true");
        let lost = match request.query("without") {
            Some(name) => {
                self.signer(project, name).await?;
                Some((name, compromised))
            }
            None => None,
        };
        let look = |records: &dyn ReadRecords| would_refuse(records, project, &policy, since, lost);
        let (looked, mut refused) = self.read_at_length(look).await?;
        refused.sort_by_key(|one| std::cmp::Reverse(one.pulled));
        let total = refused.len();
        let shown: Vec<Value> = refused.iter().take(UNSIGNED).map(Refused::show).collect();
        let answer = json!({
            "artifacts": looked,
            "refused_in_all": total,
            "refused": shown,
        });
        Ok(json_answer(StatusCode::OK, &answer))
    }

    pub(super) async fn exempt(
        &self,
        mut request: Request,
        name: &RepositoryName,
        reference: &Reference,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let written: ExemptionBody = body(&mut request).await?;
        let digest = by_digest(reference)?;
        let exemption = Exemption {
            until: Timestamp(written.until.saturating_mul(1000)),
            why: written.reason,
            by: by.name.clone(),
        };
        self.change_exemption(name, digest, Some(exemption), by).await
    }

    pub(super) async fn end_exemption(
        &self,
        name: &RepositoryName,
        reference: &Reference,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        self.change_exemption(name, by_digest(reference)?, None, by).await
    }

    async fn change_exemption(
        &self,
        name: &RepositoryName,
        digest: Digest,
        exemption: Option<Exemption>,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        match self.signatures.exempt(name, digest, exemption, by).await {
            Ok(Some(listed)) => Ok(json_answer(StatusCode::OK, &json!({ "listed": listed }))),
            Ok(None) => Ok(answer(StatusCode::OK)),
            Err(Refusal::NotFound) => {
                Err(missing(&format!("artifact {name}@{digest}, or an exemption of it,")))
            }
            Err(Refusal::Conflict(why)) => Err(bad(why)),
            Err(refusal) => Err(refusal.into()),
        }
    }
}

/// The maximum number of artifacts that are shown of those that would be refused.
const UNSIGNED: usize = 500;

/// A tagged artifact that would be refused.
struct Refused {
    artifact: String,
    tag: String,
    pulled: Option<Timestamp>,
    why: String,
}

impl Refused {
    fn show(&self) -> Value {
        json!({
            "artifact": self.artifact,
            "tag": self.tag,
            "pulled_at": self.pulled.map(|at| at.to_string()),
            "why": self.why,
        })
    }
}

/// What of a project's tags would be refused under `policy`, and how many were looked at. With
/// `since`, only what was pulled after that. With the name of a signer that is lost, and whether it is
/// compromised, only what would be refused for that.
fn would_refuse(
    records: &dyn ReadRecords,
    project: &Project,
    policy: &Policy,
    since: Option<u64>,
    lost: Option<(&str, bool)>,
) -> Result<(usize, Vec<Refused>), RecordError> {
    let (mut looked, mut refused, now) = (0, Vec::new(), clock::timestamp());
    let cached = project.upstream.is_some();
    for (place, _) in records.scan(&key::repositories_of(&project.name), None, usize::MAX)? {
        let Ok(repository) = key::name_of(&place).parse::<RepositoryName>() else { continue };
        for (place, record) in records.scan(&key::tags(&repository), None, usize::MAX)? {
            let Ok(tag) = key::tag_of(&place).parse::<Tag>() else { continue };
            if Fallback::of(&tag).is_some() {
                continue;
            }
            let digest = decode::<TagRecord>(&record)?.digest;
            let pulled = records.pulled(&repository, &digest)?;
            if since.is_some_and(|since| pulled.is_none_or(|at| at.0 < since)) {
                continue;
            }
            looked += 1;
            let facts = records.signature_facts(project.id, &repository, &digest)?;
            let tag = Some(&tag);
            let pushed = Timestamp(0);
            let context = Context { repository: &repository, cached, tag, tags: &[], pushed, now };
            let by =
                |signers: &[Signer]| decide(policy, signers, &facts.own, &facts.parents, &context);
            let decision = match (by(&facts.signers), lost) {
                (now, None) => now,
                // it is refused already
                (Decision::Refuse(_), Some(_)) => continue,
                (_, Some((name, compromised))) => by(&without(&facts.signers, name, compromised)),
            };
            if let (Decision::Refuse(why), Some(tag)) = (decision, tag) {
                refused.push(Refused {
                    artifact: format!("{repository}@{digest}"),
                    tag: tag.to_string(),
                    pulled,
                    why: why.to_string(),
                });
            }
        }
    }
    Ok((looked, refused))
}

/// An exemption is of bytes: a tag could move.
fn by_digest(reference: &Reference) -> Result<Digest, Failure> {
    match reference {
        Reference::Digest(digest) => Ok(*digest),
        Reference::Tag(_) => Err(bad("name the artifact by its digest: a tag may move")),
    }
}
