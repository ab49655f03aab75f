//! Other scanners, asked over Harbor's API for pluggable scanners (version 1.2).
//!
//! A scanner is believed in nothing but what it found: each answer has a limit of bytes and a deadline,
//! a redirect is not followed, and a scan has one deadline in all. It pulls the image with a pass for
//! that image alone, which ends with the scan.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use ground::clock;
use ground::supervise::{Tasks, at_length};
use http::{HeaderName, Method, StatusCode, header};
use mesh::secrets::Secrets;
use rules::ledger::scanners::{ScannerAuth, ScannerRecord, place};
use rules::people::passes::{SCANNER, ScanPass};
use rules::scanners::lately::Lately;
use rules::scanners::polling::Polling;
use rules::words::secret::Secret;
use scan::adapter::metadata::Metadata;
use scan::adapter::request::{
    Artifact, EnabledCapability, RegistryPlace, ScanAccepted, ScanRequest,
};
use scan::adapter::{self, report};
use tokio::sync::Semaphore;
use upstream::{AddressRule, Endpoint, Service, ServiceRequest, ServiceSettings, Trust};

use super::ScanError;
use super::elsewhere::FromElsewhere;
use super::not_well::NotWell;
use super::trivy::Trivy;
use crate::people::Access;

/// How long a scanner may take for one whole answer.
const ANSWER: Duration = Duration::from_secs(30);
/// The same where somebody waits to see whether it is well.
const WELL: Duration = Duration::from_secs(4);
/// The maximum length of a scanner's metadata, and of its answer to a scan request, in bytes.
const SHORT: usize = 64 << 10;
/// The maximum length of a report in bytes.
const LONG: usize = 32 << 20;
/// The maximum number of reports that are read at a time.
const REPORTS: usize = 8;
/// How much longer than a scan a pass is good, if the scan does not end it.
const GRACE: Duration = Duration::from_secs(60);
/// The time between two looks whether a scan is still wanted.
const LOOK: Duration = Duration::from_millis(500);

/// Where scanners pull from, and what a node may connect to for them.
#[derive(Clone)]
pub struct AdapterTerms {
    /// The addresses that may be connected to.
    pub rule: AddressRule,
    /// The certificates that are trusted.
    pub trust: Trust,
    /// The URL of this node for its clients.
    pub url: String,
    /// The URL of this node without what stands before it.
    pub internal_url: String,
}

/// An image that is to be scanned elsewhere.
pub(super) struct ToScan {
    pub(super) pass: ScanPass,
    pub(super) media_type: String,
    /// How long it may take in all.
    pub(super) most: Duration,
}

/// Asks scanners.
pub struct Adapters {
    access: Arc<Access>,
    secrets: Arc<Secrets>,
    trivy: Arc<Trivy>,
    terms: AdapterTerms,
    tasks: Tasks,
    /// Reports that are read at a time.
    reports: Semaphore,
    /// What scanners said of themselves, for whoever only looks.
    said: tokio::sync::Mutex<Lately<Result<Metadata, NotWell>>>,
}

impl Adapters {
    /// Nobody was asked yet.
    pub fn new(
        access: Arc<Access>,
        secrets: Arc<Secrets>,
        trivy: Arc<Trivy>,
        terms: AdapterTerms,
        tasks: Tasks,
    ) -> Self {
        let (reports, said) = (Semaphore::new(REPORTS), Default::default());
        Adapters { access, secrets, trivy, terms, tasks, reports, said }
    }

    /// What a scanner says of itself, or said lately: anybody who may pull may ask, and a
    /// scanner must not be asked as often.
    pub async fn said_lately(&self, scanner: &ScannerRecord) -> Result<Metadata, NotWell> {
        let mut said = self.said.lock().await;
        if let Some(said) = said.said(scanner.id, scanner.changed, clock::now()) {
            return said;
        }
        let metadata = self.metadata(scanner).await;
        said.says(scanner.id, scanner.changed, clock::now(), metadata.clone());
        metadata
    }

    /// What a scanner says of itself. Fails if it does not answer soon, or not as it should.
    pub async fn metadata(&self, scanner: &ScannerRecord) -> Result<Metadata, NotWell> {
        if scanner.is_program() {
            return self.trivy.metadata().await;
        }
        self.metadata_of(&self.service(scanner, WELL)?).await
    }

    /// The same of one that is not recorded yet, with its secret as it is.
    pub async fn ping(
        &self,
        scanner: &ScannerRecord,
        credential: Option<&Secret>,
    ) -> Result<Metadata, NotWell> {
        if scanner.is_program() {
            return self.trivy.metadata().await;
        }
        self.metadata_of(&self.service_with(scanner, credential, WELL)?).await
    }

