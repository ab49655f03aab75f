//! Drives the gossip (SWIM, by foca) over the links' datagrams and keeps the [`Roster`].
//!
//! The claimed sender of every packet is compared with the certificate that it came under: otherwise any node could declare any other down.
//! Addresses and the last incarnation are kept on disk, so that a restarted node finds the others and beats its own older self even
//! if the wall clock went back.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashSet};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foca::{AccumulatingRuntime, Foca, Identity, OwnedNotification, PeriodicParams, PostcardCodec, Timer};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rules::moment::Moment;
use rules::names::NodeId;
use rules::roster::{Event, Roster, Standing};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use crate::clock;
use crate::links::Links;
use crate::supervise::Tasks;

/// How the gossip is tuned; see the settings of the same names.
#[derive(Clone, Copy, Debug)]
pub struct MembersTerms {
    /// Between two probes.
    pub probe_period: Duration,
    /// How long a probe may take.
    pub probe_rtt: Duration,
    /// How long a suspect may defend itself.
    pub suspect_to_down: Duration,
}

/// The gossip is tuned for at least so many members.
const SMALLEST: u32 = 8;
/// Fits every path's datagrams: QUIC's smallest MTU less its own overhead, with room.
const PACKET: usize = 1100;

/// A member as the gossip knows it. A restart is a new incarnation, which beats the old one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Member {
    id: NodeId,
    address: SocketAddr,
    incarnation: u64,
}

impl Identity for Member {
    type Addr = NodeId;
    fn renew(&self) -> Option<Self> {
        Some(Member { incarnation: clock::timestamp().0.max(self.incarnation + 1), ..self.clone() })
    }
    fn addr(&self) -> NodeId {
        self.id
    }
    fn win_addr_conflict(&self, other: &Self) -> bool {
        self.incarnation > other.incarnation
    }
}

/// What is kept over restarts.
#[derive(Default, Serialize, Deserialize)]
struct Kept {
    incarnation: u64,
    members: Vec<(NodeId, SocketAddr)>,
}

/// Writes what a node that has just joined knows of the others, for its first start.
pub fn keep_seeds(folder: &Path, members: Vec<(NodeId, SocketAddr)>) -> Result<(), crate::identity::IdentityError> {
    let kept = Kept { incarnation: 0, members };
    let bytes = postcard::to_stdvec(&kept).map_err(|e| crate::identity::IdentityError::Certificate(e.to_string()))?;
    crate::identity::write_private(&folder.join("roster"), &bytes)
}

/// What a node that does not run knows of the others.
pub fn kept_seeds(folder: &Path) -> Vec<(NodeId, SocketAddr)> {
    let kept = std::fs::read(folder.join("roster")).ok().and_then(|bytes| postcard::from_bytes::<Kept>(&bytes).ok());
    kept.unwrap_or_default().members
}

enum Input {
    Data(NodeId, Bytes),
    Timer(Timer<Member>),
    Announce(NodeId, SocketAddr),
    Leave,
}

/// The running gossip.
pub struct Members {
    roster: Arc<Mutex<Roster>>,
    changes: watch::Receiver<u64>,
    input: mpsc::Sender<Input>,
}

impl Members {
    /// Starts the gossip. `seeds` are tried until they answer; `folder` keeps what was learned.
    pub fn start(
        links: Arc<Links>,
        address: SocketAddr,
        terms: MembersTerms,
        seeds: Vec<(NodeId, SocketAddr)>,
        folder: &Path,
        tasks: &Tasks,
    ) -> Arc<Self> {
        let path = folder.join("roster");
        let kept: Kept =
            std::fs::read(&path).ok().and_then(|bytes| postcard::from_bytes(&bytes).ok()).unwrap_or_default();
        let incarnation = clock::timestamp().0.max(kept.incarnation + 1);
        let me = Member { id: links.me(), address, incarnation };
        let (input, inputs) = mpsc::channel(4096);
        let (change, changes) = watch::channel(0);
        let roster = Arc::new(Mutex::new(Roster::default()));
        let known: BTreeSet<(NodeId, SocketAddr)> =
            seeds.into_iter().chain(kept.members).filter(|(id, _)| *id != me.id).collect();
        for (id, address) in &known {
            links.know(*id, *address);
        }
        let (timers, timer_inputs) = mpsc::unbounded_channel();
        tasks.spawn("members.timers", deliver_timers(timer_inputs, input.clone()));
        tasks.spawn("members.announce", announce_until_seen(known.clone(), roster.clone(), input.clone()));
        let driver = Driver {
            foca: Foca::new(me, config(terms, SMALLEST), rand::make_rng::<StdRng>(), PostcardCodec),
            terms,
            size: SMALLEST,
            links,
            roster: roster.clone(),
            change,
            timers,
            path,
            kept: Kept { incarnation, members: known.into_iter().collect() },
            dialling: Arc::default(),
            tasks: tasks.clone(),
        };
        tasks.spawn_draining("members", driver.run(inputs, tasks.clone()));
        Arc::new(Members { roster, changes, input })
    }

