//! Records that go over a real connection, whole and broken.

use std::collections::BTreeMap;

use rules::words::names::NodeId;

use super::super::database::{META, STATE, Store, encode};
use super::super::latest::Latest;
use super::super::state::StateMachine;
use super::super::types::Vote;
use super::*;
use crate::identity::Authority;
use crate::links::{self, CongestionControl};

type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

/// A replica's records.
struct Replica {
    folder: tempfile::TempDir,
    store: Store,
    machine: StateMachine,
    earlier: Earlier,
}

impl Replica {
    fn with(records: &Contents) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store =
            Store::open(&folder.path().join("ledger.redb"), &ground::opening::Opening::default())
                .unwrap();
        let machine = StateMachine::open(store.clone(), folder.path()).unwrap();
        let mut replica = Replica { folder, store, machine, earlier: Earlier::default() };
        replica.become_these(records);
        replica
    }

    fn become_these(&mut self, records: &Contents) {
        let write = self.store.database().begin_write().unwrap();
        {
            let mut table = write.open_table(STATE).unwrap();
            table.retain(|_, _| false).unwrap();
            for (key, value) in records {
                table.insert(key.as_slice(), value.as_slice()).unwrap();
            }
            write.open_table(META).unwrap().remove("fingerprint").unwrap();
        }
        write.commit().unwrap();
        self.machine = StateMachine::open(self.store.clone(), self.folder.path()).unwrap();
    }

    fn claim(&self, fingerprint: Fingerprint) {
        let write = self.store.database().begin_write().unwrap();
        let claimed = encode(&(Revision(0), fingerprint)).unwrap();
        write.open_table(META).unwrap().insert("fingerprint", claimed.as_slice()).unwrap();
        write.commit().unwrap();
    }

    fn contents(&self) -> Contents {
        let held = self.machine.held().unwrap();
        let pairs = held.table.iter().unwrap().map(|pair| pair.unwrap());
        pairs.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())).collect()
    }

    async fn install(&self, arrived: Arrived) {
        use openraft::storage::RaftStateMachine as _;
        let meta = SnapshotMeta::default();
        let carried = Carried::Arrived(Box::new(arrived));
        self.machine.clone().install_snapshot(&meta, carried).await.unwrap();
    }
}

fn records(numbers: impl Iterator<Item = u32>) -> Contents {
    // not compressible, so that what goes over the link can be counted
    let value = |number: u32| {
        let mut filler = blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof();
        let mut value = vec![0; 1000];
        filler.fill(&mut value);
        value
    };
    numbers.map(|number| (format!("m{number:07}").into_bytes(), value(number))).collect()
}

struct Pair {
    _ends: [Arc<links::Links>; 2],
    dialled: quinn::Connection,
    accepted: quinn::Connection,
}

async fn pair() -> Pair {
    let authority = Authority::generate().unwrap();
    let [here, there] = [1, 2]
        .map(|node| links::open_for_tests(&authority, NodeId(node), CongestionControl::Delivery));
    here.know(there.me(), there.local_address().unwrap());
    let (dialled, accepted) = links::connect_for_tests(&here, &there).await;
    Pair { _ends: [here, there], dialled, accepted }
}

