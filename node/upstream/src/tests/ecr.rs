//! An access key is exchanged at ECR's API: both are small servers on this machine, and the API
//! checks the signature.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::future::join_all;
use ground::clock;
use http::Response;
use rules::words::digest::Digest;
use rules::words::moment::Timestamp;
use tokio::net::TcpListener;

use super::stage::{Body, Seen, Stage, answer};
use super::{CONTENT, EMPTY, INDEX, rest};
use crate::connect::Connections;
use crate::ecr::Api;
use crate::login::Login;
use crate::sigv4::{self, Scope, Signing};
use crate::{AccessKey, AddressRule, Credentials, Trust, Upstream, UpstreamError};

const ID: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const REGION: &str = "eu-west-1";
const HALF_A_DAY: f64 = 12.0 * 3600.0;

/// ECR's API, which gives `p0`, `p1`, .. to whoever signs with `SECRET`; each is good for
/// `life(number)` seconds.
async fn api(life: impl Fn(usize) -> f64 + Send + Sync + 'static) -> Stage {
    let given = AtomicUsize::new(0);
    Stage::open(move |seen| {
        if let Err(why) = signed_with_the_secret(seen) {
            let said = format!(
                r#"{{"__type":"com.amazon.coral.service#InvalidSignatureException","message":"The request signature we calculated does not match: {why}"}}"#
            );
            return answer(403, &[], said);
        }
        let number = given.fetch_add(1, Ordering::SeqCst);
        let token = BASE64_STANDARD.encode(format!("AWS:p{number}"));
        let expires = clock::timestamp().0 as f64 / 1000.0 + life(number);
        let said = format!(r#"{{"authorizationData":[{{"authorizationToken":"{token}","expiresAt":{expires:.3}}}]}}"#);
        answer(200, &[("content-type", "application/x-amz-json-1.1")], said)
    })
    .await
}

/// Signs again what came over the wire.
fn signed_with_the_secret(seen: &Seen) -> Result<(), &'static str> {
    let shown = |name: &str| seen.header(name).ok_or("a header is missing");
    if (seen.method.as_str(), &seen.body[..]) != ("POST", b"{}") {
        return Err("not what is posted");
    }
    if shown("x-amz-target")? != "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken" {
        return Err("the target");
    }
    let (stamp, now) = (shown("x-amz-date")?, clock::timestamp().0);
    let around = sigv4::stamp(Timestamp(now - 300_000))..=sigv4::stamp(Timestamp(now + 300_000));
    if !around.contains(&stamp.to_owned()) {
        return Err("the time");
    }
    let names = ["content-type", "host", "x-amz-target"];
    let headers = names.map(|name| (name, seen.header(name).unwrap_or_default()));
    let request = Signing {
        method: "POST",
        path: &seen.path,
        query: &seen.query,
        headers: &headers,
        body: &seen.body,
    };
    let wanted = sigv4::authorization(
        ID,
        SECRET,
        &Scope { region: REGION, service: "ecr" },
        &request,
        stamp,
    );
    if shown("authorization")? == wanted { Ok(()) } else { Err("the signature") }
}

/// A registry like ECR's, which lets in whoever shows a password that is `good`.
async fn registry(good: impl Fn(&str) -> bool + Send + Sync + 'static) -> Stage {
    Stage::open(move |seen| match password(seen) {
        Some(password) if good(&password) => answer(200, &[("content-type", INDEX)], EMPTY),
        _ => closed(),
    })
    .await
}

