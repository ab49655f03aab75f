//! Messages between nodes: what is said, not how. postcard after a version byte; a node that hears another version says so and hangs up.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::access::{Identity, Scope};
use crate::command::{Command, Envelope, Outcome};
use crate::digest::{ContentHash, Digest};
use crate::door::Standing;
use crate::lease::Grant;
use crate::level::Build;
use crate::names::{NodeId, OperationId, RepositoryName, Revision, Tag, UpstreamId};
use crate::pacing::Class;
use crate::records::NodeRecord;

/// The version of everything below.
pub const VERSION: u8 = 3;

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
        /// If it came by an upload that no manifest refers to yet: the repository it was granted in.
        repository: Option<RepositoryName>,
    },
    /// Forget that this blob was uploaded or mounted there.
    Revoke {
        /// Where.
        repository: RepositoryName,
        /// Which.
        digest: Digest,
    },
    /// To the primary of a proxy project: what does this tag or digest mean upstream now? The answer's manifest is in the ledger.
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
    Look(Vec<Question>),
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
    /// From an edge: sign a token for whoever has this name and password, for what of these scopes they may have.
    Token {
        /// The name.
        name: String,
        /// The password.
        password: String,
        /// What the client asked for.
        scopes: Vec<Scope>,
    },
    /// From a member: sign my certificate anew. The only question that may come under a certificate that counts no more.
    Renew {
        /// A certificate request (PEM) that names the member and nothing else.
        certificate_request: String,
    },
    /// From an edge: I am here. A replica that heard it lately calls the edge up, and tells the other replicas.
    Present,
    /// From a replica: these edges are connected to me.
    Announce(BTreeSet<NodeId>),
    /// Which build do you run, and which feature level has the mesh?
    Build,
}

impl Ask {
    /// The largest answer that counts, in bytes: what is longer is not read.
    pub fn largest_answer(&self) -> usize {
        match self {
            Ask::Have { digests, .. } => SMALL + digests.len().min(MAX_HAVE) * 64,
            Ask::Look(_) => LARGEST,
            Ask::Join(_) | Ask::Present => 8 << 20,
            Ask::Referrers { .. } => 16 << 20,
            _ => 1 << 20,
        }
    }
}

/// How a stream between nodes begins: what it is for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Open {
    /// One question.
    Ask(Ask),
    /// Read leases, see [`FromHolder`].
    Lease,
    /// Bytes.
    Bulk(Bulk),
}

/// The longest frame, in bytes: a few of the largest manifests in one message of the consensus.
pub const LARGEST: usize = 40 << 20;
/// The longest frame that most messages fit into, and the longest that is taken from a stranger, in bytes.
pub const SMALL: usize = 64 << 10;
/// A manifest of the largest size that `uploads.max_manifest` allows, with the descriptors of all that it refers to.
const MANIFEST: usize = 16 << 20;
/// So many bytes of a frame tell what it is for: the version, and the two numbers of [`Open`] and [`Ask`] or [`Bulk`].
pub const HEAD: usize = 3;

/// Why a frame is not read any further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRead {
    /// The peer speaks another version, or it is no message.
    #[error(transparent)]
    Bad(#[from] BadMessage),
    /// The peer may not ask that.
    #[error("{0}")]
    NotAllowed(&'static str),
    /// It is longer than any message of its kind.
    #[error("a message of {length} bytes is longer than its kind may be ({largest})")]
    TooLong {
        /// Its length.
        length: usize,
        /// What its kind may have.
        largest: usize,
    },
}

/// Which streams whom are open to, and how long their first frame may be: the numbers are those that the derived encoding gives to the variants, in their
/// order. A test holds the table to them.
const KINDS: &[(u8, u8, &str, bool, usize)] = &[
    // (of Open, of Ask or Bulk, name, for edges too, longest frame)
    (0, 0, "Raft", false, LARGEST),
    (0, 1, "Propose", false, MANIFEST),
    (0, 2, "ReadIndex", false, SMALL),
    (0, 3, "Write", false, MANIFEST),
    (0, 4, "Have", true, SMALL + MAX_HAVE * 72),
    (0, 5, "Replicate", false, SMALL),
    (0, 6, "Revoke", false, SMALL),
    (0, 7, "Resolve", true, SMALL),
    (0, 8, "Recheck", true, SMALL),
    (0, 9, "Spare", false, SMALL),
    (0, 10, "Look", true, SMALL),
    (0, 11, "Identify", true, SMALL),
    (0, 12, "Introduce", true, SMALL),
    (0, 13, "Join", false, SMALL),
    (0, 14, "Preheat", false, SMALL),
    (0, 15, "Referrers", true, SMALL),
    (0, 16, "Token", true, SMALL),
    (0, 17, "Renew", true, SMALL),
    (0, 18, "Present", true, SMALL),
    (0, 19, "Announce", false, 1 << 20),
    (0, 20, "Build", true, SMALL),
    (1, 0, "Lease", false, SMALL),
    (2, 0, "Fetch", true, SMALL),
    (2, 1, "Copy", false, SMALL),
    (2, 2, "Snapshot", false, 1 << 20),
];

/// The numbers of [`Open`] and [`Ask::Renew`], [`Ask::Join`].
const ASK: u8 = 0;
const RENEW: u8 = 17;
const JOIN: u8 = 13;

/// What the head of a frame says it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    open: u8,
    kind: u8,
}

