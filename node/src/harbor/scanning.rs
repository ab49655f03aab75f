//! Scans and vulnerabilities in Harbor's API (`handler/artifact.go`, `handler/scanner.go`,
//! `handler/system_cve_allowlist.go`).

use std::collections::BTreeMap;

use http::{Method, Response, StatusCode, header};
use registry::scans::rescans::{self, Rescans};
use registry::scans::{Findings, ScanError};
use registry::writes::Refusal;
use rules::ledger::command::Command;
use rules::ledger::events::Actor;
use rules::ledger::level::Level;
use rules::ledger::records::{Look, Project, RecordError};
use rules::ledger::scanning::{AT_ONCE, LookForScans, Report, ScanChange, ScannerChange};
use rules::policies::vulnerabilities::metadata::SCHEDULE;
use rules::policies::vulnerabilities::{Allowlist, chosen_scanner};
use rules::wire::WriteKind;
use rules::words::digest::Digest;
use rules::words::image::{Image, Runnable};
use rules::words::moment::Timestamp;
use rules::words::names::{ProjectName, Reference, RepositoryName};
use scan::adapter::report;
use scan::sbom;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::metadata::schedule;
use super::overviews::REPORT;
use super::stored::missing;
use super::{Harbor, bad, body};
use crate::http::answer::{answer, json_answer};
use crate::http::request::Request;
use crate::http::route::Scanning;
use crate::http::{Code, Failure, Payload};

/// What whoever asks for a scan is told in a mesh that cannot scan.
pub(super) const NO_DATABASE: &str = "this mesh has no database of vulnerabilities; set scan.database, and push trivy-db there, or use another scanner (atoll scanner add)";

/// What a scan is to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ScanType {
    Vulnerabilities,
    Sbom,
}

/// What the body of a request for a scan wants; without one, vulnerabilities.
fn scan_type(body: &[u8]) -> Result<ScanType, Failure> {
    #[derive(Default, Deserialize)]
    struct Written {
        #[serde(default)]
        scan_type: Option<String>,
    }
    if body.is_empty() {
        return Ok(ScanType::Vulnerabilities);
    }
    let written: Written =
        serde_json::from_slice(body).map_err(|e| bad(format!("the body: {e}")))?;
    match written.scan_type.as_deref() {
        None | Some("" | "vulnerability") => Ok(ScanType::Vulnerabilities),
        Some("sbom") => Ok(ScanType::Sbom),
        Some(_) => Err(bad("scan_type is vulnerability or sbom")),
    }
}

/// An allowlist as Harbor writes it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct AllowlistBody {
    #[serde(default)]
    items: Option<Vec<Item>>,
    /// Seconds since 1970.
    #[serde(default)]
    expires_at: Option<u64>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Item {
    cve_id: String,
}

impl AllowlistBody {
    /// The list, if it is one.
    pub(super) fn checked(self) -> Result<Allowlist, Failure> {
        let ids = self.items.unwrap_or_default().into_iter().map(|item| item.cve_id).collect();
        let expires = self.expires_at.filter(|end| *end > 0);
        let expires = expires.map(|end| Timestamp(end.saturating_mul(1000)));
        let list = Allowlist { ids, expires };
        list.check().map_err(bad)?;
        Ok(list)
    }
}

/// An allowlist as Harbor shows it.
pub(super) fn show_allowlist(list: &Allowlist, project: u64) -> Value {
    let items: Vec<Value> = list.ids.iter().map(|id| json!({"cve_id": id})).collect();
    json!({
        "id": project,
        "project_id": project,
        "items": items,
        "expires_at": list.expires.map(|end| end.0 / 1000),
    })
}

/// A report with all its texts (`Report` of the pluggable scanner API, version 1.1), below its media
/// type. One finding after the other is written, so that little is in memory twice.
fn write_report(found: &Findings) -> Vec<u8> {
    let mut shown = json!({
        "generated_at": found.report.at.to_string(),
        "scanner": found.scanner,
        "severity": report::worst(&found.findings),
        "insufficient": found.report.insufficient,
    });
    if found.database.is_some() || found.updated.is_some() {
        shown["database"] = json!({
            "digest": found.database.map(|digest| digest.to_string()),
            "updated_at": found.updated.map(|at| at.to_string()),
        });
    }
    let shown = shown.to_string();
    let open = shown.strip_suffix('}').unwrap_or(&shown);
    let mut bytes = format!("{{{}:{open},\"vulnerabilities\":[", json!(REPORT)).into_bytes();
    for (at, finding) in found.findings.iter().enumerate() {
        if at > 0 {
            bytes.push(b',');
        }
        bytes.extend(report::vulnerability(finding).to_string().into_bytes());
    }
    bytes.extend(b"]}}");
    bytes
}

impl From<ScanError> for Failure {
    fn from(error: ScanError) -> Self {
        let code = match error {
            ScanError::Hopeless(_) => Code::BadRequest,
            ScanError::Again(_) => Code::Unavailable,
            ScanError::Stopped => Code::NotFound,
        };
        Failure::new(code, error.to_string())
    }
}

