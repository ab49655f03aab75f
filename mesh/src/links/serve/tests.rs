use std::sync::atomic::{AtomicUsize, Ordering};

use rules::wire::questions;

use super::*;
use crate::identity::Authority;
use crate::links::{CongestionControl, open_for_tests};

const PATIENCE: Duration = Duration::from_secs(120);

/// A node that answers the consensus, and lets every other question wait for ever.
#[derive(Default)]
struct Busy {
    waiting: AtomicUsize,
}

impl Service for Busy {
    async fn answer(&self, _: Guest, ask: Ask) -> Answer {
        match ask {
            Ask::Raft { body, .. } => Answer::Raft(vec![body.len() as u8]),
            _ => {
                self.waiting.fetch_add(1, Ordering::SeqCst);
                std::future::pending().await
            }
        }
    }

    async fn join(&self, _: JoinRequest) -> Answer {
        Answer::Refused("only members".into())
    }

    async fn lease(&self, _: NodeId, _: SendStream, _: RecvStream) {}

    async fn append(&self, _: NodeId, _: SendStream, _: RecvStream) {}

    async fn bulk(&self, _: Guest, _: Bulk, _: SendStream, _: RecvStream) {}

    fn left(&self, _: NodeId) {}

    async fn datagram(&self, _: NodeId, _: Bytes) {}
}

/// Two nodes, and what the second one does.
fn pair(tasks: &Tasks) -> (Arc<Links>, NodeId, Arc<Busy>) {
    let authority = Authority::generate().unwrap();
    let [here, there] =
        [1, 2].map(|node| open_for_tests(&authority, NodeId(node), CongestionControl::Delivery));
    here.know(there.me(), there.local_address().unwrap());
    let (to, busy) = (there.me(), Arc::new(Busy::default()));
    tasks.spawn("links", serve(there, busy.clone(), tasks.clone()));
    (here, to, busy)
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited in vain until {what}"));
}

/// Heartbeats once waited for a stream of the same connection when there were as many questions
/// without an answer as a connection has streams: a node that was slow to answer pushes lost its
/// leader.
#[tokio::test(flavor = "multi_thread")]
async fn questions_that_wait_for_their_answers_hold_up_no_heartbeat() {
    let tasks = Tasks::new();
    let (here, to, busy) = pair(&tasks);
    let streams = FOR_REPLICA.streams as usize;
    for _ in 0..streams + 1 {
        let here = here.clone();
        let ask = async move { here.ask(to, questions::ReadIndex {}, 10 * PATIENCE).await };
        tasks.spawn("question", async move { drop(ask.await) });
    }
    until("all streams for questions are taken", || busy.waiting.load(Ordering::SeqCst) >= streams)
        .await;
    for length in [1, 200, 1 << 20] {
        let message = questions::Raft { kind: 1, body: vec![0; length] };
        assert_eq!(here.ask(to, message, PATIENCE).await.unwrap(), [length as u8]);
    }
    tasks.stop(Duration::ZERO).await;
}

#[test]
fn answers_that_are_not_taken_have_a_bound_and_the_largest_fits() {
    let answers = Arc::new(Semaphore::new(ANSWERS_OF_EDGE));
    let largest = room_for(&answers, LARGEST).expect("the largest answer");
    let usual: Vec<_> = (0..24).filter_map(|_| room_for(&answers, 1 << 20)).collect();
    assert_eq!(usual.len(), 24);
    assert!(room_for(&answers, SMALL + 1).is_none(), "no more");
    assert!(room_for(&answers, SMALL).is_some(), "small ones always");
    drop((largest, usual));
    assert!(room_for(&answers, LARGEST).is_some(), "what was taken makes room");
}
