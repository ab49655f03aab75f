//! What the gates have let pass is forgotten with everything that it was decided from.

use super::signatures::{change, evidence, image, place, sig, signer, verified, with_image};
use super::*;
use crate::ledger::admitted::{Admission, Admissions, Pull};
use crate::ledger::change::Change;
use crate::ledger::scanning::{LookForScans, Report, ScanChange, ScannerChange};
use crate::ledger::signatures::{LookForSignatures, SignatureChange};
use crate::policies::signatures::{
    self as signing, Context, Decision, Exemption, Policy, Refusal, Signer, State, metadata as keys,
};
use crate::policies::vulnerabilities::{
    self as scans, Allowlist, Gate, Severity, Weakness, metadata as scan_keys,
};
use crate::words::names::Tag;

/// A node that remembers what it has let pass.
struct Node {
    admissions: Admissions,
    now: Timestamp,
    from_memory: usize,
}

/// What a pull comes to, without the reasons of refusals; a warning says what is lacking.
type Answer = Result<Option<Refusal>, ()>;

/// What the records say, and until when.
fn judge(ledger: &Ledger, tag: &Tag, now: Timestamp) -> (Answer, Option<Timestamp>) {
    let project = ledger.records.project(&"demo".parse().unwrap()).unwrap().unwrap();
    let (mut lacking, mut until, repository) = (None, None, place());
    if let Some(policy) = &Policy::of(&project.metadata) {
        let facts = ledger.records.signature_facts(project.id, &repository, &image()).unwrap();
        let (signers, own, parents) = (&facts.signers, &facts.own, &facts.parents);
        let context = Context {
            repository: &repository,
            cached: false,
            tag: Some(tag),
            tags: &[],
            pushed: Timestamp(0),
            now,
        };
        match signing::decide(policy, signers, own, parents, &context) {
            Decision::Pass => {}
            Decision::Warn(refusal) => lacking = Some(refusal),
            Decision::Wait(..) | Decision::Refuse(_) => return (Err(()), None),
        }
        until = signing::changes_at(signers, own, parents, now);
    }
    if let Some(gate) = &Gate::of(&project.metadata)
        && let Some(facts) =
            ledger.records.scan_facts(gate, project.id, &repository, &image()).unwrap()
    {
        if scans::decide(gate, facts.known(), &facts.allowed, now) != scans::Decision::Pass {
            return (Err(()), None);
        }
        until = until.into_iter().chain(facts.allowed.changes_at(now)).min();
    }
    (Ok(lacking), until)
}

impl Node {
    fn new(most: usize) -> Self {
        Node { admissions: Admissions::new(most), now: Timestamp(10), from_memory: 0 }
    }

    /// Answers a pull as a node does, and compares that with the records.
    fn pull(&mut self, ledger: &Ledger, tag: &str) -> Answer {
        let project = ledger.records.project(&"demo".parse().unwrap()).unwrap().unwrap();
        let metadata = project.metadata;
        let tag: Tag = tag.parse().unwrap();
        let (truth, until) = judge(ledger, &tag, self.now);
        let (stamp, at) = (ledger.changes.stamp(&place()), self.now);
        let pull = Pull {
            project: project.id,
            repository: place(),
            digest: image(),
            tag: Some(tag.clone()),
        };
        if let Some(admission) = self.admissions.find(&pull, &metadata, stamp, at) {
            assert_eq!(Ok(admission.lacking.clone()), truth, "what is remembered is not true");
            self.from_memory += 1;
        } else if let Ok(lacking) = &truth {
            let admission = Admission { metadata, stamp, at, until, lacking: lacking.clone() };
            self.admissions.remember(pull, admission);
        }
        truth
    }
}

fn set_metadata(ledger: &mut Ledger, key: &str, value: &str) {
    let metadata = BTreeMap::from([(key.to_owned(), value.to_owned())]);
    let configure = Change::Configure {
        name: "demo".parse().unwrap(),
        public: None,
        durability: None,
        proxy: ProxyChange::default(),
        metadata,
    };
    let command = configure.under(ledger.epoch());
    assert_eq!(ledger.run(command), Outcome::Done);
}

