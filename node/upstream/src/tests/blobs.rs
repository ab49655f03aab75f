//! Blobs: from where they broke off, over redirects, with and without a length.

use super::*;

#[tokio::test]
async fn only_all_bytes_with_its_digest_are_a_blob_whatever_a_head_says() {
    let [right, wrong, gone] = [CONTENT, b"other".as_slice(), b"gone"].map(Digest::sha256);
    let stage = Stage::open(move |seen| match &seen.method {
        &http::Method::HEAD => answer(404, &[], ""),
        _ if seen.path.ends_with(&gone.to_string()) => answer(404, &[], ""),
        _ => answer(200, &[], CONTENT),
    })
    .await;
    let upstream = stage.upstream();
    for (digest, gives) in [(right, true), (wrong, false), (gone, false)] {
        assert_eq!(upstream.gives_blob("a", &digest).await, Ok(gives));
    }
}

#[tokio::test]
async fn a_sample_is_the_bytes_of_its_range_and_no_status_counts_as_one() {
    let asked = b"asked".as_slice();
    let digest = Digest::sha256(asked);
    let bytes = |bytes: &'static [u8]| Ok(Sample::Bytes(Bytes::from_static(bytes)));
    let stage = Stage::open(|seen| match seen.header("range") {
        Some("bytes=2-4") => answer(206, &[("content-range", "bytes 2-4/10")], "234"),
        Some("bytes=5-6") => answer(206, &[("content-range", "bytes 0-1/10")], "01"),
        Some("bytes=6-7") => answer(206, &[("content-range", "bytes 6-9/10")], "6789"),
        Some("bytes=7-8") => answer(206, &[], "78"),
        Some("bytes=8-8") => answer(404, &[], ""),
        Some("bytes=9-9") => answer(200, &[("content-type", "text/html; charset=utf-8")], "<p>"),
        Some("bytes=0-0") => answer(416, &[("content-range", "bytes */0")], ""),
        // it knows no ranges
        _ => answer(200, &[], CONTENT),
    })
    .await;
    let upstream = stage.upstream();
    let sample = async |range| upstream.sample("a", &digest, range).await;
    assert_eq!(sample(2..5).await, bytes(b"234"));
    for range in [5..7, 6..8, 7..9, 9..10] {
        let told = sample(range.clone()).await;
        assert!(matches!(told, Err(UpstreamError::Bad(_))), "{range:?}: {told:?}");
    }
    assert_eq!(sample(8..9).await, Err(UpstreamError::NotFound));
    assert_eq!(sample(0..10).await, bytes(CONTENT), "asked for whole, and given whole");
    for range in [0..0, 0..5, 3..6] {
        assert_eq!(sample(range.clone()).await, Ok(Sample::Unanswered), "{range:?}");
    }
    assert!(stage.seen().iter().all(|seen| seen.method == http::Method::GET));
}

#[tokio::test]
async fn a_blob_comes_whole_over_a_redirect_and_another_host_sees_no_credentials() {
    let cdn = Stage::open(|_| answer(200, &[], CONTENT)).await;
    // the same machine by another port: another host in all that matters
    let there = format!("http://{}/signed?sig=a%2Fb&f={{x}}", cdn.address);
    let stage = Stage::open(move |seen| match seen.header("authorization") {
        None => answer(401, &[("www-authenticate", "Basic realm=\"r\"")], ""),
        Some(_) => answer(307, &[("location", &there)], "moved"),
    })
    .await;
    let mut settings = stage.settings();
    settings.credentials = robot();
    let upstream = Upstream::new(settings, stage.tasks.clone());
    let stream = upstream.blob("a/b", &Digest::sha256(CONTENT), 0).await.unwrap();
    assert_eq!(stream.size, 10);
    assert_eq!(rest(stream).await.unwrap(), CONTENT);
    let [seen] = &cdn.seen()[..] else { panic!("{:?}", cdn.seen()) };
    assert_eq!((seen.header("authorization"), seen.query.as_str()), (None, "sig=a%2Fb&f=%7Bx%7D"));
    assert_eq!(seen.header("host"), Some(cdn.address.to_string().as_str()));
    assert_eq!(stage.connections(), 1, "the connection outlives a 401 and a redirect");
}

