//! The settings of a node, after all checks: plain values with their units in the types.
//!
//! A `Settings` from [`crate::load`] or [`crate::parse`] satisfies all bounds, and its values do
//! not contradict each other. One that was built in code is not checked. Durations are whole
//! milliseconds.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use rules::ledger::records::Role;
use rules::words::names::{ProjectName, RepositoryName, Tag};
use rules::words::network::Network;

/// All settings of one node.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Directory for the ledger, the blobs and the node's keys; required.
    pub data_dir: PathBuf,
    /// Name of the node within the mesh; default `<region>-1`.
    pub name: String,
    /// The node's region (failure domain); required.
    pub region: String,
    /// The node's role; default [`Role::Replica`]. It cannot be changed after the node has joined.
    pub role: Role,
    /// How clients connect to the node.
    pub http: Http,
    /// How other nodes connect to the node.
    pub mesh: Mesh,
    /// How quickly a dead node is detected.
    pub roster: Roster,
    /// How the voters agree.
    pub ledger: Ledger,
    /// How long a replica may answer reads by itself.
    pub lease: Lease,
    /// When a project's primary moves, and when a voter of the ledger is replaced.
    pub failover: Failover,
    /// Defaults of new projects.
    pub projects: Projects,
    /// Users, robots and tokens.
    pub people: People,
    /// Limits on what clients push.
    pub uploads: Uploads,
    /// Background work.
    pub jobs: Jobs,
    /// When missing copies are made.
    pub repair: Repair,
    /// When blobs go that nothing refers to.
    pub collection: Collection,
    /// What projects retain.
    pub retention: Retention,
    /// Scans of images.
    pub scan: Scan,
    /// Signatures by the mesh.
    pub signing: Signing,
    /// The record of what happened.
    pub audit: Audit,
    /// How the node asks upstreams.
    pub upstreams: Upstreams,
    /// How many bytes of cached blobs the node keeps.
    pub cache: Cache,
    /// How an edge answers from what it has kept. Other nodes ignore it.
    pub edge: Edge,
    /// How the node answers clients that use it as a mirror of other registries.
    pub mirrors: Mirrors,
    /// Deadlines.
    pub deadlines: Deadlines,
    /// Limits on traffic between nodes.
    pub links: Links,
    /// How a replica answers reads when it may be out of date.
    pub reads: Reads,
    /// What to say about settings that are written and have no effect in this build.
    pub retired: Vec<&'static str>,
    /// What the node logs.
    pub log: Log,
    /// How long open requests may continue after a signal to stop; default 10s.
    pub drain: Duration,
}

impl Settings {
    /// The defaults for a node with these values. `mesh.advertise` has no default, and is required
    /// if `mesh.listen` is every interface.
    pub fn new(data_dir: impl Into<PathBuf>, region: impl Into<String>) -> Self {
        let region = region.into();
        Self {
            data_dir: data_dir.into(),
            name: default_name(&region),
            region,
            role: Role::Replica,
            http: Http::default(),
            mesh: Mesh::default(),
            retired: Vec::new(),
            roster: Roster::default(),
            ledger: Ledger::default(),
            lease: Lease::default(),
            failover: Failover::default(),
            projects: Projects::default(),
            people: People::default(),
            uploads: Uploads::default(),
            jobs: Jobs::default(),
            repair: Repair::default(),
            collection: Collection::default(),
            retention: Retention::default(),
            scan: Scan::default(),
            signing: Signing::default(),
            audit: Audit::default(),
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

/// The default name of a node.
pub(crate) fn default_name(region: &str) -> String {
    format!("{region}-1")
}

/// How clients connect to the node.
#[derive(Clone, Debug, PartialEq)]
pub struct Http {
    /// TCP address to listen on; default `0.0.0.0:5000`.
    pub listen: SocketAddr,
    /// Scheme, host and port of the node for its clients; default none: taken from the `Host` of
    /// each request.
    pub public_url: Option<String>,
    /// The certificate for HTTPS; default none: plain HTTP.
    pub tls: Option<Tls>,
    /// The proxies whose `X-Forwarded-For`, `-Proto` and `-Host` are believed; default none.
    pub trusted_proxies: Vec<Network>,
    /// Maximum number of connections of clients that are open at a time; default 10000. The system
    /// may bear fewer (`ulimit -n`).
    pub max_connections: u32,
    /// Maximum number of them from one address that is no trusted proxy; default 1000.
    pub max_connections_per_address: u32,
    /// How many connections one address may waste at once, and has few new ones for a while after
    /// that; default 1000. 0: as many as it likes.
    pub wasted_connections: u32,
    /// Maximum number of open requests of one HTTP/2 connection; default 100.
    pub max_streams: u32,
    /// How many bytes of bodies all clients together may send over HTTP/2 before the node has read
    /// them, beyond 1 MiB for each connection.
    pub upload_memory: u64,
    /// Maximum size of a request's headers in bytes; default 64KiB.
    pub max_header_bytes: u64,
    /// Maximum number of a request's headers; default 100.
    pub max_headers: u32,
    /// How long a client may take for the TLS handshake or for a request's head, and how long a
    /// connection may be without a request; default 30s.
    pub head_timeout: Duration,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 5000)),
            public_url: None,
            tls: None,
            trusted_proxies: Vec::new(),
            max_connections: 10_000,
            max_connections_per_address: 1000,
            wasted_connections: 1000,
            max_streams: 100,
            upload_memory: 256 << 20,
            max_header_bytes: 64 << 10,
            max_headers: 100,
            head_timeout: Duration::from_secs(30),
        }
    }
}

