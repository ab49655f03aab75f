//! The only place that builds the rooms, in reading order, and takes them down again in reverse.

pub mod birth;
pub mod certificate;
pub mod lock;
pub mod observe;
pub mod private;
pub mod serving;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use config::{Settings, StaleReads};
use ground::supervise::Tasks;
use mesh::identity::Identity;
use mesh::ledger::{Ledger, LedgerTerms};
use mesh::links::{self, Links};
use mesh::members::{Members, MembersTerms};
use mesh::secrets::Secrets;
use mesh::service::{MeshService, ServiceTerms};
use mesh::transfer::TransferTerms;
use metrics_exporter_prometheus::PrometheusHandle;
use rules::edges::EdgeTerms;
use rules::ledger::command::{Command, Outcome};
use rules::ledger::lease::LeaseTerms;
use rules::ledger::level::Level;
use rules::ledger::records::{Look, NodeRecord, Role, key};
use rules::members::failover::FailoverTerms;
use rules::members::voters::VoterTerms;
use rules::proxies::mirror::MirrorRules;
use rules::wire::questions::Introduce;
use rules::words::names::{NodeId, OperationId};
use tracing::{debug, info, warn};

use crate::atoll::Atoll;
use crate::harbor::Harbor;
use crate::http::door::{Door, DoorTerms};
use crate::http::{self, Listener};
use crate::oci::Registry;
use crate::peers::Peers;
use crate::start::birth::Birth;
use crate::start::lock::FolderLock;
use crate::start::serving::Serving;
use registry::blobs::copies::Copies;
use registry::blobs::flights::Flights;
use registry::blobs::liars::Liars;
use registry::blobs::outgoing::Outgoing;
use registry::blobs::pacing::Pacing;
use registry::blobs::rechecks::Rechecks;
use registry::blobs::transfers::Transfers;
use registry::jobs::preheats::Preheats;
use registry::people::Access;
use registry::proxies::confirming::Confirming;
use registry::proxies::mirrors::Mirrors;
use registry::proxies::resolving::{self, Proxies, ProxyTerms};
use registry::pushes::sessions::Sessions;
use registry::upstreams::{Upstreams, UpstreamsTerms};
use registry::view::listed::Listed;
use registry::view::neighbours::Neighbours;
use registry::view::{EdgeRecords, Records};
use registry::writes::{WriteTerms, Writes};
use store::Store;
use upstream::{AddressRule, Trust, UpstreamTerms};

/// A node that runs.
pub struct Running {
    links: Arc<Links>,
    members: Arc<Members>,
    ledger: Option<Arc<Ledger>>,
    inner: Tasks,
    http: Tasks,
    drain: Duration,
    _lock: FolderLock,
}

/// How long a node may go without renewing its lease before its projects move, whatever the gossip says of it: it cannot write.
const SILENT: Duration = Duration::from_secs(10);

/// How long a replica must have been well before it takes a voter's place.
const SETTLE: Duration = Duration::from_secs(3);

/// How long a process that was here before may take to end beyond its `drain`.
const PREDECESSOR: Duration = Duration::from_secs(10);

/// The folder of a node's keys within its data_dir.
pub fn identity_folder(data_dir: &Path) -> std::path::PathBuf {
    data_dir.join("identity")
}

/// Where other nodes reach a node with these settings.
pub fn mesh_address(settings: &Settings) -> SocketAddr {
    settings.mesh.advertise.unwrap_or(settings.mesh.listen)
}

/// Where clients reach a node with these settings, as far as they tell.
pub fn public_url(settings: &Settings) -> String {
    let scheme = if settings.http.tls.is_some() { "https" } else { "http" };
    settings.http.public_url.clone().unwrap_or_else(|| format!("{scheme}://{}", settings.http.listen))
}

/// The node's record as its settings describe it.
pub fn node_record(settings: &Settings, id: NodeId) -> Result<NodeRecord, rules::words::names::BadName> {
    Ok(NodeRecord {
        id,
        name: settings.name.parse()?,
        region: settings.region.parse()?,
        role: settings.role,
        address: mesh_address(settings),
        url: public_url(settings),
    })
}

