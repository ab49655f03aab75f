//! Whether a registry answers at all (distribution-spec "Determining Support").

use http::{HeaderMap, Method};

use super::{Question, Upstream, read_unwanted};
use crate::UpstreamError;
use crate::budget::Ask;

impl Upstream {
    /// Asks for `/v2/`. Fails if the server cannot be reached, is no registry, or does not take the
    /// credentials, if there are some.
    pub async fn ping(&self) -> Result<(), UpstreamError> {
        let url = self.endpoint.url("").map_err(UpstreamError::bad)?;
        let repository = String::new();
        let (method, ask, headers) = (Method::GET, Ask::Manifest, HeaderMap::new());
        let question = Question { method, ask, repository, url, headers };
        let answer = self.within(self.terms.first_byte, self.ask(question)).await?;
        if answer.response.status().is_success() {
            drop(read_unwanted(answer.response.into_body()).await);
            return Ok(());
        }
        match self.refusal(Ask::Manifest, answer).await {
            UpstreamError::NotFound => Err(UpstreamError::bad("it has no /v2/: it is no registry")),
            refusal => Err(refusal),
        }
    }
}
