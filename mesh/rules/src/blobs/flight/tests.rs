use super::*;
use crate::blobs::groups::{GROUP, GroupHasher};
use proptest::prelude::*;

const PATIENCE: Duration = Duration::from_secs(60);

fn at(seconds: u64) -> Moment {
    Moment::from_micros(seconds * 1_000_000)
}

fn peer(node: u8) -> Source<u8> {
    Source::Peer { node, fill: false }
}

fn peers(nodes: &[u8]) -> Vec<Source<u8>> {
    nodes.iter().copied().map(peer).collect()
}

fn flight(nodes: &[u8], bound: Option<Bound>) -> Flight<u8> {
    Flight::new(at(0), First::Named(peers(nodes)), bound, PATIENCE)
}

/// What to do next, while nobody is known to be down.
fn step(flight: &mut Flight<u8>, seconds: u64) -> Step<u8> {
    flight.step(at(seconds), |_| false)
}

/// Whom it asks next, and for which byte on.
fn asks(flight: &mut Flight<u8>) -> (u8, u64) {
    match step(flight, 0) {
        Step::Ask(Request { source: Source::Peer { node, .. }, offset, .. }) => (node, offset),
        other => panic!("{other:?}"),
    }
}

/// It looks in this hurry, and these hold the blob.
fn looks(flight: &mut Flight<u8>, hurry: Hurry, nodes: &[u8]) {
    assert_eq!(step(flight, 0), Step::Look(hurry));
    flight.handle_found(peers(nodes));
}

/// It looks twice, and both times only these hold the blob.
fn looks_twice(flight: &mut Flight<u8>, nodes: &[u8]) {
    looks(flight, Hurry::First, nodes);
    while let Step::Ask(_) = step(flight, 0) {
        flight.handle_failure();
    }
    looks(flight, Hurry::All, nodes);
}

fn unknown(size: u64) -> Claim {
    Claim { size, content: None, list: None }
}

fn blob(size: usize) -> (Vec<u8>, Claim) {
    let bytes: Vec<u8> = (0..size).map(|i| (i / 7) as u8).collect();
    let mut hasher = GroupHasher::new();
    hasher.update(&bytes);
    let (content, list) = hasher.finish();
    (bytes, Claim { size: size as u64, content: Some(content), list })
}

fn bound(claim: &Claim) -> Option<Bound> {
    claim.content.map(|content| Bound { content, size: claim.size })
}

#[test]
fn a_flight_that_nobody_waits_for_ends_unless_it_is_nearly_done() {
    let given_up = Step::GiveUp(GivenUp::Deserted);
    for (arrived, goes_on) in [(0, false), (74, false), (75, true), (99, true)] {
        let mut flight = flight(&[1, 2], None);
        assert_eq!(flight.handle_claim(&unknown(100)), Judgement::Believed);
        flight.handle_unchecked(at(0), arrived).unwrap();
        flight.handle_waiting(at(1), false);
        flight.handle_waiting(at(9), false);
        assert!(!flight.is_deserted(at(10)), "not yet, after {arrived}");
        assert!(matches!(step(&mut flight, 10), Step::Ask(_)));
        assert_eq!(flight.is_deserted(at(11)), !goes_on, "after {arrived}");
        assert_eq!(step(&mut flight, 11) == given_up, !goes_on, "after {arrived}");
    }
    // before it has begun, too
    let mut nothing_yet = flight(&[1], None);
    nothing_yet.handle_waiting(at(0), false);
    assert_eq!(step(&mut nothing_yet, 10), given_up);
    // who comes back in time finds it, and one that was never told is waited for
    let mut returned = flight(&[1], None);
    returned.handle_waiting(at(0), false);
    returned.handle_waiting(at(9), true);
    returned.handle_waiting(at(12), false);
    assert!(matches!(step(&mut returned, 21), Step::Ask(_)));
    assert_eq!(step(&mut returned, 22), given_up);
    assert!(matches!(step(&mut flight(&[1], None), 10_000), Step::Ask(_)));
    // all is here: it is checked, and kept
    let mut whole = flight(&[1], None);
    assert_eq!(whole.handle_claim(&unknown(4)), Judgement::Believed);
    whole.handle_waiting(at(0), false);
    whole.handle_unchecked(at(0), 4).unwrap();
    assert_eq!(step(&mut whole, 99), Step::Check);
}