/// Starts a node.
pub async fn start(settings: Settings, metrics: PrometheusHandle) -> io::Result<Running> {
    let data_dir = settings.data_dir.clone();
    private::folder(&data_dir)?;
    let identity = Identity::load(&identity_folder(&data_dir)).map_err(|e| {
        io::Error::other(format!("{e}; `atoll init` forms a new mesh here, `atoll join TOKEN` joins one"))
    })?;
    let lock = FolderLock::take(&data_dir, settings.drain + PREDECESSOR).await?;
    let identity = certificate::renew_at_start(identity, settings.role, &identity_folder(&data_dir))?;
    let birth = Birth::load(&data_dir)?;
    let listener = Listener::bind(settings.http.listen, settings.http.tls.as_ref()).await?;
    let (tls, address) = (listener.is_tls(), listener.address()?);
    let record = node_record(&settings, identity.node).map_err(io::Error::other)?;
    let store = Store::open(&data_dir, settings.cache.budget).map_err(io::Error::other)?;
    let (inner, clients) = (Tasks::new(), Tasks::new());

    let congestion = match settings.links.congestion {
        config::CongestionControl::Delivery => links::CongestionControl::Delivery,
        config::CongestionControl::Cubic => links::CongestionControl::Cubic,
    };
    let links = Links::open(&identity, settings.mesh.listen, congestion).map_err(io::Error::other)?;
    let members_terms = MembersTerms {
        probe_period: settings.roster.probe_period,
        probe_rtt: settings.roster.probe_rtt,
        suspect_to_down: settings.roster.suspect_to_down,
    };
    let seeds = birth.iter().flat_map(|b| b.nodes.iter().map(|n| (n.id, n.address))).collect();
    let members = Members::start(links.clone(), settings.role, record.address, members_terms, seeds, &data_dir, &inner);
    let records = match settings.role {
        Role::Replica => {
            let folder = data_dir.join("ledger");
            let terms = ledger_terms(&settings);
            let ledger = Ledger::open(&folder, links.clone(), members.clone(), terms, &inner).await;
            let ledger = ledger.map_err(io::Error::other)?;
            supports_level(&ledger)?;
            Records::Ledger(ledger)
        }
        Role::Edge => {
            let terms = EdgeTerms { access_age: settings.edge.access_age, alone_for: settings.edge.alone_for };
            let region = record.region.clone();
            Records::Edge(EdgeRecords::open(&data_dir, region, links.clone(), members.clone(), terms, &inner)?)
        }
    };
    let neighbours = Arc::new(Neighbours {
        me: identity.node,
        region: record.region.clone(),
        links: links.clone(),
        members: members.clone(),
        records: records.clone(),
    });

    links.judge_by(Arc::new(Listed(records.clone())));
    let transfers = Arc::new(Transfers::default());
    let deadlines = &settings.deadlines;
    // a client waits `first_byte` in all: a silent peer must leave time to ask another
    let terms = TransferTerms {
        first_byte: deadlines.first_byte * 2 / 5,
        stall: deadlines.stall,
        source_stall: deadlines.source_stall.min(deadlines.stall),
    };
    let liars = Arc::new(Liars::new(neighbours.clone(), inner.clone()));
    let secrets = Arc::new(Secrets::of(&identity.authority));
    let upstreams_terms = UpstreamsTerms {
        allowed: settings.role == Role::Replica || settings.edge.upstream_fallback,
        rule: AddressRule {
            allow_private: settings.upstreams.allow_private,
            allow_loopback: settings.upstreams.allow_loopback,
        },
        trust: upstreams_trust(settings.upstreams.ca.as_deref())?,
        each: UpstreamTerms {
            first_byte: terms.first_byte,
            // an upstream is asked twice before it is given up, and a client waits `stall` in all
            stall: deadlines.stall / 3,
            question: resolving::QUESTION,
            max_manifest: settings.uploads.max_manifest,
        },
    };
    let upstreams = Upstreams::new(neighbours.clone(), secrets.clone(), upstreams_terms, inner.clone());
    let flights = Flights::new(
        neighbours.clone(),
        store.clone(),
        transfers.clone(),
        liars.clone(),
        terms,
        upstreams.clone(),
        inner.clone(),
    );
    let caps = settings.links.caps.iter().map(|(region, rate)| Ok((region.parse()?, *rate)));
    let caps: Vec<_> = caps.collect::<Result<_, rules::words::names::BadName>>().map_err(io::Error::other)?;
    let pacing = Pacing::new(neighbours.clone(), caps);
    let copies = Arc::new(Copies {
        neighbours: neighbours.clone(),
        store: store.clone(),
        transfers: transfers.clone(),
        pacing: pacing.clone(),
        terms,
        grant: settings.uploads.expire_after,
        arriving: Default::default(),
        tasks: inner.clone(),
    });
    let write_terms = WriteTerms { commit: deadlines.commit, replicate: deadlines.replicate };
    let writes = Writes::new(neighbours.clone(), store.clone(), flights.clone(), write_terms);
    let proxy_terms =
        ProxyTerms { fresh_for: settings.upstreams.fresh_for, missing_for: settings.upstreams.missing_for };
    let confirming = Confirming::new(records.clone(), upstreams.clone(), inner.clone());
    let proxies = Proxies::new(
        neighbours.clone(),
        writes.clone(),
        upstreams.clone(),
        confirming.clone(),
        proxy_terms,
        inner.clone(),
    );
    let mirrors = Mirrors::new(records.clone(), mirror_rules(&settings.mirrors));
    let preheats = Preheats::new(
        neighbours.clone(),
        store.clone(),
        flights.clone(),
        proxies.clone(),
        mirrors.clone(),
        inner.clone(),
    );
    let access = Access::new(records.clone(), secrets.clone(), mirrors.clone());
    let door_terms = DoorTerms {
        public_url: settings.http.public_url.clone(),
        tls,
        refuse_stale: settings.reads.without_lease == StaleReads::Refuse,
    };
    let door = Door::new(access.clone(), records.clone(), mirrors.clone(), door_terms);
    let rechecks = Rechecks::new(neighbours.clone(), store.clone(), flights.clone(), inner.clone());
    let outgoing = Outgoing::new(
        neighbours.clone(),
        store.clone(),
        flights.clone(),
        transfers.clone(),
        pacing,
        deadlines.stall,
        deadlines.first_byte,
    );
    let peers = Peers {
        neighbours: neighbours.clone(),
        access: access.clone(),
        store: store.clone(),
        flights: flights.clone(),
        outgoing,
        copies: copies.clone(),
        writes: writes.clone(),
        proxies: proxies.clone(),
        rechecks: rechecks.clone(),
        preheats: preheats.clone(),
        grant: settings.uploads.expire_after,
    };
    let service_terms = ServiceTerms { commit: deadlines.commit, rest: settings.uploads.expire_after };
    let authority = identity.authority.clone();
    let service = MeshService::new(records.ledger().cloned(), members.clone(), authority, service_terms, peers);
    inner.spawn("links", links::serve(links.clone(), service, inner.clone()));

    let max_open = settings.uploads.max_open as usize;
    let sessions = Sessions::new(store.clone(), copies.clone(), max_open, settings.uploads.expire_after);
    let registry = Registry {
        door: door.clone(),
        store: store.clone(),
        rechecks,
        flights,
        writes: writes.clone(),
        sessions: sessions.clone(),
        proxies,
        confirming,
        upstreams: upstreams.clone(),
        neighbours: neighbours.clone(),
        first_byte: deadlines.first_byte,
        stall: deadlines.stall,
        replicate: deadlines.replicate,
        grant: settings.uploads.expire_after,
        max_manifest: settings.uploads.max_manifest,
    };
    let harbor = Harbor {
        door: door.clone(),
        records: records.clone(),
        neighbours: neighbours.clone(),
        writes: writes.clone(),
        secrets: secrets.clone(),
        durability: settings.projects.durability,
        terms: write_terms,
    };
    let atoll = Atoll {
        door,
        records: records.clone(),
        neighbours: neighbours.clone(),
        store: store.clone(),
        writes,
        mirrors: mirrors.clone(),
        upstreams,
        preheats,
        secrets,
        transfers,
        liars,
        terms: write_terms,
    };
    let serving = Arc::new(Serving {
        registry,
        harbor,
        atoll,
        access,
        mirrors,
        records: records.clone(),
        metrics,
        stall: deadlines.stall,
    });
    let handle = move |request| {
        let serving = serving.clone();
        async move { serving.answer(request).await }
    };
    clients.spawn_draining("http", http::serve(listener, handle, deadlines.stall, clients.clone()));

    let keys = identity_folder(&data_dir);
    if let (Some(birth), Some(ledger)) = (birth, records.ledger()) {
        inner.spawn("birth", be_born(ledger.clone(), birth, data_dir));
    }
    inner.spawn("certificate", certificate::keep(neighbours.clone(), identity.clone(), settings.role, keys));
    inner.spawn("introduce", introduce(neighbours, record));
    let making_room = store.clone();
    inner.spawn("room", async move { making_room.keep_room().await });
    inner.spawn("grants", keep_grants(store.clone(), sessions.clone(), copies, settings.uploads.expire_after));
    inner.spawn("sweep", sweep(store, sessions));
    info!(node = %identity.node, name = settings.name, role = settings.role.name(), region = settings.region, %address, "serving");
    let ledger = records.ledger().cloned();
    Ok(Running { links, members, ledger, inner, http: clients, drain: settings.drain, _lock: lock })
}

