//! Which nodes of the mesh are alive, as this node sees it: keeps the [`Roster`].
//!
//! | module | what it does |
//! |---|---|
//! | `gossip` | the replicas' gossip: SWIM, by foca, over the links' datagrams |
//! | `edges` | edges: they report to replicas, and hear from them which nodes are up |
//!
//! The records decide who is a member and where it listens; the gossip only says who answers.
//! Addresses are kept on disk, so that a restarted node finds the others.

mod edges;
mod gossip;

#[cfg(fuzzing)]
pub use gossip::read_packet;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rules::ledger::records::Role;
use rules::members::presence::Presence;
use rules::members::roster::{Event, Roster, Standing};
use rules::words::moment::Moment;
use rules::words::names::NodeId;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::links::Links;
use gossip::Input;
use ground::clock;
use ground::supervise::{Tasks, blocking};

/// Settings of the gossip; see the settings of the same names.
#[derive(Clone, Copy, Debug)]
pub struct MembersTerms {
    /// The time between two probes.
    pub probe_period: Duration,
    /// How long a probe may take.
    pub probe_rtt: Duration,
    /// How long a suspected member has to refute the suspicion.
    pub suspect_to_down: Duration,
}

/// What is kept over restarts.
#[derive(Default, Serialize, Deserialize)]
struct SavedRoster {
    incarnation: u64,
    members: Vec<(NodeId, SocketAddr)>,
}

/// Where the roster is kept over restarts. It is written on a thread that may block: a disk that
/// hangs must not stop the gossip.
struct RosterFile {
    path: PathBuf,
    next: Arc<Mutex<Option<Vec<u8>>>>,
    writing: Arc<Mutex<()>>,
}

impl RosterFile {
    fn new(path: PathBuf) -> Self {
        RosterFile { path, next: Arc::default(), writing: Arc::default() }
    }

    /// Saves `roster` soon. What is saved later replaces it, also if that is written first.
    fn save(&self, roster: &SavedRoster) {
        match postcard::to_stdvec(roster) {
            Ok(bytes) => *self.next.lock() = Some(bytes),
            Err(error) => return warn!(%error, "the roster cannot be kept over a restart"),
        }
        let (path, next, writing) = (self.path.clone(), self.next.clone(), self.writing.clone());
        blocking(move || {
            let _alone = writing.lock();
            let Some(bytes) = next.lock().take() else { return };
            if let Err(error) = crate::identity::write_private(&path, &bytes) {
                warn!(%error, "the roster cannot be kept over a restart");
            }
        });
    }
}

/// Saves what a node that has just joined knows of the others, for its first start.
pub fn keep_seeds(
    folder: &Path,
    members: Vec<(NodeId, SocketAddr)>,
) -> Result<(), crate::identity::IdentityError> {
    let kept = SavedRoster { incarnation: 0, members };
    let bytes = postcard::to_stdvec(&kept)
        .map_err(|e| crate::identity::IdentityError::Certificate(e.to_string()))?;
    crate::identity::write_private(&folder.join("roster"), &bytes)
}

/// What a node that is not running knows of the others.
pub fn kept_seeds(folder: &Path) -> Vec<(NodeId, SocketAddr)> {
    let kept = std::fs::read(folder.join("roster"))
        .ok()
        .and_then(|bytes| postcard::from_bytes::<SavedRoster>(&bytes).ok());
    kept.unwrap_or_default().members
}

/// The roster, and its subscribers.
#[derive(Clone)]
struct Seen {
    roster: Arc<Mutex<Roster>>,
    change: watch::Sender<u64>,
}

impl Seen {
    /// Applies an event. Returns whether the view changed.
    fn note(&self, event: Event) -> bool {
        let changed = self.roster.lock().handle(clock::now(), event);
        if changed {
            info!(?event, "roster");
            metrics::counter!("atoll_roster_changes_total").increment(1);
            self.change.send_modify(|n| *n += 1);
        }
        changed
    }
}

/// The members, as this node sees them.
pub struct Members {
    seen: Seen,
    kind: Kind,
}

enum Kind {
    Replica { input: mpsc::Sender<Input>, presence: Arc<Mutex<Presence>> },
    Edge(Arc<edges::Candidates>),
}

