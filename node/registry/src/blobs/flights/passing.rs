//! A blob for one client at a node that has no room for it: its bytes come from a node that holds it
//! as the client reads them, and are kept nowhere. Each group is checked against the content hash
//! that the ledger has, so a client gets no wrong byte, whichever part it asks for.
//!
//! The client's pace is the transfer's: while it reads nothing, nothing is taken from the source.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use mesh::links::LinkError;
use mesh::transfer::{self, Fetch, Fetching, Wanted};
use rules::blobs::flight::{Bound, Hurry};
use rules::blobs::groups::{GROUP, Groups};
use rules::blobs::pacing::Class;
use rules::blobs::reputation::Lie;
use rules::wire::DAMAGED;
use rules::words::digest::Digest;
use rules::words::names::NodeId;
use store::backend::{Filled, Pending, ReadAt};
use tokio::sync::Mutex;
use tracing::debug;

use super::fetching::bound;
use super::{FlightError, Flights, Sources};

/// How often each source is asked for the same group.
const TRIES: usize = 2;

/// The bytes of a blob that another node holds.
pub struct Passing {
    flights: Arc<Flights>,
    digest: Digest,
    groups: Groups,
    /// Those that said that they hold it, in the order in which they are asked.
    sources: Vec<NodeId>,
    place: Mutex<Place>,
}

/// Where the reader is.
#[derive(Default)]
struct Place {
    /// The source whose turn it is, counted on.
    turn: usize,
    /// The stream of that source, and the byte that comes next there.
    stream: Option<(Fetch, u64)>,
    /// What came of the next group.
    partial: Vec<u8>,
    /// The last group, and where it begins: the next read may begin within it.
    last: Option<(u64, Vec<u8>)>,
}

impl Flights {
    /// The bytes of `digest` as other nodes have them, for a client of a node that has no `room`. Only
    /// what a manifest refers to can be checked piece by piece.
    pub async fn pass(
        self: &Arc<Self>,
        digest: Digest,
        room: FlightError,
    ) -> Result<Passing, FlightError> {
        let Some(bound) = self.record(&digest).and_then(|record| bound(&record)) else {
            return Err(room);
        };
        if !Groups::checkable(bound.size) {
            return Err(room);
        }
        let (holders, none) = (Sources::Holders { via: None }, BTreeSet::new());
        let sources = self.last_sources(digest, &holders, Hurry::First, &none);
        let sources = sources.await.iter().filter_map(|source| source.peer()).collect();
        self.pass_from(digest, bound, sources).await
    }

    /// The same, from these nodes.
    pub(super) async fn pass_from(
        self: &Arc<Self>,
        digest: Digest,
        bound: Bound,
        sources: Vec<NodeId>,
    ) -> Result<Passing, FlightError> {
        for (turn, node) in sources.iter().enumerate() {
            let mut fetch = match self.begin_to_pass(*node, digest, 0, true).await {
                Ok(Some(fetch)) => fetch,
                Ok(None) => continue,
                Err(error) => {
                    debug!(%digest, %node, %error, "a source failed");
                    continue;
                }
            };
            let claim = (fetch.claim.size, fetch.claim.content);
            if claim != (bound.size, Some(bound.content)) {
                self.liars.caught(*node, digest, 0, Lie::Binding);
                continue;
            }
            let list = fetch.claim.list.take().unwrap_or_default();
            let Ok(groups) = Groups::from_list(&list, bound.content, bound.size) else {
                self.liars.caught(*node, digest, 0, Lie::Outboard);
                continue;
            };
            metrics::counter!("atoll_pulls_passed_on_total").increment(1);
            let place = Place { turn, stream: Some((fetch, 0)), ..Place::default() };
            let (flights, place) = (self.clone(), Mutex::new(place));
            return Ok(Passing { flights, digest, groups, sources, place });
        }
        Err(FlightError::NoSource(digest))
    }

