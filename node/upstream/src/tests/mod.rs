//! Promises of the client, kept against a small registry on this machine.

mod blobs;
mod ecr;
#[cfg(feature = "kms")]
mod kms;
mod lists;
mod login;
mod service;
mod stage;

use std::time::{Duration, Instant};

use bytes::Bytes;
use ground::clock;
use ground::supervise::Tasks;
use rcgen::{CertificateParams, KeyPair};
use rules::words::digest::Digest;
use rules::words::names::Tag;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::budget::Ask;
use super::{AddressRule, BlobStream, Resolved, Sample, Trust, Upstream, UpstreamError};
use stage::{Stage, answer, robot, settings, unfinished};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The smallest manifest.
const EMPTY: &str = r#"{"schemaVersion":2,"manifests":[]}"#;
const CONTENT: &[u8] = b"0123456789";

async fn rest(mut stream: BlobStream) -> Result<Vec<u8>, UpstreamError> {
    let mut all = Vec::new();
    while let Some(bytes) = stream.next().await? {
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}

fn manifest(bytes: &'static str, digest: &str) -> http::Response<stage::Body> {
    answer(
        200,
        &[
            ("content-type", "application/vnd.oci.image.index.v1+json; charset=utf-8"),
            ("docker-content-digest", digest),
        ],
        bytes,
    )
}

#[tokio::test]
async fn a_tag_is_resolved_by_one_head_that_accepts_every_kind_of_manifest() {
    let digest = Digest::sha256(EMPTY.as_bytes());
    let stage = Stage::open(move |_| manifest(EMPTY, &digest.to_string())).await;
    let resolved = stage.upstream().resolve("alpine", "3").await.unwrap();
    assert_eq!(resolved, Resolved { digest, media_type: INDEX.into(), size: EMPTY.len() as u64 });
    let [seen] = &stage.seen()[..] else { panic!("{:?}", stage.seen()) };
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("HEAD", "/v2/alpine/manifests/3"));
    let accept = seen.header("accept").unwrap();
    for kind in [
        "oci.image.index.v1",
        "oci.image.manifest.v1",
        "manifest.list.v2",
        "distribution.manifest.v2",
    ] {
        assert!(accept.contains(kind), "{accept}");
    }
    assert_eq!(seen.header("accept-encoding"), Some("identity"));
}

#[tokio::test]
async fn where_head_does_not_tell_get_does() {
    for (status, headers) in
        [(405, vec![]), (400, vec![]), (403, vec![]), (200, vec![("content-type", INDEX)])]
    {
        let stage = Stage::open(move |seen| match seen.method.as_str() {
            "HEAD" => answer(status, &headers, ""),
            _ => answer(200, &[("content-type", INDEX)], EMPTY),
        })
        .await;
        let resolved = stage.upstream().resolve("a/b", "1").await.unwrap();
        assert_eq!(
            (resolved.digest, resolved.media_type.as_str()),
            (Digest::sha256(EMPTY.as_bytes()), INDEX)
        );
    }
}

#[tokio::test]
async fn who_is_denied_head_and_get_is_denied() {
    let denied = Stage::open(|_| answer(403, &[], "")).await;
    let resolved = denied.upstream().resolve("a/b", "1").await;
    assert!(matches!(resolved, Err(UpstreamError::Denied(_))), "{resolved:?}");
}

#[tokio::test]
async fn an_answer_may_have_hundreds_of_headers() {
    let stage = Stage::open(|_| {
        let names: Vec<String> = (0..500).map(|n| format!("x-{n}")).collect();
        let mut headers: Vec<(&str, &str)> =
            names.iter().map(|name| (name.as_str(), "v")).collect();
        headers.push(("content-type", INDEX));
        answer(200, &headers, EMPTY)
    })
    .await;
    assert_eq!(&stage.upstream().manifest("a/b", "1").await.unwrap().bytes[..], EMPTY.as_bytes());
}

#[tokio::test]
async fn what_is_no_manifest_though_its_digest_is_right_cannot_be_cached() {
    let digest = Digest::sha256(b"{\"schemaVersion\":");
    let stage =
        Stage::open(|_| answer(200, &[("content-type", INDEX)], "{\"schemaVersion\":")).await;
    let upstream = stage.upstream();
    let by_digest = upstream.manifest("a/b", &digest.to_string()).await;
    assert!(matches!(by_digest, Err(UpstreamError::Unusable(_))), "{by_digest:?}");
    let by_tag = upstream.manifest("a/b", "1").await;
    assert!(matches!(by_tag, Err(UpstreamError::Bad(_))), "perhaps a gateway: {by_tag:?}");
}

