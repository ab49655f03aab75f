//! Flights among sources that lie, cut short, break off, pause, vanish and name one another, over
//! many seeds. No wrong byte is delivered, every flight ends, the blob arrives if an honest source
//! remains, and only liars are called liars.
//!
//! `Flight` decides everything. What is made up here is what sources do, who says that he holds the
//! blob, and what time it is.

use std::collections::BTreeMap;
use std::time::Duration;

use rules::blobs::flight::{
    AGAIN, Bound, Claim, DESERTED, First, Flight, GivenUp, Hurry, Judgement, Request, Source, Step,
};
use rules::blobs::groups::{GROUP, GroupHasher};
use rules::blobs::reputation::{Lie, Reputation};
use rules::words::digest::{ContentHash, Digest};
use rules::words::moment::Moment;

#[path = "sim/dice.rs"]
mod dice;
use dice::Dice;

const SEEDS: u64 = 3000;
/// How long a flight waits for sources that fell silent.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a source may be silent.
const STALL: Duration = Duration::from_secs(5);
/// Until a node that vanished is known to be down.
const NOTICED: Duration = Duration::from_secs(20);

/// How a source behaves, each time it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Honest,
    /// Breaks off at any byte; goes on when asked again.
    Frail,
    /// Says nothing at all for so many seconds once it has given so many bytes; then it is honest.
    Pauses(usize, u64),
    /// Says nothing any more once it has given so many bytes.
    Vanishes(usize),
    /// Says nothing when it is asked for bytes.
    Silent,
    /// Names another, and is honest when it is to send the blob itself.
    SendsOn(usize),
    /// Gives nothing more, ever, after so many bytes.
    Dies(usize),
    /// One bit is wrong on its disk.
    FlippedBit(usize),
    /// Its list is another blob's.
    WrongList,
    /// It names another content hash, consistently with other bytes.
    WrongBinding,
    /// Ends well before the end.
    CutShort(usize),
    /// Goes on after the end.
    GoesOn,
    /// Has nothing.
    Empty,
    /// An upstream that says that it does not have the blob.
    Missing,
    /// Fills from an upstream that has the right bytes: no content hash, no list.
    Fills,
    /// The same, and the upstream's bytes are wrong; being honest itself it never sends the end.
    FillsWrong(usize),
}

impl Manner {
    /// What it may be caught at.
    fn lie(self, bound: bool) -> Option<Lie> {
        match self {
            Manner::FlippedBit(_) => Some(Lie::Group),
            Manner::WrongList => Some(Lie::Outboard),
            Manner::WrongBinding => Some(Lie::Binding),
            Manner::CutShort(_) | Manner::GoesOn => Some(Lie::Length),
            Manner::FillsWrong(_) if bound => Some(Lie::Group),
            _ => None,
        }
    }

    /// Whether it says that it holds the blob.
    fn holds(self) -> bool {
        !matches!(self, Manner::Empty | Manner::Missing | Manner::Fills | Manner::FillsWrong(_))
    }

    /// Whether it gives the whole blob in the end to a flight that begins with it.
    fn honest(self) -> bool {
        matches!(self, Manner::Honest | Manner::SendsOn(_))
    }

    /// Whether no byte of it counts, where the ledger knows the blob.
    fn gives_nothing(self) -> bool {
        matches!(
            self,
            Manner::Empty
                | Manner::Missing
                | Manner::Silent
                | Manner::WrongList
                | Manner::WrongBinding
        )
    }
}

fn bytes(dice: &mut Dice, size: usize) -> Vec<u8> {
    let word = dice.next();
    (0..size as u64).map(|i| (i.wrapping_mul(word | 1) >> 23) as u8).collect()
}

fn hashed(bytes: &[u8]) -> (ContentHash, Vec<u8>) {
    let mut hasher = GroupHasher::new();
    hasher.update(bytes);
    let (content, list) = hasher.finish();
    (content, list.unwrap())
}

/// What a source does when it is asked.
enum Answer {
    Nothing,
    Missing,
    Elsewhere(usize),
    Silence,
    /// It says this, and sends these bytes.
    Sends(Claim, Vec<u8>, Ending),
}

#[derive(Clone, Copy, PartialEq)]
enum Ending {
    Well,
    BreaksOff,
    FallsSilent,
}

