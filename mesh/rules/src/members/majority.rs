//! Whether enough voters of the ledger are up, as one node sees it, and what to do if not.

/// The voters of the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Majority {
    /// The names of those that are up.
    pub up: Vec<String>,
    /// The names of those that are not.
    pub missing: Vec<String>,
}

impl Majority {
    /// Of voters, and whether each is up.
    pub fn of(voters: impl IntoIterator<Item = (String, bool)>) -> Self {
        let (up, missing): (Vec<_>, Vec<_>) = voters.into_iter().partition(|(_, up)| *up);
        let names = |all: Vec<(String, bool)>| all.into_iter().map(|(name, _)| name).collect();
        Majority { up: names(up), missing: names(missing) }
    }

    /// The number of all voters.
    pub fn all(&self) -> usize {
        self.up.len() + self.missing.len()
    }

    /// Whether there is none. A mesh of which no voter is known has not lost anything yet.
    pub fn is_lost(&self) -> bool {
        self.all() > 0 && self.up.len() * 2 <= self.all()
    }

    /// That it is lost: who is missing, what goes on, and what to do. `None` if it is not lost.
    pub fn lost(&self) -> Option<String> {
        self.is_lost().then(|| {
            format!(
                "the mesh has no majority as this node sees it: {} of {} voters up, missing {}; \
                 nothing can be written until {} of them {} back, and nodes go on serving what they \
                 hold, perhaps old tags. Start the missing nodes, or mend the network to them",
                self.up.len(),
                self.all(),
                self.missing.join(", "),
                self.needed(),
                if self.needed() == 1 { "is" } else { "are" },
            )
        })
    }

    /// How many of the missing voters would make it a majority.
    fn needed(&self) -> usize {
        (self.all() / 2 + 1).saturating_sub(self.up.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn majority(up: &[&str], missing: &[&str]) -> Majority {
        let voter = |up: bool| move |name: &&str| ((*name).to_owned(), up);
        Majority::of(up.iter().map(voter(true)).chain(missing.iter().map(voter(false))))
    }

    #[test]
    fn who_is_missing_is_named_once_less_than_half_are_up() {
        assert_eq!(majority(&["a", "b"], &["c"]).lost(), None);
        assert_eq!(majority(&["a"], &[]).lost(), None);
        assert_eq!(majority(&[], &[]).lost(), None, "it has no voters yet");
        let said = majority(&["a"], &["b", "c"]).lost().unwrap();
        assert!(said.contains("1 of 3 voters up, missing b, c;"), "{said}");
        assert!(said.contains("until 1 of them is back"), "{said}");
        let said = majority(&["a"], &["b"]).lost().unwrap();
        assert!(said.contains("1 of 2 voters up, missing b;"), "half is no majority: {said}");
        let said = majority(&["a"], &["b", "c", "d", "e"]).lost().unwrap();
        assert!(said.contains("until 2 of them are back"), "{said}");
    }
}
