//! What a node is told to do, after every mistake is out: plain values with their units in the
//! types.
//!
//! A `Settings` that came from [`crate::load`] or [`crate::parse`] obeys all bounds and agreements
//! between settings; one that was put together in code is only as good as its author. Durations are
//! whole milliseconds.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use rules::ledger::records::Role;
use rules::words::names::ProjectName;

/// Everything that an operator can say about one node.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Directory for the ledger, the blobs and the node's keys; required.
    pub data_dir: PathBuf,
    /// Name of the node within the mesh; default `<region>-1`.
    pub name: String,
    /// Failure domain that the node stands in; required.
    pub region: String,
    /// What the node does; default [`Role::Replica`]. For good: it is part of how the node joined.
    pub role: Role,
    /// Where clients talk to the node.
    pub http: Http,
    /// Where other nodes talk to the node.
    pub mesh: Mesh,
    /// How fast a dead node is noticed.
    pub roster: Roster,
    /// How the nodes that vote agree.
    pub ledger: Ledger,
    /// How long a replica may answer reads by itself.
    pub lease: Lease,
    /// When the primary of a project moves, and when another node votes in the ledger.
    pub failover: Failover,
    /// What a new project starts with.
    pub projects: Projects,
    /// Limits on what clients push.
    pub uploads: Uploads,
    /// How the node asks the registries that proxy projects stand for.
    pub upstreams: Upstreams,
    /// How many bytes of others' blobs the node keeps.
    pub cache: Cache,
    /// How an edge answers from what it has kept; nothing to other nodes.
    pub edge: Edge,
    /// How the node answers clients that use it as a mirror of other registries.
    pub mirrors: Mirrors,
    /// How long anything may take before it is given up.
    pub deadlines: Deadlines,
    /// How much nodes send each other.
    pub links: Links,
    /// What a replica does that cannot be sure to be up to date.
    pub reads: Reads,
    /// What the node writes about itself.
    pub log: Log,
    /// How long open requests may go on after a signal to stop; default 10s.
    pub drain: Duration,
}

impl Settings {
    /// The defaults for a node in this place. `mesh.advertise` has none and is needed while
    /// `mesh.listen` is every interface.
    pub fn new(data_dir: impl Into<PathBuf>, region: impl Into<String>) -> Self {
        let region = region.into();
        Self {
            data_dir: data_dir.into(),
            name: default_name(&region),
            region,
            role: Role::Replica,
            http: Http::default(),
            mesh: Mesh::default(),
            roster: Roster::default(),
            ledger: Ledger::default(),
            lease: Lease::default(),
            failover: Failover::default(),
            projects: Projects::default(),
            uploads: Uploads::default(),
            upstreams: Upstreams::default(),
            cache: Cache::default(),
            edge: Edge::default(),
            mirrors: Mirrors::default(),
            deadlines: Deadlines::default(),
            links: Links::default(),
            reads: Reads::default(),
            log: Log::default(),
            drain: Duration::from_secs(10),
        }
    }
}

/// The name of a node that was given none.
pub(crate) fn default_name(region: &str) -> String {
    format!("{region}-1")
}

/// Where clients talk to the node.
#[derive(Clone, Debug, PartialEq)]
pub struct Http {
    /// TCP address to listen on; default `0.0.0.0:5000`.
    pub listen: SocketAddr,
    /// Scheme, host and port under which clients know the node; default none: made from the `Host`
    /// of each request.
    pub public_url: Option<String>,
    /// Certificate to serve HTTPS with; default none: plain HTTP.
    pub tls: Option<Tls>,
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([0, 0, 0, 0], 5000)), public_url: None, tls: None }
    }
}

/// A certificate and its key, both PEM files; a relative path starts at the working directory.
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    /// Certificate chain, the node's own first; required within `tls`.
    pub certificate: PathBuf,
    /// Private key of the certificate; required within `tls`.
    pub key: PathBuf,
}

/// Where other nodes talk to the node.
#[derive(Clone, Debug, PartialEq)]
pub struct Mesh {
    /// UDP address to listen on (QUIC); default `0.0.0.0:7946`.
    pub listen: SocketAddr,
    /// Address that other nodes dial; default none: the same as `listen`, which then has to be one
    /// interface.
    pub advertise: Option<SocketAddr>,
}

