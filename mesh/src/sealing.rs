//! Brings the mesh's sealing keys to every replica, and seals anew what is under an older key.
//!
//! The leader makes a key, has a majority of the replicas write it to their disks, and only then
//! proposes to use it. A replica that lacks a key which the ledger names asks the others for it.
//! Keys travel over links only, to nodes that the ledger lists as replicas.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use rules::ledger::command::{Command, Outcome};
use rules::ledger::level::Level;
use rules::ledger::people::LookForPeople;
use rules::ledger::records::{Look, MeshRecord, NodeRecord, RecordError, Role, key};
use rules::ledger::sealing::{LookForKeys, SealedPlace, SealingChange, SealingKey, is_safe};
use rules::wire::{Answer, SealingAnswer, SealingAsk, questions};
use rules::words::digest::Digest;
use rules::words::names::{NodeId, OperationId};
use tracing::{info, warn};

use crate::ledger::Ledger;
use crate::links::Links;
use crate::secrets::{SIGNING, Secrets, TOKEN_SECRET};
use ground::supervise::{Tasks, blocking};

/// The time between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// How long a replica may take to keep or give a key.
const ASK: Duration = Duration::from_secs(3);
/// How long a change may take to be committed.
const COMMIT: Duration = Duration::from_secs(5);

/// Looks for as long as the node runs.
pub fn start(secrets: Arc<Secrets>, ledger: Arc<Ledger>, links: Arc<Links>, tasks: &Tasks) {
    let keeper = Keeper { secrets, ledger, links };
    tasks.spawn("sealing", async move {
        loop {
            if let Err(error) = keeper.look().await {
                warn!(error, "the keys that seal secrets could not be brought up to date yet");
            }
            tokio::time::sleep(LOOK).await;
        }
    });
}

/// Answers a replica's question about keys. `from` must be listed as a replica.
pub(crate) async fn answer(
    secrets: &Arc<Secrets>,
    links: &Links,
    from: NodeId,
    ask: SealingAsk,
) -> Answer {
    // a certificate alone is not enough: a node that is not listed (any more) gets no key
    if links.known(from).role != Some(Role::Replica) {
        return Answer::Refused("this node is not listed here as a replica".into());
    }
    match ask {
        SealingAsk::Keep { version, key } => {
            let secrets = secrets.clone();
            match blocking(move || secrets.keep(version, key)).await {
                Ok(Ok(_)) => Answer::Sealing(SealingAnswer::Kept),
                Ok(Err(error)) => Answer::Refused(error.to_string()),
                Err(error) => Answer::Refused(error.to_string()),
            }
        }
        SealingAsk::Give(check) => Answer::Sealing(SealingAnswer::Given(secrets.give(&check))),
    }
}

struct Keeper {
    secrets: Arc<Secrets>,
    ledger: Arc<Ledger>,
    links: Arc<Links>,
}

/// Something sealed in the ledger: where, for which place, and how.
type SealedThing = (SealedPlace, String, Vec<u8>);

impl Keeper {
    async fn look(&self) -> Result<(), String> {
        let text = |error: RecordError| error.to_string();
        let (level, used, nodes) = {
            let view = self.ledger.view().map_err(text)?;
            let level = view.level().map_err(text)?;
            (level, view.sealing_keys().map_err(text)?, view.nodes().map_err(text)?)
        };
        if level < Level::KEYS {
            return Ok(());
        }
        let others: Vec<NodeRecord> = nodes
            .into_iter()
            .filter(|node| node.role == Role::Replica && node.id != self.links.me())
            .collect();
        let (secrets, now_used) = (self.secrets.clone(), used.clone());
        blocking(move || secrets.use_keys(&now_used))
            .await
            .map_err(|e| e.to_string())?
            .map_err(|e| e.to_string())?;
        while let Some(lacking) = self.secrets.lacking() {
            self.fetch(&lacking, &others).await?;
        }
        if !self.ledger.leads() {
            return Ok(());
        }
        if used.is_empty() { self.begin(&others).await } else { self.reseal().await }
    }