#[test]
fn a_source_that_breaks_off_is_replaced_from_the_exact_byte() {
    let mut flight = flight(&[1, 2], None);
    assert_eq!(asks(&mut flight), (1, 0));
    assert_eq!(flight.handle_claim(&unknown(100)), Judgement::Believed);
    assert_eq!(flight.handle_unchecked(at(0), 40), Ok(()));
    flight.handle_failure();
    assert_eq!(asks(&mut flight), (2, 40));
    assert_eq!(
        flight.handle_claim(&unknown(99)),
        Judgement::Contradicted,
        "another length is another blob"
    );
    assert_eq!(flight.handle_unchecked(at(0), 60), Ok(()));
    assert_eq!(step(&mut flight, 0), Step::Check);
}

#[test]
fn a_wrong_group_is_replaced_from_its_first_byte_and_nothing_before_it_is_lost() {
    let (bytes, claim) = blob(4 * GROUP + 10);
    let mut flight = flight(&[1, 2], bound(&claim));
    let Step::Ask(Request { list: true, .. }) = step(&mut flight, 0) else {
        panic!("it wants the list")
    };
    assert_eq!(flight.handle_claim(&claim), Judgement::Believed);
    let mut wrong = bytes.clone();
    wrong[2 * GROUP + 5] ^= 1;
    let mut checked = Vec::new();
    assert_eq!(flight.handle_bytes(at(0), &wrong, &mut checked), Err(Lie::Group));
    assert_eq!(checked.iter().map(|c| c.bytes().len()).sum::<usize>(), 2 * GROUP);
    flight.handle_lie(Lie::Group);
    assert_eq!(asks(&mut flight), (2, 2 * GROUP as u64));
    // the second is itself still filling: its bytes are checked all the same
    assert_eq!(flight.handle_claim(&unknown(claim.size)), Judgement::Believed);
    assert_eq!(flight.handle_bytes(at(0), &bytes[2 * GROUP..], &mut checked), Ok(()));
    assert_eq!(checked.iter().flat_map(|c| c.bytes()).copied().collect::<Vec<_>>(), bytes);
    assert_eq!((step(&mut flight, 0), flight.handle_end()), (Step::Check, Ok(())));
    assert_eq!(flight.handle_bytes(at(0), &[0], &mut checked), Err(Lie::Length));
}

/// Clients were told that such bytes come, and then they broke off.
#[test]
fn a_copy_that_is_known_to_be_damaged_is_asked_for_when_nobody_else_gives_anything() {
    let (_, claim) = blob(2 * GROUP);
    let mut flight = flight(&[1, 2], bound(&claim));
    assert_eq!(asks(&mut flight), (1, 0));
    assert!(flight.handle_damaged());
    assert_eq!(asks(&mut flight), (2, 0), "the other may be sound");
    flight.handle_nothing();
    let peers = [1, 3].map(|node| Source::Peer { node, fill: false });
    assert_eq!(step(&mut flight, 0), Step::Look(Hurry::First));
    flight.handle_found(peers.to_vec());
    for node in [1, 3] {
        assert_eq!(asks(&mut flight), (node, 0));
        assert!(flight.handle_damaged(), "others are sought first");
    }
    assert_eq!(step(&mut flight, 0), Step::Look(Hurry::All));
    flight.handle_found(Vec::new());
    for node in [1, 3] {
        assert_eq!(asks(&mut flight), (node, 0), "each once");
        assert!(!flight.handle_damaged(), "nobody else has it");
        assert_eq!(flight.handle_claim(&claim), Judgement::Believed);
        flight.handle_lie(Lie::Group);
    }
    assert_eq!(step(&mut flight, 0), Step::GiveUp(GivenUp::Nobody));
}

