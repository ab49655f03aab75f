//! Brings the mesh's sealing keys to every replica, and seals anew what is under an older key.
//!
//! The leader makes a key, has a majority of the replicas write it to their disks, and only then
//! proposes to use it. A replica that lacks a key which the ledger names asks the others for it.
//! Keys travel over links only, to nodes that the ledger lists as replicas. A replica gives a key to
//! another only when it has applied that the key is in use. It has then applied everything before
//! that, too: which replicas were removed, and by which keys the others are known.
//!
//! When a replica was removed whose disk somebody else has ([`Exposed`]), the leader makes newer ones
//! of everything that this disk has: first a key that seals, then under it an authority and a key
//! that signs tokens. Each step looks at the ledger only, so the next leader goes on.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use rules::ledger::command::{Command, Outcome};
use rules::ledger::directory::{CLIENT_SECRET, LookForGroups, SEARCH_PASSWORD, cli_place};
use rules::ledger::level::Level;
use rules::ledger::people::LookForPeople;
use rules::ledger::provider_tokens::{self, LookForProviderTokens};
use rules::ledger::records::{Look, MeshRecord, NodeRecord, ReadRecords, RecordError, Role, key};
use rules::ledger::scanners::{self, LookForScanners};
use rules::ledger::sealing::{LookForKeys, SealedPlace, SealingChange, SealingKey, is_safe};
use rules::ledger::trust::{Exposed, LookForTrust, TrustChange};
use rules::wire::{Answer, SealingAnswer, SealingAsk, questions};
use rules::words::digest::Digest;
use rules::words::names::{NodeId, OperationId};
use rules::words::secret::Secret;
use tracing::{info, warn};

use crate::identity::{Authority, Own};
use crate::ledger::Ledger;
use crate::links::Links;
use crate::secrets::{AUTHORITY, SIGNING, Secrets, TOKEN_SECRET};
use ground::supervise::{Tasks, blocking};

/// The time between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// How long a replica may take to keep or give a key.
const ASK: Duration = Duration::from_secs(3);
/// How long a change may take to be committed.
const COMMIT: Duration = Duration::from_secs(5);

/// Looks for as long as the node runs.
pub fn start(
    own: Arc<Own>,
    secrets: Arc<Secrets>,
    ledger: Arc<Ledger>,
    links: Arc<Links>,
    tasks: &Tasks,
) {
    let keeper = Keeper { own, secrets, ledger, links };
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
    ledger: &Ledger,
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
        SealingAsk::Give(check) => {
            let used = ledger.view().and_then(|view| view.sealing_keys()).unwrap_or_default();
            let is_used = used.iter().any(|key| key.check == check);
            let key = secrets.give(&check).filter(|_| is_used);
            Answer::Sealing(SealingAnswer::Given(key))
        }
    }
}