/// What a source does that is asked for the bytes from `offset` on.
fn answer(manner: Manner, truth: &[u8], offset: usize, dice: &mut Dice) -> Answer {
    let (content, list) = hashed(truth);
    let claim = Claim { size: truth.len() as u64, content: Some(content), list: Some(list) };
    let unknown = Claim { size: truth.len() as u64, content: None, list: None };
    let mut sent = truth.to_vec();
    let mut ending = Ending::Well;
    let claim = match manner {
        Manner::Honest | Manner::SendsOn(_) => claim,
        Manner::Empty => return Answer::Nothing,
        Manner::Missing => return Answer::Missing,
        Manner::Silent => return Answer::Silence,
        Manner::Frail => {
            sent.truncate(offset + dice.below((truth.len() - offset) as u64 + 1) as usize);
            ending = Ending::BreaksOff;
            claim
        }
        Manner::Dies(at) => {
            sent.truncate(at);
            ending = Ending::BreaksOff;
            claim
        }
        Manner::Pauses(at, _) | Manner::Vanishes(at) => {
            sent.truncate(at);
            ending = Ending::FallsSilent;
            claim
        }
        Manner::FlippedBit(at) => {
            sent[at] ^= 1 << dice.below(8);
            claim
        }
        Manner::WrongList => {
            let mut list = claim.list.unwrap();
            let at = dice.below(list.len() as u64) as usize;
            match list.get_mut(at) {
                Some(byte) => *byte ^= 1,
                None => list.extend([0; 32]),
            }
            Claim { list: Some(list), ..claim }
        }
        Manner::WrongBinding => {
            sent[0] ^= 1;
            let (content, list) = hashed(&sent);
            Claim { content: Some(content), list: Some(list), ..claim }
        }
        Manner::CutShort(at) => {
            sent.truncate(at);
            claim
        }
        Manner::GoesOn => {
            sent.extend_from_slice(&[0; 100]);
            claim
        }
        Manner::Fills => unknown,
        Manner::FillsWrong(at) => {
            sent[at] ^= 1;
            sent.truncate(truth.len().saturating_sub(GROUP));
            ending = Ending::BreaksOff;
            unknown
        }
    };
    Answer::Sends(claim, sent.split_off(offset.min(sent.len())), ending)
}

fn manner(dice: &mut Dice, size: usize) -> Manner {
    let at = dice.below(size as u64) as usize;
    match dice.below(16) {
        0 => Manner::Honest,
        1 => Manner::Frail,
        2 => Manner::Dies(at),
        3 => Manner::FlippedBit(at),
        4 => Manner::WrongList,
        5 => Manner::WrongBinding,
        6 => Manner::CutShort(at),
        7 => Manner::GoesOn,
        8 => Manner::Empty,
        9 => Manner::Fills,
        10 => Manner::FillsWrong(at),
        11 => Manner::Pauses(at, dice.between(1, 50)),
        12 => Manner::Vanishes(at),
        13 => Manner::Silent,
        14 => Manner::SendsOn(dice.below(5) as usize),
        _ => Manner::Missing,
    }
}

struct Flown {
    delivered: Vec<u8>,
    /// Why not, if it did not arrive.
    arrived: Result<(), GivenUp>,
    /// Bytes that were passed on unchecked, of a flight that started again: no client has received
    /// the whole of them.
    unchecked_wrong: bool,
    caught: Vec<(usize, Lie)>,
    /// An upstream said that it does not have the blob.
    missing: bool,
    /// How often it looked in each hurry, waited, and was sent on.
    looked: [u64; 2],
    waited: u64,
    sent_on: u64,
}

/// The sources of one flight, and time.
struct World<'a> {
    manners: &'a [Manner],
    truth: &'a [u8],
    now: Moment,
    /// The nodes that do not say at once that they hold the blob.
    slow: Vec<bool>,
    /// Since when those say nothing that pause or have vanished.
    quiet: Vec<Option<Moment>>,
    /// When the only client goes away.
    leaves: Option<Moment>,
}

impl<'a> World<'a> {
    fn new(manners: &'a [Manner], truth: &'a [u8], dice: &mut Dice) -> Self {
        let slow = manners.iter().map(|_| dice.chance(300)).collect();
        World {
            manners,
            truth,
            now: Moment::from_micros(1),
            slow,
            quiet: vec![None; manners.len()],
            leaves: None,
        }
    }

