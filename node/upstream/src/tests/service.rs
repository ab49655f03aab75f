//! Other services of the operator's, and credentials that somebody else has fetched.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode, header};
use rcgen::{CertificateParams, KeyPair};
use rules::words::digest::Digest;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::stage::{Stage, answer, settings};
use super::{EMPTY, manifest};
use crate::{
    AddressRule, Credentials, Service, ServiceAnswer, ServiceRequest, ServiceSettings, Trust,
    Upstream, UpstreamError,
};

fn service(stage: &Stage, url: &str, trust: Trust) -> Service {
    let settings = ServiceSettings {
        endpoint: url.parse().unwrap(),
        authorization: Some((header::AUTHORIZATION, "Bearer word".into())),
        trust,
        rule: AddressRule { allow_private: false, allow_loopback: true },
        deadline: Duration::from_secs(30),
    };
    Service::new("scanner", settings, stage.tasks.clone())
}

async fn ask(service: &Service, path: &str) -> Result<ServiceAnswer, UpstreamError> {
    let headers = [(header::ACCEPT, "text/x")];
    let (method, body, limit) = (Method::POST, Bytes::from_static(b"body"), 10);
    service.ask(ServiceRequest { method, path, headers: &headers, body, limit }).await
}

#[tokio::test]
async fn a_service_is_asked_at_its_address_only_and_answers_within_bounds() {
    let stage = Stage::open(|seen| match seen.path.as_str() {
        "/base/long" => answer(200, &[], "01234567890"),
        "/base/moved" => answer(302, &[("location", "/elsewhere")], ""),
        _ => answer(500, &[("refresh-after", "7")], "0123456789"),
    })
    .await;
    let url = format!("http://{}/base/", stage.address);
    let service = service(&stage, &url, Trust::public().unwrap());
    let failed = ask(&service, "/other?x=1").await.unwrap();
    assert_eq!(
        (failed.status, &failed.body[..]),
        (StatusCode::INTERNAL_SERVER_ERROR, &b"0123456789"[..])
    );
    assert_eq!(failed.headers["refresh-after"], "7");
    let long = ask(&service, "/long").await.unwrap_err();
    assert!(matches!(&long, UpstreamError::Bad(why) if why.contains("more than 10 bytes")));
    assert_eq!(ask(&service, "/moved").await.unwrap().status, StatusCode::FOUND);
    let seen = stage.seen();
    assert_eq!(seen.len(), 3, "nobody followed it");
    assert_eq!((seen[0].path.as_str(), seen[0].query.as_str()), ("/base/other", "x=1"));
    assert_eq!((seen[0].method.clone(), &seen[0].body[..]), (Method::POST, &b"body"[..]));
    assert_eq!(seen[0].header("authorization"), Some("Bearer word"));
    assert_eq!(seen[0].header("accept"), Some("text/x"));
}

#[tokio::test]
async fn a_certificate_is_not_checked_only_where_that_was_said() {
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["another.example".into()]).unwrap().self_signed(&key).unwrap();
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let stage = Stage::open_tls(Some(acceptor), |_| answer(200, &[], "well")).await;
    let url = format!("https://localhost:{}", stage.address.port());
    let checked = ask(&service(&stage, &url, Trust::public().unwrap()), "/").await;
    assert!(matches!(checked, Err(UpstreamError::Unreachable(_))), "{checked:?}");
    assert!(stage.seen().is_empty(), "no credentials were sent");
    let unchecked = ask(&service(&stage, &url, Trust::unchecked().unwrap()), "/").await;
    assert_eq!(unchecked.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn a_token_of_somebody_else_is_sent_as_it_is_and_never_exchanged() {
    let digest = Digest::sha256(EMPTY.as_bytes()).to_string();
    let stage = Stage::open(move |seen| match seen.header("authorization") {
        Some("Bearer given") if !seen.path.contains("closed") => manifest(EMPTY, &digest),
        _ => {
            let challenge = "Bearer realm=\"http://127.0.0.1:1/token\",service=\"x\"";
            answer(401, &[("www-authenticate", challenge)], "")
        }
    })
    .await;
    let mut with_token = settings(&format!("http://{}", stage.address));
    with_token.credentials = Some(Credentials::Token("given".into()));
    let upstream = Upstream::new(with_token, stage.tasks.clone());
    assert!(upstream.manifest("a/b", "1").await.is_ok());
    let refused = upstream.manifest("a/closed", "1").await;
    assert!(matches!(refused, Err(UpstreamError::Denied(_))), "{refused:?}");
}