impl Members {
    /// Starts the roster. `seeds` are tried until they answer; `folder` keeps known addresses.
    pub fn start(
        links: Arc<Links>,
        role: Role,
        address: SocketAddr,
        terms: MembersTerms,
        seeds: Vec<(NodeId, SocketAddr)>,
        folder: &Path,
        tasks: &Tasks,
    ) -> Arc<Self> {
        let path = folder.join("roster");
        let kept: SavedRoster = std::fs::read(&path)
            .ok()
            .and_then(|bytes| postcard::from_bytes(&bytes).ok())
            .unwrap_or_default();
        let me = links.me();
        let known: BTreeSet<(NodeId, SocketAddr)> = seeds
            .into_iter()
            .chain(kept.members.iter().copied())
            .filter(|(id, _)| *id != me)
            .collect();
        for (id, address) in &known {
            links.know(*id, *address);
        }
        let seen = Seen { roster: Arc::default(), change: watch::Sender::new(0) };
        let kind = match role {
            Role::Replica => {
                let presence = Arc::<Mutex<Presence>>::default();
                edges::watch(links.clone(), seen.clone(), presence.clone(), tasks);
                let kept = SavedRoster { members: known.into_iter().collect(), ..kept };
                let input = gossip::start(links, address, terms, kept, path, seen.clone(), tasks);
                Kind::Replica { input, presence }
            }
            Role::Edge => Kind::Edge(edges::start(links, known, path, seen.clone(), tasks)),
        };
        Arc::new(Members { seen, kind })
    }

    /// Handles a datagram that came under the certificate of `from`, a replica.
    pub async fn handle_datagram(&self, from: NodeId, data: Bytes) {
        if let Kind::Replica { input, .. } = &self.kind {
            let _ = input.send(Input::Data(from, data)).await;
        }
    }

    /// There is a node that this node may not have heard of. foca stops announcing itself once it
    /// has lost all members, so a replica that is not up is announced to from here again and again.
    pub async fn introduce(&self, node: NodeId, role: Role, address: SocketAddr) {
        if matches!(self.kind, Kind::Edge(_)) && role == Role::Edge {
            // replicas tell an edge only of the edges in its own region
            return;
        }
        let up = {
            let mut roster = self.seen.roster.lock();
            roster.handle_introduction(clock::now(), node);
            matches!(roster.standing(node), Some((Standing::Up, _)))
        };
        match &self.kind {
            Kind::Replica { input, .. } if role == Role::Replica && !up => {
                let _ = input.send(Input::Announce(node, address)).await;
            }
            Kind::Edge(candidates) if role == Role::Replica => candidates.add(node, address),
            _ => {}
        }
    }

    /// `edge` reports that it is up.
    pub fn handle_present(&self, edge: NodeId) {
        if let Kind::Replica { presence, .. } = &self.kind {
            presence.lock().handle_heard(clock::now(), edge);
            self.seen.note(Event::MemberUp(edge));
        }
    }

    /// The replica `from` reports which edges it has heard.
    pub fn handle_announced(&self, from: NodeId, edges: BTreeSet<NodeId>) {
        if let Kind::Replica { presence, .. } = &self.kind {
            presence.lock().handle_announced(clock::now(), from, edges);
        }
    }

    /// `edge` stops, or was removed from the mesh.
    pub fn handle_left(&self, edge: NodeId) {
        if let Kind::Replica { presence, .. } = &self.kind {
            presence.lock().handle_left(edge);
        }
    }

    /// Tells the others that this node stops on purpose. An edge does this by closing its links.
    pub async fn leave(&self) {
        if let Kind::Replica { input, .. } = &self.kind {
            let _ = input.send(Input::Leave).await;
        }
    }

    /// The state of `node` as seen from here, and since when.
    pub fn standing(&self, node: NodeId) -> Option<(Standing, Moment)> {
        self.seen.roster.lock().standing(node)
    }

    /// The nodes that are up.
    pub fn up(&self) -> BTreeSet<NodeId> {
        self.seen.roster.lock().up()
    }

    /// The nodes that are down.
    pub fn down(&self) -> BTreeSet<NodeId> {
        self.seen.roster.lock().down(clock::now())
    }

    /// Waits until `node` is declared down.
    pub async fn until_down(&self, node: NodeId) {
        let mut changes = self.changes();
        while !self.down().contains(&node) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Changes whenever the roster does.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.seen.change.subscribe()
    }
}