    /// Whether a client waits for the blob now.
    fn is_waited_for(&self) -> bool {
        self.leaves.is_none_or(|leaves| self.now < leaves)
    }

    fn source(&self, node: usize) -> Source<usize> {
        match self.manners[node] {
            Manner::Missing => Source::Upstream("hub/library/app".parse().unwrap()),
            manner => Source::Peer { node, fill: !manner.holds() },
        }
    }

    fn node(&self, source: &Source<usize>) -> usize {
        source
            .peer()
            .unwrap_or_else(|| self.manners.iter().position(|m| *m == Manner::Missing).unwrap())
    }

    /// Whether `node` says nothing now.
    fn is_quiet(&self, node: usize) -> bool {
        let Some(since) = self.quiet[node] else { return false };
        match self.manners[node] {
            Manner::Pauses(_, seconds) => self.now < since + Duration::from_secs(seconds),
            _ => true,
        }
    }

    /// Whether `node` is known to be down.
    fn is_down(&self, node: usize) -> bool {
        let vanished = matches!(self.manners[node], Manner::Vanishes(_));
        vanished && self.quiet[node].is_some_and(|since| self.now > since + NOTICED)
    }

    /// What `node` does now.
    fn ask(&mut self, node: usize, offset: usize, direct: bool, dice: &mut Dice) -> Answer {
        let manner = self.manners[node];
        if self.is_quiet(node) {
            self.now = self.now + STALL;
            return Answer::Silence;
        }
        self.now = self.now + Duration::from_millis(10);
        match manner {
            Manner::SendsOn(other) if !direct => {
                return Answer::Elsewhere(other % self.manners.len());
            }
            // it has paused
            Manner::Pauses(..) if self.quiet[node].is_some() => {
                return answer(Manner::Honest, self.truth, offset, dice);
            }
            _ => {}
        }
        let answer = answer(manner, self.truth, offset, dice);
        if let Answer::Sends(_, _, Ending::FallsSilent) = answer {
            self.quiet[node] = Some(self.now);
        }
        if let Answer::Silence | Answer::Sends(_, _, Ending::FallsSilent) = answer {
            self.now = self.now + STALL;
        }
        answer
    }

    /// The nodes that say that they hold the blob; if there are none, those that may fetch it
    /// themselves.
    fn look(&mut self, hurry: Hurry) -> Vec<Source<usize>> {
        self.now = self.now + Duration::from_millis(if hurry == Hurry::All { 1000 } else { 5 });
        let mut found: Vec<usize> = (0..self.manners.len()).collect();
        found.retain(|node| self.manners[*node].holds() && !self.is_quiet(*node));
        if hurry == Hurry::First && found.iter().any(|node| !self.slow[*node]) {
            found.retain(|node| !self.slow[*node]);
        }
        if found.is_empty() {
            found = (0..self.manners.len()).filter(|node| !self.manners[*node].holds()).collect();
        }
        found.into_iter().map(|node| self.source(node)).collect()
    }
}

/// Some of the sources, as a flight may come by them.
fn first(world: &World<'_>, dice: &mut Dice) -> First<usize> {
    let mut nodes: Vec<usize> = (0..world.manners.len()).collect();
    let sources = |nodes: Vec<usize>| nodes.into_iter().map(|node| world.source(node)).collect();
    match dice.below(4) {
        0 => First::Named(Vec::new()),
        1 => First::Named(sources(vec![dice.below(nodes.len() as u64) as usize])),
        2 => {
            nodes.retain(|node| world.manners[*node].holds());
            nodes.truncate(1);
            First::Presumed(sources(nodes))
        }
        _ => First::Named(sources(nodes)),
    }
}

