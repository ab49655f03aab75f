//! A thousand nodes want one blob within two seconds: three regions with replicas and hundreds of
//! edges, and a region of edges alone.
//!
//! Every node runs the real rules (`placement`, `Flight`, `Fanout`, `Reputation`); links, time and
//! faults are simulated. The checks: every surviving node gets the right bytes, each region fetches
//! them over the WAN once, no node sends many copies, and it takes little longer than for a few
//! nodes. With a tenth of the nodes dying meanwhile and some sending wrong bytes, every surviving
//! node still gets the right ones, and only liars are called liars.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rules::blobs::fanout::{Fanout, Place};
use rules::blobs::flight::{Bound, Claim, First, Flight, Judgement, Request, Source, Step};
use rules::blobs::groups::{GROUP, GroupHasher};
use rules::blobs::reputation::Reputation;
use rules::ledger::records::Role;
use rules::members::placement::{self, Candidate};
use rules::words::digest::Digest;
use rules::words::moment::Moment;
use rules::words::names::{NodeId, Region};

#[path = "sim/dice.rs"]
mod dice;
use dice::Dice;

/// The blob: five whole groups and a bit.
const SIZE: usize = 5 * GROUP + 1000;
/// In a tick a node sends one group: 9 MB/s if a tick is 7 ms.
const ASK: u64 = 300; // two seconds
/// A source that gives nothing for so long is given up; one that is itself behind others, later.
const STALL: u64 = 60;
/// Until a dead node is known to be dead.
const NOTICED: u64 = 500;
/// How long a flight waits for sources that fell silent.
const PATIENCE: u64 = 8000;

/// Microseconds in a tick.
const TICK: u64 = 7000;

/// A blob on its way to a node.
struct Coming {
    flight: Flight<usize>,
    bytes: Vec<u8>,
    from: Option<From>,
    /// No source is asked before this tick.
    pause: u64,
}

/// The node from which a node receives now.
struct From {
    node: usize,
    claimed: bool,
    since: u64,
    /// It is the first of a chain that begins at the source.
    link: bool,
}

struct Node {
    id: NodeId,
    region: Region,
    role: Role,
    alive: bool,
    died: u64,
    wants_at: Option<u64>,
    holds: Option<Arc<Vec<u8>>>,
    flips: Option<usize>,
    coming: Option<Coming>,
    fanout: Fanout<u8, Region, usize>,
    reputation: Reputation<usize>,
    turn: usize,
    sent: usize,
    /// The maximum number that was served at the same time.
    served: usize,
    received_far: usize,
    done_at: Option<u64>,
}

struct World {
    nodes: Vec<Node>,
    truth: Arc<Vec<u8>>,
    digest: Digest,
    bound: Bound,
    list: Vec<u8>,
    now: u64,
    caught: BTreeSet<usize>,
    dead: BTreeSet<usize>,
}

impl World {
    fn new(dice: &mut Dice, count: usize) -> Self {
        let word = dice.next() | 1;
        let truth: Vec<u8> = (0..SIZE as u64).map(|i| (i.wrapping_mul(word) >> 23) as u8).collect();
        let mut hasher = GroupHasher::new();
        hasher.update(&truth);
        let (content, list) = hasher.finish();
        let truth = Arc::new(truth);
        let nodes = (0..count).map(|n| {
            // twelve replicas, then edges; every fourth of those where there is no replica
            let role = if n < 12 { Role::Replica } else { Role::Edge };
            let region = if n < 12 { ["a", "b", "c"][n % 3] } else { ["a", "b", "c", "d"][n % 4] };
            Node {
                id: NodeId(n as u64),
                region: region.parse().unwrap(),
                role,
                alive: true,
                died: 0,
                wants_at: None,
                // durable in two regions
                holds: (n < 2).then(|| truth.clone()),
                flips: None,
                coming: None,
                fanout: Fanout::default(),
                reputation: Reputation::default(),
                turn: 0,
                sent: 0,
                served: 0,
                received_far: 0,
                done_at: None,
            }
        });
        let digest = Digest::sha256(&truth);
        let bound = Bound { content, size: SIZE as u64 };
        World {
            nodes: nodes.collect(),
            digest,
            bound,
            list: list.unwrap(),
            truth,
            now: 0,
            caught: BTreeSet::new(),
            dead: BTreeSet::new(),
        }
    }

    fn moment(&self) -> Moment {
        Moment::from_micros(1 + self.now * TICK)
    }

    /// The nodes that the gossip takes for alive.
    fn seems_alive(&self, node: usize) -> bool {
        self.nodes[node].alive || self.now < self.nodes[node].died + NOTICED
    }

