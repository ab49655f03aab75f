//! Amazon ECR. Its registries accept passwords that are valid for twelve hours; ECR's API exchanges
//! an AWS access key for one. This module needs no socket and no clock: [`super::login`] sends the
//! requests of [`AccessKey::request`], and uses the password that [`AccessKey::read`] finds.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::Full;
use rules::words::moment::{Moment, Timestamp};
use rules::words::secret::Secret;
use serde_json::Value;

use super::UpstreamError;
use super::address::Endpoint;
use super::headers::USER_AGENT;
use super::password::{PAUSE, Password};
use super::sigv4::{self, Scope, Signing};

/// Harbor's name for the kind of Amazon ECR.
const KIND: &str = "aws-ecr";
/// The user name of all of ECR's passwords.
const USER: &str = "AWS";
const DOMAINS: [&str; 2] = [".amazonaws.com", ".amazonaws.com.cn"];
const JSON: &str = "application/x-amz-json-1.1";
const TARGET: &str = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken";
const BODY: &str = "{}";
/// The maximum time in seconds that a password is used, whatever this machine's clock says about
/// its expiry.
const LONGEST: f64 = 12.0 * 3600.0;
/// How many seconds before its expiry a password is replaced. AWS accepts clocks that are five
/// minutes wrong, so the expiry may seem later by as much.
const EARLY: f64 = 600.0;

/// The API that gives out passwords for a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    pub(super) url: Uri,
    pub(super) region: String,
}

/// Why an access key cannot be used for a registry at this address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a registry of type aws-ecr whose credential is an AWS access key is written https://ACCOUNT.dkr.ecr.REGION.amazonaws.com (or dkr.ecr-fips, or \
     .amazonaws.com.cn), ACCOUNT having twelve digits, without port and path; if the secret is a ready password, the access key is AWS; public.ecr.aws needs none"
)]
pub struct NotEcr;

/// The API that exchanges the credentials of a registry of Harbor's `kind` at `endpoint` for a
/// password. `user` is the first part of the credentials. `None` if they are sent as they are.
pub fn api(kind: &str, endpoint: &Endpoint, user: &str) -> Result<Option<Api>, NotEcr> {
    if kind != KIND || user == USER {
        return Ok(None);
    }
    let host = endpoint.registry().filter(|_| endpoint.is_secure());
    host.and_then(|host| Place::parse(&host)?.api()).map(Some).ok_or(NotEcr)
}

/// The parts of the name of a registry's host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place<'a> {
    account: &'a str,
    fips: bool,
    region: &'a str,
    domain: &'static str,
}

impl<'a> Place<'a> {
    fn parse(host: &'a str) -> Option<Self> {
        let (labels, domain) =
            DOMAINS.iter().find_map(|domain| Some((host.strip_suffix(domain)?, *domain)))?;
        let [account, "dkr", service, region] = labels.split('.').collect::<Vec<_>>()[..] else {
            return None;
        };
        let fips = match service {
            "ecr" => false,
            "ecr-fips" => true,
            _ => return None,
        };
        let is_account = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
        let is_region = region.starts_with(|c: char| c.is_ascii_lowercase())
            && region.ends_with(|c: char| c.is_ascii_digit())
            && region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        (is_account && is_region).then_some(Place { account, fips, region, domain })
    }

    fn api(self) -> Option<Api> {
        let service = if self.fips { "ecr-fips" } else { "api.ecr" };
        let url = format!("https://{service}.{}{}/", self.region, self.domain).parse().ok()?;
        Some(Api { url, region: self.region.to_owned() })
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { account, fips, region, domain } = self;
        write!(f, "{account}.dkr.ecr{}.{region}{domain}", if *fips { "-fips" } else { "" })
    }
}

/// An AWS access key, and the API that exchanges it for passwords. The secret is never sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessKey {
    /// The access key id.
    pub id: String,
    /// The secret access key.
    pub secret: Secret,
    /// ECR's API.
    pub api: Api,
}

