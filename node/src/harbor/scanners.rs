//! Scanners in Harbor's API (`handler/scanner.go`, `handler/project.go`): those that are registered, the
//! one that is built in, the default, and those of projects. Secrets are written and never shown.

use std::collections::BTreeMap;

use futures::future::join_all;
use http::{HeaderValue, Response, StatusCode, header};
use registry::scans::native;
use registry::scans::not_well::NotWell;
use rules::ledger::change::Change;
use rules::ledger::command::Command;
use rules::ledger::events::Actor;
use rules::ledger::level::Level;
use rules::ledger::records::Project;
use rules::ledger::scanners::{
    LookForScanners, RegistrationChange, ScannerAuth, ScannerRecord, TRIVY, place,
};
use rules::ledger::scanning::{DatabaseRecord, KnownScanners, LookForScans, ScannerChange};
use rules::policies::vulnerabilities::{chosen_scanner, metadata};
use rules::proxies::proxy::ProxyChange;
use rules::words::names::ScannerId;
use rules::words::query::{self, Field, Kind, text};
use rules::words::secret::Secret;
use scan::adapter::metadata::{Metadata, of_this};
use serde::Deserialize;
use serde_json::{Value, json};
use upstream::Endpoint;

use super::lists::PageRequest;
use super::registries::sealing;
use super::stored::missing;
use super::{Harbor, bad, body};
use crate::http::answer::{answer, json_answer};
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};

/// A registration as clients write it (`ScannerRegistrationReq`).
#[derive(Deserialize)]
struct Written {
    name: String,
    #[serde(default)]
    description: String,
    url: String,
    #[serde(default)]
    auth: String,
    #[serde(default)]
    access_credential: Secret,
    #[serde(rename = "skip_certVerify", default)]
    skip: bool,
    #[serde(default)]
    use_internal_addr: bool,
    #[serde(default)]
    disabled: bool,
}

/// A scanner in a list.
struct Listed {
    name: String,
    url: String,
    description: String,
    disabled: bool,
    shown: Value,
}

/// What `q` and `sort` may be about.
const FIELDS: &[Field<Listed>] = &[
    Field::new("name", Kind::Text, |one| text(&one.name)),
    Field::new("url", Kind::Text, |one| text(&one.url)),
    Field::new("description", Kind::Text, |one| text(&one.description)),
    Field::new("disabled", Kind::Flag, |one| query::Value::Flag(one.disabled)),
];

/// The scanner's number in a path.
fn number(id: &str) -> Result<ScannerId, Failure> {
    id.parse().map_err(|_| missing(&format!("scanner {id}")))
}

/// Checks what Harbor checks (`Registration.Validate`), and returns the record without its secret.
fn checked(written: &Written, was: Option<&ScannerRecord>) -> Result<ScannerRecord, Failure> {
    let auth = ScannerAuth::named(&written.auth);
    let auth = auth.ok_or_else(|| bad(format!("auth type {} is not supported", written.auth)))?;
    let url = written.url.trim().trim_end_matches('/').to_owned();
    let is_program = url == TRIVY;
    if is_program && (auth != ScannerAuth::Nothing || written.skip || written.use_internal_addr) {
        return Err(bad(format!(
            "{TRIVY} is started by the nodes: it has no auth, no certificate and no address to pull at"
        )));
    }
    if !is_program && !url.starts_with("http://") && !url.starts_with("https://") {
        let message = format!("url begins with http:// or https://, or is {TRIVY}");
        return Err(bad(message));
    }
    if !is_program {
        url.parse::<Endpoint>().map_err(|e| bad(format!("url: {e}")))?;
    }
    let now = ground::clock::timestamp();
    Ok(ScannerRecord {
        id: was.map_or_else(|| ScannerId(rand::random()), |was| was.id),
        name: written.name.trim().to_owned(),
        description: written.description.clone(),
        url,
        auth,
        credential: None,
        skips_certificate: written.skip,
        internal: written.use_internal_addr,
        disabled: written.disabled,
        created: was.map_or(now, |was| was.created),
        changed: now,
    })
}

