//! The mesh's certificate authority, and a node's certificate, which binds its [`NodeId`].
//!
//! The CA is made when the mesh is formed. Every replica keeps its key, so that any of them can let another in: losing one node never means that
//! nobody can join. A node makes its own key; only a certificate request leaves it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rules::digest::Digest;
use rules::names::NodeId;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Why an identity could not be made, read or given out.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file is missing or unreadable.
    #[error("cannot use {path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A certificate, key or request is malformed.
    #[error("certificate: {0}")]
    Certificate(String),
    /// A request asks for what it may not have.
    #[error("the certificate request is refused: {0}")]
    Refused(String),
}

fn certificate_error(error: impl std::fmt::Display) -> IdentityError {
    IdentityError::Certificate(error.to_string())
}

/// A random node id.
pub fn new_node_id() -> NodeId {
    NodeId(rand::random())
}

/// The mesh's certificate authority with its key.
#[derive(Clone)]
pub struct Authority {
    /// Its certificate (PEM).
    pub certificate: String,
    /// Its key (PEM).
    pub key: String,
}

impl Authority {
    /// A new one.
    pub fn generate() -> Result<Self, IdentityError> {
        let key = KeyPair::generate().map_err(certificate_error)?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = named("atoll mesh authority");
        let certificate = params.self_signed(&key).map_err(certificate_error)?.pem();
        Ok(Authority { certificate, key: key.serialize_pem() })
    }

    /// Signs `request` if it asks for nothing but the identity `node`.
    pub fn sign(&self, node: NodeId, request: &str) -> Result<String, IdentityError> {
        let mut request = CertificateSigningRequestParams::from_pem(request).map_err(certificate_error)?;
        let wanted = node.certificate_name();
        let only_itself = match request.params.subject_alt_names.as_slice() {
            [SanType::DnsName(name)] => name.as_str() == wanted,
            _ => false,
        };
        if !only_itself {
            return Err(IdentityError::Refused(format!("it must name {wanted} and nothing else")));
        }
        request.params.is_ca = IsCa::ExplicitNoCa;
        request.params.extended_key_usages = usages();
        request.params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        request.params.distinguished_name = named(&wanted);
        let key = KeyPair::from_pem(&self.key).map_err(certificate_error)?;
        let issuer = Issuer::from_ca_cert_pem(&self.certificate, key).map_err(certificate_error)?;
        Ok(request.signed_by(&issuer).map_err(certificate_error)?.pem())
    }
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn usages() -> Vec<ExtendedKeyUsagePurpose> {
    vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
}

/// A node's key and the request for its certificate, before the certificate exists.
pub struct Candidate {
    /// The identity it chose.
    pub node: NodeId,
    /// Its key (PEM); never leaves the node.
    pub key: String,
    /// What it sends (PEM).
    pub request: String,
}

impl Candidate {
    /// A new key for `node`.
    pub fn generate(node: NodeId) -> Result<Self, IdentityError> {
        let key = KeyPair::generate().map_err(certificate_error)?;
        let mut params = CertificateParams::new(vec![node.certificate_name()]).map_err(certificate_error)?;
        params.distinguished_name = named(&node.certificate_name());
        let request = params.serialize_request(&key).map_err(certificate_error)?.pem().map_err(certificate_error)?;
        Ok(Candidate { node, key: key.serialize_pem(), request })
    }
}

/// What a node is on the mesh: its id, certificate and key, and the CA that it trusts.
#[derive(Clone)]
pub struct Identity {
    /// Its id.
    pub node: NodeId,
    /// Its certificate (PEM).
    pub certificate: String,
    /// Its key (PEM).
    pub key: String,
    /// The CA.
    pub authority: Authority,
}

const FILES: [&str; 5] = ["node-id", "node.crt", "node.key", "authority.crt", "authority.key"];

impl Identity {
    /// Writes the identity into `dir`, each file for its owner's eyes only.
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        fs::create_dir_all(dir).map_err(|source| IdentityError::File { path: dir.into(), source })?;
        let id = self.node.to_string();
        let contents = [&id, &self.certificate, &self.key, &self.authority.certificate, &self.authority.key];
        for (name, content) in FILES.iter().zip(contents) {
            write_private(&dir.join(name), content.as_bytes())?;
        }
        Ok(())
    }

    /// Reads what [`Identity::save`] wrote.
    pub fn load(dir: &Path) -> Result<Self, IdentityError> {
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read_to_string(&path).map_err(|source| IdentityError::File { path, source })
        };
        let node = read(FILES[0])?.trim().parse().map_err(certificate_error)?;
        Ok(Identity {
            node,
            certificate: read(FILES[1])?,
            key: read(FILES[2])?,
            authority: Authority { certificate: read(FILES[3])?, key: read(FILES[4])? },
        })
    }

    /// The node's chain as it is shown to peers: its certificate and the CA's, which a joining node knows by fingerprint only.
    pub fn chain(&self) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
        Ok(vec![certificate_der(&self.certificate)?, certificate_der(&self.authority.certificate)?])
    }

    /// The node's key.
    pub fn private_key(&self) -> Result<PrivateKeyDer<'static>, IdentityError> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(certificate_error)
    }
}

/// The certificate in a PEM text.
pub fn certificate_der(pem: &str) -> Result<CertificateDer<'static>, IdentityError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(certificate_error)
}

/// The fingerprint of a CA: the sha256 of its DER.
pub fn fingerprint(pem: &str) -> Result<Digest, IdentityError> {
    Ok(Digest::sha256(&certificate_der(pem)?))
}

/// The node that a certificate names, if it is one of a mesh.
pub fn node_of(certificate: &CertificateDer<'_>) -> Option<NodeId> {
    let parsed = webpki::EndEntityCert::try_from(certificate).ok()?;
    parsed.valid_dns_names().find_map(NodeId::from_certificate_name)
}

/// Writes a file that only its owner may read, whole or not at all.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), IdentityError> {
    let error = |source| IdentityError::File { path: path.into(), source };
    let partial = path.with_extension("partial");
    let mut file =
        fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&partial).map_err(error)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(error)?;
    fs::rename(&partial, path).map_err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signed_certificate_names_its_node_and_nothing_else_is_signed() {
        let authority = Authority::generate().unwrap();
        let candidate = Candidate::generate(NodeId(7)).unwrap();
        let certificate = authority.sign(NodeId(7), &candidate.request).unwrap();
        assert_eq!(node_of(&certificate_der(&certificate).unwrap()), Some(NodeId(7)));
        assert!(matches!(authority.sign(NodeId(8), &candidate.request), Err(IdentityError::Refused(_))));
    }

    #[test]
    fn an_identity_reads_back_and_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::generate().unwrap();
        let candidate = Candidate::generate(NodeId(7)).unwrap();
        let certificate = authority.sign(NodeId(7), &candidate.request).unwrap();
        Identity { node: NodeId(7), certificate, key: candidate.key, authority }.save(dir.path()).unwrap();
        assert_eq!(Identity::load(dir.path()).unwrap().node, NodeId(7));
        let mode = fs::metadata(dir.path().join("node.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
