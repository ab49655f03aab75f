//! Parses the `WWW-Authenticate` header (RFC 9110 section 11.6.1), with which a registry asks for
//! credentials. It contains one or several challenges, each a scheme with parameters, all separated
//! by commas.

/// A way to authenticate a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// With a token from the service at `realm`.
    Bearer {
        /// The token service's URL.
        realm: String,
        /// The registry's name there.
        service: Option<String>,
        /// What the token must grant, for example `repository:library/alpine:pull`.
        scope: Option<String>,
    },
    /// With a user name and a password in every request.
    Basic,
}

/// Parses all `WWW-Authenticate` headers of an answer. Unsupported schemes and malformed challenges
/// are left out.
pub fn parse<'a>(headers: impl IntoIterator<Item = &'a str>) -> Vec<Challenge> {
    headers.into_iter().flat_map(parse_one).collect()
}

fn parse_one(header: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut reader = Reader { rest: header };
    let mut current: Option<Raw> = None;
    loop {
        reader.skip(|c| c == ',' || c.is_ascii_whitespace());
        let word = reader.word();
        if word.is_empty() {
            // the end, or something that cannot begin a challenge
            break;
        }
        reader.skip(|c| c.is_ascii_whitespace());
        match reader.value() {
            Some(value) => {
                if let Some(raw) = &mut current {
                    raw.parameters.push((word.to_ascii_lowercase(), value));
                }
            }
            None => {
                found.extend(current.take().and_then(Raw::challenge));
                current = Some(Raw { scheme: word.to_ascii_lowercase(), parameters: Vec::new() });
            }
        }
    }
    found.extend(current.and_then(Raw::challenge));
    found
}

struct Raw {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Raw {
    fn challenge(mut self) -> Option<Challenge> {
        let mut take = |name: &str| {
            let at = self.parameters.iter().position(|(n, _)| n == name)?;
            Some(self.parameters.swap_remove(at).1).filter(|v| !v.is_empty())
        };
        match self.scheme.as_str() {
            "bearer" => Some(Challenge::Bearer {
                realm: take("realm")?,
                service: take("service"),
                scope: take("scope"),
            }),
            "basic" => Some(Challenge::Basic),
            _ => None,
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn skip(&mut self, what: impl Fn(char) -> bool) {
        self.rest = self.rest.trim_start_matches(what);
    }

    /// A token, or a token68 (`Negotiate YII=`). No scheme with a token68 is supported, so the two
    /// need not be distinguished.
    fn word(&mut self) -> &'a str {
        let end =
            self.rest.find(|c: char| c == ',' || c == '=' || c == '"' || c.is_ascii_whitespace());
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        word
    }

    /// The value after `=`, if that is next.
    fn value(&mut self) -> Option<String> {
        self.rest = self.rest.strip_prefix('=')?;
        self.skip(|c| c.is_ascii_whitespace());
        let Some(quoted) = self.rest.strip_prefix('"') else {
            // unquoted, and parsed leniently: some registries write URLs and scopes without quotes
            let end = self
                .rest
                .find(|c: char| c == ',' || c.is_ascii_whitespace())
                .unwrap_or(self.rest.len());
            let (value, rest) = self.rest.split_at(end);
            self.rest = rest;
            return Some(value.to_owned());
        };
        let mut value = String::new();
        let mut characters = quoted.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    self.rest = &quoted[at + 1..];
                    return Some(value);
                }
                '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
                plain => value.push(plain),
            }
        }
        // no closing quote: the value is the rest
        self.rest = "";
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Challenge::Bearer { realm: realm.to_owned(), service: owned(service), scope: owned(scope) }
    }

    #[test]
    fn the_challenges_of_known_registries_are_read() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull",error="invalid_token""#;
        let scope = Some("repository:library/alpine:pull");
        assert_eq!(
            parse([hub]),
            [bearer("https://auth.docker.io/token", Some("registry.docker.io"), scope)]
        );
        let two_actions = r#"Bearer realm="https://r/t", scope="repository:a/b:pull,push""#;
        assert_eq!(
            parse([two_actions]),
            [bearer("https://r/t", None, Some("repository:a/b:pull,push"))]
        );
        assert_eq!(
            parse([r#"Basic realm="https://1.dkr.ecr.eu-west-1.amazonaws.com/",service="ecr""#]),
            [Challenge::Basic]
        );
        assert_eq!(parse(["basic"]), [Challenge::Basic]);
    }

    #[test]
    fn several_challenges_come_in_one_header_or_in_many() {
        let wanted = [Challenge::Basic, bearer("https://r/t", Some("s"), None)];
        assert_eq!(
            parse([r#"Basic realm="a, b=c", Bearer realm="https://r/t",service="s""#]),
            wanted
        );
        assert_eq!(
            parse([r#"Basic realm="x""#, r#"BEARER service=s , realm = https://r/t"#]),
            wanted
        );
        assert_eq!(
            parse([
                r#"Negotiate YIIabc==, Basic, Digest realm="d", Bearer realm="https://r/t",service=s"#
            ]),
            wanted
        );
    }

    #[test]
    fn quotes_may_hold_quotes_and_a_bearer_without_a_realm_is_none() {
        assert_eq!(parse([r#"Bearer realm="a\"b\\c""#]), [bearer(r#"a"b\c"#, None, None)]);
        assert_eq!(
            parse([r#"Bearer service="s""#, r#"Bearer realm="""#, "", ",,", "=", r#""x""#]),
            []
        );
        assert_eq!(parse([r#"Bearer realm="https://open"#]), [bearer("https://open", None, None)]);
    }

    proptest! {
        #[test]
        fn no_header_makes_the_parser_panic(header in ".{0,200}") {
            let _ = parse([header.as_str()]);
        }

        #[test]
        fn neither_does_one_made_of_its_own_parts(parts in proptest::collection::vec(
            prop_oneof![Just("Bearer "), Just("Basic"), Just("realm="), Just("\""), Just("\\"), Just(","), Just("="), Just(" "), Just("ä")], 0..30)) {
            let _ = parse([parts.concat().as_str()]);
        }

        #[test]
        fn what_is_written_quoted_reads_back(realm in "[ -~]{1,40}", service in "[ -~]{1,40}", basic in any::<bool>()) {
            let quote = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
            let before = if basic { "Basic realm=\"x\", " } else { "" };
            let header = format!("{before}Bearer realm={},service={}", quote(&realm), quote(&service));
            prop_assert_eq!(parse([header.as_str()]).pop(), Some(bearer(&realm, Some(&service), None)));
        }
    }
}