#[tokio::test]
async fn bytes_decide_and_what_a_header_says_does_not() {
    let (right, wrong) = (Digest::sha256(EMPTY.as_bytes()), Digest::sha256(b"[]"));
    let stage = Stage::open(move |_| manifest(EMPTY, &wrong.to_string())).await;
    let upstream = stage.upstream();
    assert!(matches!(upstream.manifest("a", &wrong.to_string()).await, Err(UpstreamError::Bad(_))));
    let by_tag = upstream.manifest("a", "1").await.unwrap();
    assert_eq!((by_tag.digest, &by_tag.bytes[..]), (right, EMPTY.as_bytes()));
    assert_eq!(upstream.resolve("a", &right.to_string()).await.unwrap().digest, right);
    // asked for by digest, the bytes decide, not the header
    let fetched = upstream.manifest("a", &right.to_string()).await.unwrap();
    assert_eq!(
        (fetched.digest, &fetched.bytes[..], fetched.media_type.as_str()),
        (right, EMPTY.as_bytes(), INDEX)
    );
}

/// What a gateway between the two makes of an answer: another status, or gzip that nobody asked for.
#[tokio::test]
async fn what_a_gateway_does_to_an_answer_hides_no_manifest_and_no_list() {
    let digest = Digest::sha256(EMPTY.as_bytes());
    let tags = r#"{"name":"a","tags":["1"]}"#;
    for (status, coding) in
        [(203, ""), (201, ""), (200, "gzip"), (203, "x-gzip"), (200, "deflate"), (200, "br")]
    {
        let stage = Stage::open(move |seen| {
            let (text, kind) = match seen.path.ends_with("tags/list") {
                true => (tags, "application/json"),
                false => (EMPTY, INDEX),
            };
            let bytes = match coding {
                "gzip" | "x-gzip" => stage::gzip(text.as_bytes()),
                _ => text.into(),
            };
            let length = bytes.len().to_string();
            let mut headers = vec![("content-type", kind), ("content-length", length.as_str())];
            headers.extend((!coding.is_empty()).then_some(("content-encoding", coding)));
            let digest = digest.to_string();
            headers.push(("docker-content-digest", digest.as_str()));
            answer(status, &headers, if seen.method == "HEAD" { Vec::new() } else { bytes })
        })
        .await;
        let (upstream, what) = (stage.upstream(), format!("{status} {coding}"));
        for reference in ["1", &digest.to_string()] {
            let fetched = upstream.manifest("a", reference).await;
            let fetched = fetched.unwrap_or_else(|e| panic!("{what}, {reference}: {e}"));
            assert_eq!((fetched.digest, &fetched.bytes[..]), (digest, EMPTY.as_bytes()), "{what}");
            let resolved = upstream.resolve("a", reference).await.unwrap();
            assert_eq!((resolved.digest, resolved.size), (digest, EMPTY.len() as u64), "{what}");
        }
        assert_eq!(upstream.tags("a", "").await.unwrap().tags.len(), 1, "{what}");
    }
}

#[tokio::test]
async fn a_page_that_says_200_is_no_manifest() {
    let page = "<html>We are back soon.</html>";
    for (kind, body) in
        [("text/html", page), (INDEX, page), ("text/html", EMPTY), ("text/html", "{}")]
    {
        let stage = Stage::open(move |_| answer(200, &[("content-type", kind)], body)).await;
        let upstream = stage.upstream();
        assert!(
            matches!(upstream.manifest("a", "1").await, Err(UpstreamError::Bad(_))),
            "{kind} {body}"
        );
        assert!(
            matches!(upstream.resolve("a", "1").await, Err(UpstreamError::Bad(_))),
            "{kind} {body}"
        );
    }
}

