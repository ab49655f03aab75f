//! Lists of tags, repositories and referrers: paged, sorted, and limited to what the caller may
//! see.

use bytes::Bytes;
use ground::supervise::at_length;
use http::{HeaderValue, Response, StatusCode, header};
use registry::view::Freshness;
use rules::ledger::records::{decode, key};
use rules::people::access::Action;
use rules::people::access::RegistryScope;
use rules::proxies::tags;
use rules::wire::{Listing, ReferrersPage, Referring, TagsPage};
use rules::words::digest::Digest;
use rules::words::manifest::{Referrer, media_type};
use rules::words::names::{RepositoryName, Tag};
use serde_json::{Value, json};

use super::{Registry, UNASKED};
use crate::http::answer::{answer, json_answer, mark, moved, set};
use crate::http::door::Admitted;
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};
use registry::people::CATALOG;

/// The maximum number of entries on a page.
const PAGE: usize = 10_000;

impl Registry {
    pub(super) async fn tags(
        &self,
        request: Request,
        repository: RepositoryName,
    ) -> Result<Response<Payload>, Failure> {
        // what is wrong with them is told to callers who may know of the repository
        let size = request.page_size();
        let limit = size.as_ref().ok().copied().flatten().unwrap_or(PAGE).min(PAGE);
        // an upstream's may be a word of its own
        let last = request.query("last").map(str::parse::<Tag>).transpose();
        let after = last.as_ref().ok().and_then(Option::as_ref);
        let (all, begin) = (key::tags(&repository), after.map(|tag| key::tag(&repository, tag)));
        let admitted = self.door.admit(&request, Action::Pull, &repository, |records, _| {
            let exists = records.get(&key::repository(&repository))?.is_some();
            Ok((exists, records.scan(&all, begin.as_deref(), limit + 1)?))
        });
        let Admitted { project, freshness, found: (mut exists, mut tags), .. } = admitted.await?;
        size?;
        let mut unasked = false;
        if project.upstream.is_some() {
            if !self.upstreams.admits(&project, &repository) {
                let message =
                    format!("project {} does not cache {repository} (its patterns)", project.name);
                return Err(Failure::new(Code::NameUnknown, message));
            }
            if let Some(elsewhere) = self.upstreams.canonical(&repository) {
                let query =
                    request.head.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
                return Ok(moved(&format!("/v2/{}/tags/list{query}", request.name_of(&elsewhere))));
            }
            self.questions.ask(request.client, &project.name)?;
            let query = query_for_upstream(&request);
            let listing = self.proxies.lists().tags(&project, &repository, &query).await;
            if let Listing::Page(page) = listing {
                return Ok(show_tags(&request, &repository, page, limit));
            }
            // the tags that were pulled, through whichever node
            let caches = self.proxies.caches();
            tags = caches.everywhere(&all, begin.as_deref(), limit + 1, tags).await;
            if tags.is_empty() && begin.is_some() && !exists {
                exists = !caches.everywhere(&all, None, 1, Vec::new()).await.is_empty();
            }
            exists |= !tags.is_empty();
            // they are no page of a list that is paged in words of the upstream's own
            let recorded = (!tags.is_empty() || exists && begin.is_some())
                && last.is_ok()
                && form_urlencoded::parse(query.as_bytes())
                    .all(|(name, _)| name == "n" || name == "last");
            match listing {
                Listing::Missing if !(recorded && project.proxy.local_on_not_found) => {
                    let message = format!("the upstream has no repository {repository}");
                    return Err(Failure::new(Code::NameUnknown, message));
                }
                Listing::Denied(why) if !recorded => {
                    let message = format!("the tags of {repository}: {why}");
                    return Err(Failure::new(Code::NameUnknown, message));
                }
                Listing::Failed(why) if !recorded => {
                    return Err(Failure::new(Code::Unavailable, why));
                }
                _ => unasked = true,
            }
        }
        last.map_err(|e| Failure::new(Code::TagInvalid, e.to_string()))?;
        if !exists {
            let message = format!("there is no repository {repository}");
            return Err(Failure::new(Code::NameUnknown, message).if_known(freshness));
        }
        let more = tags.len() > limit;
        let mut tags: Vec<String> = tags.iter().map(|(place, _)| key::tag_of(place)).collect();
        tags.truncate(limit);
        let next = more.then(|| tags.last().cloned()).flatten();
        let mut response = json_answer(
            StatusCode::OK,
            &json!({"name": request.name_of(&repository), "tags": tags}),
        );
        if let Some(last) = next {
            let next = request.place(&repository, &format!("tags/list?n={limit}&last={last}"));
            set(&mut response, "link", format!("<{next}>; rel=\"next\""));
        }
        mark(&mut response, freshness);
        if unasked {
            set(&mut response, "warning", UNASKED);
        }
        Ok(response)
    }