/// Which registries' names the operator gives to which projects.
fn mirror_rules(settings: &config::Mirrors) -> MirrorRules {
    MirrorRules {
        names: settings.names.iter().cloned().collect(),
        domain: settings.domain.clone(),
        default: settings.default.clone(),
        aliases: settings.aliases.clone(),
    }
}

fn ledger_terms(settings: &Settings) -> LedgerTerms {
    LedgerTerms {
        heartbeat: settings.ledger.heartbeat,
        election_min: settings.ledger.election_min,
        election_max: settings.ledger.election_max,
        snapshot_every: settings.ledger.snapshot_every,
        lease: LeaseTerms { duration: settings.lease.duration },
        renew_every: settings.lease.renew_every,
        failover: FailoverTerms {
            hold_down: settings.failover.hold_down,
            return_after: settings.failover.return_after,
            view_age: settings.lease.renew_every * 4,
            silent_for: SILENT,
        },
        voters: VoterTerms { hold_down: settings.failover.replace_voter_after, settle: SETTLE },
    }
}

/// Forms the mesh that `init` or `up` described, on the one node that was told to; gives up nothing until it is done.
async fn be_born(ledger: Arc<Ledger>, birth: Birth, data_dir: std::path::PathBuf) {
    let voters: BTreeMap<NodeId, SocketAddr> = birth.voters.iter().copied().collect();
    loop {
        match ledger.form(voters.clone()).await {
            Ok(()) => break,
            Err(error) => warn!(%error, "the ledger could not be formed yet"),
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    for (operation, command) in birth.commands() {
        loop {
            match ledger.propose(operation, command.clone(), Duration::from_secs(5)).await {
                Ok(proposed) => {
                    info!(command = command.name(), outcome = ?proposed.outcome, "birth");
                    break;
                }
                Err(error) => warn!(%error, "the mesh could not be formed yet"),
            }
        }
    }
    if let Err(error) = Birth::forget(&data_dir) {
        warn!(%error, "the birth file could not be removed");
    }
}

/// Makes the gossip meet every member that the ledger knows, and tells the ledger when this node's own record has changed.
async fn introduce(neighbours: Arc<Neighbours>, record: NodeRecord) {
    loop {
        for node in neighbours.nodes() {
            if node.id != neighbours.me {
                neighbours.links.know(node.id, node.address);
                neighbours.members.introduce(node.id, node.role, node.address).await;
            }
        }
        for removed in neighbours.removed() {
            neighbours.links.shut_out(removed);
            neighbours.members.handle_left(removed);
        }
        let known = neighbours.records.view().and_then(|v| v.record::<NodeRecord>(&key::node(neighbours.me)));
        if let Ok(Some(known)) = known
            && known != record
            && tell(&neighbours, &record).await
        {
            info!(address = %record.address, url = record.url, "this node's record was brought up to date");
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

/// Tells the ledger this node's record. An edge does so through a replica, and so does a replica that hears no leader: the leader may look for it where it
/// was before.
async fn tell(neighbours: &Neighbours, record: &NodeRecord) -> bool {
    match &neighbours.records {
        Records::Edge(edge) => edge.introduce(record.clone()).await,
        Records::Ledger(ledger) if ledger.connected() => {
            let command = Command::MoveNode { node: record.clone() };
            match ledger.propose(OperationId(rand::random()), command, Duration::from_secs(5)).await {
                Ok(proposed) if proposed.outcome == Outcome::Done => true,
                Ok(proposed) => {
                    warn!(outcome = ?proposed.outcome, "this node's record could not be brought up to date");
                    false
                }
                Err(error) => {
                    warn!(%error, "this node's record could not be brought up to date yet");
                    false
                }
            }
        }
        Records::Ledger(_) => {
            for other in neighbours.alive().into_iter().filter(|other| other.id != neighbours.me) {
                let question = Introduce { record: record.clone() };
                match neighbours.links.ask(other.id, question, Duration::from_secs(5)).await {
                    Ok(()) => return true,
                    Err(error) => debug!(to = %other.id, %error, "this node's record could not be told"),
                }
            }
            false
        }
    }
}

/// A mesh that was raised above what this build supports must not be read or written by it.
fn supports_level(ledger: &Ledger) -> io::Result<()> {
    let level = ledger.view().and_then(|view| view.level()).map_err(io::Error::other)?;
    if level <= Level::NEWEST {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "this mesh has feature level {level} and this build supports {} at most: start the build that raised it, or a newer one",
        Level::NEWEST
    )))
}

/// The public authorities, and those in the file that `upstreams.ca` names.
fn upstreams_trust(ca: Option<&Path>) -> io::Result<Trust> {
    let named = |error: &dyn std::fmt::Display| match ca {
        Some(ca) => io::Error::other(format!("upstreams.ca, {}: {error}", ca.display())),
        None => io::Error::other(error.to_string()),
    };
    let pem = ca.map(std::fs::read).transpose().map_err(|e| named(&e))?;
    Trust::with_authorities(&pem.unwrap_or_default()).map_err(|e| named(&e))
}

/// What an open push was granted lives until the push is idle for `lasts`: its last layer may take longer than that alone.
async fn keep_grants(store: Arc<Store>, sessions: Arc<Sessions>, copies: Arc<Copies>, lasts: Duration) {
    loop {
        tokio::time::sleep((lasts / 4).min(Duration::from_secs(30))).await;
        for repository in sessions.repositories().union(&copies.repositories()) {
            if let Err(error) = store.extend_grants(repository, lasts).await {
                warn!(%repository, %error, "what an open push was granted could not be kept");
            }
        }
    }
}

/// Forgets what nobody came back for.
async fn sweep(store: Arc<Store>, sessions: Arc<Sessions>) {
    match store.remove_strays().await {
        Ok(0) => {}
        Ok(files) => info!(files, "files of blobs that a crash left behind were removed"),
        Err(error) => warn!(%error, "files that a crash left behind could not be removed"),
    }
    loop {
        tokio::time::sleep(Duration::from_secs(30)).await;
        sessions.expire();
        if let Err(error) = store.expire_grants().await {
            warn!(%error, "grants could not be expired");
        }
        if let Err(error) = store.note_uses().await {
            warn!(%error, "the use of cached blobs could not be written down");
        }
    }
}

impl Running {
    /// Comes back, with the reason, when this node can do nothing more: its ledger has stopped for good.
    pub async fn failed(&self) -> String {
        match &self.ledger {
            Some(ledger) => ledger.ended().await,
            None => std::future::pending().await,
        }
    }

    /// Drains: no new connections, open requests end, leadership is handed over, the others are told.
    pub async fn stop(self) {
        info!("draining");
        if !self.http.stop(self.drain).await {
            warn!(seconds = self.drain.as_secs(), "requests were cut off at the end of `drain`");
        }
        if let Some(ledger) = &self.ledger {
            ledger.shut_down().await;
        }
        self.members.leave().await;
        // the goodbye is a few datagrams: let them go
        tokio::time::sleep(Duration::from_millis(200)).await;
        self.inner.stop(Duration::from_secs(3)).await;
        self.links.close().await;
        info!("stopped");
    }
}