/// One flight as a node carries it out.
fn fly(world: &mut World<'_>, first: First<usize>, bound: Option<Bound>, dice: &mut Dice) -> Flown {
    let (manners, truth) = (world.manners, world.truth);
    let name = Digest::sha256(truth);
    let mut flight = Flight::new(world.now, first, bound, PATIENCE);
    let mut flown = Flown {
        delivered: Vec::new(),
        arrived: Ok(()),
        unchecked_wrong: false,
        caught: Vec::new(),
        missing: false,
        looked: [0; 2],
        waited: 0,
        sent_on: 0,
    };
    let mut grew = world.now;
    for _ in 0..2000 {
        flight.handle_waiting(world.now, world.is_waited_for());
        let request = match flight.step(world.now, |node| world.is_down(node)) {
            Step::Ask(request) => request,
            Step::Look(hurry) => {
                flown.looked[usize::from(hurry == Hurry::All)] += 1;
                let found = world.look(hurry);
                flight.handle_found(found);
                continue;
            }
            Step::Wait(pause) => {
                assert_eq!(pause, AGAIN);
                flown.waited += 1;
                world.now = world.now + pause;
                continue;
            }
            Step::Check if Digest::sha256(&flown.delivered) == name => return flown,
            Step::Check => {
                if let Some((liar, lie)) = flight.handle_wrong_digest() {
                    flown.caught.push((world.node(&liar), lie));
                }
                flown.delivered.clear();
                flown.unchecked_wrong = true;
                continue;
            }
            Step::GiveUp(why) => {
                // those who fell silent may each cost one more silence, and so may those who were
                // found last
                let most = PATIENCE + STALL * (4 * manners.len() as u32 + 1);
                assert!(world.now.since(grew) <= most, "a client waits for ever: {manners:?}");
                flown.arrived = Err(why);
                return flown;
            }
        };
        let Request { source, offset, direct, .. } = request;
        let (node, before) = (world.node(&source), flown.delivered.len());
        assert_eq!(offset as usize, before, "what counts is what was delivered");
        let (claim, sent, ending) = match world.ask(node, before, direct, dice) {
            Answer::Sends(claim, sent, ending) => (claim, sent, ending),
            Answer::Nothing => {
                flight.handle_nothing();
                continue;
            }
            Answer::Missing => {
                flown.missing = true;
                flight.handle_missing();
                continue;
            }
            Answer::Elsewhere(other) => {
                flown.sent_on += u64::from(flight.handle_elsewhere(other, other != node));
                continue;
            }
            Answer::Silence => {
                flight.handle_silence();
                continue;
            }
        };
        let judged = match flight.handle_claim(&claim) {
            Judgement::Contradicted => {
                flight.handle_failure();
                continue;
            }
            Judgement::Lied(lie) => Err(lie),
            Judgement::Believed => {
                receive(&mut flight, world.now, &sent, &mut flown.delivered, dice)
            }
        };
        if flown.delivered.len() > before {
            grew = world.now;
        }
        let well = ending == Ending::Well && !flight.is_whole();
        match judged.and_then(|()| if well { flight.handle_end() } else { Ok(()) }) {
            Err(lie) => {
                flown.caught.push((node, lie));
                flight.handle_lie(lie);
            }
            Ok(()) if flight.is_whole() => {}
            Ok(()) if ending == Ending::FallsSilent => {
                assert!(flight.handle_silence(), "it had begun");
            }
            Ok(()) => flight.handle_failure(),
        }
        if flight.groups().is_some() && bound.is_some() {
            assert!(truth.starts_with(&flown.delivered), "a wrong byte was delivered: {manners:?}");
        }
    }
    panic!("the flight does not end: {manners:?}");
}

fn receive(
    flight: &mut Flight<usize>,
    now: Moment,
    mut sent: &[u8],
    delivered: &mut Vec<u8>,
    dice: &mut Dice,
) -> Result<(), Lie> {
    while !sent.is_empty() && !flight.is_whole() {
        let (piece, rest) = sent.split_at(dice.between(1, 200_000).min(sent.len() as u64) as usize);
        sent = rest;
        if flight.groups().is_some() {
            let mut checked = Vec::new();
            let judged = flight.handle_bytes(now, piece, &mut checked);
            checked.iter().for_each(|group| delivered.extend_from_slice(group.bytes()));
            judged?;
        } else {
            flight.handle_unchecked(now, piece.len() as u64)?;
            delivered.extend_from_slice(piece);
        }
    }
    Ok(())
}

/// Sources that every flight can end well with.
fn good(manner: Manner) -> bool {
    manner.honest() || manner == Manner::Fills
}

