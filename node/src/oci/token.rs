//! `/service/token`: the distribution project's token protocol, GET and OAuth2 POST.

use std::sync::Arc;

use http::{Method, Response, StatusCode, header};
use registry::events::Witness;
use registry::people::{Access, AccessError, Presented, TokenProof, TokenRequest};
use rules::ledger::events::Actor;
use serde_json::json;

use crate::http::answer::{json_answer, set};
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};

/// The maximum size of a token request's form in bytes.
const FORM: u64 = 64 << 10;

/// Answers a token request.
pub async fn answer_token(
    access: &Arc<Access>,
    witness: &Witness,
    mut request: Request,
) -> Result<Response<Payload>, Failure> {
    let (asked, shown) = match request.method {
        Method::GET | Method::HEAD => {
            (TokenRequest::read(request.head.uri.query().unwrap_or_default().as_bytes())?, None)
        }
        Method::POST => {
            let form = request.body.whole(FORM).await?;
            let field = |name: &str| {
                form_urlencoded::parse(&form).find(|(n, _)| n == name).map(|(_, v)| v.into_owned())
            };
            let secret = |name: &str| field(name).unwrap_or_default().into();
            let shown = match field("grant_type").as_deref() {
                Some("password") => {
                    TokenProof::Password(field("username").unwrap_or_default(), secret("password"))
                }
                Some("refresh_token") => TokenProof::Refresh(secret("refresh_token")),
                _ => {
                    let message = "grant_type must be password or refresh_token";
                    return Err(Failure::new(Code::BadRequest, message));
                }
            };
            (TokenRequest::read(&form)?, Some(shown))
        }
        _ => return Err(Failure::new(Code::Unsupported, "use GET or POST to request a token")),
    };
    let wrong = |what| Failure::new(Code::Unauthorized, format!("the {what} is not right"));
    let password = "user name or the password";
    let shown = match (shown, request.header(&header::AUTHORIZATION)) {
        (Some(shown), _) => shown,
        (None, None) => TokenProof::Nothing,
        (None, Some(written)) => match Presented::read(Some(written)) {
            Presented::Password(name, password) => TokenProof::Password(name, password),
            _ => return Err(wrong(password)),
        },
    };
    let refreshes = matches!(shown, TokenProof::Refresh(_));
    let name = match &shown {
        TokenProof::Password(name, _) => Some(name.clone()),
        _ => None,
    };
    let issued = access.issue(asked, shown, request.origin(), request.host()).await;
    if let Some(name) = name
        && matches!(issued, Ok(_) | Err(AccessError::Wrong))
    {
        witness.saw_login(Actor { name, address: Some(request.client) }, issued.is_ok());
    }
    let issued = issued.map_err(|error| match error {
        AccessError::Wrong if refreshes => wrong("refresh token"),
        AccessError::Wrong => wrong(password),
        error => error.into(),
    })?;
    let mut body = json!({
        "token": issued.token.expose(),
        "access_token": issued.token.expose(),
        "expires_in": issued.lasts.as_secs(),
        "issued_at": issued.at.to_string(),
    });
    if let Some(refresh) = issued.refresh {
        body["refresh_token"] = refresh.into_exposed().into();
    }
    let mut response = json_answer(StatusCode::OK, &body);
    set(&mut response, "cache-control", "no-store");
    Ok(response)
}