    /// Takes a datagram in that came under the certificate of `from`.
    pub async fn handle_datagram(&self, from: NodeId, data: Bytes) {
        let _ = self.input.send(Input::Data(from, data)).await;
    }

    /// There is a node that the gossip may not know, or may have given up: foca announces itself to nobody any more once it has lost everyone, so whoever is
    /// not up is announced to from here, again and again.
    pub async fn introduce(&self, node: NodeId, address: SocketAddr) {
        let up = {
            let mut roster = self.roster.lock();
            roster.handle_introduction(clock::now(), node);
            matches!(roster.standing(node), Some((Standing::Up, _)))
        };
        if !up {
            let _ = self.input.send(Input::Announce(node, address)).await;
        }
    }

    /// Tells the others that this node leaves on purpose.
    pub async fn leave(&self) {
        let _ = self.input.send(Input::Leave).await;
    }

    /// How `node` looks from here, and since when.
    pub fn standing(&self, node: NodeId) -> Option<(Standing, Moment)> {
        self.roster.lock().standing(node)
    }

    /// Who is up.
    pub fn up(&self) -> BTreeSet<NodeId> {
        self.roster.lock().up()
    }

    /// Who is down.
    pub fn down(&self) -> BTreeSet<NodeId> {
        self.roster.lock().down(clock::now())
    }

    /// Waits until `node` is declared down.
    pub async fn until_down(&self, node: NodeId) {
        let mut changes = self.changes.clone();
        while !self.down().contains(&node) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Changes whenever the roster does.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }
}

/// The gossip of `size` members: how often news is passed on, and how many are asked to probe for another, grow with the logarithm of that.
fn config(terms: MembersTerms, size: u32) -> foca::Config {
    let mut config = foca::Config::new_lan(std::num::NonZeroU32::new(size).unwrap_or(std::num::NonZeroU32::MIN));
    config.probe_period = terms.probe_period;
    config.probe_rtt = terms.probe_rtt;
    config.suspect_to_down_after = terms.suspect_to_down;
    config.max_packet_size = NonZeroUsize::new(PACKET).unwrap_or(NonZeroUsize::MIN);
    config.notify_down_members = true;
    let one = NonZeroUsize::MIN;
    let two = NonZeroUsize::new(2).unwrap_or(one);
    // anti-entropy: a member whose news was lost, or that was declared down in error, is met again within seconds
    config.periodic_announce = Some(PeriodicParams { frequency: Duration::from_secs(10), num_members: one });
    config.periodic_announce_to_down_members =
        Some(PeriodicParams { frequency: Duration::from_secs(3), num_members: two });
    config
}

struct Driver {
    foca: Foca<Member, PostcardCodec, StdRng, foca::NoCustomBroadcast>,
    terms: MembersTerms,
    size: u32,
    links: Arc<Links>,
    roster: Arc<Mutex<Roster>>,
    change: watch::Sender<u64>,
    timers: mpsc::UnboundedSender<(Moment, Timer<Member>)>,
    path: PathBuf,
    kept: Kept,
    dialling: Arc<Mutex<HashSet<NodeId>>>,
    tasks: Tasks,
}

impl Driver {
    async fn run(mut self, mut inputs: mpsc::Receiver<Input>, tasks: Tasks) {
        self.keep();
        let mut runtime = AccumulatingRuntime::new();
        loop {
            let input = tokio::select! {
                input = inputs.recv() => input,
                () = tasks.stopping() => None,
            };
            let Some(input) = input else { return };
            let result = match input {
                Input::Data(from, data) if !claims_truly(from, &data) => {
                    warn!(%from, "a gossip packet claims another sender than its certificate; dropped");
                    metrics::counter!("atoll_gossip_forged_total").increment(1);
                    continue;
                }
                Input::Data(_, data) => self.foca.handle_data(&data, &mut runtime),
                Input::Timer(timer) => self.foca.handle_timer(timer, &mut runtime),
                Input::Announce(id, address) => {
                    self.links.know(id, address);
                    self.foca.announce(Member { id, address, incarnation: 0 }, &mut runtime)
                }
                Input::Leave => self.foca.leave_cluster(&mut runtime),
            };
            if let Err(error) = result {
                debug!(%error, "gossip");
            }
            self.act(&mut runtime);
        }
    }

