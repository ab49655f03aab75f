//! Conditional requests (RFC 9110 section 13): evaluates the conditions of a GET or HEAD for an
//! entity tag. Call this only after it is known that the caller may read the content. Nothing here
//! has a date, so only entity tags are compared.

use http::{HeaderMap, HeaderName, header};

/// How to answer a conditional GET or HEAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Normally, including its `Range`.
    Go,
    /// With the whole content, because the client's part is of other content.
    GoWhole,
    /// With 304, because the client has the content already.
    NotModified,
    /// With 412, because the content is not what the client wants.
    Failed,
}

/// Evaluates the conditions in `headers`, in the order of section 13.2.2. `etag` is a strong tag
/// without its quotes.
pub fn verdict(headers: &HeaderMap, etag: &str) -> Condition {
    if headers.contains_key(header::IF_MATCH)
        && !listed(headers, header::IF_MATCH, etag, Weak::Never)
    {
        return Condition::Failed;
    }
    if listed(headers, header::IF_NONE_MATCH, etag, Weak::Matches) {
        return Condition::NotModified;
    }
    match headers.get(header::IF_RANGE) {
        // a date never matches, because the content has none (section 13.1.5)
        Some(condition) if condition.as_bytes() == format!("\"{etag}\"").as_bytes() => {
            Condition::Go
        }
        Some(_) => Condition::GoWhole,
        None => Condition::Go,
    }
}

/// Whether weak tags of the client may match.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Weak {
    Never,
    Matches,
}

/// Whether the list of tags in the header `name` contains `etag`, or is `*`. Some clients leave the
/// quotes out.
fn listed(headers: &HeaderMap, name: HeaderName, etag: &str, weak: Weak) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|list| has(list, etag, weak))
}

fn has(list: &str, etag: &str, weak: Weak) -> bool {
    let mut rest = list.trim();
    if rest == "*" {
        return true;
    }
    loop {
        rest = rest.trim_start_matches([',', ' ', '\t']);
        if rest.is_empty() {
            return false;
        }
        let (is_weak, tag) = match rest.strip_prefix("W/") {
            Some(tag) => (true, tag),
            None => (false, rest),
        };
        let (tag, after) = match tag.strip_prefix('"') {
            // a tag may contain a comma
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => tag.split_at(tag.find(',').unwrap_or(tag.len())),
        };
        if tag.trim() == etag && (!is_weak || weak == Weak::Matches) {
            return true;
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn given(pairs: &[(HeaderName, &str)]) -> Condition {
        verdict(
            &pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect(),
            "a:b",
        )
    }

    #[test]
    fn conditions_are_judged_by_the_tag() {
        let none_match = |value| given(&[(header::IF_NONE_MATCH, value)]);
        for has in [
            "\"a:b\"",
            "W/\"a:b\"",
            "*",
            "\"x\", \"a:b\"",
            "\"x,y\" ,W/\"a:b\"",
            "a:b",
            "x, a:b",
            ",\"a:b\",",
        ] {
            assert_eq!(none_match(has), Condition::NotModified, "{has}");
        }
        for other in ["\"a\"", "", "\"a:b", "\"a:bc\"", "\"x,a:b\"", "W/", "\"*\""] {
            let expected = if other == "\"a:b" { Condition::NotModified } else { Condition::Go };
            assert_eq!(none_match(other), expected, "{other}");
        }
        let matches = |value| given(&[(header::IF_MATCH, value)]);
        for has in ["\"a:b\"", "*", "\"x\", \"a:b\""] {
            assert_eq!(matches(has), Condition::Go, "{has}");
        }
        for other in ["\"x\"", "W/\"a:b\"", ""] {
            assert_eq!(matches(other), Condition::Failed, "{other}");
        }
        let range = |value| given(&[(header::RANGE, "bytes=0-1"), (header::IF_RANGE, value)]);
        assert_eq!(range("\"a:b\""), Condition::Go);
        for other in ["\"x\"", "W/\"a:b\"", "Sat, 29 Oct 1994 19:43:31 GMT", "a:b"] {
            assert_eq!(range(other), Condition::GoWhole, "{other}");
        }
    }

    #[test]
    fn the_first_condition_that_fails_decides() {
        let both = |a, b| {
            given(&[(header::IF_MATCH, a), (header::IF_NONE_MATCH, b), (header::IF_RANGE, "\"x\"")])
        };
        assert_eq!(both("\"x\"", "\"a:b\""), Condition::Failed);
        assert_eq!(both("\"a:b\"", "\"a:b\""), Condition::NotModified);
        assert_eq!(both("\"a:b\"", "\"x\""), Condition::GoWhole);
        let mut lines = HeaderMap::new();
        lines.append(header::IF_NONE_MATCH, "\"x\"".parse().unwrap());
        lines.append(header::IF_NONE_MATCH, "\"a:b\"".parse().unwrap());
        assert_eq!(verdict(&lines, "a:b"), Condition::NotModified, "a list may have several lines");
    }

    proptest! {
        #[test]
        fn no_list_makes_it_panic_or_go_on_for_ever(list in "[W/\"*, a:b\\\\]{0,40}") {
            has(&list, "a:b", Weak::Matches);
        }
    }
}
