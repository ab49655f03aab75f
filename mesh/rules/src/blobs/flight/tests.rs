use super::*;
use crate::blobs::groups::{GROUP, GroupHasher};
use proptest::prelude::*;

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
fn a_source_that_breaks_off_is_replaced_from_the_exact_byte() {
    let mut flight = Flight::new(vec![1, 2], None);
    assert_eq!(flight.step(), Step::Ask { source: 1, offset: 0 });
    assert_eq!(flight.handle_claim(&unknown(100)), Judgement::Believed);
    assert_eq!(flight.handle_unchecked(40), Ok(()));
    flight.handle_failure();
    assert_eq!(flight.step(), Step::Ask { source: 2, offset: 40 });
    assert_eq!(flight.handle_claim(&unknown(99)), Judgement::Contradicted, "another length is another blob");
    assert_eq!(flight.handle_unchecked(60), Ok(()));
    assert_eq!(flight.step(), Step::Check);
}

#[test]
fn a_wrong_group_is_replaced_from_its_first_byte_and_nothing_before_it_is_lost() {
    let (bytes, claim) = blob(4 * GROUP + 10);
    let mut flight = Flight::new(vec![1, 2], bound(&claim));
    assert!(flight.wants_list());
    assert_eq!(flight.handle_claim(&claim), Judgement::Believed);
    let mut wrong = bytes.clone();
    wrong[2 * GROUP + 5] ^= 1;
    let mut checked = Vec::new();
    assert_eq!(flight.handle_bytes(&wrong, &mut checked), Err(Lie::Group));
    assert_eq!(checked.iter().map(|c| c.bytes().len()).sum::<usize>(), 2 * GROUP);
    flight.handle_lie(Lie::Group);
    assert_eq!(flight.shunned(), [1]);
    assert!(!flight.forgive(), "not before somebody else has given that group");
    assert_eq!(flight.step(), Step::Ask { source: 2, offset: 2 * GROUP as u64 });
    // the second is itself still filling: its bytes are checked all the same
    assert_eq!(flight.handle_claim(&unknown(claim.size)), Judgement::Believed);
    assert_eq!(flight.handle_bytes(&bytes[2 * GROUP..], &mut checked), Ok(()));
    assert_eq!(checked.iter().flat_map(|c| c.bytes()).copied().collect::<Vec<_>>(), bytes);
    assert_eq!((flight.step(), flight.handle_end()), (Step::Check, Ok(())));
    assert_eq!(flight.handle_bytes(&[0], &mut checked), Err(Lie::Length));
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
    let mut flight = Flight::new(vec![0, 1], bound(&claim));
    let (mut checked, mut asked) = (Vec::new(), Vec::new());
    loop {
        match flight.step() {
            Step::Check => break,
            Step::GiveUp => assert!(flight.forgive()),
            Step::Ask { source, offset } => {
                asked.push((source, offset as usize / GROUP));
                assert_eq!(flight.handle_claim(&claim), Judgement::Believed);
                if let Err(lie) = flight.handle_bytes(&copies[source][offset as usize..], &mut checked) {
                    flight.handle_lie(lie);
                }
            }
        }
    }
    assert_eq!(asked, [(0, 0), (1, 1), (0, 3)]);
    assert_eq!(checked.iter().flat_map(|c| c.bytes()).copied().collect::<Vec<_>>(), bytes);
}

#[test]
fn half_a_group_of_a_source_that_broke_off_is_forgotten() {
    let (bytes, claim) = blob(2 * GROUP);
    let mut flight = Flight::new(vec![1, 2], bound(&claim));
    let mut checked = Vec::new();
    flight.handle_claim(&claim);
    assert_eq!(flight.handle_bytes(&bytes[..GROUP + 100], &mut checked), Ok(()));
    assert_eq!(flight.handle_end(), Err(Lie::Length));
    flight.handle_failure();
    assert_eq!(flight.step(), Step::Ask { source: 2, offset: GROUP as u64 });
    assert_eq!(flight.handle_claim(&claim), Judgement::Believed);
    assert_eq!(flight.handle_bytes(&bytes[GROUP..], &mut checked), Ok(()));
    assert_eq!(flight.step(), Step::Check);
}

#[test]
fn what_the_ledger_knows_decides_who_lies() {
    let (_, claim) = blob(3 * GROUP);
    let (_, other) = blob(3 * GROUP + 1);
    let judge = |claim: &Claim| Flight::new(vec![1], bound(&blob(3 * GROUP).1)).handle_claim(claim);
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
    let mut flight = Flight::new(vec![1, 2], None);
    let mut checked = Vec::new();
    assert_eq!(flight.handle_claim(&other), Judgement::Believed);
    assert_eq!(flight.handle_bytes(&other_bytes[..GROUP], &mut checked), Ok(()));
    flight.handle_failure();
    assert_eq!(flight.handle_claim(&claim), Judgement::Contradicted);
    flight.handle_failure();
    assert_eq!(flight.handle_claim(&other), Judgement::Believed);
    assert_eq!(flight.handle_bytes(&other_bytes[GROUP..], &mut checked), Ok(()));
    assert_eq!(flight.step(), Step::Check);
    assert_eq!(flight.restart(), Some(Some(1)));
    assert_eq!(flight.step(), Step::Ask { source: 2, offset: 0 });
    assert_eq!(flight.handle_claim(&claim), Judgement::Believed);
    assert_eq!(flight.handle_bytes(&bytes, &mut checked), Ok(()));
    assert_eq!(flight.step(), Step::Check);
    assert_eq!(flight.restart(), None, "it begins again once");
}

