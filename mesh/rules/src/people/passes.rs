//! Passes of scanners: what another scanner may read, while it scans one image.
//!
//! A pass names one image of one repository and one scan of it. It opens the manifest of that image and
//! the blobs that the manifest lists, also where their project refuses them to everybody else (Harbor's
//! `scanner-pull`), and nothing besides. It is good for as long as the ledger says that the scan runs.

use serde::{Deserialize, Serialize};

use super::access::{Action, Identity, RobotIdentity, Scope};
use crate::ledger::people::{Grant, Space};
use crate::ledger::records::{Look, RecordError};
use crate::ledger::scanning::LookForScans;
use crate::words::digest::Digest;
use crate::words::names::{ProjectId, RepositoryName, RobotId};

/// The name with which a scanner shows its pass as a password. Nobody has it: names of users have no
/// `$`, and those of robots begin with a prefix of their own.
pub const SCANNER: &str = "$scanner";

/// A pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanPass {
    /// The project: one that is made anew under the same name is another.
    pub project: ProjectId,
    /// The repository.
    pub repository: RepositoryName,
    /// The image.
    pub digest: Digest,
    /// The number of the scan.
    pub number: u64,
}

impl ScanPass {
    /// Who shows it, now; `None` if the scan does not run, or not any more.
    pub fn identity<R: Look + ?Sized>(&self, records: &R) -> Result<Option<Identity>, RecordError> {
        let project = records.project(&self.repository.project())?;
        if project.is_none_or(|project| project.id != self.project) {
            return Ok(None);
        }
        let known = records.scan_of(&self.repository, &self.digest)?;
        let runs = known
            .and_then(|known| known.wanted)
            .is_some_and(|wanted| wanted.number == self.number && wanted.begun.is_some());
        let pull = Action::Pull.permission();
        Ok(runs.then(|| {
            Identity::Robot(Box::new(RobotIdentity {
                // no robot's: numbers begin at 1
                id: RobotId(0),
                name: SCANNER.to_owned(),
                project: Some(self.project),
                grants: vec![Grant {
                    space: Space::Project(self.project),
                    permissions: vec![pull],
                }],
            }))
        }))
    }

    /// The scope of a token that is a pass.
    pub fn scope(&self) -> Scope {
        Scope { repository: self.repository.clone(), actions: vec![Action::Pull] }
    }

    /// Whether it opens this manifest.
    pub fn opens(&self, repository: &RepositoryName, digest: &Digest) -> bool {
        self.repository == *repository && self.digest == *digest
    }

    /// Whether it opens this blob: the image's manifest lists it.
    pub fn opens_blob<R: Look + ?Sized>(
        &self,
        records: &R,
        repository: &RepositoryName,
        blob: &Digest,
    ) -> Result<bool, RecordError> {
        if self.repository != *repository {
            return Ok(false);
        }
        let manifest = records.manifest(repository, &self.digest)?;
        Ok(manifest.is_some_and(|manifest| manifest.blobs.contains(blob)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::ledger::records::{MemoryRecords, Project, WriteRecords, encode, key};
    use crate::ledger::scanning::{ScanRecord, Wanted, key as scan_key};
    use crate::proxies::proxy::ProxyRules;
    use crate::words::moment::Timestamp;
    use crate::words::names::{Epoch, NodeId};

    fn project(id: u64) -> Project {
        Project {
            id: ProjectId(id),
            name: "demo".parse().unwrap(),
            public: false,
            durability: 1,
            home: NodeId(1),
            primary: NodeId(1),
            epoch: Epoch::FIRST,
            created: Timestamp(0),
            upstream: None,
            proxy: ProxyRules::default(),
            metadata: BTreeMap::new(),
        }
    }

    #[test]
    fn a_pass_is_good_while_its_scan_runs_and_for_one_image() {
        let (repository, digest): (RepositoryName, _) =
            ("demo/a".parse().unwrap(), Digest::sha256(b"image"));
        let pass =
            ScanPass { project: ProjectId(7), repository: repository.clone(), digest, number: 3 };
        let mut records = MemoryRecords::default();
        let mut is_good = |id: u64, wanted: Option<(u64, bool)>| {
            let wanted = wanted.map(|(number, begun)| Wanted {
                number,
                at: Timestamp(0),
                first: false,
                tries: 1,
                begun: begun.then_some(Timestamp(1)),
            });
            let record = ScanRecord { wanted, ..ScanRecord::default() };
            let one = project(id);
            records.put(&key::project(&one.name), &encode(&one).unwrap()).unwrap();
            let place = scan_key::scan(&repository, &digest);
            records.put(&place, &encode(&record).unwrap()).unwrap();
            pass.identity(&records).unwrap().is_some()
        };
        assert!(is_good(7, Some((3, true))));
        assert!(!is_good(7, Some((3, false))), "it waits for its next try");
        assert!(!is_good(7, Some((4, true))), "that is another scan");
        assert!(!is_good(7, None), "it has ended");
        assert!(!is_good(8, Some((3, true))), "that is another project of this name");
        assert!(pass.opens(&repository, &digest));
        assert!(!pass.opens(&repository, &Digest::sha256(b"other")));
        assert!(!pass.opens(&"demo/b".parse().unwrap(), &digest));
        let robot = pass.identity(&records).unwrap();
        assert_eq!(robot, None);
    }
}
