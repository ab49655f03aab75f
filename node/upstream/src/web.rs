//! Small answers of services that are no registries: identity providers, and issuers of tokens.
//!
//! An answer is bounded in time and length, and a redirect is not followed: what is asked there is
//! secret, or decides who may come in.

use std::time::Duration;

use bytes::Bytes;
use ground::supervise::Tasks;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use rules::words::secret::Secret;
use serde_json::Value;

use super::connect::Connections;
use super::headers::USER_AGENT;
use super::{AddressRule, Trust, UpstreamError};

/// The maximum length of an answer in bytes.
const ANSWER: usize = 256 << 10;

/// A client for such services.
#[derive(Clone)]
pub struct Web {
    connections: Connections,
    deadline: Duration,
}

impl Web {
    /// No connections yet. Each request must be answered within `deadline`. It is counted in the
    /// metrics under `name`.
    pub fn new(
        name: &str,
        rule: AddressRule,
        trust: Trust,
        deadline: Duration,
        tasks: Tasks,
    ) -> Self {
        Web { connections: Connections::new(name, rule, trust, deadline, tasks), deadline }
    }

    /// Gets JSON, with a bearer token if one is given. The error never has anything of the answer.
    pub async fn get(&self, url: &str, bearer: Option<&Secret>) -> Result<Value, UpstreamError> {
        let mut request = Request::get(parsed(url)?);
        if let Some(token) = bearer {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        let request = request.body(Full::<Bytes>::default()).map_err(UpstreamError::bad)?;
        let (status, value) = self.ask(request).await?;
        if status.is_success() { Ok(value) } else { Err(refused(status)) }
    }

    /// Sends a form, with `Authorization` if it is given. Returns the status and the JSON of the
    /// answer, which is an error's, too (RFC 6749 section 5.2).
    pub async fn post(
        &self,
        url: &str,
        form: String,
        authorization: Option<&Secret>,
    ) -> Result<(StatusCode, Value), UpstreamError> {
        let mut request = Request::post(parsed(url)?)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        if let Some(written) = authorization {
            request = request.header(header::AUTHORIZATION, written.expose());
        }
        let request = request.body(Full::from(form)).map_err(UpstreamError::bad)?;
        self.ask(request).await
    }

    async fn ask(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Value), UpstreamError> {
        let headers = request.headers_mut();
        headers.insert(header::USER_AGENT, http::HeaderValue::from_static(USER_AGENT));
        headers.insert(header::ACCEPT, http::HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT_ENCODING, http::HeaderValue::from_static("identity"));
        let host = request.uri().host().unwrap_or_default().to_owned();
        let asked = async {
            let response = self.connections.send(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER).collect().await;
            let body = body.map_err(|_| {
                UpstreamError::unreachable(format!("{host} broke off, or answered too much"))
            })?;
            let value = serde_json::from_slice(&body.to_bytes());
            match value {
                Ok(value) => Ok((status, value)),
                Err(_) if !status.is_success() => Err(refused(status)),
                Err(_) => Err(UpstreamError::bad(format!("{host} did not answer with JSON"))),
            }
        };
        match tokio::time::timeout(self.deadline, asked).await {
            Ok(answered) => answered,
            Err(_) => Err(UpstreamError::unreachable(format!("{host} did not answer in time"))),
        }
    }
}

fn parsed(url: &str) -> Result<Uri, UpstreamError> {
    url.parse().map_err(|_| UpstreamError::bad("an address that it names is no URL"))
}

fn refused(status: StatusCode) -> UpstreamError {
    if status.is_server_error() {
        UpstreamError::unreachable(format!("it answered {status}"))
    } else {
        UpstreamError::bad(format!("it answered {status}"))
    }
}
