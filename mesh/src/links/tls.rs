//! TLS and transport settings of the links.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TokioRuntime, TransportConfig,
    VarInt,
};
use rules::ledger::records::Role;
use rules::members::door::counts_unsigned;
use rules::wire::{Answer, Ask, JoinGrant, JoinRequest, Open};
use rules::words::digest::Digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
};

use tracing::warn;

use super::congestion::ByDelivery;
use super::path::LARGEST;
use super::{Judge, LinkError, read_message_within, write_message};
use crate::identity::{Identity, IdentityError, certificate_der, shown};

/// The socket buffer size that is asked for, in bytes: what one stream transfers on a 1 Gbit/s path
/// in 32 ms.
const BUFFER: usize = 4 << 20;

/// The protocol (ALPN) that both ends must use.
const PROTOCOL: &[u8] = b"atoll-mesh/1";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn certificate_error(error: impl std::fmt::Display) -> IdentityError {
    IdentityError::Certificate(error.to_string())
}

/// Transport settings. Idle timeout and keep-alive end a dead peer's connection within seconds. The
/// windows let one stream fill a path of 100 ms at 1 Gbit/s. Packets grow to `largest` bytes of
/// payload where those get through.
pub(super) fn transport(congestion: CongestionControl, largest: u16) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let mut packets = MtuDiscoveryConfig::default();
    packets.upper_bound(largest);
    transport.mtu_discovery_config(Some(packets));
    transport.max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(6_000))));
    transport.keep_alive_interval(Some(Duration::from_millis(1500)));
    transport.datagram_receive_buffer_size(Some(1 << 20));
    transport.max_concurrent_uni_streams(VarInt::from_u32(0));
    transport.stream_receive_window(VarInt::from_u32(12 << 20));
    transport.send_window(16 << 20);
    match congestion {
        CongestionControl::Delivery => {
            transport.congestion_controller_factory(Arc::new(ByDelivery))
        }
        CongestionControl::Cubic => transport
            .congestion_controller_factory(Arc::new(quinn::congestion::CubicConfig::default())),
    };
    transport
}

/// How a link's congestion control works: see the setting `links.congestion`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CongestionControl {
    /// By what is delivered ([`rules::blobs::congestion`]).
    #[default]
    Delivery,
    /// By what is lost.
    Cubic,
}

/// The TLS settings of both ends. Transport settings are chosen for each connection: see
/// [`transport`]. Certificates are checked against the authorities that `judge` knows, and the one of
/// `identity`.
pub(super) fn configs(
    identity: &Identity,
    judge: &JudgeCell,
) -> Result<(quinn::ServerConfig, quinn::ClientConfig), IdentityError> {
    let own = certificate_der(&identity.authority.certificate)?;
    let verifier = Arc::new(ByAuthorityOrKey { own, judge: judge.clone(), provider: provider() });
    let mut server = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(certificate_error)?
        .with_client_cert_verifier(verifier.clone())
        .with_single_cert(identity.chain()?, identity.private_key()?)
        .map_err(certificate_error)?;
    server.alpn_protocols = vec![PROTOCOL.to_vec()];
    let mut client = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(certificate_error)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(identity.chain()?, identity.private_key()?)
        .map_err(certificate_error)?;
    client.alpn_protocols = vec![PROTOCOL.to_vec()];
    let server = QuicServerConfig::try_from(server).map_err(certificate_error)?;
    let server = quinn::ServerConfig::with_crypto(Arc::new(server));
    let client = QuicClientConfig::try_from(client).map_err(certificate_error)?;
    let client = quinn::ClientConfig::new(Arc::new(client));
    Ok((server, client))
}

/// Binds with socket buffers of 4 MiB if the kernel allows it, and with a reset key that survives
/// restarts, so that peers learn at once that a restarted node has forgotten their connections.
pub(super) fn endpoint(
    identity: &Identity,
    server: quinn::ServerConfig,
    listen: SocketAddr,
) -> Result<Endpoint, IdentityError> {
    let error =
        |source| IdentityError::File { path: format!("mesh.listen {listen} (UDP)").into(), source };
    let domain = socket2::Domain::for_address(listen);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None).map_err(error)?;
    let _ = socket.set_recv_buffer_size(BUFFER);
    let _ = socket.set_send_buffer_size(BUFFER);
    // Linux reports twice the size, and silently limits it to net.core.rmem_max
    let (receive, send) =
        (socket.recv_buffer_size().unwrap_or(0), socket.send_buffer_size().unwrap_or(0));
    if receive.min(send) < BUFFER {
        warn!(
            receive,
            send,
            wanted = BUFFER,
            "small UDP buffers: bursts between nodes will be lost and sent again; set net.core.rmem_max and net.core.wmem_max to 4194304 (sysctl)"
        );
    }
    socket.set_nonblocking(true).map_err(error)?;
    socket.bind(&listen.into()).map_err(error)?;
    let secret = Digest::sha256(identity.key.as_bytes());
    let reset_key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    config.max_udp_payload_size(LARGEST).map_err(|e| error(io::Error::other(e)))?;
    Endpoint::new(config, Some(server), socket.into(), Arc::new(TokioRuntime)).map_err(error)
}

/// Where the records' judgement can be had, from when there are records until the links are closed.
/// Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct JudgeCell(Arc<RwLock<Option<Arc<dyn Judge>>>>);

impl JudgeCell {
    /// Who judges, if somebody does.
    pub(super) fn get(&self) -> Option<Arc<dyn Judge>> {
        self.0.read().clone()
    }

    /// From now on `judge` does, or nobody.
    pub(super) fn set(&self, judge: Option<Arc<dyn Judge>>) {
        let before = std::mem::replace(&mut *self.0.write(), judge);
        // outside of the lock: it may be the last that holds the records, and closes their files
        drop(before);
    }
}

