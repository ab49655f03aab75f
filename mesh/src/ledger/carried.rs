//! The records on their way from one replica to another, without those that the receiver has
//! already (`rules::ledger::ranges`).
//!
//! The sender reads its records in one read transaction while it sends them: nothing is written
//! for it, and it sends one state, whatever is applied meanwhile. The receiver keeps what arrives
//! in a file without a name until all is there and adds up to the announced state. If the transfer
//! breaks, what has arrived counts as the receiver's own in the next one, from any sender.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use openraft::type_config::alias::SnapshotOf;
use parking_lot::Mutex;
use quinn::{RecvStream, SendStream};
use redb::ReadableTable;
use rules::ledger::fingerprint::Fingerprint;
use rules::ledger::ranges::{Cutter, Order, RANGE, Range, Said, tell};
use rules::ledger::records::Pair;
use rules::words::names::Revision;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::database::{Records, other};
use super::snapshot::{read_block, write_block};
use super::types::{Consensus, SnapshotMeta};
use crate::links::{LinkError, read_message_within, write_message};
use ground::supervise::blocking;

/// The number of ranges in one message; few in tests, so that a small state needs many messages.
const AT_ONCE: usize = if cfg!(test) { 2 } else { 64 };
/// The number of messages between the thread that reads or writes records and the stream.
const AHEAD: usize = 2;
/// The largest message of the sender: a range, or one record of the largest size.
const LARGEST: usize = RANGE + (20 << 20);
/// How long either side waits for the other's next message.
const IDLE: Duration = Duration::from_secs(60);

/// The error code of a reset stream.
const GIVEN_UP: u32 = 1;

/// A state and its description, as the consensus passes it on.
pub(super) type Snapshot = SnapshotOf<Consensus, Carried>;

/// The state that a transfer brings.
#[derive(Debug)]
pub(super) enum Carried {
    /// A replica's own records, to be sent.
    Here(Box<Held>),
    /// A file with all records, which arrived from an earlier build or before level 8.
    File(PathBuf),
    /// What makes this node's records those of another.
    Arrived(Box<Arrived>),
}

/// This node's records as they were at one moment.
pub(super) struct Held {
    pub(super) table: Records,
    pub(super) meta: SnapshotMeta,
    /// Their fingerprint, as it was kept up to date with each; `None` if it was not.
    pub(super) fingerprint: Option<Fingerprint>,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("meta", &self.meta).finish_non_exhaustive()
    }
}

impl Held {
    pub(super) fn revision(&self) -> Revision {
        Revision(self.meta.last_log_id.map_or(0, |id| id.index))
    }
}

/// What arrived completely, and adds up to the announced state.
#[derive(Debug)]
pub(super) struct Arrived {
    /// The receiver's records when the transfer began.
    pub(super) base: Held,
    /// All keys from the first to the last, piece by piece.
    pub(super) pieces: Vec<Piece>,
    /// The fingerprint of the state.
    pub(super) whole: Fingerprint,
    /// The number of bytes that came over the link.
    pub(super) received: u64,
}

impl Arrived {
    /// The number of compressed bytes of all that the receiver lacked, whichever transfer brought
    /// it. As many were received in one that did not break.
    pub(super) fn stored(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.stored() as u64).sum()
    }
}

/// The records between two keys.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    /// The last key before it; `None` if it begins with the first.
    pub(super) after: Option<Vec<u8>>,
    /// The last key that belongs to it; `None` if all that follow do.
    pub(super) last: Option<Vec<u8>>,
    fingerprint: Fingerprint,
    from: Source,
}

#[derive(Clone, Debug)]
enum Source {
    /// The receiver had them.
    Base,
    /// They are compressed in a file.
    File { file: Arc<File>, at: u64, stored: usize, raw: usize },
}

impl Piece {
    /// The records, if they arrived; `None` if the base has them.
    pub(super) fn records(&self) -> io::Result<Option<Vec<Pair>>> {
        let Source::File { file, at, stored, raw } = &self.from else { return Ok(None) };
        let mut bytes = vec![0; *stored];
        file.read_exact_at(&mut bytes, *at)?;
        unpack(&bytes, *raw).map(Some)
    }

