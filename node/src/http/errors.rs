//! The one table of HTTP errors: status, the distribution-spec's code, and who caused it. Rooms
//! return their own errors; only this module turns them into statuses.

use http::{HeaderValue, Response, StatusCode, header};
use rules::blobs::uploads::UploadRefusal;
use rules::ledger::records::RecordError;
use rules::people::access::RegistryScope;
use rules::words::digest::{BadDigest, Digest};
use serde_json::{Value, json};

use registry::people::{AccessError, NeededScope, NotTried, TooManyScopes};
use registry::proxies::questions::TooManyQuestions;
use registry::pulls::PullError;

use super::Payload;
use registry::blobs::flights::FlightError;
use registry::jobs::preheats::Untaken;
use registry::proxies::mirrors::NoMirror;
use registry::view::{Freshness, ReadError};
use registry::writes::Refusal;
use store::StoreError;

/// The codes that clients get (distribution-spec "Error Codes"; `UNAVAILABLE` is our own, for what
/// will be possible again).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// No such blob here.
    BlobUnknown,
    /// The upload's bytes are not as described.
    BlobUploadInvalid,
    /// No such upload.
    BlobUploadUnknown,
    /// The digest is malformed or wrong.
    DigestInvalid,
    /// The manifest refers to blobs that are not here.
    ManifestBlobUnknown,
    /// The manifest cannot be read.
    ManifestInvalid,
    /// No such manifest.
    ManifestUnknown,
    /// The repository's name is malformed.
    NameInvalid,
    /// No such repository or project.
    NameUnknown,
    /// No such user, robot or member.
    NotFound,
    /// The length is not as announced.
    SizeInvalid,
    /// The tag is malformed.
    TagInvalid,
    /// The chunk does not begin where the upload ends, or the range is outside the blob.
    RangeInvalid,
    /// Credentials are needed, or wrong.
    Unauthorized,
    /// The credentials do not allow it.
    Denied,
    /// This registry does not support the operation.
    Unsupported,
    /// Too many requests at once.
    TooManyRequests,
    /// The request cannot be parsed.
    BadRequest,
    /// It can be read, and asks for what cannot be done.
    Unprocessable,
    /// The body's media type is not accepted here.
    MediaType,
    /// It conflicts with the present state.
    Conflict,
    /// A precondition is not met.
    Precondition,
    /// The project's policy does not let it pass.
    Prevented,
    /// Larger than this registry accepts.
    TooLarge,
    /// The request's headers are too many or too long.
    HeadersTooLarge,
    /// The client was too slow.
    Timeout,
    /// Not possible now.
    Unavailable,
    /// A fault of this node.
    Internal,
}

