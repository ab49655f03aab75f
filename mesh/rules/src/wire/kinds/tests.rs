//! The table of kinds is that of the encoding, and no bytes make a reader panic.

use proptest::prelude::*;

use super::super::*;
use super::KINDS;
use crate::blobs::pacing::Class;
use crate::blobs::uploads::{RelayedStep, Step, UploadId};
use crate::ledger::change::Change;
use crate::ledger::records::NodeRecord;
use crate::ledger::returning::{ReturnStep, Shown};
use crate::members::door::Standing;
use crate::words::digest::Digest;
use crate::words::names::{NodeId, OperationId, RepositoryName, Revision, UpstreamId};

#[test]
fn another_version_is_told_apart_from_noise() {
    let mut bytes = encode(&Ask::ReadIndex);
    bytes[0] = 9;
    assert_eq!(decode::<Ask>(&bytes).unwrap_err(), BadMessage::Version(9));
}

/// A message of each kind, with its name in [`KINDS`].
fn one_of_each() -> Vec<(&'static str, Open)> {
    use crate::ledger::command::{Command, Envelope};
    let (digest, repository): (Digest, RepositoryName) =
        (Digest::sha256(b"x"), "demo/a".parse().unwrap());
    let command = Command::RemoveNode { id: NodeId(1) };
    let envelope =
        Envelope { operation: OperationId(1), at: crate::words::moment::Timestamp(1), command };
    let asks = vec![
        ("Raft", Ask::Raft { kind: 0, body: vec![1] }),
        ("Propose", Ask::Propose(envelope.clone())),
        ("ReadIndex", Ask::ReadIndex),
        (
            "Write",
            Ask::Write(Write {
                operation: OperationId(1),
                kind: WriteKind::Fenced(Change::Delete { name: "demo".parse().unwrap() }),
            }),
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
        (
            "Referrers",
            Ask::Referrers {
                repository: repository.clone(),
                subject: digest,
                query: String::new(),
            },
        ),
        ("Token", Ask::Token { name: "n".into(), password: "p".into(), scopes: vec![] }),
        ("Renew", Ask::Renew { certificate_request: String::new() }),
        ("Present", Ask::Present),
        ("Announce", Ask::Announce([NodeId(1)].into())),
        ("Build", Ask::Build),
        ("Tags", Ask::Tags { repository: repository.clone(), query: String::new() }),
        ("Fingerprint", Ask::Fingerprint(Revision(1))),
        ("Cached", Ask::Cached(CacheAsk::Refers(vec![digest]))),
        ("Sealing", Ask::Sealing(SealingAsk::Give(digest))),
        ("Pulled", Ask::Pulled(vec![])),
        ("Scrub", Ask::Scrub { now: true }),
        ("Returned", Ask::Returned { shown: Shown::default(), step: ReturnStep::Asks }),
        (
            "Upkeep",
            Ask::Upkeep(super::super::UpkeepAsk::Running(
                crate::ledger::upkeep::UpkeepKind::Collection,
            )),
        ),
        (
            "Tally",
            Ask::Tally {
                project: repository.project(),
                shards: crate::members::tally::Shards::new([1; 32], 1 << 20),
                at: Revision(1),
            },
        ),
        (
            "Seek",
            Ask::Seek { repository: repository.clone(), digest, client: [10, 0, 0, 1].into() },
        ),
        ("Condition", Ask::Condition(vec![digest])),
        ("Changed", Ask::Changed { verdicts: 7, gone: Revision(9) }),
        ("Collection", Ask::Collection(super::super::CollectionAsk::CountedOn(vec![digest]))),
        ("Job", Ask::Job(JobAsk::Report(crate::words::names::JobId(1)))),
    ];
    let fetch = Bulk::Fetch {
        digest,
        offset: 0,
        fill: false,
        via: None,
        list: false,
        direct: false,
        class: Class::Pull,
    };
    let streams = vec![
        ("Lease", Open::Lease),
        ("Fetch", Open::Bulk(fetch)),
        ("Copy", Open::Bulk(Bulk::Copy { repository: repository.clone() })),
        ("Snapshot", Open::Bulk(Bulk::Snapshot(vec![]))),
        ("Records", Open::Bulk(Bulk::Records)),
        ("State", Open::Bulk(Bulk::State(vec![]))),
        ("Ranges", Open::Bulk(Bulk::Ranges)),
        (
            "Upload",
            Open::Bulk(Bulk::Upload(RelayedStep {
                repository,
                id: UploadId::new(1, NodeId(1)),
                step: Step::Show,
            })),
        ),
        ("Append", Open::Append),
    ];
    asks.into_iter().map(|(name, ask)| (name, Open::Ask(ask))).chain(streams).collect()
}

fn node() -> NodeRecord {
    NodeRecord {
        id: NodeId(1),
        name: "a".parse().unwrap(),
        region: "r".parse().unwrap(),
        role: crate::ledger::records::Role::Edge,
        address: ([10, 0, 0, 1], 7946).into(),
        url: "http://10.0.0.1:5000".into(),
    }
}

fn join() -> JoinRequest {
    JoinRequest {
        secret: vec![7; SECRET].into(),
        certificate_request: "request".into(),
        node: node(),
    }
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
    refused(|r| r.secret = vec![7; SECRET + 1].into());
    refused(|r| r.secret = Vec::new().into());
    refused(|r| r.certificate_request = "x".repeat(9 << 10));
    refused(|r| r.node.url = format!("http://{}", "x".repeat(600)));
    refused(|r| r.node.url = "http://a\u{1b}[2J".into());
    refused(|r| r.node.url = "ftp://a".into());
    refused(|r| r.node.url = String::new());
    refused(|r| r.node.address = ([10, 0, 0, 1], 0).into());
    refused(|r| r.secret = vec![7; SMALL].into());
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