    fn stored(&self) -> usize {
        match &self.from {
            Source::Base => 0,
            Source::File { stored, .. } => *stored,
        }
    }
}

/// A message of the sender.
#[derive(Debug, Serialize, Deserialize)]
enum Sent {
    /// The receiver's next range is what the sender has.
    Same,
    /// Records of the receiver's next range, or of what follows the last one.
    Records {
        /// Whether these are the last ones there.
        end: bool,
        /// Their length before they were compressed.
        raw: u32,
        #[serde(with = "serde_bytes")]
        packed: Vec<u8>,
    },
}

/// For `fuzz/`: reads `body` as the messages of both sides, and unpacks what has records.
#[cfg(fuzzing)]
pub(super) fn read_messages(body: &[u8]) {
    let _ = postcard::from_bytes::<Vec<Range>>(body);
    if let Ok(Sent::Records { raw, packed, .. }) = postcard::from_bytes::<Sent>(body) {
        let _ = unpack(&packed, raw as usize);
    }
}

fn pack(pairs: &[Pair]) -> io::Result<(u32, Vec<u8>)> {
    let mut raw = 0;
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    for (key, value) in pairs {
        write_block(&mut encoder, key)?;
        write_block(&mut encoder, value)?;
        raw += 8 + key.len() + value.len();
    }
    Ok((u32::try_from(raw).map_err(other)?, encoder.finish()?))
}

/// Never allocates much more than what has arrived is worth, nor more than `raw`.
fn unpack(packed: &[u8], raw: usize) -> io::Result<Vec<Pair>> {
    if raw > LARGEST {
        return Err(other("a message with too many records"));
    }
    let mut plain = Vec::new();
    ZlibDecoder::new(packed).take(raw as u64 + 1).read_to_end(&mut plain)?;
    if plain.len() != raw {
        return Err(other("records of another length than announced"));
    }
    let (mut left, mut rest) = (raw as u64, plain.as_slice());
    let mut pairs = Vec::new();
    while left > 0 {
        let key = read_block(&mut rest, &mut left)?;
        pairs.push((key, read_block(&mut rest, &mut left)?));
    }
    Ok(pairs)
}

/// A stream that is not finished yet. It is reset when it is dropped; quinn's own stream would be
/// finished.
pub(super) struct Unfinished(pub(super) Option<SendStream>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(stream) = &mut self.0 {
            let _ = stream.reset(GIVEN_UP.into());
        }
    }
}

/// Sends the records of `held` to a receiver that says what it has. If not all can be sent, or the
/// future is dropped, the stream is reset.
pub(super) async fn give(
    held: Held,
    send: SendStream,
    receive: &mut RecvStream,
) -> Result<(), LinkError> {
    let mut stream = Unfinished(Some(send));
    let (ranges, said_of) = mpsc::channel::<Vec<Range>>(AHEAD);
    let (say, mut said) = mpsc::channel::<Sent>(AHEAD);
    let reading = blocking(move || read_for(&held, said_of, &say));
    let hear = async {
        loop {
            let next = read_message_within::<Vec<Range>>(receive, LARGEST);
            let next =
                tokio::time::timeout(IDLE, next).await.map_err(|_| LinkError::Deadline)??;
            let last = next.is_empty();
            if ranges.send(next).await.is_err() || last {
                break;
            }
        }
        drop(ranges);
        Ok::<_, LinkError>(())
    };
    let speak = async {
        while let Some(sent) = said.recv().await {
            let Some(stream) = &mut stream.0 else { break };
            let written = tokio::time::timeout(IDLE, write_message(stream, &sent)).await;
            written.map_err(|_| LinkError::Deadline)??;
        }
        Ok(())
    };
    tokio::try_join!(hear, speak)?;
    let broken = |e: &dyn std::fmt::Display| LinkError::Broken(e.to_string());
    reading.await.map_err(|e| broken(&e))?.map_err(|e| broken(&e))?;
    stream.0.take().map_or(Ok(()), |mut whole| whole.finish().map_err(|e| broken(&e)))
}

