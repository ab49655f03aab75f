//! Who may have a password checked now. Checks are expensive on purpose, so wrong guesses must not
//! keep right passwords waiting, and must not be tried without end.
//!
//! Each address has a budget of wrong passwords, and so has each account. A right password gives
//! back what it took. When an account's budget is used up, only those are checked from whom a right
//! password for it has come before: otherwise whoever guesses could lock its owner out.

use core::net::IpAddr;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::proxies::budget::{BudgetTerms, Budgets};
use crate::words::moment::Moment;
use crate::words::names::NodeId;

/// How many wrong passwords an address may try.
pub const OF_ADDRESS: BudgetTerms = BudgetTerms { burst: 30, per_minute: 20 };

/// How many wrong passwords may be tried for an account, from all addresses from which no right one
/// has come.
pub const OF_ACCOUNT: BudgetTerms = BudgetTerms { burst: 200, per_minute: 60 };

/// The maximum number of addresses, with accounts, from which a right password is known to have
/// come.
const FAMILIAR: usize = 10_000;

/// From where a password comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A client, by [`client_of`](crate::proxies::budget::client_of) its address.
    Client(IpAddr),
    /// An edge, for a client whose guesses it counts itself.
    Edge(NodeId),
}

/// In which line a check waits. Nobody waits behind those of another line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Line {
    /// A right password for this account has come from there before.
    Familiar,
    /// None has.
    Unfamiliar,
    /// An edge asks.
    Edges,
}

/// The guesses of the last time. Memory is bounded.
#[derive(Debug)]
pub struct Guesses {
    addresses: Budgets<IpAddr>,
    accounts: Budgets<String>,
    familiar: HashMap<(Origin, String), ()>,
    order: VecDeque<(Origin, String)>,
}

impl Default for Guesses {
    fn default() -> Self {
        Guesses {
            addresses: Budgets::new(OF_ADDRESS),
            accounts: Budgets::new(OF_ACCOUNT),
            familiar: HashMap::new(),
            order: VecDeque::new(),
        }
    }
}

impl Guesses {
    /// A password for `account` came from `origin`, and is about to be checked: in which line. The
    /// error is the time after which it may be tried again. Until [`Guesses::handle_right`] it
    /// counts as wrong.
    pub fn begin(&mut self, now: Moment, origin: Origin, account: &str) -> Result<Line, Duration> {
        if let Origin::Client(address) = origin {
            self.addresses.take(now, &address)?;
        }
        let line = match origin {
            Origin::Edge(_) => Line::Edges,
            Origin::Client(_) if self.is_familiar(origin, account) => Line::Familiar,
            Origin::Client(_) => Line::Unfamiliar,
        };
        if !self.is_familiar(origin, account)
            && let Err(wait) = self.accounts.take(now, &account.to_owned())
        {
            if let Origin::Client(address) = origin {
                self.addresses.give_back(&address);
            }
            return Err(wait);
        }
        Ok(line)
    }

    /// As [`Guesses::begin`], for the secret of a robot. Secrets are long and random, and names of
    /// robots are easy to guess, so it counts for the address only: an account's budget would let
    /// three addresses keep a robot out, and protect nothing.
    pub fn begin_secret(&mut self, now: Moment, origin: Origin) -> Result<(), Duration> {
        match origin {
            Origin::Client(address) => self.addresses.take(now, &address),
            Origin::Edge(_) => Ok(()),
        }
    }

    /// The secret was right, or could not be checked.
    pub fn handle_secret_unproven(&mut self, origin: Origin) {
        if let Origin::Client(address) = origin {
            self.addresses.give_back(&address);
        }
    }

    /// The password was right, or could not be checked: it was no wrong guess.
    pub fn handle_unproven(&mut self, origin: Origin, account: &str) {
        if let Origin::Client(address) = origin {
            self.addresses.give_back(&address);
        }
        if !self.is_familiar(origin, account) {
            self.accounts.give_back(&account.to_owned());
        }
    }

    /// The password was right.
    pub fn handle_right(&mut self, origin: Origin, account: &str) {
        self.handle_unproven(origin, account);
        let key = (origin, account.to_owned());
        if self.familiar.insert(key.clone(), ()).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > FAMILIAR
            && let Some(oldest) = self.order.pop_front()
        {
            self.familiar.remove(&oldest);
        }
    }

