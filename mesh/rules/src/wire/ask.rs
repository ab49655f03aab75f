//! The questions that nodes ask each other, and the answers: one question and one answer for each
//! stream.
//!
//! A variant's position is its number on the wire. Add new ones at the end, and add a row to the
//! table of kinds.

use core::net::IpAddr;
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::blobs::MAX_HAVE;
use super::caches::{CacheAnswer, CacheAsk};
use super::collecting::{CollectionAnswer, CollectionAsk};
use super::frames::{LARGEST, SMALL};
use super::jobs::{JobAsk, JobReport};
use super::joining::{JoinGrant, JoinRequest};
use super::ledger::{NoLedger, Proposed, Write, WriteError};
use super::looking::{Changes, Found, Lookup};
use super::people::{Credentials, Verdict};
use super::proxies::{Listing, Referring, Resolution, Sought};
use super::sealing::{SealingAnswer, SealingAsk};
use super::upkeep::UpkeepAsk;
use crate::blobs::holding::{Condition, Held, Stock};
use crate::blobs::scrubbing::Progress;
use crate::ledger::command::{Envelope, Outcome};
use crate::ledger::fingerprint::Fingerprint;
use crate::ledger::level::Build;
use crate::ledger::policies::Pull;
use crate::ledger::records::NodeRecord;
use crate::ledger::returning::{ReturnStep, Shown};
use crate::ledger::told::MOST_RECENT;
use crate::ledger::upkeep::RunningUpkeep;
use crate::members::tally::{Shards, Tally};
use crate::people::access::Scope;
use crate::words::digest::Digest;
use crate::words::names::{NodeId, ProjectName, RepositoryName, Revision, UpstreamId};
use crate::words::secret::Secret;

