//! Damaged and invented messages at each decoder of the mesh protocol, over many seeds: none makes
//! it panic, and none makes it take more memory than the length of the message allows.
//!
//! Memory is counted by the allocator of this test. `fuzz/` has the same decoders for libFuzzer,
//! which looks longer.

#![expect(unsafe_code, reason = "an allocator that counts has to be one")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeSet;

use rules::blobs::holding::{Held, Stock};
use rules::blobs::pacing::Class;
use rules::members::door::Standing;
use rules::people::access::{Action, Identity, Scope};
use rules::wire::{
    Answer, Ask, Bulk, CacheAnswer, CacheAsk, CopyEnd, Credentials, Fetched, Found, FromGranter,
    FromHolder, HEAD, Kind, Listing, Lookup, Open, Query, ReferrersPage, Referring, Resolution,
    SMALL, TagsPage, decode, decode_join, encode,
};
use rules::words::digest::{ContentHash, Digest};
use rules::words::names::{NodeId, Reference, RepositoryName, Revision};

#[path = "sim/dice.rs"]
mod dice;
use dice::Dice;

/// How many damaged messages each decoder gets.
const ROUNDS: u64 = 20_000;

/// What a decoder may take beside [`TIMES`] the length of its message. What a message only says of
/// the length of its lists must not count.
const BESIDE: usize = 16 << 10;

/// How many bytes of memory one byte of a message may become. The shortest element of a list has a
/// few bytes, and is as large in memory as the longest one; and a list that grows is there twice for
/// a moment.
const TIMES: usize = 100;

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, which counts the bytes of each thread.
struct Counting;

// SAFETY: all calls go to the system's allocator unchanged; what is counted is beside them, in cells
// that allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = LIVE.try_with(|live| {
            live.set(live.get() + layout.size());
            let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
        });
        // SAFETY: the caller keeps the promises of `GlobalAlloc::alloc`
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let _ = LIVE.try_with(|live| live.set(live.get().saturating_sub(layout.size())));
        // SAFETY: the caller keeps the promises of `GlobalAlloc::dealloc`
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The memory that `work` takes at most, in bytes.
fn taken(work: impl FnOnce()) -> usize {
    let before = LIVE.get();
    PEAK.set(before);
    work();
    PEAK.get().saturating_sub(before)
}

fn digest(n: u64) -> Digest {
    Digest::sha256(&n.to_be_bytes())
}

fn repository() -> RepositoryName {
    "demo/app".parse().unwrap()
}

fn questions() -> Vec<Vec<u8>> {
    let digests = (0..40).map(digest).collect();
    let lookups = |n: u64| {
        let query = Query::scan(b"demo", Some(&n.to_be_bytes()), 100);
        Lookup { query, unless: n.is_multiple_of(2).then_some([7; 16]) }
    };
    let scope = Scope { repository: repository(), actions: vec![Action::Pull, Action::Push] };
    let fetch = Bulk::Fetch {
        digest: digest(1),
        offset: 1 << 40,
        fill: true,
        via: Some(repository()),
        list: true,
        direct: false,
        class: Class::Pull,
    };
    let asks = vec![
        Ask::Raft { kind: 1, body: vec![3; 300] },
        Ask::Have { digests, repository: Some(repository()) },
        Ask::Look((0..30).map(lookups).collect()),
        Ask::Identify(Credentials::Basic("admin".into(), "password".into())),
        Ask::Token { name: "admin".into(), password: "password".into(), scopes: vec![scope; 20] },
        Ask::Announce((0..50).map(NodeId).collect()),
        Ask::Resolve { repository: repository(), reference: "latest".into() },
        Ask::Cached(CacheAsk::Find((0..30).map(|n| lookups(n).query).collect())),
        Ask::Cached(CacheAsk::Resolve {
            repository: repository(),
            reference: Reference::Tag("latest".parse().unwrap()),
            has: Some(digest(1)),
        }),
        Ask::Renew { certificate_request: "request".repeat(20) },
    ];
    let streams = vec![
        Open::Lease,
        Open::Bulk(fetch),
        Open::Bulk(Bulk::Copy { repository: repository() }),
        Open::Bulk(Bulk::Snapshot(vec![1; 200])),
    ];
    asks.into_iter().map(Open::Ask).chain(streams).map(|open| encode(&open)).collect()
}

