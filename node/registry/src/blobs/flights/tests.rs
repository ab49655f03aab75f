//! Flights over real links, from peers that behave as they are told.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ground::supervise::Tasks;
use mesh::identity::{Authority, Candidate, Identity};
use mesh::ledger::{Ledger, LedgerTerms};
use mesh::links::{self, CongestionControl, Guest, Line, Links, Service};
use mesh::members::{Members, MembersTerms};
use mesh::secrets::Secrets;
use mesh::transfer::{Serve, TransferTerms};
use parking_lot::Mutex;
use quinn::{RecvStream, SendStream};
use rules::blobs::flight::Bound;
use rules::blobs::groups::{GROUP, GroupHasher};
use rules::blobs::pacing::Class;
use rules::blobs::reputation::Lie;
use rules::ledger::lease::LeaseTerms;
use rules::ledger::records::Role;
use rules::members::failover::FailoverTerms;
use rules::members::voters::VoterTerms;
use rules::wire::{Answer, Ask, Bulk, JoinRequest};
use rules::words::digest::{ContentHash, Digest};
use rules::words::names::NodeId;

use super::{FlightError, Flights, Sources};
use crate::blobs::liars::Liars;
use crate::upstreams::{Upstreams, UpstreamsTerms};
use crate::view::Records;
use crate::view::neighbours::Neighbours;
use store::Store;
use upstream::{AddressRule, Trust, UpstreamTerms};

/// Nothing here takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a peer behaves when it is asked.
#[derive(Clone)]
struct Manner {
    content: Option<ContentHash>,
    list: Vec<u8>,
    size: u64,
    bytes: Vec<u8>,
    /// What happens after this many bytes of the blob, the first time it is asked.
    then: Then,
}

#[derive(Clone, Copy, PartialEq)]
enum Then {
    End,
    BreakOff(usize),
    StandStill(usize),
}

fn hashed(bytes: &[u8]) -> (ContentHash, Vec<u8>) {
    let mut hasher = GroupHasher::new();
    hasher.update(bytes);
    let (content, list) = hasher.finish();
    (content, list.unwrap())
}

fn honest(bytes: &[u8]) -> Manner {
    let (content, list) = hashed(bytes);
    Manner {
        content: Some(content),
        list,
        size: bytes.len() as u64,
        bytes: bytes.to_vec(),
        then: Then::End,
    }
}

struct Peer {
    manner: Mutex<Manner>,
    /// The offsets it was asked for, and what for.
    asked: Mutex<Vec<(u64, Class)>>,
}

impl Service for Peer {
    async fn answer(&self, _: Guest, _: Ask) -> Answer {
        Answer::Refused("only for blobs".into())
    }

    async fn join(&self, _: JoinRequest) -> Answer {
        Answer::Refused("only for blobs".into())
    }

    async fn lease(&self, _: NodeId, _: SendStream, _: RecvStream) {}

    async fn append(&self, _: NodeId, _: SendStream, _: RecvStream) {}

    fn left(&self, _: NodeId) {}

