//! For tests of `apply`: a ledger in memory.

use super::apply;
use crate::ledger::command::{Command, Envelope, Outcome};
use crate::ledger::level::Level;
use crate::ledger::people::PeopleChange;
use crate::ledger::records::{MemoryRecords, User, key};
use crate::words::moment::Timestamp;
use crate::words::names::{OperationId, Revision};

#[derive(Default)]
pub(super) struct Ledger {
    pub(super) records: MemoryRecords,
    revision: u64,
}

impl Ledger {
    /// With one administrator of before accounts, at the newest level.
    pub(super) fn raised() -> Self {
        let mut ledger = Ledger::default();
        let user = User { password_hash: "hash".into(), administrator: true };
        let form = Command::FormMesh {
            mesh: 1,
            token_secret: vec![1].into(),
            administrator: ("admin".into(), user),
            nodes: vec![],
        };
        assert_eq!(ledger.run(form), Outcome::Done);
        let raise = Command::RaiseLevel { level: Level::NEWEST, token_secret: vec![].into() };
        assert_eq!(ledger.run(raise), Outcome::Done);
        ledger
    }

    pub(super) fn run(&mut self, command: Command) -> Outcome {
        self.revision += 1;
        let operation = OperationId(self.revision.into());
        let envelope = Envelope { operation, at: Timestamp(self.revision), command };
        apply(&mut self.records, Revision(self.revision), &envelope).unwrap()
    }

    pub(super) fn change(&mut self, change: PeopleChange) -> Outcome {
        self.run(Command::People(Box::new(change)))
    }

    /// How many records are about people, without the version.
    pub(super) fn about_people(&self) -> usize {
        self.records.0.keys().filter(|place| key::is_of_people(place)).count()
    }
}
