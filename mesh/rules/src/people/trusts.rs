//! Whose tokens of other issuers are accepted, and as which robot. Whether a token was signed by its
//! issuer is checked elsewhere.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::ledger::people::TrustTerms;

/// With this name, a password is a token of another issuer. No user and no robot has it.
pub const WORKLOAD: &str = "$workload";

/// The maximum length of such a token, and of an issuer's keys, in bytes.
pub const LONGEST_TOKEN: usize = 16 << 10;
/// See [`LONGEST_TOKEN`].
pub const LONGEST_KEYS: usize = 64 << 10;

/// The maximum length of one text of a rule in bytes, and the maximum number of its claims.
const LONGEST_TEXT: usize = 512;
const MOST_CLAIMS: usize = 16;

/// Claims that say nothing about whose token it is: each token of an issuer has them (RFC 7519
/// section 4.1).
const OF_EACH: [&str; 6] = ["iss", "aud", "exp", "nbf", "iat", "jti"];

/// Why a rule is refused. A sentence for the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTrust {
    /// The issuer is no URL.
    #[error("issuer is the URL in the tokens' `iss`; it begins with https:// or http://")]
    Issuer,
    /// Something is missing.
    #[error("{0} is needed, and has at most {LONGEST_TEXT} bytes")]
    Text(&'static str),
    /// Everybody would be let in.
    #[error(
        "subject has '*' and no letter or digit, and no claim says whose tokens are meant: every token of the issuer, or nearly every one, would be accepted"
    )]
    Everybody,
    /// There are too many claims.
    #[error("at most {MOST_CLAIMS} claims are accepted")]
    TooMany,
}

/// Checks a new rule.
pub fn check(terms: &TrustTerms) -> Result<(), BadTrust> {
    let fits = |text: &str| !text.is_empty() && text.len() <= LONGEST_TEXT;
    let TrustTerms { issuer, audience, subject, claims } = terms;
    let host = issuer.strip_prefix("https://").or_else(|| issuer.strip_prefix("http://"));
    if !fits(issuer) || host.is_none_or(str::is_empty) {
        return Err(BadTrust::Issuer);
    }
    for (name, text) in [("audience", audience), ("subject", subject)] {
        if !fits(text) {
            return Err(BadTrust::Text(name));
        }
    }
    if claims.len() > MOST_CLAIMS {
        return Err(BadTrust::TooMany);
    }
    if !claims.iter().all(|(name, text)| fits(name) && fits(text)) {
        return Err(BadTrust::Text("each claim"));
    }
    // without a letter or a digit it names nobody: `* *`, `*:*`, `*/*`
    let any = |text: &String| text.contains('*') && !text.chars().any(char::is_alphanumeric);
    let tells_apart =
        |(name, text): (&String, &String)| !OF_EACH.contains(&name.as_str()) && !any(text);
    if any(subject) && !claims.iter().any(tells_apart) {
        return Err(BadTrust::Everybody);
    }
    Ok(())
}

/// Whether a token with these claims is meant by a rule.
pub fn matches(terms: &TrustTerms, claims: &BTreeMap<String, Value>) -> bool {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let audience = match claims.get("aud") {
        Some(Value::String(one)) => *one == terms.audience,
        Some(Value::Array(all)) => all.iter().any(|one| one.as_str() == Some(&terms.audience)),
        _ => false,
    };
    let says = |(name, pattern): (&String, &String)| match claims.get(name) {
        Some(Value::String(text)) => fits(pattern, text),
        Some(Value::Bool(is)) => fits(pattern, &is.to_string()),
        Some(Value::Number(number)) => fits(pattern, &number.to_string()),
        _ => false,
    };
    audience
        && text("iss") == Some(&terms.issuer)
        && text("sub").is_some_and(|subject| fits(&terms.subject, subject))
        && terms.claims.iter().all(says)
}

