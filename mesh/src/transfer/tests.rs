use std::cell::Cell;
use std::sync::{Arc, mpsc};

use futures::stream::{FuturesUnordered, StreamExt};
use rules::wire::{Answer, Ask, JoinRequest};
use tokio::sync::watch;

use super::*;
use crate::identity::Authority;
use crate::links::{self, CongestionControl, Guest, Line, Service};
use ground::supervise::{Tasks, blocking};

/// All that waits for a stream; that of three fits into what one connection may have waiting.
const SIZE: usize = 4 << 20;
const TERMS: TransferTerms = TransferTerms {
    first_byte: Duration::from_secs(60),
    stall: Duration::from_secs(60),
    source_stall: Duration::from_secs(60),
};
/// The least urgent comes first.
const COME: [Class; 3] = [Class::Preheat, Class::Copy, Class::Pull];

/// A node that is asked for blobs only, and does with a stream what it is told.
struct Sender<F>(F);

impl<F, D> Service for Sender<F>
where
    F: Fn(Class, SendStream) -> D + Send + Sync + 'static,
    D: Future<Output = ()> + Send,
{
    fn left(&self, _: NodeId) {}

    async fn bulk(&self, _: Guest, bulk: Bulk, send: SendStream, _: RecvStream) {
        if let Bulk::Fetch { class, .. } = bulk {
            self.0(class, send).await;
        }
    }

    async fn answer(&self, _: Guest, _: Ask) -> Answer {
        Answer::Refused("only bulk".into())
    }

    async fn join(&self, _: JoinRequest) -> Answer {
        Answer::Refused("only bulk".into())
    }

    async fn lease(&self, _: NodeId, _: SendStream, _: RecvStream) {}

    async fn append(&self, _: NodeId, _: SendStream, _: RecvStream) {}

    async fn datagram(&self, _: NodeId, _: Bytes) {}
}

#[tokio::test]
async fn of_the_streams_to_one_peer_the_most_urgent_ends_first_though_it_came_last() {
    let (authority, tasks) = (Authority::generate().unwrap(), Tasks::new());
    let from = links::open_for_tests(&authority, NodeId(1), CongestionControl::Delivery);
    let address = from.local_address().unwrap();
    let (turn, (written, all_written)) = (watch::Sender::new(usize::MAX), mpsc::channel());
    // the streams are written one after the other, in the order of COME
    let (line, turns) = (Line::default(), turn.clone());
    let sender = Arc::new(Sender(move |class, send| {
        let (line, turn, written) = (line.clone(), turns.clone(), written.clone());
        async move {
            let place = COME.iter().position(|one| *one == class).unwrap();
            let mut serve = Serve::new(send, line, class, TERMS.stall);
            serve.found(SIZE as u64, None, None, 0).await.unwrap();
            turn.subscribe().wait_for(|turn| *turn == place).await.unwrap();
            serve.send(Bytes::from(vec![0; SIZE])).await.unwrap();
            serve.finish();
            turn.send_replace(place + 1);
            if place + 1 == COME.len() {
                written.send(()).unwrap();
            }
        }
    }));
    tasks.spawn("links", links::serve(from, sender, tasks.clone()));
    // a thread and a runtime of its own: while it is held up, nothing is taken off the network and
    // nothing acknowledged
    let receiver = blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let to = links::open_for_tests(&authority, NodeId(2), CongestionControl::Delivery);
            to.know(NodeId(1), address);
            let got = COME.map(|_| Cell::new(0));
            let coming = FuturesUnordered::new();
            for (class, got) in COME.into_iter().zip(&got) {
                let mut fetch = begin(&to, class).await;
                coming.push(async move {
                    while let Some(bytes) = fetch.next().await.unwrap() {
                        got.set(got.get() + bytes.len());
                    }
                });
            }
            turn.send_replace(0);
            all_written.recv().unwrap();
            let ends = coming.map(|()| got.each_ref().map(Cell::get));
            ends.collect::<Vec<_>>().await
        })
    });
    // what had come of each, the least urgent first, whenever one of them ended
    let ends = receiver.await.unwrap();
    let [[preheat, copy, SIZE], [later, SIZE, SIZE], [SIZE, SIZE, SIZE]] = ends[..] else {
        panic!("{ends:?}")
    };
    assert!(
        preheat < SIZE / 2 && copy < SIZE / 2 && later < SIZE / 2,
        "they went side by side: {ends:?}"
    );
}

