//! Who may ask this adapter: whoever shows one of the secrets in a file.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, header};
use rules::words::digest::Digest;
use scan::adapter::API_KEY;

/// The secrets that are accepted, each as its hash: how long a comparison takes tells nothing of them.
#[derive(Clone, Debug)]
pub enum Authorization {
    /// Everybody may ask.
    Open,
    /// Who shows one of these.
    Secrets(Vec<Digest>),
}

fn hashed(scheme: &str, secret: &str) -> Digest {
    Digest::sha256(format!("{scheme} {secret}").as_bytes())
}

impl Authorization {
    /// Reads a file with a line for each secret: `basic NAME:PASSWORD`, `bearer TOKEN` or
    /// `api-key KEY`. Empty lines and those that begin with `#` do not count. The error is a sentence,
    /// and has no secret.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut secrets = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = || {
                let number = number + 1;
                format!(
                    "line {number} is none of `basic NAME:PASSWORD`, `bearer TOKEN` and `api-key KEY`"
                )
            };
            let (scheme, secret) = line.split_once(' ').ok_or_else(wrong)?;
            let (scheme, secret) = (scheme.to_ascii_lowercase(), secret.trim());
            let is_right = match scheme.as_str() {
                "basic" => secret.split_once(':').is_some_and(|(name, _)| !name.is_empty()),
                "bearer" | "api-key" => !secret.is_empty(),
                _ => false,
            };
            if !is_right {
                return Err(wrong());
            }
            secrets.push(hashed(&scheme, secret));
        }
        if secrets.is_empty() {
            return Err("it has no secret".into());
        }
        Ok(Authorization::Secrets(secrets))
    }

    /// Whether a request with these headers may be answered.
    pub fn admits(&self, headers: &HeaderMap) -> bool {
        let Authorization::Secrets(secrets) = self else { return true };
        let key = headers.get(API_KEY).and_then(|value| value.to_str().ok());
        let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let key = key.map(|key| hashed("api-key", key.trim()));
        let shown = shown.and_then(|written| {
            let (scheme, value) = written.trim().split_once(' ')?;
            match scheme.to_ascii_lowercase().as_str() {
                "basic" => {
                    let pair = BASE64_STANDARD.decode(value.trim()).ok()?;
                    Some(hashed("basic", &String::from_utf8(pair).ok()?))
                }
                "bearer" => Some(hashed("bearer", value.trim())),
                _ => None,
            }
        });
        [key, shown].iter().flatten().any(|one| secrets.contains(one))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_shows_one_of_the_secrets_is_admitted_and_nobody_else() {
        let file = "# ours\nbasic harbor:pa ss:word\n\nBearer token\napi-key key\n";
        let secrets = Authorization::read(file).unwrap();
        let admits = |name: &'static str, value: String| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            secrets.admits(&headers)
        };
        let basic = |pair: &str| format!("Basic {}", BASE64_STANDARD.encode(pair));
        assert!(admits("authorization", basic("harbor:pa ss:word")));
        assert!(admits("authorization", "bearer token".into()));
        assert!(admits("x-scanneradapter-api-key", "key".into()));
        for (name, value) in [
            ("authorization", basic("harbor:other")),
            ("authorization", "Bearer key".into()),
            ("authorization", "Basic !".into()),
            ("authorization", "token".into()),
            ("x-scanneradapter-api-key", "token".into()),
        ] {
            assert!(!admits(name, value.clone()), "{value}");
        }
        assert!(!secrets.admits(&HeaderMap::new()));
        assert!(Authorization::Open.admits(&HeaderMap::new()));
    }

    #[test]
    fn a_file_that_is_wrong_is_refused_without_its_secrets() {
        for wrong in
            ["", "# none\n", "digest x", "basic name", "basic :secret", "bearer ", "secret"]
        {
            let said = Authorization::read(wrong).unwrap_err();
            assert!(!said.contains("secret:") && !said.is_empty(), "{wrong}");
        }
        assert!(Authorization::read("bearer a\nhunter2").unwrap_err().contains("line 2"));
    }
}