#[tokio::test]
async fn who_redirects_a_question_about_a_blob_has_not_answered_it() {
    let [here, gone] = [b"here".as_slice(), b"gone"].map(Digest::sha256);
    let elsewhere = Stage::open(move |seen| match seen.path.ends_with(&gone.to_string()) {
        true => answer(404, &[], ""),
        false => answer(206, &[("content-range", "bytes 0-4/10")], "01234"),
    })
    .await;
    let address = elsewhere.address;
    // every question is sent on, as registry.k8s.io does it
    let stage = Stage::open(move |seen| {
        answer(307, &[("location", &format!("http://{address}{}", seen.path))], "")
    })
    .await;
    let upstream = stage.upstream();
    let shown = upstream.sample("library/alpine", &here, 0..5).await;
    assert_eq!(shown, Ok(Sample::Bytes(Bytes::from_static(b"01234"))));
    let denied = upstream.sample("library/alpine", &gone, 0..5).await;
    assert_eq!(denied, Err(UpstreamError::NotFound));
}

#[tokio::test]
async fn a_blob_goes_on_from_where_it_broke_off() {
    let stage = Stage::open(|seen| match seen.header("range") {
        None => unfinished(10, b"0123", false),
        Some("bytes=4-") => answer(206, &[("content-range", "bytes 4-9/10")], &b"456789"[..]),
        Some("bytes=10-") => answer(416, &[("content-range", "bytes */10")], ""),
        Some(_) => answer(206, &[("content-range", "bytes 3-9/10")], &b"3456789"[..]),
    })
    .await;
    let upstream = stage.upstream();
    let digest = Digest::sha256(CONTENT);
    let mut stream = upstream.blob("a", &digest, 0).await.unwrap();
    let mut all = stream.next().await.unwrap().unwrap().to_vec();
    assert!(matches!(stream.next().await, Err(UpstreamError::Unreachable(_))));
    assert!(stream.next().await.is_err(), "what broke off never ends well");
    assert_eq!((stream.position(), stream.size), (4, 10));
    let stream = upstream.blob("a", &digest, stream.position()).await.unwrap();
    assert_eq!(stream.size, 10);
    all.extend(rest(stream).await.unwrap());
    assert_eq!(all, CONTENT);
    assert_eq!(rest(upstream.blob("a", &digest, 10).await.unwrap()).await.unwrap(), b"");
    assert!(
        matches!(upstream.blob("a", &digest, 7).await, Err(UpstreamError::Bad(_))),
        "another range than asked for"
    );
}

#[tokio::test]
async fn an_upstream_without_ranges_is_read_over_what_is_there_already() {
    let stage = Stage::open(|_| answer(200, &[], CONTENT)).await;
    let upstream = stage.upstream();
    let digest = Digest::sha256(CONTENT);
    let stream = upstream.blob("a", &digest, 7).await.unwrap();
    assert_eq!((stream.size, stream.position()), (10, 7));
    assert_eq!(rest(stream).await.unwrap(), b"789");
    assert_eq!(rest(upstream.blob("a", &digest, 10).await.unwrap()).await.unwrap(), b"");
    assert!(matches!(upstream.blob("a", &digest, 11).await, Err(UpstreamError::Bad(_))));
}

#[tokio::test]
async fn an_empty_blob_ends_at_once() {
    let stage = Stage::open(|_| answer(200, &[], "")).await;
    let stream = stage.upstream().blob("a", &Digest::sha256(b""), 0).await.unwrap();
    assert_eq!((stream.size, rest(stream).await.unwrap()), (0, Vec::new()));
}

