//! The only place that builds the rooms. It also stops them, in reverse order.
//!
//! | module | what it does |
//! |---|---|
//! | [`rooms`] | builds the rooms, in reading order |
//! | [`terms`] | converts the settings into terms for each room |
//! | [`front`] | answers while the node opens its files, and after that passes requests to `serving` |
//! | [`serving`] | from a request to its answer; joins HTTP to the faces |
//! | [`chores`] | background tasks of a node |
//! | [`birth`] | the initial contents of a new mesh |
//! | [`certificate`] | this node's certificate, renewed in time |
//! | [`lock`], [`private`] | the data folder is for one process only, and private to its user |
//! | [`observe`] | logs and metrics |

pub mod birth;
pub mod certificate;
mod chores;
mod front;
pub mod https;
pub mod lock;
pub mod observe;
pub mod private;
mod rooms;
pub mod serving;
mod terms;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use config::Settings;
use ground::opening::Opening;
use ground::supervise::Tasks;
use mesh::identity::{Identity, Own};
use mesh::ledger::{Ended, Ledger};
use mesh::links::{self, Links};
use mesh::members::Members;
use mesh::sealing;
use mesh::secrets::Secrets;
use mesh::service::{MeshService, ServiceTerms};
use metrics_exporter_prometheus::PrometheusHandle;
use registry::view::conditions::Conditions;
use registry::view::listed::Listed;
use registry::view::neighbours::Neighbours;
use registry::view::runs::UpkeepRuns;
use registry::view::{EdgeRecords, Records};
use rules::edges::EdgeTerms;
use rules::ledger::level::Level;
use rules::ledger::records::{Look, NodeRecord, Role};
use rules::words::names::NodeId;
use store::{CachedRecords, Store};
use tracing::{info, warn};

use self::birth::Birth;
use self::front::Front;
use self::lock::FolderLock;
use self::rooms::{Foundation, Rooms};
use crate::http::{self, Listener};

/// A running node.
pub struct Running {
    links: Arc<Links>,
    members: Arc<Members>,
    ledger: Option<Arc<Ledger>>,
    inner: Tasks,
    http: Tasks,
    drain: Duration,
    store: Arc<Store>,
    records: Records,
    _lock: FolderLock,
}

/// Why a node cannot work any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failed {
    /// Its ledger has stopped for good, for this reason.
    Ledger(String),
    /// A database in data_dir takes no write, though the disk has room.
    Database(&'static str),
    /// Its disk has less than other nodes have seen of it, for this reason.
    OlderDisk(String),
    /// It was removed from the mesh.
    Removed,
}

/// How long a predecessor process may take to end in addition to its `drain`.
const PREDECESSOR: Duration = Duration::from_secs(10);

/// How often a database must be found to take no write, and the time between two looks.
const DATABASES: (u32, Duration) = (3, Duration::from_secs(2));
/// A disk with fewer free bytes is full.
const ROOM: u64 = 16 << 20;

/// The folder with a node's keys within its data_dir.
pub fn identity_folder(data_dir: &Path) -> std::path::PathBuf {
    data_dir.join("identity")
}

/// The address at which other nodes reach a node with these settings.
pub fn mesh_address(settings: &Settings) -> SocketAddr {
    settings.mesh.advertise.unwrap_or(settings.mesh.listen)
}

/// The URL at which clients reach a node with these settings, as far as the settings say.
pub fn public_url(settings: &Settings) -> String {
    let scheme = if settings.http.tls.is_some() { "https" } else { "http" };
    settings
        .http
        .public_url
        .clone()
        .unwrap_or_else(|| format!("{scheme}://{}", settings.http.listen))
}

/// The node's record as its settings describe it.
pub fn node_record(
    settings: &Settings,
    id: NodeId,
) -> Result<NodeRecord, rules::words::names::BadName> {
    Ok(NodeRecord {
        id,
        name: settings.name.parse()?,
        region: settings.region.parse()?,
        role: settings.role,
        address: mesh_address(settings),
        url: public_url(settings),
    })
}

