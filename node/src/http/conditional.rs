//! Conditional requests (RFC 9110 section 13): evaluates the conditions of a GET or HEAD for an
//! entity tag, and reads those of a write, which the ledger evaluates. Call this only after it is
//! known that the caller may read or write the content. Nothing here has a date, so only entity
//! tags are compared.

use http::{HeaderMap, HeaderName, header};
use rules::ledger::precondition::{Named, Precondition};
use rules::words::names::Reference;

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

/// The conditions of a write in `headers`, about what `of` names; `None` if there are none.
pub fn precondition(headers: &HeaderMap, of: &Reference) -> Option<Precondition> {
    let is = named(headers, header::IF_MATCH, Weak::Never);
    let is_not = named(headers, header::IF_NONE_MATCH, Weak::Matches);
    (is.is_some() || is_not.is_some()).then(|| Precondition { of: of.clone(), is, is_not })
}

/// What the header `name` lists; `None` if there is no such header. A tag that is not a digest is
/// the tag of nothing.
fn named(headers: &HeaderMap, name: HeaderName, weak: Weak) -> Option<Named> {
    let lists: Vec<&str> =
        headers.get_all(&name).iter().filter_map(|value| value.to_str().ok()).collect();
    if lists.iter().any(|list| list.trim() == "*") {
        return Some(Named::Anything);
    }
    let tags = lists.iter().flat_map(|list| Tags(list)).filter(|tag| tag.may_match(weak));
    let digests = tags.filter_map(|tag| tag.opaque.parse().ok()).collect();
    headers.contains_key(&name).then_some(Named::These(digests))
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
    list.trim() == "*" || Tags(list).any(|tag| tag.opaque == etag && tag.may_match(weak))
}

/// An entity tag, without its quotes.
struct EntityTag<'a> {
    weak: bool,
    opaque: &'a str,
}

impl EntityTag<'_> {
    fn may_match(&self, weak: Weak) -> bool {
        !self.weak || weak == Weak::Matches
    }
}

/// The entity tags in what is left of a list.
struct Tags<'a>(&'a str);

impl<'a> Iterator for Tags<'a> {
    type Item = EntityTag<'a>;

    fn next(&mut self) -> Option<EntityTag<'a>> {
        let rest = self.0.trim_start_matches([',', ' ', '\t']).trim_end();
        if rest.is_empty() {
            return None;
        }
        let (weak, tag) = match rest.strip_prefix("W/") {
            Some(tag) => (true, tag),
            None => (false, rest),
        };
        let (tag, after) = match tag.strip_prefix('"') {
            // a tag may contain a comma
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => tag.split_at(tag.find(',').unwrap_or(tag.len())),
        };
        self.0 = after;
        Some(EntityTag { weak, opaque: tag.trim() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rules::words::digest::{Algorithm, Digest};

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

    #[test]
    fn a_writes_conditions_are_the_digests_that_it_lists() {
        let digest = Digest::sha256(b"x");
        let other = Digest::of(Algorithm::Sha512, b"x");
        let of = Reference::Tag("latest".parse().unwrap());
        let read = |pairs: &[(HeaderName, &str)]| {
            let pairs = pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap()));
            precondition(&pairs.collect(), &of).map(|found| (found.is, found.is_not))
        };
        let these = |digests: &[Digest]| Some(Named::These(digests.to_vec()));
        assert_eq!(read(&[(header::IF_RANGE, "\"x\"")]), None);
        for (list, strong, weak) in [
            ("*", Some(Named::Anything), Some(Named::Anything)),
            (" * ", Some(Named::Anything), Some(Named::Anything)),
            ("", these(&[]), these(&[])),
            ("\"what\"", these(&[]), these(&[])),
            (&format!("\"{digest}\""), these(&[digest]), these(&[digest])),
            (&digest.to_string(), these(&[digest]), these(&[digest])),
            (&format!("W/\"{digest}\", \"{other}\""), these(&[other]), these(&[digest, other])),
        ] {
            assert_eq!(read(&[(header::IF_MATCH, list)]), Some((strong.clone(), None)), "{list}");
            assert_eq!(read(&[(header::IF_NONE_MATCH, list)]), Some((None, weak)), "{list}");
            let both = [(header::IF_MATCH, list), (header::IF_NONE_MATCH, "*")];
            assert_eq!(read(&both), Some((strong, Some(Named::Anything))), "{list}");
        }
    }

    proptest! {
        #[test]
        fn no_list_makes_it_panic_or_go_on_for_ever(list in "[W/\"*, a:b\\\\]{0,40}") {
            has(&list, "a:b", Weak::Matches);
        }
    }
}
