//! Answers requests of other nodes about the registry. `mesh::service` answers those about the mesh
//! itself.

use std::sync::Arc;
use std::time::Duration;

use mesh::links::{Guest, LinkError};
use mesh::service::Rooms;
use mesh::transfer::{CopyIn, RelayIn, Wanted};
use quinn::SendStream;
use registry::blobs::collecting::Collecting;
use registry::blobs::copies::Copies;
use registry::blobs::flights::Flights;
use registry::blobs::outgoing::Outgoing;
use registry::blobs::rechecks::Rechecks;
use registry::events::Witness;
use registry::jobs::preheats::Preheats;
use registry::jobs::queue::Jobs;
use registry::jobs::repairs::tallies::Tallies;
use registry::people::Access;
use registry::proxies::resolving::Proxies;
use registry::pushes::relaying::Uploads;
use registry::scans::Scans;
use registry::signatures::seeking::Seeking;
use registry::view::neighbours::Neighbours;
use registry::view::{changes, look};
use registry::writes::Writes;
use rules::blobs::uploads::RelayedStep;
use rules::edges;
use rules::ledger::level::{Build, Level};
use rules::ledger::policies::AT_ONCE;
use rules::ledger::records::Look;
use rules::members::door::Standing;
use rules::wire::{Answer, Ask, CacheAsk, JobAsk, MAX_HAVE, Resolution};
use rules::words::digest::Digest;
use rules::words::names::{NodeId, RepositoryName, Revision};
use store::Store;

/// The rooms that answer peers.
pub struct Peers {
    /// The other nodes.
    pub neighbours: Arc<Neighbours>,
    /// Checks credentials that edges were shown.
    pub access: Arc<Access>,
    /// The blobs of this node.
    pub store: Arc<Store>,
    /// The blobs that are on their way.
    pub flights: Arc<Flights>,
    /// Sends blobs to peers.
    pub outgoing: Outgoing,
    /// Copies of uploads.
    pub copies: Arc<Copies>,
    /// Uploads.
    pub uploads: Arc<Uploads>,
    /// Writes of projects whose primary this node is.
    pub writes: Arc<Writes>,
    /// Resolves references of proxy projects whose primary this node is.
    pub proxies: Arc<Proxies>,
    /// What nothing refers to any more.
    pub collecting: Arc<Collecting>,
    /// Checks copies that peers complain about.
    pub rechecks: Arc<Rechecks>,
    /// Fetches blobs before clients ask for them.
    pub preheats: Arc<Preheats>,
    /// The runs of jobs of this node.
    pub jobs: Arc<Jobs>,
    /// What was pulled through edges.
    pub witness: Arc<Witness>,
    /// Sums of what this node keeps.
    pub tallies: Arc<Tallies>,
    /// Asks for scans of what edges' clients pull of proxy projects.
    pub scans: Arc<Scans>,
    /// Asks upstreams for signatures of what is cached.
    pub seeking: Arc<Seeking>,
    /// How long a grant lasts.
    pub grant: Duration,
}