#[test]
fn no_wrong_byte_is_delivered_and_every_flight_ends() {
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 0..SEEDS {
        let mut dice = Dice::new(seed);
        let size = match dice.below(4) {
            0 => dice.between(1, 100),
            1 => dice.between(1, 4) * GROUP as u64,
            _ => dice.between(1, 5 * GROUP as u64),
        } as usize;
        let truth = bytes(&mut dice, size);
        let manners: Vec<Manner> =
            (0..dice.between(1, 5)).map(|_| manner(&mut dice, size)).collect();
        let bound =
            dice.chance(700).then(|| Bound { content: hashed(&truth).0, size: size as u64 });
        let mut world = World::new(&manners, &truth, &mut dice);
        let first = first(&world, &mut dice);
        let flown = fly(&mut world, first, bound, &mut dice);
        *seen.entry("look in a hurry").or_default() += flown.looked[0];
        *seen.entry("look at all").or_default() += flown.looked[1];
        *seen.entry("wait").or_default() += flown.waited;
        *seen.entry("sent on").or_default() += flown.sent_on;
        *seen.entry("begun again").or_default() += u64::from(flown.unchecked_wrong);
        let said = || format!("seed {seed}: {manners:?}, caught {:?}", flown.caught);
        for (source, lie) in &flown.caught {
            *seen.entry(lie.name()).or_default() += 1;
            // without the ledger's word a list may be a liar's, and what it says of others is worth
            // nothing until the digest decides
            if bound.is_some() {
                assert_eq!(manners[*source].lie(true), Some(*lie), "{}", said());
            }
        }
        match flown.arrived {
            Ok(()) => assert_eq!(flown.delivered, truth, "{}", said()),
            Err(GivenUp::Nobody) => {
                *seen.entry("nobody").or_default() += 1;
                assert!(!flown.missing && !flown.unchecked_wrong, "{}", said());
            }
            Err(GivenUp::MissingUpstream) => {
                *seen.entry("missing").or_default() += 1;
                assert!(flown.missing && !flown.unchecked_wrong, "{}", said());
            }
            Err(GivenUp::WrongBytes) => {
                *seen.entry("wrong bytes").or_default() += 1;
                assert!(flown.unchecked_wrong, "{}", said());
            }
            Err(GivenUp::Deserted) => panic!("a client waits: {}", said()),
        }
        let arrived = flown.arrived.is_ok();
        let relay_wrong = manners.iter().filter(|m| matches!(m, Manner::FillsWrong(_))).count();
        if bound.is_some() && manners.iter().any(|m| m.honest()) && relay_wrong < 2 {
            assert!(arrived, "somebody honest had it: {}", said());
        }
        if bound.is_some()
            && !manners.iter().any(|m| matches!(m, Manner::FillsWrong(_) | Manner::Fills))
        {
            assert!(!flown.unchecked_wrong, "{}", said());
        }
        // no matter how it was come by, and whether it answers when all are asked
        let others = || manners.iter().filter(|m| !matches!(m, Manner::Pauses(..)));
        if bound.is_some()
            && others().count() + 1 == manners.len()
            && others().all(|m| m.gives_nothing())
        {
            assert!(arrived, "it went on within a client's patience: {}", said());
        }
        let groups: Vec<_> = manners
            .iter()
            .map(|m| if let Manner::FlippedBit(at) = m { at / GROUP } else { 99 })
            .collect();
        if bound.is_some() && groups.len() == 2 && groups[0] != groups[1] && !groups.contains(&99) {
            assert!(arrived, "two damaged copies make a good one: {}", said());
        }
        if manners.iter().all(|m| good(*m)) {
            assert!(arrived && flown.caught.is_empty(), "{}", said());
        }
    }
    let lies = ["group", "outboard", "binding", "length"];
    let ends = ["nobody", "missing", "wrong bytes"];
    let steps = ["look in a hurry", "look at all", "wait", "sent on", "begun again"];
    for what in lies.into_iter().chain(ends).chain(steps) {
        assert!(
            seen.get(what).is_some_and(|count| *count > 20),
            "the seeds do not try {what}: {seen:?}"
        );
    }
}