#[tokio::test]
async fn what_no_cache_can_keep_is_told_apart_from_what_may_be_well_again() {
    let schema_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    for (kind, body) in
        [(schema_1, r#"{"schemaVersion":1}"#), ("text/plain", EMPTY), ("a/b", EMPTY), (INDEX, "{}")]
    {
        let stage = Stage::open(move |_| answer(200, &[("content-type", kind)], body)).await;
        let upstream = stage.upstream();
        for result in
            [upstream.manifest("a", "1").await.err(), upstream.resolve("a", "1").await.err()]
        {
            let Some(UpstreamError::Unusable(why)) = result else { continue };
            assert!(why.contains(kind), "it says what came: {why}");
        }
        assert!(
            matches!(upstream.manifest("a", "1").await, Err(UpstreamError::Unusable(_))),
            "{kind} {body}"
        );
    }
}

#[tokio::test]
async fn what_clients_take_goes_through_as_it_came() {
    let image = "application/vnd.oci.image.manifest.v1+json";
    let digest = Digest::sha256(EMPTY.as_bytes());
    let inside: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.list.v2+json","manifests":null}"#;
    for (said, body, kind) in [(None, EMPTY, None), (Some(INDEX), inside, Some(INDEX))] {
        let stage = Stage::open(move |_| {
            let said: Vec<_> = said.map(|kind| ("content-type", kind)).into_iter().collect();
            answer(200, &said, body)
        })
        .await;
        let fetched = stage.upstream().manifest("a", "1").await.unwrap();
        assert_eq!(
            (fetched.media_type.as_str(), &fetched.bytes[..]),
            (kind.unwrap_or(INDEX), body.as_bytes())
        );
    }
    let stage = Stage::open(move |_| answer(200, &[("content-type", image)], EMPTY)).await;
    let other = stage.upstream().manifest("a", &digest.to_string()).await;
    assert!(
        matches!(other, Err(UpstreamError::Unusable(_))),
        "an image without a config is none, and stays so: {other:?}"
    );
}

/// What a connection does with a request that it does not answer.
#[derive(Clone, Copy, PartialEq)]
enum Leaves {
    /// Closes when the second request arrives.
    AtTheSecond,
    /// Closes after each answer, and does not say so before.
    AfterEach,
    /// Closes whenever a request arrives.
    Always,
}

/// A server on bare sockets that closes kept connections as it likes. Counts the requests that
/// arrived.
async fn leaving(
    leaves: Leaves,
    tasks: &Tasks,
) -> (std::net::SocketAddr, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    use std::sync::atomic::Ordering;
    use tokio::io::AsyncReadExt;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = asked.clone();
    let inner = tasks.clone();
    tasks.spawn("leaving", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let count = count.clone();
            inner.spawn("leaving.connection", async move {
                for request in 0.. {
                    let (mut head, mut byte) = (Vec::new(), [0]);
                    while !head.ends_with(b"\r\n\r\n") {
                        match stream.read(&mut byte).await {
                            Ok(1) => head.push(byte[0]),
                            _ => return,
                        }
                    }
                    count.fetch_add(1, Ordering::SeqCst);
                    if leaves == Leaves::Always || (leaves == Leaves::AtTheSecond && request > 0) {
                        return;
                    }
                    let body = if head.starts_with(b"HEAD") { "" } else { EMPTY };
                    let length = EMPTY.len();
                    let answer =
                        format!("HTTP/1.1 200 OK\r\ncontent-type: {INDEX}\r\ncontent-length: {length}\r\n\r\n{body}");
                    if stream.write_all(answer.as_bytes()).await.is_err() || leaves == Leaves::AfterEach {
                        return;
                    }
                }
            });
        }
    });
    (address, asked)
}

#[tokio::test]
async fn a_kept_connection_that_ends_as_it_is_used_again_costs_nobody_an_answer() {
    for leaves in [Leaves::AtTheSecond, Leaves::AfterEach] {
        let tasks = Tasks::new();
        let (address, _) = leaving(leaves, &tasks).await;
        let upstream = Upstream::new(settings(&format!("http://{address}")), tasks.clone());
        for _ in 0..10 {
            upstream.manifest("a", "1").await.unwrap();
            assert_eq!(upstream.gives_blob("a", &Digest::sha256(EMPTY.as_bytes())).await, Ok(true));
        }
    }
    let tasks = Tasks::new();
    let (address, asked) = leaving(Leaves::Always, &tasks).await;
    let upstream = Upstream::new(settings(&format!("http://{address}")), tasks.clone());
    assert!(matches!(upstream.manifest("a", "1").await, Err(UpstreamError::Unreachable(_))));
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 2, "once more, and no more");
}

