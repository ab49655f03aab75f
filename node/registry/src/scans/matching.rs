//! Reports made anew when the database changes: from what is kept of the layers, without reading
//! them again.

use std::time::Duration;

use futures::StreamExt;
use ground::clock;
use ground::supervise::at_length;
use rules::ledger::events::Actor;
use rules::ledger::level::Level;
use rules::ledger::records::{Look, Project, RecordError};
use rules::ledger::scanning::{LookForScans, Report, ScanChange};
use rules::words::digest::Digest;
use rules::words::moment::Timestamp;
use rules::words::names::RepositoryName;
use tracing::{info, warn};

use super::{ENGINE, ScanError, Scans, insufficient, judge, weaknesses};
use crate::writes::Refusal;

/// The time between two looks for a new database.
const LOOK: Duration = Duration::from_secs(2);
/// How many reports are on their way into the ledger at a time.
const TOGETHER: usize = 32;
/// The time until what could not be matched is tried again.
const AGAIN: Duration = Duration::from_secs(30);

/// An image with a report, and when that was made.
type Reported = (Timestamp, RepositoryName, Digest);

impl Scans {
    /// Looks for as long as the node runs whether reports are of an earlier database.
    pub(super) async fn match_again(&self) {
        loop {
            let mut wait = LOOK;
            match at_length(|| self.unmatched()) {
                Ok(projects) => {
                    for (project, database) in projects {
                        if let Err(error) = self.match_project(&project, database).await {
                            warn!(project = %project.name, %error, "not all reports are of the new database");
                            wait = AGAIN;
                        }
                    }
                }
                Err(error) => warn!(%error, "projects with earlier reports cannot be found"),
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// This node's projects whose reports are of an earlier database than the one that is used and
    /// open here.
    fn unmatched(&self) -> Result<Vec<(Project, Digest)>, RecordError> {
        let view = self.neighbours.records.view()?;
        if view.level()? < Level::SCANS || !self.is_equipped(&*view)? {
            return Ok(Vec::new());
        }
        let Some(used) = view.scan_database()? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for project in self.own_projects(&*view)? {
            if view.matched_database(project.id)? != Some(used.digest) {
                found.push((project, used.digest));
            }
        }
        Ok(found)
    }

    async fn match_project(&self, project: &Project, database: Digest) -> Result<(), ScanError> {
        let (mut matched, mut changed) = (0_usize, 0_usize);
        let reported = at_length(|| self.reported(project, database))?;
        // their commits wait for each other's round trips otherwise
        let mut all = futures::stream::iter(reported)
            .map(|(_, repository, digest)| async move {
                self.match_image(&repository, &digest, database).await
            })
            .buffered(TOGETHER);
        while let Some(one) = all.next().await {
            changed += usize::from(one?);
            matched += 1;
        }
        drop(all);
        let change = ScanChange::Matched { project: project.name.clone(), database };
        self.commit(change, &Actor::mesh()).await?;
        if matched > 0 {
            info!(project = %project.name, matched, changed, "reports are of the new database");
        }
        Ok(())
    }

    /// Compares one image with the database. Returns whether its report says something else now.
    async fn match_image(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        database: Digest,
    ) -> Result<bool, ScanError> {
        match at_length(|| self.matched(repository, digest, database)) {
            Ok(Some(report)) => {
                self.record(repository, digest, report).await?;
                return Ok(true);
            }
            Ok(None) => {}
            Err(ScanError::Again(why)) if self.database()?.1 == database => {
                // a layer's contents are of another form, or were lost: it is read again
                info!(%repository, %digest, why, "an image is scanned again");
                self.ask(repository, vec![*digest], false, &Actor::mesh()).await?;
            }
            // it is gone, or the database changed again
            Err(ScanError::Stopped) => {}
            Err(error) => return Err(error),
        }
        Ok(false)
    }

    /// The images of a project with a report of another database, the newest report first.
    fn reported(&self, project: &Project, database: Digest) -> Result<Vec<Reported>, RecordError> {
        let view = self.neighbours.records.view()?;
        let mut found = Vec::new();
        view.each_scan(&project.name, |repository, digest, record| {
            let report = record
                .report
                .filter(|report| report.database != database && !report.is_from_elsewhere());
            found.extend(report.map(|report| (report.at, repository, digest)));
            Ok(())
        })?;
        found.sort_by_key(|(at, ..)| std::cmp::Reverse(*at));
        Ok(found)
    }

    /// The report by this database, if it says something else than the recorded one.
    fn matched(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        used: Digest,
    ) -> Result<Option<Report>, ScanError> {
        let known = self.neighbours.records.view()?.scan_of(repository, digest)?;
        let known = known.and_then(|known| known.report).ok_or(ScanError::Stopped)?;
        let image = self.image(repository, digest)?;
        let layers = self.kept_layers(&image)?;
        let gone = || ScanError::Again("the database changed again".into());
        let database = self.databases.opened(&used).ok_or_else(gone)?;
        let now = clock::timestamp();
        let judged = judge(&image, &layers, &database)?;
        let (insufficient, found) = (insufficient(&judged), weaknesses(&judged.findings));
        if known.found == found && known.insufficient == insufficient {
            return Ok(None);
        }
        let log = format!("{}{} findings in database {used}\n", known.log, judged.findings.len());
        let engine = ENGINE.to_owned();
        Ok(Some(Report {
            begun: now,
            at: now,
            engine,
            database: used,
            insufficient,
            found,
            log,
            ..known
        }))
    }

    async fn record(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        report: Report,
    ) -> Result<(), ScanError> {
        metrics::counter!("atoll_scan_reports_changed_total").increment(1);
        let (repository, digest) = (repository.clone(), *digest);
        match self.commit(ScanChange::Report { repository, digest, report }, &Actor::mesh()).await {
            Ok(_) | Err(Refusal::NotFound) => Ok(()),
            Err(refusal) => Err(refusal.into()),
        }
    }
}