    async fn bulk(&self, _: Guest, bulk: Bulk, send: SendStream, _: RecvStream) {
        let Bulk::Fetch { offset, list, class, .. } = bulk else { return };
        self.asked.lock().push((offset, class));
        let manner = self.manner.lock().clone();
        let mut serve = Serve::new(send, Line::default(), Class::Pull, PATIENCE);
        serve.found(manner.size, manner.content, list.then_some(manner.list), 0).await.unwrap();
        let end = match manner.then {
            Then::End => manner.bytes.len(),
            Then::BreakOff(end) | Then::StandStill(end) => end,
        };
        let _ =
            serve.send(Bytes::from(manner.bytes[(offset as usize).min(end)..end].to_vec())).await;
        match manner.then {
            Then::End => serve.finish(),
            Then::BreakOff(_) => {
                // what was sent is to arrive before the reset
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Then::StandStill(_) => {
                self.manner.lock().then = Then::End;
                tokio::time::sleep(PATIENCE).await;
            }
        }
    }

    async fn datagram(&self, _: NodeId, _: Bytes) {}
}

struct Rig {
    flights: Arc<Flights>,
    liars: Arc<Liars>,
    store: Arc<Store>,
    peers: Vec<Arc<Peer>>,
    tasks: Tasks,
    _folder: tempfile::TempDir,
}

const PEERS: [NodeId; 2] = [NodeId(11), NodeId(12)];

impl Rig {
    async fn new(manners: [Manner; 2]) -> Rig {
        let (tasks, folder) = (Tasks::new(), tempfile::tempdir().unwrap());
        let authority = Authority::generate().unwrap();
        let open = |node: NodeId| {
            let candidate = Candidate::generate(node).unwrap();
            let certificate = authority
                .sign(node, Role::Replica, &candidate.request, ground::clock::timestamp())
                .unwrap();
            let identity =
                Identity { node, certificate, key: candidate.key, authority: authority.clone() };
            Links::open(&identity, ([127, 0, 0, 1], 0).into(), CongestionControl::default())
                .unwrap()
        };
        let links = open(NodeId(10));
        let mut peers = Vec::new();
        for (node, manner) in PEERS.into_iter().zip(manners) {
            let theirs = open(node);
            links.know(node, theirs.local_address().unwrap());
            let peer = Arc::new(Peer { manner: Mutex::new(manner), asked: Mutex::default() });
            tasks.spawn("peer", links::serve(theirs, peer.clone(), tasks.clone()));
            peers.push(peer);
        }
        let short = Duration::from_millis(300);
        let members_terms =
            MembersTerms { probe_period: short, probe_rtt: short / 3, suspect_to_down: short * 3 };
        let address = links.local_address().unwrap();
        let members = Members::start(
            links.clone(),
            Role::Replica,
            address,
            members_terms,
            Vec::new(),
            folder.path(),
            &tasks,
        );
        let ledger_terms = LedgerTerms {
            heartbeat: short,
            election_min: short * 3,
            election_max: short * 4,
            log_bytes: 1 << 20,
            lease: LeaseTerms { duration: short * 5 },
            renew_every: short,
            failover: FailoverTerms {
                hold_down: short,
                return_after: short,
                view_age: short,
                silent_for: short * 100,
            },
            voters: VoterTerms { hold_down: short * 100, settle: short },
            older_disk: false,
        };
        let at = folder.path().join("ledger");
        let ledger = Ledger::open(
            &at,
            links.clone(),
            members.clone(),
            ledger_terms,
            &ground::opening::Opening::default(),
            &tasks,
        )
        .await
        .unwrap();
        let cached = store::CachedRecords::open(
            folder.path(),
            None,
            10,
            &ground::opening::Opening::default(),
        )
        .unwrap();
        let region = "here".parse().unwrap();
        let neighbours = Arc::new(Neighbours {
            me: links.me(),
            region,
            links,
            members,
            records: Records::Ledger(ledger, cached),
            upkeep: Default::default(),
            conditions: Default::default(),
        });
        let store = Store::open(folder.path(), None, &ground::opening::Opening::default()).unwrap();
        let liars = Arc::new(Liars::new(neighbours.clone(), tasks.clone()));
        let terms = TransferTerms { first_byte: PATIENCE, stall: PATIENCE, source_stall: short };
        let upstreams_terms = UpstreamsTerms {
            allowed: true,
            rule: AddressRule { allow_private: false, allow_loopback: false },
            trust: Trust::public().unwrap(),
            each: UpstreamTerms {
                first_byte: PATIENCE,
                stall: PATIENCE,
                question: PATIENCE,
                max_manifest: 1 << 20,
            },
        };
        let secrets = Arc::new(Secrets::of(&authority));
        let upstreams = Upstreams::new(neighbours.clone(), secrets, upstreams_terms, tasks.clone());
        let flights = Flights::new(
            neighbours,
            store.clone(),
            Arc::default(),
            liars.clone(),
            terms,
            upstreams,
            tasks.clone(),
        );
        Rig { flights, liars, store, peers, tasks, _folder: folder }
    }

    /// Flies it from both peers in order; the bytes that were kept.
    async fn fly(&self, digest: Digest) -> Result<Vec<u8>, FlightError> {
        let arriving = self.flights.join(digest, Sources::Told(PEERS.to_vec()), Class::Pull);
        let held = tokio::time::timeout(PATIENCE / 2, arriving.finished())
            .await
            .expect("the flight ends")?;
        let blob = self.store.open_blob(&digest).await.unwrap().unwrap();
        let mut bytes = vec![0; held.size as usize];
        blob.read_exact_at(&mut bytes, 0).unwrap();
        Ok(bytes)
    }

    fn named(&self) -> Vec<(NodeId, Vec<Lie>)> {
        self.liars
            .list()
            .into_iter()
            .map(|(node, caught)| (node, caught.lies.into_keys().collect()))
            .collect()
    }

    fn asked(&self, peer: usize) -> Vec<u64> {
        self.peers[peer].asked.lock().iter().map(|(offset, _)| *offset).collect()
    }