/// Whether `text` fits `pattern`, in which `*` stands for any text and nothing else has a meaning:
/// subjects have slashes, brackets and question marks of their own.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn terms() -> TrustTerms {
        TrustTerms {
            issuer: "https://kubernetes.default.svc".into(),
            audience: "atoll".into(),
            subject: "system:serviceaccount:prod:*".into(),
            claims: BTreeMap::new(),
        }
    }

    fn claims(value: Value) -> BTreeMap<String, Value> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_token_is_meant_if_all_that_the_rule_names_fits() {
        let good = json!({"iss": "https://kubernetes.default.svc", "aud": ["other", "atoll"],
            "sub": "system:serviceaccount:prod:web", "exp": 1});
        assert!(matches(&terms(), &claims(good.clone())));
        for (name, value) in [
            ("iss", json!("https://kubernetes.default.svc/")),
            ("aud", json!("atoll2")),
            ("aud", json!(["other"])),
            ("aud", json!(7)),
            ("sub", json!("system:serviceaccount:production:web")),
            ("sub", json!(["system:serviceaccount:prod:web"])),
            ("sub", json!(null)),
        ] {
            let mut other = good.clone();
            other[name] = value;
            assert!(!matches(&terms(), &claims(other.clone())), "{other}");
        }
        let mut one = good.clone();
        one["aud"] = json!("atoll");
        assert!(matches(&terms(), &claims(one)));
    }

    #[test]
    fn other_claims_must_fit_too() {
        let rule = TrustTerms {
            claims: BTreeMap::from([
                ("ref".to_owned(), "refs/heads/*".to_owned()),
                ("protected".to_owned(), "true".to_owned()),
            ]),
            ..terms()
        };
        let base =
            json!({"iss": rule.issuer, "aud": "atoll", "sub": "system:serviceaccount:prod:a"});
        let fits = |reference: &str, protected: Value| {
            let mut all = base.clone();
            all["ref"] = reference.into();
            all["protected"] = protected;
            matches(&rule, &claims(all))
        };
        assert!(fits("refs/heads/main", json!(true)) && fits("refs/heads/main", json!("true")));
        assert!(!fits("refs/tags/1", json!(true)) && !fits("refs/heads/main", json!(false)));
        assert!(!matches(&rule, &claims(base)), "a claim that is missing fits nothing");
    }

    #[test]
    fn only_a_star_means_something_else() {
        for (pattern, text) in [
            ("a", "a"),
            ("*", ""),
            ("*", "x/y"),
            ("a*c*e", "abcde"),
            ("a*a", "aa"),
            ("repo:o/r:*", "repo:o/r:x?["),
        ] {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("a", "ab"),
            ("a", ""),
            ("a*a", "a"),
            ("a?", "ab"),
            ("a*b", "ac"),
            ("*b*c", "cb"),
            ("", "a"),
        ] {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn a_rule_that_lets_everybody_in_is_refused() {
        assert_eq!(check(&terms()), Ok(()));
        let any = TrustTerms { subject: "*".into(), ..terms() };
        assert_eq!(check(&any), Err(BadTrust::Everybody));
        let with = |name: &str, text: &str| TrustTerms {
            claims: BTreeMap::from([(name.to_owned(), text.to_owned())]),
            ..any.clone()
        };
        for each in OF_EACH {
            assert_eq!(check(&with(each, "1*")), Err(BadTrust::Everybody), "{each}");
        }
        let owner = |text: &str| with("repository_owner", text);
        assert_eq!((check(&owner("us")), check(&owner("**"))), (Ok(()), Err(BadTrust::Everybody)));
        for wide in ["* *", "*:*", "*/*", "**", "*-*", " * ", "*:*:*"] {
            let rule = TrustTerms { subject: wide.into(), ..terms() };
            assert_eq!(check(&rule), Err(BadTrust::Everybody), "{wide}");
            assert_eq!(check(&owner(wide)), Err(BadTrust::Everybody), "{wide}");
        }
        assert_eq!(check(&TrustTerms { issuer: "kube".into(), ..terms() }), Err(BadTrust::Issuer));
        assert_eq!(
            check(&TrustTerms { audience: String::new(), ..terms() }),
            Err(BadTrust::Text("audience"))
        );
    }

    proptest! {
        #[test]
        fn a_pattern_without_a_star_fits_itself_only(a in "[ab*]{0,6}", b in "[ab]{0,6}") {
            if !a.contains('*') {
                prop_assert_eq!(fits(&a, &b), a == b);
            }
            prop_assert!(fits("*", &b) && fits(&b.replace('a', "*"), &b));
        }
    }
}