/// Where the certificate for HTTPS comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Tls {
    /// The operator's files.
    Files(TlsFiles),
    /// The mesh's own CA issues it, for the names and addresses that the settings say and for these
    /// ones. Only a replica has the CA's key.
    Mesh {
        /// Names and addresses in addition; default none.
        names: Vec<String>,
    },
}

/// A certificate and its key, both PEM files. Relative paths start at the working directory.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsFiles {
    /// Certificate chain, the node's own first; required within `tls`.
    pub certificate: PathBuf,
    /// Private key of the certificate; required within `tls`.
    pub key: PathBuf,
}

/// How other nodes connect to the node.
#[derive(Clone, Debug, PartialEq)]
pub struct Mesh {
    /// UDP address to listen on (QUIC); default `0.0.0.0:7946`.
    pub listen: SocketAddr,
    /// Address to which other nodes connect; default none: the same as `listen`, which must then be
    /// the address of one interface.
    pub advertise: Option<SocketAddr>,
}

impl Default for Mesh {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([0, 0, 0, 0], 7946)), advertise: None }
    }
}

/// How quickly a dead node is detected. With the defaults a killed node is declared down after 2 to
/// 8 s.
#[derive(Clone, Debug, PartialEq)]
pub struct Roster {
    /// Time between two probes; default 700ms.
    pub probe_period: Duration,
    /// How long the answer to a probe may take before other nodes are asked to probe; default
    /// 300ms.
    pub probe_rtt: Duration,
    /// How long a suspected node has to refute the suspicion before it counts as down; default
    /// 1800ms.
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

/// How the voters agree.
#[derive(Clone, Debug, PartialEq)]
pub struct Ledger {
    /// Time between two heartbeats of the leader; default 400ms.
    pub heartbeat: Duration,
    /// Minimum silence of the leader after which a voter stands for election; default 1200ms.
    pub election_min: Duration,
    /// Maximum of that; each voter draws a value between the two; default 1800ms.
    pub election_max: Duration,
    /// How many bytes of its log a replica keeps; default 512MiB.
    pub log_bytes: u64,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(400),
            election_min: Duration::from_millis(1200),
            election_max: Duration::from_millis(1800),
            log_bytes: 512 << 20,
        }
    }
}