#[tokio::test]
async fn a_manifest_that_is_too_long_is_refused() {
    let stage =
        Stage::open(|_| answer(200, &[("content-type", INDEX)], vec![b' '; (1 << 20) + 1])).await;
    assert!(matches!(stage.upstream().manifest("a", "1").await, Err(UpstreamError::Unusable(_))));
}

#[tokio::test]
async fn malformed_names_never_reach_the_upstream() {
    let stage = Stage::open(|_| answer(200, &[], "")).await;
    let upstream = stage.upstream();
    for (repository, reference) in
        [("../x", "1"), ("a", "../../x"), ("a", ""), ("A", "1"), ("a", "x?y=1"), ("", "1")]
    {
        let result = upstream.resolve(repository, reference).await;
        assert!(matches!(result, Err(UpstreamError::Bad(_))), "{repository} {reference}");
    }
    assert!(stage.seen().is_empty());
}

#[tokio::test]
async fn credentials_dropped_at_another_host_do_not_come_back_with_it() {
    let home = std::sync::Arc::new(std::sync::OnceLock::<String>::new());
    let known = home.clone();
    let cdn = Stage::open(move |_| answer(302, &[("location", known.get().unwrap())], "")).await;
    let there = format!("http://{}/", cdn.address);
    let stage = Stage::open(move |seen| match (seen.path.as_str(), seen.header("authorization")) {
        ("/back", _) => answer(200, &[], CONTENT),
        (_, None) => answer(401, &[("www-authenticate", "Basic")], ""),
        _ => answer(302, &[("location", &there)], ""),
    })
    .await;
    home.set(format!("http://{}/back", stage.address)).unwrap();
    let mut settings = stage.settings();
    settings.credentials = robot();
    let upstream = Upstream::new(settings, stage.tasks.clone());
    rest(upstream.blob("a", &Digest::sha256(CONTENT), 0).await.unwrap()).await.unwrap();
    assert_eq!(stage.seen().last().unwrap().header("authorization"), None);
}

#[tokio::test]
async fn redirects_end_and_do_not_leave_what_may_be_connected_to() {
    let stage = Stage::open(|seen| match seen.path.as_str() {
        "/v2/metadata/manifests/1" => {
            answer(302, &[("location", "http://169.254.169.254/latest/meta-data/")], "")
        }
        "/v2/private/manifests/1" => answer(302, &[("location", "http://[::ffff:10.0.0.1]/")], ""),
        "/v2/file/manifests/1" => answer(302, &[("location", "file:///etc/passwd")], ""),
        path => answer(302, &[("location", path)], ""),
    })
    .await;
    let upstream = stage.upstream();
    assert!(matches!(upstream.manifest("metadata", "1").await, Err(UpstreamError::Refused(_))));
    assert!(matches!(upstream.manifest("private", "1").await, Err(UpstreamError::Refused(_))));
    assert!(matches!(upstream.manifest("file", "1").await, Err(UpstreamError::Bad(_))));
    assert!(matches!(upstream.manifest("loop", "1").await, Err(UpstreamError::Bad(_))));
    assert_eq!(stage.count("/v2/loop/manifests/1"), 6);
}

#[tokio::test]
async fn an_address_that_is_not_permitted_is_not_connected_to_by_any_name() {
    let stage = Stage::open(|_| answer(200, &[], "")).await;
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        let mut settings = settings(&format!("http://{host}:{}", stage.address.port()));
        settings.rule = AddressRule { allow_private: true, allow_loopback: false };
        let refused = Upstream::new(settings, stage.tasks.clone()).resolve("a", "1").await;
        assert!(matches!(refused, Err(UpstreamError::Refused(_))), "{host}: {refused:?}");
    }
    assert_eq!(stage.connections(), 0);
}

