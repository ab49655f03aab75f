//! Builds the rooms, in reading order. Each gets the rooms below it.

use std::io;
use std::sync::Arc;

use crate::http::drills::Drills;
use config::Settings;
use ground::supervise::Tasks;
use mesh::secrets::Secrets;
use metrics_exporter_prometheus::PrometheusHandle;
use registry::blobs::checkups;
use registry::blobs::collecting::Collecting;
use registry::blobs::copies::Copies;
use registry::blobs::flights::Flights;
use registry::blobs::liars::Liars;
use registry::blobs::outgoing::Outgoing;
use registry::blobs::pacing::Pacing;
use registry::blobs::rechecks::Rechecks;
use registry::blobs::transfers::Transfers;
use registry::events::Witness;
use registry::events::purging::Purging;
use registry::jobs::Work;
use registry::jobs::preheats::Preheats;
use registry::jobs::queue::Jobs;
use registry::jobs::repairs::Repairs;
use registry::jobs::repairs::tallies::Tallies;
use registry::jobs::retentions::Retentions;
use registry::people::Access;
use registry::proxies::ProxyTerms;
use registry::proxies::confirming::Confirming;
use registry::proxies::mirrors::Mirrors;
use registry::proxies::moving;
use registry::proxies::questions::Questions;
use registry::proxies::resolving::Proxies;
use registry::pulls::Pulls;
use registry::pushes::relaying::Uploads;
use registry::pushes::sessions::Sessions;
use registry::scans::Scans;
use registry::scans::adapters::Adapters;
use registry::scans::database::Databases;
use registry::scans::engines::Engines;
use registry::scans::everything::Everything;
use registry::scans::exports::Exports;
use registry::scans::rescans::Rescans;
use registry::scans::trivy::Trivy;
use registry::signatures::Signatures;
use registry::signatures::ruling::Ruling;
use registry::signatures::seeking::Seeking;
use registry::signatures::signing::Signing;
use registry::upstreams::Upstreams;
use registry::view::caches::Caches;
use registry::view::neighbours::Neighbours;
use registry::writes::{Writes, counting, expiring, indexing};
use rules::ledger::admitted::Admissions;
use store::Store;
use tokio::sync::Semaphore;

use super::serving::Serving;
use super::terms;
use crate::atoll::Atoll;
use crate::harbor::Harbor;
use crate::http::door::Door;
use crate::oci::{MOST_ADMISSIONS, Registry};
use crate::peers::Peers;

/// What the rooms are built on.
pub(super) struct Foundation<'a> {
    pub(super) settings: &'a Settings,
    pub(super) neighbours: Arc<Neighbours>,
    pub(super) store: Arc<Store>,
    /// The tasks of everything that is not a client's connection.
    pub(super) tasks: Tasks,
}

/// Blobs on their way.
struct Blobs {
    transfers: Arc<Transfers>,
    liars: Arc<Liars>,
    upstreams: Arc<Upstreams>,
    flights: Arc<Flights>,
    pacing: Arc<Pacing>,
    copies: Arc<Copies>,
    rechecks: Arc<Rechecks>,
    collecting: Arc<Collecting>,
}

impl Blobs {
    fn build(on: &Foundation<'_>, secrets: &Arc<Secrets>) -> io::Result<Self> {
        let Foundation { settings, neighbours, store, tasks, .. } = on;
        let (transfers, transfer_terms) =
            (Arc::new(Transfers::default()), terms::transfer(settings));
        let liars = Arc::new(Liars::new(neighbours.clone(), tasks.clone()));
        let upstreams_terms = terms::upstreams(settings)?;
        let upstreams =
            Upstreams::new(neighbours.clone(), secrets.clone(), upstreams_terms, tasks.clone());
        let flights = Flights::new(
            neighbours.clone(),
            store.clone(),
            transfers.clone(),
            liars.clone(),
            transfer_terms,
            upstreams.clone(),
            tasks.clone(),
        );
        let pacing = Pacing::new(neighbours.clone(), terms::caps(settings)?);
        let copies = Arc::new(Copies {
            neighbours: neighbours.clone(),
            store: store.clone(),
            transfers: transfers.clone(),
            pacing: pacing.clone(),
            terms: transfer_terms,
            grant: settings.uploads.expire_after,
            arriving: Default::default(),
            tasks: tasks.clone(),
        });
        let collecting =
            Collecting::new(neighbours.clone(), store.clone(), terms::collection(settings))
                .map_err(io::Error::other)?;
        let rechecks = Rechecks::new(
            neighbours.clone(),
            store.clone(),
            flights.clone(),
            collecting.clone(),
            tasks.clone(),
            settings.repair.read_all,
        );
        Ok(Blobs { transfers, liars, upstreams, flights, pacing, copies, rechecks, collecting })
    }
}