impl Kind {
    /// Reads the head of a frame: its first [`HEAD`] bytes, or all of it if it is shorter.
    pub fn of(head: &[u8]) -> Result<Self, BadMessage> {
        match head {
            [VERSION, 1, ..] => Ok(Kind { open: 1, kind: 0 }),
            [VERSION, open @ (0 | 2), kind, ..] => Ok(Kind { open: *open, kind: *kind }),
            [VERSION, ..] => Err(BadMessage::Malformed("it begins like no message".into())),
            [version, ..] => Err(BadMessage::Version(*version)),
            [] => Err(BadMessage::Malformed("empty".into())),
        }
    }

    /// Whether it is a message of the consensus, which must not wait behind others.
    pub fn is_consensus(self) -> bool {
        (self.open, self.kind) == (ASK, 0)
    }

    /// Whether whoever has this standing may send a frame of this kind and `length`. To be asked before more of the frame is read.
    pub fn admit(self, standing: Standing, length: usize) -> Result<(), NotRead> {
        let row = KINDS.iter().find(|row| (row.0, row.1) == (self.open, self.kind));
        let Some((_, _, _, edges, largest)) = row else {
            return Err(BadMessage::Malformed("it is no message that this node knows".into()).into());
        };
        match standing {
            Standing::Replica => {}
            Standing::Edge if *edges => {}
            Standing::Edge => return Err(NotRead::NotAllowed("an edge may not ask that")),
            Standing::RenewOnly if (self.open, self.kind) == (ASK, RENEW) => {}
            Standing::RenewOnly => {
                return Err(NotRead::NotAllowed("this certificate counts no more; it may be used to renew it, only"));
            }
            Standing::Nobody(reason) => return Err(NotRead::NotAllowed(reason)),
        }
        if length > *largest { Err(NotRead::TooLong { length, largest: *largest }) } else { Ok(()) }
    }
}

/// Whether `ask` may be put to an edge; everything else is a replica's to answer, and the asker looks at the certificate that answers.
pub fn edges_answer(ask: &Ask) -> bool {
    matches!(ask, Ask::Have { .. } | Ask::Recheck(_) | Ask::Build)
}

/// Reads the one frame that a stranger may send, of at most [`SMALL`] bytes: a [`JoinRequest`], and nothing else.
pub fn decode_join(frame: &[u8]) -> Result<JoinRequest, NotRead> {
    if frame.len() > SMALL {
        return Err(NotRead::TooLong { length: frame.len(), largest: SMALL });
    }
    let kind = Kind::of(frame)?;
    if (kind.open, kind.kind) != (ASK, JOIN) {
        return Err(NotRead::NotAllowed("only a member may ask that"));
    }
    let body = frame.get(HEAD..).unwrap_or_default();
    let request: JoinRequest = postcard::from_bytes(body).map_err(|e| BadMessage::Malformed(e.to_string()))?;
    request.check().map_err(NotRead::NotAllowed)?;
    Ok(request)
}