impl Default for Mesh {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([0, 0, 0, 0], 7946)), advertise: None }
    }
}

/// How fast a dead node is noticed. With the defaults a killed node is down in 2 to 8 s.
#[derive(Clone, Debug, PartialEq)]
pub struct Roster {
    /// Time between two probes; default 700ms.
    pub probe_period: Duration,
    /// How long the answer to a probe may take before others are asked to probe; default 300ms.
    pub probe_rtt: Duration,
    /// How long a suspect may object before it counts as down; default 1800ms.
    pub suspect_to_down: Duration,
}

impl Default for Roster {
    fn default() -> Self {
        Self {
            probe_period: Duration::from_millis(700),
            probe_rtt: Duration::from_millis(300),
            suspect_to_down: Duration::from_millis(1800),
        }
    }
}

/// How the nodes that vote agree.
#[derive(Clone, Debug, PartialEq)]
pub struct Ledger {
    /// Time between two heartbeats of the leader; default 400ms.
    pub heartbeat: Duration,
    /// Shortest silence of the leader after which a voter stands for election; default 1200ms.
    pub election_min: Duration,
    /// Longest such silence; each voter draws its own between the two; default 1800ms.
    pub election_max: Duration,
    /// Log entries between two snapshots; default 5000.
    pub snapshot_every: u64,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(400),
            election_min: Duration::from_millis(1200),
            election_max: Duration::from_millis(1800),
            snapshot_every: 5000,
        }
    }
}

/// How long a replica may answer reads by itself. A replica that stops costs writers one
/// `duration`, once.
#[derive(Clone, Debug, PartialEq)]
pub struct Lease {
    /// How long a read lease holds; default 2s.
    pub duration: Duration,
    /// Time between two renewals; default 500ms.
    pub renew_every: Duration,
}

impl Default for Lease {
    fn default() -> Self {
        Self { duration: Duration::from_secs(2), renew_every: Duration::from_millis(500) }
    }
}

/// When the primary of a project moves.
#[derive(Clone, Debug, PartialEq)]
pub struct Failover {
    /// How long a node must be down before its projects get another primary; default 1s.
    pub hold_down: Duration,
    /// How long the home node must be well before its projects return to it; default 20s.
    pub return_after: Duration,
    /// How long a voter of the ledger must be down before another node votes in its place; default
    /// 10m.
    pub replace_voter_after: Duration,
}

impl Default for Failover {
    fn default() -> Self {
        Self {
            hold_down: Duration::from_secs(1),
            return_after: Duration::from_secs(20),
            replace_voter_after: Duration::from_secs(600),
        }
    }
}

/// What a new project starts with.
#[derive(Clone, Debug, PartialEq)]
pub struct Projects {
    /// Regions that must hold each blob before a push is acknowledged; default 2.
    pub durability: u32,
}

impl Default for Projects {
    fn default() -> Self {
        Self { durability: 2 }
    }
}

/// Limits on what clients push.
#[derive(Clone, Debug, PartialEq)]
pub struct Uploads {
    /// How long an upload may lie untouched before it is discarded; default 1h.
    pub expire_after: Duration,
    /// Largest manifest, in bytes; default 4MiB.
    pub max_manifest: u64,
    /// Uploads that may be open on this node at a time; default 1000.
    pub max_open: u32,
}

impl Default for Uploads {
    fn default() -> Self {
        Self { expire_after: Duration::from_secs(3600), max_manifest: 4 << 20, max_open: 1000 }
    }
}

/// How the node asks the registries that proxy projects stand for.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstreams {
    /// Whether an upstream may be at a private address; default no.
    pub allow_private: bool,
    /// Whether an upstream may be at a loopback address; default no.
    pub allow_loopback: bool,
    /// How long a tag that was resolved counts as fresh; zero: ask every time; default 60s.
    pub fresh_for: Duration,
    /// How long it is remembered that the upstream does not have something; zero: not at all;
    /// default 10s.
    pub missing_for: Duration,
    /// A PEM file of authorities that are believed beside the public ones; default none.
    pub ca: Option<PathBuf>,
}