impl Code {
    fn row(self) -> (StatusCode, &'static str) {
        match self {
            Code::BlobUnknown => (StatusCode::NOT_FOUND, "BLOB_UNKNOWN"),
            Code::BlobUploadInvalid => (StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID"),
            Code::BlobUploadUnknown => (StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN"),
            Code::DigestInvalid => (StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
            Code::ManifestBlobUnknown => (StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN"),
            Code::ManifestInvalid => (StatusCode::BAD_REQUEST, "MANIFEST_INVALID"),
            Code::ManifestUnknown => (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
            Code::NameInvalid => (StatusCode::BAD_REQUEST, "NAME_INVALID"),
            Code::NameUnknown => (StatusCode::NOT_FOUND, "NAME_UNKNOWN"),
            Code::NotFound => (StatusCode::NOT_FOUND, "NOT_FOUND"),
            Code::SizeInvalid => (StatusCode::BAD_REQUEST, "SIZE_INVALID"),
            Code::TagInvalid => (StatusCode::BAD_REQUEST, "TAG_INVALID"),
            Code::RangeInvalid => (StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID"),
            Code::Unauthorized => (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"),
            Code::Denied => (StatusCode::FORBIDDEN, "DENIED"),
            Code::Unsupported => (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
            Code::TooManyRequests => (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS"),
            Code::BadRequest => (StatusCode::BAD_REQUEST, "BAD_REQUEST"),
            Code::Unprocessable => (StatusCode::UNPROCESSABLE_ENTITY, "UNPROCESSABLE"),
            Code::MediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED"),
            Code::Conflict => (StatusCode::CONFLICT, "CONFLICT"),
            Code::Precondition => (StatusCode::PRECONDITION_FAILED, "PRECONDITION"),
            // Harbor's `PROJECTPOLICYVIOLATION`
            Code::Prevented => (StatusCode::PRECONDITION_FAILED, "PROJECTPOLICYVIOLATION"),
            Code::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID"),
            Code::HeadersTooLarge => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "BAD_REQUEST"),
            Code::Timeout => (StatusCode::REQUEST_TIMEOUT, "TIMEOUT"),
            Code::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
            Code::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN"),
        }
    }
}

/// An error as an answer.
#[derive(Debug)]
pub struct Failure {
    code: Code,
    message: String,
    detail: Value,
    headers: Vec<(header::HeaderName, HeaderValue)>,
    close: bool,
}

impl Failure {
    /// The sentence.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// With a sentence for the user of the client.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Failure {
            code,
            message: message.into(),
            detail: Value::Null,
            headers: Vec::new(),
            close: false,
        }
    }

    /// A node cannot say what is so now: its records may be old.
    pub fn outdated(freshness: Freshness) -> Self {
        let message = match freshness {
            Freshness::Aged(_) | Freshness::Superseded(_) => ReadError::CutOff.to_string(),
            Freshness::Fresh | Freshness::Stale => {
                "this node cannot reach the leader of the ledger, so its records may be old; \
                 ask another node, or try again"
                    .to_owned()
            }
        };
        Failure::new(Code::Unavailable, message)
    }

    /// The same, if records that say "there is none" may be old: what is missing in them may have
    /// been pushed or made elsewhere since, and with a 404 a client would give up.
    pub fn if_known(self, freshness: Freshness) -> Self {
        if freshness == Freshness::Fresh || self.status() != StatusCode::NOT_FOUND {
            return self;
        }
        let now = Failure::outdated(freshness);
        let message = format!("{}, but {}", self.message, now.message);
        Failure { message, ..now }
    }

    /// Adds machine-readable detail.
    pub fn detail(mut self, detail: Value) -> Self {
        self.detail = detail;
        self
    }

    /// Adds a header. A value that cannot be sent is left out.
    pub fn header(mut self, name: header::HeaderName, value: impl AsRef<str>) -> Self {
        if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
            self.headers.push((name, value));
        }
        self
    }

    /// Closes the connection, because the request's body was not read to its end.
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.code.row().0
    }

    /// The response. If the fault is this node's own, it is logged here, and the client gets a
    /// general message only.
    pub fn response(self) -> Response<Payload> {
        let (status, code) = self.code.row();
        let message = if self.code == Code::Internal {
            tracing::error!(error = self.message, "request failed");
            "internal error; see the node's log".to_owned()
        } else {
            self.message
        };
        let body = json!({"errors": [{"code": code, "message": message, "detail": self.detail}]})
            .to_string();
        let mut response = Response::new(Payload::full(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if matches!(self.code, Code::Unavailable | Code::TooManyRequests) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self.close || self.code == Code::Timeout {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        for (name, value) in self.headers {
            if name == header::RETRY_AFTER {
                headers.insert(name, value);
            } else {
                headers.append(name, value);
            }
        }
        response
    }
}

impl From<RecordError> for Failure {
    fn from(error: RecordError) -> Self {
        Failure::new(Code::Internal, error.to_string())
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Records(error) => error.into(),
            ReadError::CutOff => Failure::new(Code::Unavailable, error.to_string()),
        }
    }
}

impl From<AccessError> for Failure {
    fn from(error: AccessError) -> Self {
        match &error {
            AccessError::Missing(Some(NeededScope::Registry(RegistryScope::Api))) => {
                Failure::new(Code::Unauthorized, "credentials of a user or a robot are needed")
            }
            AccessError::Ended(_) => Failure::new(
                Code::Unauthorized,
                "this token or session does not count: it has expired, or it is not of this registry, or its \
                 owner was disabled or has another password; sign in again",
            ),
            AccessError::Missing(_) | AccessError::Wrong => Failure::new(
                Code::Unauthorized,
                "credentials are needed, or those given are not right",
            ),
            AccessError::Scope(needed) => Failure::new(
                Code::Unauthorized,
                format!(
                    "this token is not for {}: log in at this registry first (docker login, crane auth login); if a new token is not for it either, its owner may not do this",
                    needed.scope()
                ),
            ),
            AccessError::Denied(reason) => Failure::new(Code::Denied, reason.clone()),
            AccessError::TooMany(wait) => Failure::new(Code::TooManyRequests, error.to_string())
                .header(header::RETRY_AFTER, (wait.as_secs() + 1).to_string()),
            AccessError::Unchecked(reason) => Failure::new(Code::Unavailable, reason.clone()),
            AccessError::Internal(reason) => Failure::new(Code::Internal, reason.clone()),
        }
    }
}

impl From<TooManyScopes> for Failure {
    fn from(error: TooManyScopes) -> Self {
        Failure::new(Code::BadRequest, error.to_string())
    }
}

impl From<UploadRefusal> for Failure {
    fn from(refusal: UploadRefusal) -> Self {
        let code = match &refusal {
            UploadRefusal::Unknown => Code::BlobUploadUnknown,
            UploadRefusal::Busy | UploadRefusal::TakenOver => Code::Conflict,
            UploadRefusal::TooMany(_) => Code::TooManyRequests,
            UploadRefusal::OutOfOrder { .. } => Code::RangeInvalid,
            UploadRefusal::Length => Code::SizeInvalid,
            UploadRefusal::Digest { .. } => Code::DigestInvalid,
            UploadRefusal::BrokenOff => Code::BlobUploadInvalid,
            UploadRefusal::Unavailable(_) => Code::Unavailable,
            UploadRefusal::Failed(_) => Code::Internal,
            UploadRefusal::OverQuota(_) => Code::Denied,
        };
        let failure = Failure::new(code, refusal.to_string());
        match refusal {
            UploadRefusal::TakenOver => failure.closing(),
            UploadRefusal::Digest { expected, actual } => failure
                .detail(json!({"expected": expected.to_string(), "actual": actual.to_string()})),
            _ => failure,
        }
    }
}

impl From<BadDigest> for Failure {
    fn from(error: BadDigest) -> Self {
        Failure::new(Code::DigestInvalid, error.to_string())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Digest { expected, actual } => {
                let detail =
                    json!({"expected": expected.to_string(), "actual": actual.to_string()});
                Failure::new(Code::DigestInvalid, error.to_string()).detail(detail)
            }
            StoreError::Disk(full) if full.kind() == std::io::ErrorKind::StorageFull => {
                Failure::new(Code::Unavailable, full.to_string())
            }
            StoreError::Disk(_) | StoreError::Index(_) | StoreError::Cached(_) => {
                Failure::new(Code::Internal, error.to_string())
            }
        }
    }
}

impl From<PullError> for Failure {
    fn from(error: PullError) -> Self {
        match error {
            // clients show the reason of a 404, and hide that of a 503
            PullError::Unknown(_) | PullError::Denied { .. } => {
                Failure::new(Code::BlobUnknown, error.to_string())
            }
            PullError::Unavailable(reason) => Failure::new(Code::Unavailable, reason),
            PullError::TooManyQuestions(error) => error.into(),
            PullError::Flight(error) => error.into(),
            PullError::Store(error) => error.into(),
        }
    }
}

impl From<NotTried> for Failure {
    fn from(error: NotTried) -> Self {
        match &error {
            NotTried::Issuer(_) => Failure::new(Code::BadRequest, error.to_string()),
            NotTried::TooMany(wait) => Failure::new(Code::TooManyRequests, error.to_string())
                .header(header::RETRY_AFTER, (wait.as_secs() + 1).to_string()),
        }
    }
}

impl From<TooManyQuestions> for Failure {
    fn from(error: TooManyQuestions) -> Self {
        let seconds = error.after.as_secs() + 1;
        Failure::new(Code::TooManyRequests, error.to_string())
            .header(header::RETRY_AFTER, seconds.to_string())
    }
}

impl From<FlightError> for Failure {
    /// A known blob that may come back is never "not found", because clients would give up on it.
    fn from(error: FlightError) -> Self {
        let code = match &error {
            FlightError::Missing(_) | FlightError::Lost(_) | FlightError::Gone(_) => {
                Code::BlobUnknown
            }
            FlightError::NoSource(_)
            | FlightError::Slow(_)
            | FlightError::Deserted(_)
            | FlightError::Broken(_)
            | FlightError::NoRoom(_) => Code::Unavailable,
        };
        Failure::new(code, error.to_string())
    }
}

impl From<NoMirror> for Failure {
    /// With a 404 a client of a mirror tries its next mirror at once.
    fn from(error: NoMirror) -> Self {
        match error {
            NoMirror::NotMirrored { .. } => Failure::new(Code::NameUnknown, error.to_string()),
            // a common first mistake; clients retry a 400 for up to a minute, and stop at once with
            // this code
            NoMirror::OnePart(bad) => Failure::new(Code::NameUnknown, bad.to_string()),
            NoMirror::Malformed(bad) => Failure::new(Code::NameInvalid, bad.to_string()),
            NoMirror::Records(error) => error.into(),
        }
    }
}

impl From<Untaken> for Failure {
    fn from(error: Untaken) -> Self {
        match error {
            Untaken::Unclear(reason) => Failure::new(Code::BadRequest, reason),
            Untaken::NoProject(_) => Failure::new(Code::NameUnknown, error.to_string()),
            Untaken::TooMany => Failure::new(Code::TooManyRequests, error.to_string()),
            Untaken::NoMirror(error) => error.into(),
            Untaken::Records(error) => error.into(),
        }
    }
}

fn names(digests: &[Digest]) -> Value {
    digests.iter().take(20).map(ToString::to_string).collect()
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound => Failure::new(Code::NameUnknown, "it does not exist"),
            Refusal::Exists => Failure::new(Code::Conflict, "it exists already"),
            Refusal::Conflict(reason) => Failure::new(Code::Conflict, reason),
            Refusal::BlobsUnknown(digests) => Failure::new(
                Code::ManifestBlobUnknown,
                "the manifest refers to blobs that were not uploaded or mounted into this repository",
            )
            .detail(names(&digests)),
            Refusal::ManifestsUnknown(digests) => {
                Failure::new(Code::ManifestBlobUnknown, "the index lists manifests that this repository does not have; push them first, or set metadata.sparse_indexes of the project to \"true\"")
                    .detail(names(&digests))
            }
            Refusal::Invalid(reason) => Failure::new(Code::ManifestInvalid, reason),
            Refusal::Precondition => Failure::new(
                Code::Precondition,
                "it is not what If-Match or If-None-Match of the request asks for; nothing was changed",
            ),
            Refusal::Immutable(reason) => Failure::new(Code::Precondition, reason),
            // clients show the reason of a 403, and do not try again
            Refusal::OverQuota(reason) => Failure::new(Code::Denied, reason),
            Refusal::Level { .. } => Failure::new(Code::Denied, refusal.to_string()),
            Refusal::Unavailable(reason) => Failure::new(Code::Unavailable, reason),
            Refusal::Records(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rules::ledger::level::Level;

    /// What passes is 503, so that clients come again. What stays until somebody acts is not:
    /// clients hide the reason of a 503. docs/api.md says what each 503 waits for.
    #[test]
    fn only_what_passes_is_told_as_unavailable() {
        let (digest, why) = (Digest::sha256(b"x"), || "a reason".to_owned());
        let unsupported = Refusal::Level { needs: Level::CONDITIONS, has: Level::ROLES };
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let table: Vec<(u16, Failure)> = vec![
            (404, Refusal::NotFound.into()),
            (409, Refusal::Exists.into()),
            (409, Refusal::Conflict(why()).into()),
            (404, Refusal::BlobsUnknown(vec![digest]).into()),
            (404, Refusal::ManifestsUnknown(vec![digest]).into()),
            (400, Refusal::Invalid(why()).into()),
            (412, Refusal::Precondition.into()),
            (412, Refusal::Immutable(why()).into()),
            (403, Refusal::OverQuota(why()).into()),
            (403, unsupported.into()),
            (503, Refusal::Unavailable(why()).into()),
            (503, ReadError::CutOff.into()),
            (403, AccessError::Denied(why()).into()),
            (503, AccessError::Unchecked(why()).into()),
            (404, PullError::Unknown(digest).into()),
            (503, PullError::Unavailable(why()).into()),
            (404, FlightError::Missing(digest).into()),
            (404, FlightError::Lost(digest).into()),
            (404, FlightError::Gone(digest).into()),
            (503, FlightError::NoSource(digest).into()),
            (503, FlightError::Slow(digest).into()),
            (503, FlightError::Broken(why().into()).into()),
            (503, FlightError::NoRoom(why().into()).into()),
            (503, StoreError::Disk(full).into()),
            (500, StoreError::Disk(std::io::ErrorKind::NotFound.into()).into()),
            (404, UploadRefusal::Unknown.into()),
            (409, UploadRefusal::Busy.into()),
            (409, UploadRefusal::TakenOver.into()),
            (416, UploadRefusal::OutOfOrder { message: why(), written: 1 }.into()),
            (400, UploadRefusal::Length.into()),
            (400, UploadRefusal::Digest { expected: digest.into(), actual: digest.into() }.into()),
            (400, UploadRefusal::BrokenOff.into()),
            (503, UploadRefusal::Unavailable(why()).into()),
            (500, UploadRefusal::Failed(why()).into()),
            (403, UploadRefusal::OverQuota(why()).into()),
        ];
        for (status, failure) in table {
            let said = format!("{failure:?}");
            let response = failure.response();
            assert_eq!(response.status(), status, "{said}");
            assert_eq!(response.headers().contains_key("retry-after"), status == 503, "{said}");
        }
    }

    #[test]
    fn a_feature_that_the_mesh_has_not_agreed_on_is_refused_with_the_command_that_helps() {
        let refusal = Refusal::Level { needs: Level::CONDITIONS, has: Level::ROLES };
        let said = refusal.to_string();
        for word in ["feature level 3", "has 2", "atoll level --raise"] {
            assert!(said.contains(word), "{said}");
        }
    }
}
