//! The replicas' gossip (SWIM, by foca) over the links' datagrams.
//!
//! The sender that a packet claims is compared with the certificate it came under: otherwise any
//! node could declare any other down. What a packet says about third parties counts only for
//! replicas in the records, at the recorded address, and with a plausible incarnation
//! ([`Hearing`]). The last own incarnation is kept on disk, so that a restarted node supersedes its
//! earlier self even if the wall clock went back.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashSet};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use foca::{
    AccumulatingRuntime, Codec, Foca, Identity, OwnedNotification, PeriodicParams, PostcardCodec,
    Timer,
};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rules::ledger::records::Role;
use rules::members::roster::{Event, Roster};
use rules::words::moment::Moment;
use rules::words::names::NodeId;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::{MembersTerms, RosterFile, SavedRoster, Seen};
use crate::links::Links;
use ground::clock;
use ground::supervise::Tasks;

/// The minimum number of members that the gossip is configured for.
const SMALLEST: u32 = 8;
/// The maximum size of a packet in bytes. It fits every path: QUIC's minimum MTU less its overhead,
/// with some room.
const PACKET: usize = 1100;

/// A member as the gossip knows it. A restart is a new incarnation, which supersedes the old one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Member {
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

/// How far a member's clock may be ahead, in milliseconds. An incarnation is the time at which a
/// node started.
const AHEAD: u64 = 24 * 3600 * 1000;

/// The inputs of the driver.
pub(super) enum Input {
    Data(NodeId, Bytes),
    Timer(Timer<Member>),
    Announce(NodeId, SocketAddr),
    Leave,
}

/// Starts the gossip of the replica that listens at `address`. Returns the sender of its inputs.
pub(super) fn start(
    links: Arc<Links>,
    address: SocketAddr,
    terms: MembersTerms,
    kept: SavedRoster,
    path: PathBuf,
    seen: Seen,
    tasks: &Tasks,
) -> mpsc::Sender<Input> {
    let incarnation = clock::timestamp().0.max(kept.incarnation + 1);
    let me = Member { id: links.me(), address, incarnation };
    let (input, inputs) = mpsc::channel(4096);
    let known: BTreeSet<(NodeId, SocketAddr)> = kept.members.iter().copied().collect();
    let (timers, timer_inputs) = mpsc::unbounded_channel();
    tasks.spawn("members.timers", deliver_timers(timer_inputs, input.clone()));
    tasks.spawn("members.announce", announce_until_seen(known, seen.roster.clone(), input.clone()));
    let beaten = Arc::<AtomicU64>::default();
    let hearing = Hearing { links: links.clone(), me: me.clone(), beaten: beaten.clone() };
    let driver = Driver {
        foca: Foca::new(me, config(terms, SMALLEST), rand::make_rng::<StdRng>(), hearing),
        terms,
        size: SMALLEST,
        links,
        seen,
        beaten,
        timers,
        file: RosterFile::new(path),
        kept: SavedRoster { incarnation, ..kept },
        dialling: Arc::default(),
        tasks: tasks.clone(),
    };
    tasks.spawn_draining("members", driver.run(inputs, tasks.clone()));
    input
}

/// The configuration for `size` members. How often news is passed on, and how many members help to
/// probe, grow with its logarithm.
fn config(terms: MembersTerms, size: u32) -> foca::Config {
    let mut config =
        foca::Config::new_lan(std::num::NonZeroU32::new(size).unwrap_or(std::num::NonZeroU32::MIN));
    config.probe_period = terms.probe_period;
    config.probe_rtt = terms.probe_rtt;
    config.suspect_to_down_after = terms.suspect_to_down;
    config.max_packet_size = NonZeroUsize::new(PACKET).unwrap_or(NonZeroUsize::MIN);
    config.notify_down_members = true;
    let one = NonZeroUsize::MIN;
    let two = NonZeroUsize::new(2).unwrap_or(one);
    // anti-entropy: a member whose news was lost, or that was wrongly declared down, is met again
    // within seconds
    config.periodic_announce =
        Some(PeriodicParams { frequency: Duration::from_secs(10), num_members: one });
    config.periodic_announce_to_down_members =
        Some(PeriodicParams { frequency: Duration::from_secs(3), num_members: two });
    config
}

/// Decodes packets. A claim about a third party that may not count is replaced by "this node is
/// alive", which this node knows anyway. The packet is not dropped for it, because builds from
/// before edges left the gossip mention edges in all their packets.
struct Hearing {
    links: Arc<Links>,
    me: Member,
    /// The highest incarnation of this node that others mention, if it is above its own: either it
    /// is made up, or it is from an earlier start when the clock was ahead. This node has to go
    /// above it to be heard.
    beaten: Arc<AtomicU64>,
}

impl Hearing {
    fn counts(&self, member: &Member) -> bool {
        if member.incarnation > clock::timestamp().0 + AHEAD {
            return false;
        }
        let known = self.links.known(member.id);
        let elsewhere = self
            .links
            .recorded_address(member.id)
            .is_some_and(|recorded| recorded != member.address);
        !known.removed && !elsewhere && (known.role == Some(Role::Replica) || known.nothing_known)
    }
}

