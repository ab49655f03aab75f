//! AWS KMS, and what speaks its protocol: a key that never leaves it encrypts and decrypts a few
//! bytes.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use ground::clock;
use http::{Method, StatusCode, header};
use rules::words::secret::Secret;
use serde_json::{Value, json};

use super::UpstreamError;
use super::service::{Service, ServiceRequest};
use super::sigv4::{self, Scope, Signing};

const JSON: &str = "application/x-amz-json-1.1";
/// The name under which the binding is in the encryption context, which AWS writes into its log.
const CONTEXT: &str = "atoll";
/// The maximum length of an answer.
const LONGEST: usize = 64 << 10;

/// An access key, for a while if it has a session.
#[derive(Clone)]
pub struct KmsCredentials {
    /// The access key id.
    pub id: String,
    /// The secret access key. It is never sent.
    pub secret: Secret,
    /// The session token of temporary credentials.
    pub session: Option<Secret>,
}

/// Why KMS did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KmsError {
    /// It was encrypted with another key or another binding, or is damaged.
    #[error("it was encrypted with another key or for another place, or it is damaged")]
    Closed,
    /// KMS refuses: its word for why, and its message.
    #[error("{0}")]
    Refused(String),
    /// It could not be asked.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

/// What KMS has encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encrypted {
    /// The key's ARN.
    pub key: String,
    /// What it made.
    pub ciphertext: Vec<u8>,
}

/// A key of KMS's.
pub struct Kms {
    service: Service,
    host: String,
    region: String,
    key: String,
}

impl KmsCredentials {
    /// Reads the first ones in a file of AWS's form: `aws_access_key_id = ...` and so on. The error is
    /// a sentence.
    ///
    /// # Errors
    /// If there is no access key in it.
    pub fn read(text: &str) -> Result<Self, String> {
        let find = |wanted: &str| {
            let mut entries = text.lines().filter_map(|line| line.split_once('='));
            let found = entries.find(|(name, _)| name.trim() == wanted);
            found.map(|(_, value)| value.trim().to_owned()).filter(|value| !value.is_empty())
        };
        let lacks = |name: &str| format!("it has no {name}");
        let id = find("aws_access_key_id").ok_or_else(|| lacks("aws_access_key_id"))?;
        let secret = find("aws_secret_access_key").ok_or_else(|| lacks("aws_secret_access_key"))?;
        let session = find("aws_session_token").map(Secret::from);
        Ok(KmsCredentials { id, secret: Secret::from(secret), session })
    }
}

impl Kms {
    /// A key by its id, ARN or alias, at `service`, whose authority is `host`.
    pub fn new(service: Service, host: &str, region: &str, key: &str) -> Self {
        let (host, region, key) = (host.to_owned(), region.to_owned(), key.to_owned());
        Kms { service, host, region, key }
    }

    /// Encrypts at most 4096 bytes, so that they open for the same binding only.
    ///
    /// # Errors
    /// If KMS refuses, or cannot be asked.
    pub async fn encrypt(
        &self,
        credentials: &KmsCredentials,
        clear: &[u8],
        binding: &str,
    ) -> Result<Encrypted, KmsError> {
        let asked = json!({
            "KeyId": self.key,
            "Plaintext": BASE64_STANDARD.encode(clear),
            "EncryptionContext": {CONTEXT: binding},
        });
        let answer = self.ask("Encrypt", credentials, &asked).await?;
        let key = answer["KeyId"].as_str().ok_or_else(|| lacks("KeyId"))?.to_owned();
        Ok(Encrypted { key, ciphertext: bytes(&answer, "CiphertextBlob")? })
    }

    /// Decrypts what [`Kms::encrypt`] made for this binding.
    ///
    /// # Errors
    /// If it was not made so, or KMS refuses or cannot be asked.
    pub async fn decrypt(
        &self,
        credentials: &KmsCredentials,
        ciphertext: &[u8],
        binding: &str,
    ) -> Result<Vec<u8>, KmsError> {
        let asked = json!({
            "KeyId": self.key,
            "CiphertextBlob": BASE64_STANDARD.encode(ciphertext),
            "EncryptionContext": {CONTEXT: binding},
        });
        bytes(&self.ask("Decrypt", credentials, &asked).await?, "Plaintext")
    }

    async fn ask(
        &self,
        verb: &str,
        credentials: &KmsCredentials,
        asked: &Value,
    ) -> Result<Value, KmsError> {
        let (target, stamp) = (format!("TrentService.{verb}"), sigv4::stamp(clock::timestamp()));
        let body = Bytes::from(asked.to_string());
        let mut signed =
            vec![("content-type", JSON), ("host", self.host.as_str()), ("x-amz-target", &target)];
        let session = credentials.session.as_ref().map(|one| one.expose().as_str());
        if let Some(session) = session {
            signed.push(("x-amz-security-token", session));
        }
        let signing =
            Signing { method: "POST", path: "/", query: "", headers: &signed, body: &body };
        let scope = Scope { region: &self.region, service: "kms" };
        let KmsCredentials { id, secret, .. } = credentials;
        let signature = sigv4::authorization(id, secret.expose(), &scope, &signing, &stamp);
        let name = header::HeaderName::from_static;
        let mut headers = vec![
            (header::CONTENT_TYPE, JSON),
            (name("x-amz-target"), &target),
            (name("x-amz-date"), &stamp),
            (header::AUTHORIZATION, &signature),
        ];
        if let Some(session) = session {
            headers.push((name("x-amz-security-token"), session));
        }
        let (method, path, headers) = (Method::POST, "/", &headers[..]);
        let request = ServiceRequest { method, path, headers, body: body.clone(), limit: LONGEST };
        let answer = self.service.ask(request).await?;
        let said = serde_json::from_slice::<Value>(&answer.body).unwrap_or_default();
        if answer.status == StatusCode::OK {
            return Ok(said);
        }
        // some write a namespace before it
        let kind = said["__type"].as_str().unwrap_or_default();
        let kind = kind.rsplit('#').next().unwrap_or_default();
        if matches!(kind, "InvalidCiphertextException" | "IncorrectKeyException") {
            return Err(KmsError::Closed);
        }
        let message = said["message"].as_str().or(said["Message"].as_str()).unwrap_or_default();
        let status = answer.status;
        Err(KmsError::Refused(
            format!("{} answers {status} {kind} {message}", self.host).trim().into(),
        ))
    }
}

fn lacks(what: &str) -> UpstreamError {
    UpstreamError::bad(format!("the answer has no {what}"))
}

fn bytes(answer: &Value, name: &str) -> Result<Vec<u8>, KmsError> {
    let text = answer[name].as_str().ok_or_else(|| lacks(name))?;
    let bytes = BASE64_STANDARD.decode(text);
    Ok(bytes.map_err(|_| UpstreamError::bad(format!("{name} is not base64")))?)
}
