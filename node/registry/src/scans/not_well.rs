//! Why a scanner does not answer as it should.

use http::StatusCode;
use mesh::secrets::SecretError;
use scan::adapter::request::message_of;
use upstream::{ServiceAnswer, UpstreamError};

use super::ScanError;

/// The maximum length of what a scanner says of an error, in bytes.
const SAID: usize = 300;

/// A scanner does not answer as it should. A sentence for people.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{said}")]
pub struct NotWell {
    pub(super) said: String,
    /// Whether another try may help.
    again: bool,
}

impl NotWell {
    pub(super) fn again(said: impl Into<String>) -> Self {
        NotWell { said: said.into(), again: true }
    }

    pub(super) fn hopeless(said: impl Into<String>) -> Self {
        NotWell { said: said.into(), again: false }
    }

    /// A status that was not expected.
    pub(super) fn of_status(answer: &ServiceAnswer) -> Self {
        let status = answer.status;
        let said = match message_of(&answer.body, SAID) {
            Some(said) => format!("it answered {status}: {said}"),
            None if status.is_redirection() => {
                format!("it answered {status}, and redirects of scanners are not followed")
            }
            None => format!("it answered {status}"),
        };
        let again = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
        NotWell { said, again }
    }

    pub(super) fn named(self, name: &str) -> ScanError {
        let said = format!("scanner {name}: {}", self.said);
        if self.again { ScanError::Again(said) } else { ScanError::Hopeless(said) }
    }
}

impl From<UpstreamError> for NotWell {
    fn from(error: UpstreamError) -> Self {
        match error {
            UpstreamError::Unreachable(why) => NotWell::again(why.to_string()),
            UpstreamError::Refused(why) => NotWell::hopeless(why.to_string()),
            UpstreamError::Bad(why) | UpstreamError::Denied(why) | UpstreamError::Unusable(why) => {
                NotWell::hopeless(why.to_string())
            }
            UpstreamError::NotFound | UpstreamError::Limited { .. } => {
                NotWell::again(error.to_string())
            }
        }
    }
}

impl From<SecretError> for NotWell {
    fn from(error: SecretError) -> Self {
        let again = matches!(error, SecretError::NotHere(_));
        NotWell { said: format!("its access_credential: {error}"), again }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn an_answer_that_was_not_expected_is_said_and_tried_again_only_if_that_may_help() {
        let of = |status: u16, body: &'static str| {
            let status = StatusCode::from_u16(status).unwrap();
            let body = Bytes::from_static(body.as_bytes());
            let answer = ServiceAnswer { status, headers: Default::default(), body };
            let NotWell { said, again } = NotWell::of_status(&answer);
            (said, again)
        };
        let message = "{\"error\": {\"message\": \"no room\"}}";
        assert_eq!(of(503, message), ("it answered 503 Service Unavailable: no room".into(), true));
        assert!(of(429, "").1);
        assert_eq!(of(422, "<html>"), ("it answered 422 Unprocessable Entity".into(), false));
        let (said, again) = of(307, "");
        assert!(said.contains("redirects of scanners are not followed") && !again);
    }
}
