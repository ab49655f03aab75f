use super::*;
use crate::policies::selectors::Pattern;
use crate::policies::signatures::{Anchor, AnchorId, Evidence, Signature};
use crate::words::digest::Digest;

const CI: AnchorId = AnchorId([1; 32]);
const MESH: AnchorId = AnchorId([2; 32]);
const NOW: Timestamp = Timestamp(1_000_000);

fn signer(name: &str, id: AnchorId) -> Signer {
    Signer {
        name: name.into(),
        anchor: Anchor::Key { id, pem: String::new() },
        formats: Vec::new(),
        predicates: Vec::new(),
        repositories: None,
        tags: None,
        logged: false,
        not_before: None,
        not_after: None,
        state: State::Active,
    }
}

fn signature(by: By) -> Signature {
    Signature {
        format: Format::Cosign,
        by,
        fault: None,
        predicate: None,
        reference: Some("atoll.example:5000/shop/web:v1".into()),
        signed: None,
        until: None,
        payload: Digest::sha256(b"payload"),
        claims: BTreeMap::new(),
    }
}

fn record(signatures: Vec<Signature>) -> SignatureRecord {
    let signatures = signatures
        .into_iter()
        .map(|signature| Seen { at: Timestamp(500), logged: None, signature })
        .collect();
    let evidence =
        vec![Evidence { manifest: Digest::sha256(b"m"), tag: None, is_text: true, signatures }];
    SignatureRecord { evidence, ..SignatureRecord::default() }
}

fn policy(entries: &[(&str, &str)]) -> Policy {
    let entries = entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Policy::of(&entries.collect()).unwrap()
}

fn enforce() -> Policy {
    policy(&[(metadata::MODE, "enforce")])
}

/// Decides about `shop/web`, pulled by this tag or by digest.
fn judge(
    policy: &Policy,
    signers: &[Signer],
    own: &SignatureRecord,
    tag: Option<&str>,
) -> Decision {
    let (repository, tag) = ("shop/web".parse().unwrap(), tag.map(|tag| tag.parse().unwrap()));
    let context = Context {
        repository: &repository,
        cached: false,
        tag: tag.as_ref(),
        tags: &[],
        pushed: Timestamp(0),
        now: NOW,
    };
    decide(policy, signers, own, &[], &context)
}

