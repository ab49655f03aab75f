//! `/c/`: sessions of browsers, as Harbor's portal begins and ends them.

use std::time::Duration;

use http::{HeaderValue, Method, Response, StatusCode, header};
use registry::people::{
    AccessError, CameBack, NewSession, NotSignedIn, STEP_SECONDS, SignInBegun, SignInEnded,
};
use rules::ledger::events::Actor;
use rules::words::secret::Secret;
use serde::Deserialize;
use serde_json::json;

use super::{Harbor, body};
use crate::http::answer::{answer, json_answer, set};
use crate::http::request::{Request, SESSION};
use crate::http::route::Route;
use crate::http::{Code, Failure, Payload};

/// The maximum size of the form in bytes.
const FORM: u64 = 8 << 10;
/// The cookies of a sign-in at the OIDC provider that is under way, and of the choice of a name.
const BEGUN: &str = "oidc";
const CHOOSING: &str = "oidc_name";
/// Where a browser goes when somebody has signed in.
const WHO: &str = "/api/v2.0/users/current";

#[derive(Deserialize)]
struct Chosen {
    username: String,
}

impl Harbor {
    /// Begins a session: a form with `principal` and `password`. A page of another site may not do
    /// that: its visitor would work under a name that the page has chosen.
    async fn sign_in(&self, mut request: Request) -> Result<Response<Payload>, Failure> {
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
    fn sign_out(&self, request: &Request) -> Response<Payload> {
        let mut response = answer(StatusCode::OK);
        let nothing = NewSession { cookie: Secret::default(), lasts: Duration::ZERO };
        self.set_session(request, &mut response, &nothing);
        response
    }

    /// Sends the browser to the OIDC provider.
    async fn begin_oidc(&self, request: &Request) -> Result<Response<Payload>, Failure> {
        self.at_replica()?;
        let back = format!("{}/c/oidc/callback", self.door.url_of(request));
        let SignInBegun { place, cookie } = self.access.begin_oidc(&back).await?;
        let mut response = answer(StatusCode::FOUND);
        set(&mut response, "location", place);
        self.set_cookie(request, &mut response, BEGUN, &cookie, STEP_SECONDS);
        Ok(response)
    }

    /// The browser comes back from the OIDC provider. It goes on to the page that says who has signed
    /// in, or is told that a name is to be chosen.
    async fn end_oidc(&self, request: &Request) -> Result<Response<Payload>, Failure> {
        self.at_replica()?;
        let back = CameBack {
            state: request.query("state").unwrap_or_default(),
            issuer: request.query("iss"),
            error: request.query("error").is_some_and(|error| !error.is_empty()),
            code: request.query("code").unwrap_or_default(),
        };
        let by = Actor { name: String::new(), address: Some(request.client) };
        let begun = request.cookie(BEGUN).unwrap_or_default();
        let ended = self.access.end_oidc(&begun, back, &by, request.origin()).await;
        let ended = ended.map_err(|NotSignedIn { error, name }| {
            let named = Actor { name: name.unwrap_or_default(), ..by.clone() };
            match error {
                AccessError::Wrong => {
                    let message = "the OIDC provider did not sign this person in";
                    self.door.saw_sign_in(named, Some(message));
                    Failure::new(Code::Unauthorized, message)
                }
                AccessError::Denied(message) => {
                    self.door.saw_sign_in(named, Some(&message));
                    AccessError::Denied(message).into()
                }
                error => error.into(),
            }
        });
        let mut response = match ended? {
            SignInEnded::SignedIn { session, name } => {
                self.door.saw_sign_in(Actor { name, ..by }, None);
                let mut response = answer(StatusCode::FOUND);
                set(&mut response, "location", WHO);
                self.set_session(request, &mut response, &session);
                response
            }
            SignInEnded::Choose { cookie, suggestion } => {
                let told = json!({
                    "message": "choose a name: POST /c/oidc/onboard {\"username\": ..}",
                    "username": suggestion,
                });
                let mut response = json_answer(StatusCode::OK, &told);
                self.set_cookie(request, &mut response, CHOOSING, &cookie, STEP_SECONDS);
                response
            }
        };
        // a code is used once
        self.set_cookie(request, &mut response, BEGUN, &Secret::default(), 0);
        Ok(response)
    }

    /// Gives somebody whom the OIDC provider has signed in the name that they have chosen.
    async fn choose_name(&self, mut request: Request) -> Result<Response<Payload>, Failure> {
        self.at_replica()?;
        self.door.check_origin(&request)?;
        let Chosen { username } = body(&mut request).await?;
        let by = Actor { name: String::new(), address: Some(request.client) };
        let who = request.cookie(CHOOSING).unwrap_or_default();
        let session = self.access.choose_name(&who, &username, &by).await?;
        self.door.saw_sign_in(Actor { name: username, ..by }, None);
        let mut response = answer(StatusCode::OK);
        self.set_session(&request, &mut response, &session);
        self.set_cookie(&request, &mut response, CHOOSING, &Secret::default(), 0);
        Ok(response)
    }

    fn at_replica(&self) -> Result<(), Failure> {
        if self.neighbours.is_edge() {
            let message = "an edge begins no sessions; ask a replica";
            return Err(Failure::new(Code::Denied, message));
        }
        Ok(())
    }

    /// Answers what browsers ask outside of the API.
    pub async fn answer_browser(
        &self,
        route: Route,
        request: Request,
    ) -> Result<Response<Payload>, Failure> {
        let reads = matches!(request.method, Method::GET | Method::HEAD);
        let posts = request.method == Method::POST;
        match route {
            Route::Login if posts => self.sign_in(request).await,
            Route::Logout if reads => Ok(self.sign_out(&request)),
            Route::OidcLogin if reads => self.begin_oidc(&request).await,
            Route::OidcCallback if reads => self.end_oidc(&request).await,
            Route::OidcOnboard if posts => self.choose_name(request).await,
            _ => {
                let message = format!("{} is not supported here", request.method);
                Err(Failure::new(Code::Unsupported, message).closing_unless_read(&request))
            }
        }
    }

    fn set_session(
        &self,
        request: &Request,
        response: &mut Response<Payload>,
        session: &NewSession,
    ) {
        self.set_cookie(request, response, SESSION, &session.cookie, session.lasts.as_secs());
    }

    /// Sets a cookie for so many seconds. A page of another site cannot send it with a write, and no
    /// page can read it.
    fn set_cookie(
        &self,
        request: &Request,
        response: &mut Response<Payload>,
        name: &str,
        value: &Secret,
        seconds: u64,
    ) {
        let secure = if self.door.url_of(request).starts_with("https:") { "; Secure" } else { "" };
        let path = if name == SESSION { "/" } else { "/c/oidc" };
        let cookie = format!(
            "{name}={}; Path={path}; HttpOnly; SameSite=Lax; Max-Age={seconds}{secure}",
            value.expose(),
        );
        if let Ok(mut value) = HeaderValue::from_str(&cookie) {
            value.set_sensitive(true);
            response.headers_mut().append(header::SET_COOKIE, value);
        }
        set(response, "cache-control", "no-store");
    }
}
