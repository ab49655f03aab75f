//! The certificate for HTTPS: the operator's files, or one that the mesh's own CA issues and that
//! renews itself.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use config::{Settings, Tls, TlsFiles};
use ground::clock;
use mesh::identity::{Own, write_private};
use tracing::{info, warn};

use super::identity_folder;

/// The time between two looks at the remaining time, and at which CA the mesh has.
const LOOK: Duration = Duration::from_secs(10);

/// The files with the certificate and its key, if the node uses TLS. Those that the mesh's CA
/// issues are one file, so that a certificate is never without its key.
pub fn files(settings: &Settings) -> Option<TlsFiles> {
    match settings.http.tls.as_ref()? {
        Tls::Files(files) => Some(files.clone()),
        Tls::Mesh { .. } => {
            let file = identity_folder(&settings.data_dir).join("https.pem");
            Some(TlsFiles { certificate: file.clone(), key: file })
        }
    }
}

/// A certificate that the mesh's CA issues.
pub(super) struct Issued {
    file: PathBuf,
    names: Vec<String>,
    own: Arc<Own>,
}

impl Issued {
    /// What the settings ask for; `None` if they do not.
    pub(super) fn of(settings: &Settings, own: &Arc<Own>) -> Option<Self> {
        let Some(Tls::Mesh { names }) = &settings.http.tls else { return None };
        let file = files(settings)?.certificate;
        Some(Issued { file, names: names_of(settings, names), own: own.clone() })
    }

    /// Issues one if there is none or it is due.
    pub(super) fn renew(&self) -> io::Result<()> {
        let (now, authority) = (clock::timestamp(), self.own.get().authority);
        let present = std::fs::read_to_string(&self.file).unwrap_or_default();
        if !authority.https_due(&present, &self.names, now) {
            return Ok(());
        }
        let wrong = |e| io::Error::other(format!("http.tls.issuer: {e}"));
        let issued = authority.issue_https(&self.names, now).map_err(wrong)?;
        write_private(&self.file, issued.as_bytes()).map_err(wrong)?;
        info!(names = self.names.join(", "), "the mesh's CA has issued a certificate for HTTPS");
        Ok(())
    }

    /// Renews it whenever it is due, and when the mesh has another CA. The file is looked at by who serves it.
    pub(super) async fn keep(self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Err(error) = self.renew() {
                warn!(%error, "the certificate for HTTPS could not be renewed yet");
                metrics::counter!("atoll_certificate_renewals_failed_total").increment(1);
            }
        }
    }
}

/// The names and addresses by which clients reach a node, each once, the best first.
fn names_of(settings: &Settings, more: &[String]) -> Vec<String> {
    let url = settings.http.public_url.as_deref().and_then(|url| url.split_once("://"));
    let host = url.map(|(_, authority)| match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    });
    let host = host.map(|host| host.trim_matches(['[', ']']).to_owned());
    let addresses = [settings.http.listen, super::mesh_address(settings)].map(|at| at.ip());
    let local = addresses[0].is_unspecified() || addresses[0].is_loopback();
    let addresses = addresses.iter().filter(|ip| !ip.is_unspecified()).map(ToString::to_string);
    let mut names: Vec<String> = Vec::new();
    let all = host.into_iter().chain(more.iter().cloned()).chain(addresses);
    for name in all.chain(local.then(|| "localhost".to_owned())) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_for_every_name_by_which_clients_reach_the_node_once() {
        let mut settings = Settings::new("/nowhere", "a");
        settings.http.listen = "10.0.0.11:5000".parse().unwrap();
        settings.mesh.advertise = Some("10.0.0.11:7946".parse().unwrap());
        assert_eq!(names_of(&settings, &[]), ["10.0.0.11"]);
        settings.http.public_url = Some("https://registry.example.com:8443".into());
        settings.http.listen = "0.0.0.0:5000".parse().unwrap();
        let more = ["registry".to_owned(), "registry.example.com".into()];
        assert_eq!(
            names_of(&settings, &more),
            ["registry.example.com", "registry", "10.0.0.11", "localhost"]
        );
        settings.http.public_url = Some("https://[2001:db8::1]".into());
        assert_eq!(names_of(&settings, &[])[0], "2001:db8::1");
    }
}