#[test]
fn two_damaged_copies_make_a_good_one() {
    let (bytes, claim) = blob(4 * GROUP);
    let damaged_at = |group: usize| {
        let mut bytes = bytes.clone();
        bytes[group * GROUP] ^= 1;
        bytes
    };
    let copies = [damaged_at(1), damaged_at(3)];
    let mut flight = flight(&[0, 1], bound(&claim));
    let (mut checked, mut asked) = (Vec::new(), Vec::new());
    loop {
        match step(&mut flight, 0) {
            Step::Check => break,
            Step::Look(_) => flight.handle_found(peers(&[0, 1])),
            Step::Ask(Request { source: Source::Peer { node, .. }, offset, .. }) => {
                asked.push((node, offset as usize / GROUP));
                assert_eq!(flight.handle_claim(&claim), Judgement::Believed);
                let bytes = &copies[usize::from(node)][offset as usize..];
                if let Err(lie) = flight.handle_bytes(at(0), bytes, &mut checked) {
                    flight.handle_lie(lie);
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(asked, [(0, 0), (1, 1), (0, 3)]);
    assert_eq!(checked.iter().flat_map(|c| c.bytes()).copied().collect::<Vec<_>>(), bytes);
}

#[test]
fn half_a_group_of_a_source_that_broke_off_is_forgotten() {
    let (bytes, claim) = blob(2 * GROUP);
    let mut flight = flight(&[1, 2], bound(&claim));
    let mut checked = Vec::new();
    flight.handle_claim(&claim);
    assert_eq!(flight.handle_bytes(at(0), &bytes[..GROUP + 100], &mut checked), Ok(()));
    assert_eq!(flight.handle_end(), Err(Lie::Length));
    flight.handle_failure();
    assert_eq!(asks(&mut flight), (2, GROUP as u64));
    assert_eq!(flight.handle_claim(&claim), Judgement::Believed);
    assert_eq!(flight.handle_bytes(at(0), &bytes[GROUP..], &mut checked), Ok(()));
    assert_eq!(step(&mut flight, 0), Step::Check);
}

#[test]
fn what_the_ledger_knows_decides_who_lies() {
    let (_, claim) = blob(3 * GROUP);
    let (_, other) = blob(3 * GROUP + 1);
    let judge = |claim: &Claim| flight(&[1], bound(&blob(3 * GROUP).1)).handle_claim(claim);
    assert_eq!(judge(&claim), Judgement::Believed);
    assert_eq!(judge(&other), Judgement::Lied(Lie::Binding));
    assert_eq!(judge(&Claim { size: 5, ..claim.clone() }), Judgement::Lied(Lie::Length));
    assert_eq!(judge(&Claim { list: other.list, ..claim.clone() }), Judgement::Lied(Lie::Outboard));
    assert_eq!(judge(&Claim { list: None, ..claim }), Judgement::Lied(Lie::Outboard));
    assert_eq!(judge(&unknown(3 * GROUP as u64)), Judgement::Believed);
    assert_eq!(judge(&unknown(5)), Judgement::Contradicted, "its upstream may have another length");
}

#[test]
fn without_the_ledger_the_first_word_counts_until_the_digest_disproves_it() {
    let (bytes, claim) = blob(2 * GROUP);
    let (other_bytes, other) = blob(2 * GROUP - 1);
    let mut flight = flight(&[1, 2], None);
    let mut checked = Vec::new();
    assert_eq!(flight.handle_claim(&other), Judgement::Believed);
    assert_eq!(flight.handle_bytes(at(0), &other_bytes[..GROUP], &mut checked), Ok(()));
    flight.handle_failure();
    assert_eq!(flight.handle_claim(&claim), Judgement::Contradicted);
    flight.handle_failure();
    assert_eq!(flight.handle_claim(&other), Judgement::Believed);
    assert_eq!(flight.handle_bytes(at(0), &other_bytes[GROUP..], &mut checked), Ok(()));
    assert_eq!(step(&mut flight, 0), Step::Check);
    assert_eq!(flight.handle_wrong_digest(), Some((peer(1), Lie::Binding)));
    assert_eq!(asks(&mut flight), (2, 0));
    assert_eq!(flight.handle_claim(&claim), Judgement::Believed);
    assert_eq!(flight.handle_bytes(at(0), &bytes, &mut checked), Ok(()));
    assert_eq!(step(&mut flight, 0), Step::Check);
    assert_eq!(flight.handle_wrong_digest(), None);
    assert_eq!(step(&mut flight, 0), Step::GiveUp(GivenUp::WrongBytes), "it begins again once");
}

#[test]
fn the_node_that_a_source_names_is_asked_first_and_then_that_source_which_sends_the_blob_itself() {
    let mut flight = flight(&[1, 2], None);
    flight.handle_failure();
    assert_eq!(asks(&mut flight), (2, 0));
    assert!(flight.handle_elsewhere(3, true));
    let direct = |flight: &mut Flight<u8>| match step(flight, 0) {
        Step::Ask(Request { source: Source::Peer { node, .. }, direct, .. }) => (node, direct),
        other => panic!("{other:?}"),
    };
    assert_eq!(direct(&mut flight), (3, true), "it must not name another");
    flight.handle_failure();
    assert_eq!(direct(&mut flight), (2, true));
    assert!(!flight.handle_elsewhere(4, true), "it names another a second time");
    assert_eq!(direct(&mut flight), (1, false));
    assert!(!flight.handle_elsewhere(5, false));
    assert_eq!(direct(&mut flight), (1, true), "whom it names cannot be asked");
}

#[test]
fn a_liar_is_not_asked_again_when_another_names_it_however_it_was_asked() {
    for fill in [false, true] {
        let first = vec![Source::Peer { node: 4, fill }, peer(2)];
        let mut flight = Flight::new(at(0), First::Named(first), None, PATIENCE);
        assert_eq!(asks(&mut flight), (4, 0));
        flight.handle_lie(Lie::Outboard);
        assert_eq!(asks(&mut flight), (2, 0));
        assert!(!flight.handle_elsewhere(4, true));
        assert_eq!(asks(&mut flight), (2, 0));
        flight.handle_failure();
        flight.handle_failure();
        looks(&mut flight, Hurry::First, &[4, 3]);
        assert_eq!(asks(&mut flight), (3, 0), "nor when it says that it holds the blob");
    }
}

#[test]
fn after_wrong_unchecked_bytes_whoever_can_be_held_to_a_list_is_asked_again() {
    let (bytes, claim) = blob(3 * GROUP);
    let mut flight = flight(&[1, 2], bound(&claim));
    assert_eq!(flight.handle_claim(&unknown(claim.size)), Judgement::Believed);
    assert_eq!(flight.handle_unchecked(at(0), 100), Ok(()));
    flight.handle_failure();
    assert_eq!(flight.handle_claim(&claim), Judgement::Believed);
    assert_eq!(flight.handle_unchecked(at(0), claim.size - 100), Ok(()));
    assert_eq!(step(&mut flight, 0), Step::Check);
    assert_eq!(flight.handle_wrong_digest(), None, "either may have lied");
    assert_eq!(asks(&mut flight), (2, 0));
    assert_eq!(flight.handle_claim(&claim), Judgement::Believed);
    assert_eq!(flight.handle_bytes(at(0), &bytes, &mut Vec::new()), Ok(()));
    assert_eq!((step(&mut flight, 0), flight.handle_wrong_digest()), (Step::Check, None));
    assert_eq!(step(&mut flight, 0), Step::GiveUp(GivenUp::WrongBytes));
}

#[test]
fn who_breaks_off_and_gives_the_rest_of_another_try_has_not_certainly_lied() {
    let mut broken = flight(&[1], None);
    for part in [40, 60] {
        assert_eq!(broken.handle_claim(&unknown(100)), Judgement::Believed);
        assert_eq!(broken.handle_unchecked(at(0), part), Ok(()));
        if part == 40 {
            broken.handle_failure(); // its upstream lied, and it begins anew
        }
    }
    assert_eq!(step(&mut broken, 0), Step::Check);
    assert_eq!(broken.handle_wrong_digest(), None);
    let mut whole = flight(&[1], None);
    assert_eq!(whole.handle_claim(&unknown(100)), Judgement::Believed);
    assert_eq!(whole.handle_unchecked(at(0), 100), Ok(()));
    assert_eq!(
        whole.handle_wrong_digest(),
        Some((peer(1), Lie::Group)),
        "it gave all of it at once"
    );
}

#[test]
fn a_word_that_no_byte_follows_binds_nobody() {
    let (bytes, claim) = blob(2 * GROUP);
    let mut flight = flight(&[1, 2], None);
    for nothing in [blob(9).1, unknown(5), unknown(7)] {
        assert_eq!(flight.handle_claim(&nothing), Judgement::Believed);
        flight.handle_failure();
    }
    assert!(matches!(step(&mut flight, 0), Step::Ask(Request { list: true, .. })));
    assert_eq!(flight.handle_claim(&claim), Judgement::Believed);
    assert_eq!(flight.handle_bytes(at(0), &bytes, &mut Vec::new()), Ok(()));
    assert_eq!(step(&mut flight, 0), Step::Check);
}

#[test]
fn sources_that_give_nothing_are_left_after_two_rounds_and_given_up_after_two_looks() {
    let mut flight = flight(&[1, 2], None);
    for node in [1, 2, 1, 2] {
        assert_eq!(asks(&mut flight), (node, 0));
        flight.handle_failure();
    }
    looks(&mut flight, Hurry::First, &[3]);
    assert_eq!(asks(&mut flight), (3, 0));
    flight.handle_nothing();
    looks(&mut flight, Hurry::All, &[2, 3]);
    for node in [2, 3, 2, 3] {
        assert_eq!(asks(&mut flight), (node, 0));
        flight.handle_failure();
    }
    assert_eq!(step(&mut flight, 0), Step::GiveUp(GivenUp::Nobody));
    assert_eq!(step(&mut flight, 0), Step::GiveUp(GivenUp::Nobody), "and stays so");
}

#[test]
fn a_look_that_finds_nobody_has_waited_for_all() {
    let mut flight = flight(&[], None);
    looks(&mut flight, Hurry::First, &[]);
    assert_eq!(step(&mut flight, 0), Step::GiveUp(GivenUp::Nobody));
}

#[test]
fn with_nobody_to_begin_with_the_first_look_counts_as_one() {
    let mut flight = flight(&[], None);
    looks_twice(&mut flight, &[1]);
    flight.handle_nothing();
    assert_eq!(step(&mut flight, 0), Step::GiveUp(GivenUp::Nobody));
}

#[test]
fn it_looks_again_whenever_it_has_got_any_further() {
    let mut flight = flight(&[], None);
    for offset in [0, 40, 80] {
        looks(&mut flight, Hurry::First, &[1]);
        assert_eq!(asks(&mut flight), (1, offset));
        assert_eq!(flight.handle_claim(&unknown(100)), Judgement::Believed);
        if offset < 80 {
            assert_eq!(flight.handle_unchecked(at(0), 40), Ok(()));
        }
        flight.handle_nothing();
    }
    looks(&mut flight, Hurry::All, &[2]);
    assert_eq!(asks(&mut flight), (2, 80));
    flight.handle_nothing();
    assert_eq!(step(&mut flight, 0), Step::GiveUp(GivenUp::Nobody));
}

#[test]
fn who_only_is_presumed_to_hold_the_blob_may_not_take_long_until_one_has_answered() {
    let presumed = |flight: &mut Flight<u8>| match step(flight, 0) {
        Step::Ask(Request { presumed, .. }) => presumed,
        other => panic!("{other:?}"),
    };
    let new = || Flight::new(at(0), First::Presumed(peers(&[1, 2])), None, PATIENCE);
    let mut flight = new();
    assert!(presumed(&mut flight));
    flight.handle_silence();
    assert!(presumed(&mut flight), "nor the next");
    flight.handle_nothing();
    looks(&mut flight, Hurry::First, &[1]);
    assert!(!presumed(&mut flight), "it says that it holds the blob");
    let mut flight = new();
    assert_eq!(flight.handle_claim(&unknown(100)), Judgement::Believed);
    flight.handle_failure();
    assert!(!presumed(&mut flight), "the blob has begun");
}

#[test]
fn who_is_silent_is_not_asked_again_and_the_others_keep_their_two_tries() {
    let mut flight = flight(&[1, 2], None);
    flight.handle_failure();
    assert_eq!(asks(&mut flight), (2, 0));
    assert!(!flight.handle_silence(), "it had not begun");
    assert_eq!(asks(&mut flight), (1, 0));
    flight.handle_failure();
    looks(&mut flight, Hurry::First, &[2]);
    assert_eq!(asks(&mut flight), (2, 0), "unless it says that it holds the blob");
    flight.handle_silence();
    looks(&mut flight, Hurry::All, &[]);
    assert_eq!(step(&mut flight, 0), Step::GiveUp(GivenUp::Nobody));
    flight.handle_silence();
    flight.handle_nothing();
    flight.handle_failure();
    assert_eq!(step(&mut flight, 0), Step::GiveUp(GivenUp::Nobody), "nobody is left");
}

/// A flight that has 40 of 100 bytes at second 0, and whose only two sources have fallen silent.
fn stalled() -> Flight<u8> {
    let mut flight = flight(&[1, 2], None);
    assert_eq!(flight.handle_claim(&unknown(100)), Judgement::Believed);
    assert_eq!(flight.handle_unchecked(at(0), 40), Ok(()));
    assert!(flight.handle_silence());
    assert_eq!(asks(&mut flight), (2, 40));
    assert!(flight.handle_silence(), "clients wait for it, too");
    looks(&mut flight, Hurry::First, &[]);
    flight
}

#[test]
fn a_source_that_fell_silent_may_go_on_if_nobody_else_gives_anything() {
    let mut flight = stalled();
    assert_eq!(step(&mut flight, 59), Step::Wait(AGAIN));
    assert_eq!(asks(&mut flight), (1, 40));
    flight.handle_silence();
    assert_eq!(asks(&mut flight), (2, 40));
    assert_eq!(flight.handle_claim(&unknown(100)), Judgement::Believed);
    assert_eq!(flight.handle_unchecked(at(59), 20), Ok(()));
    flight.handle_silence();
    // it has got further: others are looked for before those who fell silent since
    looks(&mut flight, Hurry::First, &[]);
    assert_eq!(step(&mut flight, 118), Step::Wait(AGAIN), "patience begins with the last byte");
    // the other fell silent before that byte, and may be back: the one that gave it may be gone
    assert_eq!(asks(&mut flight), (1, 60));
    flight.handle_silence();
    assert_eq!(asks(&mut flight), (2, 60));
    assert_eq!(flight.handle_claim(&unknown(100)), Judgement::Believed);
    assert_eq!(flight.handle_unchecked(at(118), 40), Ok(()));
    assert_eq!(step(&mut flight, 118), Step::Check);
}

#[test]
fn sources_that_fell_silent_are_given_up_when_a_client_would_wait_no_longer() {
    let mut flight = stalled();
    assert_eq!(step(&mut flight, 60), Step::GiveUp(GivenUp::Nobody));
    assert_eq!(step(&mut flight, 60), Step::GiveUp(GivenUp::Nobody), "and stays so");
}

#[test]
fn sources_that_fell_silent_and_are_down_are_not_waited_for() {
    let mut flight = stalled();
    assert_eq!(flight.step(at(1), |node| node == 1), Step::Wait(AGAIN));
    assert_eq!(asks(&mut flight), (2, 40));
    flight.handle_silence();
    assert_eq!(flight.step(at(1), |_| true), Step::GiveUp(GivenUp::Nobody));
}

#[test]
fn what_the_upstream_does_not_have_and_nobody_gives_is_missing() {
    let upstream = Source::Upstream("hub/library/app".parse().unwrap());
    let mut flight = Flight::new(at(0), First::Named(vec![upstream.clone()]), None, PATIENCE);
    flight.handle_missing();
    assert!(
        matches!(step(&mut flight, 0), Step::Ask(Request { direct: false, .. })),
        "it may err once"
    );
    flight.handle_missing();
    looks(&mut flight, Hurry::First, &[1]);
    assert_eq!(flight.handle_claim(&unknown(100)), Judgement::Believed);
    let mut given = flight.clone();
    assert_eq!(given.handle_unchecked(at(0), 100), Ok(()));
    assert_eq!(step(&mut given, 0), Step::Check, "somebody in the mesh has it");
    flight.handle_nothing();
    assert_eq!(step(&mut flight, 0), Step::Look(Hurry::All));
    flight.handle_found(vec![upstream]);
    flight.handle_silence();
    // an upstream is no node that stands still
    assert_eq!(step(&mut flight, 1), Step::GiveUp(GivenUp::MissingUpstream));
}

#[test]
fn a_flight_that_begins_again_looks_for_others_and_may_end_with_the_wrong_bytes_only() {
    let mut flight = flight(&[], None);
    looks(&mut flight, Hurry::First, &[1]);
    assert_eq!(flight.handle_claim(&unknown(100)), Judgement::Believed);
    assert_eq!(flight.handle_unchecked(at(0), 100), Ok(()));
    assert_eq!(step(&mut flight, 0), Step::Check);
    assert_eq!(flight.handle_wrong_digest(), Some((peer(1), Lie::Group)));
    assert_eq!(flight.offset(), 0);
    looks(&mut flight, Hurry::First, &[1, 2]);
    assert_eq!(asks(&mut flight), (2, 0), "not the one that gave the wrong bytes");
    assert!(!flight.handle_silence(), "nobody waits for it any more");
    looks(&mut flight, Hurry::All, &[1]);
    assert_eq!(step(&mut flight, 0), Step::GiveUp(GivenUp::WrongBytes));
}

#[test]
fn wrong_bytes_for_which_nobody_alone_has_vouched_end_the_flight() {
    let (bytes, claim) = blob(2 * GROUP);
    let mut flight = flight(&[1, 2], bound(&claim));
    assert_eq!(flight.handle_claim(&claim), Judgement::Believed);
    assert_eq!(flight.handle_bytes(at(0), &bytes, &mut Vec::new()), Ok(()));
    assert_eq!(flight.handle_wrong_digest(), None, "the ledger has another blob under this digest");
    assert_eq!(step(&mut flight, 0), Step::GiveUp(GivenUp::WrongBytes));
}

#[test]
fn more_bytes_than_the_blob_has_are_refused() {
    let mut flight = flight(&[1], None);
    flight.handle_claim(&unknown(10));
    assert_eq!(flight.handle_unchecked(at(0), 11), Err(Lie::Length));
}

proptest! {
    #[test]
    fn every_flight_ends(
        breaks in proptest::collection::vec((0u64..30, any::<bool>()), 0..200),
        sources in 0u8..5,
    ) {
        let nodes: Vec<u8> = (0..sources).collect();
        let mut flight = flight(&nodes, None);
        let mut given = breaks.into_iter();
        let mut now = at(0);
        for _ in 0..10_000 {
            match flight.step(now, |_| false) {
                Step::Check | Step::GiveUp(_) => return Ok(()),
                Step::Look(_) => flight.handle_found(peers(&nodes)),
                Step::Wait(pause) => now = now + pause,
                Step::Ask(Request { offset, .. }) => {
                    prop_assert_eq!(flight.handle_claim(&unknown(1000)), Judgement::Believed);
                    let (n, silent) = given.next().unwrap_or((0, true));
                    let n = n.min(1000 - offset);
                    prop_assert_eq!(flight.handle_unchecked(now, n), Ok(()));
                    if offset + n < 1000 {
                        if silent { flight.handle_silence(); } else { flight.handle_failure(); }
                    }
                }
            }
        }
        prop_assert!(false, "it went on for ever");
    }
}