/// What an edge wants to read of the ledger's records.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Query {
    /// The value under a key.
    Key(#[serde(with = "serde_bytes")] Vec<u8>),
    /// See [`crate::records::ReadRecords::scan`].
    Scan {
        /// What the keys begin with.
        #[serde(with = "serde_bytes")]
        prefix: Vec<u8>,
        /// Strictly after this key.
        after: Option<Vec<u8>>,
        /// At most so many.
        limit: u64,
    },
}

/// A query of an edge that may have an older answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// What it wants to read.
    pub query: Query,
    /// The [`Found::print`] of the answer that it has: if that is still right, only that is said.
    pub unless: Option<[u8; 16]>,
}

/// How many questions one [`Ask::Look`] may hold.
pub const MAX_QUESTIONS: usize = 64;

/// The answer to a [`Query`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Found {
    /// What the key says.
    Value(Option<serde_bytes::ByteBuf>),
    /// The pairs of the scan.
    Pairs(Vec<(serde_bytes::ByteBuf, serde_bytes::ByteBuf)>),
    /// What the asker has is right.
    Same,
}

impl Found {
    /// A short hash of the answer, by which an edge says what it has.
    pub fn print(&self) -> [u8; 16] {
        let mut print = [0; 16];
        print.copy_from_slice(&blake3::hash(&encode(self)).as_bytes()[..16]);
        print
    }
}

/// What a client presented.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Credentials {
    /// Name and password.
    Basic(String, String),
    /// A token of this mesh.
    Token(String),
}

/// Who that is: an identity, and with a token what it is good for.
pub type Verdict = (Identity, Option<Vec<Scope>>);

/// How many blobs one [`Ask::Have`] may name.
pub const MAX_HAVE: usize = 20_000;

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
    /// See [`Ask::Look`]; one entry a question. `false`: the node that answered cannot be sure that it is up to date.
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
    /// See [`Ask::Token`]; the token, and what it says. `None`: the name or the password is not right.
    Token(Option<(String, Verdict)>),
    /// See [`Ask::Renew`]: the new certificate (PEM), or why there is none.
    Renewed(Result<String, String>),
    /// See [`Ask::Present`]: who is up and who is down, as the replica that answers sees it, of the replicas and of the edges of the asker's region. Of
    /// others it knows nothing.
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
}

/// A command that is in the ledger for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposed {
    /// Its entry.
    pub revision: Revision,
    /// What came of it.
    pub outcome: Outcome,
}

/// Why the ledger did not answer. Whether the command took effect is unknown unless it says so: retry with the same operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum NoLedger {
    /// Ask this one instead; nothing was proposed.
    #[error("another node leads the ledger")]
    NotLeader(Option<NodeId>),
    /// No majority, or not in time.
    #[error("the ledger has no majority or did not answer in time")]
    NoMajority,
    /// The node's own disk failed.
    #[error("the ledger's storage failed: {0}")]
    Storage(String),
}

/// A write that only the project's primary may commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// The idempotency key.
    pub operation: OperationId,
    /// What to do.
    pub kind: WriteKind,
}

/// The kinds of [`Write`]. The primary fills in epoch and descriptors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WriteKind {
    /// Store a manifest and move tags to it.
    PutManifest {
        /// Where.
        repository: RepositoryName,
        /// Its name; checked by who received it.
        digest: Digest,
        /// Its type; effective, never empty.
        media_type: String,
        /// As received.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
        /// The tags to move.
        tags: Vec<Tag>,
    },
    /// Anything that needs no more than the epoch: the primary puts its own into the command.
    Fenced(Box<Command>),
}

/// Why a primary did not commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WriteError {
    /// Not the primary (any more): look again who is. Nothing was committed.
    NotPrimary,
    /// Blobs that the manifest refers to are in no copy that the repository may use. Nothing was committed.
    BlobsUnknown(Vec<Digest>),
    /// Blobs that the manifest refers to are with nobody who answered; these did not, and may have them. Nothing was committed.
    Unanswered(Vec<NodeId>),
    /// Manifests that the index lists are not in the repository. Nothing was committed.
    ManifestsUnknown(Vec<Digest>),
    /// The bytes are not what they should be. Nothing was committed.
    Invalid(String),
    /// Fewer regions than wanted could be made to hold the blobs. Nothing was committed.
    NotDurable {
        /// Regions wanted.
        wanted: u32,
        /// Regions reached.
        reached: u32,
    },
    /// The ledger did not answer: unknown whether it was committed; retry with the same operation.
    Ledger(NoLedger),
}