    fn is_familiar(&self, origin: Origin, account: &str) -> bool {
        self.familiar.contains_key(&(origin, account.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_micros(seconds * 1_000_000)
    }

    fn client(n: u32) -> Origin {
        Origin::Client(IpAddr::from(n.to_be_bytes()))
    }

    #[test]
    fn an_address_that_guesses_is_stopped_and_others_are_not() {
        let mut guesses = Guesses::default();
        for _ in 0..OF_ADDRESS.burst {
            assert_eq!(guesses.begin(at(0), client(1), "admin"), Ok(Line::Unfamiliar));
        }
        assert_eq!(guesses.begin(at(0), client(1), "admin"), Err(Duration::from_secs(3)));
        assert!(guesses.begin(at(0), client(1), "other").is_err(), "whatever the account");
        assert_eq!(guesses.begin(at(0), client(2), "admin"), Ok(Line::Unfamiliar));
        assert_eq!(guesses.begin(at(3), client(1), "admin"), Ok(Line::Unfamiliar), "in time");
    }

    #[test]
    fn guesses_keep_no_robot_out_at_other_addresses() {
        let mut guesses = Guesses::default();
        for n in 0..1_000 {
            for _ in 0..OF_ADDRESS.burst {
                assert_eq!(guesses.begin_secret(at(0), client(n)), Ok(()));
            }
            assert!(guesses.begin_secret(at(0), client(n)).is_err(), "whose guesses are counted");
        }
        assert_eq!(guesses.begin_secret(at(0), client(1_000)), Ok(()));
        for _ in 0..1_000 {
            assert_eq!(guesses.begin_secret(at(0), client(1_001)), Ok(()));
            guesses.handle_secret_unproven(client(1_001));
            assert_eq!(guesses.begin_secret(at(0), Origin::Edge(NodeId(7))), Ok(()));
        }
    }

    #[test]
    fn right_passwords_cost_nothing_and_make_an_address_familiar() {
        let mut guesses = Guesses::default();
        for round in 0..1_000 {
            let line = guesses.begin(at(0), client(1), "admin").unwrap();
            assert_eq!(line == Line::Familiar, round > 0);
            guesses.handle_right(client(1), "admin");
        }
        assert_eq!(guesses.begin(at(0), client(1), "other"), Ok(Line::Unfamiliar));
    }

    #[test]
    fn an_account_that_many_guess_at_stays_open_to_those_who_were_right_before() {
        let mut guesses = Guesses::default();
        for origin in [client(1), Origin::Edge(NodeId(7))] {
            guesses.begin(at(0), origin, "admin").unwrap();
            guesses.handle_right(origin, "admin");
        }
        let mut others = 2..;
        while guesses.begin(at(0), client(others.next().unwrap()), "admin").is_ok() {}
        assert_eq!(others.next(), Some(2 + OF_ACCOUNT.burst + 1));
        assert_eq!(guesses.begin(at(0), client(1), "admin"), Ok(Line::Familiar));
        assert_eq!(guesses.begin(at(0), Origin::Edge(NodeId(7)), "admin"), Ok(Line::Edges));
        assert!(guesses.begin(at(0), Origin::Edge(NodeId(8)), "admin").is_err());
        assert_eq!(guesses.begin(at(0), client(2), "other"), Ok(Line::Unfamiliar));
        // what was refused for the account is not counted for the address
        for _ in 0..2 * OF_ADDRESS.burst {
            assert!(guesses.begin(at(0), client(9_999), "admin").is_err());
        }
        assert_eq!(guesses.begin(at(0), client(9_999), "other"), Ok(Line::Unfamiliar));
    }

    #[test]
    fn what_could_not_be_checked_was_no_guess_and_memory_is_bounded() {
        let mut guesses = Guesses::default();
        for _ in 0..10 * OF_ACCOUNT.burst {
            guesses.begin(at(0), client(1), "admin").unwrap();
            guesses.handle_unproven(client(1), "admin");
        }
        for n in 0..2 * FAMILIAR as u32 {
            guesses.begin(at(0), client(n), "admin").unwrap();
            guesses.handle_right(client(n), "admin");
            assert!(guesses.familiar.len() <= FAMILIAR && guesses.order.len() <= FAMILIAR);
        }
    }
}