/// Whether two records lead to the same server, so that the same secret may be sent: whoever may change
/// the address must not learn the secret by it.
fn is_at_the_same_place(one: &ScannerRecord, other: &ScannerRecord) -> bool {
    let endpoint = |record: &ScannerRecord| record.url.parse::<Endpoint>().ok();
    let same = match (endpoint(one), endpoint(other)) {
        (Some(one), Some(other)) => one.is_at(&other),
        _ => false,
    };
    // without the check of a certificate it may be anyone
    same && (one.skips_certificate || !other.skips_certificate)
}

/// A secret is shown in a header.
fn check_secret(secret: &Secret) -> Result<(), Failure> {
    match secret.expose().chars().any(char::is_control) {
        true => Err(bad("access_credential has a line break or another control character")),
        false => Ok(()),
    }
}

impl Harbor {
    /// Makes a record of what a client wrote; what it did not write of the secret stays.
    fn registered(
        &self,
        written: &Written,
        was: Option<&ScannerRecord>,
    ) -> Result<ScannerRecord, Failure> {
        let mut record = checked(written, was)?;
        let secret = &written.access_credential;
        check_secret(secret)?;
        record.credential = match (record.auth, secret.expose().is_empty(), was) {
            (ScannerAuth::Nothing, ..) => None,
            (_, false, _) => {
                if record.auth == ScannerAuth::Basic && !secret.expose().contains(':') {
                    return Err(bad("access_credential of the auth type Basic is name:password"));
                }
                let sealed = self.secrets.seal(&place(record.id), secret.expose());
                Some(sealed.map_err(sealing)?.into())
            }
            (auth, true, Some(was)) if was.auth == auth && is_at_the_same_place(was, &record) => {
                was.credential.clone()
            }
            (auth, true, Some(was)) if was.auth == auth => {
                return Err(bad(
                    "access_credential is needed: with another address, or without the check of a certificate, the known one could be sent to another server",
                ));
            }
            (auth, true, _) => {
                let word = auth.word();
                return Err(bad(format!("access_credential is required for auth type {word}")));
            }
        };
        record.check().map_err(bad)?;
        Ok(record)
    }

    async fn register(
        &self,
        change: RegistrationChange,
        name: &str,
        by: &Actor,
    ) -> Result<(), Failure> {
        let change = ScannerChange::Registration(Box::new(change));
        let command = Command::Scanner(Box::new(change));
        self.propose(command, &format!("scanner {name}, or one at its url"), by).await.map(drop)
    }

    async fn scanner_record(&self, id: ScannerId) -> Result<ScannerRecord, Failure> {
        let found = self.read(|records| records.scanner(id)).await?;
        found.ok_or_else(|| missing(&format!("scanner {id}")))
    }

    /// Registers a scanner.
    pub(super) async fn create_scanner(
        &self,
        mut request: Request,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let written: Written = body(&mut request).await?;
        let record = self.registered(&written, None)?;
        let (id, name) = (record.id, record.name.clone());
        self.register(RegistrationChange::Add(record), &name, by).await?;
        let mut response = answer(StatusCode::CREATED);
        let location = HeaderValue::from_str(&format!("/api/v2.0/scanners/{id}"));
        if let Ok(location) = location {
            response.headers_mut().insert(header::LOCATION, location);
        }
        Ok(response)
    }

    /// Changes a scanner to what the body says.
    pub(super) async fn change_scanner(
        &self,
        mut request: Request,
        id: &str,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let id = changeable(number(id)?, "update")?;
        let written: Written = body(&mut request).await?;
        let was = self.scanner_record(id).await?;
        let becomes = self.registered(&written, Some(&was))?;
        let name = becomes.name.clone();
        let (was, becomes) = (Box::new(was), Box::new(becomes));
        self.register(RegistrationChange::Change { was, becomes }, &name, by).await?;
        Ok(answer(StatusCode::OK))
    }