/// Which SBOM an answer is: `made`, or the digest of the artifact that it came in.
const FROM: header::HeaderName = header::HeaderName::from_static("atoll-sbom-from");

impl Harbor {
    /// Answers a request about scans of the whole mesh.
    pub(super) async fn answer_about_scanning(
        &self,
        request: Request,
        scanning: Scanning,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        match (&request.method, scanning) {
            (&Method::PUT, Scanning::Allowlist) => self.set_system_allowlist(request, by).await,
            (_, Scanning::Allowlist) => self.show_system_allowlist().await,
            (&Method::POST, Scanning::Scanners) => self.create_scanner(request, by).await,
            (_, Scanning::Scanners) => self.list_scanners(&request).await,
            (_, Scanning::Ping) => self.ping_scanner(request).await,
            (&Method::PATCH, Scanning::Scanner(id)) => {
                self.make_default_scanner(request, &id, by).await
            }
            (&Method::PUT, Scanning::Scanner(id)) => self.change_scanner(request, &id, by).await,
            (&Method::DELETE, Scanning::Scanner(id)) => self.remove_scanner(&id, by).await,
            (_, Scanning::Scanner(id)) => self.show_one_scanner(&id).await,
            (_, Scanning::Metadata(id)) => self.show_scanner_metadata(&id).await,
            (_, Scanning::StopAll) => self.stop_scanning_everything(by).await,
            (_, Scanning::Schedule) => self.answer_about_scan_all(request, by).await,
            (_, Scanning::Metrics) => self.show_scan_metrics().await,
            (_, Scanning::Summary) => self.show_security(&request).await,
            (_, Scanning::Vulnerabilities) => self.list_vulnerabilities(&request).await,
            // these are the caller's own, and are answered before
            (_, Scanning::Export(_)) => Err(Failure::new(Code::NotFound, "not found")),
        }
    }

    /// Asks for a scan, or makes the SBOMs of what was scanned, as the body says.
    pub(super) async fn ask_for_scan(
        &self,
        mut request: Request,
        project: &Project,
        name: RepositoryName,
        reference: &Reference,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let kind = scan_type(&request.body.whole(super::BODY).await?)?;
        if project.upstream.is_some() && kind == ScanType::Sbom {
            return Err(bad("no SBOMs are kept beside what is cached of another registry"));
        }
        let digest = self.digest_of(&name, reference).await?;
        let wanted = self.scannable_of(&name, digest).await?;
        if wanted.is_empty() {
            return Err(bad(format!("{name}@{digest} is not an image that can be scanned")));
        }
        if kind == ScanType::Sbom {
            for image in &wanted {
                let known = self.read(|records| records.scan_of(&name, image)).await?;
                if known.is_none_or(|known| known.report.is_none()) {
                    let message = format!("{name}@{image} has no report; scan it first");
                    return Err(Failure::new(Code::Precondition, message));
                }
                self.scans.make_sboms(&name, image, by).await?;
            }
            return Ok(answer(StatusCode::ACCEPTED));
        }
        let chosen = chosen_scanner(&project.metadata);
        if !self.read(|records| records.can_be_scanned(chosen)).await? {
            return Err(Failure::new(Code::Precondition, NO_DATABASE));
        }
        for some in wanted.chunks(AT_ONCE) {
            self.scans.ask(&name, some.to_vec(), true, by).await?;
        }
        Ok(answer(StatusCode::ACCEPTED))
    }

    /// What can be scanned of a manifest: itself, or what an index lists.
    async fn scannable_of(
        &self,
        name: &RepositoryName,
        digest: Digest,
    ) -> Result<Vec<Digest>, Failure> {
        let children = super::artifacts::listed_in;
        let found = self
            .read(|records| {
                let is_image = |digest: &Digest| -> Result<bool, RecordError> {
                    let manifest = records.manifest(name, digest)?;
                    Ok(manifest.is_some_and(|one| Image::read(&one.bytes) != Runnable::Nothing))
                };
                let mut found = Vec::new();
                for one in std::iter::once(digest).chain(children(records, name, &digest)?) {
                    if is_image(&one)? {
                        found.push(one);
                    }
                }
                Ok(found)
            })
            .await?;
        Ok(found)
    }

    pub(super) async fn stop_scan(
        &self,
        name: RepositoryName,
        reference: &Reference,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let digest = self.digest_of(&name, reference).await?;
        let mut stopped = false;
        for one in self.scannable_of(&name, digest).await? {
            match self.scans.stop(&name, one, by).await {
                Ok(()) => stopped = true,
                Err(Refusal::NotFound) => {}
                Err(refusal) => return Err(refusal.into()),
            }
        }
        if stopped {
            return Ok(answer(StatusCode::ACCEPTED));
        }
        Err(missing(&format!("a scan of {name}@{digest} that waits or runs")))
    }