/// All rooms of the registry.
pub(super) struct Rooms {
    secrets: Arc<Secrets>,
    blobs: Blobs,
    writes: Arc<Writes>,
    uploads: Arc<Uploads>,
    pulls: Arc<Pulls>,
    proxies: Arc<Proxies>,
    mirrors: Arc<Mirrors>,
    questions: Arc<Questions>,
    preheats: Arc<Preheats>,
    tallies: Arc<Tallies>,
    repairs: Arc<Repairs>,
    jobs: Arc<Jobs>,
    scans: Arc<Scans>,
    signatures: Arc<Signatures>,
    seeking: Arc<Seeking>,
    witness: Arc<Witness>,
    purging: Arc<Purging>,
    access: Arc<Access>,
}

impl Rooms {
    /// Builds them. Nothing is asked of other nodes or upstreams yet.
    pub(super) fn build(on: &Foundation<'_>, secrets: Arc<Secrets>) -> io::Result<Self> {
        let Foundation { settings, neighbours, store, tasks } = on;
        let records = &neighbours.records;
        let blobs = Blobs::build(on, &secrets)?;
        let Blobs { upstreams, flights, copies, rechecks, collecting, .. } = &blobs;
        let writes = Writes::new(
            neighbours.clone(),
            store.clone(),
            flights.clone(),
            collecting.clone(),
            terms::writes(settings),
            tasks.clone(),
        );
        let (max_open, expire_after) =
            (settings.uploads.max_open as usize, settings.uploads.expire_after);
        let sessions = Sessions::new(store.clone(), copies.clone(), max_open, expire_after);
        let uploads = Arc::new(Uploads {
            sessions: sessions.map_err(io::Error::other)?,
            neighbours: neighbours.clone(),
            terms: terms::transfer(settings),
        });
        let caches = Caches::new(neighbours.clone());
        let confirming = Confirming::new(
            neighbours.clone(),
            caches.clone(),
            store.clone(),
            upstreams.clone(),
            terms::transfer(settings),
            settings.upstreams.missing_for,
            tasks.clone(),
        );
        let proxy_terms = ProxyTerms {
            fresh_for: settings.upstreams.fresh_for,
            missing_for: settings.upstreams.missing_for,
        };
        let proxies = Proxies::new(
            neighbours.clone(),
            caches.clone(),
            writes.clone(),
            upstreams.clone(),
            confirming.clone(),
            proxy_terms,
            tasks.clone(),
        );
        let mirrors = Mirrors::new(records.clone(), terms::mirrors(&settings.mirrors));
        let preheats = Preheats::new(
            neighbours.clone(),
            store.clone(),
            flights.clone(),
            proxies.clone(),
            mirrors.clone(),
            tasks.clone(),
        );
        let tallies = Tallies::new(neighbours.clone(), store.clone());
        let repairs = Repairs::new(
            neighbours.clone(),
            store.clone(),
            flights.clone(),
            tallies.clone(),
            terms::keeper(settings),
        );
        let confirm_over = settings.retention.confirm_over;
        let retentions = Retentions::new(records.clone(), writes.clone(), confirm_over);
        let access = Access::new(
            records.clone(),
            secrets.clone(),
            mirrors.clone(),
            terms::identity_providers(settings, tasks)?,
            terms::access(settings),
        );
        let scan_terms = terms::scans(settings);
        let databases = Databases::new(
            neighbours.clone(),
            store.clone(),
            flights.clone(),
            &settings.data_dir,
            &scan_terms,
        );
        let adapters = Arc::new(Adapters::new(
            access.clone(),
            secrets.clone(),
            Arc::new(Trivy::new(terms::trivy(settings), databases.clone())),
            terms::adapters(settings)?,
            tasks.clone(),
        ));
        let scans = Scans::new(
            neighbours.clone(),
            store.clone(),
            flights.clone(),
            writes.clone(),
            Engines {
                databases,
                adapters,
                rechecks: blobs.rechecks.clone(),
                confirming: confirming.clone(),
            },
            scan_terms,
            tasks.clone(),
        );
        let signatures = Signatures::new(
            neighbours.clone(),
            store.clone(),
            flights.clone(),
            writes.clone(),
            confirming.clone(),
            terms::signatures(settings, tasks)?,
            tasks.clone(),
        );
        let seeking = Seeking::new(signatures.clone(), proxies.clone(), proxy_terms.missing_for);
        let signing = Arc::new(Signing(signatures.clone()));
        let rescans = Arc::new(Rescans(scans.clone()));
        let exports = Arc::new(Exports(neighbours.clone()));
        let kinds: Vec<Arc<dyn Work>> =
            vec![preheats.clone(), repairs.clone(), retentions, rescans, exports, signing];
        let jobs = Jobs::new(neighbours.clone(), kinds, terms::jobs(settings), tasks.clone());
        let witness = Witness::new(neighbours.clone(), terms::events(settings));
        let purging = Purging::new(neighbours.clone(), terms::writes(settings).commit);
        let questions = Arc::new(Questions::new(terms::questions(settings)));
        let pulls = Pulls::new(
            store.clone(),
            flights.clone(),
            rechecks.clone(),
            confirming.clone(),
            questions.clone(),
            terms::pulls(settings),
            tasks.clone(),
        );
        Ok(Rooms {
            secrets,
            blobs,
            writes,
            uploads,
            pulls,
            proxies,
            mirrors,
            questions,
            preheats,
            tallies,
            repairs,
            jobs,
            scans,
            signatures,
            seeking,
            witness,
            purging,
            access,
        })
    }

