//! What one node asks another, and the answers: one question and one answer a stream.
//!
//! Their numbers on the wire are their places here: a new one is added at the end, with its row in
//! the table of kinds.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::blobs::MAX_HAVE;
use super::frames::{LARGEST, SMALL};
use super::joining::{JoinGrant, JoinRequest};
use super::ledger::{NoLedger, Proposed, Write, WriteError};
use super::looking::{Found, Lookup};
use super::people::{Credentials, Verdict};
use super::proxies::{Listing, Referring, Resolution};
use crate::blobs::holding::{Held, Stock};
use crate::ledger::command::{Envelope, Outcome};
use crate::ledger::level::Build;
use crate::ledger::records::NodeRecord;
use crate::people::access::Scope;
use crate::words::digest::Digest;
use crate::words::names::{NodeId, RepositoryName, Revision, UpstreamId};
use crate::words::secret::Secret;

/// What one node asks another on a control stream: one question, one answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// A message of the consensus, opaque to everyone but the ledger.
    Raft {
        /// Which of its messages.
        kind: u8,
        /// The message.
        #[serde(with = "serde_bytes")]
        body: Vec<u8>,
    },
    /// To the ledger's leader: propose this, and answer when it is released.
    Propose(Envelope),
    /// To the ledger's leader: up to where must I have applied to read what is true now?
    ReadIndex,
    /// To a project's primary: check and commit this write.
    Write(Write),
    /// Which of these blobs do you hold, verified and fsynced?
    Have {
        /// Their names, at most [`MAX_HAVE`].
        digests: Vec<Digest>,
        /// If given: is each also granted in this repository by a recent upload or mount?
        repository: Option<RepositoryName>,
    },
    /// Fetch this blob from one of `sources` and answer once it is held.
    Replicate {
        /// Its name.
        digest: Digest,
        /// Who holds it.
        sources: Vec<NodeId>,
        /// If it came by an upload that no manifest refers to yet: the repository it was granted
        /// in.
        repository: Option<RepositoryName>,
    },
    /// Forget that this blob was uploaded or mounted there.
    Revoke {
        /// Where.
        repository: RepositoryName,
        /// Which.
        digest: Digest,
    },
    /// To the primary of a proxy project: what does this tag or digest mean upstream now? The
    /// answer's manifest is in the ledger.
    Resolve {
        /// Where.
        repository: RepositoryName,
        /// The tag or digest, as the client wrote it.
        reference: String,
    },
    /// You sent what is not this blob: look at your copy.
    Recheck(Digest),
    /// This upstream asked to be left alone for so long: everybody shares what the mesh is allowed.
    Spare {
        /// Which.
        upstream: UpstreamId,
        /// Whether it means blobs, too; else manifests only.
        everything: bool,
        /// How long, in milliseconds.
        millis: u64,
    },
    /// From an edge: what do these records say now? Secrets are left out of the answer.
    Look(Vec<Lookup>),
    /// From an edge: whose credentials are these?
    Identify(Credentials),
    /// From an edge: this is my record from now on.
    Introduce(NodeRecord),
    /// From a node that holds no certificate yet: let me in.
    Join(JoinRequest),
    /// Fetch this blob from whoever holds it, or from the upstream, and answer once it is held.
    Preheat {
        /// Its name.
        digest: Digest,
        /// The proxy repository whose upstream has it, if it is one's.
        via: Option<RepositoryName>,
    },
    /// From an edge, to the primary of a proxy project: what refers to this manifest upstream?
    Referrers {
        /// Where.
        repository: RepositoryName,
        /// The manifest.
        subject: Digest,
        /// The client's query: a filter, a page.
        query: String,
    },
    /// From an edge: sign a token for whoever has this name and password, for what of these scopes
    /// they may have.
    Token {
        /// The name.
        name: String,
        /// The password.
        password: Secret,
        /// What the client asked for.
        scopes: Vec<Scope>,
    },
    /// From a member: sign my certificate anew. The only question that may come under a certificate
    /// that counts no more.
    Renew {
        /// A certificate request (PEM) that names the member and nothing else.
        certificate_request: String,
    },
    /// From an edge: I am here. A replica that heard it lately calls the edge up, and tells the
    /// other replicas.
    Present,
    /// From a replica: these edges are connected to me.
    Announce(BTreeSet<NodeId>),
    /// Which build do you run, and which feature level has the mesh?
    Build,
    /// To the primary of a proxy project: which tags has this repository upstream?
    Tags {
        /// Where.
        repository: RepositoryName,
        /// The client's query: a page.
        query: String,
    },
}

impl Ask {
    /// The largest answer that counts, in bytes: what is longer is not read.
    pub fn largest_answer(&self) -> usize {
        match self {
            Ask::Have { digests, .. } => SMALL + digests.len().min(MAX_HAVE) * 64,
            Ask::Look(_) => LARGEST,
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
    /// See [`Ask::Have`]; one entry a digest.
    Have(Vec<Stock>),
    /// See [`Ask::Replicate`].
    Replicated(Result<Held, String>),
    /// See [`Ask::Revoke`]: whether there was anything to forget.
    Revoked(bool),
    /// See [`Ask::Resolve`].
    Resolved(Resolution),
    /// See [`Ask::Recheck`]: it will be looked at.
    Rechecking,
    /// See [`Ask::Spare`].
    Spared,
    /// See [`Ask::Look`]; one entry a question. `false`: the node that answered cannot be sure that
    /// it is up to date.
    Look(Vec<Found>, bool),
    /// See [`Ask::Identify`]; `None`: nobody's.
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
    /// See [`Ask::Token`]; the token, and what it says. `None`: the name or the password is not
    /// right.
    Token(Option<(Secret, Verdict)>),
    /// See [`Ask::Renew`]: the new certificate (PEM), or why there is none.
    Renewed(Result<String, String>),
    /// See [`Ask::Present`]: who is up and who is down, as the replica that answers sees it, of the
    /// replicas and of the edges of the asker's region. Of others it knows nothing.
    Present {
        /// Who is up.
        up: BTreeSet<NodeId>,
        /// Who is down.
        down: BTreeSet<NodeId>,
    },
    /// See [`Ask::Announce`].
    Announced,
    /// See [`Ask::Build`].
    Build(Build),
    /// See [`Ask::Tags`].
    Tags(Listing),
}