    /// Forgets a scanner, and shows it once more, as Harbor does.
    pub(super) async fn remove_scanner(
        &self,
        id: &str,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let id = changeable(number(id)?, "delete")?;
        let record = self.scanner_record(id).await?;
        let known = self.read(|records| records.known_scanners()).await?;
        self.register(RegistrationChange::Remove(id), &record.name, by).await?;
        Ok(json_answer(StatusCode::OK, &shown(&record, &known)))
    }

    /// Makes a scanner the default. `false` changes nothing, as in Harbor.
    pub(super) async fn make_default_scanner(
        &self,
        mut request: Request,
        id: &str,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        #[derive(Deserialize)]
        struct Choice {
            is_default: bool,
        }
        let id = number(id)?;
        let name = self.scanner_name(id).await?;
        let written: Choice = body(&mut request).await?;
        let known = self.read(|records| records.known_scanners()).await?;
        if written.is_default && known.usual() != id {
            self.register(RegistrationChange::MakeDefault(id), &name, by).await?;
        }
        Ok(answer(StatusCode::OK))
    }

    /// Asks a scanner that is not recorded whether it is well (Harbor's `scanners/ping`).
    pub(super) async fn ping_scanner(
        &self,
        mut request: Request,
    ) -> Result<Response<Payload>, Failure> {
        let written: Written = body(&mut request).await?;
        let record = checked(&written, None)?;
        check_secret(&written.access_credential)?;
        let secret = Some(&written.access_credential).filter(|one| !one.expose().is_empty());
        if record.auth != ScannerAuth::Nothing && secret.is_none() {
            let word = record.auth.word();
            return Err(bad(format!("access_credential is required for auth type {word}")));
        }
        match self.scans.adapters().ping(&record, secret).await {
            Ok(_) => Ok(answer(StatusCode::OK)),
            Err(error) => Err(bad(format!("the scanner is not well: {error}"))),
        }
    }

    /// What a scanner can do (`ScannerAdapterMetadata` of Harbor).
    pub(super) async fn show_scanner_metadata(
        &self,
        id: &str,
    ) -> Result<Response<Payload>, Failure> {
        let id = number(id)?;
        if id == ScannerId::NATIVE {
            let used = self.read(|records| records.scan_database()).await?;
            let dates = used.map(|used| (used.updated, used.next_update));
            return Ok(json_answer(StatusCode::OK, &of_this(&native(), dates)));
        }
        let record = self.scanner_record(id).await?;
        match self.scans.adapters().metadata(&record).await {
            Ok(metadata) => Ok(json_answer(StatusCode::OK, &metadata.shown())),
            Err(error) => {
                let name = &record.name;
                Err(Failure::new(Code::Unavailable, format!("scanner {name}: {error}")))
            }
        }
    }

    /// One scanner, with how it is now.
    pub(super) async fn show_one_scanner(&self, id: &str) -> Result<Response<Payload>, Failure> {
        Ok(json_answer(StatusCode::OK, &self.scanner_now(number(id)?).await?))
    }

    /// The scanner of a project, with how it is now.
    pub(super) async fn show_project_scanner(
        &self,
        project: &Project,
    ) -> Result<Response<Payload>, Failure> {
        let known = self.read(|records| records.known_scanners()).await?;
        let id = known.of(chosen_scanner(&project.metadata));
        let mut now = self.scanner_now(id).await?;
        // where scanners are, and why they do not answer, is for administrators
        if let Some(all) = now.as_object_mut() {
            all.remove("problem");
        }
        Ok(json_answer(StatusCode::OK, &now))
    }

    async fn scanner_now(&self, id: ScannerId) -> Result<Value, Failure> {
        let known = self.read(|records| records.known_scanners()).await?;
        if id == ScannerId::NATIVE {
            let used = self.read(|records| records.scan_database()).await?;
            return Ok(self.shown_native(&known, used.as_ref()));
        }
        let record = self.scanner_record(id).await?;
        let now = match record.disabled {
            true => None,
            false => Some(self.scans.adapters().said_lately(&record).await),
        };
        Ok(shown_now(&record, &known, now.as_ref()))
    }

