//! AWS KMS.

use std::time::Duration;

use http::Method;

use super::stage::{Stage, answer};
use crate::kms::{Encrypted, Kms, KmsCredentials, KmsError};
use crate::{AddressRule, Service, ServiceSettings, Trust, UpstreamError};

const FILE: &str = "[default]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key=se=cret\n";
const ARN: &str = "arn:aws:kms:eu-west-1:111122223333:key/mrk-1";

fn kms(stage: &Stage) -> Kms {
    let settings = ServiceSettings {
        endpoint: format!("http://{}", stage.address).parse().unwrap(),
        authorization: None,
        trust: Trust::public().unwrap(),
        rule: AddressRule { allow_private: false, allow_loopback: true },
        deadline: Duration::from_secs(30),
    };
    let service = Service::new("kms", settings, stage.tasks.clone());
    Kms::new(service, &stage.address.to_string(), "eu-west-1", "alias/atoll")
}

#[tokio::test]
async fn a_key_encrypts_for_a_binding_and_the_request_is_signed() {
    let stage = Stage::open(|seen| match seen.header("x-amz-target") {
        Some("TrentService.Encrypt") => {
            answer(200, &[], format!(r#"{{"KeyId":"{ARN}","CiphertextBlob":"AQID"}}"#))
        }
        _ => answer(200, &[], r#"{"Plaintext":"Y2xlYXI="}"#),
    })
    .await;
    let kms = kms(&stage);
    let credentials = KmsCredentials::read(FILE).unwrap();
    let made = kms.encrypt(&credentials, b"clear", "atoll|1|2|3").await.unwrap();
    assert_eq!(made, Encrypted { key: ARN.into(), ciphertext: vec![1, 2, 3] });
    let session = KmsCredentials { session: Some("token".into()), ..credentials };
    assert_eq!(kms.decrypt(&session, &[1, 2, 3], "atoll|1|2|3").await.unwrap(), b"clear");
    let seen = stage.seen();
    let body: serde_json::Value = serde_json::from_slice(&seen[0].body).unwrap();
    assert_eq!(
        body,
        serde_json::json!({
            "KeyId": "alias/atoll", "Plaintext": "Y2xlYXI=", "EncryptionContext": {"atoll": "atoll|1|2|3"},
        })
    );
    assert_eq!((seen[0].method.clone(), seen[0].path.as_str()), (Method::POST, "/"));
    let signature = |at: usize| seen[at].header("authorization").unwrap().to_owned();
    assert!(signature(0).contains("/eu-west-1/kms/aws4_request"), "{}", signature(0));
    assert!(signature(0).contains("content-type;host;x-amz-date;x-amz-target"), "{}", signature(0));
    assert!(signature(1).contains("x-amz-date;x-amz-security-token;x-amz-target"));
    assert_eq!(seen[1].header("x-amz-security-token"), Some("token"));
    for request in &seen {
        let all = format!("{:?} {:?}", request.body, request.header("authorization"));
        assert!(!all.contains("se=cret"), "the secret is never sent");
    }
}

#[tokio::test]
async fn what_does_not_open_is_told_from_what_is_refused() {
    let stage = Stage::open(|seen| {
        let text = String::from_utf8_lossy(&seen.body).into_owned();
        let error =
            |kind: &str| answer(400, &[], format!(r#"{{"__type":"{kind}","message":"so"}}"#));
        match text {
            one if one.contains("AQ==") => error("InvalidCiphertextException"),
            one if one.contains("Ag==") => error("com.amazonaws.kms#IncorrectKeyException"),
            one if one.contains("Aw==") => error("AccessDeniedException"),
            one if one.contains("BA==") => answer(200, &[], r#"{"Plaintext":"?"}"#),
            _ => answer(503, &[], "nothing here"),
        }
    })
    .await;
    let (kms, credentials) = (kms(&stage), KmsCredentials::read(FILE).unwrap());
    let mut said = Vec::new();
    for byte in 1..=5 {
        said.push(kms.decrypt(&credentials, &[byte], "b").await.unwrap_err());
    }
    assert_eq!(&said[..2], [KmsError::Closed, KmsError::Closed]);
    let host = stage.address;
    let denied = format!("{host} answers 400 Bad Request AccessDeniedException so");
    assert_eq!(said[2], KmsError::Refused(denied));
    assert!(matches!(said[3], KmsError::Upstream(UpstreamError::Bad(_))), "{:?}", said[3]);
    assert_eq!(said[4], KmsError::Refused(format!("{host} answers 503 Service Unavailable")));
}

#[test]
fn credentials_are_read_as_aws_writes_them() {
    let read = KmsCredentials::read(FILE).unwrap();
    assert_eq!((read.id.as_str(), read.secret.expose().as_str()), ("AKIDEXAMPLE", "se=cret"));
    assert!(read.session.is_none());
    let with = KmsCredentials::read(&format!("{FILE}aws_session_token=t\n")).unwrap();
    assert_eq!(with.session.as_ref().map(|one| one.expose().as_str()), Some("t"));
    for (text, lacks) in
        [("", "aws_access_key_id"), ("aws_access_key_id=x\n", "aws_secret_access_key")]
    {
        assert_eq!(KmsCredentials::read(text).err(), Some(format!("it has no {lacks}")));
    }
}