    pub(super) async fn catalog(&self, request: Request) -> Result<Response<Payload>, Failure> {
        self.door.admit_system(&request, CATALOG, RegistryScope::Catalog).await?;
        let limit = request.page_size()?.unwrap_or(PAGE).min(PAGE);
        let last = request.query("last").map(str::parse::<RepositoryName>).transpose();
        let last = last.map_err(|e| Failure::new(Code::NameInvalid, e.to_string()))?;
        let (all, after) = (key::repositories(), last.as_ref().map(key::repository));
        let (mine, freshness) =
            self.door.read(|records| records.scan(&all, after.as_deref(), limit + 1)).await?;
        // those that were pulled through other nodes, too
        let caches = self.proxies.caches();
        let pairs = caches.everywhere(&all, after.as_deref(), limit + 1, mine).await;
        let mut names: Vec<String> = pairs.iter().map(|(place, _)| key::name_of(place)).collect();
        let more = names.len() > limit;
        names.truncate(limit);
        let next = more.then(|| names.last().cloned()).flatten();
        let mut response = json_answer(StatusCode::OK, &json!({"repositories": names}));
        if let Some(last) = next {
            set(
                &mut response,
                "link",
                format!("</v2/_catalog?n={limit}&last={last}>; rel=\"next\""),
            );
        }
        mark(&mut response, freshness);
        Ok(response)
    }

    pub(super) async fn referrers(
        &self,
        request: Request,
        repository: RepositoryName,
        subject: Digest,
    ) -> Result<Response<Payload>, Failure> {
        let admitted = self.door.admit(&request, Action::Pull, &repository, |records, _| {
            at_length(|| records.scan(&key::referrers(&repository, &subject), None, usize::MAX))
        });
        let Admitted { project, freshness, found: mut referrers, .. } = admitted.await?;
        let mut unasked = false;
        if project.upstream.is_some() {
            // with this code clients assume a registry without the list, and try the tag sha256-HEX
            // instead; NAME_UNKNOWN would end their search
            let absent = |why: String| Failure::new(Code::ManifestUnknown, why);
            if !self.upstreams.admits(&project, &repository) {
                return Err(absent(format!(
                    "project {} does not cache {repository} (its patterns)",
                    project.name
                )));
            }
            let query = query_for_upstream(&request);
            if let Some(elsewhere) = self.upstreams.canonical(&repository) {
                return Ok(moved(&request.place(&elsewhere, &page_of(&subject, &query))));
            }
            self.questions.ask(request.client, &project.name)?;
            match self.proxies.referrers(&project, &repository, &subject, &query).await {
                Referring::Page(page) => {
                    return Ok(show_page(&request, &repository, &subject, page));
                }
                Referring::Absent(why) => {
                    return Err(absent(format!("no list of what refers to {subject}: {why}")));
                }
                // the list is of those that were pulled, through whichever node
                Referring::Failed(why) => {
                    let all = key::referrers(&repository, &subject);
                    let caches = self.proxies.caches();
                    referrers = caches.everywhere(&all, None, PAGE, referrers).await;
                    if referrers.is_empty() {
                        return Err(Failure::new(Code::Unavailable, why));
                    }
                    unasked = true;
                }
            }
        }
        if referrers.is_empty() && freshness == Freshness::Stale {
            // a client would take it that nothing is signed
            return Err(Failure::outdated(freshness));
        }
        // no media type has a space: it was a plus that the client did not encode
        let filter = request.query("artifactType").map(|kind| kind.replace(' ', "+"));
        let last = request.query("last").map(str::parse::<Digest>).transpose()?;
        let referrers: Result<Vec<Referrer>, _> =
            referrers.iter().map(|(_, value)| decode(value)).collect();
        let mut referrers = referrers?;
        referrers.sort_by_key(|referrer| referrer.digest);
        let wanted = |r: &Referrer| filter.is_none() || r.artifact_type == filter;
        let after = |r: &Referrer| last.is_none_or(|last| r.digest > last);
        let (listed, next) = page_of_referrers(
            referrers.into_iter().filter(|r| wanted(r) && after(r)),
            self.terms.max_manifest,
        );
        let index =
            json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": listed});
        let mut response = index_answer(index.to_string());
        if filter.is_some() {
            set(&mut response, "oci-filters-applied", "artifactType");
        }
        if let Some(last) = next {
            let mut query = form_urlencoded::Serializer::new(String::new());
            if let Some(filter) = &filter {
                query.append_pair("artifactType", filter);
            }
            let query = query.append_pair("last", &last.to_string()).finish();
            let next = request.place(&repository, &page_of(&subject, &query));
            set(&mut response, "link", format!("<{next}>; rel=\"next\""));
        }
        mark(&mut response, freshness);
        if unasked {
            set(&mut response, "warning", UNASKED);
        }
        Ok(response)
    }
}

