//! Lists in Harbor's manner: in pages, chosen with `q` and ordered with `sort`.

use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use percent_encoding::percent_decode_str;
use rules::words::query::{Field, Query, Selection};
use serde_json::Value;

use crate::http::answer::{json_answer, page_links, set};
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
    query: Query,
    /// The path and the query as the client wrote them, for links to other pages.
    path: String,
    parameters: String,
}

impl PageRequest {
    /// Parses `page` (from 1), `page_size`, `name`, `q` and `sort`.
    pub(super) fn read(request: &Request) -> Result<Self, Failure> {
        let q = request.query("q").unwrap_or_default();
        // as Harbor does: its portal encodes `q` twice
        let q = percent_decode_str(q).decode_utf8_lossy();
        let sort = request.query("sort").unwrap_or_default();
        let query = Query::parse(&q, sort).map_err(bad)?;
        Ok(PageRequest { query, ..Self::pages(request)? })
    }

    /// Parses `page`, `page_size` and `name`, for lists that have no `q` and `sort` in Harbor.
    pub(super) fn pages(request: &Request) -> Result<Self, Failure> {
        let page =
            Self::of(request.query("page"), request.query("page_size"), request.query("name"))?;
        let uri = &request.head.uri;
        let (path, parameters) =
            (uri.path().to_owned(), uri.query().unwrap_or_default().to_owned());
        Ok(PageRequest { path, parameters, ..page })
    }

    /// The value that `q` wants this field to have exactly, if it wants one.
    pub(super) fn wants(&self, field: &str) -> Option<&str> {
        self.query.exactly(field)
    }

    /// What is wanted of entries that have these fields.
    pub(super) fn about<'f, T>(&self, fields: &'f [Field<T>]) -> Result<Selection<'f, T>, Failure> {
        self.query.about(fields).map_err(bad)
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
            query: Query::default(),
            path: String::new(),
            parameters: String::new(),
        })
    }

    /// The places in the list that the page has.
    pub(super) fn places(&self) -> std::ops::Range<usize> {
        let size = if self.size == 0 { usize::MAX } else { self.size };
        let first = (self.page - 1).saturating_mul(size);
        first..first.saturating_add(size)
    }

    /// The places of entries that are long to show: at most so many as a page may have.
    pub(super) fn few_places(&self) -> std::ops::Range<usize> {
        let size = if self.size == 0 { LARGEST } else { self.size };
        let first = (self.page - 1).saturating_mul(size);
        first..first.saturating_add(size)
    }

    /// The requested page of the entries whose names match, and the number of all that match.
    fn cut<'a, T>(&self, all: &'a [T], name: impl Fn(&T) -> &str) -> (Vec<&'a T>, usize) {
        let named: Vec<&T> = all.iter().filter(|one| name(one).contains(&self.name)).collect();
        let (total, places) = (named.len(), self.places());
        (named.into_iter().skip(places.start).take(places.len()).collect(), total)
    }

    /// A page that is shown already, of so many entries in all, with the pages before and after it in
    /// `Link` (Harbor's `src/server/v2.0/handler/base.go`).
    pub(super) fn answer_shown(&self, shown: Vec<Value>, total: usize) -> Response<Payload> {
        let mut response = json_answer(StatusCode::OK, &Value::Array(shown));
        response.headers_mut().insert(TOTAL, HeaderValue::from(total));
        let links = self.links(total);
        if !links.is_empty() {
            set(&mut response, header::LINK.as_str(), links);
        }
        response
    }

    fn links(&self, total: usize) -> String {
        page_links(&self.path, &self.parameters, self.page, self.size, total)
    }

    /// The page, with the total number in a header. `all` are in the list's own order.
    pub(super) fn answer<T>(
        &self,
        all: &[T],
        name: impl Fn(&T) -> &str,
        show: impl Fn(&T) -> Value,
    ) -> Response<Payload> {
        let (page, total) = self.cut(all, name);
        self.answer_shown(page.into_iter().map(show).collect(), total)
    }

    /// The page of those that `q` admits, in the order that `sort` asks for.
    pub(super) fn answer_chosen<T>(
        &self,
        mut all: Vec<T>,
        fields: &[Field<T>],
        name: impl Fn(&T) -> &str,
        show: impl Fn(&T) -> Value,
    ) -> Result<Response<Payload>, Failure> {
        let selection = self.about(fields)?;
        all.retain(|one| selection.admits(one));
        all.sort_by(|one, other| selection.order(one, other));
        Ok(self.answer(&all, name, show))
    }
}

fn bad(error: rules::words::query::BadQuery) -> Failure {
    Failure::new(Code::BadRequest, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_name_the_pages_beside_this_one_with_everything_else_that_was_asked() {
        let links = |page: &str, size: &str, total: usize| {
            let page = PageRequest::of(Some(page), Some(size), None).unwrap();
            let (path, parameters) = ("/api/v2.0/projects", "q=name%3D~a+b&page=2&sort=-name");
            PageRequest { path: path.into(), parameters: parameters.into(), ..page }.links(total)
        };
        let one = |page: usize, rel: &str| {
            format!(
                "</api/v2.0/projects?q=name%3D%7Ea+b&sort=-name&page={page}&page_size=5>; rel=\"{rel}\""
            )
        };
        assert_eq!(links("2", "5", 11), format!("{} , {}", one(1, "prev"), one(3, "next")));
        assert_eq!(links("1", "5", 6), one(2, "next"));
        assert_eq!(links("1", "5", 5), "");
        assert_eq!(links("3", "5", 11), one(2, "prev"));
        assert_eq!(links("9", "5", 11), "", "there is no page before this one that has anything");
        assert_eq!(links("1", "0", 500), "");
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
