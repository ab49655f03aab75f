//! `/api/v2.0/registries`: upstreams, in Harbor's schemas and statuses. Secrets are written and
//! never shown.

use http::{HeaderValue, Response, StatusCode, header};
use mesh::secrets::{SecretError, Secrets};
use rules::ledger::command::Command;
use rules::ledger::events::Actor;
use rules::ledger::records::{Look, UpstreamRecord, key};
use rules::words::moment::Timestamp;
use rules::words::names::{OperationId, UpstreamId};
use rules::words::query::{self, Field, Kind, number, text};
use rules::words::secret::Secret;
use serde::Deserialize;
use serde_json::{Value, json};

use super::lists::PageRequest;
use super::{Harbor, bad, body};
use crate::http::answer::json_answer;
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};
use registry::upstreams::endpoint;
use registry::writes::{Refusal, settle};
use upstream::ecr;

/// The maximum length of a description in bytes.
const DESCRIPTION: usize = 1024;
/// Shown instead of a secret. If a client sends it back, it means the known secret.
const HIDDEN: &str = "*****";

#[derive(Deserialize)]
struct RegistryBody {
    name: String,
    url: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    insecure: bool,
    credential: Option<Credential>,
}

/// Harbor's own form of a change is flat. Terraform's provider sends the form in which registries
/// are created.
#[derive(Deserialize)]
struct RegistryChange {
    name: Option<String>,
    url: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    description: Option<String>,
    access_key: Option<String>,
    access_secret: Option<Secret>,
    credential_type: Option<String>,
    #[serde(default)]
    insecure: bool,
    credential: Option<Credential>,
}

/// A registry to be asked: a recorded one by its number, with what is to change, or a new one.
#[derive(Deserialize)]
struct PingBody {
    id: Option<u64>,
    #[serde(flatten)]
    change: RegistryChange,
}

#[derive(Deserialize, Default)]
struct Credential {
    #[serde(rename = "type")]
    kind: Option<String>,
    access_key: Option<String>,
    access_secret: Option<Secret>,
}

impl RegistryChange {
    /// The credential, in whichever form it was sent.
    fn credential(&mut self) -> Credential {
        let nested = self.credential.take().unwrap_or_default();
        Credential {
            kind: self.credential_type.take().or(nested.kind),
            access_key: self.access_key.take().or(nested.access_key),
            access_secret: self
                .access_secret
                .take()
                .or(nested.access_secret)
                .filter(|secret| secret.expose() != HIDDEN),
        }
    }
}

/// Checks what a registry must satisfy. The error is a sentence.
fn check(name: &str, kind: &str, url: &str, description: &str, user: &str) -> Result<(), Failure> {
    if name.is_empty() || name.len() > 128 {
        return Err(bad("name has 1 to 128 characters"));
    }
    if description.len() > DESCRIPTION {
        return Err(bad(format!("description has at most {DESCRIPTION} bytes")));
    }
    exchange(kind, url, user).map(|_| ())
}

/// Whether `user` is an access key that is exchanged for passwords, so that its secret is not sent
/// to any registry.
fn exchange(kind: &str, url: &str, user: &str) -> Result<bool, Failure> {
    let endpoint = endpoint(kind, url).map_err(|e| bad(format!("url: {e}")))?;
    if user.is_empty() {
        return Ok(false);
    }
    ecr::api(kind, &endpoint, user).map(|api| api.is_some()).map_err(|e| bad(format!("url: {e}")))
}

fn check_type(credential: &Credential) -> Result<(), Failure> {
    match credential.kind.as_deref() {
        None | Some("" | "basic") => Ok(()),
        Some(other) => {
            Err(bad(format!("credentials of type {other} are not supported, only basic ones")))
        }
    }
}

/// Harbor's `insecure` disables the check of certificates. With an http:// URL there is no
/// certificate, and Terraform sets it there, so it is allowed.
fn check_secure(insecure: bool, url: &str) -> Result<(), Failure> {
    let plain =
        url.trim_start().get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http://"));
    if insecure && !plain {
        let message = "insecure is not supported: certificates are always checked; name the registry's own CA in the setting upstreams.ca";
        return Err(bad(message));
    }
    Ok(())
}

/// A key that is still to come is no fault: the client may try again.
pub(super) fn sealing(error: SecretError) -> Failure {
    let code = match error {
        SecretError::NotHere(_) => Code::Unavailable,
        SecretError::NoKey | SecretError::Damaged => Code::Internal,
    };
    Failure::new(code, error.to_string())
}

