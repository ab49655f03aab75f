//! The token dance.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rules::words::digest::Digest;

use super::stage::{Stage, answer, robot};
use super::{CONTENT, EMPTY, INDEX};
use crate::{Upstream, UpstreamError};

/// A registry with a token service, which hands out `t0`, `t1`, ..; what it takes is decided by
/// `good`.
async fn with_tokens(good: impl Fn(&str, usize) -> bool + Send + Sync + 'static) -> Stage {
    let handed = Arc::new(AtomicUsize::new(0));
    Stage::open(move |seen| {
        let host = seen.header("host").unwrap();
        if seen.path == "/token" {
            let number = handed.fetch_add(1, Ordering::SeqCst);
            return answer(200, &[], format!(r#"{{"token":"t{number}","expires_in":300}}"#));
        }
        let shown = seen.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        if shown.is_some_and(|token| good(token, handed.load(Ordering::SeqCst))) {
            return answer(200, &[("content-type", INDEX)], EMPTY);
        }
        let challenge = format!(r#"Bearer realm="http://{host}/token",service="registry one""#);
        answer(401, &[("www-authenticate", "Negotiate"), ("www-authenticate", &challenge)], "{}")
    })
    .await
}

#[tokio::test]
async fn a_token_is_fetched_with_the_credentials_and_used_for_what_follows() {
    let stage = with_tokens(|_, _| true).await;
    let mut settings = stage.settings();
    settings.credentials = robot();
    let upstream = Upstream::new(settings, stage.tasks.clone());
    for _ in 0..3 {
        upstream.manifest("a/b", "1").await.unwrap();
    }
    upstream.manifest("a/c", "1").await.unwrap();
    let seen = stage.seen();
    let paths: Vec<_> = seen.iter().map(|seen| seen.path.as_str()).collect();
    let (b, c) = ("/v2/a/b/manifests/1", "/v2/a/c/manifests/1");
    assert_eq!(
        paths,
        [b, "/token", b, b, b, "/token", c],
        "the second repository knows whom to ask at once"
    );
    assert_eq!(seen[1].query, "service=registry+one&scope=repository%3Aa%2Fb%3Apull");
    assert_eq!(seen[1].header("authorization"), Some("Basic cm9ib3Q6c2VjcmV0"));
    assert_eq!(seen[2].header("authorization"), Some("Bearer t0"));
    assert_eq!(seen[6].header("authorization"), Some("Bearer t1"));
}

#[tokio::test]
async fn however_many_ask_one_request_fetches_the_token() {
    let stage = with_tokens(|_, _| true).await;
    let upstream = stage.upstream();
    let asks = (0..50).map(|_| upstream.manifest("a/b", "1"));
    for result in futures::future::join_all(asks).await {
        result.unwrap();
    }
    assert_eq!(stage.count("/token"), 1);
    let shown = stage.seen().into_iter().find(|seen| seen.path == "/token").unwrap();
    assert_eq!(shown.header("authorization"), None, "anonymous");
}

#[tokio::test]
async fn a_token_that_is_refused_before_its_time_is_renewed_once() {
    // each token is good only until the next one is handed out
    let stage = with_tokens(|token, handed| token == format!("t{}", handed - 1)).await;
    let upstream = stage.upstream();
    upstream.manifest("a/b", "1").await.unwrap();
    upstream.manifest("a/c", "1").await.unwrap();
    assert_eq!(stage.count("/token"), 2);
    upstream.manifest("a/b", "1").await.unwrap();
    assert_eq!(stage.count("/token"), 3);
}

#[tokio::test]
async fn a_token_that_ends_early_is_renewed_once_whether_the_upstream_says_where_or_not() {
    for said in [
        &[][..],
        &[("www-authenticate", "Negotiate")],
        &[("www-authenticate", "Basic realm=\"gate\"")],
    ] {
        let handed = Arc::new(AtomicUsize::new(0));
        // the third token and later ones are good for nothing
        let stage = Stage::open(move |seen| {
            let host = seen.header("host").unwrap();
            if seen.path == "/token" {
                let number = handed.fetch_add(1, Ordering::SeqCst);
                return answer(200, &[], format!(r#"{{"token":"t{number}","expires_in":300}}"#));
            }
            let now = handed.load(Ordering::SeqCst);
            match seen.header("authorization").and_then(|value| value.strip_prefix("Bearer t")) {
                None => {
                    let challenge = format!(r#"Bearer realm="http://{host}/token""#);
                    answer(401, &[("www-authenticate", &challenge)], "")
                }
                Some(number) if now <= 2 && number == (now - 1).to_string() => {
                    answer(200, &[("content-type", INDEX)], EMPTY)
                }
                Some(_) => answer(401, said, ""),
            }
        })
        .await;
        let upstream = stage.upstream();
        upstream.manifest("a/b", "1").await.unwrap();
        upstream.manifest("a/c", "1").await.unwrap();
        // the token for a/b has ended: one new one, which is as bad here, and one retry
        let refused = upstream.manifest("a/b", "1").await;
        assert!(matches!(refused, Err(UpstreamError::Denied(_))), "{refused:?}");
        assert_eq!((stage.count("/token"), stage.count("/v2/a/b/manifests/1")), (3, 4), "{said:?}");
    }
    // and where the new one is good, the client hears nothing of it
    let handed = Arc::new(AtomicUsize::new(0));
    let stage = Stage::open(move |seen| {
        let host = seen.header("host").unwrap();
        if seen.path == "/token" {
            return answer(
                200,
                &[],
                format!(r#"{{"token":"t{}"}}"#, handed.fetch_add(1, Ordering::SeqCst)),
            );
        }
        let newest = format!("Bearer t{}", handed.load(Ordering::SeqCst).saturating_sub(1));
        match seen.header("authorization") {
            None => answer(
                401,
                &[("www-authenticate", &format!(r#"Bearer realm="http://{host}/token""#))],
                "",
            ),
            Some(shown) if shown == newest => answer(200, &[("content-type", INDEX)], EMPTY),
            Some(_) => answer(401, &[], ""),
        }
    })
    .await;
    let upstream = stage.upstream();
    for repository in ["a/b", "a/c", "a/b"] {
        upstream.manifest(repository, "1").await.unwrap();
    }
    assert_eq!(stage.count("/token"), 3);
}

#[tokio::test]
async fn an_upstream_that_takes_no_token_is_asked_twice_and_no_more() {
    let stage = with_tokens(|_, _| false).await;
    let upstream = stage.upstream();
    assert!(matches!(upstream.manifest("a/b", "1").await, Err(UpstreamError::Denied(_))));
    assert_eq!((stage.count("/v2/a/b/manifests/1"), stage.count("/token")), (2, 1));
    assert!(matches!(upstream.manifest("a/b", "1").await, Err(UpstreamError::Denied(_))));
    assert_eq!((stage.count("/v2/a/b/manifests/1"), stage.count("/token")), (4, 2));
}

#[tokio::test]
async fn a_wrong_password_is_not_tried_again_at_once() {
    let stage = Stage::open(|seen| match seen.path.as_str() {
        "/token" => answer(401, &[], ""),
        _ => {
            let realm = format!(r#"Bearer realm="http://{}/token""#, seen.header("host").unwrap());
            answer(401, &[("www-authenticate", &realm)], "")
        }
    })
    .await;
    let mut settings = stage.settings();
    settings.credentials = robot();
    let upstream = Upstream::new(settings, stage.tasks.clone());
    for _ in 0..3 {
        let refused = upstream.manifest("a/b", "1").await.unwrap_err();
        assert!(
            matches!(&refused, UpstreamError::Denied(why) if !why.contains("secret")),
            "{refused}"
        );
    }
    assert_eq!(stage.count("/token"), 1);
}

#[tokio::test]
async fn a_password_goes_with_every_request_where_that_is_asked_and_is_not_repeated_when_refused() {
    let stage =
        Stage::open(|seen| match (seen.path.contains("/closed/"), seen.header("authorization")) {
            (false, Some("Basic cm9ib3Q6c2VjcmV0")) => answer(200, &[], CONTENT),
            _ => answer(401, &[("www-authenticate", r#"Basic realm="r""#)], ""),
        })
        .await;
    let mut settings = stage.settings();
    settings.credentials = robot();
    let upstream = Upstream::new(settings, stage.tasks.clone());
    for _ in 0..2 {
        upstream.blob("a", &Digest::sha256(CONTENT), 0).await.unwrap();
    }
    assert_eq!(stage.seen().len(), 3);
    assert!(matches!(upstream.resolve("closed/a", "1").await, Err(UpstreamError::Denied(_))));
    assert_eq!(stage.seen().len(), 4);
    let anonymous = stage.upstream().resolve("a", "1").await;
    assert!(matches!(anonymous, Err(UpstreamError::Denied(_))));
}

#[tokio::test]
async fn a_limit_on_logins_closes_the_upstream() {
    let stage = Stage::open(|seen| match seen.path.as_str() {
        "/token" => answer(429, &[("retry-after", "600")], ""),
        _ => {
            let realm = format!(r#"Bearer realm="http://{}/token""#, seen.header("host").unwrap());
            answer(401, &[("www-authenticate", &realm)], "")
        }
    })
    .await;
    let upstream = stage.upstream();
    assert!(matches!(upstream.resolve("a", "1").await, Err(UpstreamError::Limited { .. })));
    let blob = upstream.blob("b", &Digest::sha256(CONTENT), 0).await;
    assert!(matches!(blob, Err(UpstreamError::Limited { .. })));
    assert_eq!(stage.seen().len(), 2);
}

#[tokio::test]
async fn a_token_service_at_a_refused_address_is_not_asked() {
    let stage = Stage::open(|_| {
        answer(401, &[("www-authenticate", r#"Bearer realm="http://169.254.169.254/token""#)], "")
    })
    .await;
    let mut settings = stage.settings();
    settings.credentials = robot();
    let refused = Upstream::new(settings, stage.tasks.clone()).resolve("a", "1").await;
    assert!(matches!(refused, Err(UpstreamError::Refused(_))), "{refused:?}");
}