    /// The program that is a scanner, too.
    pub(super) fn trivy(&self) -> &Trivy {
        &self.trivy
    }

    fn service(&self, scanner: &ScannerRecord, deadline: Duration) -> Result<Service, NotWell> {
        let sealed = scanner.credential.as_ref();
        let open = |sealed: &Secret| self.secrets.open(&place(scanner.id), sealed.expose());
        let credential = sealed.map(open).transpose()?;
        self.service_with(scanner, credential.as_ref(), deadline)
    }

    fn service_with(
        &self,
        scanner: &ScannerRecord,
        credential: Option<&Secret>,
        deadline: Duration,
    ) -> Result<Service, NotWell> {
        let endpoint = scanner.url.parse::<Endpoint>();
        let endpoint = endpoint.map_err(|e| NotWell::hopeless(format!("its url: {e}")))?;
        let trust = match scanner.skips_certificate {
            true => Trust::unchecked().map_err(|e| NotWell::hopeless(e.to_string()))?,
            false => self.terms.trust.clone(),
        };
        let authorization = credential.and_then(|secret| shown(scanner.auth, secret));
        let rule = self.terms.rule;
        let settings = ServiceSettings { endpoint, authorization, trust, rule, deadline };
        Ok(Service::new("scanner", settings, self.tasks.clone()))
    }

    async fn metadata_of(&self, service: &Service) -> Result<Metadata, NotWell> {
        let path = format!("{}/metadata", adapter::BASE);
        // Harbor asks for this version, and scanners know it
        let headers = [(header::ACCEPT, adapter::METADATA_1_0)];
        let asked = ServiceRequest {
            method: Method::GET,
            path: &path,
            headers: &headers,
            body: Bytes::new(),
            limit: SHORT,
        };
        let answer = service.ask(asked).await?;
        match answer.status {
            StatusCode::OK => Metadata::read(&answer.body).map_err(NotWell::hopeless),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let status = answer.status;
                Err(NotWell::hopeless(format!("it does not take the credentials ({status})")))
            }
            _ => Err(NotWell::of_status(&answer)),
        }
    }

    /// Has an image scanned. `is_wanted` says whether anybody still wants it.
    pub(super) async fn examine(
        &self,
        scanner: &ScannerRecord,
        image: &ToScan,
        is_wanted: impl Fn() -> bool,
    ) -> Result<FromElsewhere, ScanError> {
        let named = |error: NotWell| error.named(&scanner.name);
        if scanner.disabled {
            return Err(named(NotWell::hopeless("it is disabled")));
        }
        let mut polling = Polling::new(clock::now(), image.most);
        let service = self.service(scanner, ANSWER).map_err(named)?;
        let metadata = self.metadata_of(&service).await.map_err(named)?;
        let kind = metadata.report_type();
        let kind = kind.ok_or_else(|| named(NotWell::hopeless("it makes no report")))?;
        if !metadata.takes(&image.media_type) {
            let said = format!("it does not look into manifests of {}", image.media_type);
            return Err(named(NotWell::hopeless(said)));
        }
        let request = self.request(scanner, &metadata, image, kind).await?;
        let id = while_wanted(begin(&service, request), &is_wanted).await?.map_err(named)?;
        let path = format!("{}/scan/{id}/report", adapter::BASE);
        let headers = [(header::ACCEPT, kind)];
        loop {
            let Some(mut wait) = polling.wait(clock::now()) else {
                let seconds = image.most.as_secs();
                let said = format!("it had no report after {seconds} s (scan.timeout)");
                return Err(named(NotWell::hopeless(said)));
            };
            while wait > Duration::ZERO {
                let some = wait.min(LOOK);
                tokio::time::sleep(some).await;
                wait -= some;
                if !is_wanted() {
                    return Err(ScanError::Stopped);
                }
            }
            let asked = ServiceRequest {
                method: Method::GET,
                path: &path,
                headers: &headers,
                body: Bytes::new(),
                limit: LONG,
            };
            // so few reports are in memory at a time, whatever scanners send
            let ask = async {
                let one_of_few = self.reports.acquire().await;
                (service.ask(asked).await, one_of_few)
            };
            let (answer, _one_of_few) = while_wanted(ask, &is_wanted).await?;
            let answer = answer.map_err(|error| named(error.into()))?;
            match answer.status {
                StatusCode::OK => {
                    let read = at_length(|| report::read(&answer.body, &image.pass.digest));
                    let reported = read.map_err(|why| named(NotWell::hopeless(why)))?;
                    let url = &scanner.url;
                    return Ok(FromElsewhere {
                        scanner: scanner.id,
                        name: reported.scanner.unwrap_or(metadata.scanner.clone()),
                        updated: metadata.database_updated(),
                        insufficient: reported.insufficient,
                        findings: reported.findings,
                        log: format!("scanned by {} at {url}, as its scan {id}\n", scanner.name),
                    });
                }
                StatusCode::FOUND => {
                    let said = answer.headers.get(adapter::REFRESH_AFTER);
                    let said = said.and_then(|value| value.to_str().ok());
                    polling.handle_not_yet(clock::now(), said);
                }
                // it was started anew, and has forgotten the scan
                StatusCode::NOT_FOUND => {
                    return Err(named(NotWell::again("it does not know the scan any more")));
                }
                // its own way to say that a scan has failed
                StatusCode::INTERNAL_SERVER_ERROR => {
                    let NotWell { said, .. } = NotWell::of_status(&answer);
                    return Err(named(NotWell::hopeless(said)));
                }
                _ => return Err(named(NotWell::of_status(&answer))),
            }
        }
    }

    /// The body that asks for a scan, with a pass.
    async fn request(
        &self,
        scanner: &ScannerRecord,
        metadata: &Metadata,
        image: &ToScan,
        kind: &str,
    ) -> Result<Bytes, ScanError> {
        let pass = self.access.scan_pass(image.pass.clone(), image.most + GRACE).await;
        let pass = pass.map_err(|error| ScanError::Again(error.to_string()))?;
        let authorization = match metadata.wants_token() {
            true => format!("Bearer {}", pass.expose()),
            false => basic(&format!("{SCANNER}:{}", pass.expose())),
        };
        let url = if scanner.internal { &self.terms.internal_url } else { &self.terms.url };
        let request = ScanRequest {
            registry: RegistryPlace { url: url.clone(), authorization },
            artifact: Artifact {
                repository: image.pass.repository.to_string(),
                digest: image.pass.digest.to_string(),
                tag: String::new(),
                mime_type: image.media_type.clone(),
            },
            enabled_capabilities: Some(vec![EnabledCapability {
                kind: "vulnerability".into(),
                produces_mime_types: Some(vec![kind.to_owned()]),
            }]),
        };
        let body = serde_json::to_vec(&request);
        body.map(Bytes::from).map_err(|error| ScanError::Hopeless(error.to_string()))
    }
}