    /// All scanners. Those that are registered are asked how they are, all at once.
    pub(super) async fn list_scanners(
        &self,
        request: &Request,
    ) -> Result<Response<Payload>, Failure> {
        let wanted = PageRequest::read(request)?;
        let (records, known, used) = self
            .read(|view| Ok((view.scanners()?, view.known_scanners()?, view.scan_database()?)))
            .await?;
        let asked = records.iter().map(|record| async {
            match record.disabled {
                true => None,
                false => Some(self.scans.adapters().metadata(record).await),
            }
        });
        let now = join_all(asked).await;
        let own = Listed {
            name: native().name,
            url: String::new(),
            description: NATIVE.to_owned(),
            disabled: false,
            shown: self.shown_native(&known, used.as_ref()),
        };
        let mut all = vec![own];
        all.extend(records.iter().zip(&now).map(|(record, now)| Listed {
            name: record.name.clone(),
            url: record.url.clone(),
            description: record.description.clone(),
            disabled: record.disabled,
            shown: shown_now(record, &known, now.as_ref()),
        }));
        // Harbor's older parameters: a part of it, and all of it
        for (name, of) in PARTS {
            if let Some(part) = request.query(name) {
                all.retain(|one| of(one).contains(part));
            }
        }
        for (name, of) in WHOLES {
            if let Some(whole) = request.query(name) {
                all.retain(|one| of(one) == whole);
            }
        }
        wanted.answer_chosen(all, FIELDS, |_| "", |one| one.shown.clone())
    }

    /// Lets a project use this scanner from now on. What was found stays until it is scanned again.
    pub(super) async fn choose_scanner(
        &self,
        mut request: Request,
        project: &Project,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        #[derive(Deserialize)]
        struct Choice {
            uuid: String,
        }
        let written: Choice = body(&mut request).await?;
        let id = number(&written.uuid)?;
        self.scanner_name(id).await?;
        let known = self.read(|records| records.known_scanners()).await?;
        let before = chosen_scanner(&project.metadata);
        if before == Some(id) || before.is_none() && known.of(None) == id {
            return Ok(answer(StatusCode::OK));
        }
        self.writes.check_level(Level::SCANNERS)?;
        let change = Change::Configure {
            name: project.name.clone(),
            public: None,
            durability: None,
            proxy: ProxyChange::default(),
            metadata: BTreeMap::from([(metadata::SCANNER.to_owned(), id.to_string())]),
        };
        self.commit(change, by).await?;
        Ok(answer(StatusCode::OK))
    }

    /// The name of a scanner that is there.
    async fn scanner_name(&self, id: ScannerId) -> Result<String, Failure> {
        match id == ScannerId::NATIVE {
            true => Ok(native().name),
            false => Ok(self.scanner_record(id).await?.name),
        }
    }

    fn shown_native(&self, known: &KnownScanners, used: Option<&DatabaseRecord>) -> Value {
        let here = self.scans.database_status();
        let is_well =
            used.is_some_and(|used| here.open == Some(used.digest)) && here.problem.is_none();
        let scanner = native();
        json!({
            "uuid": ScannerId::NATIVE.to_string(),
            "name": scanner.name,
            "description": NATIVE,
            "url": "",
            "auth": "",
            "disabled": false,
            "is_default": known.usual() == ScannerId::NATIVE,
            "skip_certVerify": false,
            "use_internal_addr": false,
            "health": health(is_well),
            "problem": here.problem,
            "vendor": scanner.vendor,
            "adapter": scanner.name,
            "version": scanner.version,
            "capabilities": {"support_vulnerability": true, "support_sbom": true},
            "database": used.map(|used| json!({
                "digest": used.digest.to_string(),
                "updated_at": used.updated.to_string(),
                "next_update": used.next_update.to_string(),
                "since": used.since.to_string(),
            })),
            "database_here": {
                "source": here.source.map(|(repository, tag)| format!("{repository}:{tag}")),
                "open": here.open.map(|digest| digest.to_string()),
                "named": here.named.map(|digest| digest.to_string()),
                "problem": here.problem,
            },
        })
    }
}

/// What the scanner that is built in is called besides its name.
const NATIVE: &str = "the scanner that is built in";