/// A blob that is a gzip file is often called encoded, and some gateways compress what is not. The
/// digest says which it is.
#[tokio::test]
async fn the_digest_decides_whether_a_blob_that_comes_encoded_is_to_be_decoded() {
    let text: &[u8] = &b"0123456789abcdef".repeat(10_000);
    let file = stage::gzip(text);
    for (status, ranges, coding) in
        [(200, false, "gzip"), (203, false, "gzip"), (200, true, "gzip"), (200, false, "br")]
    {
        let all = Bytes::from(file.clone());
        let stage = Stage::open(move |seen| match seen.header("range") {
            Some(_) if ranges => {
                let range = format!("bytes 3-{}/{}", all.len() - 1, all.len());
                let headers = [("content-encoding", coding), ("content-range", range.as_str())];
                answer(206, &headers, all.slice(3..))
            }
            _ => answer(status, &[("content-encoding", coding)], all.clone()),
        })
        .await;
        let upstream = stage.upstream();
        for (meant, decoded) in [(&file[..], false), (text, true)] {
            let (digest, what) =
                (Digest::sha256(meant), format!("{status} {ranges} {coding} {decoded}"));
            for offset in [0, 3, meant.len() as u64] {
                let stream = upstream.blob("a", &digest, offset).await;
                if decoded && coding == "br" {
                    assert!(matches!(stream, Err(UpstreamError::Bad(_))), "{what}: {stream:?}");
                    continue;
                }
                let stream = stream.unwrap_or_else(|e| panic!("{what} from {offset}: {e}"));
                assert_eq!(stream.size, meant.len() as u64, "{what}");
                let came = rest(stream).await.unwrap();
                assert!(came == meant[offset as usize..], "{what} from {offset}");
            }
            if !(decoded && coding == "br") {
                assert_eq!(upstream.gives_blob("a", &digest).await, Ok(true), "{what}");
                assert_eq!(upstream.sample("a", &digest, 0..1).await, Ok(Sample::Unanswered));
            }
        }
        let neither = upstream.blob("a", &Digest::sha256(b"neither"), 0).await;
        assert!(matches!(neither, Err(UpstreamError::Bad(_))), "{neither:?}");
    }
}

#[tokio::test]
async fn a_blob_may_come_with_any_status_that_says_success() {
    let digest = Digest::sha256(CONTENT);
    for status in [201, 203, 206, 226] {
        let stage = Stage::open(move |_| answer(status, &[], CONTENT)).await;
        let stream = stage.upstream().blob("a", &digest, 0).await;
        assert_eq!(rest(stream.unwrap()).await.unwrap(), CONTENT, "{status}");
    }
    let empty = Stage::open(|_| answer(204, &[], "")).await;
    let none = empty.upstream().blob("a", &digest, 0).await;
    assert!(matches!(none, Err(UpstreamError::Bad(_))), "{none:?}");
}

#[tokio::test]
async fn a_blob_comes_whole_though_its_length_does_not_come_with_it() {
    for head_tells in [true, false] {
        let stage = Stage::open(move |seen| match seen.method {
            http::Method::HEAD if head_tells => answer(200, &[("content-length", "10")], ""),
            http::Method::HEAD => answer(405, &[], ""),
            _ => stage::unmeasured(CONTENT),
        })
        .await;
        for offset in [0, 4] {
            let stream =
                stage.upstream().blob("a", &Digest::sha256(CONTENT), offset).await.unwrap();
            assert_eq!(stream.size, 10, "{head_tells}");
            assert_eq!(rest(stream).await.unwrap(), &CONTENT[offset as usize..]);
        }
    }
    let page = Stage::open(|_| stage::unmeasured(b"<html>We are back soon.</html>")).await;
    let result = page.upstream().blob("a", &Digest::sha256(CONTENT), 0).await;
    assert!(matches!(result, Err(UpstreamError::Bad(_))), "{result:?}");
    let broken = Stage::open(|_| {
        let mut response = unfinished(0, CONTENT, false);
        response.headers_mut().remove("content-length");
        response
    })
    .await;
    let result = broken.upstream().blob("a", &Digest::sha256(CONTENT), 0).await;
    assert!(matches!(result, Err(UpstreamError::Unreachable(_))), "{result:?}");
}