/// Does `work` for as long as somebody wants it: an answer may drip for minutes.
async fn while_wanted<T>(
    work: impl Future<Output = T>,
    is_wanted: &impl Fn() -> bool,
) -> Result<T, ScanError> {
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return Ok(done),
            () = tokio::time::sleep(LOOK) => {
                if !is_wanted() {
                    return Err(ScanError::Stopped);
                }
            }
        }
    }
}

/// Asks for a scan. Returns its number.
async fn begin(service: &Service, body: Bytes) -> Result<String, NotWell> {
    let path = format!("{}/scan", adapter::BASE);
    let headers =
        [(header::CONTENT_TYPE, adapter::SCAN_REQUEST), (header::ACCEPT, adapter::SCAN_RESPONSE)];
    let asked =
        ServiceRequest { method: Method::POST, path: &path, headers: &headers, body, limit: SHORT };
    let answer = service.ask(asked).await?;
    match answer.status.is_success() {
        true => ScanAccepted::read(&answer.body).map(|one| one.id).map_err(NotWell::hopeless),
        false => Err(NotWell::of_status(&answer)),
    }
}

fn basic(pair: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(pair))
}

/// The header that shows a secret.
fn shown(auth: ScannerAuth, secret: &Secret) -> Option<(HeaderName, Secret)> {
    let secret = secret.expose();
    Some(match auth {
        ScannerAuth::Nothing => return None,
        ScannerAuth::Basic => (header::AUTHORIZATION, basic(secret).into()),
        ScannerAuth::Bearer => (header::AUTHORIZATION, format!("Bearer {secret}").into()),
        ScannerAuth::ApiKey => {
            let name = HeaderName::try_from(adapter::API_KEY).ok()?;
            (name, secret.as_str().into())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_shown_as_the_scanner_wants_it() {
        let of = |auth| {
            let (name, value) = shown(auth, &"name:word".into())?;
            Some(format!("{name}: {}", value.expose()))
        };
        assert_eq!(of(ScannerAuth::Nothing), None);
        let basic = of(ScannerAuth::Basic);
        assert_eq!(basic.as_deref(), Some("authorization: Basic bmFtZTp3b3Jk"));
        assert_eq!(of(ScannerAuth::Bearer).as_deref(), Some("authorization: Bearer name:word"));
        let key = of(ScannerAuth::ApiKey);
        assert_eq!(key.as_deref(), Some("x-scanneradapter-api-key: name:word"));
    }
}
