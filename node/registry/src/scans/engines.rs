//! Which scanner looks into a project's images: the one that is built in, or another one. What comes out
//! is the same for those who decide about pulls.

use std::sync::Arc;

use rules::ledger::records::Look;
use rules::ledger::scanners::{Elsewhere, LookForScanners, ScannerRecord};
use rules::ledger::scanning::{LookForScans, Report};
use rules::people::passes::ScanPass;
use rules::policies::vulnerabilities::chosen_scanner;
use rules::words::digest::Digest;
use rules::words::moment::Timestamp;
use rules::words::names::{RepositoryName, ScannerId};

use super::adapters::{Adapters, ToScan};
use super::database::Databases;
use super::layers::Reading;
use super::{ScanError, Scans};
use crate::blobs::rechecks::Rechecks;
use crate::proxies::confirming::Confirming;

/// What the engines need.
pub struct Engines {
    /// The database, for the engine that is built in.
    pub databases: Arc<Databases>,
    /// Other scanners.
    pub adapters: Arc<Adapters>,
    /// Checks copies whose bytes are not what they should be.
    pub rechecks: Arc<Rechecks>,
    /// What upstreams show, for images of proxy projects.
    pub confirming: Arc<Confirming>,
}

/// A scanner.
#[derive(Clone, Debug)]
pub(super) enum Engine {
    /// The one that is built in.
    Native,
    /// One that is registered: an adapter, or a program that this node starts.
    Adapter(Box<ScannerRecord>),
}

/// What a scan has found.
pub(super) struct Examined {
    /// What decides.
    pub(super) report: Report,
    /// The rest, if another scanner has looked.
    pub(super) elsewhere: Option<Box<Elsewhere>>,
}

/// A scan that the next try begins with the scanner that the project has then.
pub(super) fn given_up() -> ScanError {
    ScanError::Again("the project's scanner was disabled, or it has another one now".into())
}

impl Scans {
    /// The scanner of a repository's project, now.
    pub(super) fn engine(&self, repository: &RepositoryName) -> Result<Engine, ScanError> {
        let view = self.neighbours.records.view()?;
        let project = view.project(&repository.project())?.ok_or(ScanError::Stopped)?;
        let id = view.known_scanners()?.of(chosen_scanner(&project.metadata));
        if id == ScannerId::NATIVE {
            return Ok(Engine::Native);
        }
        // it was removed a moment ago
        let gone = || ScanError::Again("the project's scanner is not there any more".into());
        Ok(Engine::Adapter(Box::new(view.scanner(id)?.ok_or_else(gone)?)))
    }

    /// Asks registered scanners.
    pub fn adapters(&self) -> &Arc<Adapters> {
        &self.adapters
    }

    /// Has an image scanned by another scanner. SBOMs are made here all the same: no scanner need be
    /// able to.
    pub(super) async fn scan_elsewhere(
        &self,
        engine: &Engine,
        repository: &RepositoryName,
        digest: &Digest,
        number: u64,
        begun: Timestamp,
    ) -> Result<Examined, ScanError> {
        let image = self.image(repository, digest)?;
        let is_wanted = || self.is_wanted(repository, digest, number);
        let reading = Reading { scans: self, repository, digest, number: Some(number) };
        let mut found = match engine {
            Engine::Native => return self.scan(repository, digest, number, begun).await,
            // to the program they would be damaged images
            Engine::Adapter(scanner) if scanner.is_program() && image.attests() => {
                return self.scan(repository, digest, number, begun).await;
            }
            Engine::Adapter(scanner) if scanner.is_program() => {
                let manifest = self.neighbours.records.view()?.manifest(repository, digest)?;
                let manifest = manifest.ok_or(ScanError::Stopped)?;
                let goes_on = || is_wanted() && self.is_chosen(repository, scanner);
                let trivy = self.adapters.trivy();
                match trivy.examine(scanner, (&manifest, &image), &reading, goes_on).await {
                    Err(ScanError::Stopped) if is_wanted() => return Err(given_up()),
                    found => found?,
                }
            }
            Engine::Adapter(scanner) => {
                let to_scan = self.to_scan(repository, digest, number)?;
                let goes_on = || is_wanted() && self.is_chosen(repository, scanner);
                match self.adapters.examine(scanner, &to_scan, goes_on).await {
                    Err(ScanError::Stopped) if is_wanted() => return Err(given_up()),
                    found => found?,
                }
            }
        };
        if self.wants_sboms(repository)? && !image.attests() {
            let read = reading.all(&image).await;
            found.log += &match read {
                Ok((layers, _)) => self.keep_sboms_of(repository, digest, &layers).await?,
                Err(ScanError::Stopped) => return Err(ScanError::Stopped),
                Err(error) => format!("its SBOMs could not be made: {error}\n"),
            };
        }
        let (report, elsewhere) = found.recorded(number, begun)?;
        Ok(Examined { report, elsewhere: Some(Box::new(elsewhere)) })
    }

    /// Whether a repository's project still has its images scanned by this scanner.
    fn is_chosen(&self, repository: &RepositoryName, scanner: &ScannerRecord) -> bool {
        match self.engine(repository) {
            Ok(Engine::Adapter(now)) => now.id == scanner.id && !now.disabled,
            Ok(Engine::Native) | Err(_) => false,
        }
    }

    fn to_scan(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        number: u64,
    ) -> Result<ToScan, ScanError> {
        let view = self.neighbours.records.view()?;
        let project = view.project(&repository.project())?.ok_or(ScanError::Stopped)?;
        let manifest = view.manifest(repository, digest)?.ok_or(ScanError::Stopped)?;
        let (project, repository, digest) = (project.id, repository.clone(), *digest);
        Ok(ToScan {
            pass: ScanPass { project, repository, digest, number },
            media_type: manifest.media_type,
            most: self.terms.timeout,
        })
    }
}
