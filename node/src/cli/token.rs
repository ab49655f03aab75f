//! `atoll invite` and `atoll join`. A token contains the addresses of members, the fingerprint of
//! their CA, and a secret that works once (or, for edges, a given number of times) and expires.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ground::clock;
use mesh::identity::{Authority, Candidate, Identity, fingerprint, new_node_id};
use mesh::links::{Demand, LinkError, ask_to_join};
use mesh::members::keep_seeds;
use rules::ledger::command::Command;
use rules::ledger::level::Level;
use rules::ledger::records::Role;
use rules::wire::JoinRequest;
use rules::words::digest::Digest;
use rules::words::moment::Timestamp;
use rules::words::secret::Secret;
use serde::{Deserialize, Serialize};

use super::init::refuse_existing;
use super::own::Reached;
use crate::start::private;
use crate::start::{identity_folder, node_record};

/// The prefix of a token of a mesh that may have certificates without roles.
const PREFIX: &str = "atoll1.";
/// The prefix of a token that is shown only to a node that proves to be a replica.
const PREFIX_ROLES: &str = "atoll2.";
/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Arguments of `invite`.
#[derive(clap::Args)]
pub(super) struct Invite {
    /// The settings of the running node on this machine.
    #[arg(long, value_name = "node.yaml")]
    config: PathBuf,
    /// Minutes until the token expires.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=10_080))]
    minutes: u64,
    /// What the token admits: a replica, which is trusted with everything, or an edge, which only
    /// caches.
    #[arg(long, value_enum, default_value_t = Invited::Replica)]
    role: Invited,
    /// The number of edges that the token admits, for example for a DaemonSet. A replica needs a
    /// token of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    nodes: u32,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Invited {
    Replica,
    Edge,
}

impl From<Invited> for Role {
    fn from(invited: Invited) -> Self {
        match invited {
            Invited::Replica => Role::Replica,
            Invited::Edge => Role::Edge,
        }
    }
}