/// As many descriptors as fit into an index of `most` bytes, but at least one, and the last of them
/// if there are more. An index must not be larger than a manifest may be, because clients read it
/// as one.
fn page_of_referrers(
    referrers: impl Iterator<Item = Referrer>,
    most: u64,
) -> (Vec<Value>, Option<Digest>) {
    // 128 bytes for what is around the list
    let (mut listed, mut length, mut last) = (Vec::new(), 128, None);
    for referrer in referrers {
        let mut descriptor = json!({"mediaType": referrer.media_type, "digest": referrer.digest.to_string(), "size": referrer.size});
        if let Some(artifact_type) = referrer.artifact_type {
            descriptor["artifactType"] = artifact_type.into();
        }
        if !referrer.annotations.is_empty() {
            descriptor["annotations"] = json!(referrer.annotations);
        }
        length += descriptor.to_string().len() as u64 + 1;
        if length > most && !listed.is_empty() {
            return (listed, last);
        }
        last = Some(referrer.digest);
        listed.push(descriptor);
    }
    (listed, None)
}

/// A page of an upstream's tags, no longer than the client wants it; the next one is here, too.
fn show_tags(
    request: &Request,
    repository: &RepositoryName,
    page: TagsPage,
    limit: usize,
) -> Response<Payload> {
    let (tags, cut) = tags::page(page.tags, limit, request.query("last"));
    let body = json!({"name": request.name_of(repository), "tags": tags});
    let mut response = json_answer(StatusCode::OK, &body);
    if let Some(query) = cut.map(|last| format!("n={limit}&last={last}")).or(page.next) {
        let next = request.place(repository, &format!("tags/list?{query}"));
        set(&mut response, "link", format!("<{next}>; rel=\"next\""));
    }
    response
}

/// A page of an upstream's list, as it came; the next one is here, too.
fn show_page(
    request: &Request,
    repository: &RepositoryName,
    subject: &Digest,
    page: ReferrersPage,
) -> Response<Payload> {
    let mut response = index_answer(page.index);
    if let Some(filtered) = page.filtered {
        set(&mut response, "oci-filters-applied", filtered);
    }
    if let Some(query) = page.next {
        let next = request.place(repository, &page_of(subject, &query));
        set(&mut response, "link", format!("<{next}>; rel=\"next\""));
    }
    response
}

/// The client's query for a list, without the parameters for mirrors.
fn query_for_upstream(request: &Request) -> String {
    let pairs = form_urlencoded::parse(request.head.uri.query().unwrap_or_default().as_bytes());
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs.filter(|(name, value)| name != "ns" && !value.is_empty()))
        .finish()
}

fn page_of(subject: &Digest, query: &str) -> String {
    let joint = if query.is_empty() { "" } else { "?" };
    format!("referrers/{subject}{joint}{query}")
}

fn index_answer(bytes: impl Into<Bytes>) -> Response<Payload> {
    let mut response = answer(StatusCode::OK);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type::OCI_INDEX));
    *response.body_mut() = Payload::full(bytes);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_page_of_referrers_is_larger_than_a_manifest_may_be_and_all_of_them_come() {
        let referrer = |n: u32| Referrer {
            digest: Digest::sha256(&n.to_le_bytes()),
            media_type: media_type::OCI_MANIFEST.into(),
            size: 7,
            artifact_type: Some("a/b".into()),
            annotations: [("note".to_owned(), "x".repeat(n as usize))].into(),
        };
        let mut all: Vec<Referrer> = (0..200).map(referrer).collect();
        all.sort_by_key(|r| r.digest);
        let (most, mut came, mut last) = (4096, Vec::new(), None::<Digest>);
        loop {
            let rest = all.iter().filter(|r| last.is_none_or(|last| r.digest > last)).cloned();
            let (page, next) = page_of_referrers(rest, most);
            let index =
                json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": page});
            assert!(index.to_string().len() as u64 <= most);
            came.extend(
                page.iter().map(|descriptor| descriptor["digest"].as_str().unwrap().to_owned()),
            );
            match next {
                Some(next) => last = Some(next),
                None => break,
            }
        }
        assert_eq!(came, all.iter().map(|r| r.digest.to_string()).collect::<Vec<_>>());
        // an entry that is too large by itself is listed, and so are those after it
        let (page, next) = page_of_referrers(all.clone().into_iter(), 1);
        assert_eq!((page.len(), next), (1, Some(all[0].digest)));
    }
}
