//! The certificate for HTTPS. It is read again when its files change, so that a new one counts for
//! the next connection, and no connection is closed for it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use config::TlsFiles;
use parking_lot::{Mutex, RwLock};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(10);

/// A certificate with its files.
#[derive(Debug)]
pub struct Certificate {
    files: TlsFiles,
    current: RwLock<Arc<CertifiedKey>>,
    /// The bytes of the files when they were last looked at.
    seen: Mutex<Files>,
}

#[derive(Debug, PartialEq, Eq)]
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    fn read(from: &TlsFiles) -> io::Result<Self> {
        let read = |path: &std::path::Path| {
            std::fs::read(path)
                .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
        };
        Ok(Files { certificate: read(&from.certificate)?, key: read(&from.key)? })
    }

    fn certified(&self, from: &TlsFiles) -> io::Result<CertifiedKey> {
        let (certificate, key) = (from.certificate.display(), from.key.display());
        let chain = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| io::Error::other(format!("{certificate}: {e}")))?;
        if chain.is_empty() {
            return Err(io::Error::other(format!("{certificate} holds no certificate (PEM)")));
        }
        let private = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|e| io::Error::other(format!("{key}: {e}")))?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        CertifiedKey::from_der(chain, private, &provider).map_err(|e| {
            io::Error::other(format!("{certificate} and {key} do not belong together: {e}"))
        })
    }
}

impl Certificate {
    /// Reads the files.
    pub fn read(from: &TlsFiles) -> io::Result<Arc<Self>> {
        let files = Files::read(from)?;
        let current = RwLock::new(Arc::new(files.certified(from)?));
        Ok(Arc::new(Certificate { files: from.clone(), current, seen: Mutex::new(files) }))
    }

    /// Reads the files again. Whether there is another certificate now. If they cannot be used, the
    /// one before stays; the same unusable files are no error again.
    pub fn renew(&self) -> io::Result<bool> {
        let files = Files::read(&self.files)?;
        let mut seen = self.seen.lock();
        if *seen == files {
            return Ok(false);
        }
        let certified = files.certified(&self.files);
        *seen = files;
        *self.current.write() = Arc::new(certified?);
        Ok(true)
    }

    /// Looks at the files again and again, and at once on SIGHUP. Runs until it is dropped.
    pub async fn keep(self: Arc<Self>) {
        let mut hangup = match signal(SignalKind::hangup()) {
            Ok(hangup) => Some(hangup),
            Err(error) => {
                warn!(%error, "SIGHUP cannot be heard; http.tls is looked at every 10 s only");
                None
            }
        };
        let mut failing = false;
        loop {
            let told = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await.is_some(),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = told => {}
                () = tokio::time::sleep(LOOK) => {}
            }
            match self.renew() {
                Ok(true) => {
                    info!(certificate = %self.files.certificate.display(), "http.tls has a new certificate")
                }
                Ok(false) => {}
                Err(error) if failing => tracing::debug!(%error, "http.tls"),
                Err(error) => {
                    warn!(%error, "http.tls cannot be used; the certificate of before stays in use");
                    failing = true;
                    continue;
                }
            }
            failing = false;
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().clone())
    }
}