/// Starts a node. With `older_disk` it takes part although others have seen more of its disk than it
/// has.
pub async fn start(
    settings: Settings,
    metrics: PrometheusHandle,
    older_disk: bool,
) -> io::Result<Running> {
    let data_dir = settings.data_dir.clone();
    private::folder(&data_dir)?;
    let identity = Identity::load(&identity_folder(&data_dir)).map_err(|e| {
        io::Error::other(format!(
            "{e}; `atoll init` forms a new mesh here, `atoll join TOKEN` joins one"
        ))
    })?;
    let lock = FolderLock::take(&data_dir, settings.drain + PREDECESSOR).await?;
    let identity =
        certificate::renew_at_start(identity, settings.role, &identity_folder(&data_dir))?;
    let birth = Birth::load(&data_dir)?;
    let own = Own::new(identity.clone());
    let issued = https::Issued::of(&settings, &own);
    issued.as_ref().map_or(Ok(()), https::Issued::renew)?;
    let tls = https::files(&settings);
    let listener = Listener::bind(settings.http.listen, tls.as_ref()).await?;
    let (tls, address) = (listener.is_tls(), listener.address()?);
    let record = node_record(&settings, identity.node).map_err(io::Error::other)?;
    let (inner, clients) = (Tasks::new(), Tasks::new());
    // Clients get answers from now on. Files are opened on this thread, which runs no tasks.
    let opening = Opening::default();
    let front = Arc::new(Front::new(opening.clone()));
    let answering = front.clone();
    let handle = move |request| {
        let front = answering.clone();
        async move { front.answer(request).await }
    };
    if let Some(issued) = issued {
        inner.spawn("https.issued", issued.keep());
    }
    if let Some(certificate) = listener.certificate() {
        inner.spawn("http.certificate", certificate.clone().keep());
    }
    clients.spawn_draining(
        "http",
        http::serve(listener, handle, terms::connections(&settings), clients.clone()),
    );
    let store =
        Store::open(&data_dir, settings.cache.budget, &opening).map_err(io::Error::other)?;

    let links = Links::open(&identity, settings.mesh.listen, terms::congestion(&settings))
        .map_err(io::Error::other)?;
    let seeds = birth.iter().flat_map(|b| b.nodes.iter().map(|n| (n.id, n.address))).collect();
    let members = Members::start(
        links.clone(),
        settings.role,
        record.address,
        terms::members(&settings),
        seeds,
        &data_dir,
        &inner,
    );
    let records = match settings.role {
        Role::Replica => {
            let folder = data_dir.join("ledger");
            let terms = terms::ledger(&settings, older_disk);
            let ledger =
                Ledger::open(&folder, links.clone(), members.clone(), terms, &opening, &inner)
                    .await;
            let ledger = ledger.map_err(io::Error::other)?;
            supports_level(&ledger)?;
            let manifests = settings.cache.manifests as usize;
            let cached = CachedRecords::open(&data_dir, settings.cache.budget, manifests, &opening);
            Records::Ledger(ledger, cached.map_err(io::Error::other)?)
        }
        Role::Edge => {
            let terms = EdgeTerms {
                access_age: settings.edge.access_age,
                alone_for: settings.edge.alone_for,
            };
            let region = record.region.clone();
            Records::Edge(EdgeRecords::open(
                &data_dir,
                region,
                links.clone(),
                members.clone(),
                terms,
                &opening,
                &inner,
            )?)
        }
    };
    let neighbours = Arc::new(Neighbours {
        me: identity.node,
        region: record.region.clone(),
        links: links.clone(),
        members: members.clone(),
        records: records.clone(),
        upkeep: UpkeepRuns::default(),
        conditions: Conditions::default(),
    });

    links.judge_by(Arc::new(Listed(records.clone())));
    let projects = records.clone();
    store.know_projects(Box::new(move |name| {
        let project = projects.view().and_then(|view| view.project(name)).ok().flatten();
        project.map(|project| project.id.0)
    }));
    let foundation = Foundation {
        settings: &settings,
        neighbours: neighbours.clone(),
        store: store.clone(),
        tasks: inner.clone(),
    };
    let secrets = Secrets::load(&identity.authority, &identity_folder(&data_dir));
    let secrets = Arc::new(secrets.map_err(io::Error::other)?);
    let rooms = Rooms::build(&foundation, secrets.clone())?;
    let service_terms =
        ServiceTerms { commit: settings.deadlines.commit, rest: settings.uploads.expire_after };
    let service = MeshService::new(
        records.ledger().cloned(),
        members.clone(),
        own.clone(),
        secrets.clone(),
        links.clone(),
        service_terms,
        rooms.peers(&foundation),
    );
    inner.spawn("links", links::serve(links.clone(), service, inner.clone()));
    front.open(rooms.serving(&foundation, tls, metrics));

    let keys = identity_folder(&data_dir);
    if let (Some(birth), Some(ledger)) = (birth, records.ledger()) {
        inner.spawn("birth", chores::be_born(ledger.clone(), birth, data_dir));
    }
    if let Some(ledger) = records.ledger() {
        sealing::start(own.clone(), secrets.clone(), ledger.clone(), links.clone(), &inner);
    }
    inner.spawn(
        "certificate",
        certificate::keep(neighbours.clone(), own, secrets, settings.role, keys),
    );
    inner.spawn("token-keys", rooms.access().clone().keep_keys());
    inner.spawn("introduce", chores::introduce(neighbours, record));
    let making_room = store.clone();
    inner.spawn("room", async move { making_room.keep_room().await });
    let (sessions, copies) = (rooms.sessions().clone(), rooms.copies().clone());
    let expire_after = settings.uploads.expire_after;
    inner.spawn(
        "grants",
        chores::keep_grants(store.clone(), sessions.clone(), copies, expire_after),
    );
    inner.spawn("sweep", chores::sweep(store.clone(), sessions, records.clone()));
    rooms.start_upgrading(&foundation);
    rooms.start_jobs(&foundation);
    info!(node = %identity.node, name = settings.name, role = settings.role.name(), region = settings.region, %address, "serving");
    let ledger = records.ledger().cloned();
    Ok(Running {
        links,
        members,
        ledger,
        inner,
        http: clients,
        drain: settings.drain,
        store,
        records,
        _lock: lock,
    })
}