/// Brings the records of `from` to `to`; the sender gives up after `broken_after` messages of the
/// receiver, if that is said.
async fn bring(
    pair: &Pair,
    from: &Replica,
    to: &Replica,
    broken_after: Option<Duration>,
) -> Result<Arrived, LinkError> {
    let (mut send, mut receive) = pair.dialled.open_bi().await.unwrap();
    // a stream is there for the other side when something was written to it
    write_message(&mut send, &()).await.unwrap();
    let (mut back, mut there) = pair.accepted.accept_bi().await.unwrap();
    read_message_within::<()>(&mut there, 64).await.unwrap();
    let held = from.machine.held().unwrap();
    let announced = held.fingerprint;
    let giving = async {
        let giving = give(held, send, &mut receive);
        match broken_after {
            None => giving.await,
            Some(time) => {
                tokio::time::timeout(time, giving).await.unwrap_or(Err(LinkError::Deadline))
            }
        }
    };
    let base = to.machine.held().unwrap();
    let file = tempfile::tempfile().unwrap();
    let never = std::future::pending();
    let taking = take(base, announced, &to.earlier, file, (&mut back, &mut there), never);
    let (given, taken) = tokio::join!(giving, taking);
    if broken_after.is_none() && taken.is_ok() {
        given.unwrap();
    }
    taken
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_gets_what_it_lacks_and_little_else() {
    let pair = pair().await;
    let all = records(0..8000);
    let (mut full, mut empty) = (Replica::with(&all), Replica::with(&Contents::new()));
    let arrived = bring(&pair, &full, &empty, None).await.unwrap();
    assert!(arrived.received > 8_000_000);
    empty.install(arrived).await;
    assert_eq!(empty.contents(), all);

    // from now on it is like another that is a little behind
    let mut newer = all.clone();
    newer.extend(records(8000..8010));
    newer.insert(b"m0000100".to_vec(), b"changed".to_vec());
    newer.remove(b"m0004000".as_slice());
    full.become_these(&newer);
    let arrived = bring(&pair, &full, &empty, None).await.unwrap();
    assert!(arrived.received < 4 << 20, "{} bytes", arrived.received);
    // what it applies between arrival and installation is not part of the state
    let mut touched = all.clone();
    touched.insert(b"m0006000".to_vec(), b"meanwhile".to_vec());
    touched.insert(b"a".to_vec(), b"meanwhile".to_vec());
    empty.become_these(&touched);
    empty.install(arrived).await;
    assert!(empty.contents() == newer);

    let arrived = bring(&pair, &full, &empty, None).await.unwrap();
    assert!(arrived.received < 100, "nothing differs: {} bytes", arrived.received);
    full.become_these(&Contents::new());
    let arrived = bring(&pair, &full, &empty, None).await.unwrap();
    empty.install(arrived).await;
    assert_eq!(empty.contents(), Contents::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_broke_goes_on_where_it_was_from_any_sender() {
    let pair = pair().await;
    let all = records(0..60_000);
    let (one, other) = (Replica::with(&all), Replica::with(&all));
    let late = Replica::with(&records(100..200));
    // the longer it is let, the more arrives; how much in one go is the machine's affair
    let mut patience = Duration::from_millis(50);
    while late.earlier.pieces().is_empty() {
        match bring(&pair, &one, &late, Some(patience)).await {
            Err(_) => patience += Duration::from_millis(50),
            Ok(_) => panic!("all arrived before anything was kept"),
        }
    }
    let had: usize = late.earlier.pieces().iter().map(|piece| piece.stored()).sum();
    assert!(had > 0);
    let arrived = bring(&pair, &other, &late, None).await.unwrap();
    let anew = usize::try_from(arrived.received).unwrap();
    let whole: usize = arrived.pieces.iter().map(|piece| piece.stored()).sum();
    assert!(whole <= anew + had && whole > anew, "{anew} new bytes, {had} from before, {whole}");
    assert!(late.earlier.pieces().is_empty(), "nothing is kept any more");
    late.install(arrived).await;
    assert!(late.contents() == all);
}

/// A leader that died falls silent. Its transfer once went on until that was noticed, and what had
/// arrived was not there for the next leader's, which began meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_silent_sender_brought_is_there_for_the_next_one() {
    let all = records(0..60_000);
    let (one, other) = (Replica::with(&all), Replica::with(&all));
    let late = Replica::with(&Contents::new());
    let mut patience = Duration::from_millis(50);
    let latest = Latest::default();
    let mut term = 0;
    while late.earlier.pieces().is_empty() {
        let pair = pair().await;
        let (mut send, mut receive) = pair.dialled.open_bi().await.unwrap();
        write_message(&mut send, &()).await.unwrap();
        let (mut back, mut there) = pair.accepted.accept_bi().await.unwrap();
        read_message_within::<()>(&mut there, 64).await.unwrap();
        term += 2;
        let turn = latest.begin(Vote::new(term, 1)).await.unwrap();
        let base = late.machine.held().unwrap();
        let file = tempfile::tempfile().unwrap();
        let streams = (&mut back, &mut there);
        let mut taking =
            std::pin::pin!(take(base, None, &late.earlier, file, streams, turn.superseded()));
        let mut giving = std::pin::pin!(give(one.machine.held().unwrap(), send, &mut receive));
        tokio::select! {
            _ = &mut giving => panic!("all was given before the sender fell silent"),
            _ = &mut taking => panic!("all arrived before the sender fell silent"),
            () = tokio::time::sleep(patience) => {}
        }
        // from here on nobody polls the sender: it is as dead, and nothing has told so
        let next = latest.begin(Vote::new(term + 1, 2));
        let (given_up, ()) = tokio::join!(
            async {
                let given_up = taking.await;
                drop(turn);
                given_up
            },
            async { assert!(next.await.is_some()) }
        );
        assert!(given_up.unwrap_err().to_string().contains("a later transfer"));
        patience += Duration::from_millis(50);
    }
    let had: usize = late.earlier.pieces().iter().map(|piece| piece.stored()).sum();
    let arrived = bring(&pair().await, &other, &late, None).await.unwrap();
    let anew = usize::try_from(arrived.received).unwrap();
    let whole = usize::try_from(arrived.stored()).unwrap();
    assert!(had > 0 && whole <= anew + had && whole > anew, "{anew} of {whole}, {had} from before");
    late.install(arrived).await;
    assert!(late.contents() == all);
}

/// The thread that cut the receiver's records once waited for ever for somebody to send its ranges,
/// and the transfer with it: it kept a read transaction open, and what had arrived from the next one.
#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_whose_sender_gives_up_at_once_ends() {
    let pair = pair().await;
    let late = Replica::with(&records(0..30_000));
    let (mut send, _receive) = pair.dialled.open_bi().await.unwrap();
    write_message(&mut send, &()).await.unwrap();
    let (mut back, mut there) = pair.accepted.accept_bi().await.unwrap();
    read_message_within::<()>(&mut there, 64).await.unwrap();
    send.reset(1u32.into()).unwrap();
    let base = late.machine.held().unwrap();
    let file = tempfile::tempfile().unwrap();
    let never = std::future::pending();
    let taking = take(base, None, &late.earlier, file, (&mut back, &mut there), never);
    let ended = tokio::time::timeout(Duration::from_secs(120), taking).await;
    ended.expect("it ends").unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_do_not_add_up_are_not_believed() {
    let pair = pair().await;
    let all = records(0..3000);
    let (wrong, late) = (Replica::with(&all), Replica::with(&Contents::new()));
    // it says that it has applied something else than what its disk has
    wrong.claim(Fingerprint::default());
    bring(&pair, &wrong, &late, None).await.unwrap_err();
    assert_eq!(late.contents(), Contents::new());
    let right = Replica::with(&records(1000..4000));
    let arrived = bring(&pair, &right, &late, None).await.unwrap();
    late.install(arrived).await;
    assert!(late.contents() == right.contents(), "nothing of it is taken into the next transfer");
}

#[test]
fn what_arrives_is_checked_before_it_is_kept() {
    let range = |last: &str| Range { last: last.into(), fingerprint: Fingerprint::default() };
    let records = |end: bool, keys: &[&str]| {
        let pairs: Vec<_> = keys.iter().map(|key| (key.as_bytes().to_vec(), vec![7])).collect();
        let (raw, packed) = pack(&pairs).unwrap();
        Sent::Records { end, raw, packed }
    };
    let keep = |messages: Vec<Sent>| {
        let (heard, hears) = mpsc::channel(16);
        let (awaited, awaits) = std::sync::mpsc::channel();
        for last in ["f", "m"] {
            awaited.send((range(last), Source::Base)).unwrap();
        }
        drop(awaited);
        messages.into_iter().for_each(|sent| heard.try_send(sent).unwrap());
        drop(heard);
        let (keeper, kept) = Keeper::new(tempfile::tempfile().unwrap()).keep(hears, &awaits);
        kept.map(|()| keeper.pieces.len()).map_err(|error| error.to_string())
    };
    let right =
        || vec![Sent::Same, records(false, &["g"]), records(true, &["h"]), records(true, &["z"])];
    assert_eq!(keep(right()), Ok(4));
    assert!(keep(right()[..3].iter().map(again).collect()).unwrap_err().contains("cut off"));
    for (wrong, says) in [
        (vec![records(true, &["g"])], "place"),
        (vec![records(true, &["b", "a"])], "place"),
        (vec![Sent::Same, records(true, &["e"])], "place"),
        (vec![records(false, &[])], "without"),
        (vec![records(false, &["a"]), Sent::Same], "same"),
        (vec![Sent::Same, Sent::Same, Sent::Same], "nobody"),
        (vec![Sent::Same, Sent::Same, records(true, &[]), records(true, &["z"])], "after the last"),
        (vec![Sent::Records { end: true, raw: 5, packed: vec![1, 2, 3] }], ""),
        (vec![Sent::Records { end: true, raw: u32::MAX, packed: vec![] }], "too many"),
    ] {
        let error = keep(wrong).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
    // a bomb: far more than it says
    let packed = pack(&[(vec![1], vec![0; 10 << 20])]).unwrap().1;
    assert!(
        keep(vec![Sent::Records { end: true, raw: 100, packed }]).unwrap_err().contains("length")
    );
}

fn again(sent: &Sent) -> Sent {
    postcard::from_bytes(&postcard::to_stdvec(sent).unwrap()).unwrap()
}