    pub(super) async fn show_scan_log(
        &self,
        name: &RepositoryName,
        reference: &Reference,
        number: u64,
    ) -> Result<Response<Payload>, Failure> {
        let digest = self.digest_of(name, reference).await?;
        let record = self.read(|records| records.scan_of(name, &digest)).await?;
        let record = record.unwrap_or_default();
        let of_report = |report: Report| (report.number == number).then_some(report.log);
        let text = if let Some(log) = record.report.and_then(of_report) {
            log
        } else if let Some(unfinished) = record.unfinished.filter(|one| one.number == number) {
            unfinished.why.unwrap_or_else(|| "it was stopped".into()) + "\n"
        } else if let Some(wanted) = record.wanted.filter(|one| one.number == number) {
            format!("it waits since {}; it was begun {} times\n", wanted.at, wanted.tries)
        } else {
            return Err(missing(&format!("scan {number} of {name}@{digest}")));
        };
        let mut response = Response::new(Payload::full(text));
        let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
        Ok(response)
    }

    pub(super) async fn show_vulnerabilities(
        &self,
        project: &Project,
        name: &RepositoryName,
        reference: &Reference,
    ) -> Result<Response<Payload>, Failure> {
        let digest = self.digest_of(name, reference).await?;
        // so that what was recorded at another node is seen here
        let known = self.read(|records| records.scan_of(name, &digest)).await?;
        if known.is_none_or(|known| known.report.is_none()) {
            let images =
                self.read(|records| super::artifacts::listed_in(records, name, &digest)).await?;
            if let Some(first) = images.first() {
                let message = format!(
                    "{name}@{digest} is an index of {} images; ask about one of them, for instance {name}@{first}",
                    images.len()
                );
                return Err(Failure::new(Code::NotFound, message));
            }
            let of = &project.name;
            let message = format!("{name}@{digest} in project {of} has no report; scan it first");
            return Err(Failure::new(Code::NotFound, message));
        }
        let Some(body) = self.scans.report_body(name, &digest, write_report).await? else {
            return Err(missing(&format!("a report about {name}@{digest}")));
        };
        let mut response = Response::new(Payload::full(body));
        let json = header::HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        Ok(response)
    }

    pub(super) async fn show_sbom(
        &self,
        request: &Request,
        name: &RepositoryName,
        reference: &Reference,
    ) -> Result<Response<Payload>, Failure> {
        let digest = self.digest_of(name, reference).await?;
        let kind = match request.query("format") {
            None | Some("spdx") => sbom::SPDX,
            Some("cyclonedx") => sbom::CYCLONEDX,
            Some(_) => return Err(bad("format is spdx or cyclonedx")),
        };
        // so that what was pushed at another node is seen here
        self.read(|records| records.has_manifest(name, &digest)).await?;
        let (document, from) = match self.scans.attached_sbom(name, &digest, kind).await? {
            Some(came) => (came.document, came.artifact.to_string()),
            None => match self.scans.sbom(name, &digest, kind).await? {
                Some(made) => (made, "made".to_owned()),
                None => {
                    let message = format!(
                        "there is no SBOM of {name}@{digest} yet: scan it first (atoll scan)"
                    );
                    return Err(Failure::new(Code::NotFound, message));
                }
            },
        };
        let mut response = Response::new(Payload::full(document));
        if let Ok(from) = header::HeaderValue::from_str(&from) {
            response.headers_mut().insert(FROM, from);
        }
        response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
        Ok(response)
    }

    pub(super) async fn show_system_allowlist(&self) -> Result<Response<Payload>, Failure> {
        let list = self.read(|records| records.system_allowlist()).await?;
        Ok(json_answer(StatusCode::OK, &show_allowlist(&list, 0)))
    }

    pub(super) async fn set_system_allowlist(
        &self,
        mut request: Request,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let written: AllowlistBody = body(&mut request).await?;
        let change = ScannerChange::Allow(written.checked()?);
        self.propose(Command::Scanner(Box::new(change)), "the allowlist", by).await?;
        Ok(answer(StatusCode::OK))
    }

    /// Sets a project's own allowlist.
    pub(super) async fn set_allowlist(
        &self,
        project: &ProjectName,
        list: Allowlist,
        by: &Actor,
    ) -> Result<(), Failure> {
        let change = ScanChange::Allow { project: project.clone(), list };
        let change = rules::ledger::change::Change::Scan(Box::new(change));
        self.writes.commit(project, WriteKind::Fenced(change), by).await?;
        Ok(())
    }

    /// Makes or removes the schedule of a project's scans, if `metadata` says something of it.
    pub(super) async fn schedule_scans(
        &self,
        name: &ProjectName,
        metadata: &BTreeMap<String, String>,
        by: &Actor,
    ) -> Result<(), Failure> {
        let Some(written) = metadata.get(SCHEDULE) else { return Ok(()) };
        self.writes.check_level(Level::SCANS)?;
        let task = Rescans::task(name, &by.name);
        self.set_schedule(rescans::KIND, task, schedule(written)?, by).await
    }
}
