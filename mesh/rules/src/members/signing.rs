//! Which replicas can sign for a project: those that have the key-encryption key of its key.

use std::collections::BTreeMap;

use super::placement::Candidate;
use crate::ledger::sign_log::KekId;
use crate::words::names::{NodeId, ProjectId};

/// Who opens which keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Openers {
    /// The projects that sign, and under which key-encryption key; `None` if that is not known.
    pub sealed: BTreeMap<ProjectId, Option<KekId>>,
    /// The key-encryption keys of each replica.
    pub opens: BTreeMap<NodeId, Vec<KekId>>,
}

impl Openers {
    /// Whether a node as the primary could sign what the project wants signed. Every node could for a
    /// project that signs nothing.
    pub fn can(&self, node: NodeId, project: ProjectId) -> bool {
        let Some(under) = self.sealed.get(&project) else { return true };
        let Some(has) = self.opens.get(&node) else { return false };
        under.is_none_or(|under| has.contains(&under)) && !has.is_empty()
    }

    /// Those of `candidates` that could. If none could, all: a project that signs nothing for a while
    /// is better than one without a primary.
    pub fn preferred(&self, project: ProjectId, candidates: &[Candidate]) -> Vec<Candidate> {
        let able = candidates.iter().filter(|candidate| self.can(candidate.id, project)).cloned();
        let able: Vec<Candidate> = able.collect();
        if able.is_empty() { candidates.to_vec() } else { able }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::records::Role;

    #[test]
    fn who_has_the_key_is_preferred_and_nobody_is_left_out_if_nobody_has_it() {
        let candidate = |id: u64| Candidate {
            id: NodeId(id),
            region: "r".parse().unwrap(),
            role: Role::Replica,
        };
        let all = [candidate(1), candidate(2), candidate(3)];
        let (old, new) = (KekId([1; 8]), KekId([2; 8]));
        let openers = Openers {
            sealed: [(ProjectId(1), Some(new)), (ProjectId(2), None), (ProjectId(3), Some(old))]
                .into(),
            opens: [(NodeId(1), vec![new]), (NodeId(2), vec![new, old])].into(),
        };
        let ids = |project: u64| {
            let preferred = openers.preferred(ProjectId(project), &all);
            preferred.iter().map(|one| one.id.0).collect::<Vec<_>>()
        };
        assert_eq!(ids(1), [1, 2]);
        assert_eq!(ids(2), [1, 2], "of before keys had names");
        assert_eq!(ids(3), [2]);
        assert_eq!(ids(4), [1, 2, 3], "it signs nothing");
        let nobody = Openers { opens: BTreeMap::new(), ..openers.clone() };
        assert_eq!(nobody.preferred(ProjectId(1), &all).len(), 3);
        assert!(!nobody.can(NodeId(1), ProjectId(1)));
    }
}