fn trust(ledger: &mut Ledger, state: State, from: Option<u64>, until: Option<u64>) {
    let not_before = from.map(Timestamp);
    let not_after = until.map(|end| Timestamp(end.max(from.unwrap_or_default() + 1)));
    let signer = Signer { not_before, not_after, ..*signer("ci", state) };
    for new in [true, false] {
        let signer = Box::new(signer.clone());
        change(
            ledger,
            SignatureChange::SetSigner { project: "demo".parse().unwrap(), signer, new },
        );
    }
}

fn sign(ledger: &mut Ledger, until: Option<u64>) {
    let put = put(ledger.epoch(), 2, sig().as_str(), &[2]);
    ledger.run(put);
    let mut found = evidence(2, Some(sig()), &[1]);
    found.signatures[0].signature.until = until.map(Timestamp);
    change(ledger, verified(found, vec![], None));
}

fn scan(ledger: &mut Ledger, change: ScanChange) -> Outcome {
    let command = Change::Scan(Box::new(change)).under(ledger.epoch());
    ledger.run(command)
}

fn report(ledger: &mut Ledger, severity: Option<Severity>) {
    let ask = ScanChange::Ask { repository: place(), digests: vec![image()], first: false };
    scan(ledger, ask);
    let known = ledger.records.scan_of(&place(), &image()).unwrap();
    let Some(wanted) = known.and_then(|known| known.wanted) else { return };
    let weak = |severity| Weakness { id: "CVE-2026-1".into(), severity, fixable: true };
    let report = Report {
        number: wanted.number,
        begun: Timestamp(1),
        at: Timestamp(0),
        engine: "x".into(),
        database: Digest::sha256(b"d"),
        insufficient: None,
        found: severity.map(weak).into_iter().collect(),
        log: String::new(),
    };
    scan(ledger, ScanChange::Report { repository: place(), digest: image(), report });
}

fn allow(ledger: &mut Ledger, all: bool, expires: Option<u64>) {
    let list = Allowlist { ids: vec!["CVE-2026-1".into()], expires: expires.map(Timestamp) };
    if all {
        ledger.run(Command::Scanner(Box::new(ScannerChange::Allow(list))));
    } else {
        let project = "demo".parse().unwrap();
        scan(ledger, ScanChange::Allow { project, list });
    }
}

fn use_database(ledger: &mut Ledger) {
    let digest = Digest::sha256(b"d");
    let (updated, next_update) = (Timestamp(1), Timestamp(2));
    let change = ScannerChange::Database { digest, updated, next_update };
    ledger.run(Command::Scanner(Box::new(change)));
}

fn exempt(ledger: &mut Ledger, until: Option<u64>) {
    let exemption = until.map(|until| Exemption {
        until: Timestamp(until),
        why: "an outage".into(),
        by: "ann".into(),
    });
    let (repository, digest) = (place(), image());
    change(ledger, SignatureChange::Exempt { repository, digest, exemption });
}