    /// `None` if the node does not have it, or knows its copy to be damaged.
    async fn begin_to_pass(
        &self,
        node: NodeId,
        digest: Digest,
        offset: u64,
        list: bool,
    ) -> Result<Option<Fetch>, LinkError> {
        let (fill, direct, class) = (false, true, Class::Pull);
        let wanted = Wanted { digest, offset, fill, via: None, list, direct, class };
        let answer = transfer::fetch(&self.neighbours.links, node, wanted, self.terms).await?;
        Ok(match answer {
            Fetching::Found(fetch) if fetch.behind != DAMAGED => Some(fetch),
            Fetching::Found(_) | Fetching::Elsewhere(_) | Fetching::Missing => None,
        })
    }
}

impl Passing {
    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        self.groups.size()
    }

    async fn fill(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let mut place = self.place.lock().await;
        let mut filled = 0;
        while filled < buffer.len() && at + (filled as u64) < self.size() {
            let next = at + filled as u64;
            let begin = next - next % GROUP as u64;
            if place.last.as_ref().is_none_or(|(at, _)| *at != begin) {
                let group = self.group(&mut place, begin).await?;
                place.last = Some((begin, group));
            }
            let group = place.last.as_ref().map_or(&[][..], |(_, group)| group);
            let Some(rest) = group.get((next - begin) as usize..).filter(|rest| !rest.is_empty())
            else {
                break;
            };
            let count = rest.len().min(buffer.len() - filled);
            buffer[filled..filled + count].copy_from_slice(&rest[..count]);
            filled += count;
        }
        Ok(filled)
    }

    /// The group that begins at `begin`, checked.
    async fn group(&self, place: &mut Place, begin: u64) -> io::Result<Vec<u8>> {
        let digest = self.digest;
        for _ in 0..self.sources.len() * TRIES {
            let node = self.sources[place.turn % self.sources.len()];
            match self.take(place, node, begin).await {
                Ok(Some(bytes)) => match self.groups.verify(begin, bytes) {
                    Some(checked) => return Ok(checked.bytes().to_vec()),
                    None => self.flights.liars.caught(node, digest, begin, Lie::Group),
                },
                Ok(None) => debug!(%digest, %node, begin, "a source does not give all of a blob"),
                Err(error) => debug!(%digest, %node, begin, %error, "a source broke off"),
            }
            place.stream = None;
            place.partial.clear();
            place.turn += 1;
        }
        Err(io::Error::other(format!("no node gives {digest} from byte {begin} on")))
    }

    /// What `node` gives as that group; `None` if it ends too early, or gives nothing.
    async fn take(
        &self,
        place: &mut Place,
        node: NodeId,
        begin: u64,
    ) -> Result<Option<Vec<u8>>, LinkError> {
        let length = self.groups.length_at(begin);
        if place.stream.as_ref().is_none_or(|(_, at)| *at != begin) {
            place.partial.clear();
            let begun = self.flights.begin_to_pass(node, self.digest, begin, false).await?;
            place.stream = begun.map(|fetch| (fetch, begin));
        }
        let Some((fetch, at)) = &mut place.stream else { return Ok(None) };
        while place.partial.len() < length {
            let Some(bytes) = fetch.next().await? else { return Ok(None) };
            metrics::counter!("atoll_link_bytes_received_total").increment(bytes.len() as u64);
            place.partial.extend_from_slice(&bytes);
        }
        let rest = place.partial.split_off(length);
        *at += length as u64;
        Ok(Some(std::mem::replace(&mut place.partial, rest)))
    }
}

impl ReadAt for Passing {
    fn read_ready(&self, _buffer: &mut [u8], _at: u64) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn read_at(&self, _buffer: &mut [u8], _at: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn read(
        self: Arc<Self>,
        mut buffer: Vec<u8>,
        length: usize,
        at: u64,
    ) -> Pending<'static, Filled> {
        Box::pin(async move {
            let read = self.fill(&mut buffer[..length], at).await?;
            Ok(Filled { buffer, read })
        })
    }
}