const LARGE: usize = 48 << 20;
const PIECE: usize = 256 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_is_not_held_up_by_many_copies_that_fill_the_connection() {
    let (authority, tasks) = (Authority::generate().unwrap(), Tasks::new());
    let from = links::open_for_tests(&authority, NodeId(1), CongestionControl::Delivery);
    let address = from.local_address().unwrap();
    // without end to who copies
    let line = Line::default();
    let sender = Arc::new(Sender(move |class, send| {
        let mut serve = Serve::new(send, line.clone(), class, TERMS.stall);
        async move {
            serve.found(LARGE as u64, None, None, 0).await.unwrap();
            let pieces = if class == Class::Pull { LARGE / PIECE } else { usize::MAX };
            for _ in 0..pieces {
                if serve.send(Bytes::from(vec![0; PIECE])).await.is_err() {
                    return; // whoever copied has seen enough
                }
            }
            serve.finish();
        }
    }));
    tasks.spawn("links", links::serve(from, sender, tasks.clone()));
    let to = links::open_for_tests(&authority, NodeId(2), CongestionControl::Delivery);
    to.know(NodeId(1), address);
    let copied = watch::Sender::new(0);
    let mut copies = Vec::new();
    for _ in 0..6 {
        let (mut fetch, copied) = (begin(&to, Class::Copy).await, copied.clone());
        copies.push(tasks.spawn("copy", async move {
            while let Some(bytes) = fetch.next().await.unwrap() {
                copied.send_modify(|sum| *sum += bytes.len());
            }
        }));
    }
    // they are well under way, and all that may wait for the connection does
    copied.subscribe().wait_for(|sum| *sum > 64 << 20).await.unwrap();
    let mut pull = begin(&to, Class::Pull).await;
    let mut pulled = 0;
    let mut before = None;
    while let Some(bytes) = pull.next().await.unwrap() {
        pulled += bytes.len();
        if before.is_none() && pulled > LARGE / 3 {
            // from here on nothing is under way that was taken before the pull came
            before = Some(*copied.borrow());
        }
    }
    let meanwhile = *copied.borrow() - before.unwrap();
    for copy in copies {
        copy.abort();
    }
    assert_eq!(pulled, LARGE);
    assert!(
        meanwhile < LARGE / 3,
        "while two thirds of a pull of {LARGE} bytes came, so did {meanwhile} of copies"
    );
}

#[tokio::test]
async fn a_list_of_megabytes_may_take_longer_than_the_first_byte() {
    let (authority, tasks) = (Authority::generate().unwrap(), Tasks::new());
    let from = links::open_for_tests(&authority, NodeId(1), CongestionControl::Delivery);
    let address = from.local_address().unwrap();
    let terms = TransferTerms { first_byte: Duration::from_secs(2), ..TERMS };
    let sender = Arc::new(Sender(move |_, mut send: SendStream| async move {
        let list = Some(serde_bytes::ByteBuf::from(vec![7; 4 << 20]));
        let found =
            rules::wire::encode(&Fetched::Found { size: 8 << 30, content: None, list, behind: 0 });
        send.write_all(&(found.len() as u32).to_be_bytes()).await.unwrap();
        for part in found.chunks(found.len() / 3) {
            tokio::time::sleep(terms.first_byte / 2).await;
            send.write_all(part).await.unwrap();
        }
        let _ = send.stopped().await;
    }));
    tasks.spawn("links", links::serve(from, sender, tasks.clone()));
    let to = links::open_for_tests(&authority, NodeId(2), CongestionControl::Delivery);
    to.know(NodeId(1), address);
    let found = fetch(&to, NodeId(1), wanted(Class::Pull), terms).await.unwrap();
    let Fetching::Found(fetch) = found else { panic!("it is there") };
    assert_eq!(fetch.claim.list.map(|list| list.len()), Some(4 << 20));
}

fn wanted(class: Class) -> Wanted {
    let digest = Digest::sha256(class.name().as_bytes());
    Wanted { digest, offset: 0, fill: false, via: None, list: false, direct: false, class }
}

async fn begin(links: &Links, class: Class) -> Fetch {
    match fetch(links, NodeId(1), wanted(class), TERMS).await.unwrap() {
        Fetching::Found(fetch) => fetch,
        Fetching::Elsewhere(_) | Fetching::Missing => panic!("it is there"),
    }
}