impl Default for Upstreams {
    fn default() -> Self {
        Self {
            allow_private: false,
            allow_loopback: false,
            fresh_for: Duration::from_secs(60),
            missing_for: Duration::from_secs(10),
            ca: None,
        }
    }
}

/// Blobs that the node has fetched for a pull and that others hold for good: it evicts the least
/// recently used.
#[derive(Clone, Debug, PartialEq)]
pub struct Cache {
    /// How many bytes of them it keeps; default 50GiB, `None`: no limit.
    pub budget: Option<u64>,
}

impl Default for Cache {
    fn default() -> Self {
        Self { budget: Some(50 << 30) }
    }
}

/// How an edge answers from what it has kept of the mesh's records.
#[derive(Clone, Debug, PartialEq)]
pub struct Edge {
    /// How long access, projects and what a digest names may be used without asking a replica
    /// again; default 30s.
    pub access_age: Duration,
    /// How long an edge that is cut off from every replica goes on serving what it has; default
    /// 24h.
    pub alone_for: Duration,
    /// Whether it may ask upstreams itself when the mesh cannot be reached; default no.
    pub upstream_fallback: bool,
}

impl Default for Edge {
    fn default() -> Self {
        Self {
            access_age: Duration::from_secs(30),
            alone_for: Duration::from_secs(24 * 3600),
            upstream_fallback: false,
        }
    }
}

/// How the node answers clients that use it as a mirror of other registries.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Mirrors {
    /// Names (`host[:port]`) of the mesh itself beside the hosts of its nodes' URLs; default none.
    pub names: Vec<String>,
    /// Domain under which `REGISTRY.domain` means that registry; default none.
    pub domain: Option<String>,
    /// Registry (`host[:port]`) that is meant where nothing names one; default none.
    pub default: Option<String>,
    /// Project that stands for a registry (`host[:port]`); default: the first by name that caches
    /// it.
    pub aliases: BTreeMap<String, ProjectName>,
}

/// How long anything may take before it is given up. Clients have no deadline of their own for most
/// of these.
#[derive(Clone, Debug, PartialEq)]
pub struct Deadlines {
    /// Until the first byte of an answer, or a clean 404 or 503; default 5s.
    pub first_byte: Duration,
    /// Without a byte in either direction within a body; default 30s.
    pub stall: Duration,
    /// Without a byte from a node that sends a blob, until another is asked; never longer than
    /// `stall`; default 1500ms.
    pub source_stall: Duration,
    /// Until a write is committed; default 10s.
    pub commit: Duration,
    /// Until a pushed blob is held in `projects.durability` regions; default 60s.
    pub replicate: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            first_byte: Duration::from_secs(5),
            stall: Duration::from_secs(30),
            source_stall: Duration::from_millis(1500),
            commit: Duration::from_secs(10),
            replicate: Duration::from_secs(60),
        }
    }
}

/// How much nodes send each other.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Links {
    /// What decides how much may be in flight to another node; default
    /// [`CongestionControl::Delivery`].
    pub congestion: CongestionControl,
    /// The most bytes of blobs a second that this node sends to all nodes of a region together; no
    /// cap for a region that is not named.
    pub caps: BTreeMap<String, u64>,
}

/// How a link finds out how much a path holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CongestionControl {
    /// By what arrives; written `delivery`.
    #[default]
    Delivery,
    /// By what is lost, as most of TCP does; written `cubic`.
    Cubic,
}

/// What a replica does that cannot be sure to be up to date.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Reads {
    /// When it holds no lease and cannot reach the leader; default `serve`.
    pub without_lease: StaleReads,
}

/// The answer to a read that may be stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum StaleReads {
    /// Serve what is there, marked as possibly stale; written `serve`.
    #[default]
    Serve,
    /// Answer 503; written `refuse`.
    Refuse,
}

/// What the node writes about itself, to standard output.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// A level, or `tracing` filter directives that each carry a level; default `info`.
    pub level: String,
    /// How a line looks; default `human`.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::default() }
    }
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For a terminal; written `human`.
    #[default]
    Human,
    /// One JSON object a line; written `json`.
    Json,
}
