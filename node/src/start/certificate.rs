//! Keeps this node's certificate valid: renews it in time, and when it is from before certificates
//! named roles.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ground::clock;
use mesh::identity::{Authority, Candidate, Identity, IdentityError, Own};
use mesh::secrets::{AUTHORITY, Secrets};
use rules::ledger::records::{Look, NodeRecord, Role, key};
use rules::ledger::trust::{AuthorityRecord, LookForTrust};
use rules::wire::questions::Renew;
use rules::words::names::NodeId;
use tracing::{info, warn};

use registry::view::neighbours::Neighbours;

/// The time between two looks at the remaining time, and at which CA the mesh has.
const LOOK: Duration = Duration::from_secs(1);
/// The time between two tries to renew.
const AGAIN: Duration = Duration::from_secs(2);
/// How long a replica may take to sign.
const ASK: Duration = Duration::from_secs(5);

/// At a replica's start: signs its own certificate if it must be renewed, with the CA's key, which
/// every replica has. So a mesh that was off for longer than a certificate's lifetime can start by
/// itself. Whether this node is still a member, the other nodes decide with the first handshake.
pub fn renew_at_start(
    identity: Identity,
    role: Role,
    folder: &std::path::Path,
) -> io::Result<Identity> {
    if role == Role::Edge || identity.authority.key.is_empty() || !identity.due(clock::timestamp())
    {
        return Ok(identity);
    }
    let renewed = sign_own(&identity).map_err(io::Error::other)?;
    renewed.save(folder).map_err(io::Error::other)?;
    info!("this node's certificate was renewed");
    Ok(renewed)
}

/// Renews the certificate whenever it is due, and when the mesh has another CA, as long as the node
/// runs.
pub async fn keep(
    neighbours: Arc<Neighbours>,
    own: Arc<Own>,
    secrets: Arc<Secrets>,
    role: Role,
    folder: PathBuf,
) {
    loop {
        let identity = own.get();
        let newest = neighbours.records.view().and_then(|view| view.authorities());
        let newest = newest.ok().and_then(|mut authorities| authorities.pop());
        let later = newest.filter(|newest| newest.version > identity.authority.version());
        if later.is_none() && !identity.due(clock::timestamp()) {
            tokio::time::sleep(LOOK).await;
            continue;
        }
        let renewed = match (role, later) {
            (Role::Replica, _) if !is_listed(&neighbours, identity.node) => {
                Err("the ledger does not list this node".into())
            }
            (Role::Replica, Some(later)) => adopt(&neighbours, &identity, &secrets, &later),
            (Role::Replica, None) => sign_own(&identity).map_err(|e| e.to_string()),
            (Role::Edge, later) => {
                let certificate = later.map(|later| later.certificate);
                let certificate = certificate.unwrap_or(identity.authority.certificate.clone());
                let authority = Authority { certificate, key: String::new() };
                ask_replicas(&neighbours, &identity, &authority).await
            }
        };
        let shown = renewed.and_then(|renewed| {
            renewed
                .save_changed(&folder)
                .and_then(|()| neighbours.links.show(&renewed))
                .map_err(|e| e.to_string())?;
            Ok(renewed)
        });
        match shown {
            Ok(renewed) => {
                info!(
                    authority = renewed.authority.version(),
                    "this node's certificate was renewed"
                );
                own.set(renewed);
            }
            Err(error) => {
                warn!(
                    error,
                    "this node's certificate could not be renewed yet; once it has expired no other node will talk to this one"
                );
                metrics::counter!("atoll_certificate_renewals_failed_total").increment(1);
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// At a replica: its identity under another CA of the mesh, whose key the ledger has sealed.
fn adopt(
    neighbours: &Neighbours,
    identity: &Identity,
    secrets: &Secrets,
    later: &AuthorityRecord,
) -> Result<Identity, String> {
    let sealed = neighbours.records.view().and_then(|view| view.authority_key(later.version));
    let sealed = sealed.map_err(|e| e.to_string())?.ok_or("the ledger does not have its key")?;
    let key = secrets.open(AUTHORITY, sealed.expose()).map_err(|e| e.to_string())?;
    if identity.authority.version() == 0 {
        // what was hashed under it can only be checked with it
        let first = identity.authority.key.clone().into();
        secrets.keep_first(&first).map_err(|e| e.to_string())?;
    }
    let authority = Authority { certificate: later.certificate.clone(), key: key.expose().clone() };
    let request = Candidate::again(identity).map_err(|e| e.to_string())?.request;
    let certificate = authority.sign(identity.node, Role::Replica, &request, clock::timestamp());
    identity.under(authority, &certificate.map_err(|e| e.to_string())?).map_err(|e| e.to_string())
}

fn is_listed(neighbours: &Neighbours, node: NodeId) -> bool {
    let record =
        neighbours.records.view().and_then(|view| view.record::<NodeRecord>(&key::node(node)));
    record.ok().flatten().is_some_and(|record| record.role == Role::Replica)
}

fn sign_own(identity: &Identity) -> Result<Identity, IdentityError> {
    let request = Candidate::again(identity)?.request;
    let certificate =
        identity.authority.sign(identity.node, Role::Replica, &request, clock::timestamp())?;
    identity.renewed(&certificate)
}

async fn ask_replicas(
    neighbours: &Neighbours,
    identity: &Identity,
    authority: &Authority,
) -> Result<Identity, String> {
    let request = Candidate::again(identity).map_err(|e| e.to_string())?.request;
    let mut last = String::from("no replica is known");
    for replica in neighbours.alive() {
        let ask = Renew { certificate_request: request.clone() };
        last = match neighbours.links.ask(replica.id, ask, ASK).await {
            Ok(Ok(certificate)) => match identity.under(authority.clone(), &certificate) {
                Ok(renewed) => return Ok(renewed),
                // this replica's clock may be wrong, or it has another CA still; try another one
                Err(error) => error.to_string(),
            },
            Ok(Err(reason)) => reason,
            Err(error) => error.to_string(),
        };
    }
    Err(last)
}
