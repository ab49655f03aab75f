//! Flights among sources that lie, cut short, break off, stall and die, over many seeds: no wrong byte is ever delivered, every flight ends, the blob arrives
//! wherever somebody honest stays, and only liars are called liars.

use std::collections::BTreeMap;
use std::time::Duration;

use rules::blobs::flight::{Bound, Claim, Flight, Judgement, Step};
use rules::blobs::groups::{GROUP, GroupHasher};
use rules::blobs::reputation::{Lie, Reputation};
use rules::words::digest::{ContentHash, Digest};
use rules::words::moment::Moment;

#[path = "sim/dice.rs"]
mod dice;
use dice::Dice;

const SEEDS: u64 = 3000;

/// How a source behaves, each time it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Honest,
    /// Breaks off at any byte, or stands still, which is the same to a flight; goes on when asked again.
    Frail,
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

/// What a source sends: its claim, its bytes from the offset on, and whether it ends well.
fn answer(manner: Manner, truth: &[u8], offset: usize, dice: &mut Dice) -> Option<(Claim, Vec<u8>, bool)> {
    let (content, list) = hashed(truth);
    let claim = Claim { size: truth.len() as u64, content: Some(content), list: Some(list) };
    let unknown = Claim { size: truth.len() as u64, content: None, list: None };
    let mut sent = truth.to_vec();
    let mut well = true;
    let claim = match manner {
        Manner::Honest => claim,
        Manner::Empty => return None,
        Manner::Frail => {
            sent.truncate(offset + dice.below((truth.len() - offset) as u64 + 1) as usize);
            well = false;
            claim
        }
        Manner::Dies(at) => {
            sent.truncate(at);
            well = false;
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
            well = false;
            unknown
        }
    };
    Some((claim, sent.split_off(offset.min(sent.len())), well))
}

fn manner(dice: &mut Dice, size: usize) -> Manner {
    let at = dice.below(size as u64) as usize;
    match dice.below(11) {
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
        _ => Manner::FillsWrong(at),
    }
}

struct Flown {
    delivered: Vec<u8>,
    arrived: bool,
    /// Bytes that were handed on unchecked, of a flight that began again: nobody has received the whole of them.
    unchecked_wrong: bool,
    caught: Vec<(usize, Lie)>,
}

/// One flight as a node carries it out.
fn fly(manners: &[Manner], order: Vec<usize>, truth: &[u8], bound: Option<Bound>, dice: &mut Dice) -> Flown {
    let name = Digest::sha256(truth);
    let mut flight = Flight::new(order, bound);
    let mut flown = Flown { delivered: Vec::new(), arrived: false, unchecked_wrong: false, caught: Vec::new() };
    for _ in 0..1000 {
        let (source, offset) = match flight.step() {
            Step::GiveUp if flight.forgive() => continue,
            Step::GiveUp => return flown,
            Step::Check if Digest::sha256(&flown.delivered) == name => {
                flown.arrived = true;
                return flown;
            }
            Step::Check => {
                let listed = flight.groups().is_some();
                let Some(liar) = flight.restart() else { return flown };
                if let Some(one) = liar {
                    flown.caught.push((one, if listed { Lie::Binding } else { Lie::Group }));
                }
                flown.delivered.clear();
                flown.unchecked_wrong = true;
                continue;
            }
            Step::Ask { source, offset } => (source, offset),
        };
        assert_eq!(offset as usize, flown.delivered.len(), "what counts is what was delivered");
        let Some((claim, sent, well)) = answer(manners[source], truth, offset as usize, dice) else {
            flight.handle_failure();
            continue;
        };
        let judged = match flight.handle_claim(&claim) {
            Judgement::Contradicted => {
                flight.handle_failure();
                continue;
            }
            Judgement::Lied(lie) => Err(lie),
            Judgement::Believed => receive(&mut flight, &sent, &mut flown.delivered, dice),
        };
        let judged = if judged.is_ok() && well && flight.step() != Step::Check { flight.handle_end() } else { judged };
        match judged {
            Err(lie) => {
                flown.caught.push((source, lie));
                flight.handle_lie(lie);
            }
            Ok(()) if flight.step() == Step::Check => {}
            Ok(()) => flight.handle_failure(),
        }
        if flight.groups().is_some() && bound.is_some() {
            assert!(truth.starts_with(&flown.delivered), "a wrong byte was delivered: {manners:?}");
        }
    }
    panic!("the flight does not end: {manners:?}");
}