/// Says of each range what `held` has there, and then all that follows them.
fn read_for(
    held: &Held,
    mut ranges: mpsc::Receiver<Vec<Range>>,
    say: &mpsc::Sender<Sent>,
) -> io::Result<()> {
    let records = held.table.iter().map_err(other)?;
    let mut records = records
        .map(|pair| {
            let (key, value) = pair.map_err(other)?;
            Ok((key.value().to_vec(), value.value().to_vec()))
        })
        .peekable();
    let mut give = |said: Said| {
        let sent = match said {
            Said::Same => Sent::Same,
            Said::Some(pairs) => {
                let (raw, packed) = pack(&pairs)?;
                Sent::Records { end: false, raw, packed }
            }
            Said::Rest(pairs) => {
                let (raw, packed) = pack(&pairs)?;
                Sent::Records { end: true, raw, packed }
            }
        };
        say.blocking_send(sent).map_err(|_| other("the receiver has gone"))
    };
    let mut whole = Fingerprint::default();
    loop {
        let next = ranges.blocking_recv().ok_or_else(|| other("the receiver has gone"))?;
        if next.is_empty() {
            break;
        }
        for range in &next {
            whole.join(&tell(&mut records, Some(range), &mut give)?);
        }
    }
    whole.join(&tell(&mut records, None, &mut give)?);
    if held.fingerprint.is_some_and(|kept| kept != whole) {
        return Err(other("this node's own records are not those that it has applied"));
    }
    Ok(())
}

/// What has arrived of a state that has not arrived completely.
#[derive(Debug)]
struct Begun {
    pieces: Vec<Piece>,
    at: rules::words::moment::Moment,
}

/// What arrived in transfers that broke: for the next one.
#[derive(Debug, Default)]
pub(super) struct Earlier(Mutex<Option<Begun>>);

impl Earlier {
    /// How long it is kept.
    const KEPT: Duration = Duration::from_secs(1800);

    fn pieces(&self) -> Vec<Piece> {
        self.0.lock().as_ref().map(|begun| begun.pieces.clone()).unwrap_or_default()
    }

    /// Keeps what arrived in `pieces`. Of the transfers before, what lies behind them still counts.
    fn keep(&self, mut pieces: Vec<Piece>) {
        let until = pieces.last().map(|piece| piece.last.clone());
        pieces.retain(|piece| matches!(piece.from, Source::File { .. }) && piece.last.is_some());
        let mut held = self.0.lock();
        let before = held.take().map(|begun| begun.pieces).unwrap_or_default();
        pieces.extend(before.into_iter().filter(|piece| match &until {
            Some(until) => until.is_some() && piece.after >= *until,
            None => true,
        }));
        if !pieces.is_empty() {
            *held = Some(Begun { pieces, at: ground::clock::now() });
        }
    }

    /// Nothing of it is wanted any more.
    pub(super) fn clear(&self) {
        *self.0.lock() = None;
    }

    /// Gives its room back when no transfer has gone on with it for long.
    pub(super) fn expire(&self) {
        let mut held = self.0.lock();
        if held.as_ref().is_some_and(|begun| ground::clock::now() > begun.at + Self::KEPT) {
            *held = None;
        }
    }
}

