//! `/c/login` and `/c/log_out`: sessions of browsers, as Harbor's portal begins and ends them.

use std::time::Duration;

use http::{HeaderValue, Response, StatusCode, header};
use registry::people::{AccessError, NewSession};
use rules::ledger::events::Actor;
use rules::words::secret::Secret;

use super::Harbor;
use crate::http::answer::{answer, set};
use crate::http::request::{Request, SESSION};
use crate::http::{Code, Failure, Payload};

/// The maximum size of the form in bytes.
const FORM: u64 = 8 << 10;

impl Harbor {
    /// Begins a session: a form with `principal` and `password`. A page of another site may not do
    /// that: its visitor would work under a name that the page has chosen.
    pub async fn sign_in(&self, mut request: Request) -> Result<Response<Payload>, Failure> {
        self.door.check_site(&request)?;
        let form = request.body.whole(FORM).await?;
        let field = |name: &str| {
            form_urlencoded::parse(&form).find(|(n, _)| n == name).map(|(_, v)| v.into_owned())
        };
        let name = field("principal").unwrap_or_default();
        let password: Secret = field("password").unwrap_or_default().into();
        let begun = self.access.sign_in(&name, &password, request.origin()).await;
        if matches!(begun, Ok(_) | Err(AccessError::Wrong)) {
            self.door.saw_login(Actor { name, address: Some(request.client) }, begun.is_ok());
        }
        let wrong = "the user name or the password is not right";
        let begun = begun.map_err(|error| match error {
            AccessError::Wrong => Failure::new(Code::Unauthorized, wrong),
            error => error.into(),
        })?;
        let mut response = answer(StatusCode::OK);
        self.set_session(&request, &mut response, &begun);
        Ok(response)
    }

    /// Ends the session at this browser. The cookie itself stays valid for whoever has a copy of it,
    /// until it expires or the password changes.
    pub fn sign_out(&self, request: &Request) -> Response<Payload> {
        let mut response = answer(StatusCode::OK);
        let nothing = NewSession { cookie: Secret::default(), lasts: Duration::ZERO };
        self.set_session(request, &mut response, &nothing);
        response
    }

    fn set_session(
        &self,
        request: &Request,
        response: &mut Response<Payload>,
        session: &NewSession,
    ) {
        let secure = if self.door.url_of(request).starts_with("https:") { "; Secure" } else { "" };
        let cookie = format!(
            "{SESSION}={}; Path=/; HttpOnly; SameSite=Lax; Max-Age={}{secure}",
            session.cookie.expose(),
            session.lasts.as_secs()
        );
        if let Ok(mut value) = HeaderValue::from_str(&cookie) {
            value.set_sensitive(true);
            response.headers_mut().append(header::SET_COOKIE, value);
        }
        set(response, "cache-control", "no-store");
    }
}