/// Has the key of a node recorded.
pub(crate) async fn pin_node(ledger: &Ledger, node: NodeId, key: Digest) -> Result<(), String> {
    let command = Command::Trust(Box::new(TrustChange::Pin { node, key }));
    match ledger.propose(OperationId(rand::random()), command, COMMIT).await {
        Ok(proposed) if proposed.outcome == Outcome::Exists => {
            Err(format!("another key is recorded for node {node}"))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

struct Keeper {
    own: Arc<Own>,
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
        self.receive_first().await?;
        if level >= Level::TRUST {
            self.pin_myself().await?;
        }
        if !self.ledger.leads() {
            return Ok(());
        }
        let exposed = self.ledger.view().and_then(|view| view.exposed()).map_err(text)?;
        let newest = used.last().map_or(0, |key| key.version);
        if newest <= exposed.map_or(0, |exposed| exposed.sealing) {
            return self.make_key(newest, &others).await;
        }
        if let Some(exposed) = exposed {
            self.succeed(&exposed).await?;
        }
        self.reseal().await
    }

    /// At a replica that joined under a later authority: reads the key of the first one.
    async fn receive_first(&self) -> Result<(), String> {
        if !self.secrets.awaits_first() {
            return Ok(());
        }
        let sealed = self.ledger.view().and_then(|view| view.authority_key(0));
        let Some(sealed) = sealed.map_err(|e| e.to_string())? else { return Ok(()) };
        let opened = self.secrets.open(AUTHORITY, sealed.expose()).map_err(|e| e.to_string())?;
        let secrets = self.secrets.clone();
        let kept =
            blocking(move || secrets.keep_first(&opened)).await.map_err(|e| e.to_string())?;
        kept.map_err(|e| e.to_string())
    }

    /// Has this node's key recorded, by which the others know it from then on.
    async fn pin_myself(&self) -> Result<(), String> {
        let me = self.links.me();
        let (listed, pin) = {
            let view = self.ledger.view().map_err(|e| e.to_string())?;
            let listed = view.get(&key::node(me)).map_err(|e| e.to_string())?.is_some();
            (listed, view.pin(me).map_err(|e| e.to_string())?)
        };
        if !listed || pin.is_some() {
            return Ok(());
        }
        let key = self.own.get().pin().map_err(|e| e.to_string())?;
        pin_node(&self.ledger, me, key).await
    }

    /// As the leader: makes what must follow on what was exposed, as far as that is not done. The
    /// newest key that seals is not among it any more.
    async fn succeed(&self, exposed: &Exposed) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let (authorities, tokens) = {
            let view = self.ledger.view().map_err(|e| text(&e))?;
            (view.authorities().map_err(|e| text(&e))?, view.token_keys().map_err(|e| text(&e))?)
        };
        let newest = authorities.last().map_or(0, |authority| authority.version);
        if newest <= exposed.authority {
            let seal = |key: &str| self.secrets.seal(AUTHORITY, key).map(Secret::from);
            let next = Authority::successor(newest + 1).map_err(|e| text(&e))?;
            let first = match newest {
                0 => {
                    let first = self.own.get().authority;
                    Some((first.certificate, seal(&first.key).map_err(|e| text(&e))?))
                }
                _ => None,
            };
            let change = TrustChange::Authority {
                after: newest,
                sealed: seal(&next.key).map_err(|e| text(&e))?,
                certificate: next.certificate,
                first,
            };
            if self.trust(change).await? {
                info!(version = newest + 1, "the mesh has another authority");
            }
        }
        let newest = tokens.last().map_or(0, |key| key.number);
        if newest <= exposed.tokens {
            let new = self.secrets.new_signing_key().map_err(|e| text(&e))?;
            let secret = self.secrets.new_token_key().map_err(|e| text(&e))?;
            let (public, sealed) = (new.public, new.sealed);
            if self.trust(TrustChange::Tokens { after: newest, public, sealed, secret }).await? {
                info!("tokens of before are not accepted any more");
            }
        }
        Ok(())
    }

    async fn trust(&self, change: TrustChange) -> Result<bool, String> {
        let command = Command::Trust(Box::new(change));
        let proposed = self.ledger.propose(OperationId(rand::random()), command, COMMIT).await;
        Ok(proposed.map_err(|e| e.to_string())?.outcome == Outcome::Done)
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

    /// Makes the key that follows on version `newest`, which is 0 if there is none.
    async fn make_key(&self, newest: u64, others: &[NodeRecord]) -> Result<(), String> {
        let secrets = self.secrets.clone();
        let offered =
            blocking(move || secrets.offer(newest + 1)).await.map_err(|e| e.to_string())?;
        let key = offered.map_err(|e| e.to_string())?;
        let told = others.iter().map(|other| {
            let ask = SealingAsk::Keep { version: newest + 1, key: key.clone() };
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
        if self.propose(SealingChange::Use { after: newest, check }).await? {
            info!(
                version = newest + 1,
                "secrets in the ledger are sealed under a new key from now on"
            );
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
        for authority in view.authorities()? {
            if let Some(private) = view.authority_key(authority.version)? {
                let private = private.into_exposed().into_bytes();
                let place = SealedPlace::Authority(authority.version);
                sealed.push((place, AUTHORITY.to_owned(), private));
            }
        }
        let mut settings = view.configurations()?.secrets;
        for (place, name) in [
            (SealedPlace::ClientSecret, CLIENT_SECRET),
            (SealedPlace::SearchPassword, SEARCH_PASSWORD),
        ] {
            if let Some(secret) = settings.remove(name) {
                sealed.push((place, name.to_owned(), secret.into_exposed().into_bytes()));
            }
        }
        for (user, secret) in view.cli_secrets()? {
            let secret = secret.into_exposed().into_bytes();
            sealed.push((SealedPlace::CliSecret(user), cli_place(user), secret));
        }
        for (user, token) in view.provider_tokens()?.into_iter().filter(|(_, token)| !token.ended) {
            let secret = token.sealed.into_exposed().into_bytes();
            sealed.push((SealedPlace::ProviderToken(user), provider_tokens::place(user), secret));
        }
        for scanner in view.scanners()? {
            let place = SealedPlace::Scanner(scanner.id);
            let name = scanners::place(scanner.id);
            if let Some(credential) = scanner.credential {
                sealed.push((place, name, credential.into_exposed().into_bytes()));
            }
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
