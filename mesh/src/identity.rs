//! The mesh's certificate authority, and a node's certificate, which binds its [`NodeId`].
//!
//! The CA is created when the mesh is formed. Every replica has its key and can admit nodes, so the
//! loss of one node never closes the mesh to new ones. A node creates its own key; only a
//! certificate request leaves the node.
//!
//! A certificate names the node and its role, and is valid for [`LIFETIME`]. The node renews it in
//! time ([`Identity::due`]). An expired certificate can only be used to ask for a new one.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rules::ledger::records::Role;
use rules::members::door::Shown;
use rules::words::digest::Digest;
use rules::words::moment::Timestamp;
use rules::words::names::NodeId;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;

/// Why an identity could not be created, read or issued.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file is missing or unreadable.
    #[error("cannot use {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A certificate, key or request is malformed.
    #[error("certificate: {0}")]
    Certificate(String),
    /// A request asks for something that it may not have.
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
    /// Creates the CA of a new mesh.
    pub fn generate() -> Result<Self, IdentityError> {
        Self::successor(0)
    }

    /// Creates a CA with this version: 0 is the mesh's first.
    pub fn successor(version: u64) -> Result<Self, IdentityError> {
        let key = KeyPair::generate().map_err(certificate_error)?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let name = match version {
            0 => AUTHORITY_NAME.to_owned(),
            later => format!("{AUTHORITY_NAME} {later}"),
        };
        params.distinguished_name = named(&name);
        let certificate = params.self_signed(&key).map_err(certificate_error)?.pem();
        Ok(Authority { certificate, key: key.serialize_pem() })
    }

    /// Its version, by its name. A certificate names its issuer, so no two CAs of a mesh have one
    /// name.
    pub fn version(&self) -> u64 {
        let der = certificate_der(&self.certificate).ok();
        let parsed = der.as_ref().and_then(|der| x509_parser::parse_x509_certificate(der).ok());
        parsed.map_or(0, |(_, certificate)| version_in(certificate.subject()))
    }

    /// Signs `request` if it names only the identity `node`. The certificate has this role, and is
    /// valid from `now` for [`LIFETIME`].
    pub fn sign(
        &self,
        node: NodeId,
        role: Role,
        request: &str,
        now: Timestamp,
    ) -> Result<String, IdentityError> {
        let from = Timestamp(now.0.saturating_sub(SKEW.as_millis() as u64));
        self.sign_between(node, role, request, from, Timestamp(now.0 + LIFETIME.as_millis() as u64))
    }

    fn sign_between(
        &self,
        node: NodeId,
        role: Role,
        request: &str,
        from: Timestamp,
        until: Timestamp,
    ) -> Result<String, IdentityError> {
        let mut request =
            CertificateSigningRequestParams::from_pem(request).map_err(certificate_error)?;
        let wanted = node.certificate_name();
        let only_itself = match request.params.subject_alt_names.as_slice() {
            [SanType::DnsName(name)] => name.as_str() == wanted,
            _ => false,
        };
        if !only_itself {
            return Err(IdentityError::Refused(format!("it must name {wanted} and nothing else")));
        }
        let role = role_name(role).try_into().map_err(certificate_error)?;
        request.params.subject_alt_names.push(SanType::DnsName(role));
        request.params.not_before = (UNIX_EPOCH + Duration::from_millis(from.0)).into();
        request.params.not_after = (UNIX_EPOCH + Duration::from_millis(until.0)).into();
        request.params.is_ca = IsCa::ExplicitNoCa;
        request.params.extended_key_usages = usages();
        request.params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        request.params.distinguished_name = named(&wanted);
        let key = KeyPair::from_pem(&self.key).map_err(certificate_error)?;
        let issuer = Issuer::from_ca_cert_pem(&self.certificate, key).map_err(certificate_error)?;
        Ok(request.signed_by(&issuer).map_err(certificate_error)?.pem())
    }
}

/// What ends the names of nodes and roles. A certificate for clients has no such name, so the mesh's
/// door takes it for nobody's.
const NAMES_OF_NODES: &str = ".mesh.atoll";

