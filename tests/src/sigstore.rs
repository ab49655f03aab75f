//! A Fulcio, a Rekor and a timestamp authority of one's own: as much of them as cosign and notation ask.
//! They believe everybody.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    SanType, SubjectPublicKeyInfo, date_time_ymd,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sign::making::SigningKey;

use crate::{process, tools};

/// Who vouches for whoever signs.
pub const ISSUER: &str = "https://accounts.example";
/// Who signs.
pub const SUBJECT: &str = "ci@example.com";

/// A Fulcio and a Rekor.
#[derive(Debug)]
pub struct Sigstore {
    /// Where both answer.
    pub url: String,
    /// Fulcio's certificate as PEM.
    pub fulcio: String,
    /// Fulcio's certificate in DER.
    pub fulcio_der: Vec<u8>,
    /// Rekor's public key as PEM.
    pub rekor: String,
    /// The SHA-256 of that key.
    pub log: [u8; 32],
}

struct Services {
    fulcio: CertifiedIssuer<'static, KeyPair>,
    rekor: SigningKey,
}

impl Sigstore {
    /// Serves them for as long as the scenario runs.
    ///
    /// # Panics
    /// When there is no port.
    #[must_use]
    pub fn serve() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "example");
        params.distinguished_name.push(DnType::CommonName, "fulcio");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2126, 1, 1);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let fulcio = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let services = Services { fulcio, rekor: SigningKey::generate().expect("a key") };
        let (pem, der) = {
            let certificate = services.fulcio.as_ref();
            (certificate.pem(), certificate.der().to_vec())
        };
        let (rekor, log) = (services.rekor.public_pem(), services.rekor.id().0);
        let services = Arc::new(services);
        let url = serve(move |path, body| services.answer(path, body));
        Self { url, fulcio: pem, fulcio_der: der, rekor, log }
    }

    /// A token that says who signs. Nobody checks its signature.
    #[must_use]
    pub fn token() -> String {
        let claims = json!({
            "iss": ISSUER, "sub": SUBJECT, "email": SUBJECT, "email_verified": true,
            "aud": "sigstore", "iat": 1_767_225_600, "exp": 4_922_899_200_u64,
        });
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let head = encode(br#"{"alg":"RS256","typ":"JWT"}"#);
        format!("{head}.{}.{}", encode(claims.to_string().as_bytes()), encode(&[1; 256]))
    }
}

