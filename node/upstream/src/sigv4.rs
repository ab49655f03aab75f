//! AWS Signature Version 4: a request is signed with a secret, which is never sent. Pure: the time
//! is an argument.

use aws_lc_rs::hmac;
use rules::words::digest::Digest;
use rules::words::moment::Timestamp;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// A request to be signed. The request that is sent must be the same, byte for byte.
pub(super) struct Signing<'a> {
    /// `POST`, `GET`, ...
    pub(super) method: &'a str,
    /// Percent-encoded.
    pub(super) path: &'a str,
    /// Percent-encoded and sorted; empty if there is none.
    pub(super) query: &'a str,
    /// The headers to sign, including `host`, in any order: lower-case names, and values without
    /// extra spaces. `x-amz-date` is added.
    pub(super) headers: &'a [(&'a str, &'a str)],
    /// The whole body.
    pub(super) body: &'a [u8],
}

/// What a signature is valid for.
pub(super) struct Scope<'a> {
    /// For example `eu-west-1`.
    pub(super) region: &'a str,
    /// AWS's name of the service, for example `ecr`.
    pub(super) service: &'a str,
}

/// `at` in the format of `x-amz-date`: `20150830T123600Z`. AWS accepts a time that is at most five
/// minutes off.
pub(super) fn stamp(at: Timestamp) -> String {
    at.to_string().replace(['-', ':'], "")
}

/// The `Authorization` header for `request`, to be sent together with `x-amz-date: {stamp}`. `id`
/// and `secret` are an access key.
pub(super) fn authorization(
    id: &str,
    secret: &str,
    scope: &Scope<'_>,
    request: &Signing<'_>,
    stamp: &str,
) -> String {
    let date = stamp.split('T').next().unwrap_or_default();
    let Scope { region, service } = scope;
    let reach = format!("{date}/{region}/{service}/aws4_request");
    let (canonical, names) = request.canonical(stamp);
    let text =
        format!("{ALGORITHM}\n{stamp}\n{reach}\n{}", Digest::sha256(canonical.as_bytes()).hex());
    let signature = hex::encode(mac(&signing_key(secret, date, scope), &text));
    format!("{ALGORITHM} Credential={id}/{reach}, SignedHeaders={names}, Signature={signature}")
}

impl Signing<'_> {
    /// The canonical form, and the names of the headers in it.
    fn canonical(&self, stamp: &str) -> (String, String) {
        let mut headers = self.headers.to_vec();
        headers.push(("x-amz-date", stamp));
        headers.sort_unstable();
        let lines: String =
            headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let body = Digest::sha256(self.body).hex();
        (format!("{}\n{}\n{}\n{lines}\n{names}\n{body}", self.method, self.path, self.query), names)
    }
}

/// The signing key: the secret, limited to a day, a region and a service.
fn signing_key(secret: &str, date: &str, scope: &Scope<'_>) -> Vec<u8> {
    let day = mac(format!("AWS4{secret}").as_bytes(), date);
    let region = mac(&day, scope.region);
    mac(&mac(&region, scope.service), "aws4_request")
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // the access key, the time and the answers of AWS's published examples and its Signature
    // Version 4 test suite
    const ID: &str = "AKIDEXAMPLE";
    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    const STAMP: &str = "20150830T123600Z";
    const IAM: Scope<'static> = Scope { region: "us-east-1", service: "iam" };
    const SUITE: Scope<'static> = Scope { region: "us-east-1", service: "service" };
    const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
    const HOST: (&str, &str) = ("host", "example.amazonaws.com");

    fn plain<'a>(
        method: &'a str,
        headers: &'a [(&'a str, &'a str)],
        body: &'a [u8],
    ) -> Signing<'a> {
        Signing { method, path: "/", query: "", headers, body }
    }

    #[test]
    fn the_documented_signing_key_is_derived() {
        let key = hex::encode(signing_key(SECRET, "20150830", &IAM));
        assert_eq!(key, "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9");
    }

    #[test]
    fn the_documented_request_is_signed_as_documented() {
        let headers = [
            ("host", "iam.amazonaws.com"),
            ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
        ];
        let request = Signing {
            method: "GET",
            path: "/",
            query: "Action=ListUsers&Version=2010-05-08",
            headers: &headers,
            body: b"",
        };
        assert_eq!(
            Digest::sha256(request.canonical(STAMP).0.as_bytes()).hex(),
            "f536975d06c0309214f805bb90ccff089219ecd68b2577efef23edd43b7e1a59"
        );
        assert_eq!(
            authorization(ID, SECRET, &IAM, &request, STAMP),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date, \
             Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
        );
    }

    #[test]
    fn requests_of_the_test_suite_are_signed_as_there() {
        let host = [HOST];
        let form = [FORM, HOST];
        for (name, request, signature) in [
            (
                "get-vanilla",
                plain("GET", &host, b""),
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            (
                "post-vanilla",
                plain("POST", &host, b""),
                "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ),
            (
                "post-x-www-form-urlencoded",
                plain("POST", &form, b"Param1=value1"),
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ),
        ] {
            let signed = authorization(ID, SECRET, &SUITE, &request, STAMP);
            assert_eq!(signed.rsplit_once("Signature=").unwrap().1, signature, "{name}");
        }
    }

    #[test]
    fn a_time_is_written_without_punctuation() {
        assert_eq!(stamp(Timestamp(1_440_938_160_000)), STAMP);
        assert_eq!(stamp(Timestamp(1_709_210_096_999)), "20240229T123456Z", "whole seconds");
    }

    proptest! {
        #[test]
        fn another_secret_day_or_body_has_another_signature(secret in "[!-~]{1,40}", body in "\\PC{1,40}") {
            let sign = |secret: &str, body: &str, stamp: &str| authorization(ID, secret, &SUITE, &plain("POST", &[HOST], body.as_bytes()), stamp);
            let signed = sign(&secret, &body, STAMP);
            prop_assert_eq!(&signed, &sign(&secret, &body, STAMP));
            prop_assert_ne!(&signed, &sign(&format!("{secret}x"), &body, STAMP));
            prop_assert_ne!(&signed, &sign(&secret, &format!("{body}x"), STAMP));
            prop_assert_ne!(&signed, &sign(&secret, &body, "20150831T123600Z"));
        }
    }
}
