//! Which edges are up. An edge asks replicas which nodes are up, and so shows that it is up itself.
//! Replicas tell each other which edges they have heard.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rules::ledger::records::Role;
use rules::members::presence::{ANNOUNCED_EVERY, EVERY, Presence};
use rules::members::roster::{Event, Standing};
use rules::wire::questions::{Announce, Present};
use rules::words::names::NodeId;
use tracing::debug;

use super::{RosterFile, SavedRoster, Seen};
use crate::links::{LinkError, Links};
use ground::clock;
use ground::supervise::Tasks;

/// The time between two looks at which edges are heard.
const LOOK: Duration = Duration::from_millis(200);
/// How long a replica may take to say which nodes are up.
const ASK: Duration = Duration::from_millis(1500);

/// At a replica: keeps the roster in line with the edges that are heard, here and by other
/// replicas, and tells the other replicas.
pub(super) fn watch(links: Arc<Links>, seen: Seen, presence: Arc<Mutex<Presence>>, tasks: &Tasks) {
    let inner = tasks.clone();
    tasks.spawn("members.edges", async move {
        let mut up = BTreeSet::new();
        let mut told = BTreeSet::new();
        let mut told_at = clock::now();
        loop {
            tokio::time::sleep(LOOK).await;
            let now = clock::now();
            let (own, all) = {
                let mut presence = presence.lock();
                (presence.own(now), presence.up(now))
            };
            // an edge that is not in the mesh's records does not become one because a node reports
            // it
            let all: BTreeSet<NodeId> = all
                .into_iter()
                .filter(|edge| links.known(*edge).role == Some(Role::Edge))
                .collect();
            for edge in all.difference(&up) {
                seen.note(Event::MemberUp(*edge));
            }
            for edge in up.difference(&all) {
                seen.note(Event::MemberDown(*edge));
            }
            up = all;
            if own != told || (!own.is_empty() && now.since(told_at) >= ANNOUNCED_EVERY) {
                (told, told_at) = (own.clone(), now);
                announce(&links, &seen, &own, &inner);
            }
        }
    });
}

/// Tells each replica that is up, in a task of its own, so that one that hangs does not delay the
/// others.
fn announce(links: &Arc<Links>, seen: &Seen, own: &BTreeSet<NodeId>, tasks: &Tasks) {
    let up = seen.roster.lock().up();
    for replica in up.into_iter().filter(|node| links.known(*node).role == Some(Role::Replica)) {
        let (links, ask) = (links.clone(), Announce { edges: own.clone() });
        tasks.spawn("members.announce_edges", async move {
            if let Err(error) = links.ask(replica, ask, ASK).await {
                debug!(%replica, %error, "a replica did not hear of the edges here");
            }
        });
    }
}

/// The replicas that an edge may ask which nodes are up.
pub(super) struct Candidates {
    links: Arc<Links>,
    file: RosterFile,
    replicas: Mutex<BTreeMap<NodeId, SocketAddr>>,
}

impl Candidates {
    /// Adds a replica, or changes its address.
    pub(super) fn add(&self, node: NodeId, address: SocketAddr) {
        let members = {
            let mut replicas = self.replicas.lock();
            if replicas.insert(node, address) == Some(address) {
                return;
            }
            replicas.iter().map(|(id, address)| (*id, *address)).collect()
        };
        self.links.know(node, address);
        self.file.save(&SavedRoster { incarnation: 0, members });
    }

    /// All replicas, the nearest that is up first.
    fn in_order(&self, seen: &Seen) -> Vec<NodeId> {
        let ids: Vec<NodeId> = self.replicas.lock().keys().copied().collect();
        let roster = seen.roster.lock();
        let mut all: Vec<_> = ids
            .into_iter()
            .filter(|id| self.links.known(*id).role != Some(Role::Edge))
            .map(|id| {
                let down = matches!(roster.standing(id), Some((Standing::Down, _)));
                (down, self.links.round_trip(id).unwrap_or(Duration::MAX), id)
            })
            .collect();
        all.sort();
        all.into_iter().map(|(_, _, id)| id).collect()
    }
}

/// At an edge: asks replicas which nodes are up, as long as the edge runs.
pub(super) fn start(
    links: Arc<Links>,
    known: BTreeSet<(NodeId, SocketAddr)>,
    path: PathBuf,
    seen: Seen,
    tasks: &Tasks,
) -> Arc<Candidates> {
    let replicas = Mutex::new(known.into_iter().collect());
    let candidates =
        Arc::new(Candidates { links: links.clone(), file: RosterFile::new(path), replicas });
    let asked = candidates.clone();
    tasks.spawn("members.present", async move {
        loop {
            for replica in asked.in_order(&seen) {
                match links.ask(replica, Present {}, ASK).await {
                    Ok((up, down)) => {
                        take_over(&seen, links.me(), replica, up, &down);
                        break;
                    }
                    // a build that does not know the question; the replica is up all the same
                    Err(LinkError::Refused(_)) => {
                        seen.note(Event::MemberUp(replica));
                    }
                    Err(error) => {
                        debug!(%replica, %error, "a replica did not say who is up");
                        seen.note(Event::MemberDown(replica));
                    }
                }
            }
            tokio::time::sleep(EVERY).await;
        }
    });
    candidates
}

/// Takes over what a replica sees, except about the edge itself and about the replica, which has
/// just answered.
fn take_over(
    seen: &Seen,
    me: NodeId,
    replica: NodeId,
    mut up: BTreeSet<NodeId>,
    down: &BTreeSet<NodeId>,
) {
    up.insert(replica);
    up.remove(&me);
    for node in down.iter().filter(|node| **node != me && !up.contains(node)) {
        seen.note(Event::MemberDown(*node));
    }
    for node in up {
        seen.note(Event::MemberUp(node));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rules::members::roster::Roster;

    #[test]
    fn an_edge_sees_what_the_replica_sees_but_for_the_two_of_them() {
        let seen = Seen {
            roster: Arc::<Mutex<Roster>>::default(),
            change: tokio::sync::watch::Sender::new(0),
        };
        let [me, replica, other, gone] = [1, 2, 3, 4].map(NodeId);
        seen.note(Event::MemberUp(gone));
        take_over(&seen, me, replica, [me, other].into(), &[me, replica, gone].into());
        let roster = seen.roster.lock();
        assert_eq!(roster.up(), [replica, other].into());
        assert_eq!(roster.down(clock::now()), [gone].into());
    }
}