#[test]
fn each_input_that_changes_ends_what_is_remembered() {
    type Step = (&'static str, fn(&mut Ledger, &mut Node), bool);
    // what happens, and whether the image passes then
    let steps: &[Step] = &[
        ("a project without gates", |_, _| {}, true),
        ("the policy is set", |l, _| set_metadata(l, keys::MODE, "enforce"), false),
        ("the key is trusted", |l, _| trust(l, State::Active, None, Some(5_000)), false),
        ("a signature arrives", |l, _| sign(l, Some(4_000)), true),
        ("the signature ends", |_, n| n.now = Timestamp(4_000), false),
        ("the clock goes back", |_, n| n.now = Timestamp(3_999), true),
        ("a longer signature", |l, _| sign(l, Some(9_000)), true),
        ("the signer ends", |_, n| n.now = Timestamp(5_000), false),
        ("the clock goes back again", |_, n| n.now = Timestamp(100), true),
        ("the signer begins later", |l, _| trust(l, State::Active, Some(90), None), true),
        ("the clock is before that", |_, n| n.now = Timestamp(89), false),
        ("and after it", |_, n| n.now = Timestamp(100), true),
        ("another signer is required", |l, _| set_metadata(l, keys::REQUIRE, "other"), false),
        ("and none any more", |l, _| set_metadata(l, keys::REQUIRE, ""), true),
        ("the signature is deleted", |l, _| delete_signature(l), false),
        ("an exemption is granted", |l, _| exempt(l, Some(200)), true),
        ("it ends", |_, n| n.now = Timestamp(200), false),
        ("another one", |l, _| exempt(l, Some(900)), true),
        ("it is taken back", |l, _| exempt(l, None), false),
        ("it is signed again", |l, _| sign(l, None), true),
        ("scans count, and nothing can be scanned", |l, _| prevent(l, "true"), true),
        ("there is a database", |l, _| use_database(l), false),
        ("nothing is found", |l, _| report(l, None), true),
        ("something is found", |l, _| report(l, Some(Severity::High)), false),
        ("the project does not mind", |l, _| prevent(l, "false"), true),
        ("it minds", |l, _| prevent(l, "true"), false),
        ("all may have it", |l, _| allow(l, true, Some(1_000)), true),
        ("the list ends", |_, n| n.now = Timestamp(1_000), false),
        (
            "the project has a list",
            |l, _| set_metadata(l, scan_keys::SYSTEM_ALLOWLIST, "false"),
            false,
        ),
        ("which lets it pass", |l, _| allow(l, false, Some(2_000)), true),
        ("and ends", |_, n| n.now = Timestamp(2_000), false),
        ("without an end", |l, _| allow(l, false, None), true),
        ("the key is revoked", |l, _| trust(l, revoked(true), None, None), false),
        ("the project only warns", |l, _| set_metadata(l, keys::MODE, "warn"), true),
        ("it enforces", |l, _| set_metadata(l, keys::MODE, "enforce"), false),
    ];
    let (mut ledger, mut node) = (with_image(), Node::new(100));
    for (what, step, passes) in steps {
        step(&mut ledger, &mut node);
        assert_eq!(node.pull(&ledger, "v1").is_ok(), *passes, "{what}");
        let before = node.from_memory;
        assert_eq!(node.pull(&ledger, "v1").is_ok(), *passes, "{what}, once more");
        assert_eq!(node.from_memory > before, *passes, "{what}: a pass is remembered");
    }
}

fn prevent(ledger: &mut Ledger, value: &str) {
    set_metadata(ledger, scan_keys::PREVENT, value);
}

fn revoked(compromised: bool) -> State {
    State::Revoked { at: Timestamp(0), compromised, why: "stolen".into() }
}

fn delete_signature(ledger: &mut Ledger) {
    let epoch = ledger.epoch();
    ledger.run(Command::DeleteTag { epoch, repository: place(), tag: sig() });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn a_node_that_remembers_answers_as_the_records_say(
        steps in prop::collection::vec((0..18_u8, 0..60_u64, any::<bool>()), 1..80),
    ) {
        let (mut ledger, mut node) = (with_image(), Node::new(3));
        use_database(&mut ledger);
        for (what, number, flag) in steps {
            let end = flag.then_some(number + 20);
            let (start, states) = (number % 40, [State::Active, State::VerifyOnly, State::Pending]);
            match what {
                0 => trust(&mut ledger, states[number as usize % 3].clone(), flag.then_some(start), end),
                1 => trust(&mut ledger, revoked(false), None, None),
                2 | 3 => sign(&mut ledger, end),
                4 => delete_signature(&mut ledger),
                5 => {
                    let revision = ledger.revision;
                    exempt(&mut ledger, end.map(|end| end + revision));
                }
                6 | 7 => report(&mut ledger, [None, Some(Severity::High)][usize::from(flag)]),
                8 => allow(&mut ledger, number % 2 == 0, end),
                9 => set_metadata(&mut ledger, keys::MODE, ["off", "warn", "enforce"][number as usize % 3]),
                10 => prevent(&mut ledger, ["true", "false"][usize::from(flag)]),
                11 => set_metadata(&mut ledger, scan_keys::SYSTEM_ALLOWLIST, ["true", "false"][usize::from(flag)]),
                12 => set_metadata(&mut ledger, keys::NAME, ["none", "tag"][usize::from(flag)]),
                13 => {
                    let (epoch, repository, digest) = (ledger.epoch(), place(), image());
                    ledger.run(Command::DeleteManifest { epoch, repository, digest });
                    let put = put(ledger.epoch(), 1, "v1", &[1]);
                    ledger.run(put);
                }
                14 => set_metadata(&mut ledger, scan_keys::UNSCANNED, ["allow", "block"][usize::from(flag)]),
                _ => node.now = Timestamp(number + 10),
            }
            for tag in ["v1", "v2", "v1"] {
                drop(node.pull(&ledger, tag));
            }
            prop_assert!(node.admissions.len() <= 3);
        }
    }
}