#[test]
fn a_flight_whose_client_has_gone_ends_soon_and_keeps_what_was_nearly_done() {
    let (mut deserted, mut kept) = (0, 0);
    for seed in 0..SEEDS {
        let mut dice = Dice::new(seed ^ 0xde5e);
        let size = dice.between(1, 5 * GROUP as u64) as usize;
        let truth = bytes(&mut dice, size);
        let count = dice.between(1, 4);
        let manners: Vec<Manner> = (0..count).map(|_| manner(&mut dice, size)).collect();
        let mut world = World::new(&manners, &truth, &mut dice);
        let leaves = world.now + Duration::from_millis(dice.below(20_000));
        world.leaves = Some(leaves);
        let first = first(&world, &mut dice);
        let flown = fly(&mut world, first, None, &mut dice);
        // silences until it is noticed and before the end, and some questions
        let long = world.now.since(leaves) > DESERTED + STALL * 3;
        match flown.arrived {
            Err(GivenUp::Deserted) => {
                deserted += 1;
                assert!(world.now.since(leaves) >= DESERTED, "seed {seed}: a client waited");
                let nearly = flown.delivered.len() >= size - size / 4;
                assert!(!nearly, "seed {seed}: {} of {size} bytes", flown.delivered.len());
                // nearly done, found wrong, and begun again: only then it was deserted
                assert!(
                    !long || flown.unchecked_wrong,
                    "seed {seed}: it went on for {:?}",
                    world.now.since(leaves)
                );
            }
            _ if long => {
                let nearly = flown.delivered.len() >= size - size / 4 || flown.unchecked_wrong;
                assert!(nearly, "seed {seed}: {} of {size} bytes", flown.delivered.len());
                kept += 1;
            }
            _ => {}
        }
    }
    assert!(deserted > 50 && kept > 5, "{deserted} ended, {kept} went on");
}

#[test]
fn who_was_caught_is_asked_last_by_the_next_flights_and_then_forgiven() {
    for seed in 0..200 {
        let mut dice = Dice::new(seed);
        let truth = bytes(&mut dice, 3 * GROUP + 5);
        let bound = Some(Bound { content: hashed(&truth).0, size: truth.len() as u64 });
        let at = dice.below(truth.len() as u64) as usize;
        let liar = match dice.below(3) {
            0 => Manner::FlippedBit(at),
            1 => Manner::WrongList,
            _ => Manner::CutShort(at),
        };
        let manners = [liar, Manner::Honest];
        let mut reputation = Reputation::default();
        let mut now = Moment::from_micros(1);
        let ask = |reputation: &mut Reputation<usize>, now: Moment, dice: &mut Dice| {
            let mut order = vec![0, 1];
            reputation.order(now, &mut order, |source| Some(*source));
            let mut world = World::new(&manners, &truth, dice);
            let order = order.into_iter().map(|node| world.source(node)).collect();
            let flown = fly(&mut world, First::Named(order), bound, dice);
            assert!(flown.arrived.is_ok());
            flown.caught.iter().for_each(|(source, lie)| reputation.handle(now, *source, *lie));
            flown.caught.len()
        };
        assert_eq!(ask(&mut reputation, now, &mut dice), 1, "{liar:?}");
        for _ in 0..5 {
            now = now + Duration::from_secs(100);
            assert_eq!(ask(&mut reputation, now, &mut dice), 0, "the honest one was asked first");
        }
        now = now + Duration::from_secs(200);
        assert_eq!(
            ask(&mut reputation, now, &mut dice),
            1,
            "after its time it is asked again, and caught again"
        );
    }
}

#[test]
fn a_liar_that_alone_has_the_blob_gives_its_right_groups_and_no_wrong_one() {
    let mut dice = Dice::new(7);
    let truth = bytes(&mut dice, 5 * GROUP);
    let bound = Some(Bound { content: hashed(&truth).0, size: truth.len() as u64 });
    let manners = [Manner::FlippedBit(3 * GROUP + 17)];
    let mut world = World::new(&manners, &truth, &mut dice);
    let flown = fly(&mut world, First::Named(Vec::new()), bound, &mut dice);
    assert_eq!(flown.arrived, Err(GivenUp::Nobody));
    assert_eq!(flown.delivered, truth[..3 * GROUP]);
    assert_eq!(flown.caught, [(0, Lie::Group)]);
}