/// A blob that a node holds: sha256 (or sha512) checked, fsynced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Its length in bytes.
    pub size: u64,
    /// Its content hash.
    pub content: ContentHash,
}

/// What a node knows of one blob.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stock {
    /// It holds it.
    pub held: Option<Held>,
    /// It holds it as a cache does: it may evict it, so that this copy does not count as durable.
    pub cached: bool,
    /// A recent upload or mount there grants it in the repository asked for.
    pub granted: bool,
}

/// What a reference into a proxy project means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resolution {
    /// This manifest, which the ledger has; the upstream said so lately.
    Fresh(Digest),
    /// This manifest, which the ledger has; the upstream could not be asked, and why.
    Stale(Digest, String),
    /// The upstream has no such thing.
    Missing,
    /// The upstream could not be asked, and nothing is cached.
    Failed(String),
    /// Not the primary (any more): look again who is.
    NotPrimary,
    /// The ledger cannot record now what the upstream says: whoever wants to know asks the upstream itself.
    Unrecorded,
    /// It cannot be had, and waiting does not help: the upstream does not let the registry's credential see it, or has what no cache can keep. A sentence for the client.
    Denied(String),
}

/// What an upstream says of what refers to a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Referring {
    /// This, on this page.
    Page(ReferrersPage),
    /// It has no such list, and why.
    Absent(String),
    /// It could not be asked, and why.
    Failed(String),
}

/// One page of what refers to a manifest, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferrersPage {
    /// An OCI index.
    #[serde(with = "serde_bytes")]
    pub index: Vec<u8>,
    /// By what the upstream says it has filtered it.
    pub filtered: Option<String>,
    /// The query of the next page, if there is one.
    pub next: Option<String>,
}

/// What a replica sends on its lease stream to the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromHolder {
    /// Renew, and what I have applied, and whom I see as down.
    Renew {
        /// Number of the request.
        request: u64,
        /// What the replica has applied.
        applied: Revision,
        /// Whom its roster calls down.
        down: BTreeSet<NodeId>,
    },
    /// I have applied up to here.
    Applied(Revision),
}

/// What the leader sends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromGranter {
    /// A lease.
    Grant(Grant),
    /// No lease: not the leader, or not confirmed.
    NoGrant,
    /// Everything up to here is released.
    Released(Revision),
}

/// How a bulk stream begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bulk {
    /// Send me this blob from `offset`.
    Fetch {
        /// Its name.
        digest: Digest,
        /// First byte wanted.
        offset: u64,
        /// Whether the asked node should fetch it itself if it lacks it (it is the region's fetcher), and stream while it fills.
        fill: bool,
        /// The proxy repository whose upstream has it, if no node does.
        via: Option<RepositoryName>,
        /// Whether to send the list of the blob's groups before the bytes.
        list: bool,
        /// Whether to send it and not to answer [`Fetched::Elsewhere`]: it was tried there.
        direct: bool,
        /// What for.
        class: Class,
    },
    /// I am receiving an upload: take a copy while it arrives.
    Copy {
        /// Where it will be granted.
        repository: RepositoryName,
    },
    /// A snapshot of the ledger: header of the consensus, then the file.
    Snapshot(#[serde(with = "serde_bytes")] Vec<u8>),
}

/// The answer to [`Bulk::Fetch`], before the bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fetched {
    /// What the whole blob is; bytes from the offset follow.
    Found {
        /// Length in bytes.
        size: u64,
        /// Its content hash; `None` while it arrives from an upstream, which tells none.
        content: Option<ContentHash>,
        /// The list of its groups ([`crate::groups`]), if it was asked for and there is one.
        list: Option<serde_bytes::ByteBuf>,
        /// How many nodes the bytes pass on their way from one that holds the blob: 0 if the sender holds it.
        behind: u8,
    },
    /// This node is receiving or has just received it from here: ask it. If it does not give everything, ask here again, `direct`.
    Elsewhere(NodeId),
    /// Not here.
    Missing,
}

/// How a copy ends, after its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CopyEnd {
    /// The client named it: keep it, if the bytes agree.
    Seal(Digest),
    /// The client broke off or sent something else: forget it.
    Abandon,
}

