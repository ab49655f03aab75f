//! How many questions to upstreams each client may cause, by its address and the project.
//!
//! A question is counted at the node that the client talks to, before it is asked: for a manifest
//! or tag that the mesh does not know, for a list, and for a blob to which nothing in the project
//! refers. What is cached costs nothing.

use std::net::IpAddr;
use std::time::Duration;

use ground::clock;
use parking_lot::Mutex;
use rules::proxies::budget::{BudgetTerms, Budgets, client_of};
use rules::words::names::ProjectName;

/// A client has used up its budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this address has asked for too much that the mesh does not have; try again in {} s (upstreams.questions)",
    after.as_secs() + 1
)]
pub struct TooManyQuestions {
    /// After this time it may ask again.
    pub after: Duration,
}

/// The budgets of all clients of this node.
pub struct Questions(Mutex<Budgets<(IpAddr, ProjectName)>>);

impl Questions {
    /// Nobody has asked anything yet.
    pub fn new(terms: BudgetTerms) -> Self {
        Questions(Mutex::new(Budgets::new(terms)))
    }

    /// The client at `address` is about to cause a question to the upstream of `project`.
    pub fn ask(&self, address: IpAddr, project: &ProjectName) -> Result<(), TooManyQuestions> {
        let client = (client_of(address), project.clone());
        self.0.lock().take(clock::now(), &client).map_err(|after| {
            metrics::counter!("atoll_upstream_questions_refused_total").increment(1);
            TooManyQuestions { after }
        })
    }

    /// What the client at `address` asked last was no question to the upstream: another node of the
    /// mesh knew.
    pub fn give_back(&self, address: IpAddr, project: &ProjectName) {
        self.0.lock().give_back(&(client_of(address), project.clone()));
    }
}