/// Completes when a database takes no write for some time, though the disk has room: it must be opened
/// again. While the disk is full the node goes on, because it may still serve and could not start.
async fn broken_database(store: &Store, records: &Records) -> &'static str {
    let mut failing = 0;
    loop {
        tokio::time::sleep(DATABASES.1).await;
        let broken = match records {
            _ if store.is_broken().await => Some("store.redb"),
            Records::Ledger(_, cached) if cached.is_broken().await => Some("cached.redb"),
            Records::Edge(edge) if edge.is_broken().await => Some("kept.redb"),
            _ => None,
        };
        let has_room = store.free_on_disk().is_none_or(|free| free > ROOM);
        failing = if broken.is_some() && has_room { failing + 1 } else { 0 };
        if let Some(name) = broken.filter(|_| failing >= DATABASES.0) {
            return name;
        }
    }
}

/// A build must not read or write a mesh that was raised above the level that it supports.
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

impl Running {
    /// Completes when this node cannot work any more.
    pub async fn failed(&self) -> Failed {
        let ended = async {
            match &self.ledger {
                Some(ledger) => ledger.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = ended => match ended {
                Ended::Stopped(reason) => Failed::Ledger(reason),
                Ended::OlderDisk(reason) => Failed::OlderDisk(reason),
            },
            name = broken_database(&self.store, &self.records) => Failed::Database(name),
            // an edge goes on serving what it has, as one that is cut off
            () = self.links.removed(), if self.ledger.is_some() => Failed::Removed,
        }
    }

    /// Drains: accepts no new connections, lets open requests end, hands leadership over, and tells
    /// the other nodes.
    pub async fn stop(self) {
        info!("draining");
        if !self.http.stop(self.drain).await {
            warn!(seconds = self.drain.as_secs(), "requests were cut off at the end of `drain`");
        }
        if let Some(ledger) = &self.ledger {
            ledger.shut_down().await;
        }
        self.members.leave().await;
        // the goodbye is a few datagrams, which need a moment to be sent
        tokio::time::sleep(Duration::from_millis(200)).await;
        self.inner.stop(Duration::from_secs(3)).await;
        self.links.close().await;
        info!("stopped");
    }
}