/// The record `was` after `change`. Fields that are not given stay. A secret is sealed for its
/// registry's name, so a new name needs a new seal.
fn changed(
    secrets: &Secrets,
    was: &UpstreamRecord,
    mut change: RegistryChange,
) -> Result<UpstreamRecord, Failure> {
    check_secure(change.insecure, change.url.as_deref().unwrap_or(&was.url))?;
    let credential = change.credential();
    check_type(&credential)?;
    let mut becomes = UpstreamRecord {
        name: change.name.unwrap_or_else(|| was.name.clone()),
        kind: change.kind.unwrap_or_else(|| was.kind.clone()),
        url: change.url.unwrap_or_else(|| was.url.clone()),
        description: change.description.unwrap_or_else(|| was.description.clone()),
        ..was.clone()
    };
    let known = was.credentials.as_ref();
    let user =
        credential.access_key.or_else(|| known.map(|(user, _)| user.clone())).unwrap_or_default();
    check(&becomes.name, &becomes.kind, &becomes.url, &becomes.description, &user)?;
    becomes.credentials = match (credential.access_secret, known) {
        (Some(secret), _) if user.is_empty() && !secret.expose().is_empty() => {
            return Err(bad("access_secret needs an access_key"));
        }
        _ if user.is_empty() => None,
        (Some(secret), _) => {
            Some((user, secrets.seal(&becomes.name, secret.expose()).map_err(sealing)?))
        }
        (None, None) => return Err(bad("access_key needs an access_secret")),
        (None, Some((before, sealed))) => {
            let exchanged = exchange(&was.kind, &was.url, before)?;
            if exchanged && !exchange(&becomes.kind, &becomes.url, &user)? {
                return Err(bad(
                    "access_secret is needed: the known one belongs to an AWS access key, which is not sent to registries",
                ));
            }
            // a user who may change the address must not learn the secret by it
            if !exchanged && !same_address(was, &becomes) {
                return Err(bad(
                    "access_secret is needed: with another scheme, host or port the known one would be sent to another server",
                ));
            }
            let sealed = if becomes.name == was.name {
                sealed.clone()
            } else {
                let secret = secrets
                    .open(&was.name, sealed)
                    .map_err(|e| bad(format!("access_secret is needed: {e}")))?;
                secrets.seal(&becomes.name, secret.expose()).map_err(sealing)?
            };
            Some((user, sealed))
        }
    };
    Ok(becomes)
}

/// Whether two records lead to the same server, so that the same secret may be sent.
fn same_address(one: &UpstreamRecord, other: &UpstreamRecord) -> bool {
    let endpoint = |record: &UpstreamRecord| endpoint(&record.kind, &record.url).ok();
    match (endpoint(one), endpoint(other)) {
        (Some(one), Some(other)) => one.is_at(&other),
        _ => false,
    }
}

fn show(upstream: &UpstreamRecord) -> Value {
    let user = upstream.credentials.as_ref().map_or("", |(user, _)| user.as_str());
    json!({
        "id": upstream.id.0,
        "name": upstream.name,
        "type": upstream.kind,
        "url": upstream.url,
        "description": upstream.description,
        "insecure": false,
        "credential": {"type": "basic", "access_key": user, "access_secret": if user.is_empty() { "" } else { HIDDEN }},
        "creation_time": upstream.created.to_string(),
    })
}

/// What `q` and `sort` may be about.
const FIELDS: &[Field<UpstreamRecord>] = &[
    Field::new("name", Kind::Text, |upstream| text(&upstream.name)),
    Field::new("id", Kind::Number, |upstream| number(upstream.id.0)),
    Field::new("type", Kind::Text, |upstream| text(&upstream.kind)),
    Field::new("url", Kind::Text, |upstream| text(&upstream.url)),
    Field::new("creation_time", Kind::Time, |upstream| query::Value::Time(upstream.created)),
];

impl Harbor {
    pub(super) async fn list_registries(
        &self,
        request: &Request,
    ) -> Result<Response<Payload>, Failure> {
        let wanted = PageRequest::read(request)?;
        let upstreams = self.read(|records| records.upstreams()).await?;
        wanted.answer_chosen(upstreams, FIELDS, |upstream| &upstream.name, show)
    }