/// How long a replica may answer reads by itself. A replica that stops delays writers by one
/// `duration`, once.
#[derive(Clone, Debug, PartialEq)]
pub struct Lease {
    /// How long a read lease lasts; default 2s.
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
    /// How long a project's home must be well before the project returns to it; default 20s.
    pub return_after: Duration,
    /// How long a voter of the ledger must be down before another node replaces it; default 10m.
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

/// Defaults of new projects.
#[derive(Clone, Debug, PartialEq)]
pub struct Projects {
    /// Number of regions that must hold each blob before a push is acknowledged; default 2.
    pub durability: u32,
}

impl Default for Projects {
    fn default() -> Self {
        Self { durability: 2 }
    }
}

/// Users, robots and tokens. Use the same values on every node.
#[derive(Clone, Debug, PartialEq)]
pub struct People {
    /// What robots' names begin with; default `robot$`.
    pub robot_prefix: String,
    /// Who may create projects; default [`ProjectCreation::Everyone`].
    pub project_creation: ProjectCreation,
    /// How long a token is valid; default 5m.
    pub token_lifetime: Duration,
    /// How long a refresh token is valid; default 720h.
    pub refresh_lifetime: Duration,
    /// The issuers that are asked for their keys for trust rules: names, and beginnings of names that
    /// end with `/*`. Default none: all. An empty list: no issuer.
    pub issuers: Option<Vec<String>>,
    /// Whether such issuers may be at private addresses; default no.
    pub allow_private_issuers: bool,
    /// Whether such issuers may be at loopback addresses; default no.
    pub allow_loopback_issuers: bool,
}

impl Default for People {
    fn default() -> Self {
        Self {
            robot_prefix: "robot$".to_owned(),
            project_creation: ProjectCreation::Everyone,
            token_lifetime: Duration::from_secs(300),
            refresh_lifetime: Duration::from_secs(720 * 3600),
            issuers: None,
            allow_private_issuers: false,
            allow_loopback_issuers: false,
        }
    }
}

/// Who may create projects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProjectCreation {
    /// Every user, who becomes the project's admin.
    Everyone,
    /// Administrators only.
    Administrators,
}

/// Limits on what clients push.
#[derive(Clone, Debug, PartialEq)]
pub struct Uploads {
    /// How long an upload may be idle before it is discarded; default 1h.
    pub expire_after: Duration,
    /// Maximum size of a manifest in bytes; default 4MiB.
    pub max_manifest: u64,
    /// Maximum number of uploads that are open on this node at a time; default 1000.
    pub max_open: u32,
}

impl Default for Uploads {
    fn default() -> Self {
        Self { expire_after: Duration::from_secs(3600), max_manifest: 4 << 20, max_open: 1000 }
    }
}

/// Background work: preheats.
#[derive(Clone, Debug, PartialEq)]
pub struct Jobs {
    /// Maximum number of jobs that this node carries out at a time; default 8.
    pub at_a_time: u32,
    /// How long jobs that have ended are remembered; default 720h.
    pub keep_for: Duration,
    /// Maximum number of those of each project; default 500.
    pub keep: u32,
}

impl Default for Jobs {
    fn default() -> Self {
        Self { at_a_time: 8, keep_for: Duration::from_secs(720 * 3600), keep: 500 }
    }
}

/// When missing copies are made.
#[derive(Clone, Debug, PartialEq)]
pub struct Repair {
    /// How long a replica is away until its copies count as gone; default 10m.
    pub after: Duration,
    /// The longest time between two looks at a project's copies; default 24h.
    pub every: Duration,
    /// The time in which a node reads all its blobs again; default 720h.
    pub read_all: Duration,
}

impl Default for Repair {
    fn default() -> Self {
        Self {
            after: Duration::from_secs(600),
            every: Duration::from_secs(24 * 3600),
            read_all: Duration::from_secs(720 * 3600),
        }
    }
}

/// When blobs go that nothing refers to.
#[derive(Clone, Debug, PartialEq)]
pub struct Collection {
    /// How long a blob stays after the last manifest that referred to it; default 24h.
    pub grace: Duration,
    /// The time between two rounds; default 1h.
    pub every: Duration,
}

impl Default for Collection {
    fn default() -> Self {
        Self { grace: Duration::from_secs(24 * 3600), every: Duration::from_secs(3600) }
    }
}

/// What projects retain.
#[derive(Clone, Debug, PartialEq)]
pub struct Retention {
    /// A run that would delete more than this percentage of a project has to be confirmed; default
    /// 30.
    pub confirm_over: u32,
    /// The time between two summaries of when artifacts were pulled; default 1h.
    pub pulls_every: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self { confirm_over: 30, pulls_every: Duration::from_secs(3600) }
    }
}

