//! Questions about lists: referrers and tags, page by page.

use http::{HeaderMap, HeaderValue, Method, header};
use rules::wire::{ReferrersPage, TagsPage};
use rules::words::digest::Digest;
use rules::words::manifest::{Manifest, media_type};
use rules::words::names::Tag;
use serde_json::Value;

use super::{Upstream, kind};
use crate::UpstreamError;
use crate::budget::Ask;
use crate::headers::text;

const FILTERS_APPLIED: &str = "oci-filters-applied";

impl Upstream {
    /// The upstream's index of the manifests that refer to `subject`; `query` is the client's. An
    /// upstream without this API gives [`UpstreamError::NotFound`] or [`UpstreamError::Bad`].
    pub async fn referrers(
        &self,
        repository: &str,
        subject: &Digest,
        query: &str,
    ) -> Result<ReferrersPage, UpstreamError> {
        let headers = HeaderMap::from_iter([(
            header::ACCEPT,
            HeaderValue::from_static(media_type::OCI_INDEX),
        )]);
        let joint = if query.is_empty() { "" } else { "?" };
        let path = format!("referrers/{subject}{joint}{query}");
        let question = self.question(Method::GET, Ask::Manifest, repository, &path, headers)?;
        let answer = self.within(self.terms.first_byte, self.ask(question)).await?;
        if !answer.response.status().is_success() {
            return Err(self.refusal(Ask::Manifest, answer).await);
        }
        let (head, body) = answer.response.into_parts();
        let came = self.whole(body, "a list of referrers").await?;
        let bytes = self.decoded(&head.headers, &came)?.unwrap_or(came);
        Manifest::parse(&kind(&head.headers).unwrap_or_default(), &bytes)
            .map_err(UpstreamError::bad)
            .and_then(|index| match index.media_type.as_str() {
                media_type::OCI_INDEX => Ok(()),
                other => Err(UpstreamError::bad(format!("referrers came as {other}"))),
            })?;
        let filtered = text(&head.headers, FILTERS_APPLIED).map(str::to_owned);
        Ok(ReferrersPage { index: bytes.to_vec(), filtered, next: next_page(&head.headers) })
    }

    /// A page of the repository's tags; `query` is the client's. Names that are no tags are left
    /// out: nobody could ask for them. [`UpstreamError::Bad`] if what comes is no list of tags.
    ///
    /// An upstream may give all tags at once, however many there are. If that is more than a
    /// manifest may have, a page of it is asked for: the client gets that, and `next` for the rest.
    pub async fn tags(&self, repository: &str, query: &str) -> Result<TagsPage, UpstreamError> {
        let most = (self.terms.max_manifest / NAME).clamp(1, SMALLER);
        let mut asked = Asked::read(query);
        let mut page = self.page_of_tags(repository, query).await;
        if let (Err(UpstreamError::Unusable(_)), Some(whole)) = (&page, &mut asked)
            && whole.n.is_none_or(|n| n > most)
        {
            whole.n = Some(most);
            page = self.page_of_tags(repository, &whole.query()).await;
        }
        let Page { tags, came, last, mut next } =
            page.inspect_err(|error| self.note_failure(error))?;
        if let Some(Asked { n: Some(n), last: before }) = asked
            && next.is_none()
            && (n, came) == (most, most)
            && last != before
        {
            // some upstreams do not say that there is more
            next = last.map(|last| Asked { n: Some(n), last: Some(last) }.query());
        }
        Ok(TagsPage { tags, next })
    }

    async fn page_of_tags(&self, repository: &str, query: &str) -> Result<Page, UpstreamError> {
        let accept = (header::ACCEPT, HeaderValue::from_static("application/json"));
        let joint = if query.is_empty() { "" } else { "?" };
        let path = format!("tags/list{joint}{query}");
        let headers = HeaderMap::from_iter([accept]);
        let question = self.question(Method::GET, Ask::Manifest, repository, &path, headers)?;
        let answer = self.within(self.terms.question, self.ask(question)).await?;
        if !answer.response.status().is_success() {
            return Err(self.refusal(Ask::Manifest, answer).await);
        }
        let (head, body) = answer.response.into_parts();
        let came = self.whole(body, "a list of tags").await?;
        let bytes = self.decoded(&head.headers, &came)?.unwrap_or(came);
        let names = read_names(&bytes)?;
        Ok(Page {
            tags: names.iter().filter_map(|name| name.as_str()?.parse().ok()).collect(),
            came: names.len() as u64,
            last: names.last().and_then(Value::as_str).map(str::to_owned),
            next: next_page(&head.headers),
        })
    }
}

/// A page of tags as it came.
struct Page {
    tags: Vec<Tag>,
    /// The number of names that came, tags or not.
    came: u64,
    last: Option<String>,
    /// The query of the next page, if the upstream names one.
    next: Option<String>,
}

/// What a name costs in a list, at most: 128 characters, quotes, a comma, and the list around it.
const NAME: u64 = 512;
/// The number of names in a page that is asked for because all of them are too much. Some upstreams
/// refuse larger pages.
const SMALLER: u64 = 1000;

/// A query in the specification's words.
struct Asked {
    n: Option<u64>,
    last: Option<String>,
}

impl Asked {
    /// `None` for a query in an upstream's own words.
    fn read(query: &str) -> Option<Self> {
        let mut asked = Asked { n: None, last: None };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "n" => asked.n = Some(value.parse().ok()?),
                "last" => asked.last = Some(value.into_owned()),
                _ => return None,
            }
        }
        Some(asked)
    }

    fn query(&self) -> String {
        let n = self.n.map(|n| ("n", n.to_string()));
        let last = self.last.clone().map(|last| ("last", last));
        form_urlencoded::Serializer::new(String::new())
            .extend_pairs(n.into_iter().chain(last))
            .finish()
    }
}

/// The names in a list (distribution-spec: `tags`). Registries in Go write `null` for none.
fn read_names(bytes: &[u8]) -> Result<Vec<Value>, UpstreamError> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let mut list: Value = serde_json::from_slice(bytes).map_err(UpstreamError::bad)?;
    match list.get_mut("tags").map(Value::take) {
        Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(names)) => Ok(names),
        _ => Err(UpstreamError::bad("what came is no list of tags")),
    }
}

/// The query of the page that `Link` names as the next. Its path is of no interest: it is another
/// page of the same list.
fn next_page(headers: &HeaderMap) -> Option<String> {
    let links = headers.get_all(header::LINK).iter().filter_map(|links| links.to_str().ok());
    // what follows a `<` is a link, up to its `>`, and then what it is, up to the next link
    let links = links.flat_map(|links| links.split('<').skip(1));
    let next = links.filter_map(|link| link.split_once('>')).find(|(_, is)| is.contains("next"));
    let (_, query) = next?.0.split_once('?')?;
    Some(query.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_among_several_links() {
        let read = |lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::LINK, line.parse().unwrap());
            }
            next_page(&headers)
        };
        let next = Some("last=b".to_owned());
        assert_eq!(read(&["</v2/a/tags/list?last=b>; rel=\"next\""]), next);
        assert_eq!(read(&["<http://x/y?last=b>;rel=next"]), next);
        assert_eq!(read(&["</l?last=a>; rel=\"prev\", </l?last=b>; rel=\"next\""]), next);
        assert_eq!(read(&["</l?last=a>; rel=\"prev\"", "</l?last=b>; rel=\"next\""]), next);
        for none in [&[][..], &[""], &["</l?last=a>; rel=\"prev\""], &["</l>; rel=\"next\""]] {
            assert_eq!(read(none), None, "{none:?}");
        }
    }
}