/// Checks the certificates of nodes, at both ends of a link.
///
/// An authority of the mesh must have signed it, or the node that it names must be known by its key
/// ([`counts_unsigned`]). An expired one is accepted from who dials: [`super::serve`] sees that, and
/// lets the node do nothing but renew it.
#[derive(Debug)]
struct ByAuthorityOrKey {
    own: CertificateDer<'static>,
    judge: JudgeCell,
    provider: Arc<CryptoProvider>,
}

impl ByAuthorityOrKey {
    /// As far as the records know them. The first and the newest may be the same.
    fn roots(&self) -> Result<Arc<RootCertStore>, rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(self.own.clone())?;
        let known = self.judge.get().map(|judge| judge.authorities()).unwrap_or_default();
        for authority in known.iter().filter_map(|pem| certificate_der(pem).ok()) {
            if authority != self.own {
                roots.add(authority)?;
            }
        }
        Ok(Arc::new(roots))
    }

    /// Whether the certificate's node is known by its key.
    fn is_known_by_key(&self, certificate: &CertificateDer<'_>) -> bool {
        let shown = shown(certificate, ground::clock::timestamp());
        let (Some(judge), Some(shown)) = (self.judge.get(), shown) else { return false };
        counts_unsigned(&shown, &judge.known(shown.node))
    }

    fn clients(&self) -> Result<Arc<dyn ClientCertVerifier>, rustls::Error> {
        WebPkiClientVerifier::builder_with_provider(self.roots()?, self.provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()))
    }
}

impl ClientCertVerifier for ByAuthorityOrKey {
    fn client_auth_mandatory(&self) -> bool {
        // a node that wants to join has no certificate yet; `serve` accepts nothing else from it
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let clients = self.clients()?;
        match clients.verify_client_cert(end_entity, intermediates, now) {
            Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext {
                not_after,
                ..
            })) => clients.verify_client_cert(end_entity, intermediates, not_after),
            Err(_) if self.is_known_by_key(end_entity) => Ok(ClientCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("QUIC speaks TLS 1.3".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for ByAuthorityOrKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = rustls::server::ParsedCertificate::try_from(end_entity)?;
        // the node that was dialled, whoever has signed it
        rustls::client::verify_server_name(&certificate, server_name)?;
        let signed = rustls::client::verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &*self.roots()?,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        );
        match signed {
            Err(_) if self.is_known_by_key(end_entity) => Ok(ServerCertVerified::assertion()),
            Err(error) => Err(error),
            Ok(()) => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ClientCertVerifier::verify_tls12_signature(self, message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ClientCertVerifier::verify_tls13_signature(self, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ClientCertVerifier::supported_verify_schemes(self)
    }
}

/// What a joining node requires of the peer that it shows its secret to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// The fingerprint of the CA that its chain must hold.
    pub authority: Digest,
    /// Whether the peer's certificate must name it a replica. Otherwise the certificate may be from
    /// before certificates named roles, and must only not name it an edge.
    pub named_replica: bool,
}

/// Asks a member at `address` to let this node join, if the member meets the demand.
pub async fn ask_to_join(
    address: SocketAddr,
    demand: Demand,
    request: JoinRequest,
    deadline: Duration,
) -> Result<JoinGrant, LinkError> {
    let verifier = Arc::new(KnownAuthority { demand, provider: provider() });
    let mut client = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(LinkError::broken)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    client.alpn_protocols = vec![PROTOCOL.to_vec()];
    let client = QuicClientConfig::try_from(client).map_err(LinkError::broken)?;
    let any: SocketAddr =
        if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let endpoint = Endpoint::client(any).map_err(LinkError::broken)?;
    let exchange = async {
        let connecting = endpoint
            .connect_with(quinn::ClientConfig::new(Arc::new(client)), address, "join.mesh.atoll")
            .map_err(LinkError::broken)?;
        let connection = connecting.await.map_err(LinkError::broken)?;
        let (mut send, mut receive) = connection.open_bi().await.map_err(LinkError::broken)?;
        let ask = Ask::Join(request);
        let largest = ask.largest_answer();
        write_message(&mut send, &Open::Ask(ask)).await?;
        let _ = send.finish();
        match read_message_within(&mut receive, largest).await? {
            Answer::Joined(Ok(grant)) => Ok(grant),
            Answer::Joined(Err(reason)) | Answer::Refused(reason) => {
                Err(LinkError::Refused(reason))
            }
            other => Err(LinkError::Broken(format!("unexpected answer {other:?}"))),
        }
    };
    let result = tokio::time::timeout(deadline, exchange).await.unwrap_or(Err(LinkError::Deadline));
    endpoint.close(0u32.into(), b"");
    result
}

/// Trusts a server whose chain ends in the CA that the token names.
#[derive(Debug)]
struct KnownAuthority {
    demand: Demand,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for KnownAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = intermediates
            .iter()
            .find(|c| Digest::sha256(c) == self.demand.authority)
            .ok_or_else(|| {
            rustls::Error::General("this node's mesh is not the one that the token is for".into())
        })?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone())?;
        let certificate = rustls::server::ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &roots,
            &[],
            now,
            algorithms,
        )?;
        // what is no node's may still be the CA's: it issues certificates for HTTPS, too
        match shown(end_entity, ground::clock::timestamp()).map(|shown| shown.role) {
            Some(Some(Role::Replica)) => Ok(ServerCertVerified::assertion()),
            Some(None) if !self.demand.named_replica => Ok(ServerCertVerified::assertion()),
            _ => Err(rustls::Error::General(
                "this node is not a replica, and only a replica lets others in".into(),
            )),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("QUIC speaks TLS 1.3".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