impl Codec<Member> for Hearing {
    type Error = postcard::Error;

    fn encode_header(
        &mut self,
        header: &foca::Header<Member>,
        buf: impl BufMut,
    ) -> Result<(), Self::Error> {
        // every packet begins with this node's current identity, so what is kept here follows it
        self.me = header.src.clone();
        PostcardCodec.encode_header(header, buf)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<foca::Header<Member>, Self::Error> {
        PostcardCodec.decode_header(buf)
    }

    fn encode_member(
        &mut self,
        member: &foca::Member<Member>,
        buf: impl BufMut,
    ) -> Result<(), Self::Error> {
        PostcardCodec.encode_member(member, buf)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<foca::Member<Member>, Self::Error> {
        let member: foca::Member<Member> = PostcardCodec.decode_member(buf)?;
        let told = member.id();
        if told.id == self.me.id && told.incarnation > self.me.incarnation {
            if told.incarnation <= clock::timestamp().0 + AHEAD {
                self.beaten.fetch_max(told.incarnation, Ordering::Relaxed);
            }
        } else if told.id == self.me.id || self.counts(told) {
            return Ok(member);
        } else {
            metrics::counter!("atoll_gossip_ignored_total").increment(1);
        }
        Ok(foca::Member::new(self.me.clone(), 0, foca::State::Alive))
    }
}

struct Driver {
    foca: Foca<Member, Hearing, StdRng, foca::NoCustomBroadcast>,
    terms: MembersTerms,
    size: u32,
    links: Arc<Links>,
    seen: Seen,
    beaten: Arc<AtomicU64>,
    timers: mpsc::UnboundedSender<(Moment, Timer<Member>)>,
    file: RosterFile,
    kept: SavedRoster,
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
                Input::Data(_, data) => {
                    let handled = self.foca.handle_data(&data, &mut runtime);
                    self.outdo(&mut runtime);
                    handled
                }
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

    /// Moves to an incarnation above the one of this node that others mention.
    fn outdo(&mut self, runtime: &mut AccumulatingRuntime<Member>) {
        let beaten = self.beaten.swap(0, Ordering::Relaxed);
        let me = self.foca.identity().clone();
        if beaten <= me.incarnation {
            return;
        }
        warn!(
            beaten,
            "other nodes mention a later start of this node than there was; going above it"
        );
        self.kept.incarnation = beaten + 1;
        self.keep();
        if let Err(error) =
            self.foca.change_identity(Member { incarnation: beaten + 1, ..me }, runtime)
        {
            debug!(%error, "gossip");
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
                OwnedNotification::MemberUp(member) => {
                    self.note(&member, Event::MemberUp(member.id))
                }
                OwnedNotification::MemberDown(member) => {
                    self.note(&member, Event::MemberDown(member.id))
                }
                OwnedNotification::Rename(_, member) => {
                    // the same node: it has restarted, or heard that others thought it dead
                    self.links.renew_connections(member.id);
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
        self.links.know(to.id, self.links.recorded_address(to.id).unwrap_or(to.address));
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
            let address = self.links.recorded_address(member.id).unwrap_or(member.address);
            self.links.know(member.id, address);
            if !self.kept.members.contains(&(member.id, address)) {
                self.kept.members.retain(|(id, _)| *id != member.id);
                self.kept.members.push((member.id, address));
                self.keep();
            }
        }
        if self.seen.note(event) {
            self.fit_to_size();
        }
    }

    /// Configures the gossip for the number of members, when that has doubled or halved.
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
        self.file.save(&self.kept);
    }
}

/// Whether the sender that a packet claims is the node whose certificate it came under. foca's
/// header begins with the sender's identity.
fn claims_truly(from: NodeId, data: &[u8]) -> bool {
    postcard::take_from_bytes::<Member>(data).is_ok_and(|(claimed, _)| claimed.id == from)
}

/// For `fuzz/`: reads a packet of the gossip as foca does.
#[cfg(fuzzing)]
pub fn read_packet(mut data: &[u8]) {
    let _ = claims_truly(NodeId(1), data);
    if <PostcardCodec as Codec<Member>>::decode_header(&mut PostcardCodec, &mut data).is_ok()
        && data.len() >= 2
    {
        data.advance(2);
        while !data.is_empty()
            && <PostcardCodec as Codec<Member>>::decode_member(&mut PostcardCodec, &mut data)
                .is_ok()
        {}
    }
}

/// Delivers timers in order, in one task with one heap: otherwise foca calls its probe cycle
/// incomplete.
async fn deliver_timers(
    mut timers: mpsc::UnboundedReceiver<(Moment, Timer<Member>)>,
    input: mpsc::Sender<Input>,
) {
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

/// Announces to every known node until the gossip has met it, without end but less and less often.
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