/// Scans of images for vulnerabilities.
#[derive(Clone, Debug, PartialEq)]
pub struct Scan {
    /// The image that is the database, as a repository and a tag; nothing is scanned if `None`.
    pub database: Option<(RepositoryName, Tag)>,
    /// Maximum number of images that this node scans at a time; default 2.
    pub at_a_time: u32,
    /// Maximum number of bytes of layers that are read in a second for each of them; default 64 MiB;
    /// no limit if `None`.
    pub rate: Option<u64>,
    /// How long the scan of one image may take; default 15m.
    pub timeout: Duration,
    /// Maximum number of bytes of a layer, unpacked; default 16 GiB.
    pub unpacked: u64,
    /// How many scans of images of proxy projects this node begins in a minute; default 10.
    pub cached_per_minute: u32,
    /// The program trivy.
    pub trivy: Trivy,
}

impl Default for Scan {
    fn default() -> Self {
        Self {
            database: None,
            at_a_time: 2,
            rate: Some(64 << 20),
            timeout: Duration::from_secs(900),
            unpacked: 16 << 30,
            cached_per_minute: 10,
            trivy: Trivy::default(),
        }
    }
}

/// The program trivy, which scans the images of projects that have chosen it.
#[derive(Clone, Debug, PartialEq)]
pub struct Trivy {
    /// The program; this node scans nothing with it if `None`.
    pub program: Option<PathBuf>,
    /// The URL of a trivy server that does the matching; the program itself does if `None`.
    pub server: Option<String>,
    /// The file with the token for that server.
    pub token_file: Option<PathBuf>,
    /// The folder with trivy's database of JARs; images with JARs cannot be scanned if `None`.
    pub java_database: Option<PathBuf>,
    /// Maximum memory of one run, in bytes; default 4 GiB.
    pub memory: u64,
}

impl Default for Trivy {
    fn default() -> Self {
        Self { program: None, server: None, token_file: None, java_database: None, memory: 4 << 30 }
    }
}

/// Signatures by the mesh.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Signing {
    /// The file with the passphrase under which the projects' own keys are sealed; this node signs
    /// nothing if `None`.
    pub passphrase_file: Option<PathBuf>,
    /// The file with the passphrase of before: what is sealed under it is sealed anew.
    pub previous_passphrase_file: Option<PathBuf>,
    /// Which of them seals; `None` for the first that is given of `hsm`, `kms` and
    /// `passphrase`. What the others have sealed is sealed anew.
    pub seal_with: Option<SealWith>,
    /// A key in a hardware security module.
    pub hsm: Hsm,
    /// A key in AWS KMS.
    pub kms: KmsKey,
}

/// What seals the projects' own keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealWith {
    /// The passphrase.
    Passphrase,
    /// The hardware security module.
    Hsm,
    /// AWS KMS.
    Kms,
}

/// A key in AWS KMS. Without a key none is used; with one, region and credentials are needed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KmsKey {
    /// Its id, ARN or alias.
    pub key: Option<String>,
    /// AWS's region.
    pub region: Option<String>,
    /// Another address than AWS's own.
    pub url: Option<String>,
    /// The file with an access key.
    pub credentials_file: Option<PathBuf>,
}

/// A hardware security module. Without a module none is used; with one, token, key and PIN are needed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hsm {
    /// Its maker's PKCS#11 library.
    pub module: Option<PathBuf>,
    /// The token's label.
    pub token: Option<String>,
    /// The label of the AES key.
    pub key: Option<String>,
    /// The label of the key of before: what is sealed under it is sealed anew.
    pub previous_key: Option<String>,
    /// The file with the user's PIN.
    pub pin_file: Option<PathBuf>,
}

/// The record of what happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Audit {
    /// How long events are remembered; default 2160h.
    pub keep_for: Duration,
    /// Maximum number of changes that are remembered, and of rows that nodes have counted; default
    /// 50000.
    pub keep: u32,
    /// One of so many pulls is recorded; default 100; 0 for none.
    pub pulls: u32,
}

impl Default for Audit {
    fn default() -> Self {
        Self { keep_for: Duration::from_secs(2160 * 3600), keep: 50_000, pulls: 100 }
    }
}