impl Authority {
    /// A new key with a certificate for HTTPS under these DNS names and IP addresses, valid from
    /// `now` for [`LIFETIME`]: a PEM text of the certificate, the CA's and the key.
    ///
    /// It opens nothing in the mesh: it is for servers only (RFC 5280 section 4.2.1.12), while each
    /// end of a link checks that the other's certificate is for clients or has a node's name.
    pub fn issue_https(&self, names: &[String], now: Timestamp) -> Result<String, IdentityError> {
        if let Some(name) = names.iter().find(|name| format!(".{name}").ends_with(NAMES_OF_NODES)) {
            let text = format!("{name} is a name that only nodes have among themselves");
            return Err(IdentityError::Refused(text));
        }
        let mut params = CertificateParams::new(names).map_err(certificate_error)?;
        let at = |millis: u64| (UNIX_EPOCH + Duration::from_millis(millis)).into();
        params.not_before = at(now.0.saturating_sub(SKEW.as_millis() as u64));
        params.not_after = at(now.0 + LIFETIME.as_millis() as u64);
        params.is_ca = IsCa::ExplicitNoCa;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.distinguished_name = named("atoll https");
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(certificate_error)?;
        let signer = KeyPair::from_pem(&self.key).map_err(certificate_error)?;
        let issuer =
            Issuer::from_ca_cert_pem(&self.certificate, signer).map_err(certificate_error)?;
        let certificate = params.signed_by(&key, &issuer).map_err(certificate_error)?.pem();
        Ok(format!("{certificate}{}{}", self.certificate, key.serialize_pem()))
    }

    /// Whether there should be a new one instead of `issued`: it expires soon, is for other names or
    /// of another CA, or cannot be read.
    pub fn https_due(&self, issued: &str, names: &[String], now: Timestamp) -> bool {
        let sound = || {
            let chain: Vec<_> =
                CertificateDer::pem_slice_iter(issued.as_bytes()).collect::<Result<_, _>>().ok()?;
            let [own, ca] = chain.as_slice() else { return None };
            PrivateKeyDer::from_pem_slice(issued.as_bytes()).ok()?;
            let (_, parsed) = x509_parser::parse_x509_certificate(own).ok()?;
            let until = parsed.validity().not_after.timestamp();
            let soon = (now.0 + RENEW_BEFORE.as_millis() as u64) / 1000;
            let has = parsed.subject_alternative_name().ok()??;
            let has: Vec<_> = has.value.general_names.iter().map(named_in).collect();
            let wanted: Vec<_> = names.iter().map(|name| Some(spelled(name))).collect();
            let of_ca = *ca == certificate_der(&self.certificate).ok()?;
            Some(of_ca && has == wanted && until > soon.cast_signed())
        };
        sound() != Some(true)
    }
}

/// An IP address in its usual spelling; another name as it is.
fn spelled(name: &str) -> String {
    name.parse::<IpAddr>().map_or_else(|_| name.to_owned(), |address| address.to_string())
}

/// A name in a certificate, if it is a DNS name or an IP address.
fn named_in(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|four| IpAddr::from(four).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|six| IpAddr::from(six).to_string()),
        },
        _ => None,
    }
}

/// How long a certificate is valid. This bounds how long a stolen key can be used without a visible
/// renewal.
pub const LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// A certificate is renewed when less than this time is left. So an edge has no problem if it
/// reaches no replica for ten days.
const RENEW_BEFORE: Duration = Duration::from_secs(20 * 24 * 3600);
/// How long before its signing a certificate becomes valid, for nodes whose clocks are behind.
const SKEW: Duration = Duration::from_secs(24 * 3600);

/// The common name of a mesh's first CA. That of a later one also has its version.
const AUTHORITY_NAME: &str = "atoll mesh authority";

fn version_in(name: &x509_parser::x509::X509Name<'_>) -> u64 {
    let name = name.iter_common_name().next().and_then(|name| name.as_str().ok());
    let version = name.and_then(|name| name.strip_prefix(AUTHORITY_NAME));
    version.and_then(|version| version.trim().parse().ok()).unwrap_or(0)
}

