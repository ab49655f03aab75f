//! A hostile peer: it speaks the mesh protocol with whatever certificate it has got hold of, and
//! says what no node would.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mesh::identity::{Authority, Candidate, Identity};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint};
use rules::ledger::records::Role;
use rules::wire::{self, Answer, Ask, Open};
use rules::words::moment::Timestamp;
use rules::words::names::NodeId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

/// How long a node may take to answer, or to refuse the intruder. A test should never need all of
/// it.
const PATIENCE: Duration = Duration::from_secs(40);

/// A peer with its own UDP port, and perhaps a certificate.
pub struct Intruder {
    runtime: Runtime,
    endpoint: Endpoint,
    config: quinn::ClientConfig,
}

/// The result of sending something.
#[derive(Debug)]
pub enum Outcome {
    /// An answer, which may be a refusal in words.
    Answered(Box<Answer>),
    /// The connection or the stream was closed without one.
    Closed(String),
}

impl Outcome {
    /// Whether it was refused: in words, or by hanging up.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Outcome::Answered(answer) => {
                matches!(
                    **answer,
                    Answer::Refused(_) | Answer::Joined(Err(_)) | Answer::Renewed(Err(_))
                )
            }
            Outcome::Closed(_) => true,
        }
    }
}

/// The gossip's word for a member, as the nodes encode it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gossiped {
    /// Who.
    pub id: NodeId,
    /// Where.
    pub address: SocketAddr,
    /// Which start of it.
    pub incarnation: u64,
}

impl Intruder {
    /// One without a certificate.
    ///
    /// # Panics
    /// When this machine gives no port.
    #[must_use]
    pub fn stranger() -> Self {
        Self::new(None)
    }

    /// One that shows the certificate of `identity`.
    ///
    /// # Panics
    /// When that is not one.
    #[must_use]
    pub fn with(identity: &Identity) -> Self {
        Self::new(Some(identity))
    }

    fn new(identity: Option<&Identity>) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Credulous(provider)));
        let mut config = match identity {
            None => config.with_no_client_auth(),
            Some(identity) => {
                let (chain, key) =
                    (identity.chain().expect("a chain"), identity.private_key().expect("a key"));
                config.with_client_auth_cert(chain, key).expect("a certificate")
            }
        };
        config.alpn_protocols = vec![b"atoll-mesh/1".to_vec()];
        let config = quinn::ClientConfig::new(Arc::new(
            QuicClientConfig::try_from(config).expect("a client"),
        ));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let endpoint = {
            let _inside = runtime.enter();
            Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a port")
        };
        Intruder { runtime, endpoint, config }
    }

    /// Opens a connection; what is said over it is said in one breath with others.
    ///
    /// # Errors
    /// The node's reason for not letting it.
    pub fn knock(&self, at: SocketAddr) -> Result<Connection, String> {
        self.runtime.block_on(async {
            let dial = self.endpoint.connect_with(self.config.clone(), at, "intruder.mesh.atoll");
            let dial = dial.map_err(|e| e.to_string())?;
            tokio::time::timeout(PATIENCE, dial)
                .await
                .map_err(|_| "no answer".to_owned())?
                .map_err(|e| e.to_string())
        })
    }

    /// Asks on a connection.
    #[must_use]
    pub fn ask(&self, connection: &Connection, ask: &Ask) -> Outcome {
        self.say(connection, &wire::encode(&Open::Ask(ask.clone())))
    }

    /// Sends `body` as one frame, and waits for what comes of it.
    #[must_use]
    pub fn say(&self, connection: &Connection, body: &[u8]) -> Outcome {
        self.announce(connection, body.len(), body)
    }

    /// Announces a frame of `length` bytes, of which `body` follows.
    #[must_use]
    pub fn announce(&self, connection: &Connection, length: usize, body: &[u8]) -> Outcome {
        let said = async {
            let (mut send, mut receive) = connection.open_bi().await.map_err(|e| e.to_string())?;
            let length = u32::try_from(length).map_err(|e| e.to_string())?;
            // a peer that is refused early does not read to the end
            let _ = send.write_all(&length.to_be_bytes()).await;
            let _ = send.write_all(body).await;
            let _ = send.finish();
            let answer = receive.read_to_end(wire::LARGEST).await.map_err(|e| e.to_string())?;
            let answer = answer.get(4..).ok_or("an empty answer")?;
            wire::decode::<Answer>(answer).map_err(|e| e.to_string())
        };
        match self.runtime.block_on(async { tokio::time::timeout(PATIENCE, said).await }) {
            Ok(Ok(answer)) => Outcome::Answered(Box::new(answer)),
            Ok(Err(error)) => Outcome::Closed(error),
            Err(_) => panic!("the node neither answered nor hung up"),
        }
    }

    /// Sends a gossip packet from `from` to `to` that says `news` of others.
    ///
    /// # Panics
    /// When it cannot be encoded.
    pub fn gossip(
        &self,
        connection: &Connection,
        from: &Gossiped,
        to: &Gossiped,
        news: &[foca::Member<Gossiped>],
    ) {
        let header = foca::Header {
            src: from.clone(),
            src_incarnation: 0,
            dst: to.clone(),
            message: foca::Message::Gossip,
        };
        let mut packet = postcard::to_stdvec(&header).expect("a header");
        packet.extend(u16::try_from(news.len()).expect("few").to_be_bytes());
        for member in news {
            packet.extend(postcard::to_stdvec(member).expect("a member"));
        }
        let _inside = self.runtime.enter();
        let _ = connection.send_datagram(packet.into());
    }
}

/// What a node keeps of its identity: what a thief of its disk has.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn stolen(data: &Path) -> Identity {
    Identity::load(&data.join("identity")).expect("an identity")
}

/// The incarnation of the node whose data folder this is.
///
/// # Panics
/// When it keeps none.
#[must_use]
pub fn incarnation(data: &Path) -> u64 {
    let kept = std::fs::read(data.join("roster")).expect("a roster");
    postcard::take_from_bytes::<u64>(&kept).expect("an incarnation").0
}

/// A certificate for `node` as a thief of the CA's key signs it, at a time of its choice.
///
/// # Panics
/// When the key signs nothing.
#[must_use]
pub fn forged(authority: &Authority, node: NodeId, role: Role, at: Timestamp) -> Identity {
    let candidate = Candidate::generate(node).expect("a key");
    let certificate = authority.sign(node, role, &candidate.request, at).expect("a certificate");
    Identity { node, certificate, key: candidate.key, authority: authority.clone() }
}

/// Believes any server: it is the intruder that is not to be believed.
#[derive(Debug)]
struct Credulous(Arc<CryptoProvider>);

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
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
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