    /// Asks a registry whether it answers and takes its credentials: one that is recorded, perhaps
    /// with changes, or one that is not recorded yet (Harbor's `registries/ping`).
    pub(super) async fn ping_registry(
        &self,
        mut request: Request,
    ) -> Result<Response<Payload>, Failure> {
        let PingBody { id, change } = body(&mut request).await?;
        let was = match id.filter(|id| *id != 0).map(UpstreamId) {
            Some(id) => {
                let found = self.read(|records| records.record(&key::upstream(id))).await?;
                found.ok_or_else(|| missing(id))?
            }
            None => UpstreamRecord {
                id: UpstreamId(0),
                name: "a registry that is not recorded".into(),
                kind: change.kind.clone().unwrap_or_else(|| "docker-registry".into()),
                url: change.url.clone().ok_or_else(|| bad("url or id is needed"))?,
                description: String::new(),
                credentials: None,
                created: Timestamp(0),
            },
        };
        let record = changed(&self.secrets, &was, change)?;
        match self.upstreams.ping(&record).await {
            Ok(()) => Ok(Response::new(Payload::empty())),
            Err(error) => Err(bad(format!("the registry is not well: {error}"))),
        }
    }

    pub(super) async fn show_registry(&self, id: UpstreamId) -> Result<Response<Payload>, Failure> {
        let upstream =
            self.read(|records| records.record::<UpstreamRecord>(&key::upstream(id))).await?;
        let upstream = upstream.ok_or_else(|| missing(id))?;
        Ok(json_answer(StatusCode::OK, &show(&upstream)))
    }

    pub(super) async fn create_registry(
        &self,
        mut request: Request,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let written: RegistryBody = body(&mut request).await?;
        check_secure(written.insecure, &written.url)?;
        let credential = written.credential.unwrap_or_default();
        check_type(&credential)?;
        let user = credential.access_key.unwrap_or_default();
        check(&written.name, &written.kind, &written.url, &written.description, &user)?;
        self.writes.ready().await?;
        let secret = credential.access_secret.unwrap_or_default();
        let seal = || self.secrets.seal(&written.name, secret.expose()).map_err(sealing);
        let credentials = if user.is_empty() { None } else { Some((user, seal()?)) };
        let command = Command::CreateUpstream {
            name: written.name.clone(),
            kind: written.kind,
            url: written.url,
            description: written.description,
            credentials,
        };
        self.change(command, by).await.map_err(|refusal| taken(refusal, &written.name))?;
        let (upstreams, _) = self.records.read(|records| records.upstreams()).await?;
        let mut response = Response::new(Payload::empty());
        *response.status_mut() = StatusCode::CREATED;
        if let Some(made) = upstreams.iter().find(|u| u.name == written.name)
            && let Ok(location) =
                HeaderValue::from_str(&format!("/api/v2.0/registries/{}", made.id))
        {
            response.headers_mut().insert(header::LOCATION, location);
        }
        Ok(response)
    }

    pub(super) async fn change_registry(
        &self,
        mut request: Request,
        id: UpstreamId,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let change: RegistryChange = body(&mut request).await?;
        self.writes.ready().await?;
        let was = self.read(|records| records.record::<UpstreamRecord>(&key::upstream(id))).await?;
        let was = was.ok_or_else(|| missing(id))?;
        let becomes = changed(&self.secrets, &was, change)?;
        let name = becomes.name.clone();
        match self
            .change(Command::ChangeUpstream { was: Box::new(was), becomes: Box::new(becomes) }, by)
            .await
        {
            Ok(()) => Ok(Response::new(Payload::empty())),
            Err(Refusal::NotFound) => Err(missing(id)),
            Err(refusal) => Err(taken(refusal, &name)),
        }
    }