/// The second name in a certificate: the role that its node was admitted with.
fn role_name(role: Role) -> String {
    format!("{}.role.mesh.atoll", role.name())
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
    /// The certificate request (PEM) that it sends.
    pub request: String,
}

impl Candidate {
    /// A new key for `node`.
    pub fn generate(node: NodeId) -> Result<Self, IdentityError> {
        Self::of(node, &KeyPair::generate().map_err(certificate_error)?)
    }

    /// A request for a new certificate for the key that `identity` already has.
    pub fn again(identity: &Identity) -> Result<Self, IdentityError> {
        Self::of(identity.node, &KeyPair::from_pem(&identity.key).map_err(certificate_error)?)
    }

    fn of(node: NodeId, key: &KeyPair) -> Result<Self, IdentityError> {
        let mut params =
            CertificateParams::new(vec![node.certificate_name()]).map_err(certificate_error)?;
        params.distinguished_name = named(&node.certificate_name());
        let request = params
            .serialize_request(key)
            .map_err(certificate_error)?
            .pem()
            .map_err(certificate_error)?;
        Ok(Candidate { node, key: key.serialize_pem(), request })
    }
}

/// A node's identity in the mesh: its id, certificate and key, and the CA that it trusts.
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

/// The identity that this process has now. It changes when its certificate is renewed, and when the
/// mesh has another CA.
pub struct Own(parking_lot::RwLock<Identity>);

impl Own {
    /// Begins with this one.
    pub fn new(identity: Identity) -> std::sync::Arc<Self> {
        std::sync::Arc::new(Own(parking_lot::RwLock::new(identity)))
    }

    /// The identity now.
    pub fn get(&self) -> Identity {
        self.0.read().clone()
    }

    /// Replaces it.
    pub fn set(&self, identity: Identity) {
        *self.0.write() = identity;
    }
}

const FILES: [&str; 5] = ["node-id", "node.crt", "node.key", "authority.crt", "authority.key"];

