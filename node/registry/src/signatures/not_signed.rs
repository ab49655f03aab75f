//! Why something was not signed.

use rules::ledger::records::RecordError;

use crate::writes::Refusal;

/// Why something was not signed.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotSigned {
    /// No other try helps. A sentence for the operator.
    #[error("{0}")]
    Hopeless(String),
    /// The project's rules do not let it be signed now.
    #[error("{0}")]
    Held(String),
    /// Another try may help.
    #[error("{0}")]
    Again(String),
}

impl From<RecordError> for NotSigned {
    fn from(error: RecordError) -> Self {
        NotSigned::Again(error.to_string())
    }
}

impl From<Refusal> for NotSigned {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound => NotSigned::Hopeless("it is not there any more".into()),
            Refusal::Conflict(why) | Refusal::OverQuota(why) => NotSigned::Hopeless(why),
            refusal => NotSigned::Again(refusal.to_string()),
        }
    }
}