/// A question of one node to another on a control stream. Each gets one answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// A message of the consensus. Only the ledger reads it.
    Raft {
        /// The kind of message.
        kind: u8,
        /// The message.
        #[serde(with = "serde_bytes")]
        body: Vec<u8>,
    },
    /// To the ledger's leader: propose this, and answer when it is released.
    Propose(Envelope),
    /// To the ledger's leader: which revision must I have applied to read what is true now?
    ReadIndex,
    /// To a project's primary: check and commit this write.
    Write(Write),
    /// Which of these blobs do you hold, hashed and fsynced?
    Have {
        /// Their names, at most [`MAX_HAVE`].
        digests: Vec<Digest>,
        /// If set: also say whether each blob is granted in this repository by a recent upload or
        /// mount.
        repository: Option<RepositoryName>,
    },
    /// Fetch this blob from one of `sources` and answer once it is held.
    Replicate {
        /// Its digest.
        digest: Digest,
        /// The nodes that hold it.
        sources: Vec<NodeId>,
        /// If the blob came by an upload and no manifest refers to it yet: the repository in which
        /// it was granted.
        repository: Option<RepositoryName>,
    },
    /// Forget that this blob was uploaded to or mounted in this repository.
    Revoke {
        /// The repository.
        repository: RepositoryName,
        /// The blob.
        digest: Digest,
    },
    /// To the primary of a proxy project: what does this tag or digest name at the upstream now?
    /// The manifest in the answer is in the ledger.
    Resolve {
        /// The repository.
        repository: RepositoryName,
        /// The tag or digest, as the client wrote it.
        reference: String,
    },
    /// You sent bytes that are not this blob: check your copy.
    Recheck(Digest),
    /// This upstream asked for a pause. All replicas share what the mesh is allowed.
    Spare {
        /// The upstream.
        upstream: UpstreamId,
        /// Whether the pause is for blobs and manifests, or for manifests only.
        everything: bool,
        /// The length of the pause in milliseconds.
        millis: u64,
    },
    /// From an edge: what are these records now? The answer contains no secrets.
    Look(Vec<Lookup>),
    /// From an edge: whose credentials are these?
    Identify(Credentials),
    /// From an edge: this is my new record.
    Introduce(NodeRecord),
    /// From a node that has no certificate yet: let me join.
    Join(JoinRequest),
    /// Fetch this blob from a node that holds it, or from the upstream, and answer once it is held.
    Preheat {
        /// Its digest.
        digest: Digest,
        /// The proxy repository whose upstream has it, if there is one.
        via: Option<RepositoryName>,
    },
    /// From an edge to the primary of a proxy project: which manifests refer to this one at the
    /// upstream?
    Referrers {
        /// The repository.
        repository: RepositoryName,
        /// The manifest.
        subject: Digest,
        /// The client's query: a filter, a page.
        query: String,
    },
    /// From an edge: sign a token for the user with this name and password, for those of these
    /// scopes that they may have.
    Token {
        /// The name.
        name: String,
        /// The password.
        password: Secret,
        /// What the client asked for.
        scopes: Vec<Scope>,
    },
    /// From a member: issue a new certificate for me. This is the only question that is accepted
    /// with a certificate that is no longer valid.
    Renew {
        /// A certificate request (PEM) that names only the member.
        certificate_request: String,
    },
    /// From an edge: I am up. A replica that heard it lately counts the edge as up, and tells the
    /// other replicas.
    Present,
    /// From a replica: these edges are connected to me.
    Announce(BTreeSet<NodeId>),
    /// Which build do you run, and what is the mesh's feature level?
    Build,
    /// To the primary of a proxy project: which tags has this repository upstream?
    Tags {
        /// Where.
        repository: RepositoryName,
        /// The client's query: a page.
        query: String,
    },
    /// What is the fingerprint of your records as they were at this revision?
    Fingerprint(Revision),
    /// From a replica: about what proxy projects cache.
    Cached(CacheAsk),
    /// From a replica: about keys that seal secrets in the ledger.
    Sealing(SealingAsk),
    /// From a replica: about a job that you have, or had.
    Job(JobAsk),
    /// From a replica: about blobs that may be collected.
    Collection(CollectionAsk),
    /// From an edge: these artifacts were pulled through me.
    Pulled(Vec<Pull>),
    /// From a replica: how far you have read your blobs again.
    Scrub {
        /// Begin a new round now.
        now: bool,
    },
    /// From a replica that has started: what have you seen of my disk before?
    Returned {
        /// What it has now.
        shown: Shown,
        /// Whether it asks, or takes part now.
        step: ReturnStep,
    },
    /// From a replica: about runs of the upkeep that you have.
    Upkeep(UpkeepAsk),
    /// From a replica: of the blobs of this project that the ledger says you keep, what do you keep?
    Tally {
        /// The project.
        project: ProjectName,
        /// How to sum up. An answer has as many numbers as there are shards.
        shards: Shards,
        /// What the records have at least.
        at: Revision,
    },
    /// To the primary of a proxy project: ask the upstream for signatures of this image, and answer
    /// when what it has is recorded.
    Seek {
        /// The repository.
        repository: RepositoryName,
        /// The image.
        digest: Digest,
        /// The client that wants it, as budgets count clients: each has a share of the places.
        client: IpAddr,
    },
    /// Do you take blobs, and which of these, at most [`MAX_HAVE`], are damaged at yours?
    Condition(Vec<Digest>),
    /// What has changed of what an edge may have kept?
    Changed {
        /// Of what decides about pulls since its number was this.
        verdicts: u64,
        /// Which tags and manifests are gone since the ledger had this.
        gone: Revision,
    },
}