    fn first_sources(&self, me: usize) -> First<usize> {
        let region = &self.nodes[me].region;
        let there = self
            .nodes
            .iter()
            .enumerate()
            .filter(|(n, node)| node.region == *region && self.seems_alive(*n));
        let there: Vec<Candidate> = there
            .map(|(_, n)| Candidate { id: n.id, region: n.region.clone(), role: n.role })
            .collect();
        let fetcher = placement::fetcher(&self.digest, region, &there).map(|id| id.0 as usize);
        let fetcher =
            fetcher.filter(|f| *f != me && !self.nodes[me].reputation.demoted(self.moment(), f));
        First::Named(fetcher.map(|node| Source::Peer { node, fill: true }).into_iter().collect())
    }

    fn holders(&self, me: usize) -> Vec<Source<usize>> {
        let holds = |n: &usize| *n != me && self.nodes[*n].alive && self.nodes[*n].holds.is_some();
        let mut found: Vec<usize> = (0..12).filter(holds).collect();
        if found.is_empty() {
            let mine = |n: &usize| self.nodes[*n].region == self.nodes[me].region;
            found = (12..self.nodes.len()).filter(|n| holds(n) && mine(n)).take(8).collect();
        }
        found.sort_by_key(|n| self.nodes[*n].region != self.nodes[me].region);
        let mut found: Vec<_> =
            found.into_iter().map(|node| Source::Peer { node, fill: false }).collect();
        self.nodes[me].reputation.order(self.moment(), &mut found, Source::peer);
        found
    }

    fn begin(&mut self, me: usize, first: First<usize>) {
        if self.nodes[me].holds.is_none() && self.nodes[me].coming.is_none() {
            let patience = Duration::from_micros(PATIENCE * TICK);
            let flight = Flight::new(self.moment(), first, Some(self.bound), patience);
            self.nodes[me].coming =
                Some(Coming { flight, bytes: Vec::new(), from: None, pause: 0 });
        }
    }

    /// A node that receives nothing does what its flight says.
    fn go_on(&mut self, me: usize) {
        let (now, moment) = (self.now, self.moment());
        if self.nodes[me]
            .coming
            .as_ref()
            .is_none_or(|coming| coming.from.is_some() || now < coming.pause)
        {
            return;
        }
        let down: BTreeSet<usize> =
            self.dead.iter().copied().filter(|node| !self.seems_alive(*node)).collect();
        let Some(coming) = self.nodes[me].coming.as_mut() else { return };
        match coming.flight.step(moment, |node| down.contains(&node)) {
            Step::Ask(request) => self.ask(me, &request),
            Step::Check => {
                let bytes = std::mem::take(&mut coming.bytes);
                assert_eq!(Digest::sha256(&bytes), self.digest, "checked groups make the blob");
                let node = &mut self.nodes[me];
                (node.coming, node.done_at) = (None, Some(self.now));
                node.holds = Some(if let Some(at) = node.flips {
                    let mut rotten = bytes;
                    rotten[at] ^= 1;
                    Arc::new(rotten)
                } else {
                    self.truth.clone()
                });
            }
            Step::Look(_) => {
                let found = self.holders(me);
                if let Some(coming) = self.nodes[me].coming.as_mut() {
                    coming.flight.handle_found(found);
                }
            }
            Step::Wait(pause) => coming.pause = now + pause.as_micros() as u64 / TICK,
            // the node's client is told to come again; it does
            Step::GiveUp(_) => self.nodes[me].coming = None,
        }
    }

    /// What the asked node does is what `outgoing` does.
    fn ask(&mut self, me: usize, request: &Request<usize>) {
        let Request { source: Source::Peer { node: other, fill }, offset, direct, .. } = *request
        else {
            unreachable!("there is no upstream")
        };
        if !self.nodes[other].alive {
            return self.nodes[me].coming.as_mut().unwrap().flight.handle_failure();
        }
        if self.nodes[other].holds.is_none() && self.nodes[other].coming.is_none() {
            if !fill {
                return self.nodes[me].coming.as_mut().unwrap().flight.handle_nothing();
            }
            self.begin(other, First::Named(Vec::new()));
        }
        let (region, mut link) = (self.nodes[me].region.clone(), false);
        if offset == 0 || direct {
            let fanout = &mut self.nodes[other].fanout;
            link = true;
            if direct {
                fanout.return_to_here(&0, &region, me);
            } else if let Place::Follow(elsewhere) = fanout.place(&0, &region, me) {
                let usable = elsewhere != me
                    && !self.nodes[me].reputation.demoted(self.moment(), &elsewhere);
                let coming = self.nodes[me].coming.as_mut().unwrap();
                coming.flight.handle_elsewhere(elsewhere, usable);
                return;
            }
        }
        let from = From { node: other, claimed: false, since: self.now, link };
        self.nodes[me].coming.as_mut().unwrap().from = Some(from);
    }