impl Identity {
    /// Writes the identity into `dir`. Only the owner can read the files.
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        fs::create_dir_all(dir)
            .map_err(|source| IdentityError::File { path: dir.into(), source })?;
        let id = self.node.to_string();
        let contents =
            [&id, &self.certificate, &self.key, &self.authority.certificate, &self.authority.key];
        for (name, content) in FILES.iter().zip(contents) {
            write_private(&dir.join(name), content.as_bytes())?;
        }
        Ok(())
    }

    /// Replaces what [`Identity::save`] wrote, under a later CA. If this is cut off, the CA on the
    /// disk is the one before, so that the node does it again.
    pub fn save_changed(&self, dir: &Path) -> Result<(), IdentityError> {
        for (name, content) in [
            (FILES[1], &self.certificate),
            (FILES[4], &self.authority.key),
            (FILES[3], &self.authority.certificate),
        ] {
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

    /// The certificate chain that the node shows to peers: its own certificate and the CA's, of
    /// which a joining node knows only the fingerprint.
    pub fn chain(&self) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
        Ok(vec![certificate_der(&self.certificate)?, certificate_der(&self.authority.certificate)?])
    }

    /// Whether the certificate should be renewed: it expires soon, or it is from before
    /// certificates named roles.
    pub fn due(&self, now: Timestamp) -> bool {
        let Ok(der) = certificate_der(&self.certificate) else { return true };
        let soon = Timestamp(now.0 + RENEW_BEFORE.as_millis() as u64);
        shown(&der, soon).is_none_or(|shown| shown.expired || shown.role.is_none())
    }

    /// This identity with another certificate, if the CA has signed that for the same node and key.
    pub fn renewed(&self, certificate: &str) -> Result<Self, IdentityError> {
        let der = certificate_der(certificate)?;
        let same = node_of(&der) == Some(self.node)
            && public_key(&der) == public_key(&certificate_der(&self.certificate)?);
        if !same {
            return Err(IdentityError::Refused("it is for another node or another key".into()));
        }
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate_der(&self.authority.certificate)?).map_err(certificate_error)?;
        let parsed = webpki::EndEntityCert::try_from(&der).map_err(certificate_error)?;
        let now = rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_millis(
            ground::clock::timestamp().0,
        ));
        let usage = webpki::KeyUsage::client_auth();
        parsed
            .verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &roots.roots,
                &[],
                now,
                usage,
                None,
                None,
            )
            .map_err(certificate_error)?;
        Ok(Identity { certificate: certificate.to_owned(), ..self.clone() })
    }

    /// This identity under another CA, which has signed `certificate` for the same node and key.
    pub fn under(&self, authority: Authority, certificate: &str) -> Result<Self, IdentityError> {
        Identity { authority, ..self.clone() }.renewed(certificate)
    }

    /// The sha256 of the node's public key, as the ledger records it.
    pub fn pin(&self) -> Result<Digest, IdentityError> {
        let key = public_key(&certificate_der(&self.certificate)?);
        key.map(|key| Digest::sha256(&key)).ok_or_else(|| certificate_error("it has no public key"))
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

/// The node that a certificate names, if it is a mesh certificate.
pub fn node_of(certificate: &CertificateDer<'_>) -> Option<NodeId> {
    let parsed = webpki::EndEntityCert::try_from(certificate).ok()?;
    parsed.valid_dns_names().find_map(NodeId::from_certificate_name)
}

/// What a certificate shows at `now`, if it is a mesh certificate. The signature is not checked
/// here.
pub fn shown(certificate: &CertificateDer<'_>, now: Timestamp) -> Option<Shown> {
    let node = node_of(certificate)?;
    let parsed = webpki::EndEntityCert::try_from(certificate).ok()?;
    let roles = [Role::Replica, Role::Edge];
    let role = parsed
        .valid_dns_names()
        .find_map(|name| roles.into_iter().find(|role| role_name(*role) == name));
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let until = certificate.validity().not_after.timestamp();
    Some(Shown {
        node,
        role,
        expired: until < (now.0 / 1000).cast_signed(),
        issuer: version_in(certificate.issuer()),
        key: Digest::sha256(certificate.public_key().raw),
    })
}

fn public_key(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(certificate.public_key().raw.to_vec())
}

/// Writes a file that only its owner may read, completely or not at all. It is on the disk when
/// this returns.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), IdentityError> {
    let error = |source| IdentityError::File { path: path.into(), source };
    let partial = path.with_extension("partial");
    let mut file = fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)
        .map_err(error)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(error)?;
    fs::rename(&partial, path).map_err(error)?;
    // otherwise the new name may be lost with the machine's power
    match path.parent() {
        Some(folder) => fs::File::open(folder).and_then(|f| f.sync_all()).map_err(error),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ground::clock;

    fn identity(authority: &Authority, node: NodeId, role: Role) -> Identity {
        let candidate = Candidate::generate(node).unwrap();
        let certificate =
            authority.sign(node, role, &candidate.request, clock::timestamp()).unwrap();
        Identity { node, certificate, key: candidate.key, authority: authority.clone() }
    }

    #[test]
    fn a_signed_certificate_names_its_node_and_its_role_and_nothing_else_is_signed() {
        let (authority, now) = (Authority::generate().unwrap(), clock::timestamp());
        for role in [Role::Replica, Role::Edge] {
            let identity = identity(&authority, NodeId(7), role);
            let certificate = certificate_der(&identity.certificate).unwrap();
            let key = identity.pin().unwrap();
            assert_eq!(
                shown(&certificate, now),
                Some(Shown { node: NodeId(7), role: Some(role), expired: false, issuer: 0, key })
            );
        }
        let candidate = Candidate::generate(NodeId(7)).unwrap();
        let other = authority.sign(NodeId(8), Role::Edge, &candidate.request, now);
        assert!(matches!(other, Err(IdentityError::Refused(_))));
    }

    #[test]
    fn a_certificate_ends_after_its_lifetime_and_is_renewed_before() {
        let (authority, now) = (Authority::generate().unwrap(), clock::timestamp());
        let identity = identity(&authority, NodeId(7), Role::Edge);
        let after = |duration: Duration| Timestamp(now.0 + duration.as_millis() as u64);
        let certificate = certificate_der(&identity.certificate).unwrap();
        assert!(!shown(&certificate, after(LIFETIME - SKEW)).unwrap().expired);
        assert!(shown(&certificate, after(LIFETIME + SKEW)).unwrap().expired);
        assert!(!identity.due(now));
        assert!(identity.due(after(LIFETIME - RENEW_BEFORE + SKEW)));
        let again = Candidate::again(&identity).unwrap();
        let renewed = authority.sign(NodeId(7), Role::Edge, &again.request, now).unwrap();
        assert_eq!(identity.renewed(&renewed).unwrap().certificate, renewed);
    }

    #[test]
    fn a_renewal_of_another_mesh_node_or_key_is_refused() {
        let (authority, now) = (Authority::generate().unwrap(), clock::timestamp());
        let identity = identity(&authority, NodeId(7), Role::Edge);
        let again = Candidate::again(&identity).unwrap();
        let stranger = Authority::generate().unwrap();
        let other_key = Candidate::generate(NodeId(7)).unwrap();
        let other_node = Candidate::generate(NodeId(8)).unwrap();
        for wrong in [
            stranger.sign(NodeId(7), Role::Edge, &again.request, now).unwrap(),
            authority.sign(NodeId(7), Role::Edge, &other_key.request, now).unwrap(),
            authority.sign(NodeId(8), Role::Edge, &other_node.request, now).unwrap(),
            String::from("nothing"),
        ] {
            assert!(identity.renewed(&wrong).is_err());
        }
    }

    #[test]
    fn a_certificate_names_the_authority_that_signed_it_and_the_key_stays_with_another() {
        let first = Authority::generate().unwrap();
        let before = identity(&first, NodeId(7), Role::Replica);
        let second = Authority::successor(1).unwrap();
        assert_eq!((first.version(), second.version()), (0, 1));
        let request = Candidate::again(&before).unwrap().request;
        let now = clock::timestamp();
        let certificate = second.sign(NodeId(7), Role::Replica, &request, now).unwrap();
        assert!(before.renewed(&certificate).is_err(), "it is of another authority");
        let after = before.under(second, &certificate).unwrap();
        assert_eq!(after.pin().unwrap(), before.pin().unwrap());
        let shown = shown(&certificate_der(&after.certificate).unwrap(), now).unwrap();
        assert_eq!((shown.issuer, shown.key), (1, before.pin().unwrap()));
    }

    #[test]
    fn a_certificate_for_https_is_renewed_in_time_and_is_no_nodes() {
        let (authority, now) = (Authority::generate().unwrap(), clock::timestamp());
        let names = ["registry.example.com".to_owned(), "10.0.0.11".into(), "::1".into()];
        let issued = authority.issue_https(&names, now).unwrap();
        let after = |duration: Duration| Timestamp(now.0 + duration.as_millis() as u64);
        assert!(!authority.https_due(&issued, &names, now));
        assert!(authority.https_due(&issued, &names[1..], now), "for other names");
        assert!(authority.https_due(&issued, &names, after(LIFETIME - RENEW_BEFORE + SKEW)));
        assert!(Authority::generate().unwrap().https_due(&issued, &names, now), "of another CA");
        assert!(authority.https_due("", &names, now) && authority.https_due("-", &names, now));
        let certificate = certificate_der(&issued).unwrap();
        assert_eq!(shown(&certificate, now), None);
        for name in [NodeId(7).certificate_name(), role_name(Role::Replica), "mesh.atoll".into()] {
            assert!(authority.issue_https(&[name], now).is_err());
        }
        // even with a node's name it would not be for clients
        let node = NodeId(7);
        let identity = identity(&authority, node, Role::Replica);
        assert!(identity.renewed(&issued).is_err());
    }

    #[test]
    fn an_identity_reads_back_and_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        identity(&Authority::generate().unwrap(), NodeId(7), Role::Replica)
            .save(dir.path())
            .unwrap();
        assert_eq!(Identity::load(dir.path()).unwrap().node, NodeId(7));
        let mode = fs::metadata(dir.path().join("node.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
