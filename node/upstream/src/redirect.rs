//! Resolves a `Location` (RFC 9110 section 10.2.2). Storage services send characters that
//! `http::Uri` does not accept, such as spaces and braces in signed queries. Those are
//! percent-encoded; nothing else is changed.

use http::Uri;
use http::uri::Scheme;

use super::address::is_port_readable;

/// The URL that `location` means in an answer from `base`; `None` if it cannot be followed.
pub fn follow(base: &Uri, location: &[u8]) -> Option<Uri> {
    let location = written(location.trim_ascii());
    let location = location.split('#').next().filter(|l| !l.is_empty())?;
    let scheme = base.scheme_str()?;
    let origin = format!("{scheme}://{}", base.authority()?);
    let before_path = location.split(['/', '?']).next().unwrap_or_default();
    let whole = if before_path.ends_with(':') {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{origin}{location}")
    } else if location.starts_with('?') {
        format!("{origin}{}{location}", base.path())
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        let (path, query) = location.split_at(location.find('?').unwrap_or(location.len()));
        format!("{origin}{}{query}", without_dots(&format!("{folder}/{path}")))
    };
    let url: Uri = whole.parse().ok()?;
    let followable = url.scheme() == Some(&Scheme::HTTP) || url.scheme() == Some(&Scheme::HTTPS);
    let authority = url.authority()?;
    let whole = is_port_readable(authority)
        && !authority.host().is_empty()
        && !authority.as_str().contains('@');
    (followable && whole).then_some(url)
}

/// The path that a relative one leads to (RFC 3986 section 5.2.4). Above the root is the root.
fn without_dots(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/').skip(1) {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    if path.ends_with("/.") || path.ends_with("/..") {
        parts.push("");
    }
    format!("/{}", parts.join("/"))
}

/// `location` with percent-encoding for the bytes that a URL must not contain.
fn written(location: &[u8]) -> String {
    let mut text = String::with_capacity(location.len());
    for byte in location {
        match byte {
            0..=0x20 | 0x7f.. | b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => {
                text.push_str(&format!("%{byte:02X}"));
            }
            plain => text.push(*plain as char),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lead(location: &str) -> Option<String> {
        let base: Uri = "https://r.example:8443/v2/a/blobs/x?y=1".parse().unwrap();
        follow(&base, location.as_bytes()).map(|url| url.to_string())
    }

    #[test]
    fn every_form_of_a_location_leads_where_a_browser_would_go() {
        for (location, url) in [
            ("https://cdn.example/b?sig=a%2Fb", "https://cdn.example/b?sig=a%2Fb"),
            ("//cdn.example/b", "https://cdn.example/b"),
            ("/v2/b", "https://r.example:8443/v2/b"),
            ("?z=https://x", "https://r.example:8443/v2/a/blobs/x?z=https://x"),
            ("y", "https://r.example:8443/v2/a/blobs/y"),
            ("./y?../z", "https://r.example:8443/v2/a/blobs/y?../z"),
            ("../../cdn/y?z=a/..", "https://r.example:8443/v2/cdn/y?z=a/.."),
            ("../../../../../y", "https://r.example:8443/y"),
            ("..", "https://r.example:8443/v2/a/"),
            ("y//z/", "https://r.example:8443/v2/a/blobs/y//z/"),
            (
                " https://cdn.example/a b?f={\"é\"}#part ",
                "https://cdn.example/a%20b?f=%7B%22%C3%A9%22%7D",
            ),
        ] {
            assert_eq!(lead(location).as_deref(), Some(url), "{location}");
        }
    }

    #[test]
    fn what_is_not_http_or_carries_a_password_is_not_followed() {
        for location in [
            "",
            "#x",
            "ftp://x/y",
            "file:///etc/passwd",
            "https://me:pw@x/",
            "https://",
            "http://x:99999/",
        ] {
            assert_eq!(lead(location), None, "{location}");
        }
    }

    proptest! {
        #[test]
        fn no_location_makes_it_panic_and_each_result_has_a_host(location in proptest::collection::vec(any::<u8>(), 0..100)) {
            let base: Uri = "http://r.example/v2/".parse().unwrap();
            if let Some(url) = follow(&base, &location) {
                prop_assert!(url.host().is_some_and(|host| !host.is_empty()));
            }
        }
    }
}