    /// Who may do what.
    pub(super) fn access(&self) -> &Arc<Access> {
        &self.access
    }

    /// Begins to bring records of an earlier feature level into the form of this one.
    pub(super) fn start_upgrading(&self, on: &Foundation<'_>) {
        let caches = self.proxies.caches().clone();
        moving::start(on.neighbours.clone(), caches, self.writes.clone(), &on.tasks);
        indexing::start(self.writes.clone(), &on.tasks);
        counting::start(self.writes.clone(), &on.tasks);
        expiring::start(self.writes.clone(), &on.tasks);
    }

    /// Begins background work.
    pub(super) fn start_jobs(&self, on: &Foundation<'_>) {
        self.jobs.start();
        self.repairs.start(self.jobs.clone(), &on.tasks);
        checkups::start(on.neighbours.clone(), on.store.clone(), &on.tasks);
        on.tasks.spawn("scrub", self.blobs.rechecks.clone().scrub());
        on.tasks.spawn("lost", self.blobs.rechecks.clone().look_for_lost());
        on.tasks.spawn("heal", self.blobs.rechecks.clone().heal());
        self.blobs.collecting.start(&on.tasks);
        self.scans.start();
        self.signatures.start();
        self.seeking.start();
        Ruling::start(self.signatures.clone(), self.jobs.clone(), &on.tasks);
        Everything::start(on.neighbours.clone(), self.jobs.clone(), &on.tasks);
        self.witness.start(&on.tasks);
        self.purging.start(&on.tasks);
    }

    /// Open uploads.
    pub(super) fn sessions(&self) -> &Arc<Sessions> {
        &self.uploads.sessions
    }

    /// Copies of uploads, to this node and from it.
    pub(super) fn copies(&self) -> &Arc<Copies> {
        &self.blobs.copies
    }