/// What a node shows to be let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The secret of its token.
    pub secret: Vec<u8>,
    /// Its certificate request (PEM), naming the identity it chose.
    pub certificate_request: String,
    /// Its record.
    pub node: NodeRecord,
}

impl JoinRequest {
    /// Whether each field is of a size and form that is worth a look at the ledger.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.secret.len() != SECRET {
            return Err("this is not the secret of a token");
        }
        if self.certificate_request.len() > 8 << 10 {
            return Err("the certificate request is too long");
        }
        self.node.check()
    }
}

/// The length of a token's secret in bytes.
pub const SECRET: usize = 32;

/// What it gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinGrant {
    /// Its certificate (PEM).
    pub certificate: String,
    /// The CA's certificate (PEM).
    pub authority: String,
    /// The CA's key (PEM): every replica can let others in, so that no single node is needed for it. `None` for an edge.
    pub authority_key: Option<String>,
    /// The members so far.
    pub nodes: Vec<NodeRecord>,
}

/// Encodes a message behind the version byte.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    // plain data without maps of unknown length: postcard cannot fail on it
    postcard::to_extend(message, vec![VERSION]).unwrap_or_default()
}

/// Why a message could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// Another version of the protocol.
    #[error("the peer speaks version {0} of the mesh protocol, this node {VERSION}: upgrade the older one")]
    Version(u8),
    /// Not a message.
    #[error("malformed message: {0}")]
    Malformed(String),
}