#[tokio::test]
async fn what_is_missing_denied_or_broken_is_told_apart() {
    let stage = Stage::open(|seen| {
        let denied = r#"{"errors":[{"code":"DENIED","message":"not you\n"}]}"#;
        match seen.path.split('/').nth(2).unwrap() {
            "gone" => answer(404, &[], ""),
            "theirs" => answer(403, &[], denied),
            "ill" => answer(500, &[], ""),
            "down" => answer(503, &[], ""),
            "early" => answer(425, &[], ""),
            _ => answer(400, &[], r#"{"errors":[{"code":"NAME_INVALID"}]}"#),
        }
    })
    .await;
    let upstream = stage.upstream();
    let manifest = async |repository: &str| upstream.manifest(repository, "1").await.unwrap_err();
    assert_eq!(manifest("gone").await, UpstreamError::NotFound);
    assert_eq!(manifest("theirs").await, UpstreamError::Denied("403 Forbidden: not you".into()));
    assert!(matches!(manifest("ill").await, UpstreamError::Unreachable(_)));
    assert!(matches!(manifest("down").await, UpstreamError::Unreachable(_)));
    assert!(matches!(manifest("early").await, UpstreamError::Bad(_)));
    let refused = manifest("odd").await;
    let said = matches!(&refused, UpstreamError::Unusable(why) if why.contains("NAME_INVALID"));
    assert!(said, "waiting does not help: {refused:?}");
    assert_eq!(
        stage.upstream().blob("gone", &Digest::sha256(b""), 0).await.unwrap_err(),
        UpstreamError::NotFound
    );
}

#[tokio::test]
async fn a_limit_is_kept_without_asking_again_and_leaves_blobs_of_a_begun_pull_open() {
    let stage = Stage::open(|seen| match seen.path.contains("/blobs/") {
        true => answer(200, &[], CONTENT),
        false => answer(429, &[("retry-after", "1800")], ""),
    })
    .await;
    let upstream = stage.upstream();
    let before = clock::now();
    for _ in 0..3 {
        let Err(UpstreamError::Limited { until }) = upstream.manifest("a", "1").await else {
            panic!("not limited")
        };
        let wait = until.since(before).as_secs();
        assert!((1800..1860).contains(&wait), "{wait}");
    }
    let limited = upstream.resolve("b", "1").await.unwrap_err();
    assert!(matches!(limited, UpstreamError::Limited { .. }));
    let said = limited.to_string();
    let seconds = said.strip_prefix("the upstream limits requests, and is not asked for another ");
    let seconds: u64 = seconds.and_then(|rest| rest.strip_suffix(" s")).unwrap().parse().unwrap();
    assert!((1700..=1800).contains(&seconds), "{said}");
    assert_eq!(stage.seen().len(), 1);
    assert!(upstream.blob("a", &Digest::sha256(CONTENT), 0).await.is_ok());
}

#[tokio::test]
async fn a_pause_and_the_last_failure_are_told_of_and_a_pause_is_news_once() {
    let stage = Stage::open(|seen| match seen.path.contains("/ill/") {
        true => answer(500, &[], ""),
        false => answer(429, &[("retry-after", "1800")], ""),
    })
    .await;
    let upstream = stage.upstream();
    let standing = upstream.standing();
    assert!(standing.paused.is_zero() && standing.failed.is_none(), "{standing:?}");
    upstream.manifest("ill", "1").await.unwrap_err();
    let (why, _) = upstream.standing().failed.unwrap();
    assert!(why.contains("500") && upstream.standing().paused.is_zero(), "{why}");
    for _ in 0..2 {
        upstream.manifest("a", "1").await.unwrap_err();
        let standing = upstream.standing();
        assert!((1700..=1800).contains(&standing.paused.as_secs()), "{standing:?}");
        assert_eq!(standing.failed.unwrap().0, "it limits requests: manifests for 1800 s");
    }
    let (now, wait) = (clock::now(), Some(Duration::from_secs(60)));
    let news = [Some(Ask::Manifest), None, Some(Ask::Blob), None]
        .map(|ask| upstream.pause(now, ask, wait).1);
    assert_eq!(news, [false, true, false, false], "blobs were still open");
}

#[tokio::test]
async fn a_503_with_retry_after_closes_everything() {
    let stage =
        Stage::open(|_| answer(503, &[("retry-after", "Wed, 01 Jan 2098 00:00:00 GMT")], "")).await;
    let upstream = stage.upstream();
    assert!(matches!(upstream.manifest("a", "1").await, Err(UpstreamError::Limited { .. })));
    let blob = upstream.blob("a", &Digest::sha256(CONTENT), 0).await;
    assert!(matches!(blob, Err(UpstreamError::Limited { .. })));
    assert_eq!(stage.seen().len(), 1);
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = settings(&format!("http://{}", silent.local_addr().unwrap()));
    settings.terms.first_byte = Duration::from_millis(200);
    settings.terms.question = settings.terms.first_byte;
    settings.terms.stall = Duration::from_secs(60);
    let upstream = Upstream::new(settings, ground::supervise::Tasks::new());
    let began = Instant::now();
    assert!(matches!(upstream.resolve("a", "1").await, Err(UpstreamError::Unreachable(_))));
    let blob = upstream.blob("a", &Digest::sha256(CONTENT), 0).await;
    assert!(matches!(blob, Err(UpstreamError::Unreachable(_))));
    assert!(began.elapsed() >= Duration::from_millis(400));
    assert!(began.elapsed() < Duration::from_secs(30), "not the stall time: {:?}", began.elapsed());
}

#[tokio::test]
async fn a_manifest_may_come_when_a_blob_would_have_been_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = settings(&format!("http://{}", listener.local_addr().unwrap()));
    settings.terms.first_byte = Duration::from_millis(100);
    let upstream = Upstream::new(settings, ground::supervise::Tasks::new());
    let digest = Digest::sha256(EMPTY.as_bytes());
    let slow = async {
        let (mut manifest, _) = listener.accept().await.unwrap();
        let blob = upstream.blob("a", &digest, 0).await;
        assert!(matches!(blob, Err(UpstreamError::Unreachable(_))), "{blob:?}");
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {INDEX}\r\ndocker-content-digest: {digest}\r\ncontent-length: {}\r\n\r\n",
            EMPTY.len()
        );
        manifest.write_all(head.as_bytes()).await.unwrap();
    };
    let (resolved, ()) = tokio::join!(upstream.resolve("a", "1"), slow);
    assert_eq!(resolved.unwrap().digest, digest);
}