/// A part of a scanner that a parameter is about.
type Of = fn(&Listed) -> &str;

const PARTS: [(&str, Of); 3] =
    [("name", |one| &one.name), ("url", |one| &one.url), ("description", |one| &one.description)];
const WHOLES: [(&str, Of); 2] = [("ex_name", |one| &one.name), ("ex_url", |one| &one.url)];

fn health(is_well: bool) -> &'static str {
    if is_well { "healthy" } else { "unhealthy" }
}

/// Refuses to change a scanner that is built in (Harbor's immutable registrations).
fn changeable(id: ScannerId, what: &str) -> Result<ScannerId, Failure> {
    if !id.is_built_in() {
        return Ok(id);
    }
    let message = format!(
        "registration {id} is not allowed to {what} as it is immutable: it is built in; make another scanner the default instead"
    );
    Err(Failure::new(Code::Denied, message))
}

/// A registered scanner as Harbor shows it (`ScannerRegistration`).
fn shown(record: &ScannerRecord, known: &KnownScanners) -> Value {
    json!({
        "uuid": record.id.to_string(),
        "name": record.name,
        "description": record.description,
        "url": record.url,
        "auth": record.auth.word(),
        "disabled": record.disabled,
        "is_default": known.usual() == record.id,
        "skip_certVerify": record.skips_certificate,
        "use_internal_addr": record.internal,
        "create_time": record.created.to_string(),
        "update_time": record.changed.to_string(),
        "health": health(false),
    })
}

/// The same with what it says of itself now; `None` if it is disabled, and was not asked.
fn shown_now(
    record: &ScannerRecord,
    known: &KnownScanners,
    now: Option<&Result<Metadata, NotWell>>,
) -> Value {
    let mut shown = shown(record, known);
    match now {
        Some(Ok(now)) => {
            shown["health"] = health(true).into();
            shown["adapter"] = now.scanner.name.clone().into();
            shown["vendor"] = now.scanner.vendor.clone().into();
            shown["version"] = now.scanner.version.clone().into();
            shown["capabilities"] =
                json!({"support_vulnerability": true, "support_sbom": now.makes_sboms()});
            if let Some(updated) = now.database_updated() {
                shown["database"] = json!({"updated_at": updated.to_string()});
            }
        }
        Some(Err(problem)) => shown["problem"] = problem.to_string().into(),
        None => shown["problem"] = "it is disabled".into(),
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(url: &str) -> Written {
        serde_json::from_value(json!({"name": "clair", "url": url, "auth": "Bearer"})).unwrap()
    }

    #[test]
    fn what_is_no_scanner_is_refused() {
        assert!(checked(&written("https://clair.example/"), None).is_ok());
        for wrong in
            ["clair.example", "ftp://x", "https://a:b@x", "https://x/?q=1", "http://", "file:///x"]
        {
            let refused = checked(&written(wrong), None).unwrap_err();
            assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{wrong}");
        }
        let program = Written { auth: String::new(), ..written(TRIVY) };
        assert_eq!(checked(&program, None).unwrap().url, TRIVY);
        assert!(checked(&written(TRIVY), None).is_err(), "a program is shown no secret");
        let strange = Written { auth: "Digest".into(), ..written("https://x") };
        assert!(checked(&strange, None).is_err());
        assert_eq!(
            changeable(ScannerId::NATIVE, "delete").unwrap_err().status(),
            StatusCode::FORBIDDEN
        );
    }

    #[test]
    fn a_known_secret_goes_to_the_same_server_only() {
        let record = |url: &str, skips_certificate| ScannerRecord {
            skips_certificate,
            ..checked(&written(url), None).unwrap()
        };
        let was = record("https://clair.example/a", false);
        let is = |url: &str, skips| is_at_the_same_place(&was, &record(url, skips));
        assert!(is("https://clair.example/b", false));
        assert!(!is("https://clair.example/a", true), "it could be anyone");
        assert!(!is("http://clair.example/a", false) && !is("https://evil.example/a", false));
        assert!(!is("https://clair.example:8443/a", false));
    }
}