/// Reads what [`encode`] wrote.
pub fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, BadMessage> {
    match bytes.split_first() {
        Some((&VERSION, body)) => postcard::from_bytes(body).map_err(|e| BadMessage::Malformed(e.to_string())),
        Some((version, _)) => Err(BadMessage::Version(*version)),
        None => Err(BadMessage::Malformed("empty".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn another_version_is_told_apart_from_noise() {
        let mut bytes = encode(&Ask::ReadIndex);
        bytes[0] = 9;
        assert_eq!(decode::<Ask>(&bytes).unwrap_err(), BadMessage::Version(9));
    }

    /// A message of each kind, with its name in [`KINDS`].
    fn one_of_each() -> Vec<(&'static str, Open)> {
        use crate::command::{Command, Envelope};
        let (digest, repository): (Digest, RepositoryName) = (Digest::sha256(b"x"), "demo/a".parse().unwrap());
        let command = Command::RemoveNode { id: NodeId(1) };
        let envelope = Envelope { operation: OperationId(1), at: crate::moment::Timestamp(1), command };
        let asks = vec![
            ("Raft", Ask::Raft { kind: 0, body: vec![1] }),
            ("Propose", Ask::Propose(envelope.clone())),
            ("ReadIndex", Ask::ReadIndex),
            (
                "Write",
                Ask::Write(Write { operation: OperationId(1), kind: WriteKind::Fenced(Box::new(envelope.command)) }),
            ),
            ("Have", Ask::Have { digests: vec![digest], repository: None }),
            ("Replicate", Ask::Replicate { digest, sources: vec![], repository: None }),
            ("Revoke", Ask::Revoke { repository: repository.clone(), digest }),
            ("Resolve", Ask::Resolve { repository: repository.clone(), reference: "1".into() }),
            ("Recheck", Ask::Recheck(digest)),
            ("Spare", Ask::Spare { upstream: UpstreamId(1), everything: true, millis: 1 }),
            ("Look", Ask::Look(vec![])),
            ("Identify", Ask::Identify(Credentials::Token("t".into()))),
            ("Introduce", Ask::Introduce(node())),
            ("Join", Ask::Join(join())),
            ("Preheat", Ask::Preheat { digest, via: None }),
            ("Referrers", Ask::Referrers { repository: repository.clone(), subject: digest, query: String::new() }),
            ("Token", Ask::Token { name: "n".into(), password: "p".into(), scopes: vec![] }),
            ("Renew", Ask::Renew { certificate_request: String::new() }),
            ("Present", Ask::Present),
            ("Announce", Ask::Announce([NodeId(1)].into())),
            ("Build", Ask::Build),
        ];
        let fetch =
            Bulk::Fetch { digest, offset: 0, fill: false, via: None, list: false, direct: false, class: Class::Pull };
        let streams = vec![
            ("Lease", Open::Lease),
            ("Fetch", Open::Bulk(fetch)),
            ("Copy", Open::Bulk(Bulk::Copy { repository })),
            ("Snapshot", Open::Bulk(Bulk::Snapshot(vec![]))),
        ];
        asks.into_iter().map(|(name, ask)| (name, Open::Ask(ask))).chain(streams).collect()
    }

    fn node() -> NodeRecord {
        NodeRecord {
            id: NodeId(1),
            name: "a".parse().unwrap(),
            region: "r".parse().unwrap(),
            role: crate::records::Role::Edge,
            address: ([10, 0, 0, 1], 7946).into(),
            url: "http://10.0.0.1:5000".into(),
        }
    }

    fn join() -> JoinRequest {
        JoinRequest { secret: vec![7; SECRET], certificate_request: "request".into(), node: node() }
    }

    #[test]
    fn the_table_of_kinds_is_that_of_the_encoding() {
        let all = one_of_each();
        assert_eq!(all.len(), KINDS.len());
        for (name, open) in all {
            let bytes = encode(&open);
            let kind = Kind::of(&bytes[..bytes.len().min(HEAD)]).unwrap();
            let row = KINDS.iter().find(|row| (row.0, row.1) == (kind.open, kind.kind)).unwrap();
            assert_eq!(row.2, name);
            assert_eq!(kind.admit(Standing::Replica, bytes.len()), Ok(()));
            assert!(matches!(kind.admit(Standing::Replica, LARGEST + 1), Err(NotRead::TooLong { .. })));
            assert_eq!(kind.admit(Standing::Edge, bytes.len()).is_ok(), row.3, "{name}");
            assert_eq!(kind.admit(Standing::RenewOnly, bytes.len()).is_ok(), name == "Renew", "{name}");
            assert!(kind.admit(Standing::Nobody("gone"), bytes.len()).is_err(), "{name}");
            assert_eq!(decode_join(&bytes).is_ok(), name == "Join", "{name}");
        }
    }

    #[test]
    fn a_stranger_is_read_for_a_join_of_sane_fields_and_nothing_else() {
        let frame = |request: JoinRequest| encode(&Open::Ask(Ask::Join(request)));
        assert_eq!(decode_join(&frame(join())), Ok(join()));
        let refused = |change: fn(&mut JoinRequest)| {
            let mut request = join();
            change(&mut request);
            assert!(decode_join(&frame(request)).is_err());
        };
        refused(|r| r.secret = vec![7; SECRET + 1]);
        refused(|r| r.secret.clear());
        refused(|r| r.certificate_request = "x".repeat(9 << 10));
        refused(|r| r.node.url = format!("http://{}", "x".repeat(600)));
        refused(|r| r.node.url = "http://a\u{1b}[2J".into());
        refused(|r| r.node.url = "ftp://a".into());
        refused(|r| r.node.url = String::new());
        refused(|r| r.node.address = ([10, 0, 0, 1], 0).into());
        refused(|r| r.secret = vec![7; SMALL]);
        let mut longer = frame(join());
        longer.resize(SMALL + 1, 0);
        assert!(matches!(decode_join(&longer), Err(NotRead::TooLong { .. })));
    }

    #[test]
    fn nothing_that_a_frame_says_of_its_length_is_believed_before_it_came() {
        // a sequence that claims 2^32 elements, in a frame of a few bytes
        let mut claims = encode(&Open::Ask(Ask::Look(vec![])));
        claims.truncate(HEAD);
        claims.extend([0xff, 0xff, 0xff, 0xff, 0x0f]);
        assert!(decode::<Open>(&claims).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_doors_readers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Kind::of(&bytes).map(|kind| kind.admit(Standing::Replica, bytes.len()));
            let _ = decode_join(&bytes);
            let mut join = encode(&Open::Ask(Ask::Join(join())));
            join.truncate(HEAD);
            join.extend(&bytes);
            let _ = decode_join(&join);
            let _ = decode::<Open>(&join);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode::<Ask>(&bytes);
            let _ = decode::<Answer>(&bytes);
            let _ = decode::<Bulk>(&bytes);
        }
    }
}