fn answers() -> Vec<Vec<u8>> {
    let held = Held { size: 1 << 40, content: ContentHash::of(b"x") };
    let stock = Stock { held: Some(held), cached: true, granted: false };
    let pair = || (serde_bytes::ByteBuf::from([1; 9]), serde_bytes::ByteBuf::from([2; 30]));
    let found = vec![
        Found::Value(None),
        Found::Value(Some(serde_bytes::ByteBuf::from([1; 90]))),
        Found::Pairs((0..40).map(|_| pair()).collect()),
        Found::Same,
    ];
    let scope = Scope { repository: repository(), actions: vec![Action::Pull] };
    let verdict = (Identity::Administrator("admin".into()), Some(vec![scope; 20]));
    let tags = (0..50).map(|n| format!("v{n}").parse().unwrap()).collect();
    let nodes: BTreeSet<NodeId> = (0..50).map(NodeId).collect();
    let answers = vec![
        Answer::Raft(vec![3; 300]),
        Answer::Have(vec![stock; 40]),
        Answer::Look(found, true),
        Answer::Identified(Some(verdict.clone())),
        Answer::Token(Some(("token".into(), verdict))),
        Answer::Resolved(Resolution::Stale(digest(1), "it failed".into())),
        Answer::Referring(Referring::Page(ReferrersPage {
            index: vec![b'{'; 400],
            filtered: Some("artifactType".into()),
            next: None,
        })),
        Answer::Tags(Listing::Page(TagsPage { tags, next: Some("n=1".into()) })),
        Answer::Present { up: nodes.clone(), down: nodes },
        Answer::Refused("no".repeat(100)),
        Answer::Replicated(Ok(held)),
        Answer::Cached(CacheAnswer::Refers(vec![true; 40])),
        Answer::Cached(CacheAnswer::Find(vec![Found::Value(None), Found::Pairs(vec![pair(); 20])])),
    ];
    answers.iter().map(encode).collect()
}

fn fetched() -> Vec<Vec<u8>> {
    let list = Some(serde_bytes::ByteBuf::from(vec![5; 640]));
    let found =
        Fetched::Found { size: 1 << 30, content: Some(ContentHash::of(b"x")), list, behind: 3 };
    [found, Fetched::Elsewhere(NodeId(9)), Fetched::Missing].iter().map(encode).collect()
}

fn leases() -> Vec<Vec<u8>> {
    let down = (0..50).map(NodeId).collect();
    let renew = FromHolder::Renew { request: 7, applied: Revision(1 << 40), down };
    vec![encode(&renew), encode(&FromHolder::Applied(Revision(9)))]
}

/// Damages a message: bits, lengths, its end, and parts of other messages in it.
fn damage(dice: &mut Dice, message: &mut Vec<u8>, others: &[Vec<u8>]) {
    for _ in 0..dice.between(1, 4) {
        let at = dice.below(message.len() as u64 + 1) as usize;
        match dice.below(7) {
            0 if at < message.len() => message[at] ^= 1 << dice.below(8),
            1 if at < message.len() => message[at] = dice.next() as u8,
            2 => message.truncate(at),
            // the largest numbers that the encoding knows
            3 => {
                let length = dice.between(1, 9) as usize;
                message.splice(at..at, vec![0xff; length].into_iter().chain([1]));
            }
            4 => {
                let other = &others[dice.below(others.len() as u64) as usize];
                let from = dice.below(other.len() as u64) as usize;
                message.splice(at..at, other[from..].iter().copied());
            }
            // many short elements
            5 => {
                let byte = dice.below(4) as u8;
                let length = dice.below(2_000) as usize;
                message.splice(at..at, vec![byte; length]);
            }
            _ => {
                let length = dice.between(1, 40);
                let noise: Vec<u8> = (0..length).map(|_| dice.next() as u8).collect();
                message.splice(at..at, noise);
            }
        }
    }
}

