//! Prevents that a web page of another site writes with the credentials that a browser keeps for
//! this node.
//!
//! A browser sends such credentials with forms of any page. It also says where a request comes from
//! (`Origin`, RFC 6454; `Sec-Fetch-Site`), which a page cannot forge. And it lets a page of another
//! site send JSON only if this node agrees first, which it never does.

use http::{HeaderMap, Method};

use super::errors::{Code, Failure};
use super::request::Request;

/// Refuses a write that a page of another site has sent, and a body that is not declared as JSON.
/// Reads are allowed, because other pages cannot see the answer.
pub(super) fn check(request: &Request, public_url: Option<&str>) -> Result<(), Failure> {
    if matches!(request.method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    check_site(request, public_url)?;
    if request.announces_body() && !request.content_type().eq_ignore_ascii_case("application/json")
    {
        let message =
            "the body must be declared as JSON: send it with `Content-Type: application/json`";
        return Err(Failure::new(Code::MediaType, message).closing_unless_read(request));
    }
    Ok(())
}

/// Refuses what a page of another site has sent.
pub(super) fn check_site(request: &Request, public_url: Option<&str>) -> Result<(), Failure> {
    if is_foreign(&request.head.headers, request.host(), public_url) {
        let message = "this was sent by a page of another site, which may not write here";
        return Err(Failure::new(Code::Denied, message).closing_unless_read(request));
    }
    Ok(())
}

/// Whether these headers show that a browser sends the request for another site's page. Other
/// clients send neither header.
fn is_foreign(headers: &HeaderMap, host: Option<&str>, public_url: Option<&str>) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("unreadable"));
    if text("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return true;
    }
    let Some(origin) = text("origin") else { return false };
    let Some((_, origin)) = origin.split_once("://") else { return true };
    let own = [host, public_url.and_then(|url| url.split_once("://")).map(|(_, rest)| rest)];
    let own = own.into_iter().flatten().map(|own| own.split('/').next().unwrap_or_default());
    !own.into_iter().any(|own| own.eq_ignore_ascii_case(origin))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn foreign(pairs: &[(&'static str, &str)]) -> bool {
        let headers: HeaderMap = pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        let host = headers.get("host").map(|host| host.to_str().unwrap());
        is_foreign(&headers, host, Some("https://registry.example/"))
    }

    #[test]
    fn a_page_of_another_site_is_told_from_ones_own_and_from_no_page() {
        let host = ("host", "10.0.0.1:5000");
        assert!(!foreign(&[host]), "curl, Terraform, docker");
        assert!(!foreign(&[host, ("origin", "http://10.0.0.1:5000")]));
        assert!(
            !foreign(&[host, ("origin", "https://registry.example")]),
            "behind a proxy with another name"
        );
        assert!(!foreign(&[
            host,
            ("origin", "http://10.0.0.1:5000"),
            ("sec-fetch-site", "same-origin")
        ]));
        assert!(!foreign(&[host, ("sec-fetch-site", "none")]), "typed by the user");
        for origin in [
            "http://evil.example",
            "null",
            "http://10.0.0.1:5001",
            "http://10.0.0.1",
            "",
            "http://",
        ] {
            assert!(foreign(&[host, ("origin", origin)]), "{origin:?}");
        }
        for site in ["cross-site", "same-site", ""] {
            assert!(foreign(&[host, ("sec-fetch-site", site)]), "{site:?}");
        }
        assert!(foreign(&[("origin", "http://10.0.0.1:5000")]), "no host to compare with");
    }
}
