//! Lists in Harbor's manner: in pages, and filtered by a part of the name.

use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::Value;

use crate::http::answer::json_answer;
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};

/// The default and the maximum number of entries on a page.
const PAGE: usize = 10;
const LARGEST: usize = 100;
const TOTAL: HeaderName = HeaderName::from_static("x-total-count");

/// The part of a list that was requested.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PageRequest {
    page: usize,
    /// 0 means all.
    size: usize,
    name: String,
    /// The conditions in `q`.
    conditions: Vec<(String, Wanted)>,
}

/// What a field must be.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// This.
    Is(String),
    /// A text that has this in it.
    Has(String),
}

/// Parses Harbor's `q`: conditions, separated by commas, `field=value` or `field=~part`. Its other
/// forms (ranges and lists) are not supported.
fn conditions(q: &str) -> Result<Vec<(String, Wanted)>, Failure> {
    let one = |text: &str| {
        let (field, value) = text.split_once('=')?;
        let wanted = match value.strip_prefix('~') {
            Some(part) => Wanted::Has(part.to_owned()),
            None if value.starts_with(['[', '{', '(']) => return None,
            None => Wanted::Is(value.to_owned()),
        };
        Some((field.trim().to_lowercase(), wanted))
    };
    let all = q.split(',').filter(|text| !text.trim().is_empty());
    all.map(|text| {
        let message = || format!("q: '{text}' is not field=value or field=~part");
        one(text).ok_or_else(|| Failure::new(Code::BadRequest, message()))
    })
    .collect()
}

impl PageRequest {
    /// Parses `page` (from 1), `page_size` and `name`.
    pub(super) fn read(request: &Request) -> Result<Self, Failure> {
        let page =
            Self::of(request.query("page"), request.query("page_size"), request.query("name"))?;
        Ok(PageRequest { conditions: conditions(request.query("q").unwrap_or_default())?, ..page })
    }

    /// The value that `q` wants this field to have, if it wants one.
    pub(super) fn wants(&self, field: &str) -> Option<&str> {
        let named = self.conditions.iter().find(|(name, _)| name == field);
        named.and_then(|(_, wanted)| match wanted {
            Wanted::Is(value) => Some(value.as_str()),
            Wanted::Has(_) => None,
        })
    }

    /// Whether a condition in `q` is about this field.
    pub(super) fn asks_for(&self, field: &str) -> bool {
        self.conditions.iter().any(|(name, _)| name == field)
    }

    /// Whether an entry is wanted, whose fields these are. A condition on another field is not met.
    pub(super) fn admits(&self, fields: &[(&str, &str)]) -> bool {
        self.conditions.iter().all(|(name, wanted)| {
            let field = fields.iter().find(|(field, _)| field == name);
            field.is_some_and(|(_, value)| match wanted {
                Wanted::Is(all) => value == all,
                Wanted::Has(part) => value.contains(part.as_str()),
            })
        })
    }

    /// The same for an entry whose fields may have several values: one of them must fit.
    pub(super) fn admits_one_of(&self, fields: &[(&str, Vec<String>)]) -> bool {
        self.conditions.iter().all(|(name, wanted)| {
            let field = fields.iter().find(|(field, _)| field == name);
            field.is_some_and(|(_, values)| match wanted {
                Wanted::Is(all) => values.iter().any(|value| value == all),
                Wanted::Has(part) => values.iter().any(|value| value.contains(part.as_str())),
            })
        })
    }

    pub(super) fn of(
        page: Option<&str>,
        size: Option<&str>,
        name: Option<&str>,
    ) -> Result<Self, Failure> {
        let number =
            |name: &str, text: Option<&str>, otherwise: usize, least: usize, most: usize| {
                let Some(text) = text else { return Ok(otherwise) };
                let number = text.parse::<usize>().ok().filter(|n| (least..=most).contains(n));
                let message = || match most {
                    usize::MAX => format!("{name} is a number from {least} on"),
                    _ => format!("{name} is a number from {least} to {most}"),
                };
                number.ok_or_else(|| Failure::new(Code::BadRequest, message()))
            };
        Ok(PageRequest {
            page: number("page", page, 1, 1, usize::MAX)?,
            size: number("page_size", size, PAGE, 0, LARGEST)?,
            name: name.unwrap_or_default().to_owned(),
            conditions: Vec::new(),
        })
    }