/// A status, headers and a body.
type Reply = (u16, Vec<(&'static str, String)>, Vec<u8>);

impl Services {
    fn answer(&self, path: &str, body: &[u8]) -> Reply {
        let asked: Value = serde_json::from_slice(body).unwrap_or_default();
        match path {
            "/api/v1/signingCert" => {
                let key = decoded(&asked["publicKey"]["content"]);
                (201, vec![], self.certify(&key).concat().into_bytes())
            }
            "/api/v2/signingCert" => {
                let key = text(&asked["publicKeyRequest"]["publicKey"]["content"]);
                let certificates = self.certify(key.as_bytes());
                let answer = json!({"signedCertificateEmbeddedSct": {"chain": {"certificates": certificates}}});
                (200, vec![("Content-Type", "application/json".into())], answer.to_string().into())
            }
            "/api/v1/log/entries" => self.log(&asked),
            other => (404, vec![], other.as_bytes().to_vec()),
        }
    }

    /// A certificate for a public key (PEM or DER), and Fulcio's, as PEM.
    fn certify(&self, key: &[u8]) -> [String; 2] {
        let key = match std::str::from_utf8(key) {
            Ok(pem) => SubjectPublicKeyInfo::from_pem(pem),
            Err(_) => SubjectPublicKeyInfo::from_der(key),
        };
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        params.subject_alt_names = vec![SanType::Rfc822Name(SUBJECT.try_into().expect("ASCII"))];
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2126, 1, 1);
        let der = [&[0x0c, ISSUER.len() as u8], ISSUER.as_bytes()].concat();
        let extension = |number: u64, value: Vec<u8>| {
            CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 57264, 1, number], value)
        };
        params.custom_extensions = vec![extension(1, ISSUER.into()), extension(8, der)];
        let made = params.signed_by(&key.expect("a key"), &self.fulcio).expect("a certificate");
        [made.pem(), self.fulcio.as_ref().pem()]
    }

    /// Adds an entry to a log that has no other.
    fn log(&self, asked: &Value) -> Reply {
        let hash = |bytes: &[u8]| hex::encode(Sha256::digest(bytes));
        let spec = match text(&asked["kind"]) {
            "dsse" => {
                let envelope = text(&asked["spec"]["proposedContent"]["envelope"]);
                let read: Value = serde_json::from_str(envelope).expect("an envelope");
                json!({
                    "envelopeHash": {"algorithm": "sha256", "value": hash(envelope.as_bytes())},
                    "payloadHash": {"algorithm": "sha256", "value": hash(&decoded(&read["payload"]))},
                    "signatures": [{
                        "signature": read["signatures"][0]["sig"],
                        "verifier": asked["spec"]["proposedContent"]["verifiers"][0],
                    }],
                })
            }
            _ => asked["spec"].clone(),
        };
        let entry = json!({"apiVersion": "0.0.1", "kind": asked["kind"], "spec": spec}).to_string();
        let body = BASE64_STANDARD.encode(&entry);
        let log = hex::encode(self.rekor.id().0);
        let time = std::time::UNIX_EPOCH.elapsed().expect("a time").as_secs();
        let said =
            format!(r#"{{"body":"{body}","integratedTime":{time},"logID":"{log}","logIndex":0}}"#);
        let leaf = Sha256::digest([&[0], entry.as_bytes()].concat());
        let checkpoint = format!("example - 1\n1\n{}\n", BASE64_STANDARD.encode(leaf));
        let signature = [&self.rekor.id().0[..4], &self.rekor.sign(checkpoint.as_bytes())].concat();
        let checkpoint =
            format!("{checkpoint}\n\u{2014} example {}\n", BASE64_STANDARD.encode(signature));
        let name = hex::encode(leaf);
        let answer = json!({&name: {
            "body": body, "integratedTime": time, "logID": log, "logIndex": 0,
            "verification": {
                "signedEntryTimestamp": BASE64_STANDARD.encode(self.rekor.sign(said.as_bytes())),
                "inclusionProof": {
                    "logIndex": 0, "treeSize": 1, "rootHash": &name, "hashes": [],
                    "checkpoint": checkpoint,
                },
            },
        }});
        let headers = vec![
            ("Content-Type", "application/json".to_owned()),
            ("Location", format!("/api/v1/log/entries/{name}")),
            ("ETag", name),
        ];
        (201, headers, answer.to_string().into())
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn decoded(value: &Value) -> Vec<u8> {
    BASE64_STANDARD.decode(text(value)).expect("base64")
}

/// A timestamp authority (RFC 3161 section 3.4) that signs with `signer.key`, `signer.crt` and `ca.crt`
/// of a folder, for as long as the scenario runs; its URL.
///
/// # Panics
/// When there is no port, or no openssl.
#[must_use]
pub fn serve_timestamps(folder: &Path) -> String {
    std::fs::write(folder.join("serial"), "01\n").expect("a file");
    let config = "[tsa]\ndefault_tsa = here\n[here]\nserial = serial\nsigner_cert = signer.crt\n\
        certs = ca.crt\nsigner_key = signer.key\nsigner_digest = sha256\n\
        default_policy = 1.2.3.4\ndigests = sha256, sha384, sha512\n\
        ess_cert_id_alg = sha256\n";
    std::fs::write(folder.join("tsa.conf"), config).expect("a file");
    let folder: PathBuf = folder.to_owned();
    serve(move |_, query| {
        std::fs::write(folder.join("query"), query).expect("a file");
        let mut openssl = tools::packaged("openssl", "openssl");
        openssl.args(["ts", "-reply", "-config", "tsa.conf", "-queryfile", "query"]);
        process::succeed(openssl.args(["-out", "reply"]).current_dir(&folder));
        let reply = std::fs::read(folder.join("reply")).expect("a reply");
        (200, vec![("Content-Type", "application/timestamp-reply".into())], reply)
    })
}

/// Answers one request of each connection.
fn serve(answer: impl Fn(&str, &[u8]) -> Reply + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // a client that hangs up has said what it thinks of it
            let _ = respond(stream, &answer);
        }
    });
    url
}

fn respond(stream: TcpStream, answer: &impl Fn(&str, &[u8]) -> Reply) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let (mut path, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if path.is_empty() {
            line.split(' ').nth(1).unwrap_or("/").clone_into(&mut path);
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let (status, headers, reply) = answer(&path, &body);
    let headers: String =
        headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!(
        "HTTP/1.1 {status} Fine\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n",
        reply.len()
    );
    stream.get_mut().write_all(&[head.as_bytes(), &reply].concat())
}