    pub(super) async fn delete_registry(
        &self,
        id: UpstreamId,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        self.writes.ready().await?;
        match self.change(Command::DeleteUpstream { id }, by).await {
            Ok(()) => Ok(Response::new(Payload::empty())),
            Err(Refusal::NotFound) => Err(missing(id)),
            Err(Refusal::Conflict(reason)) => Err(Failure::new(Code::Precondition, reason)),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Proposes a command that does not belong to a project.
    async fn change(&self, command: Command, by: &Actor) -> Result<(), Refusal> {
        let operation = OperationId(rand::random());
        let outcome = self.writes.propose(operation, command, by, self.terms.commit).await;
        let lost = |error| Refusal::Unavailable(self.neighbours.no_ledger(&error));
        settle(outcome.map_err(lost)?).map(|_| ())
    }
}

/// If the name is taken, says so.
fn taken(refusal: Refusal, name: &str) -> Failure {
    match refusal {
        Refusal::Exists => Failure::new(Code::Conflict, format!("registry {name} exists already")),
        refusal => refusal.into(),
    }
}

fn missing(id: UpstreamId) -> Failure {
    Failure::new(Code::NameUnknown, format!("there is no registry {id}"))
}

#[cfg(test)]
mod tests {
    use mesh::identity::Authority;
    use rules::words::moment::Timestamp;

    use super::*;

    fn change(written: Value) -> RegistryChange {
        serde_json::from_value(written).unwrap()
    }

    #[test]
    fn what_is_not_given_stays_and_a_secret_opens_under_its_registrys_name() {
        let secrets = Secrets::of(&Authority::generate().unwrap());
        let was = UpstreamRecord {
            id: UpstreamId(1),
            name: "hub".into(),
            kind: "docker-registry".into(),
            url: "https://example.com".into(),
            description: "ours".into(),
            credentials: Some(("robot".into(), secrets.seal("hub", "old").unwrap())),
            created: Timestamp(1),
        };
        let after = |written: Value| changed(&secrets, &was, change(written));
        let opened = |r: &UpstreamRecord| {
            let (user, sealed) = r.credentials.clone().unwrap();
            (user, secrets.open(&r.name, &sealed).unwrap())
        };
        let pair = |user: &str, secret: &str| (user.to_owned(), Secret::from(secret));

        assert_eq!(after(json!({})).unwrap(), was);
        let shown =
            json!({"access_key": "robot", "access_secret": HIDDEN, "credential_type": "basic"});
        assert_eq!(after(shown).unwrap(), was, "what is shown can be sent back");
        let flat = after(json!({"access_secret": "new", "credential_type": "basic"})).unwrap();
        assert_eq!(opened(&flat), pair("robot", "new"));
        assert_eq!(UpstreamRecord { credentials: was.credentials.clone(), ..flat }, was);
        let nested =
            json!({"credential": {"type": "basic", "access_key": "other", "access_secret": "new"}});
        assert_eq!(opened(&after(nested).unwrap()), pair("other", "new"));
        let renamed =
            after(json!({"name": "quay", "url": "https://example.com/quay", "description": ""}))
                .unwrap();
        assert_eq!(opened(&renamed), pair("robot", "old"));
        assert_eq!(
            (renamed.url.as_str(), renamed.description.as_str()),
            ("https://example.com/quay", "")
        );
        let moved =
            json!({"url": "https://quay.io", "access_key": "robot", "access_secret": "new"});
        assert_eq!(opened(&after(moved).unwrap()), pair("robot", "new"));
        assert_eq!(
            after(json!({"access_key": "", "access_secret": ""})).unwrap().credentials,
            None
        );

        for (wrong, word) in [
            (json!({"name": ""}), "name"),
            (json!({"url": "file:///etc/passwd"}), "url"),
            (json!({"description": "x".repeat(2000)}), "description"),
            (json!({"access_key": "", "access_secret": "new"}), "access_key"),
            (json!({"credential_type": "oauth"}), "oauth"),
            (json!({"insecure": true}), "upstreams.ca"),
            (json!({"type": "aws-ecr"}), "amazonaws"),
            // the known secret would be sent to another server
            (json!({"url": "https://evil.example"}), "access_secret"),
            (json!({"url": "http://example.com"}), "access_secret"),
            (json!({"url": "https://example.com:8443"}), "access_secret"),
            (json!({"type": "docker-hub", "url": "https://hub.docker.com"}), "access_secret"),
        ] {
            let refused = after(wrong.clone()).unwrap_err();
            assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{wrong}");
            assert!(format!("{refused:?}").contains(word), "{wrong}: {refused:?}");
        }
        let plain = json!({"insecure": true, "url": "http://example.com", "access_secret": "new"});
        assert!(after(plain).is_ok(), "there is no certificate to check");
        let bare = UpstreamRecord { credentials: None, ..was.clone() };
        assert!(changed(&secrets, &bare, change(json!({"access_key": "robot"}))).is_err());
    }

    #[test]
    fn the_secret_of_an_access_key_does_not_become_a_password() {
        let secrets = Secrets::of(&Authority::generate().unwrap());
        let was = UpstreamRecord {
            id: UpstreamId(1),
            name: "ecr".into(),
            kind: "aws-ecr".into(),
            url: "https://123456789012.dkr.ecr.eu-west-1.amazonaws.com".into(),
            description: String::new(),
            credentials: Some(("AKIDEXAMPLE".into(), secrets.seal("ecr", "key").unwrap())),
            created: Timestamp(1),
        };
        let elsewhere = json!({"type": "docker-registry", "url": "https://example.com"});
        assert!(changed(&secrets, &was, change(elsewhere)).is_err());
        let region = json!({"url": "https://123456789012.dkr.ecr.eu-west-2.amazonaws.com"});
        assert!(changed(&secrets, &was, change(region)).is_ok());
        let own = json!({"type": "docker-registry", "url": "https://example.com", "access_secret": "own"});
        assert!(changed(&secrets, &was, change(own)).is_ok());
    }
}
