//! What this node keeps of a project, in sums, and whether the others keep what the ledger says: see
//! [`rules::members::tally`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use ground::supervise::at_length;
use rules::ledger::level::Level;
use rules::ledger::records::{BlobRecord, Look, RecordError, Repository, decode, key};
use rules::members::tally::{Recorded, Shards, Tally};
use rules::wire::questions;
use rules::words::digest::Digest;
use rules::words::names::{NodeId, ProjectName, Revision};
use store::Store;
use tokio::sync::Semaphore;
use tracing::debug;

use crate::view::neighbours::Neighbours;

/// The number of links that are read at a time.
const PAGE: usize = 1000;
/// How many blobs a manifest is supposed to have, to guess how many a project has.
const BLOBS: u64 = 4;
/// How long a replica may take to sum up what it keeps of a project, and how much longer for each
/// thousand blobs. One that takes longer says nothing, and is asked for each blob by name.
const SUMS: Duration = Duration::from_secs(30);
const OF_A_THOUSAND: Duration = Duration::from_millis(200);
/// How long a replica may take to apply what the one that asks has applied.
const BEHIND: Duration = Duration::from_secs(5);

/// Sums of what this node keeps.
pub struct Tallies {
    neighbours: Arc<Neighbours>,
    store: Arc<Store>,
    /// One is made at a time: a primary that has many projects asks for many.
    turn: Semaphore,
}

/// A blob that a project links.
struct Linked {
    digest: Digest,
    /// The nodes that keep it, as the ledger has it.
    kept_by: Vec<NodeId>,
}

/// What a comparison has found out.
pub(super) struct Compared {
    shards: Shards,
    doubtful: BTreeSet<usize>,
}

impl Compared {
    /// Whether each replica that was asked keeps this blob if, and only if, the ledger says so.
    pub(super) fn confirms(&self, digest: &Digest) -> bool {
        !self.doubtful.contains(&self.shards.shard_of(digest))
    }
}

impl Tallies {
    /// Sums of what is in this store.
    pub fn new(neighbours: Arc<Neighbours>, store: Arc<Store>) -> Arc<Self> {
        Arc::new(Tallies { neighbours, store, turn: Semaphore::new(1) })
    }

    /// What this node keeps of the project's blobs of which its records say so. The error is for the
    /// one that asks.
    pub async fn tally(
        &self,
        project: &ProjectName,
        shards: &Shards,
        at: Revision,
    ) -> Result<Tally, String> {
        if shards.count().is_none() {
            return Err("too many shards".into());
        }
        let deadline = tokio::time::Instant::now() + BEHIND;
        let records = &self.neighbours.records;
        loop {
            let seen = records.version();
            if seen >= at.0 {
                break;
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(format!("this node has applied {seen} and not {}", at.0));
            }
            records.applied_more(seen, Duration::from_millis(500)).await;
        }
        let _turn = self.turn.acquire().await.map_err(|error| error.to_string())?;
        let mut tally = Tally::new(shards);
        let mut after = None;
        while let Some(page) = self.next_blobs(project, &mut after)? {
            let mine = page.iter().filter(|blob| blob.kept_by.contains(&self.neighbours.me));
            let mine: Vec<Digest> = mine.map(|blob| blob.digest).collect();
            let stocks = self.store.stocks(&mine, None).await.map_err(|error| error.to_string())?;
            for (digest, stock) in mine.iter().zip(stocks) {
                if stock.held.is_some() && !stock.cached {
                    tally.add(shards, digest);
                }
            }
            // pulls come first
            tokio::task::yield_now().await;
        }
        Ok(tally)
    }

    /// Compares what `replicas` keep of a project with what the ledger says. `None` if that is not
    /// known: then each blob has to be asked for.
    pub(super) async fn compare(
        &self,
        project: &ProjectName,
        replicas: &[NodeId],
        salt: [u8; 32],
    ) -> Option<Compared> {
        let records = &self.neighbours.records;
        let at = Revision(records.version());
        let guessed = at_length(|| {
            let view = records.view()?;
            if view.level()? < Level::TALLIES {
                return Ok(None);
            }
            let mut manifests = 0;
            for (_, record) in view.scan(&key::repositories_of(project), None, usize::MAX)? {
                manifests += decode::<Repository>(&record)?.manifests;
            }
            Ok::<_, RecordError>(Some(manifests * BLOBS))
        });
        let guessed = guessed.ok()??;
        let thousands = u32::try_from(guessed / 1000).unwrap_or(u32::MAX);
        let patience = SUMS + OF_A_THOUSAND.saturating_mul(thousands);
        let shards = Shards::new(salt, guessed);
        let mut recorded = Recorded::new(shards);
        let sums = async {
            let mut after = None;
            while let Some(page) = self.next_blobs(project, &mut after)? {
                page.iter().for_each(|blob| recorded.add(&blob.digest, &blob.kept_by));
                tokio::task::yield_now().await;
            }
            Ok::<_, String>(())
        };
        let answers = join_all(replicas.iter().map(|node| async {
            let said = if *node == self.neighbours.me {
                self.tally(project, &shards, at).await
            } else {
                let question = questions::Tally { project: project.clone(), shards, at };
                let asked = self.neighbours.links.ask(*node, question, patience).await;
                asked.map_err(|error| error.to_string())
            };
            let said = said.inspect_err(|error| {
                debug!(node = %self.neighbours.name_of(*node), %error, "no sums of what it keeps");
            });
            Some((*node, said.ok()?))
        }));
        let (summed, answers) = tokio::join!(sums, answers);
        summed.ok()?;
        let answers: BTreeMap<NodeId, Tally> = answers.into_iter().flatten().collect();
        Some(Compared { shards, doubtful: recorded.doubtful(replicas, &answers) })
    }

    /// The next links of a project's blobs behind `after`, which goes on to the last of them, with who
    /// keeps the blobs as the ledger has it. `None` behind the last.
    fn next_blobs(
        &self,
        project: &ProjectName,
        after: &mut Option<Vec<u8>>,
    ) -> Result<Option<Vec<Linked>>, String> {
        at_length(|| {
            let text = |error: RecordError| error.to_string();
            let view = self.neighbours.records.view().map_err(text)?;
            let links = view.scan(&key::links_of(project), after.as_deref(), PAGE).map_err(text)?;
            let Some((last, _)) = links.last() else { return Ok(None) };
            *after = Some(last.clone());
            let mut blobs = Vec::new();
            for digest in links.iter().filter_map(|(place, _)| key::digest_of(place)) {
                let record = view.record::<BlobRecord>(&key::blob(&digest)).map_err(text)?;
                let kept_by = record.map(|record| record.kept_by).unwrap_or_default();
                blobs.push(Linked { digest, kept_by });
            }
            Ok(Some(blobs))
        })
    }
}