    /// The number of nodes between a node and one that holds the blob.
    fn behind(&self, mut node: usize) -> u64 {
        for behind in 0..64 {
            match self.nodes[node].coming.as_ref().and_then(|c| c.from.as_ref()) {
                Some(from) => node = from.node,
                None => return behind,
            }
        }
        64
    }

    /// Breaks off with whom a node receives from.
    fn let_go(&mut self, me: usize) {
        let region = self.nodes[me].region.clone();
        let Some(from) = self.nodes[me].coming.as_mut().and_then(|c| c.from.take()) else { return };
        if from.link {
            self.nodes[from.node].fanout.ended(&0, &region, me);
        }
    }

    /// One group leaves `from`, for the next in turn that it has one for.
    fn send(&mut self, from: usize, receivers: &[usize]) {
        let node = &self.nodes[from];
        let holds = node.holds.clone();
        let reached = node.coming.as_ref().map_or(0, |c| c.bytes.len());
        let known =
            holds.is_some() || node.coming.as_ref().is_some_and(|c| c.flight.groups().is_some());
        if !node.alive || !known {
            return;
        }
        for at in 0..receivers.len() {
            let to = receivers[(node.turn + at) % receivers.len()];
            let Some(coming) = self.nodes[to].coming.as_ref() else { continue };
            let offset = coming.bytes.len();
            let has = holds.as_ref().map_or(reached, |bytes| bytes.len());
            let claimed = coming.from.as_ref().is_some_and(|f| f.claimed);
            if claimed && has <= offset {
                continue;
            }
            let end = (offset + GROUP).min(has);
            let piece = match &holds {
                Some(bytes) => bytes[offset..end].to_vec(),
                None => self.nodes[from].coming.as_ref().unwrap().bytes[offset..end.max(offset)]
                    .to_vec(),
            };
            let turn = self.nodes[from].turn + at + 1;
            self.nodes[from].turn = turn;
            return self.receive(from, to, &piece);
        }
    }

    fn receive(&mut self, from: usize, to: usize, piece: &[u8]) {
        let (now, moment, far) =
            (self.now, self.moment(), self.nodes[from].region != self.nodes[to].region);
        let list = self.list.clone();
        let coming = self.nodes[to].coming.as_mut().unwrap();
        let sender = coming.from.as_mut().unwrap();
        sender.since = now;
        let mut judged = Ok(());
        if !sender.claimed {
            sender.claimed = true;
            let claim =
                Claim { size: SIZE as u64, content: Some(self.bound.content), list: Some(list) };
            match coming.flight.handle_claim(&claim) {
                Judgement::Believed => {}
                Judgement::Contradicted => unreachable!("all speak of one blob"),
                Judgement::Lied(lie) => judged = Err(lie),
            }
        }
        let mut checked = Vec::new();
        if judged.is_ok() {
            judged = coming.flight.handle_bytes(moment, piece, &mut checked);
        }
        let before = coming.bytes.len();
        checked.iter().for_each(|group| coming.bytes.extend_from_slice(group.bytes()));
        assert!(self.truth[..coming.bytes.len()] == coming.bytes[..], "a wrong byte was passed on");
        let grown = coming.bytes.len() - before;
        let whole = coming.flight.is_whole();
        if let Err(lie) = judged {
            coming.flight.handle_lie(lie);
            self.nodes[to].reputation.handle(moment, from, lie);
            self.caught.insert(from);
        }
        self.nodes[from].sent += piece.len();
        if far {
            self.nodes[to].received_far += grown;
        }
        if judged.is_err() || whole {
            self.let_go(to);
        }
    }

    fn tick(&mut self) {
        self.now += 1;
        let mut receivers: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for me in 0..self.nodes.len() {
            if !self.nodes[me].alive {
                continue;
            }
            let wants = self.nodes[me].wants_at.is_some_and(|at| at <= self.now)
                && self.nodes[me].done_at.is_none();
            if wants && self.nodes[me].coming.is_none() {
                let sources = self.first_sources(me);
                self.begin(me, sources);
            }
            self.go_on(me);
            let now = self.now;
            let from = self.nodes[me]
                .coming
                .as_ref()
                .and_then(|c| c.from.as_ref().map(|f| (f.node, f.since)));
            let Some((source, since)) = from else { continue };
            let gone = !self.nodes[source].alive
                || (self.nodes[source].holds.is_none() && self.nodes[source].coming.is_none());
            let silent = now > since + STALL * (1 + self.behind(source));
            if gone || silent {
                let flight = &mut self.nodes[me].coming.as_mut().unwrap().flight;
                if gone {
                    flight.handle_failure();
                } else {
                    flight.handle_silence();
                }
                self.let_go(me);
            } else {
                receivers.entry(source).or_default().push(me);
            }
        }
        for (from, to) in receivers {
            self.nodes[from].served = self.nodes[from].served.max(to.len());
            self.send(from, &to);
        }
    }

