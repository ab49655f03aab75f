//! Typed questions: each names the type of its answer.

use core::net::IpAddr;
use std::collections::BTreeSet;

use super::{
    Answer, Ask, CacheAnswer, CacheAsk, Changes, CollectionAnswer, CollectionAsk, Credentials,
    Found, JobAsk, JobReport, Listing, Lookup, NoLedger, Proposed, Referring, Resolution,
    SealingAnswer, SealingAsk, Sought, UpkeepAsk, Verdict, WriteError,
};
use crate::blobs::holding::{self, Held, Stock};
use crate::blobs::scrubbing::Progress;
use crate::ledger::command::{Envelope, Outcome};
use crate::ledger::policies::Pull;
use crate::ledger::records::NodeRecord;
use crate::ledger::returning::{ReturnStep, Shown};
use crate::ledger::upkeep::RunningUpkeep;
use crate::ledger::{fingerprint, level};
use crate::members::tally::{self, Shards};
use crate::people::access::Scope;
use crate::words::digest::Digest;
use crate::words::names::{NodeId, ProjectName, RepositoryName, Revision, UpstreamId};
use crate::words::secret::Secret;

/// A question of one node to another, with the type of its answer.
pub trait Question: Send {
    /// The type of the answer.
    type Answer: Send;

    /// The question's message.
    fn into_ask(self) -> Ask;

    /// The content of the answer's message; `None` if it answers another question.
    fn read(answer: Answer) -> Option<Self::Answer>;
}

macro_rules! question {
    ($name:ident { $($field:ident: $type:ty),* } -> $answer:ty, $ask:expr, $pattern:pat => $value:expr) => {
        #[doc = concat!("The question [`Ask::", stringify!($name), "`].")]
        #[derive(Clone)]
        pub struct $name {
            $(
                #[doc = concat!("See [`Ask::", stringify!($name), "`].")]
                pub $field: $type,
            )*
        }

        impl Question for $name {
            type Answer = $answer;

            fn into_ask(self) -> Ask {
                let $name { $($field),* } = self;
                $ask
            }

            fn read(answer: Answer) -> Option<$answer> {
                match answer {
                    $pattern => Some($value),
                    _ => None,
                }
            }
        }
    };
}

question!(Raft { kind: u8, body: Vec<u8> } -> Vec<u8>, Ask::Raft { kind, body }, Answer::Raft(body) => body);
question!(Propose { envelope: Envelope } -> Result<Proposed, NoLedger>,
    Ask::Propose(envelope), Answer::Proposed(result) => result);
question!(ReadIndex {} -> Result<Revision, NoLedger>, Ask::ReadIndex, Answer::ReadIndex(result) => result);
question!(Write { write: super::Write } -> Result<Outcome, WriteError>, Ask::Write(write), Answer::Written(result) => result);
question!(Have { digests: Vec<Digest>, repository: Option<RepositoryName> } -> Vec<Stock>,
    Ask::Have { digests, repository }, Answer::Have(stock) => stock);
question!(Replicate { digest: Digest, sources: Vec<NodeId>, repository: Option<RepositoryName> } -> Result<Held, String>,
    Ask::Replicate { digest, sources, repository }, Answer::Replicated(result) => result);
question!(Revoke { repository: RepositoryName, digest: Digest } -> bool,
    Ask::Revoke { repository, digest }, Answer::Revoked(revoked) => revoked);
question!(Resolve { repository: RepositoryName, reference: String } -> Resolution,
    Ask::Resolve { repository, reference }, Answer::Resolved(resolution) => resolution);
question!(Recheck { digest: Digest } -> (), Ask::Recheck(digest), Answer::Rechecking => ());
question!(Spare { upstream: UpstreamId, everything: bool, millis: u64 } -> (),
    Ask::Spare { upstream, everything, millis }, Answer::Spared => ());
question!(Look { lookups: Vec<Lookup> } -> (Vec<Found>, bool),
    Ask::Look(lookups), Answer::Look(found, fresh) => (found, fresh));
question!(Identify { credentials: Credentials } -> Option<Verdict>,
    Ask::Identify(credentials), Answer::Identified(verdict) => verdict);
question!(Introduce { record: NodeRecord } -> (), Ask::Introduce(record), Answer::Introduced => ());
question!(Preheat { digest: Digest, via: Option<RepositoryName> } -> Result<(), String>,
    Ask::Preheat { digest, via }, Answer::Preheated(result) => result);
question!(Referrers { repository: RepositoryName, subject: Digest, query: String } -> Referring,
    Ask::Referrers { repository, subject, query }, Answer::Referring(referring) => referring);
question!(Token { name: String, password: Secret, scopes: Vec<Scope> } -> Option<(Secret, Verdict)>,
    Ask::Token { name, password, scopes }, Answer::Token(signed) => signed);
question!(Renew { certificate_request: String } -> Result<String, String>,
    Ask::Renew { certificate_request }, Answer::Renewed(result) => result);
question!(Present {} -> (BTreeSet<NodeId>, BTreeSet<NodeId>), Ask::Present, Answer::Present { up, down } => (up, down));
question!(Announce { edges: BTreeSet<NodeId> } -> (), Ask::Announce(edges), Answer::Announced => ());
question!(Build {} -> level::Build, Ask::Build, Answer::Build(build) => build);
question!(Tags { repository: RepositoryName, query: String } -> Listing,
    Ask::Tags { repository, query }, Answer::Tags(listing) => listing);
question!(Fingerprint { at: Revision } -> Option<fingerprint::Fingerprint>,
    Ask::Fingerprint(at), Answer::Fingerprint(fingerprint) => fingerprint);
question!(Cached { ask: CacheAsk } -> CacheAnswer, Ask::Cached(ask), Answer::Cached(answer) => answer);
question!(Sealing { ask: SealingAsk } -> SealingAnswer, Ask::Sealing(ask), Answer::Sealing(answer) => answer);
question!(Collection { ask: CollectionAsk } -> CollectionAnswer,
    Ask::Collection(ask), Answer::Collection(answer) => answer);
question!(Scrub { now: bool } -> Progress, Ask::Scrub { now }, Answer::Scrub(progress) => progress);
question!(Returned { shown: Shown, step: ReturnStep } -> Option<Shown>,
    Ask::Returned { shown, step }, Answer::Returned(seen) => seen);
question!(Upkeep { ask: UpkeepAsk } -> Vec<RunningUpkeep>,
    Ask::Upkeep(ask), Answer::Upkeep(runs) => runs);
question!(Tally { project: ProjectName, shards: Shards, at: Revision } -> tally::Tally,
    Ask::Tally { project, shards, at }, Answer::Tally(tally) => tally);
question!(Seek { repository: RepositoryName, digest: Digest, client: IpAddr } -> Sought,
    Ask::Seek { repository, digest, client }, Answer::Sought(sought) => sought);
question!(Condition { digests: Vec<Digest> } -> holding::Condition,
    Ask::Condition(digests), Answer::Condition(condition) => condition);
question!(Changed { verdicts: u64, gone: Revision } -> Changes,
    Ask::Changed { verdicts, gone }, Answer::Changed(changes) => changes);
question!(Pulled { pulls: Vec<Pull> } -> (), Ask::Pulled(pulls), Answer::Pulled => ());
question!(Job { ask: JobAsk } -> Option<JobReport>, Ask::Job(ask), Answer::Job(report) => report);
