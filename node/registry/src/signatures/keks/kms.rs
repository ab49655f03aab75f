//! A key-encryption key in AWS KMS.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ground::supervise::Tasks;
use parking_lot::Mutex;
use rules::ledger::sign_log::KekId;
use sign::making::sealed::{SealedError, Wrapping, name_of};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use upstream::kms::{Kms, KmsCredentials, KmsError};
use upstream::{AddressRule, Endpoint, Service, ServiceSettings, Trust};
use zeroize::Zeroizing;

/// The longest time that KMS is waited for.
const DEADLINE: Duration = Duration::from_secs(5);
/// The time between two looks whether the key can be used. Each is one request, which costs money.
const LOOK: Duration = Duration::from_secs(60);
/// The same while it cannot be used.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// What is encrypted to see whether the key can be used.
const SAMPLE: &str = "atoll key-encryption key 1";

/// Where the key is.
#[derive(Clone)]
pub struct KmsTerms {
    /// The key's id, ARN or alias.
    pub key: String,
    /// AWS's region.
    pub region: String,
    /// Another address than AWS's own for the region.
    pub url: Option<Endpoint>,
    /// A file with an access key. It is read for each request.
    pub credentials_file: PathBuf,
    /// The certificates that are trusted.
    pub trust: Trust,
}

struct InKms {
    kms: Kms,
    credentials_file: PathBuf,
    /// The key's name, or why it cannot be used.
    state: Mutex<Result<KekId, SealedError>>,
    failed: Notify,
}

/// The key, which is looked for from now on; nothing waits for that.
///
/// # Errors
/// A sentence, if the region makes no address.
pub fn in_kms(terms: KmsTerms, tasks: &Tasks) -> Result<Arc<dyn Wrapping>, String> {
    let KmsTerms { key, region, url, credentials_file, trust } = terms;
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    let endpoint = match url {
        Some(url) => url,
        None => format!("https://kms.{region}.{domain}")
            .parse()
            .map_err(|_| format!("signing.kms.region: {region} is no region"))?,
    };
    let host = endpoint.authority().to_owned();
    // the operator says where it is: in a private network, or for tests on this machine
    let rule = AddressRule { allow_private: true, allow_loopback: true };
    let settings =
        ServiceSettings { endpoint, authorization: None, trust, rule, deadline: DEADLINE };
    let service = Service::new("kms", settings, tasks.clone());
    let one = Arc::new(InKms {
        kms: Kms::new(service, &host, &region, &key),
        credentials_file,
        state: Mutex::new(Err(SealedError::Beginning)),
        failed: Notify::new(),
    });
    let looking = one.clone();
    tasks.spawn("signatures.kms", async move { looking.look().await });
    Ok(one)
}

impl InKms {
    async fn look(&self) {
        loop {
            let found = self.encrypt(SAMPLE.as_bytes(), SAMPLE).await;
            let wait = if found.is_ok() { LOOK } else { LOOK_AGAIN };
            *self.state.lock() = found.map(|(name, _)| name);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.failed.notified() => {}
            }
        }
    }

    fn told(why: impl std::fmt::Display) -> SealedError {
        SealedError::Unusable(format!("signing.kms: {why}; it is tried again"))
    }

    /// What failed; the next look is at once.
    fn failed(&self, error: KmsError) -> SealedError {
        match error {
            KmsError::Closed => SealedError::Closed,
            error => {
                self.failed.notify_one();
                Self::told(error)
            }
        }
    }

    async fn credentials(&self) -> Result<KmsCredentials, SealedError> {
        let file = &self.credentials_file;
        let at = |said: String| {
            let file = file.display();
            SealedError::Unusable(format!("signing.kms.credentials_file: {file}: {said}"))
        };
        let text = tokio::fs::read_to_string(file).await.map_err(|error| at(error.to_string()))?;
        let text = Zeroizing::new(text);
        KmsCredentials::read(&text).map_err(at)
    }

    async fn encrypt(&self, clear: &[u8], binding: &str) -> Result<(KekId, Vec<u8>), SealedError> {
        let credentials = self.credentials().await?;
        let made = self.kms.encrypt(&credentials, clear, binding).await.map_err(Self::told)?;
        // copies of a key in other regions have the same id and another ARN
        let id = made.key.rsplit('/').next().unwrap_or_default();
        Ok((name_of(format!("aws kms {id}").as_bytes()), made.ciphertext))
    }
}

/// Bindings are text.
fn text(binding: &[u8]) -> Result<&str, SealedError> {
    std::str::from_utf8(binding).map_err(|_| SealedError::Key)
}

impl Wrapping for InKms {
    fn id(&self) -> Result<KekId, SealedError> {
        self.state.lock().clone()
    }

    fn wrap(&self, private: &[u8], binding: &[u8]) -> Result<Vec<u8>, SealedError> {
        let made = Handle::current().block_on(self.encrypt(private, text(binding)?));
        made.map(|(_, ciphertext)| ciphertext).inspect_err(|_| self.failed.notify_one())
    }

    fn unwrap(&self, wrapped: &[u8], binding: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealedError> {
        let binding = text(binding)?;
        let opened = Handle::current().block_on(async {
            let credentials = self.credentials().await?;
            let opened = self.kms.decrypt(&credentials, wrapped, binding).await;
            opened.map_err(|error| self.failed(error))
        });
        opened.map(Zeroizing::new)
    }
}