/// Receives a state: says on `send` what this node has (`base`, and what `earlier` transfers
/// brought), and keeps in `file` what it does not have. `announced` is the state's fingerprint, if
/// the sender has said it. It ends early when `given_up` does.
///
/// # Errors
/// If the transfer breaks or is given up, or what arrived does not add up. What has arrived is in `earlier` then.
pub(super) async fn take(
    base: Held,
    announced: Option<Fingerprint>,
    earlier: &Earlier,
    file: File,
    (send, receive): (&mut SendStream, &mut RecvStream),
    given_up: impl Future<Output = ()>,
) -> Result<Arrived, LinkError> {
    let broken = |e: &dyn std::fmt::Display| LinkError::Broken(e.to_string());
    let base = Arc::new(base);
    let (offer, mut offered) = mpsc::channel::<Vec<(Range, Source)>>(AHEAD);
    let cutting = {
        let (base, pieces) = (base.clone(), earlier.pieces());
        blocking(move || cut(&base, &pieces, &offer))
    };
    let (heard, hears) = mpsc::channel::<Sent>(AHEAD);
    let (awaited, awaits) = std::sync::mpsc::channel::<(Range, Source)>();
    let keeping = blocking(move || Keeper::new(file).keep(hears, &awaits));
    let speak = async {
        while let Some(cut) = offered.recv().await {
            let ranges: Vec<Range> = cut.iter().map(|(range, _)| range.clone()).collect();
            // what is offered is awaited before the sender can speak of it
            cut.into_iter().for_each(|range| drop(awaited.send(range)));
            let written = tokio::time::timeout(IDLE, write_message(send, &ranges)).await;
            written.map_err(|_| LinkError::Deadline)??;
        }
        drop(awaited);
        write_message(send, &Vec::<Range>::new()).await
    };
    let hear = async {
        loop {
            let mut first = [0; 1];
            // the stream ends after the last message, and only then
            let begun = tokio::time::timeout(IDLE, receive.read(&mut first)).await;
            if begun.map_err(|_| LinkError::Deadline)?.map_err(|e| broken(&e))?.is_none() {
                break;
            }
            let sent = read_message_after(first[0], receive).await?;
            if heard.send(sent).await.is_err() {
                break;
            }
        }
        drop(heard);
        Ok(())
    };
    let transferred = tokio::select! {
        transferred = async { tokio::try_join!(speak, hear) } => transferred.map(|_| ()),
        () = given_up => Err(LinkError::Broken("a later transfer has begun".into())),
    };
    // after an error the thread that cuts may wait for room in this channel
    drop(offered);
    let (kept, complete) = keeping.await.map_err(|e| broken(&e))?;
    metrics::counter!("atoll_ledger_snapshot_bytes_total").increment(kept.received);
    let cut = cutting.await.map_err(|e| broken(&e))?;
    let outcome = transferred.and_then(|()| {
        cut.map_err(|e| broken(&e))?;
        complete.map_err(|e| broken(&e))?;
        if announced.is_some_and(|announced| announced != kept.whole) {
            return Err(LinkError::Broken(
                "the records do not add up to the announced ones".into(),
            ));
        }
        Ok(())
    });
    if let Err(error) = outcome {
        // wrong records do no harm there: the next sender says which are like its own
        earlier.keep(kept.pieces);
        return Err(error);
    }
    earlier.clear();
    let base = Arc::into_inner(base).ok_or_else(|| broken(&"the records are still read"))?;
    Ok(Arrived { base, pieces: kept.pieces, whole: kept.whole, received: kept.received })
}

/// Reads a message whose first byte was read.
async fn read_message_after(first: u8, receive: &mut RecvStream) -> Result<Sent, LinkError> {
    let mut rest = [0; 3];
    let read = receive.read_exact(&mut rest).await;
    read.map_err(|e| LinkError::Broken(e.to_string()))?;
    let length = u32::from_be_bytes([first, rest[0], rest[1], rest[2]]) as usize;
    if length > LARGEST {
        return Err(LinkError::Broken(format!("a message of {length} bytes is too long")));
    }
    crate::links::finish_message(receive, length, IDLE).await
}

/// Cuts the records of `base` into ranges, with those of earlier transfers in their places.
fn cut(
    base: &Held,
    earlier: &[Piece],
    offer: &mpsc::Sender<Vec<(Range, Source)>>,
) -> io::Result<()> {
    let (mut cutter, mut ready) = (Cutter::default(), Vec::new());
    let mut put = |range: Range, from: Source| -> io::Result<()> {
        ready.push((range, from));
        if ready.len() == AT_ONCE {
            let full = std::mem::take(&mut ready);
            offer.blocking_send(full).map_err(|_| other("the transfer has ended"))?;
        }
        Ok(())
    };
    let mut records = base.table.iter().map_err(other)?;
    let mut next = records.next().transpose().map_err(other)?;
    let mut done: Option<Vec<u8>> = None;
    for piece in earlier {
        let Some(last) = &piece.last else { continue };
        if piece.after < done {
            continue;
        }
        // own records up to where the piece begins
        while let Some((key, value)) = &next
            && piece.after.as_deref().is_some_and(|after| key.value() <= after)
        {
            if let Some(range) = cutter.add(key.value(), value.value()) {
                done = Some(range.last.clone());
                put(range, Source::Base)?;
            }
            next = records.next().transpose().map_err(other)?;
        }
        let rest = cutter.end();
        if let Some(after) = piece.after.clone().filter(|after| Some(after) > done.as_ref()) {
            let fingerprint = rest.map(|range| range.fingerprint).unwrap_or_default();
            put(Range { last: after, fingerprint }, Source::Base)?;
        }
        while let Some((key, _)) = &next
            && key.value() <= last.as_slice()
        {
            next = records.next().transpose().map_err(other)?;
        }
        put(Range { last: last.clone(), fingerprint: piece.fingerprint }, piece.from.clone())?;
        done = Some(last.clone());
    }
    while let Some((key, value)) = &next {
        if let Some(range) = cutter.add(key.value(), value.value()) {
            put(range, Source::Base)?;
        }
        next = records.next().transpose().map_err(other)?;
    }
    if let Some(range) = cutter.end() {
        put(range, Source::Base)?;
    }
    if ready.is_empty() {
        return Ok(());
    }
    offer.blocking_send(ready).map_err(|_| other("the transfer has ended"))
}