    /// The rooms that answer other nodes.
    pub(super) fn peers(&self, on: &Foundation<'_>) -> Peers {
        let Foundation { settings, neighbours, store, .. } = on;
        let Blobs { transfers, flights, pacing, copies, rechecks, collecting, .. } = &self.blobs;
        Peers {
            neighbours: neighbours.clone(),
            access: self.access.clone(),
            store: store.clone(),
            flights: flights.clone(),
            outgoing: Outgoing::new(
                neighbours.clone(),
                store.clone(),
                flights.clone(),
                transfers.clone(),
                pacing.clone(),
                terms::outgoing(settings),
            ),
            copies: copies.clone(),
            uploads: self.uploads.clone(),
            writes: self.writes.clone(),
            proxies: self.proxies.clone(),
            collecting: collecting.clone(),
            witness: self.witness.clone(),
            rechecks: rechecks.clone(),
            preheats: self.preheats.clone(),
            jobs: self.jobs.clone(),
            tallies: self.tallies.clone(),
            scans: self.scans.clone(),
            seeking: self.seeking.clone(),
            grant: settings.uploads.expire_after,
        }
    }

    /// The rooms that answer clients. `tls` says whether clients use TLS.
    pub(super) fn serving(
        &self,
        on: &Foundation<'_>,
        tls: bool,
        metrics: PrometheusHandle,
    ) -> Serving {
        let Foundation { settings, neighbours, store, .. } = on;
        let records = &neighbours.records;
        let Blobs { transfers, liars, upstreams, flights, .. } = &self.blobs;
        let door_terms = terms::door(settings, tls);
        let door = Door::new(
            self.access.clone(),
            records.clone(),
            self.mirrors.clone(),
            self.witness.clone(),
            door_terms,
        );
        let registry = Registry {
            door: door.clone(),
            store: store.clone(),
            pulls: self.pulls.clone(),
            flights: flights.clone(),
            writes: self.writes.clone(),
            witness: self.witness.clone(),
            uploads: self.uploads.clone(),
            proxies: self.proxies.clone(),
            upstreams: upstreams.clone(),
            questions: self.questions.clone(),
            neighbours: neighbours.clone(),
            admissions: Admissions::new(MOST_ADMISSIONS).into(),
            scans: self.scans.clone(),
            seeking: self.seeking.clone(),
            terms: terms::oci(settings),
        };
        let harbor = Harbor {
            forecasts: Semaphore::new(1),
            confirm_over: settings.retention.confirm_over,
            door: door.clone(),
            records: records.clone(),
            neighbours: neighbours.clone(),
            writes: self.writes.clone(),
            jobs: self.jobs.clone(),
            scans: self.scans.clone(),
            signatures: self.signatures.clone(),
            upstreams: upstreams.clone(),
            collecting: self.blobs.collecting.clone(),
            purging: self.purging.clone(),
            pulls: self.pulls.clone(),
            secrets: self.secrets.clone(),
            access: self.access.clone(),
            durability: settings.projects.durability,
            project_creation: terms::project_creation(settings),
            terms: terms::writes(settings),
            tasks: on.tasks.clone(),
        };
        let atoll = Atoll {
            door,
            records: records.clone(),
            neighbours: neighbours.clone(),
            store: store.clone(),
            writes: self.writes.clone(),
            mirrors: self.mirrors.clone(),
            upstreams: upstreams.clone(),
            preheats: self.preheats.clone(),
            jobs: self.jobs.clone(),
            secrets: self.secrets.clone(),
            transfers: transfers.clone(),
            signatures: self.signatures.clone(),
            liars: liars.clone(),
            rechecks: self.blobs.rechecks.clone(),
            collecting: self.blobs.collecting.clone(),
            terms: terms::writes(settings),
        };
        Serving {
            registry,
            harbor,
            atoll,
            drills: Drills::start(neighbours.clone(), &on.tasks),
            access: self.access.clone(),
            witness: self.witness.clone(),
            mirrors: self.mirrors.clone(),
            records: records.clone(),
            secrets: self.secrets.clone(),
            metrics,
            stall: settings.deadlines.stall,
            trusted_proxies: settings.http.trusted_proxies.clone(),
        }
    }
}