/// Why a pull is refused; nothing if it is not.
fn refused(signers: &[Signer], own: Signature) -> String {
    match judge(&enforce(), signers, &record(vec![own]), Some("v1")) {
        Decision::Refuse(why) => why.to_string(),
        Decision::Pass => String::new(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_a_trusted_key_has_signed_passes_and_nothing_else() {
    let ci = [signer("ci", CI)];
    assert_eq!(refused(&ci, signature(By::Key(CI))), "");
    assert!(refused(&ci, signature(By::Key(MESH))).contains("not trusted any more"));
    let hint = Some(MESH);
    assert!(refused(&ci, signature(By::Unknown { hint })).contains("0202020202020202"));
    let unsigned = judge(&enforce(), &ci, &SignatureRecord::default(), None);
    assert_eq!(unsigned, Decision::Refuse(Refusal::Unsigned));
    let faulty = Signature { fault: Some(Fault::OtherDigest), ..signature(By::Key(CI)) };
    assert!(refused(&ci, faulty).contains("of another digest"));
    let expired = Signature { until: Some(NOW), ..signature(By::Key(CI)) };
    assert!(refused(&ci, expired).contains("expired"));
    let later = Signature { until: Some(Timestamp(NOW.0 + 1)), ..signature(By::Key(CI)) };
    assert_eq!(refused(&ci, later), "");
}

#[test]
fn a_policy_is_off_unless_somebody_sets_it_and_strict_if_it_cannot_be_read() {
    assert_eq!(Policy::of(&BTreeMap::new()), None);
    let off = [(metadata::MODE.to_owned(), "off".to_owned())].into();
    assert_eq!(Policy::of(&off), None);
    assert_eq!(policy(&[(metadata::MODE, "nonsense")]).mode, Mode::Enforce);
    let warn = policy(&[(metadata::MODE, "warn")]);
    let unsigned = SignatureRecord::default();
    assert_eq!(judge(&warn, &[], &unsigned, None), Decision::Warn(Refusal::Unsigned));
}

#[test]
fn the_state_and_the_time_of_a_signer_count() {
    let with = |state| [Signer { state, ..signer("ci", CI) }];
    let own = || signature(By::Key(CI));
    let revoked = |at: u64, compromised| State::Revoked {
        at: Timestamp(at),
        compromised,
        why: "the laptop was stolen".into(),
    };
    assert_eq!(refused(&with(State::VerifyOnly), own()), "");
    assert!(refused(&with(State::Pending), own()).contains("pending"));
    // the signature was seen at 500
    assert_eq!(refused(&with(revoked(501, false)), own()), "");
    assert!(refused(&with(revoked(500, false)), own()).contains("stolen"));
    assert!(refused(&with(revoked(501, true)), own()).contains("stolen"));
    let from = [Signer { not_before: Some(Timestamp(NOW.0 + 1)), ..signer("ci", CI) }];
    assert!(refused(&from, own()).contains("not count yet"));
    let until = [Signer { not_after: Some(NOW), ..signer("ci", CI) }];
    assert!(refused(&until, own()).contains("counted until"));
}

#[test]
fn an_attestation_is_no_signature_unless_the_signer_says_so() {
    let attests = |kind: &str| Signature {
        format: Format::Bundle,
        predicate: Some(kind.into()),
        reference: None,
        ..signature(By::Key(CI))
    };
    let ci = [signer("ci", CI)];
    assert_eq!(refused(&ci, attests(COSIGN_SIGNATURE)), "");
    assert!(refused(&ci, attests("https://spdx.dev/Document")).contains("no signature"));
    let slsa = "https://slsa.dev/provenance/v1";
    let trusts = [Signer { predicates: vec![slsa.into()], ..signer("ci", CI) }];
    assert_eq!(refused(&trusts, attests(slsa)), "");
    assert!(refused(&trusts, attests(COSIGN_SIGNATURE)).contains("no signature"));
    assert!(refused(&trusts, signature(By::Key(CI))).contains("a plain signature is none"));
    let only = [Signer { formats: vec![Format::NotationJws], ..signer("ci", CI) }];
    assert!(refused(&only, signature(By::Key(CI))).contains("does not sign as cosign"));
}

#[test]
fn all_lists_of_signers_are_required_and_one_of_each() {
    let signers = [signer("ci", CI), signer("mesh", MESH)];
    let both = policy(&[(metadata::MODE, "enforce"), (metadata::REQUIRE, "old, ci; mesh")]);
    assert_eq!(both.require, [vec!["old", "ci"], vec!["mesh"]]);
    let of = |keys: &[AnchorId]| record(keys.iter().map(|id| signature(By::Key(*id))).collect());
    assert_eq!(judge(&both, &signers, &of(&[CI, MESH]), None), Decision::Pass);
    let Decision::Refuse(why) = judge(&both, &signers, &of(&[CI]), None) else { panic!() };
    assert_eq!(why.to_string(), "a signature by mesh is missing");
    let Decision::Refuse(why) = judge(&both, &signers, &of(&[MESH]), None) else { panic!() };
    assert_eq!(why.to_string(), "a signature by old or ci is missing");
    let one = policy(&[(metadata::MODE, "enforce"), (metadata::REQUIRE, "ci,mesh")]);
    assert_eq!(judge(&one, &signers, &of(&[MESH]), None), Decision::Pass);
}

#[test]
fn the_signed_name_counts_where_the_policy_says_so() {
    let by = |check: &str| policy(&[(metadata::MODE, "enforce"), (metadata::NAME, check)]);
    let ci = [signer("ci", CI)];
    let named = |reference: Option<&str>| {
        record(vec![Signature {
            reference: reference.map(str::to_owned),
            ..signature(By::Key(CI))
        }])
    };
    let passes = |policy: &Policy, reference, tag| {
        judge(policy, &ci, &named(reference), tag) == Decision::Pass
    };
    let here = Some("other.example/shop/web:v1");
    for (check, reference, tag, expected) in [
        ("none", None, Some("v1"), true),
        ("none", Some("x/other/app:1"), Some("v1"), true),
        ("repository", here, Some("v2"), true),
        ("repository", Some("x/shop/web"), Some("v1"), true),
        ("repository", Some("x/shop/api:v1"), Some("v1"), false),
        ("repository", None, Some("v1"), false),
        ("tag", here, Some("v1"), true),
        ("tag", here, Some("v2"), false),
        ("tag", here, None, true),
        ("tag", Some("x/shop/web"), Some("v1"), false),
        ("tag", Some("x/shop/web:v1@sha256:ab"), Some("v1"), true),
        ("repository", Some("shop"), Some("v1"), false),
    ] {
        assert_eq!(passes(&by(check), reference, tag), expected, "{check} {reference:?} {tag:?}");
    }
    // what is cached of another registry has its name there
    let repository = "hub/library/web".parse().unwrap();
    for (reference, expected) in
        [("docker.io/library/web:v1", true), ("x/hub/library/web:v1", false), ("x/web:v1", false)]
    {
        let context = Context {
            repository: &repository,
            cached: true,
            tag: None,
            tags: &[],
            pushed: Timestamp(0),
            now: NOW,
        };
        let decision = decide(&by("tag"), &ci, &named(Some(reference)), &[], &context);
        assert_eq!(decision == Decision::Pass, expected, "{reference}");
    }
    // a signer for some repositories and tags only
    let scoped = [Signer {
        repositories: Some(Pattern::new("web,api/**").unwrap()),
        tags: Some(Pattern::new("v*").unwrap()),
        ..signer("ci", CI)
    }];
    let tagged = |tag| judge(&enforce(), &scoped, &named(here), tag) == Decision::Pass;
    assert!(tagged(Some("v1")) && tagged(None) && !tagged(Some("dev")));
    let elsewhere =
        [Signer { repositories: Some(Pattern::new("api").unwrap()), ..scoped[0].clone() }];
    assert!(judge(&enforce(), &elsewhere, &named(here), None) != Decision::Pass);
}

#[test]
fn what_a_signed_index_lists_passes_unless_the_policy_says_otherwise() {
    let repository: RepositoryName = "shop/web".parse().unwrap();
    let context = Context {
        repository: &repository,
        cached: false,
        tag: None,
        tags: &[],
        pushed: Timestamp(0),
        now: NOW,
    };
    let (own, ci) = (SignatureRecord::default(), [signer("ci", CI)]);
    let parents = [record(vec![signature(By::Key(CI))])];
    assert_eq!(decide(&enforce(), &ci, &own, &parents, &context), Decision::Pass);
    let strict = policy(&[(metadata::MODE, "enforce"), (metadata::CHILDREN, "false")]);
    let refused = Decision::Refuse(Refusal::Unsigned);
    assert_eq!(decide(&strict, &ci, &own, &parents, &context), refused);
}

#[test]
fn harbors_switches_ask_only_whether_something_is_there() {
    let own = record(vec![signature(By::Unknown { hint: None })]);
    let cosign = policy(&[(metadata::HARBOR_COSIGN, "true")]);
    let notation = policy(&[(metadata::HARBOR_NOTATION, "true")]);
    assert_eq!(judge(&cosign, &[], &own, None), Decision::Pass);
    let Decision::Refuse(why) = judge(&notation, &[], &own, None) else { panic!() };
    assert_eq!(why.to_string(), "The image is not signed by notation.");
    let nothing = SignatureRecord::default();
    assert!(matches!(judge(&cosign, &[], &nothing, None), Decision::Refuse(_)));
    // and with a policy, it has to be good, too
    let both = policy(&[(metadata::HARBOR_COSIGN, "true"), (metadata::MODE, "enforce")]);
    assert!(matches!(judge(&both, &[], &own, None), Decision::Refuse(_)));
}

#[test]
fn what_was_pushed_a_moment_ago_is_waited_for() {
    let repository: RepositoryName = "shop/web".parse().unwrap();
    let waits = policy(&[(metadata::MODE, "enforce"), (metadata::WAIT, "30")]);
    let of = |pushed| {
        let context = Context {
            repository: &repository,
            cached: false,
            tag: None,
            tags: &[],
            pushed,
            now: NOW,
        };
        decide(&waits, &[], &SignatureRecord::default(), &[], &context)
    };
    let left = |seconds| Decision::Wait(Duration::from_secs(seconds), Refusal::Unsigned);
    assert_eq!(of(Timestamp(NOW.0 - 10_000)), left(20));
    assert_eq!(of(Timestamp(NOW.0 - 30_000)), Decision::Refuse(Refusal::Unsigned));
    // another node's clock is ahead
    assert_eq!(of(Timestamp(NOW.0 + 3_600_000)), left(30));
}

#[test]
fn an_exemption_ends() {
    let exempt = |until| Some(Exemption { until, why: "outage".into(), by: "ann".into() });
    let of = |until| SignatureRecord { exempt: exempt(until), ..SignatureRecord::default() };
    assert_eq!(judge(&enforce(), &[], &of(Timestamp(NOW.0 + 1)), None), Decision::Pass);
    assert!(matches!(judge(&enforce(), &[], &of(NOW), None), Decision::Refuse(_)));
}

#[test]
fn an_exemption_of_an_index_is_one_of_what_it_lists_whatever_children_inherit() {
    let exempt = |until| Some(Exemption { until, why: "outage".into(), by: "ann".into() });
    let parent = |until| SignatureRecord { exempt: exempt(until), ..SignatureRecord::default() };
    let alone = policy(&[(metadata::MODE, "enforce"), (metadata::CHILDREN, "false")]);
    let (repository, own) = ("shop/web".parse().unwrap(), SignatureRecord::default());
    let pushed = Timestamp(0);
    let context =
        Context { repository: &repository, cached: false, tag: None, tags: &[], pushed, now: NOW };
    let end = Timestamp(NOW.0 + 1);
    let parents = [parent(NOW), parent(end)];
    for policy in [enforce(), alone] {
        assert_eq!(decide(&policy, &[], &own, &parents, &context), Decision::Pass);
        let ended = decide(&policy, &[], &own, &parents[..1], &context);
        assert_eq!(ended, Decision::Refuse(Refusal::Unsigned));
    }
    assert_eq!(exempting(&own, &parents, NOW).map(|(index, _)| index), Some(Some(1)));
    assert_eq!(changes_at(&[], &own, &parents, NOW), Some(end), "and nobody remembers it longer");
}

#[test]
fn certificates_and_identities_are_known_by_what_is_in_them() {
    let signer = |anchor| [Signer { anchor, ..signer("ci", CI) }];
    let authority = |subjects: &[&str]| {
        signer(Anchor::Authority {
            ids: vec![CI],
            pem: String::new(),
            timestamps: String::new(),
            subjects: subjects.iter().map(|one| (*one).to_owned()).collect(),
        })
    };
    let by = |root, subject: &str| signature(By::Certificate { root, subject: subject.into() });
    let subject = r"CN=ci,O=Acme\, Inc,C=DE";
    for (subjects, passes) in [
        (&[][..], true),
        (&["O=Acme\\, Inc"], true),
        (&["C=DE, CN=ci"], true),
        (&["C=FR", "C=DE"], true),
        (&["C=FR"], false),
        (&["O=Acme"], false),
        (&[","], false),
    ] {
        assert_eq!(
            refused(&authority(subjects), by(CI, subject)).is_empty(),
            passes,
            "{subjects:?}"
        );
    }
    assert!(!refused(&authority(&[]), by(MESH, subject)).is_empty());
    let keyless = |pattern: &str| {
        signer(Anchor::Keyless {
            ids: vec![CI],
            pem: String::new(),
            rekor: String::new(),
            issuer: "https://issuer.example".into(),
            subject: pattern.into(),
        })
    };
    let by = |issuer: &str, subject: &str| {
        signature(By::Identity { root: CI, issuer: issuer.into(), subject: subject.into() })
    };
    let (issuer, who) = ("https://issuer.example", "https://git.example/shop/web/ci@refs/tags/v1");
    for (pattern, passes) in [
        (who, true),
        ("https://git.example/shop/*@refs/tags/*", true),
        ("*", true),
        ("https://git.example/shop", false),
        ("https://git.example/shop/*/dev", false),
        ("*@refs/heads/*", false),
        ("", false),
    ] {
        assert_eq!(refused(&keyless(pattern), by(issuer, who)).is_empty(), passes, "{pattern}");
    }
    assert!(!refused(&keyless("*"), by("https://other.example", who)).is_empty());
}

#[test]
fn values_of_the_policy_are_checked_when_they_are_written() {
    for (key, good, wrong) in [
        (metadata::MODE, &["off", "warn", "enforce"][..], &["on", "", "true"][..]),
        (metadata::NAME, &["none", "repository", "tag"], &["digest"]),
        (metadata::CHILDREN, &["true", "false"], &["yes"]),
        (metadata::STATUS, &["403", "412"], &["404"]),
        (metadata::WAIT, &["0", "60"], &["61", "-1", "1.5", "x"]),
        (metadata::REQUIRE, &["ci", "ci,old;mesh", " a ; b "], &["CI", "a b", "ö", "", ";", " , "]),
        (metadata::HARBOR_COSIGN, &["true"], &["1"]),
        (
            metadata::HOST,
            &["registry.example.com", "localhost:5000", "10.0.0.1"],
            &["", "a/b", "a:0", "a:b", "-a", "a..b", "http://a"],
        ),
        ("severity", &["anything"], &[]),
    ] {
        assert!(good.iter().all(|value| check(key, value).is_ok()), "{key}");
        assert!(wrong.iter().all(|value| check(key, value).is_err()), "{key}");
    }
}

#[test]
fn what_a_compromised_signer_has_signed_counts_for_no_other_either() {
    let ended = State::Revoked { at: Timestamp(0), compromised: true, why: "stolen".into() };
    let authority = |name: &str, subjects: &[&str], state: State| Signer {
        anchor: Anchor::Authority {
            ids: vec![CI],
            pem: String::new(),
            timestamps: String::new(),
            subjects: subjects.iter().map(|one| (*one).to_owned()).collect(),
        },
        state,
        ..signer(name, CI)
    };
    let by = |subject: &str| By::Certificate { root: CI, subject: subject.into() };
    let signers =
        [authority("nota", &["O=Acme, C=DE"], ended), authority("all", &[], State::Active)];
    let verdict = |subject: &str| {
        let own = record(vec![signature(by(subject))]);
        judge(&enforce(), &signers, &own, Some("v1"))
    };
    let Decision::Refuse(why) = verdict("CN=x,O=Acme,C=DE") else { panic!("it passes") };
    assert!(why.to_string().contains("the signer nota is revoked: stolen"), "{why}");
    assert_eq!(verdict("CN=x,O=Other,C=DE"), Decision::Pass, "of somebody else");
}

#[test]
fn a_signer_of_some_tags_counts_by_digest_for_what_it_says_or_for_what_such_a_tag_names_now() {
    let narrow = Some(Pattern::new("v*").unwrap());
    let signers = [Signer { tags: narrow, ..signer("release", CI) }];
    let repository: RepositoryName = "shop/web".parse().unwrap();
    let of = |reference: Option<&str>| {
        let reference = reference.map(str::to_owned);
        record(vec![Signature { reference, ..signature(By::Key(CI)) }])
    };
    let (nothing, index) = (SignatureRecord::default(), [of(None)]);
    let passes = |own: &SignatureRecord, parents: &[SignatureRecord], cached, tags: &[&str]| {
        let tags: Vec<Tag> = tags.iter().map(|tag| tag.parse().unwrap()).collect();
        let (tag, pushed, repository) = (None, Timestamp(0), &repository);
        let context = Context { repository, cached, tag, tags: &tags, pushed, now: NOW };
        decide(&enforce(), &signers, own, parents, &context) == Decision::Pass
    };
    for reference in [None, Some("atoll.example/shop/web")] {
        let own = of(reference);
        assert!(tags_decide(&signers, &own, &[]));
        assert!(passes(&own, &[], false, &["dev", "v1"]), "{reference:?}");
        assert!(!passes(&own, &[], false, &["dev"]), "{reference:?}");
        assert!(!passes(&own, &[], false, &[]), "{reference:?}");
        assert!(passes(&own, &[], true, &[]), "the tags of the upstream are not known");
    }
    // what was signed says which tag it is for
    let (good, bad) = (of(Some("x/shop/web:v1")), of(Some("x/shop/web:dev")));
    assert!(!tags_decide(&signers, &good, &[]) && passes(&good, &[], false, &[]));
    assert!(!passes(&bad, &[], false, &["v1"]));
    // the tags of an index are those of what it lists
    assert!(tags_decide(&signers, &nothing, &index));
    assert!(passes(&nothing, &index, false, &["v1"]) && !passes(&nothing, &index, false, &["dev"]));
    assert!(!tags_decide(&[signer("ci", CI)], &of(None), &[]), "nothing more is read for others");
}

#[test]
fn a_signer_that_the_policy_names_is_required_unless_another_of_that_name_is_left() {
    let ours = |name: &str| Signer { logged: true, ..signer(name, MESH) };
    let signers = [signer("ci", CI), signer("qa", CI), ours("mesh"), ours("mesh-2")];
    for (text, name, expected) in [
        ("ci,qa;mesh", "ci", true),
        ("qa", "ci", false),
        ("mesh", "mesh", false),
        ("mesh-2", "mesh-2", true),
        ("mesh-2", "mesh", false),
        ("gone,qa", "ci", false),
        ("gone", "gone", false),
    ] {
        assert_eq!(is_required(text, &signers, name), expected, "{text} without {name}");
    }
    assert!(is_required("ci;mesh", &signers[..3], "mesh"), "it is the last of the mesh's own");
    let left = without(&signers, "ci", true);
    assert!(left[0].state.is_compromised() && left[1..] == signers[1..]);
    assert_eq!(without(&signers, "ci", false), &signers[1..]);
}