impl Rooms for Peers {
    async fn answer(&self, from: Guest, ask: Ask) -> Answer {
        if self.neighbours.is_edge() {
            return self.answer_as_edge(ask).await;
        }
        if let Some(repository) = about(&ask)
            && !self.may_serve(&from, repository)
        {
            let project = repository.project();
            return Answer::Refused(format!("this edge may not serve project {project}"));
        }
        match ask {
            Ask::Write(write) => Answer::Written(self.writes.commit_here(write).await),
            Ask::Have { digests, repository } => self.have(&digests, repository.as_ref()).await,
            Ask::Recheck(digest) => self.recheck(digest),
            Ask::Condition(digests) => self.condition(&digests),
            Ask::Changed { verdicts, gone } => self.changed(from.node, verdicts, gone),
            Ask::Spare { upstream, everything, millis } => {
                self.proxies.upstreams().spare(upstream, everything, Duration::from_millis(millis));
                Answer::Spared
            }
            Ask::Look(lookups) => {
                let (records, caches) = (&self.neighbours.records, self.proxies.caches());
                let edge = self.neighbours.name_of(from.node);
                match look(records, caches, &edge, &lookups).await {
                    Ok((found, fresh)) => Answer::Look(found, fresh),
                    Err(reason) => Answer::Refused(reason),
                }
            }
            Ask::Cached(ask) => self.cached(ask).await,
            Ask::Identify(credentials) => {
                match self.access.identify(from.node, credentials).await {
                    Ok(verdict) => Answer::Identified(verdict),
                    Err(_) => Answer::Refused("the credentials could not be checked".into()),
                }
            }
            Ask::Token { name, password, scopes } => {
                match self.access.token_for(from.node, &name, &password, &scopes).await {
                    Ok(signed) => Answer::Token(signed),
                    Err(_) => Answer::Refused("the token could not be signed".into()),
                }
            }
            Ask::Replicate { digest, sources, repository } => {
                let grant = repository.as_ref().map(|r| (r, self.grant));
                Answer::Replicated(self.flights.replicate(digest, sources, grant).await)
            }
            Ask::Resolve { repository, reference } => match reference.parse() {
                Ok(reference) => {
                    let resolution = self.proxies.resolve_here(&repository, &reference).await;
                    if from.standing != Standing::Replica {
                        self.saw_edge(from.node, &repository, &resolution);
                    }
                    Answer::Resolved(resolution)
                }
                Err(error) => Answer::Refused(error.to_string()),
            },
            Ask::Referrers { repository, subject, query } => {
                Answer::Referring(self.proxies.referrers_here(&repository, &subject, &query).await)
            }
            Ask::Tags { repository, query } => {
                Answer::Tags(self.proxies.lists().tags_here(&repository, &query).await)
            }
            Ask::Seek { repository, digest, client } => {
                let asker = (from.node, client);
                Answer::Sought(self.seeking.seek_here(asker, &repository, &digest).await)
            }
            Ask::Revoke { repository, digest } => {
                match self.store.revoke(digest, &repository).await {
                    Ok(revoked) => Answer::Revoked(revoked),
                    Err(error) => Answer::Refused(error.to_string()),
                }
            }
            Ask::Preheat { digest, via } => {
                Answer::Preheated(self.preheats.fetch_here(digest, via).await)
            }
            Ask::Collection(ask) => match self.collecting.answer(ask).await {
                Ok(answer) => Answer::Collection(answer),
                Err(reason) => Answer::Refused(reason),
            },
            Ask::Pulled(pulls) => {
                // an edge is believed about what it may serve
                let pulls = pulls.into_iter().take(AT_ONCE);
                let heard = pulls.filter(|pull| self.may_serve(&from, &pull.repository));
                self.witness.pull_times().hear(heard);
                Answer::Pulled
            }
            Ask::Scrub { now } => self.scrub(now),
            Ask::Upkeep(ask) => Answer::Upkeep(self.neighbours.upkeep.answer(&ask)),
            Ask::Tally { project, shards, at } => {
                match self.tallies.tally(&project, &shards, at).await {
                    Ok(tally) => Answer::Tally(tally),
                    Err(reason) => Answer::Refused(reason),
                }
            }
            Ask::Job(JobAsk::Report(id)) => Answer::Job(self.jobs.report_here(id)),
            Ask::Build => self.build(),
            // the mesh answers these itself
            Ask::Raft { .. }
            | Ask::Propose(_)
            | Ask::ReadIndex
            | Ask::Introduce(_)
            | Ask::Join(_)
            | Ask::Renew { .. }
            | Ask::Present
            | Ask::Fingerprint(_)
            | Ask::Sealing(_)
            | Ask::Announce(_)
            | Ask::Returned { .. } => Answer::Refused("this question is the mesh's".into()),
        }
    }

    async fn fetch(&self, from: Guest, wanted: Wanted, send: SendStream) -> Result<(), LinkError> {
        if let Some(via) = &wanted.via
            && !self.may_serve(&from, via)
        {
            let project = via.project();
            return Err(LinkError::Refused(format!("this edge may not serve project {project}")));
        }
        self.outgoing.serve(from.node, wanted, send).await
    }

    async fn copy(
        &self,
        from: NodeId,
        repository: RepositoryName,
        copy: CopyIn,
    ) -> Result<(), LinkError> {
        self.copies.receive(from, repository, copy).await
    }