#[tokio::test]
async fn a_body_that_stands_still_is_given_up_before_its_first_byte_and_after_it() {
    let stage = Stage::open(|seen| match seen.path.contains("/late/") {
        true => unfinished(10, b"", true),
        false => unfinished(10, b"0123", true),
    })
    .await;
    let mut settings = stage.settings();
    settings.terms.first_byte = Duration::from_secs(2);
    settings.terms.stall = Duration::from_millis(200);
    let upstream = Upstream::new(settings, stage.tasks.clone());
    let mut stream = upstream.blob("a", &Digest::sha256(CONTENT), 0).await.unwrap();
    assert_eq!(stream.next().await.unwrap(), Some(Bytes::from_static(b"0123")));
    assert!(matches!(stream.next().await, Err(UpstreamError::Unreachable(_))));
    assert_eq!(stream.position(), 4);
    let late = upstream.blob("late/a", &Digest::sha256(CONTENT), 0).await;
    assert!(matches!(late, Err(UpstreamError::Unreachable(_))));
}

#[tokio::test]
async fn nobody_there_is_an_error_at_once() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let upstream =
        Upstream::new(settings(&format!("http://{closed}")), ground::supervise::Tasks::new());
    assert!(matches!(upstream.resolve("a", "1").await, Err(UpstreamError::Unreachable(_))));
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_refused_and_a_told_one_is_trusted() {
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    let acceptor = std::sync::Arc::new(server).into();
    let stage = Stage::open_tls(Some(acceptor), |seen| match seen.path.contains("/leaves/") {
        true => answer(302, &[("location", "http://localhost/")], ""),
        false => manifest(EMPTY, &Digest::sha256(EMPTY.as_bytes()).to_string()),
    })
    .await;
    let url = format!("https://localhost:{}", stage.address.port());
    let stranger = Upstream::new(settings(&url), stage.tasks.clone()).resolve("a", "1").await;
    assert!(matches!(stranger, Err(UpstreamError::Unreachable(_))), "{stranger:?}");
    assert!(stage.seen().is_empty());
    let mut known = settings(&url);
    known.trust = Trust::with_authorities(certificate.pem().as_bytes()).unwrap();
    let upstream = Upstream::new(known, stage.tasks.clone());
    assert!(upstream.resolve("a", "1").await.is_ok());
    assert!(
        matches!(upstream.resolve("leaves/a", "1").await, Err(UpstreamError::Refused(_))),
        "https to http"
    );
}
