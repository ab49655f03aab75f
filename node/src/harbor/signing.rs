//! What the mesh signs itself: a project's own keys, what they have signed, and what clients elsewhere
//! need to verify it. Not in Harbor.

use std::time::Duration;

use ground::clock;
use http::{Response, StatusCode};
use registry::signatures::signing::{Order, Signing};
use rules::ledger::events::Actor;
use rules::ledger::jobs::{JobState, LookForJobs};
use rules::ledger::level::Level;
use rules::ledger::records::{Project, ReadRecords, RecordError};
use rules::ledger::sign_log::{Checked, LogEntry, LookForSigning, MeshKey};
use rules::ledger::signatures::LookForSignatures;
use rules::policies::signatures::{Signer, State, metadata};
use rules::words::names::{Reference, RepositoryName};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Harbor, bad, body};
use crate::http::answer::json_answer;
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};

/// How long an answer waits for the end of its job. It goes on after that.
const PATIENCE: Duration = Duration::from_secs(8);
/// The time between two looks at a job.
const LOOK: Duration = Duration::from_millis(100);
/// The maximum number of entries of the log in an answer.
const PAGE: usize = 100;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct KeyBody {
    /// Make another key, although there is one.
    rotate: bool,
}

fn show_key(key: &MeshKey, signers: &[Signer]) -> Value {
    let name = MeshKey::signer(key.version);
    let state = signers.iter().find(|signer| signer.name == name);
    json!({
        "signer": name,
        "id": key.id.to_string(),
        "version": key.version,
        "created_at": key.created.to_string(),
        "state": state.map_or("removed", |signer| signer.state.as_str()),
        "pem": key.pem,
    })
}

fn show_entry(entry: &LogEntry) -> Result<Value, RecordError> {
    Ok(json!({
        "number": entry.number,
        "artifact": format!("{}@{}", entry.repository, entry.subject),
        "reference": entry.reference,
        "key": entry.key.to_string(),
        "payloads": entry.payloads.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "epoch": entry.epoch.get(),
        "node": entry.node.to_string(),
        "by": entry.by,
        "at": entry.at.to_string(),
        "before": entry.before.to_string(),
        "hash": entry.hash()?.to_string(),
    }))
}

/// What clients write into their files to verify what the project's keys have signed, for images
/// below `scope`.
fn client_policies(scope: &str, keys: &[&MeshKey]) -> Value {
    let (host, project) = scope.rsplit_once('/').unwrap_or_default();
    let path =
        |key: &&MeshKey| format!("/etc/atoll/{project}-{}.pub", MeshKey::signer(key.version));
    let paths: Vec<String> = keys.iter().map(path).collect();
    let verify = paths.iter().map(|path| {
        format!("cosign verify --key {path} --private-infrastructure {scope}/REPOSITORY@sha256:...")
    });
    let pems: Vec<&str> = keys.iter().map(|key| key.pem.as_str()).collect();
    let authorities = pems.iter().map(|pem| json!({"key": {"data": pem}}));
    json!({
        "keys": paths.iter().zip(&pems).map(|(path, pem)| json!({"file": path, "pem": pem}))
            .collect::<Vec<_>>(),
        // containers-policy.json(5)
        "policy.json": {
            "default": [{"type": "reject"}],
            "transports": {"docker": {scope: [{
                "type": "sigstoreSigned",
                "keyPaths": paths,
                "signedIdentity": {"type": "matchRepoDigestOrExact"},
            }]}},
        },
        // containers-registries.d(5): without it nothing is looked for
        "registries.d": {"docker": {host: {"use-sigstore-attachments": true}}},
        "cosign": verify.collect::<Vec<_>>(),
        "policy-controller": {
            "apiVersion": "policy.sigstore.dev/v1beta1",
            "kind": "ClusterImagePolicy",
            "metadata": {"name": "atoll"},
            "spec": {
                "images": [{"glob": format!("{scope}/**")}],
                "authorities": authorities.collect::<Vec<_>>(),
            },
        },
    })
}

