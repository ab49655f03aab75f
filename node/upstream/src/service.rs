//! Another service of the operator's, for instance a scanner: at one address, with credentials of its
//! own.
//!
//! An answer is bounded in time and in length. A redirect is an answer like any other, and is not
//! followed: neither the credentials nor what is asked goes elsewhere.

use std::time::Duration;

use bytes::Bytes;
use ground::supervise::Tasks;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use rules::words::secret::Secret;

use super::connect::Connections;
use super::headers::USER_AGENT;
use super::{AddressRule, Endpoint, Trust, UpstreamError};

/// Where a service is, and how it is reached.
pub struct ServiceSettings {
    /// Its URL.
    pub endpoint: Endpoint,
    /// A header with credentials.
    pub authorization: Option<(HeaderName, Secret)>,
    /// The certificates that are trusted.
    pub trust: Trust,
    /// The addresses that may be connected to.
    pub rule: AddressRule,
    /// The maximum time until a whole answer is there.
    pub deadline: Duration,
}

/// A client of one service.
pub struct Service {
    endpoint: Endpoint,
    authorization: Option<(HeaderName, Secret)>,
    connections: Connections,
    deadline: Duration,
}

/// What is asked of a service.
#[derive(Clone, Debug)]
pub struct ServiceRequest<'a> {
    /// The method.
    pub method: Method,
    /// The path and query below the service's URL, with a slash before it.
    pub path: &'a str,
    /// Headers besides those that each request has.
    pub headers: &'a [(HeaderName, &'a str)],
    /// The body.
    pub body: Bytes,
    /// The maximum length of the answer's body in bytes.
    pub limit: usize,
}

/// What a service has answered.
#[derive(Clone, Debug)]
pub struct ServiceAnswer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Service {
    /// No connections yet. Requests are counted in the metrics under `name`.
    pub fn new(name: &str, settings: ServiceSettings, tasks: Tasks) -> Self {
        let ServiceSettings { endpoint, authorization, trust, rule, deadline } = settings;
        let connections = Connections::new(name, rule, trust, deadline, tasks);
        Service { endpoint, authorization, connections, deadline }
    }

    /// Asks, and waits for the whole answer, whatever its status is.
    pub async fn ask(&self, asked: ServiceRequest<'_>) -> Result<ServiceAnswer, UpstreamError> {
        let ServiceRequest { method, path, headers, body, limit } = asked;
        let host = self.endpoint.authority();
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.endpoint))
            .header(header::USER_AGENT, USER_AGENT)
            .header(header::ACCEPT_ENCODING, "identity");
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        if let Some((name, secret)) = &self.authorization {
            let mut value = HeaderValue::try_from(secret.expose().as_str())
                .map_err(|_| UpstreamError::bad("its credentials cannot be sent in a header"))?;
            value.set_sensitive(true);
            request = request.header(name, value);
        }
        let request = request.body(Full::from(body)).map_err(UpstreamError::bad)?;
        let answered = async {
            let response = self.connections.send(request).await?;
            let (head, body) = response.into_parts();
            let body =
                Limited::new(body, limit).collect().await.map_err(|error| match error
                    .is::<LengthLimitError>(
                ) {
                    true => UpstreamError::bad(format!("{host} has sent more than {limit} bytes")),
                    false => UpstreamError::unreachable(format!("{host} broke off: {error}")),
                })?;
            Ok(ServiceAnswer { status: head.status, headers: head.headers, body: body.to_bytes() })
        };
        match tokio::time::timeout(self.deadline, answered).await {
            Ok(answered) => answered,
            Err(_) => Err(UpstreamError::unreachable(format!("{host} did not answer in time"))),
        }
    }
}