    fn kill(&mut self, node: usize) {
        self.let_go(node);
        self.dead.insert(node);
        let died = &mut self.nodes[node];
        (died.alive, died.died, died.coming) = (false, self.now, None);
    }

    fn all_done(&self) -> bool {
        self.nodes
            .iter()
            .all(|n| !n.alive || n.wants_at.is_none() || n.done_at.is_some() || n.id.0 < 2)
    }

    /// Until everyone who lives has it; the ticks that took.
    fn run(&mut self, dice: &mut Dice, deaths: u64) -> u64 {
        for _ in 0..20_000 {
            if self.all_done() {
                return self.now;
            }
            self.tick();
            if self.now < 400 && dice.below(400) < deaths {
                let node = 2 + dice.below(self.nodes.len() as u64 - 2) as usize;
                if self.nodes[node].alive {
                    self.kill(node);
                }
            }
        }
        let left: Vec<_> =
            self.nodes.iter().filter(|n| n.alive && n.done_at.is_none()).map(|n| n.id.0).collect();
        panic!("it does not end: {} nodes are left: {:?}", left.len(), &left[..left.len().min(5)]);
    }

    /// Bytes that came into `region` from others.
    fn over_wan(&self, region: &str) -> usize {
        self.nodes.iter().filter(|n| n.region.as_str() == region).map(|n| n.received_far).sum()
    }
}

#[test]
fn a_thousand_nodes_get_a_blob_once_for_each_region_and_nobody_carries_many_copies() {
    for seed in 0..4 {
        let mut took = Vec::new();
        for (count, at_once) in [(16, true), (1000, true), (1000, false)] {
            let mut dice = Dice::new(seed);
            let mut world = World::new(&mut dice, count);
            for node in &mut world.nodes[2..] {
                node.wants_at = Some(if at_once { 1 } else { dice.between(1, ASK) });
            }
            took.push(world.run(&mut dice, 0));
            for region in ["c", "d"] {
                assert_eq!(
                    world.over_wan(region),
                    SIZE,
                    "seed {seed}, {count} nodes: into {region}"
                );
            }
            for region in ["a", "b"] {
                assert_eq!(
                    world.over_wan(region),
                    0,
                    "seed {seed}, {count} nodes: {region} holds it itself"
                );
            }
            let most = world.nodes.iter().map(|n| n.served).max().unwrap_or(0);
            assert!(most <= 5, "seed {seed}, {count} nodes: one served {most} at the same time");
            let most = world.nodes.iter().map(|n| n.sent).max().unwrap_or(0);
            assert!(
                !at_once || most <= 5 * SIZE,
                "seed {seed}, {count} nodes: one sent {} copies",
                most / SIZE
            );
        }
        assert!(
            took[1] < took[0] * 8,
            "seed {seed}: 16 nodes took {} ticks, a thousand {}",
            took[0],
            took[1]
        );
    }
}

#[test]
fn deaths_and_liars_among_a_thousand_keep_nobody_who_lives_from_the_right_bytes() {
    let (mut caught, mut died) = (0, 0);
    for seed in 100..106 {
        let mut dice = Dice::new(seed);
        let mut world = World::new(&mut dice, 1000);
        for node in &mut world.nodes[2..] {
            node.wants_at = Some(dice.between(1, ASK));
            node.flips = dice.chance(50).then(|| dice.below(SIZE as u64) as usize);
        }
        world.run(&mut dice, 100);
        for liar in &world.caught {
            assert!(
                world.nodes[*liar].flips.is_some(),
                "seed {seed}: {liar} is honest and was called a liar"
            );
        }
        let far = world.over_wan("c").max(world.over_wan("d"));
        assert!(far <= 40 * SIZE, "seed {seed}: a region fetched {} copies", far / SIZE);
        caught += world.caught.len();
        died += world.nodes.iter().filter(|n| !n.alive).count();
    }
    assert!(caught > 10 && died > 300, "no trouble proves nothing: {caught} caught, {died} died");
}