    /// Asks the other replicas for a key, until one gives it.
    async fn fetch(&self, lacking: &SealingKey, others: &[NodeRecord]) -> Result<(), String> {
        let asked = others.iter().map(|other| {
            let ask = SealingAsk::Give(lacking.check);
            self.links.ask(other.id, questions::Sealing { ask }, ASK)
        });
        let given = join_all(asked).await.into_iter().find_map(|answer| match answer {
            Ok(SealingAnswer::Given(key)) => {
                key.filter(|key| Digest::sha256(key.expose()) == lacking.check)
            }
            _ => None,
        });
        let version = lacking.version;
        let key = given.ok_or_else(|| format!("no replica gives version {version} of the key"))?;
        let secrets = self.secrets.clone();
        let kept = blocking(move || secrets.keep(version, key)).await.map_err(|e| e.to_string())?;
        kept.map_err(|e| e.to_string())?;
        info!(version, "this replica has received the mesh's sealing key");
        Ok(())
    }

    /// Makes the mesh's first key.
    async fn begin(&self, others: &[NodeRecord]) -> Result<(), String> {
        let secrets = self.secrets.clone();
        let offered = blocking(move || secrets.offer(1)).await.map_err(|e| e.to_string())?;
        let key = offered.map_err(|e| e.to_string())?;
        let told = others.iter().map(|other| {
            let ask = SealingAsk::Keep { version: 1, key: key.clone() };
            self.links.ask(other.id, questions::Sealing { ask }, ASK)
        });
        let told = join_all(told).await;
        let kept = told.iter().filter(|told| matches!(told, Ok(SealingAnswer::Kept))).count();
        if !is_safe(kept + 1, others.len() + 1) {
            return Err(format!(
                "{} of {} replicas have written the new key; a majority must",
                kept + 1,
                others.len() + 1
            ));
        }
        let check = Digest::sha256(key.expose());
        if self.propose(SealingChange::Use { after: 0, check }).await? {
            info!("secrets in the ledger are sealed under a key of their own from now on");
        }
        Ok(())
    }

    /// Seals anew what is under an older key.
    async fn reseal(&self) -> Result<(), String> {
        for (place, name, was) in self.sealed().map_err(|e| e.to_string())? {
            let becomes = match self.secrets.resealed(&name, &was) {
                Ok(None) => continue,
                Ok(Some(becomes)) => becomes,
                Err(error) => {
                    // one that is damaged must not keep the others from being sealed anew
                    warn!(?place, %error, "a secret could not be sealed anew");
                    continue;
                }
            };
            let becomes = becomes.into_bytes().into();
            if self.propose(SealingChange::Reseal { place, was: was.into(), becomes }).await? {
                info!(?place, "a secret was sealed anew");
            }
        }
        Ok(())
    }

    /// All that is sealed in the ledger and can be sealed anew. Hashes of robots' secrets cannot:
    /// they stay under the key that they were made with until the secret changes.
    fn sealed(&self) -> Result<Vec<SealedThing>, RecordError> {
        let view = self.ledger.view()?;
        let mut sealed = Vec::new();
        for upstream in view.upstreams()? {
            if let Some((_, password)) = upstream.credentials {
                let place = SealedPlace::Upstream(upstream.id);
                sealed.push((place, upstream.name, password.into_bytes()));
            }
        }
        for key in view.token_keys()? {
            let private = key.sealed.into_exposed().into_bytes();
            sealed.push((SealedPlace::TokenKey(key.number), SIGNING.to_owned(), private));
        }
        if let Some(mesh) = view.record::<MeshRecord>(&key::mesh())? {
            let secret = mesh.token_secret.into_exposed();
            sealed.push((SealedPlace::TokenSecret, TOKEN_SECRET.to_owned(), secret));
        }
        Ok(sealed)
    }

    /// Whether the change took effect.
    async fn propose(&self, change: SealingChange) -> Result<bool, String> {
        let command = Command::Sealing(Box::new(change));
        let proposed = self.ledger.propose(OperationId(rand::random()), command, COMMIT).await;
        Ok(proposed.map_err(|e| e.to_string())?.outcome == Outcome::Done)
    }
}