fn closed() -> Response<Body> {
    answer(
        401,
        &[("www-authenticate", r#"Basic realm="https://registry/",service="ecr.amazonaws.com""#)],
        "Not Authorized",
    )
}

/// The password that was shown with the user `AWS`.
fn password(seen: &Seen) -> Option<String> {
    let shown =
        BASE64_STANDARD.decode(seen.header("authorization")?.strip_prefix("Basic ")?).ok()?;
    Some(String::from_utf8(shown).ok()?.strip_prefix("AWS:")?.to_owned())
}

fn access_key(secret: &str, api: &str) -> AccessKey {
    let api = Api { url: api.parse().unwrap(), region: REGION.into() };
    AccessKey { id: ID.into(), secret: secret.into(), api }
}

fn upstream(registry: &Stage, secret: &str, api: &str) -> Upstream {
    let mut settings = registry.settings();
    settings.credentials = Some(Credentials::AccessKey(access_key(secret, api)));
    Upstream::new(settings, registry.tasks.clone())
}

fn url(stage: &Stage) -> String {
    format!("http://{}/", stage.address)
}

#[tokio::test]
async fn an_access_key_is_exchanged_once_and_the_password_shown_from_the_first_request_on() {
    let cdn = Stage::open(|_| answer(200, &[], CONTENT)).await;
    let there = format!("http://{}/signed", cdn.address);
    let api = api(|_| HALF_A_DAY).await;
    let registry =
        Stage::open(move |seen| match (password(seen).as_deref(), seen.path.contains("/blobs/")) {
            (Some("p0"), false) => answer(200, &[("content-type", INDEX)], EMPTY),
            (Some("p0"), true) => answer(307, &[("location", &there)], ""),
            _ => closed(),
        })
        .await;
    let upstream = upstream(&registry, SECRET, &url(&api));
    for repository in ["a/b", "a/c"] {
        upstream.manifest(repository, "1").await.unwrap();
    }
    let blob = upstream.blob("a/b", &Digest::sha256(CONTENT), 0).await.unwrap();
    assert_eq!(rest(blob).await.unwrap(), CONTENT);
    assert_eq!(
        (registry.seen().len(), api.seen().len()),
        (3, 1),
        "no request is spent on a challenge"
    );
    assert_eq!(cdn.seen()[0].header("authorization"), None);
    let wire = format!("{:?} {:?} {:?}", registry.seen(), api.seen(), cdn.seen());
    assert!(
        !wire.contains(SECRET) && !wire.contains(&BASE64_STANDARD.encode(format!("{ID}:{SECRET}")))
    );
}

#[tokio::test]
async fn however_many_pull_at_once_one_exchange_is_made() {
    let (api, registry) = (api(|_| HALF_A_DAY).await, registry(|password| password == "p0").await);
    let upstream = upstream(&registry, SECRET, &url(&api));
    let pulls = (0..50).map(|_| upstream.manifest("a/b", "1"));
    for pulled in join_all(pulls).await {
        pulled.unwrap();
    }
    assert_eq!((registry.seen().len(), api.seen().len()), (50, 1));
}

#[tokio::test]
async fn a_thousand_logins_at_once_are_one_exchange() {
    // without the thousand connections of a thousand pulls
    let api = api(|_| HALF_A_DAY).await;
    let rule = AddressRule { allow_private: false, allow_loopback: true };
    let patience = Duration::from_secs(30);
    let connections =
        Connections::new("ecr", rule, Trust::public().unwrap(), patience, api.tasks.clone());
    let key = Some(Credentials::AccessKey(access_key(SECRET, &url(&api))));
    let login = Login::new(connections, key, true, patience, api.tasks.clone());
    let repositories: Vec<_> = (0..1000).map(|number| format!("team/app{number}")).collect();
    let passes = join_all(repositories.iter().map(|repository| login.pass(repository))).await;
    let first = passes[0].clone().unwrap().unwrap();
    assert!(passes.into_iter().all(|pass| pass.unwrap().unwrap() == first));
    let renewed = join_all(
        repositories.iter().map(|repository| login.renew(repository, Some(&first), Vec::new())),
    )
    .await;
    let second = renewed[0].clone().unwrap();
    assert_ne!(first, second);
    assert!(renewed.into_iter().all(|pass| pass.unwrap() == second));
    assert_eq!(api.seen().len(), 2, "one for all, and one instead of what was refused");
}

#[tokio::test]
async fn a_password_whose_time_is_over_is_replaced_by_another_exchange() {
    // the first one is over when it comes
    let api = api(|number| if number == 0 { -10.0 } else { HALF_A_DAY }).await;
    let registry = registry(|_| true).await;
    let upstream = upstream(&registry, SECRET, &url(&api));
    for _ in 0..4 {
        upstream.manifest("a/b", "1").await.unwrap();
    }
    let shown: Vec<_> = registry.seen().iter().filter_map(password).collect();
    assert_eq!(shown, ["p0", "p1", "p1", "p1"]);
    assert_eq!(api.seen().len(), 2);
}

#[tokio::test]
async fn a_password_that_is_refused_before_its_time_is_replaced_once() {
    let (api, registry) = (api(|_| HALF_A_DAY).await, registry(|password| password == "p1").await);
    let upstream = upstream(&registry, SECRET, &url(&api));
    for _ in 0..2 {
        upstream.manifest("a/b", "1").await.unwrap();
    }
    assert_eq!((registry.seen().len(), api.seen().len()), (3, 2));
}

#[tokio::test]
async fn a_registry_that_takes_no_password_is_asked_twice_and_no_more() {
    let (api, registry) = (api(|_| HALF_A_DAY).await, registry(|_| false).await);
    let refused = upstream(&registry, SECRET, &url(&api)).manifest("a/b", "1").await;
    assert!(matches!(refused, Err(UpstreamError::Denied(_))), "{refused:?}");
    assert_eq!((registry.seen().len(), api.seen().len()), (2, 2));
}

#[tokio::test]
async fn an_old_password_that_is_forbidden_is_replaced_and_a_fresh_one_is_not() {
    let api = api(|_| HALF_A_DAY).await;
    // ECR says 403 of what is over, as of what is not allowed
    let registry =
        Stage::open(|seen| match (password(seen).as_deref(), seen.path.contains("/closed/")) {
            (Some("p1"), false) => answer(200, &[("content-type", INDEX)], EMPTY),
            _ => answer(403, &[], r#"{"errors":[{"code":"DENIED","message":"no"}]}"#),
        })
        .await;
    let upstream = upstream(&registry, SECRET, &url(&api));
    let denied = async |repository: &str| {
        let refused = upstream.manifest(repository, "1").await;
        assert!(matches!(refused, Err(UpstreamError::Denied(_))), "{refused:?}");
    };
    denied("a/b").await;
    assert_eq!((registry.seen().len(), api.seen().len()), (1, 1));
    upstream.login.age(Duration::from_secs(3600));
    upstream.manifest("a/b", "1").await.unwrap();
    assert_eq!((registry.seen().len(), api.seen().len()), (3, 2));
    for _ in 0..3 {
        denied("closed/b").await;
    }
    assert_eq!(
        (registry.seen().len(), api.seen().len()),
        (6, 2),
        "what is forbidden costs no exchange"
    );
}

#[tokio::test]
async fn a_wrong_secret_is_denied_in_words_and_not_tried_again_at_once() {
    let (api, registry) = (api(|_| HALF_A_DAY).await, registry(|_| true).await);
    let upstream = upstream(&registry, "another/Secret", &url(&api));
    for _ in 0..3 {
        let refused = upstream.resolve("a/b", "1").await.unwrap_err();
        let UpstreamError::Denied(why) = &refused else { panic!("{refused}") };
        for word in [
            "Amazon ECR",
            REGION,
            "refused the access key",
            "InvalidSignatureException",
            "the signature",
        ] {
            assert!(why.contains(word), "{why}");
        }
        assert!(!why.contains("another/Secret"), "{why}");
    }
    assert_eq!((registry.seen().len(), api.seen().len()), (0, 1));
}

#[tokio::test]
async fn an_api_that_cannot_be_reached_is_like_an_upstream_that_cannot() {
    let registry = registry(|_| true).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let failed =
        upstream(&registry, SECRET, &format!("http://{closed}/")).resolve("a/b", "1").await;
    assert!(matches!(failed, Err(UpstreamError::Unreachable(_))), "{failed:?}");
    let ill = Stage::open(|_| answer(500, &[], "{}")).await;
    let failed = upstream(&registry, SECRET, &url(&ill)).resolve("a/b", "1").await;
    assert!(
        matches!(&failed, Err(UpstreamError::Unreachable(why)) if why.contains("ECR")),
        "{failed:?}"
    );
    let moved = Stage::open(|_| answer(307, &[("location", "http://169.254.169.254/")], "")).await;
    let failed = upstream(&registry, SECRET, &url(&moved)).resolve("a/b", "1").await;
    assert!(matches!(failed, Err(UpstreamError::Bad(_))), "redirects are not followed: {failed:?}");
    assert_eq!(registry.seen().len(), 0);
}

#[tokio::test]
async fn an_api_at_a_refused_address_is_not_asked() {
    let registry = registry(|_| true).await;
    for address in ["http://169.254.169.254/", "http://10.0.0.1/"] {
        let refused = upstream(&registry, SECRET, address).resolve("a/b", "1").await;
        assert!(matches!(refused, Err(UpstreamError::Refused(_))), "{refused:?}");
    }
    assert_eq!(registry.seen().len(), 0);
}

#[tokio::test]
async fn a_limit_of_the_api_closes_the_upstream() {
    let api = Stage::open(|_| {
        answer(400, &[], r#"{"__type":"ThrottlingException","message":"Rate exceeded"}"#)
    })
    .await;
    let registry = registry(|_| true).await;
    let upstream = upstream(&registry, SECRET, &url(&api));
    for _ in 0..2 {
        assert!(matches!(upstream.resolve("a", "1").await, Err(UpstreamError::Limited { .. })));
    }
    assert_eq!((registry.seen().len(), api.seen().len()), (0, 1));
}

#[tokio::test]
async fn a_token_service_that_a_registry_names_is_not_shown_the_password() {
    let service = Stage::open(|_| answer(200, &[], r#"{"token":"t"}"#)).await;
    let challenge = format!(r#"Bearer realm="http://{}/token""#, service.address);
    let registry = Stage::open(move |_| answer(401, &[("www-authenticate", &challenge)], "")).await;
    let api = api(|_| HALF_A_DAY).await;
    let refused = upstream(&registry, SECRET, &url(&api)).resolve("a", "1").await;
    assert!(matches!(refused, Err(UpstreamError::Denied(_))), "{refused:?}");
    assert_eq!(service.seen().len(), 0);
}