    fn act(&mut self, runtime: &mut AccumulatingRuntime<Member>) {
        while let Some((to, data)) = runtime.to_send() {
            self.send(to, data);
        }
        while let Some((after, timer)) = runtime.to_schedule() {
            let _ = self.timers.send((clock::now() + after, timer));
        }
        while let Some(notification) = runtime.to_notify() {
            match notification {
                OwnedNotification::MemberUp(member) => self.note(&member, Event::MemberUp(member.id)),
                OwnedNotification::MemberDown(member) => self.note(&member, Event::MemberDown(member.id)),
                OwnedNotification::Rename(_, member) => {
                    // the same node, restarted: what was connected to its former self is dead
                    self.links.forget_connections(member.id);
                    self.note(&member, Event::MemberUp(member.id));
                }
                OwnedNotification::Rejoin(me) => {
                    self.kept.incarnation = self.kept.incarnation.max(me.incarnation);
                    self.keep();
                }
                _ => {}
            }
        }
    }

    fn send(&self, to: Member, data: Bytes) {
        self.links.know(to.id, to.address);
        if self.links.datagram(to.id, data) || !self.dialling.lock().insert(to.id) {
            return;
        }
        let (links, dialling) = (self.links.clone(), self.dialling.clone());
        self.tasks.spawn("members.dial", async move {
            links.warm(to.id).await;
            dialling.lock().remove(&to.id);
        });
    }

    fn note(&mut self, member: &Member, event: Event) {
        if let Event::MemberUp(_) = event {
            self.links.know(member.id, member.address);
            if !self.kept.members.contains(&(member.id, member.address)) {
                self.kept.members.retain(|(id, _)| *id != member.id);
                self.kept.members.push((member.id, member.address));
                self.keep();
            }
        }
        if self.roster.lock().handle(clock::now(), event) {
            info!(?event, "roster");
            metrics::counter!("atoll_roster_changes_total").increment(1);
            self.change.send_modify(|n| *n += 1);
            self.fit_to_size();
        }
    }

    /// Tunes the gossip for as many members as there are, when that has doubled or halved.
    fn fit_to_size(&mut self) {
        let size = u32::try_from(self.foca.num_members() + 1).unwrap_or(u32::MAX).max(SMALLEST);
        if size < self.size * 2 && size > self.size / 2 {
            return;
        }
        self.size = size;
        if let Err(error) = self.foca.set_config(config(self.terms, size)) {
            debug!(%error, size, "the gossip could not be tuned for its size");
        }
    }

    fn keep(&self) {
        let written = postcard::to_stdvec(&self.kept)
            .map_err(|e| e.to_string())
            .and_then(|bytes| crate::identity::write_private(&self.path, &bytes).map_err(|e| e.to_string()));
        if let Err(error) = written {
            warn!(%error, "the roster cannot be kept over a restart");
        }
    }
}

/// Whether a packet's claimed sender is the node whose certificate it came under. foca's header begins with the sender's identity.
fn claims_truly(from: NodeId, data: &[u8]) -> bool {
    postcard::take_from_bytes::<Member>(data).is_ok_and(|(claimed, _)| claimed.id == from)
}

/// Timers must come in order, or foca calls its probe cycle incomplete: one heap, one task.
async fn deliver_timers(mut timers: mpsc::UnboundedReceiver<(Moment, Timer<Member>)>, input: mpsc::Sender<Input>) {
    let mut queue: BinaryHeap<Reverse<(Moment, Timer<Member>)>> = BinaryHeap::new();
    loop {
        let now = clock::now();
        while queue.peek().is_some_and(|Reverse((due, _))| *due <= now) {
            let Some(Reverse((_, timer))) = queue.pop() else { break };
            if input.send(Input::Timer(timer)).await.is_err() {
                return;
            }
        }
        let wait = queue.peek().map_or(Duration::from_secs(60), |Reverse((due, _))| due.since(now));
        tokio::select! {
            timer = timers.recv() => match timer {
                Some((due, timer)) => queue.push(Reverse((due, timer))),
                None => return,
            },
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Announces to every known node until the gossip has met it, for ever, ever more slowly.
async fn announce_until_seen(
    known: BTreeSet<(NodeId, SocketAddr)>,
    roster: Arc<Mutex<Roster>>,
    input: mpsc::Sender<Input>,
) {
    let mut pause = Duration::from_millis(300);
    loop {
        let unseen: Vec<_> = {
            let roster = roster.lock();
            known.iter().filter(|(id, _)| roster.standing(*id).is_none()).copied().collect()
        };
        for (id, address) in unseen {
            if input.send(Input::Announce(id, address)).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_that_claims_another_sender_is_told_apart() {
        let member = Member { id: NodeId(1), address: ([127, 0, 0, 1], 1).into(), incarnation: 9 };
        let packet = postcard::to_stdvec(&(member.clone(), 0u16, member)).unwrap();
        assert!(claims_truly(NodeId(1), &packet));
        assert!(!claims_truly(NodeId(2), &packet));
        assert!(!claims_truly(NodeId(1), b"x"));
    }
}
