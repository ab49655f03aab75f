//! What the mesh signs itself: a project's own keys, what they have signed, and what clients elsewhere
//! need to verify it. Not in Harbor.

use std::collections::BTreeMap;
use std::time::Duration;

use ground::clock;
use http::{Response, StatusCode};
use registry::signatures::signing::{Order, Signing};
use rules::ledger::events::Actor;
use rules::ledger::jobs::{JobState, LookForJobs};
use rules::ledger::level::Level;
use rules::ledger::records::{Look, Project, ReadRecords, RecordError, key};
use rules::ledger::sign_due::LookForDue;
use rules::ledger::sign_log::{Checked, LogEntry, LookForSigning, MeshKey, sealed_under};
use rules::ledger::signatures::LookForSignatures;
use rules::members::signing::Openers;
use rules::policies::signatures::{Anchor, Signer, State, metadata};
use rules::words::names::{Reference, RepositoryName};
use rules::words::secret::Secret;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Harbor, bad, body, verifiers};
use crate::http::answer::json_answer;
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};

/// How long an answer waits for the end of its job. It goes on after that.
const PATIENCE: Duration = Duration::from_secs(8);
/// After what time it says why a job has not begun. Before, a node may just not have said what it
/// opens.
const SOON: Duration = Duration::from_secs(3);
/// The time between two looks at a job.
const LOOK: Duration = Duration::from_millis(100);
/// The maximum number of entries of the log in an answer.
const PAGE: usize = 100;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct KeyBody {
    /// Make another key, although there is one.
    rotate: bool,
    /// Take this one and make none.
    import: Option<ImportBody>,
    /// Sign for notation, too.
    notation: Option<NotationBody>,
}