impl Harbor {
    /// The project's own keys, and how to verify with them elsewhere.
    pub(super) async fn show_signing(
        &self,
        project: &Project,
    ) -> Result<Response<Payload>, Failure> {
        let look = |records: &dyn ReadRecords| {
            let keys = records.mesh_keys(project.id)?;
            Ok((keys, records.trusted(project.id)?.signers, records.log_head(project.id)?))
        };
        let (keys, signers, head) = self.read(look).await?;
        let host = project.metadata.get(metadata::HOST).map(String::as_str);
        let good: Vec<&MeshKey> = keys
            .iter()
            .filter(|key| {
                let name = MeshKey::signer(key.version);
                let known = signers.iter().find(|signer| signer.name == name);
                known
                    .is_some_and(|signer| matches!(signer.state.as_str(), "active" | "verify-only"))
            })
            .collect();
        let scope = format!("{}/{}", host.unwrap_or("HOST"), project.name);
        let shown = json!({
            "host": host,
            "keys": keys.iter().map(|key| show_key(key, &signers)).collect::<Vec<_>>(),
            "log": {"number": head.number, "hash": head.hash.to_string()},
            "clients": if good.is_empty() { Value::Null } else { client_policies(&scope, &good) },
        });
        Ok(json_answer(StatusCode::OK, &shown))
    }

    /// Makes the project's first key, or another one.
    pub(super) async fn make_signing_key(
        &self,
        mut request: Request,
        project: &Project,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let KeyBody { rotate } = body(&mut request).await?;
        if project.upstream.is_some() {
            return Err(bad("a project that caches a registry signs nothing"));
        }
        self.writes.check_level(Level::SIGNATURES)?;
        let signers = self.read(|records| records.trusted(project.id)).await?.signers;
        let has_one = signers.iter().any(|one| one.logged && one.state == State::Active);
        if has_one && !rotate {
            let message =
                format!("project {} has a key; rotate says to make another", project.name);
            return Err(Failure::new(Code::Conflict, message));
        }
        self.carry_out(project, &Order::Key, by).await
    }

    /// Signs an artifact, and what it lists.
    pub(super) async fn sign(
        &self,
        project: &Project,
        name: &RepositoryName,
        reference: &Reference,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        self.writes.check_level(Level::SIGNATURES)?;
        let digest = self.digest_of(name, reference).await?;
        let tag = match reference {
            Reference::Tag(tag) => Some(tag.clone()),
            Reference::Digest(_) => None,
        };
        let order = Order::Image { repository: name.clone(), digest, tag };
        self.carry_out(project, &order, by).await
    }

    /// Asks for the job, and waits a little for its end.
    async fn carry_out(
        &self,
        project: &Project,
        order: &Order,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let id = self.jobs.ask(Signing::task(&project.name, order, &by.name), by).await?;
        let end = clock::now() + PATIENCE;
        loop {
            let job = self.read(|records| records.job(id)).await?;
            let said = |result: Option<&str>| json!({"job": id.to_string(), "result": result});
            match job.as_ref().map(|job| job.state) {
                Some(JobState::Done) => {
                    let result = job.as_ref().map(|job| job.result.as_str());
                    return Ok(json_answer(StatusCode::OK, &said(result)));
                }
                Some(JobState::Failed | JobState::Stopped) => {
                    let why = job.map(|job| job.result).unwrap_or_default();
                    return Err(Failure::new(Code::Conflict, why).detail(said(None)));
                }
                _ if clock::now() >= end => {
                    let message = format!("it is under way as job {id}; ask again in a while");
                    return Err(Failure::new(Code::Unavailable, message));
                }
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// The log of what the project's keys have signed, and whether it is whole.
    pub(super) async fn show_sign_log(
        &self,
        request: &Request,
        project: &Project,
    ) -> Result<Response<Payload>, Failure> {
        let after = match request.query("after") {
            None => 0,
            Some(text) => text.parse().map_err(|_| bad("after is the number of an entry"))?,
        };
        let verify = request.query("verify") == Some("true");
        let look = |records: &dyn ReadRecords| {
            let entries = records.log_after(project.id, after, PAGE)?;
            let shown = entries.iter().map(show_entry).collect::<Result<Vec<_>, _>>()?;
            let checked = if verify { Some(records.check_log(project.id)?) } else { None };
            Ok((shown, records.log_head(project.id)?, checked))
        };
        let (shown, head, checked) = self.read_at_length(look).await?;
        let mut answer = json!({
            "last": {"number": head.number, "hash": head.hash.to_string()},
            "entries": shown,
        });
        match checked {
            Some(Checked::Whole(_)) => answer["whole"] = true.into(),
            Some(Checked::Broken(number)) => {
                answer["whole"] = false.into();
                answer["broken_at"] = number.into();
            }
            None => {}
        }
        Ok(json_answer(StatusCode::OK, &answer))
    }
}