    async fn end(self) {
        self.tasks.stop(PATIENCE).await;
    }
}

fn blob() -> Vec<u8> {
    (0..8 * GROUP + 123).map(|i| (i / 3) as u8 ^ (i >> 13) as u8).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_liars_group_is_thrown_away_and_the_next_source_goes_on_at_its_first_byte() {
    let bytes = blob();
    let mut flipped = honest(&bytes);
    flipped.bytes[5 * GROUP + 77] ^= 4;
    let mut wrong_list = honest(&bytes);
    wrong_list.list[33] ^= 1;
    let mut short = honest(&bytes);
    short.bytes.truncate(2 * GROUP + 5);
    let mut long = honest(&bytes);
    long.bytes.extend_from_slice(&[0; 9]);
    for (liar, lie, goes_on) in [
        (flipped, Lie::Group, vec![5 * GROUP as u64]),
        (wrong_list, Lie::Outboard, vec![0]),
        (short, Lie::Length, vec![2 * GROUP as u64]),
    ] {
        let rig = Rig::new([liar, honest(&bytes)]).await;
        assert!(rig.fly(Digest::sha256(&bytes)).await.unwrap() == bytes, "{lie}");
        assert_eq!(rig.named(), [(PEERS[0], vec![lie])]);
        assert_eq!((rig.asked(0), rig.asked(1)), (vec![0], goes_on), "{lie}");
        rig.end().await;
    }
    // what comes after the end is nobody's harm
    let rig = Rig::new([long, honest(&bytes)]).await;
    assert!(rig.fly(Digest::sha256(&bytes)).await.unwrap() == bytes);
    assert!(rig.asked(1).is_empty());
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_damaged_copies_make_a_good_one() {
    let bytes = blob();
    let damaged_at = |group: usize| {
        let mut manner = honest(&bytes);
        manner.bytes[group * GROUP + 1] ^= 1;
        manner
    };
    let rig = Rig::new([damaged_at(2), damaged_at(6)]).await;
    assert!(rig.fly(Digest::sha256(&bytes)).await.unwrap() == bytes);
    assert_eq!(rig.named(), [(PEERS[0], vec![Lie::Group]), (PEERS[1], vec![Lie::Group])]);
    assert_eq!((rig.asked(0), rig.asked(1)), (vec![0, 6 * GROUP as u64], vec![2 * GROUP as u64]));
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_breaks_off_or_stands_still_is_replaced_and_no_liar() {
    let bytes = blob();
    for then in [Then::BreakOff(3 * GROUP + 9), Then::StandStill(3 * GROUP + 9)] {
        let rig = Rig::new([Manner { then, ..honest(&bytes) }, honest(&bytes)]).await;
        // within half of PATIENCE, and the terms let a client wait for all of it: so it was the
        // source's own deadline
        assert!(rig.fly(Digest::sha256(&bytes)).await.unwrap() == bytes);
        assert!(rig.named().is_empty());
        assert_eq!(rig.asked(1), [3 * GROUP as u64]);
        rig.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_a_client_waits_for_is_a_pull_from_then_on() {
    let bytes = blob();
    let still = Manner { then: Then::StandStill(3 * GROUP), ..honest(&bytes) };
    let rig = Rig::new([still, honest(&bytes)]).await;
    let digest = Digest::sha256(&bytes);
    let copying = rig.flights.join(digest, Sources::Told(PEERS.to_vec()), Class::Copy);
    copying.begun(digest, PATIENCE).await.unwrap();
    assert!(rig.fly(digest).await.unwrap() == bytes);
    // from the same source at once, or from the next when the first stands still
    let asked: Vec<Class> = rig
        .peers
        .iter()
        .flat_map(|peer| peer.asked.lock().clone())
        .map(|(_, class)| class)
        .collect();
    assert!(asked.len() > 1 && asked[0] == Class::Copy, "{asked:?}");
    assert!(asked[1..].iter().all(|class| *class == Class::Pull), "{asked:?}");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_source_that_stands_still_is_asked_again_for_as_long_as_a_client_waits() {
    let bytes = blob();
    let still = Manner { then: Then::StandStill(3 * GROUP), ..honest(&bytes) };
    let nothing = Manner { then: Then::BreakOff(0), ..honest(&bytes) };
    let rig = Rig::new([still, nothing]).await;
    assert!(rig.fly(Digest::sha256(&bytes)).await.unwrap() == bytes);
    assert_eq!(rig.asked(0), [0, 3 * GROUP as u64]);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_liar_that_alone_has_the_blob_gives_no_byte_past_its_right_groups() {
    let bytes = blob();
    let mut flipped = honest(&bytes);
    flipped.bytes[4 * GROUP] ^= 1;
    let rig = Rig::new([flipped.clone(), flipped]).await;
    let digest = Digest::sha256(&bytes);
    let arriving = rig.flights.join(digest, Sources::Told(PEERS.to_vec()), Class::Pull);
    let begun = arriving.begun(digest, PATIENCE).await.unwrap();
    assert!(matches!(arriving.finished().await, Err(FlightError::NoSource(_))));
    let allowed = begun.following.borrow().clone().unwrap();
    assert_eq!(allowed, 4 * GROUP as u64);
    let mut shown = vec![0; allowed as usize];
    assert_eq!(begun.bytes.read_at(&mut shown, 0).unwrap() as u64, allowed);
    assert!(shown == bytes[..allowed as usize]);
    assert_eq!(begun.bytes.read_at(&mut [0], allowed).unwrap(), 0, "nor was any written");
    assert_eq!(rig.store.held(&digest).unwrap(), None);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_that_hash_to_their_own_list_are_disproved_at_the_end_and_the_flight_begins_again_once()
 {
    let bytes = blob();
    let mut other = bytes.clone();
    other[GROUP] ^= 1;
    let mut filling = honest(&other);
    (filling.content, filling.list) = (None, Vec::new());
    for (liar, lie) in [(honest(&other), Lie::Binding), (filling, Lie::Group)] {
        let rig = Rig::new([liar.clone(), honest(&bytes)]).await;
        let digest = Digest::sha256(&bytes);
        let arriving = rig.flights.join(digest, Sources::Told(PEERS.to_vec()), Class::Pull);
        let first = arriving.begun(digest, PATIENCE).await.unwrap();
        assert!(rig.fly(digest).await.unwrap() == bytes);
        let mut following = first.following;
        let allowed = following.borrow_and_update().clone().unwrap();
        if first.groups.map(|groups| groups.content()) != honest(&bytes).content {
            assert!(allowed <= (bytes.len() - GROUP) as u64, "the end of wrong bytes was shown");
        }
        assert_eq!(rig.named(), [(PEERS[0], vec![lie])]);
        rig.end().await;
        // and when the next is as wrong, it is the end
        let rig = Rig::new([liar.clone(), liar]).await;
        assert!(matches!(rig.fly(digest).await, Err(FlightError::Broken(_))));
        assert_eq!(rig.asked(1), [0]);
        rig.end().await;
    }
}

/// A replica with a full disk refused whatever it did not hold.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_room_passes_any_part_on_and_no_wrong_byte() {
    let bytes = blob();
    let (digest, bound) =
        (Digest::sha256(&bytes), Bound { content: hashed(&bytes).0, size: bytes.len() as u64 });
    let mut flipped = honest(&bytes);
    flipped.bytes[5 * GROUP + 77] ^= 4;
    let broken = Manner { then: Then::BreakOff(3 * GROUP + 9), ..honest(&bytes) };
    let parts =
        [0..bytes.len(), 70_000..70_001, 4 * GROUP - 5..7 * GROUP, 8 * GROUP..8 * GROUP + 123];
    for (first, lies) in [(honest(&bytes), false), (flipped.clone(), true), (broken, false)] {
        let rig = Rig::new([first, honest(&bytes)]).await;
        for part in parts.clone() {
            let passing = rig.flights.pass_from(digest, bound, PEERS.to_vec()).await.unwrap();
            assert_eq!(passing.size(), bytes.len() as u64);
            let range = part.start as u64..part.end as u64;
            let mut body = store::BlobBody::whole(Arc::new(passing), range, rig.store.buffers());
            let mut came = Vec::new();
            while let Some(piece) = body.next().await {
                came.extend_from_slice(&piece.unwrap());
            }
            assert!(came == bytes[part.clone()], "{part:?}");
        }
        assert_eq!(!rig.named().is_empty(), lies);
        assert!(rig.store.held(&digest).unwrap().is_none(), "it keeps nothing");
        rig.end().await;
    }
    // nobody has the group, or what the ledger means
    let rig = Rig::new([flipped.clone(), flipped]).await;
    let passing = rig.flights.pass_from(digest, bound, PEERS.to_vec()).await.unwrap();
    let size = passing.size();
    let mut body = store::BlobBody::whole(Arc::new(passing), 0..size, rig.store.buffers());
    let mut came = 0;
    let broke_off = loop {
        match body.next().await {
            Some(Ok(piece)) => came += piece.len(),
            Some(Err(_)) => break true,
            None => break false,
        }
    };
    assert!(broke_off && came <= 5 * GROUP, "{came}");
    let other = Bound { content: hashed(&bytes[1..]).0, ..bound };
    assert!(rig.flights.pass_from(digest, other, PEERS.to_vec()).await.is_err());
    rig.end().await;
}
