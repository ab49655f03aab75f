//! `/service/token`: the distribution project's token protocol, GET and OAuth2 POST.

use std::sync::Arc;

use http::{Method, Response, StatusCode, header};
use registry::people::{Access, AccessError, Presented, TokenRequest};
use serde_json::json;

use crate::http::answer::{json_answer, set};
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};

/// The maximum size of a token request's form in bytes.
const FORM: u64 = 64 << 10;

/// Answers a token request.
pub async fn answer_token(
    access: &Arc<Access>,
    mut request: Request,
) -> Result<Response<Payload>, Failure> {
    let (asked, credentials) = match request.method {
        Method::GET | Method::HEAD => {
            (TokenRequest::read(request.head.uri.query().unwrap_or_default().as_bytes()), None)
        }
        Method::POST => {
            let form = request.body.whole(FORM).await?;
            let field = |name: &str| {
                form_urlencoded::parse(&form).find(|(n, _)| n == name).map(|(_, v)| v.into_owned())
            };
            match field("grant_type").as_deref() {
                Some("password") => {}
                Some("refresh_token") => {
                    let message = "refresh tokens are not issued; use the password";
                    return Err(Failure::new(Code::Unauthorized, message));
                }
                _ => return Err(Failure::new(Code::BadRequest, "grant_type must be password")),
            }
            let credentials = (
                field("username").unwrap_or_default(),
                field("password").unwrap_or_default().into(),
            );
            (TokenRequest::read(&form), Some(credentials))
        }
        _ => return Err(Failure::new(Code::Unsupported, "use GET or POST to request a token")),
    };
    let wrong = || Failure::new(Code::Unauthorized, "the user name or the password is not right");
    let credentials = match (credentials, request.header(&header::AUTHORIZATION)) {
        (Some(credentials), _) => Some(credentials),
        (None, None) => None,
        (None, Some(written)) => match Presented::read(Some(written)) {
            Presented::Password(name, password) => Some((name, password)),
            _ => return Err(wrong()),
        },
    };
    let issued =
        access.issue(asked, credentials, request.origin(), request.header(&header::HOST)).await;
    let issued = issued.map_err(|error| match error {
        AccessError::Wrong => wrong(),
        error => error.into(),
    })?;
    let body = json!({
        "token": issued.token.expose(),
        "access_token": issued.token.expose(),
        "expires_in": issued.lasts.as_secs(),
        "issued_at": issued.at.to_string(),
    });
    let mut response = json_answer(StatusCode::OK, &body);
    set(&mut response, "cache-control", "no-store");
    Ok(response)
}
