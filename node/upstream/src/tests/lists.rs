//! Lists of referrers and of tags, page by page.

use super::*;

#[tokio::test]
async fn referrers_come_as_the_upstream_has_them_page_by_page() {
    let stage =
        Stage::open(|seen| match (seen.path.split('/').nth(2).unwrap(), seen.query.as_str()) {
            ("none", _) => answer(404, &[], ""),
            ("page", _) => answer(200, &[("content-type", "text/html")], EMPTY),
            ("image", _) => answer(
                200,
                &[("content-type", "application/vnd.oci.image.manifest.v1+json")],
                EMPTY,
            ),
            (_, "artifactType=a%2Fb") => {
                let next = "</v2/team/app/referrers/x?artifactType=a%2Fb&page=2>; rel=\"next\"";
                answer(
                    200,
                    &[
                        ("content-type", INDEX),
                        ("oci-filters-applied", "artifactType"),
                        ("link", next),
                    ],
                    EMPTY,
                )
            }
            _ => answer(200, &[("content-type", INDEX)], EMPTY),
        })
        .await;
    let upstream = stage.upstream();
    let subject = Digest::sha256(b"subject");
    let first = upstream.referrers("team/app", &subject, "artifactType=a%2Fb").await.unwrap();
    assert_eq!(
        (&first.index[..], first.filtered.as_deref()),
        (EMPTY.as_bytes(), Some("artifactType"))
    );
    assert_eq!(first.next.as_deref(), Some("artifactType=a%2Fb&page=2"));
    assert_eq!(stage.seen()[0].path, format!("/v2/team/app/referrers/{subject}"));
    let last = upstream.referrers("team/app", &subject, "").await.unwrap();
    assert_eq!((last.filtered, last.next), (None, None));
    assert_eq!(
        upstream.referrers("none", &subject, "").await.unwrap_err(),
        UpstreamError::NotFound
    );
    for no_index in ["page", "image"] {
        let refused = upstream.referrers(no_index, &subject, "").await;
        assert!(matches!(refused, Err(UpstreamError::Bad(_))), "{no_index}: {refused:?}");
    }
}

#[tokio::test]
async fn tags_come_page_by_page_and_only_a_list_is_one() {
    let stage =
        Stage::open(|seen| match (seen.path.split('/').nth(2).unwrap(), seen.query.as_str()) {
            ("none", _) => answer(404, &[], ""),
            ("denied", _) => answer(403, &[], ""),
            ("page", _) => answer(200, &[("content-type", "text/html")], "<html>"),
            ("other", _) => answer(200, &[], EMPTY),
            ("null", _) => answer(200, &[], r#"{"name":"null","tags":null}"#),
            ("long", _) => answer(200, &[], format!(r#"{{"tags":["{}"]}}"#, "x".repeat(1 << 20))),
            (_, "n=2") => {
                let next = "<https://elsewhere/v2/team/app/tags/list?n=2&next_page=a%3D>; rel=next";
                answer(200, &[("link", next)], r#"{"tags":["1","no tag!","2"]}"#)
            }
            _ => answer(200, &[], r#"{"tags":["3"]}"#),
        })
        .await;
    let upstream = stage.upstream();
    let tags =
        |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Vec<Tag>>();
    let first = upstream.tags("team/app", "n=2").await.unwrap();
    assert_eq!(first.tags, tags(&["1", "2"]));
    assert_eq!(first.next.as_deref(), Some("n=2&next_page=a%3D"));
    assert_eq!(stage.seen()[0].path, "/v2/team/app/tags/list");
    let last = upstream.tags("team/app", &first.next.unwrap()).await.unwrap();
    assert_eq!((last.tags, last.next), (tags(&["3"]), None));
    assert_eq!(upstream.tags("null", "").await.unwrap().tags, []);
    assert_eq!(upstream.tags("none", "").await.unwrap_err(), UpstreamError::NotFound);
    assert!(matches!(upstream.tags("denied", "").await, Err(UpstreamError::Denied(_))));
    assert!(matches!(upstream.tags("long", "").await, Err(UpstreamError::Unusable(_))));
    for no_list in ["page", "other"] {
        let refused = upstream.tags(no_list, "").await;
        assert!(matches!(refused, Err(UpstreamError::Bad(_))), "{no_list}: {refused:?}");
    }
}

#[tokio::test]
async fn a_list_that_is_longer_than_a_manifest_may_be_is_asked_for_page_by_page() {
    // more than 1 MiB together
    let all: Vec<String> = (0..20_000).map(|n| format!("{n:0>100}")).collect();
    let stage = Stage::open(move |seen| {
        let asked: std::collections::HashMap<_, _> =
            form_urlencoded::parse(seen.query.as_bytes()).into_owned().collect();
        let kind = seen.path.split('/').nth(2).unwrap();
        let after = asked.get("last").map_or(0, |last| all.partition_point(|tag| tag <= last));
        let n =
            asked.get("n").filter(|_| kind != "whole").map_or(all.len(), |n| n.parse().unwrap());
        let page = &all[after..all.len().min(after + n)];
        let body = serde_json::json!({"tags": page}).to_string();
        match page.last() {
            Some(last) if kind == "linked" && after + n < all.len() => {
                let next = format!("</v2/linked/app/tags/list?own={n}&last={last}>; rel=\"next\"");
                answer(200, &[("link", &next)], body)
            }
            _ => answer(200, &[], body),
        }
    })
    .await;
    let upstream = stage.upstream();
    let first = upstream.tags("linked/app", "").await.unwrap();
    assert_eq!(first.tags.len(), 1000);
    let last = format!("{:0>100}", 999);
    assert_eq!(first.next, Some(format!("own=1000&last={last}")), "the upstream's own word");
    // an upstream that says nothing of the next page
    let mut query = "n=15000".to_owned();
    let mut came = Vec::new();
    loop {
        let page = upstream.tags("silent/app", &query).await.unwrap();
        came.extend(page.tags);
        match page.next {
            Some(next) => query = next,
            None => break,
        }
    }
    assert_eq!(came.len(), 20_000);
    assert!(came.is_sorted(), "no tag came twice");
    // pages that cannot be made smaller
    for (repository, query) in [("whole/app", ""), ("whole/app", "n=1000"), ("silent/app", "x=1")] {
        let refused = upstream.tags(repository, query).await;
        let unusable = matches!(refused, Err(UpstreamError::Unusable(_)));
        assert!(unusable, "{repository}?{query}: {refused:?}");
    }
    let questions = stage.seen().iter().filter(|seen| seen.path.contains("whole/app")).count();
    assert_eq!(questions, 3, "once with n after the whole, never again with the same n");
}