/// Arguments of `join`.
#[derive(clap::Args)]
pub(super) struct Join {
    /// The token that `atoll invite` printed.
    // the end of a token that was copied in part may begin with a hyphen; it is no flag
    #[arg(allow_hyphen_values = true)]
    token: Secret,
    /// The settings of the node that joins.
    #[arg(long, value_name = "node.yaml")]
    config: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Token {
    addresses: Vec<SocketAddr>,
    fingerprint: Digest,
    secret: Secret<Vec<u8>>,
}

impl Token {
    fn write(&self, level: Level) -> io::Result<String> {
        let prefix = if level >= Level::ROLES { PREFIX_ROLES } else { PREFIX };
        let bytes = postcard::to_stdvec(self).map_err(io::Error::other)?;
        Ok(format!("{prefix}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Parses a token. Also returns whether its secret may be shown only to a node that proves to
    /// be a replica.
    fn read(text: &str) -> io::Result<(Self, bool)> {
        let text = text.trim();
        let named = text.strip_prefix(PREFIX_ROLES).map(|encoded| (encoded, true));
        let found = named.or_else(|| text.strip_prefix(PREFIX).map(|encoded| (encoded, false)));
        let read = |(encoded, named): (&str, bool)| {
            let bytes = BASE64_URL_SAFE_NO_PAD.decode(encoded).ok()?;
            Some((postcard::from_bytes(&bytes).ok()?, named))
        };
        found.and_then(read).ok_or_else(|| {
            io::Error::other("this is not a token; copy the whole line that `atoll invite` printed")
        })
    }
}

/// Issues an invitation through the running node, with the node's own identity. Whoever can read
/// its keys may invite.
pub(super) fn invite(invite: &Invite) -> io::Result<()> {
    let settings = super::load(&invite.config)?;
    let identity =
        Identity::load(&identity_folder(&settings.data_dir)).map_err(io::Error::other)?;
    if settings.role == Role::Edge {
        return Err(io::Error::other(
            "an edge cannot admit nodes; run `atoll invite` on the machine of a replica",
        ));
    }
    if invite.nodes > 1 && matches!(invite.role, Invited::Replica) {
        return Err(io::Error::other(
            "--nodes is for edges: a replica is trusted with everything, and needs a token of its own",
        ));
    }
    let secret: [u8; 32] = rand::random();
    let expires = Timestamp(clock::timestamp().0 + invite.minutes * 60_000);
    let command = Command::Invite {
        secret_hash: Digest::sha256(&secret),
        expires,
        role: invite.role.into(),
        nodes: invite.nodes,
    };
    let Reached { members, level } =
        super::own::propose(&settings, &identity, command, "no invitation could be issued")?;
    let mut addresses: Vec<SocketAddr> = members.into_iter().map(|(_, a)| a).rev().collect();
    addresses.dedup();
    let token = Token {
        addresses,
        fingerprint: fingerprint(&identity.authority.certificate).map_err(io::Error::other)?,
        secret: secret.to_vec().into(),
    };
    println!("{}", token.write(level)?);
    let many = if invite.nodes == 1 {
        "one node, once,".to_owned()
    } else {
        format!("{} edges", invite.nodes)
    };
    eprintln!("It admits {many} until {expires}:  atoll join TOKEN --config node.yaml");
    Ok(())
}

/// Why no member admitted this node. What a member said counts before that others did not answer:
/// all of them would say so.
fn not_admitted(failed: &[(SocketAddr, LinkError)]) -> String {
    let refused = failed.iter().find_map(|(_, error)| match error {
        LinkError::Refused(reason) => Some(reason),
        _ => None,
    });
    match (refused, failed.last()) {
        (Some(reason), _) => format!("the mesh did not admit this node: {reason}"),
        (None, Some((address, error))) => {
            format!("no member of the mesh admitted this node ({address}: {error})")
        }
        (None, None) => "the token names no member of the mesh".to_owned(),
    }
}

/// Asks the members in the token, one after the other, to admit this node.
pub(super) fn join(join: &Join) -> io::Result<()> {
    let (token, named_replica) = Token::read(join.token.expose())?;
    let demand = Demand { authority: token.fingerprint, named_replica };
    let settings = super::load(&join.config)?;
    let folder = identity_folder(&settings.data_dir);
    refuse_existing(&folder)?;
    let node = new_node_id();
    let candidate = Candidate::generate(node).map_err(io::Error::other)?;
    let record = node_record(&settings, node).map_err(io::Error::other)?;
    let request = JoinRequest {
        secret: token.secret,
        certificate_request: candidate.request.clone(),
        node: record.clone(),
    };
    let grant = super::small_runtime()?.block_on(async {
        let mut failed = Vec::new();
        for address in &token.addresses {
            match ask_to_join(*address, demand, request.clone(), PATIENCE).await {
                Ok(grant) => return Ok(grant),
                Err(error) => failed.push((*address, error)),
            }
        }
        Err(io::Error::other(not_admitted(&failed)))
    })?;
    private::from_now_on();
    private::folder(&settings.data_dir)?;
    let replicas = grant.nodes.iter().filter(|n| n.id != node && n.role == Role::Replica);
    let members = replicas.map(|n| (n.id, n.address)).collect();
    keep_seeds(&settings.data_dir, members).map_err(io::Error::other)?;
    let authority = Authority {
        certificate: grant.authority,
        key: grant.authority_key.unwrap_or_default().into_exposed(),
    };
    let identity = Identity { node, certificate: grant.certificate, key: candidate.key, authority };
    identity.save(&folder).map_err(io::Error::other)?;
    println!(
        "Node {} in {} is a member of a mesh of {}.",
        record.name,
        record.region,
        grant.nodes.len()
    );
    println!("Start it: atoll serve --config {}", join.config.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_and_another_text_is_refused_kindly() {
        let token = Token {
            addresses: vec![([127, 0, 0, 1], 7946).into()],
            fingerprint: Digest::sha256(b"ca"),
            secret: vec![7; 32].into(),
        };
        for (level, named) in [(Level::FIRST, false), (Level::ROLES, true)] {
            let (read, named_replica) = Token::read(&token.write(level).unwrap()).unwrap();
            assert_eq!((read.addresses, named_replica), (token.addresses.clone(), named));
        }
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let used = LinkError::Refused("this token was used already".into());
        let told = not_admitted(&[
            (at(1), LinkError::Deadline),
            (at(2), used),
            (at(3), LinkError::Deadline),
        ]);
        assert_eq!(told, "the mesh did not admit this node: this token was used already");
        assert!(not_admitted(&[(at(1), LinkError::Deadline)]).contains("127.0.0.1:1"));
        assert!(Token::read("atoll1.%%").is_err());
        assert!(Token::read("hello").is_err());
    }
}