/// How the node asks upstreams: the registries that proxy projects cache.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstreams {
    /// Whether an upstream may be at a private address; default no.
    pub allow_private: bool,
    /// Whether an upstream may be at a loopback address; default no.
    pub allow_loopback: bool,
    /// How long a resolved tag counts as fresh; zero means to ask every time; default 60s.
    pub fresh_for: Duration,
    /// How long it is remembered that the upstream does not have something; zero means not at all;
    /// default 10s.
    pub missing_for: Duration,
    /// How many questions about what the mesh does not have one client address may cause at once,
    /// for each project; 0 means that they are not counted; default 600.
    pub questions: u32,
    /// How many more it may cause in each minute; default 120.
    pub questions_per_minute: u32,
    /// A PEM file of authorities that are trusted in addition to the public ones; default none.
    pub ca: Option<PathBuf>,
}

impl Default for Upstreams {
    fn default() -> Self {
        Self {
            allow_private: false,
            allow_loopback: false,
            fresh_for: Duration::from_secs(60),
            missing_for: Duration::from_secs(10),
            questions: 600,
            questions_per_minute: 120,
            ca: None,
        }
    }
}

/// Blobs that the node has fetched for a pull and that other nodes hold for good, and manifests of
/// proxy projects. The node evicts the least recently used.
#[derive(Clone, Debug, PartialEq)]
pub struct Cache {
    /// How many bytes of them the node keeps; default 50GiB; `None` means no limit.
    pub budget: Option<u64>,
    /// How many manifests of each proxy project a replica caches; default 10,000.
    pub manifests: u32,
}

impl Default for Cache {
    fn default() -> Self {
        Self { budget: Some(50 << 30), manifests: 10_000 }
    }
}

/// How an edge answers from the records that it has kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Edge {
    /// How long access, projects and manifests by digest may be used without asking a replica
    /// again; default 30s. An edge that reaches no replica believes what it knows about people for
    /// as long.
    pub access_age: Duration,
    /// How long an edge that reaches no replica continues to serve what everybody may have; default
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
    /// Names (`host[:port]`) of the mesh itself, in addition to the hosts of its nodes' URLs;
    /// default none.
    pub names: Vec<String>,
    /// Domain under which `REGISTRY.domain` means that registry; default none.
    pub domain: Option<String>,
    /// Registry (`host[:port]`) that is meant if nothing names one; default none.
    pub default: Option<String>,
    /// Project for a registry (`host[:port]`); default: the first one by name that caches it.
    pub aliases: BTreeMap<String, ProjectName>,
}

/// Deadlines. For most of these, clients have no deadline of their own.
#[derive(Clone, Debug, PartialEq)]
pub struct Deadlines {
    /// Maximum time to the first byte of an answer, or to a 404 or 503; default 5s.
    pub first_byte: Duration,
    /// Maximum time without a byte in either direction within a body; default 30s.
    pub stall: Duration,
    /// Maximum time without a byte from a node that sends a blob, after which another node is
    /// asked; never longer than `stall`; default 1500ms.
    pub source_stall: Duration,
    /// Maximum time until a write is committed, beside the time that the bytes of a large manifest
    /// need on slow links; default 10s.
    pub commit: Duration,
    /// Maximum time until a pushed blob is held in `projects.durability` regions; default 60s.
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

/// Limits on traffic between nodes.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Links {
    /// The congestion control of links; default [`CongestionControl::Delivery`].
    pub congestion: CongestionControl,
    /// The maximum number of bytes of blobs per second that this node sends to all nodes of a
    /// region together. A region that is not listed has no cap.
    pub caps: BTreeMap<String, u64>,
}

/// How a link finds out how much a path can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CongestionControl {
    /// By what is delivered; written `delivery`.
    #[default]
    Delivery,
    /// By what is lost, like most of TCP; written `cubic`.
    Cubic,
}

/// How a replica answers reads when it may be out of date.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Reads {
    /// When it holds no lease and cannot reach the leader; default `serve`.
    pub without_lease: StaleReads,
}

/// The answer to a read that may be stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum StaleReads {
    /// Serve the present records, marked as possibly stale; written `serve`.
    #[default]
    Serve,
    /// Answer 503; written `refuse`.
    Refuse,
}

/// What the node logs, to standard output.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// A level, or `tracing` filter directives that each contain a level; default `info`.
    pub level: String,
    /// The format of a line; default `human`.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::default() }
    }
}

/// The format of a line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For a terminal; written `human`.
    #[default]
    Human,
    /// One JSON object per line; written `json`.
    Json,
}