impl Ask {
    /// The maximum length of the answer in bytes. A longer one is not read.
    pub fn largest_answer(&self) -> usize {
        match self {
            Ask::Have { digests, .. } | Ask::Condition(digests) => {
                SMALL + digests.len().min(MAX_HAVE) * 72
            }
            Ask::Collection(ask) => SMALL + ask.len().min(MAX_HAVE) * 64,
            Ask::Look(_) | Ask::Cached(_) => LARGEST,
            Ask::Changed { .. } => SMALL + 2 * MOST_RECENT * 512,
            Ask::Join(_) | Ask::Present => 8 << 20,
            Ask::Referrers { .. } | Ask::Tags { .. } => 16 << 20,
            _ => 1 << 20,
        }
    }
}

/// The answer to the [`Ask`] of the same name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// See [`Ask::Raft`].
    Raft(#[serde(with = "serde_bytes")] Vec<u8>),
    /// See [`Ask::Propose`].
    Proposed(Result<Proposed, NoLedger>),
    /// See [`Ask::ReadIndex`].
    ReadIndex(Result<Revision, NoLedger>),
    /// See [`Ask::Write`].
    Written(Result<Outcome, WriteError>),
    /// See [`Ask::Have`]; one entry for each digest.
    Have(Vec<Stock>),
    /// See [`Ask::Replicate`].
    Replicated(Result<Held, String>),
    /// See [`Ask::Revoke`]: whether there was a grant to forget.
    Revoked(bool),
    /// See [`Ask::Resolve`].
    Resolved(Resolution),
    /// See [`Ask::Recheck`]: the copy will be checked.
    Rechecking,
    /// See [`Ask::Spare`].
    Spared,
    /// See [`Ask::Look`]; one entry for each question. `false` if the node that answered cannot be
    /// sure that it is up to date.
    Look(Vec<Found>, bool),
    /// See [`Ask::Identify`]; `None` if the credentials are wrong.
    Identified(Option<Verdict>),
    /// See [`Ask::Introduce`].
    Introduced,
    /// See [`Ask::Join`].
    Joined(Result<JoinGrant, String>),
    /// The question could not be understood or served.
    Refused(String),
    /// See [`Ask::Preheat`].
    Preheated(Result<(), String>),
    /// See [`Ask::Referrers`].
    Referring(Referring),
    /// See [`Ask::Token`]: the token and what it grants; `None` if the name or the password is
    /// wrong.
    Token(Option<(Secret, Verdict)>),
    /// See [`Ask::Renew`]: the new certificate (PEM), or why there is none.
    Renewed(Result<String, String>),
    /// See [`Ask::Present`]: which replicas, and which edges of the asker's region, are up and
    /// which are down, as seen by the replica that answers. It lists no other nodes.
    Present {
        /// The nodes that are up.
        up: BTreeSet<NodeId>,
        /// The nodes that are down.
        down: BTreeSet<NodeId>,
    },
    /// See [`Ask::Announce`].
    Announced,
    /// See [`Ask::Build`].
    Build(Build),
    /// See [`Ask::Tags`].
    Tags(Listing),
    /// See [`Ask::Fingerprint`]; `None` if the node has not applied that much, or has applied it
    /// too long ago.
    Fingerprint(Option<Fingerprint>),
    /// See [`Ask::Cached`].
    Cached(CacheAnswer),
    /// See [`Ask::Sealing`].
    Sealing(SealingAnswer),
    /// See [`Ask::Job`]; `None` if the node knows nothing of a run of it.
    Job(Option<JobReport>),
    /// See [`Ask::Collection`].
    Collection(CollectionAnswer),
    /// See [`Ask::Pulled`].
    Pulled,
    /// See [`Ask::Scrub`].
    Scrub(Progress),
    /// See [`Ask::Returned`]; `None` if this node has seen nothing of it.
    Returned(Option<Shown>),
    /// See [`Ask::Upkeep`].
    Upkeep(Vec<RunningUpkeep>),
    /// See [`Ask::Tally`].
    Tally(Tally),
    /// See [`Ask::Seek`].
    Sought(Sought),
    /// See [`Ask::Condition`].
    Condition(Condition),
    /// See [`Ask::Changed`].
    Changed(Changes),
}