/// Keeps what arrives.
struct Keeper {
    file: Arc<File>,
    received: u64,
    pieces: Vec<Piece>,
    whole: Fingerprint,
    order: Order,
    /// The last key of the last piece.
    until: Option<Vec<u8>>,
    ended: bool,
}

impl Keeper {
    fn new(file: File) -> Self {
        Keeper {
            file: Arc::new(file),
            received: 0,
            pieces: Vec::new(),
            whole: Fingerprint::default(),
            order: Order::default(),
            until: None,
            ended: false,
        }
    }

    /// Keeps all that is heard. Each message is about the next of the ranges that the sender got;
    /// when these have ended, it is about what follows them.
    fn keep(
        mut self,
        mut hears: mpsc::Receiver<Sent>,
        awaits: &std::sync::mpsc::Receiver<(Range, Source)>,
    ) -> (Self, io::Result<()>) {
        let mut range = None;
        while let Some(sent) = hears.blocking_recv() {
            let kept = match sent {
                Sent::Same if range.is_none() => self.same(awaits.recv().ok()),
                Sent::Same => Err(other("a range is the same, but records of it were sent")),
                Sent::Records { end, raw, packed } => {
                    let of = range.take().unwrap_or_else(|| awaits.recv().ok());
                    let kept = self.records(of.as_ref().map(|(range, _)| range), end, raw, &packed);
                    if !end {
                        range = Some(of);
                    }
                    kept
                }
            };
            if let Err(error) = kept {
                return (self, Err(error));
            }
        }
        let complete = if self.ended { Ok(()) } else { Err(other("the records are cut off")) };
        (self, complete)
    }

    fn same(&mut self, range: Option<(Range, Source)>) -> io::Result<()> {
        let (range, from) = range.ok_or_else(|| other("a range that nobody asked about"))?;
        self.whole.join(&range.fingerprint);
        self.order.complete(&range);
        self.put(Some(range.last), range.fingerprint, from);
        Ok(())
    }

    fn records(
        &mut self,
        range: Option<&Range>,
        end: bool,
        raw: u32,
        packed: &[u8],
    ) -> io::Result<()> {
        if self.ended {
            return Err(other("records after the last ones"));
        }
        let pairs = unpack(packed, raw as usize)?;
        let fingerprint = self.order.take(&pairs, range);
        let fingerprint =
            fingerprint.ok_or_else(|| other("records that are not in their place"))?;
        let last = match (end, range) {
            (true, Some(range)) => {
                self.order.complete(range);
                Some(range.last.clone())
            }
            (true, None) => {
                self.ended = true;
                None
            }
            (false, _) => {
                let (last, _) = pairs.last().ok_or_else(|| other("a part without records"))?;
                Some(last.clone())
            }
        };
        self.file.write_all_at(packed, self.received)?;
        let from = Source::File {
            file: self.file.clone(),
            at: self.received,
            stored: packed.len(),
            raw: raw as usize,
        };
        self.received += packed.len() as u64;
        self.whole.join(&fingerprint);
        self.put(last, fingerprint, from);
        Ok(())
    }

    fn put(&mut self, last: Option<Vec<u8>>, fingerprint: Fingerprint, from: Source) {
        let after = std::mem::replace(&mut self.until, last.clone());
        self.pieces.push(Piece { after, last, fingerprint, from });
    }
}

#[cfg(test)]
mod tests;