/// Gives a decoder damaged messages, and looks at what it takes.
fn throw(name: &str, samples: &[Vec<u8>], decoder: impl Fn(&[u8])) {
    let mut largest = 0;
    for seed in 0..ROUNDS {
        let mut dice = Dice::new(seed);
        let mut message = samples[dice.below(samples.len() as u64) as usize].clone();
        if dice.chance(950) {
            damage(&mut dice, &mut message, samples);
        }
        let (length, taken) = (message.len(), taken(|| decoder(&message)));
        let most = BESIDE + TIMES * length;
        assert!(taken <= most, "{name}, seed {seed}: {taken} bytes for {length}");
        largest = largest.max(taken);
    }
    assert!(largest > 0, "{name}: nothing was counted");
    println!("{name}: at most {largest} bytes");
}

#[test]
fn no_damaged_message_takes_more_memory_than_its_length_allows() {
    let (questions, answers) = (questions(), answers());
    let undamaged = |bytes: &[u8]| decode::<Open>(bytes).is_ok();
    assert!(questions.iter().all(|bytes| undamaged(bytes)), "the samples can be read");
    assert!(answers.iter().all(|bytes| decode::<Answer>(bytes).is_ok()));
    throw("Open", &questions, |bytes| {
        let kind = Kind::of(&bytes[..bytes.len().min(HEAD)]);
        let admitted = kind.is_ok_and(|kind| kind.admit(Standing::Edge, bytes.len()).is_ok());
        let replica = kind_of_replica(bytes);
        if admitted || replica {
            let _ = decode::<Open>(bytes);
        }
    });
    throw("Join", &questions, |bytes| {
        let mut join = encode(&Open::Lease);
        join.splice(1.., [0, 13]);
        join.extend_from_slice(bytes.get(HEAD..).unwrap_or_default());
        let _ = decode_join(&join);
    });
    throw("Answer", &answers, |bytes| drop(decode::<Answer>(bytes)));
    throw("Fetched", &fetched(), |bytes| drop(decode::<Fetched>(bytes)));
    let ends = [encode(&CopyEnd::Seal(digest(1))), encode(&CopyEnd::Abandon)];
    throw("CopyEnd", &ends, |bytes| drop(decode::<CopyEnd>(bytes)));
    throw("FromHolder", &leases(), |bytes| drop(decode::<FromHolder>(bytes)));
    throw("FromGranter", &leases(), |bytes| drop(decode::<FromGranter>(bytes)));
    let held = Held { size: 5, content: ContentHash::of(b"x") };
    let copied: [Result<Held, String>; 2] = [Ok(held), Err("no".repeat(50))];
    let copied: Vec<Vec<u8>> = copied.iter().map(encode).collect();
    throw("copied", &copied, |bytes| drop(decode::<Result<Held, String>>(bytes)));
}

fn kind_of_replica(bytes: &[u8]) -> bool {
    let kind = Kind::of(&bytes[..bytes.len().min(HEAD)]);
    kind.is_ok_and(|kind| kind.admit(Standing::Replica, bytes.len()).is_ok())
}

#[test]
fn the_longest_frame_of_an_edge_becomes_a_bounded_amount_of_memory() {
    // as many of the shortest elements as fit: this was 1.1 GiB for one question once
    let fill = |ask: Ask, element: &[u8], length: usize| {
        let mut bytes = encode(&Open::Ask(ask));
        bytes.truncate(HEAD);
        // a number that the encoding writes in five bytes
        let count = (length - HEAD - 5) / element.len();
        bytes.extend((0..4).map(|part| (count >> (7 * part)) as u8 | 0x80));
        bytes.push((count >> 28) as u8);
        bytes.extend(element.iter().copied().cycle().take(count * element.len()));
        bytes
    };
    let look = fill(Ask::Look(Vec::new()), &[0, 0, 0], SMALL);
    assert!(decode::<Open>(&look).is_ok(), "it is a message");
    let kind = Kind::of(&look[..HEAD]).unwrap();
    assert!(kind.admit(Standing::Edge, look.len()).is_ok());
    let memory = taken(|| drop(decode::<Open>(&look)));
    assert!((SMALL..8 << 20).contains(&memory), "{memory} bytes");
    assert!(kind.admit(Standing::Edge, 40 << 20).is_err(), "a longer one is not read at all");
}

#[test]
fn the_allocator_counts() {
    let memory = taken(|| drop(std::hint::black_box(vec![1u8; 1 << 20])));
    assert!((1 << 20..2 << 20).contains(&memory), "{memory}");
}