#[test]
fn whoever_is_named_is_asked_first_and_then_the_one_who_named_it() {
    let mut flight = Flight::new(vec![1, 2], None);
    flight.handle_failure();
    assert!(flight.handle_elsewhere(3));
    assert_eq!(flight.step(), Step::Ask { source: 3, offset: 0 });
    flight.handle_failure();
    assert_eq!(flight.step(), Step::Ask { source: 2, offset: 0 });
    assert!(flight.handle_elsewhere(4));
    flight.handle_lie(Lie::Outboard);
    assert_eq!(flight.step(), Step::Ask { source: 2, offset: 0 });
    assert!(!flight.handle_elsewhere(4), "it has lied");
}

#[test]
fn after_wrong_unchecked_bytes_whoever_can_be_held_to_a_list_is_asked_again() {
    let (bytes, claim) = blob(3 * GROUP);
    let mut flight = Flight::new(vec![1, 2], bound(&claim));
    assert_eq!(flight.handle_claim(&unknown(claim.size)), Judgement::Believed);
    assert_eq!(flight.handle_unchecked(100), Ok(()));
    flight.handle_failure();
    assert_eq!(flight.handle_claim(&claim), Judgement::Believed);
    assert_eq!(flight.handle_unchecked(claim.size - 100), Ok(()));
    assert_eq!(flight.step(), Step::Check);
    assert_eq!(flight.restart(), Some(None), "either may have lied");
    assert_eq!(flight.shunned(), [1]);
    assert_eq!(flight.step(), Step::Ask { source: 2, offset: 0 });
    assert_eq!(flight.handle_claim(&claim), Judgement::Believed);
    assert_eq!(flight.handle_bytes(&bytes, &mut Vec::new()), Ok(()));
    assert_eq!((flight.step(), flight.restart()), (Step::Check, None));
}

#[test]
fn who_breaks_off_and_gives_the_rest_of_another_try_has_not_certainly_lied() {
    let mut flight = Flight::new(vec![1], None);
    for part in [40, 60] {
        assert_eq!(flight.handle_claim(&unknown(100)), Judgement::Believed);
        assert_eq!(flight.handle_unchecked(part), Ok(()));
        if part == 40 {
            flight.handle_failure(); // its upstream lied, and it begins anew
        }
    }
    assert_eq!(flight.step(), Step::Check);
    assert_eq!(flight.restart(), Some(None));
    let mut flight = Flight::new(vec![1], None);
    assert_eq!(flight.handle_claim(&unknown(100)), Judgement::Believed);
    assert_eq!(flight.handle_unchecked(100), Ok(()));
    assert_eq!(flight.restart(), Some(Some(1)), "it gave all of it in one go");
}

#[test]
fn a_word_that_no_byte_follows_binds_nobody() {
    let (bytes, claim) = blob(2 * GROUP);
    let mut flight = Flight::new(vec![1, 2], None);
    for nothing in [blob(9).1, unknown(5), unknown(7)] {
        assert_eq!(flight.handle_claim(&nothing), Judgement::Believed);
        flight.handle_failure();
    }
    assert!(flight.wants_list());
    assert_eq!(flight.handle_claim(&claim), Judgement::Believed);
    assert_eq!(flight.handle_bytes(&bytes, &mut Vec::new()), Ok(()));
    assert_eq!(flight.step(), Step::Check);
}

#[test]
fn sources_that_give_nothing_are_given_up_after_two_rounds() {
    let mut flight = Flight::new(vec![1, 2], None);
    for _ in 0..4 {
        assert!(matches!(flight.step(), Step::Ask { .. }));
        flight.handle_failure();
    }
    assert_eq!(flight.step(), Step::GiveUp);
    assert_eq!(Flight::<u8>::new(vec![], None).step(), Step::GiveUp);
    flight.turn_to(vec![3]);
    assert_eq!(flight.step(), Step::Ask { source: 3, offset: 0 });
    flight.handle_lie(Lie::Length);
    assert_eq!(flight.step(), Step::GiveUp);
}

#[test]
fn who_is_silent_is_not_asked_again_and_the_others_keep_their_two_tries() {
    let mut flight = Flight::new(vec!["a", "b"], None);
    let asked = |flight: &Flight<&'static str>| match flight.step() {
        Step::Ask { source, .. } => source,
        other => panic!("{other:?}"),
    };
    flight.handle_failure();
    assert_eq!(asked(&flight), "b");
    flight.handle_silence();
    assert_eq!(asked(&flight), "a");
    flight.handle_failure();
    assert_eq!(flight.step(), Step::GiveUp);
    flight.turn_to(vec!["b"]);
    assert_eq!(asked(&flight), "b", "unless it is turned to again");
    flight.handle_silence();
    assert_eq!(flight.step(), Step::GiveUp);
    flight.handle_silence();
    assert_eq!(flight.step(), Step::GiveUp, "nobody is left");
}

#[test]
fn more_bytes_than_the_blob_has_are_refused() {
    let mut flight = Flight::new(vec![1], None);
    flight.handle_claim(&unknown(10));
    assert_eq!(flight.handle_unchecked(11), Err(Lie::Length));
}

proptest! {
    #[test]
    fn every_flight_ends(breaks in proptest::collection::vec(0u64..30, 0..200), sources in 1u64..5) {
        let mut flight = Flight::new((0..sources).collect(), None);
        let mut given = breaks.into_iter();
        for _ in 0..1000 {
            match flight.step() {
                Step::Check | Step::GiveUp => return Ok(()),
                Step::Ask { offset, .. } => {
                    prop_assert_eq!(flight.handle_claim(&unknown(1000)), Judgement::Believed);
                    let n = given.next().unwrap_or(0).min(1000 - offset);
                    prop_assert_eq!(flight.handle_unchecked(n), Ok(()));
                    if offset + n < 1000 { flight.handle_failure(); }
                }
            }
        }
        prop_assert!(false, "it went on for ever");
    }
}
