//! How far a replica is that drains, and when it can be switched off.

use std::collections::BTreeSet;

use super::placement::Candidate;
use super::removal::Consequences;
use super::shortage::{Unable, told};
use crate::words::names::NodeId;

/// Those of `candidates` that may be given something new: the ones that do not drain. If all drain,
/// all of them.
pub fn taking(mut candidates: Vec<Candidate>, draining: &BTreeSet<NodeId>) -> Vec<Candidate> {
    if candidates.iter().any(|candidate| !draining.contains(&candidate.id)) {
        candidates.retain(|candidate| !draining.contains(&candidate.id));
    }
    candidates
}

/// What a replica is still needed for.
pub struct Needed<'a> {
    /// The number of projects whose primary it is.
    pub primary_of: usize,
    /// Whether it leads the ledger.
    pub leads: bool,
    /// How many of the voters would be up without it, and of how many: it stays one of them.
    pub voters: (usize, usize),
    /// The number of other replicas that are up, do not drain, and have no vote yet.
    pub spare: usize,
    /// What the mesh would keep without it and the others that drain. Regions that nobody else is in
    /// count for no durability.
    pub without: &'a Consequences,
    /// The names of the other replicas that are up and say that they should be given no blobs, and why.
    pub troubled: &'a [(String, Unable)],
    /// That the ledger's majority is lost, in a sentence, if it is.
    pub no_majority: Option<String>,
}

impl Needed<'_> {
    /// Why waiting does not help, and what does, in a sentence; `None` if it may help.
    pub fn stuck(&self) -> Option<String> {
        let (up, all) = self.voters;
        if let Some(lost) = &self.no_majority {
            return Some(lost.clone());
        }
        if self.without.last_replica {
            return Some(
                "it is the only replica: let another one join (`atoll invite`)".to_owned(),
            );
        }
        (up * 2 <= all && self.spare == 0).then(|| {
            format!(
                "without it {up} of {all} voters would be up, and no other replica can take its vote: start the replicas that are down, or let another one join (`atoll invite`)"
            )
        })
    }

    /// What must happen until it can be switched off, in sentences; empty if it can be.
    pub fn waits_for(&self) -> Vec<String> {
        let mut waits = Vec::new();
        if self.primary_of > 0 {
            waits.push(format!("{} project(s) get another primary", self.primary_of));
        }
        if self.leads {
            waits.push("another node leads the ledger".to_owned());
        }
        let blobs = |of: &dyn Fn(&Consequences) -> usize| of(self.without);
        let lost = blobs(&|without| without.lost.values().sum());
        let short = blobs(&|without| without.short.values().sum());
        if lost + short > 0 {
            let mut copies = format!("copies of {} blob(s) are made elsewhere", lost + short);
            if !self.troubled.is_empty() {
                copies += &format!(" ({})", told(self.troubled));
            }
            waits.push(copies);
        }
        if !self.without.silent.is_empty() && lost + short > 0 {
            waits.push(format!("{} replica(s) say what they keep", self.without.silent.len()));
        }
        let (up, all) = self.voters;
        if up * 2 <= all {
            waits.push(format!(
                "more voters are up: without it {up} of {all} would be, and nothing could be written"
            ));
        }
        if self.without.last_replica {
            waits.push("the mesh has another replica".to_owned());
        }
        waits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blobs::holding::Trouble;
    use crate::ledger::records::Role;

    #[test]
    fn nothing_new_goes_to_who_drains_unless_all_do() {
        let candidate = |id: u64| Candidate {
            id: NodeId(id),
            region: "r".parse().unwrap(),
            role: Role::Replica,
        };
        let all = || vec![candidate(1), candidate(2)];
        let of = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
        assert_eq!(taking(all(), &of(&[])), all());
        assert_eq!(taking(all(), &of(&[1])), [candidate(2)]);
        assert_eq!(taking(all(), &of(&[1, 2])), all());
    }

    #[test]
    fn it_can_be_switched_off_when_nobody_needs_it() {
        let none = Consequences::default();
        let needed = |primary_of, leads, without| {
            let voters = (2, 3);
            Needed {
                primary_of,
                leads,
                voters,
                spare: 0,
                without,
                troubled: &[],
                no_majority: None,
            }
            .waits_for()
        };
        assert_eq!(needed(0, false, &none), [""; 0]);
        assert_eq!(needed(2, true, &none).len(), 2);
        let short = Consequences {
            lost: [("demo".parse().unwrap(), 3)].into(),
            short: [("demo".parse().unwrap(), 4)].into(),
            ..Consequences::default()
        };
        assert_eq!(needed(0, false, &short), ["copies of 7 blob(s) are made elsewhere"]);
        let gone =
            Consequences { gone: [("demo".parse().unwrap(), 9)].into(), ..Consequences::default() };
        assert_eq!(needed(0, false, &gone), [""; 0], "it waited for ever");
        let full = [("two".to_owned(), Unable::Trouble(Trouble::Full { free: 0 }))];
        let mut full = Needed {
            primary_of: 0,
            leads: false,
            voters: (2, 3),
            spare: 0,
            without: &short,
            troubled: &full,
            no_majority: None,
        };
        let waits = full.waits_for();
        assert!(waits[0].contains("two is in trouble: the disk"), "{waits:?}");
        assert_eq!(full.stuck(), None, "somebody may make room");
        full.no_majority = Some("the mesh has no majority".to_owned());
        assert_eq!(full.stuck().as_deref(), Some("the mesh has no majority"));
        let voters = |up, all| {
            let voters = (up, all);
            let (troubled, no_majority) = (&[], None);
            let without = &none;
            Needed { primary_of: 0, leads: false, voters, spare: 0, without, troubled, no_majority }
                .waits_for()
        };
        let stuck = |voters, spare, without| {
            let (troubled, no_majority) = (&[], None);
            Needed { primary_of: 0, leads: false, voters, spare, without, troubled, no_majority }
                .stuck()
        };
        assert!(stuck((1, 2), 0, &none).is_some_and(|why| why.contains("1 of 2")));
        assert_eq!(stuck((1, 2), 1, &none), None, "that one gets the vote");
        assert_eq!(stuck((2, 3), 0, &none), None);
        assert!(voters(1, 2)[0].contains("1 of 2"), "of two voters none can be spared");
        assert_eq!(voters(3, 5), [""; 0]);
        let last = Consequences { last_replica: true, ..Consequences::default() };
        assert_eq!(needed(0, false, &last), ["the mesh has another replica"]);
        assert!(stuck((2, 3), 5, &last).is_some());
    }
}