    async fn upload(&self, step: RelayedStep, relay: RelayIn) -> Result<(), LinkError> {
        self.uploads.receive(step, relay, self.grant).await
    }
}

/// The repository that a question of an edge is about, if it names one.
fn about(ask: &Ask) -> Option<&RepositoryName> {
    match ask {
        Ask::Have { repository, .. } => repository.as_ref(),
        Ask::Resolve { repository, .. }
        | Ask::Referrers { repository, .. }
        | Ask::Seek { repository, .. }
        | Ask::Tags { repository, .. } => Some(repository),
        _ => None,
    }
}

impl Peers {
    /// Whether a peer may have what the repository has: a replica always, an edge if the project
    /// admits it.
    fn may_serve(&self, from: &Guest, repository: &RepositoryName) -> bool {
        if from.standing == Standing::Replica {
            return true;
        }
        let project =
            self.neighbours.records.view().and_then(|view| view.project(&repository.project()));
        match project {
            Ok(Some(project)) => edges::may_serve(&project, &self.neighbours.name_of(from.node)),
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// An edge cannot ask for a scan of what its clients pull, so that is done here.
    fn saw_edge(&self, edge: NodeId, repository: &RepositoryName, said: &Resolution) {
        let (Resolution::Fresh(digest) | Resolution::Stale(digest, _)) = said else { return };
        let project =
            self.neighbours.records.view().and_then(|view| view.project(&repository.project()));
        if let Ok(Some(project)) = project {
            self.scans.pulled_at_edge(project, (repository.clone(), *digest), edge);
        }
    }

    /// The answers of an edge, which only says what it holds.
    async fn answer_as_edge(&self, ask: Ask) -> Answer {
        match ask {
            Ask::Have { digests, repository } => self.have(&digests, repository.as_ref()).await,
            Ask::Recheck(digest) => self.recheck(digest),
            Ask::Build => self.build(),
            Ask::Scrub { now } => self.scrub(now),
            _ => Answer::Refused("this node is an edge, which has no ledger; ask a replica".into()),
        }
    }

    async fn cached(&self, ask: CacheAsk) -> Answer {
        if let CacheAsk::Resolve { repository, reference, has } = ask {
            return Answer::Cached(self.proxies.answer(&repository, &reference, has).await);
        }
        match self.proxies.caches().answer(ask).await {
            Ok(Some(answer)) => Answer::Cached(answer),
            Ok(None) => Answer::Refused("this question is for a project's primary".into()),
            Err(error) => Answer::Refused(error.to_string()),
        }
    }

    fn changed(&self, edge: NodeId, verdicts: u64, gone: Revision) -> Answer {
        let records = &self.neighbours.records;
        match changes(records, &self.neighbours.name_of(edge), verdicts, gone) {
            Ok(changes) => Answer::Changed(changes),
            Err(reason) => Answer::Refused(reason),
        }
    }

    fn condition(&self, digests: &[Digest]) -> Answer {
        if digests.len() > MAX_HAVE {
            return Answer::Refused(format!("more than {MAX_HAVE} blobs in one question"));
        }
        Answer::Condition(self.store.condition(digests))
    }

    fn scrub(&self, now: bool) -> Answer {
        match self.rechecks.progress(now) {
            Ok(progress) => Answer::Scrub(progress),
            Err(error) => Answer::Refused(error.to_string()),
        }
    }

    fn recheck(&self, digest: Digest) -> Answer {
        self.rechecks.complained(digest);
        Answer::Rechecking
    }

    async fn have(&self, digests: &[Digest], repository: Option<&RepositoryName>) -> Answer {
        if digests.len() > MAX_HAVE {
            return Answer::Refused(format!("more than {MAX_HAVE} blobs in one question"));
        }
        match self.store.stocks(digests, repository).await {
            Ok(stock) => Answer::Have(stock),
            Err(error) => Answer::Refused(error.to_string()),
        }
    }

    /// This build, and the feature level that this node has applied.
    fn build(&self) -> Answer {
        let level =
            self.neighbours.records.view().and_then(|view| view.level()).unwrap_or(Level::FIRST);
        Answer::Build(Build::of_this(env!("CARGO_PKG_VERSION"), level))
    }
}
