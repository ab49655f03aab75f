//! Questions about lists: referrers and tags, page by page.

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
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
        if answer.response.status() != StatusCode::OK {
            return Err(self.refusal(Ask::Manifest, answer).await);
        }
        let (head, body) = answer.response.into_parts();
        let bytes = self.whole(body, "a list of referrers").await?;
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
    pub async fn tags(&self, repository: &str, query: &str) -> Result<TagsPage, UpstreamError> {
        let accept = (header::ACCEPT, HeaderValue::from_static("application/json"));
        let joint = if query.is_empty() { "" } else { "?" };
        let path = format!("tags/list{joint}{query}");
        let headers = HeaderMap::from_iter([accept]);
        let question = self.question(Method::GET, Ask::Manifest, repository, &path, headers)?;
        let answer = self.within(self.terms.question, self.ask(question)).await?;
        if answer.response.status() != StatusCode::OK {
            return Err(self.refusal(Ask::Manifest, answer).await);
        }
        let (head, body) = answer.response.into_parts();
        let read = self.whole(body, "a list of tags").await.and_then(|bytes| read_tags(&bytes));
        let tags = read.inspect_err(|error| self.note_failure(error))?;
        Ok(TagsPage { tags, next: next_page(&head.headers) })
    }
}

/// The tags of a list (distribution-spec: `tags`). Registries in Go write `null` for none.
fn read_tags(bytes: &[u8]) -> Result<Vec<Tag>, UpstreamError> {
    let mut list: Value = serde_json::from_slice(bytes).map_err(UpstreamError::bad)?;
    match list.get_mut("tags").map(Value::take) {
        Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(tags)) => {
            Ok(tags.iter().filter_map(|tag| tag.as_str()?.parse().ok()).collect())
        }
        _ => Err(UpstreamError::bad("what came is no list of tags")),
    }
}

/// The query of the page that `Link` names as the next. Its path is of no interest: it is another
/// page of the same list.
fn next_page(headers: &HeaderMap) -> Option<String> {
    let (link, relation) = text(headers, header::LINK)?.split_once('>')?;
    let (_, query) = link.split_once('?')?;
    relation.contains("next").then(|| query.to_owned())
}