impl AccessKey {
    /// The request for a password. AWS accepts it within five minutes of `at`.
    pub(super) fn request(&self, at: Timestamp) -> Result<Request<Full<Bytes>>, UpstreamError> {
        let host = self.api.url.authority().map_or("", Authority::as_str);
        let stamp = sigv4::stamp(at);
        let headers = [("content-type", JSON), ("host", host), ("x-amz-target", TARGET)];
        let signing = Signing {
            method: "POST",
            path: self.api.url.path(),
            query: "",
            headers: &headers,
            body: BODY.as_bytes(),
        };
        let scope = Scope { region: &self.api.region, service: "ecr" };
        let authorization =
            sigv4::authorization(&self.id, self.secret.expose(), &scope, &signing, &stamp);
        let authorization = HeaderValue::try_from(authorization);
        let mut authorization = authorization.map_err(|_| {
            UpstreamError::Denied("the access key id is none that AWS gives out".into())
        })?;
        authorization.set_sensitive(true);
        let mut request = Request::post(self.api.url.clone());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request
            .header("x-amz-date", stamp)
            .header(header::AUTHORIZATION, authorization)
            .header(header::USER_AGENT, USER_AGENT)
            .header(header::ACCEPT_ENCODING, "identity")
            .body(Full::from(BODY))
            .map_err(UpstreamError::bad)
    }

    /// The password in an answer to the request made at `at`, and how long after `at` to use it.
    /// `wait` is the pause that the answer asks for, and `now` is when it came.
    pub(super) fn read(
        &self,
        (status, wait): (StatusCode, Option<Duration>),
        body: &[u8],
        at: Timestamp,
        now: Moment,
    ) -> Result<(Password, Duration), UpstreamError> {
        let answer: Value = serde_json::from_slice(body).unwrap_or_default();
        if status == StatusCode::OK {
            let found = password(&answer, at);
            return found.ok_or_else(|| {
                UpstreamError::bad(format!("{self} gave no password that can be used"))
            });
        }
        let reason = Reason::of(&answer);
        if reason.is_limit()
            || status == StatusCode::TOO_MANY_REQUESTS
            || (status.as_u16() == 503 && wait.is_some())
        {
            return Err(UpstreamError::Limited { until: now + wait.unwrap_or(PAUSE) });
        }
        Err(match status.as_u16() {
            400 | 401 | 403 => UpstreamError::Denied(
                format!("{self} refused the access key, {status}: {reason}").into(),
            ),
            500.. => UpstreamError::unreachable(format!("{self} answered {status}: {reason}")),
            _ => UpstreamError::bad(format!("{self} answered {status}")),
        })
    }
}

impl fmt::Display for AccessKey {
    /// Names the API, for messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Amazon ECR's API in {}", self.api.region)
    }
}

/// Parses `authorizationToken`, which is `AWS:password` in base64, and `expiresAt`, which is in
/// seconds since 1970 with a fraction.
fn password(answer: &Value, at: Timestamp) -> Option<(Password, Duration)> {
    let data = &answer["authorizationData"][0];
    let token = BASE64_STANDARD.decode(data["authorizationToken"].as_str()?).ok()?;
    let (user, password) = std::str::from_utf8(&token).ok()?.split_once(':')?;
    let life = (data["expiresAt"].as_f64()? - at.0 as f64 / 1000.0).clamp(0.0, LONGEST);
    let life = Duration::from_secs_f64(life - (life / 10.0).min(EARLY));
    (!password.is_empty())
        .then(|| (Password { user: user.to_owned(), password: password.into() }, life))
}

/// AWS's description of an error.
struct Reason {
    kind: String,
    message: String,
}

impl Reason {
    fn of(answer: &Value) -> Self {
        let text = |name: &str| {
            let text = answer[name].as_str().unwrap_or_default();
            text.chars().filter(|c| !c.is_control()).take(200).collect::<String>()
        };
        let kind = text("__type");
        let kind = kind.rsplit('#').next().unwrap_or_default().to_owned();
        let message =
            Some(text("message")).filter(|m| !m.is_empty()).unwrap_or_else(|| text("Message"));
        Reason { kind, message }
    }