/// A file of cosign's.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ImportBody {
    key: String,
    passphrase: Secret,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct NotationBody {
    /// Of the project's key, its own first, as PEM. Without them the mesh makes an authority.
    certificates: Option<String>,
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

impl Harbor {
    /// The project's own keys, and how to verify with them elsewhere.
    pub(super) async fn show_signing(
        &self,
        project: &Project,
    ) -> Result<Response<Payload>, Failure> {
        let look = |records: &dyn ReadRecords| {
            let keys = records.mesh_keys(project.id)?;
            let signers = records.trusted(project.id)?.signers;
            let mut only = BTreeMap::new();
            let mut repositories = Vec::new();
            let names = key::repositories_of(&project.name);
            for (place, _) in records.scan(&names, None, usize::MAX)? {
                let Ok(repository) = key::name_of(&place).parse::<RepositoryName>() else {
                    continue;
                };
                // a project without keys has nothing signed
                if !keys.is_empty() {
                    records.signed_only_by(&signers, &repository, &mut only)?;
                }
                repositories.push(repository);
            }
            let identity = records.notation_identity(project.id)?;
            let openers = Openers { sealed: records.signing_projects()?, opens: records.opens()? };
            let head = records.log_head(project.id)?;
            Ok((keys, signers, only, repositories, identity, openers, head))
        };
        let (keys, signers, only, repositories, identity, openers, head) =
            self.read_at_length(look).await?;
        let host = project.metadata.get(metadata::HOST).map(String::as_str);
        // what a key has signed that was only replaced counts on
        let counts =
            |signer: &Signer| signer.state != State::Pending && !signer.state.is_compromised();
        let good: Vec<&MeshKey> = keys
            .iter()
            .filter(|key| {
                let name = MeshKey::signer(key.version);
                signers.iter().any(|signer| signer.name == name && counts(signer))
            })
            .collect();
        let authorities: Vec<&Signer> = signers
            .iter()
            .filter(|one| one.logged && counts(one))
            .filter(|one| matches!(one.anchor, Anchor::Authority { .. }))
            .collect();
        let shown_keys = keys.iter().map(|key| {
            let mut shown = show_key(key, &signers);
            let name = MeshKey::signer(key.version);
            shown["only_by_it"] = only.get(&name).copied().unwrap_or_default().into();
            shown["sealed_under"] = sealed_under(&key.sealed)
                .and_then(|(under, _)| under)
                .map_or(Value::Null, |under| under.to_string().into());
            shown
        });
        let holders = openers.opens.keys().filter(|node| openers.can(**node, project.id));
        let shown = json!({
            "host": host,
            "rule": project.metadata.get(metadata::AUTO),
            "keys": shown_keys.collect::<Vec<_>>(),
            "opened_by": holders.map(|node| self.neighbours.name_of(*node)).collect::<Vec<_>>(),
            "waits": self.waits_for_key(project).await?,
            "notation": identity.map(|identity| json!({
                "key": identity.key.to_string(),
                "authority": identity.authority.to_string(),
                "certificates": identity.chain,
                "until": identity.until.to_string(),
                "made_by_the_mesh": identity.sealed.is_some(),
            })),
            "log": {"number": head.number, "hash": head.hash.to_string()},
            "clients": match good.is_empty() {
                true => Value::Null,
                false => verifiers::all(host, &project.name, &repositories, &good, &authorities),
            },
        });
        Ok(json_answer(StatusCode::OK, &shown))
    }

    /// Why nothing that the mesh signs for a project is signed now: its primary cannot open the key. A
    /// sentence; `None` if it can, or if that is not known.
    pub(super) async fn waits_for_key(&self, project: &Project) -> Result<Option<String>, Failure> {
        let look = |records: &dyn ReadRecords| {
            let openers = Openers { sealed: records.signing_projects()?, opens: records.opens()? };
            Ok((openers, records.level()?))
        };
        let (openers, level) = self.read(look).await?;
        let primary = project.primary;
        // one that cannot open the key, or, for the first key, one that has none to seal it with
        let can = openers.can(primary, project.id)
            && (openers.sealed.contains_key(&project.id) || openers.opens.contains_key(&primary));
        let is_known = level >= Level::SIGNING || primary == self.neighbours.me;
        if can && level >= Level::SIGNING || !is_known {
            return Ok(None);
        }
        if level < Level::SIGNING {
            return Ok(self.signatures.cannot_sign());
        }
        let name = self.neighbours.name_of(primary);
        Ok(Some(match openers.opens.contains_key(&primary) {
            false => format!(
                "{name}, the project's primary, has no key-encryption key that it can use: set signing.passphrase_file, signing.hsm or signing.kms in its settings; if one is set, its status says what is wrong"
            ),
            true => format!(
                "{name}, the project's primary, has another key-encryption key than the project's key is sealed under"
            ),
        }))
    }

    /// Makes the project's first key, or another one; imports one; or gives it certificates.
    pub(super) async fn make_signing_key(
        &self,
        mut request: Request,
        project: &Project,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let KeyBody { rotate, import, notation } = body(&mut request).await?;
        if project.upstream.is_some() {
            return Err(bad("a project that caches a registry signs nothing"));
        }
        if let Some(NotationBody { certificates }) = notation {
            if rotate || import.is_some() {
                return Err(bad("notation is asked for alone: make the key first"));
            }
            self.writes.check_level(Level::SIGNING)?;
            return self.carry_out(project, &Order::Notation { certificates }, by).await;
        }
        self.writes.check_level(Level::SIGNATURES)?;
        let signers = self.read(|records| records.trusted(project.id)).await?.signers;
        let has_one = signers.iter().any(|one| one.logged && one.state == State::Active);
        if has_one && !rotate {
            let message = format!(
                "project {} has a key; `--rotate` (in the API, \"rotate\": true) makes another",
                project.name
            );
            return Err(Failure::new(Code::Conflict, message));
        }
        let Some(ImportBody { key, passphrase }) = import else {
            let order = if rotate { Order::Key } else { Order::FirstKey };
            return self.carry_out(project, &order, by).await;
        };
        match self.signatures.import_key(&project.name, key, passphrase, by).await {
            Ok(said) => Ok(json_answer(StatusCode::OK, &json!({"result": said}))),
            Err(why) => {
                Err(Failure::new(Code::BadRequest, format!("the key is not imported: {why}")))
            }
        }
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
        let (end, soon) = (clock::now() + PATIENCE, clock::now() + SOON);
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
                Some(JobState::Waiting) if clock::now() >= soon => {
                    if let Some(why) = self.waits_for_key(project).await? {
                        let message = format!("it waits as job {id}: {why}");
                        return Err(Failure::new(Code::Conflict, message).detail(said(None)));
                    }
                    tokio::time::sleep(LOOK).await;
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