    /// The requested page of the entries whose names match, and the number of all that match.
    fn cut<'a, T>(&self, all: &'a [T], name: impl Fn(&T) -> &str) -> (Vec<&'a T>, usize) {
        let named: Vec<&T> = all.iter().filter(|one| name(one).contains(&self.name)).collect();
        let total = named.len();
        let size = if self.size == 0 { usize::MAX } else { self.size };
        (named.into_iter().skip((self.page - 1).saturating_mul(size)).take(size).collect(), total)
    }

    /// The requested page of entries that are long to show: at most so many as a page may have.
    pub(super) fn cut_short<'a, T>(&self, all: &'a [T]) -> &'a [T] {
        let size = if self.size == 0 { LARGEST } else { self.size };
        let first = (self.page - 1).saturating_mul(size).min(all.len());
        &all[first..first.saturating_add(size).min(all.len())]
    }

    /// A page that is shown already, of so many entries in all.
    pub(super) fn answer_shown(shown: Vec<Value>, total: usize) -> Response<Payload> {
        let mut response = json_answer(StatusCode::OK, &Value::Array(shown));
        response.headers_mut().insert(TOTAL, HeaderValue::from(total));
        response
    }

    /// The page, with the total number in a header.
    pub(super) fn answer<T>(
        &self,
        all: &[T],
        name: impl Fn(&T) -> &str,
        show: impl Fn(&T) -> Value,
    ) -> Response<Payload> {
        let (page, total) = self.cut(all, name);
        Self::answer_shown(page.into_iter().map(show).collect(), total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_is_read_as_harbor_writes_it() {
        let admits = |q: &str, name: &str| {
            let page = PageRequest::of(None, None, None).unwrap();
            let conditions = conditions(q).unwrap();
            PageRequest { conditions, ..page }.admits(&[("username", name), ("level", "system")])
        };
        assert!(
            admits("", "ann") && admits("username=ann", "ann") && !admits("username=an", "ann")
        );
        assert!(admits("username=~n", "ann") && admits("Level=system,username=~a", "ann"));
        assert!(!admits("Level=project", "ann") && !admits("shoe=9", "ann"));
        for bad in ["username", "n=[1~2]", "n={a b}", "n=(a b)"] {
            assert_eq!(conditions(bad).unwrap_err().status(), StatusCode::BAD_REQUEST, "{bad}");
        }
    }

    #[test]
    fn whoever_asks_page_after_page_comes_to_an_end() {
        let all: Vec<String> = (0..25).map(|n| format!("p{n}")).collect();
        let cut = |page: Option<&str>, size: Option<&str>, name: Option<&str>| {
            let wanted = PageRequest::of(page, size, name).unwrap();
            let (found, total) = wanted.cut(&all, |name| name);
            (found.len(), found.first().map(|name| name.as_str()), total)
        };
        assert_eq!(cut(None, None, None), (10, Some("p0"), 25));
        assert_eq!(cut(Some("3"), None, None), (5, Some("p20"), 25));
        assert_eq!(cut(Some("4"), None, None), (0, None, 25));
        assert_eq!(cut(Some("2"), Some("20"), None), (5, Some("p20"), 25));
        assert_eq!(cut(None, Some("0"), None), (25, Some("p0"), 25));
        assert_eq!(cut(Some("2"), Some("0"), None), (0, None, 25));
        assert_eq!(cut(None, Some("5"), Some("p1")), (5, Some("p1"), 11));
        assert_eq!(cut(Some(&usize::MAX.to_string()), Some("100"), None), (0, None, 25));
        for (page, size) in
            [(Some("0"), None), (Some("x"), None), (None, Some("101")), (None, Some("-1"))]
        {
            assert_eq!(
                PageRequest::of(page, size, None).unwrap_err().status(),
                StatusCode::BAD_REQUEST
            );
        }
    }
}