    fn is_limit(&self) -> bool {
        ["Throttl", "TooManyRequests", "RequestLimitExceeded"]
            .iter()
            .any(|word| self.kind.contains(word))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind.as_str(), self.message.as_str()) {
            ("", "") => f.write_str("no reason given"),
            (kind, "") => f.write_str(kind),
            ("", message) => f.write_str(message),
            (kind, message) => write!(f, "{kind}: {message}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(user: &str, url: &str) -> Result<Option<String>, NotEcr> {
        Ok(api("aws-ecr", &url.parse().unwrap(), user)?
            .map(|api| format!("{} {}", api.region, api.url)))
    }

    #[test]
    fn the_host_says_where_an_access_key_is_exchanged() {
        for (url, wanted) in [
            (
                "https://123456789012.dkr.ecr.eu-west-1.amazonaws.com",
                "eu-west-1 https://api.ecr.eu-west-1.amazonaws.com/",
            ),
            (
                "123456789012.DKR.ECR.us-gov-west-1.amazonaws.com:443/v2/",
                "us-gov-west-1 https://api.ecr.us-gov-west-1.amazonaws.com/",
            ),
            (
                "https://123456789012.dkr.ecr-fips.us-east-1.amazonaws.com/",
                "us-east-1 https://ecr-fips.us-east-1.amazonaws.com/",
            ),
            (
                "https://123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
                "cn-north-1 https://api.ecr.cn-north-1.amazonaws.com.cn/",
            ),
        ] {
            assert_eq!(place("AKIA", url).unwrap().as_deref(), Some(wanted), "{url}");
        }
    }

    #[test]
    fn an_access_key_goes_nowhere_else() {
        for url in [
            "http://123456789012.dkr.ecr.eu-west-1.amazonaws.com",
            "https://123456789012.dkr.ecr.eu-west-1.amazonaws.com:8443",
            "https://123456789012.dkr.ecr.eu-west-1.amazonaws.com/team",
            "https://12345678901.dkr.ecr.eu-west-1.amazonaws.com",
            "https://api.ecr.eu-west-1.amazonaws.com",
            "https://123456789012.dkr.ecr.eu.west-1.amazonaws.com",
            "https://123456789012.dkr.ecr..amazonaws.com",
            "https://123456789012.dkr.ecr.-1.amazonaws.com",
            "https://123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example",
            "https://123456789012.dkr.ecr.eu-west-1.evilamazonaws.com",
            "https://123456789012.dkr.ecr-x.eu-west-1.amazonaws.com",
            "https://public.ecr.aws",
            "https://r.example",
        ] {
            assert_eq!(place("AKIA", url), Err(NotEcr), "{url}");
            assert_eq!(place("AWS", url), Ok(None), "{url}: a ready password is shown as it is");
        }
        assert_eq!(place("AWS", "https://123456789012.dkr.ecr.eu-west-1.amazonaws.com"), Ok(None));
        let elsewhere = "https://123456789012.dkr.ecr.eu-west-1.amazonaws.com".parse().unwrap();
        assert_eq!(
            api("docker-registry", &elsewhere, "AKIA"),
            Ok(None),
            "only this type means an access key"
        );
    }

    fn key() -> AccessKey {
        let host = "123456789012.dkr.ecr.eu-west-1.amazonaws.com".parse().unwrap();
        let api = api("aws-ecr", &host, "AKIDEXAMPLE").unwrap().unwrap();
        AccessKey { id: "AKIDEXAMPLE".into(), secret: "wJalrXUtnFEMI".into(), api }
    }

    const AT: Timestamp = Timestamp(1_440_938_160_000);

    fn read(
        status: u16,
        wait: Option<u64>,
        body: &str,
    ) -> Result<(Password, Duration), UpstreamError> {
        let status = (StatusCode::from_u16(status).unwrap(), wait.map(Duration::from_secs));
        key().read(status, body.as_bytes(), AT, Moment::from_micros(0))
    }

    fn given(token: &str, expires: &str) -> String {
        let token = BASE64_STANDARD.encode(token);
        format!(
            r#"{{"authorizationData":[{{"authorizationToken":"{token}","expiresAt":{expires},"proxyEndpoint":"https://x"}}]}}"#
        )
    }

    #[test]
    fn the_request_is_signed_and_does_not_hold_the_secret() {
        let request = key().request(AT).unwrap();
        assert_eq!(request.uri(), "https://api.ecr.eu-west-1.amazonaws.com/");
        let shown = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(shown("host"), "api.ecr.eu-west-1.amazonaws.com");
        assert_eq!(shown("x-amz-date"), "20150830T123600Z");
        assert_eq!(shown("x-amz-target"), TARGET);
        let wanted = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/eu-west-1/ecr/aws4_request, \
                      SignedHeaders=content-type;host;x-amz-date;x-amz-target, Signature=";
        assert!(shown("authorization").starts_with(wanted), "{}", shown("authorization"));
        assert!(request.headers().values().all(|v| !v.to_str().unwrap().contains("wJalrXUtnFEMI")));
        let printed = format!("{:?} {} {request:?}", key(), key());
        assert!(printed.contains("AKIDEXAMPLE") && !printed.contains("wJalr"), "{printed}");
        assert!(!printed.contains("Signature"), "{printed}");
    }

    #[test]
    fn a_password_is_used_until_shortly_before_its_end() {
        let life = |expires: &str| {
            read(200, None, &given("AWS:pass:word", expires)).map(|(_, life)| life.as_secs_f64())
        };
        let (password, _) = read(200, None, &given("AWS:pass:word", "1440981360.25")).unwrap();
        assert_eq!(password, Password { user: "AWS".into(), password: "pass:word".into() });
        assert_eq!(life("1440981359.5"), Ok(12.0 * 3600.0 - 600.5));
        assert_eq!(life("1440938260"), Ok(90.0));
        assert_eq!(life("1440938160"), Ok(0.0));
        assert_eq!(life("-1e300"), Ok(0.0));
        assert_eq!(life("1e300"), Ok(12.0 * 3600.0 - 600.0));
    }

    #[test]
    fn an_answer_without_a_password_is_none() {
        let unlimited = given("AWS:x", "null");
        for body in ["", "[]", "{}", &given("AWS", "1e10"), &given("AWS:", "1e10"), &unlimited] {
            assert!(matches!(read(200, None, body), Err(UpstreamError::Bad(_))), "{body}");
        }
    }

    #[test]
    fn errors_are_told_apart_and_name_ecr_and_the_region() {
        let wrong = r#"{"__type":"com.amazon.coral.service#UnrecognizedClientException","message":"The security token\n is invalid."}"#;
        for status in [400, 401, 403] {
            let refused = read(status, None, wrong).unwrap_err();
            let UpstreamError::Denied(why) = &refused else { panic!("{refused}") };
            assert!(
                why.starts_with("Amazon ECR's API in eu-west-1 refused the access key"),
                "{why}"
            );
            assert!(
                why.ends_with(": UnrecognizedClientException: The security token is invalid."),
                "{why}"
            );
        }
        assert!(matches!(read(403, None, "<html>"), Err(UpstreamError::Denied(_))));
        let limited = |wait: u64| {
            Err(UpstreamError::Limited { until: Moment::from_micros(wait * 1_000_000) })
        };
        assert_eq!(
            read(400, None, r#"{"__type":"ThrottlingException","Message":"Rate exceeded"}"#),
            limited(5)
        );
        assert_eq!(read(429, Some(7), ""), limited(7));
        assert_eq!(read(503, Some(7), ""), limited(7));
        for status in [500, 503] {
            assert!(matches!(
                read(status, None, r#"{"__type":"ServerException"}"#),
                Err(UpstreamError::Unreachable(_))
            ));
        }
        assert!(matches!(read(302, None, ""), Err(UpstreamError::Bad(_))));
    }

    proptest! {
        #[test]
        fn a_host_reads_back_as_it_was_written(
            account in "[0-9]{12}", fips in any::<bool>(), region in "[a-z]{2}(-gov|-iso)?-[a-z]{4,9}-[1-9]", domain in prop::sample::select(&DOMAINS[..]),
        ) {
            let place = Place { account: &account, fips, region: &region, domain };
            let host = place.to_string();
            prop_assert_eq!(Place::parse(&host), Some(place));
            let api = place.api().unwrap();
            prop_assert_eq!(&api.region, &region);
            let suffix = format!(".{region}{domain}");
            prop_assert!(api.url.host().unwrap().ends_with(&suffix));
        }

        #[test]
        fn no_host_leads_out_of_amazons_domains(host in "([0-9a-z]{0,12}|[0-9]{12})(\\.dkr|\\PC{0,3})(\\.ecr|\\.ecr-fips|\\PC{0,3})(\\.[a-z0-9/@?#:.-]{0,9}){0,2}\\.amazonaws\\.com(\\.cn|\\PC{0,2})") {
            if let Some(place) = Place::parse(&host) {
                prop_assert_eq!(place.to_string(), host.as_str());
                let api = place.api().unwrap();
                prop_assert!(DOMAINS.iter().any(|domain| api.url.host().unwrap().ends_with(domain)));
                prop_assert_eq!((api.url.path(), api.url.port()), ("/", None));
            }
        }

        #[test]
        fn no_answer_makes_it_panic(status in 200u16..600, body in "\\PC{0,60}|\\{\"authorizationData\":\\[\\{\"authorizationToken\":\"[A-Za-z0-9+/=]{0,20}\",\"expiresAt\":-?[0-9]{1,12}(\\.[0-9]{1,4})?\\}\\]\\}") {
            let _ = read(status, None, &body);
        }
    }
}