fn receive(flight: &mut Flight<usize>, mut sent: &[u8], delivered: &mut Vec<u8>, dice: &mut Dice) -> Result<(), Lie> {
    while !sent.is_empty() && flight.step() != Step::Check {
        let (piece, rest) = sent.split_at(dice.between(1, 200_000).min(sent.len() as u64) as usize);
        sent = rest;
        if flight.groups().is_some() {
            let mut checked = Vec::new();
            let judged = flight.handle_bytes(piece, &mut checked);
            checked.iter().for_each(|group| delivered.extend_from_slice(group.bytes()));
            judged?;
        } else {
            flight.handle_unchecked(piece.len() as u64)?;
            delivered.extend_from_slice(piece);
        }
    }
    Ok(())
}

/// Sources that every flight can end well with.
fn good(manner: Manner) -> bool {
    matches!(manner, Manner::Honest | Manner::Fills)
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
        let manners: Vec<Manner> = (0..dice.between(1, 5)).map(|_| manner(&mut dice, size)).collect();
        let bound = dice.chance(700).then(|| Bound { content: hashed(&truth).0, size: size as u64 });
        let all = (0..manners.len()).collect();
        let flown = fly(&manners, all, &truth, bound, &mut dice);
        let said = || format!("seed {seed}: {manners:?}, caught {:?}", flown.caught);
        for (source, lie) in &flown.caught {
            *seen.entry(lie.name()).or_default() += 1;
            // without the ledger's word a list may be a liar's, and what it says of others is worth nothing until the digest decides
            if bound.is_some() {
                assert_eq!(manners[*source].lie(true), Some(*lie), "{}", said());
            }
        }
        if flown.arrived {
            assert_eq!(flown.delivered, truth, "{}", said());
        }
        let relay_wrong = manners.iter().filter(|m| matches!(m, Manner::FillsWrong(_))).count();
        if bound.is_some() && manners.contains(&Manner::Honest) && relay_wrong < 2 {
            assert!(flown.arrived, "somebody honest had it: {}", said());
        }
        if bound.is_some() && !manners.iter().any(|m| matches!(m, Manner::FillsWrong(_) | Manner::Fills)) {
            assert!(!flown.unchecked_wrong, "{}", said());
        }
        let groups: Vec<_> =
            manners.iter().map(|m| if let Manner::FlippedBit(at) = m { at / GROUP } else { 99 }).collect();
        if bound.is_some() && groups.len() == 2 && groups[0] != groups[1] && !groups.contains(&99) {
            assert!(flown.arrived, "two damaged copies make a good one: {}", said());
        }
        if manners.iter().all(|m| good(*m)) {
            assert!(flown.arrived && flown.caught.is_empty(), "{}", said());
        }
    }
    for what in ["group", "outboard", "binding", "length"] {
        assert!(seen.get(what).is_some_and(|count| *count > 20), "the seeds do not try {what}: {seen:?}");
    }
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
            let flown = fly(&manners, order, &truth, bound, dice);
            assert!(flown.arrived);
            flown.caught.iter().for_each(|(source, lie)| reputation.handle(now, *source, *lie));
            flown.caught.len()
        };
        assert_eq!(ask(&mut reputation, now, &mut dice), 1, "{liar:?}");
        for _ in 0..5 {
            now = now + Duration::from_secs(100);
            assert_eq!(ask(&mut reputation, now, &mut dice), 0, "the honest one was asked first");
        }
        now = now + Duration::from_secs(200);
        assert_eq!(ask(&mut reputation, now, &mut dice), 1, "after its time it is asked again, and caught again");
    }
}

#[test]
fn a_liar_that_alone_has_the_blob_gives_its_right_groups_and_no_wrong_one() {
    let mut dice = Dice::new(7);
    let truth = bytes(&mut dice, 5 * GROUP);
    let bound = Some(Bound { content: hashed(&truth).0, size: truth.len() as u64 });
    let flown = fly(&[Manner::FlippedBit(3 * GROUP + 17)], vec![0], &truth, bound, &mut dice);
    assert!(!flown.arrived);
    assert_eq!(flown.delivered, truth[..3 * GROUP]);
    assert_eq!(flown.caught, [(0, Lie::Group)]);
}
