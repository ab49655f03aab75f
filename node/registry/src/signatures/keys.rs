//! The keys that projects sign with: made, imported, certified for notation, opened, and sealed anew
//! when the operator has another key-encryption key.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ground::clock;
use ground::supervise::{at_length, blocking};
use rules::ledger::command::{Command, Outcome};
use rules::ledger::events::Actor;
use rules::ledger::level::Level;
use rules::ledger::records::{Look, MeshRecord, Project, RecordError, key as records_key};
use rules::ledger::sign_log::{LookForSigning, MeshKey, NotationIdentity, sealed_under};
use rules::ledger::signatures::{LookForSignatures, Resealed, SignatureChange};
use rules::ledger::trust::{MOST_KEKS, TrustChange};
use rules::policies::signatures::{Anchor, By, Own, State};
use rules::words::names::{OperationId, ProjectId, ProjectName};
use rules::words::secret::Secret;
use serde_bytes::ByteBuf;
use sign::making::sealed::{self, SealedError, Wrapping};
use sign::making::{Identity, SigningKey, authority, cosign_key};
use tracing::{info, warn};

use super::Signatures;
use super::keks::KekStanding;
use super::not_signed::NotSigned;
use crate::writes::Refusal;

/// How long before its certificate ends a key gets another one of the mesh's own authority.
const RENEWED: Duration = Duration::from_secs(90 * 86_400);
/// The time between two looks whether the ledger knows what this node opens, and whether keys are
/// sealed as they shall be.
const LOOK: Duration = Duration::from_secs(2);

/// What a project signs with, opened. It is in memory for one run only.
pub(super) struct Opened {
    pub(super) key: SigningKey,
    /// Its certificates, if it signs for notation, too.
    pub(super) identity: Option<Identity>,
    pub(super) own: Own,
}

impl Signatures {
    /// Why this node cannot sign, whatever the project is: a sentence for the operator.
    pub fn cannot_sign(&self) -> Option<String> {
        let me = self.neighbours.name_of(self.neighbours.me);
        let all = self.terms.keks.standing();
        if all.iter().any(|kek| kek.key.is_ok()) {
            return None;
        }
        let why = all.into_iter().find_map(|kek| kek.key.err());
        Some(match why {
            Some(why) => format!("{me} cannot open keys: {why}"),
            None => format!(
                "{me} has no key-encryption key: set signing.passphrase_file, signing.hsm or signing.kms in its settings"
            ),
        })
    }

    /// How the key-encryption keys of this node stand.
    pub fn keks(&self) -> Vec<KekStanding> {
        self.terms.keks.standing()
    }

    fn sealing_kek(&self) -> Result<Arc<dyn Wrapping>, NotSigned> {
        match self.terms.keks.first() {
            Some(kek) => Ok(kek),
            None => Err(NotSigned::Hopeless(self.cannot_sign().unwrap_or_default())),
        }
    }

    /// Where a key belongs: it opens nowhere else.
    fn binding(&self, project: &Project, version: u32) -> Result<Vec<u8>, NotSigned> {
        let view = self.neighbours.records.view()?;
        let mesh: Option<MeshRecord> = view.record(&records_key::mesh())?;
        let mesh = mesh.map_or(0, |mesh| mesh.id);
        Ok(format!("atoll|{mesh:032x}|{}|{version}", project.id.0).into_bytes())
    }

    pub(super) fn project(&self, name: &ProjectName) -> Result<Project, NotSigned> {
        let project = self.neighbours.records.view()?.project(name)?;
        project.ok_or_else(|| NotSigned::Hopeless("the project is not there any more".into()))
    }

    async fn seal(
        &self,
        key: SigningKey,
        project: &Project,
        version: u32,
    ) -> Result<Vec<u8>, NotSigned> {
        let (kek, binding) = (self.sealing_kek()?, self.binding(project, version)?);
        let named = self.neighbours.records.view()?.level()? >= Level::SIGNING;
        let sealed = blocking(move || sealed::seal(&key, &*kek, &binding, named));
        let sealed = sealed.await.map_err(|error| NotSigned::Again(error.to_string()))?;
        sealed.map_err(|error| NotSigned::Again(error.to_string()))
    }

    async fn open(
        &self,
        sealed: &[u8],
        project: &Project,
        version: u32,
    ) -> Result<SigningKey, SealedError> {
        let binding = self.binding(project, version);
        let binding = binding.map_err(|error| SealedError::Unusable(error.to_string()))?;
        let (keks, sealed) = (self.terms.keks.clone(), sealed.to_vec());
        let opened = blocking(move || sealed::open(&sealed, &keks.all(), &binding));
        opened.await.map_err(|error| SealedError::Unusable(error.to_string()))?
    }

    pub(super) async fn make_key(
        &self,
        name: &ProjectName,
        by: &Actor,
    ) -> Result<String, NotSigned> {
        let key = SigningKey::generate().map_err(|error| NotSigned::Again(error.to_string()))?;
        self.set_key(name, key, by).await
    }

    pub(super) async fn make_first_key(
        &self,
        name: &ProjectName,
        by: &Actor,
    ) -> Result<String, NotSigned> {
        let project = self.project(name)?;
        let signers = self.neighbours.records.view()?.trusted(project.id)?.signers;
        match signers.iter().find(|one| one.logged && one.state == State::Active) {
            Some(key) => Ok(format!("{name} has the key {} by now", key.name)),
            None => self.make_key(name, by).await,
        }
    }

    /// Makes the project's key the one of a file of cosign's. The file is opened, and its key sealed,
    /// at this node, which needs a key-encryption key: no other node sees it unsealed.
    ///
    /// # Errors
    /// A sentence for the caller.
    pub async fn import_key(
        &self,
        name: &ProjectName,
        pem: String,
        passphrase: Secret,
        by: &Actor,
    ) -> Result<String, String> {
        if let Some(why) = self.cannot_sign() {
            return Err(why);
        }
        // what scrypt costs is bounded for one file, and files are opened one at a time
        let _turn = self.importing.lock().await;
        let opened = blocking(move || cosign_key::import(&pem, passphrase.expose().as_bytes()));
        let opened = opened.await.map_err(|error| error.to_string())?;
        let key = opened.map_err(|error| error.to_string())?;
        self.set_key(name, key, by).await.map_err(|error| error.to_string())
    }

    async fn set_key(
        &self,
        name: &ProjectName,
        key: SigningKey,
        by: &Actor,
    ) -> Result<String, NotSigned> {
        let project = self.project(name)?;
        let keys = self.neighbours.records.view()?.mesh_keys(project.id)?;
        let version = keys.last().map_or(0, |key| key.version) + 1;
        let (id, pem) = (key.id(), key.public_pem());
        let sealed = ByteBuf::from(self.seal(key, &project, version).await?);
        let key = MeshKey { id, pem, version, created: clock::timestamp(), sealed };
        let signer = MeshKey::signer(version);
        let anchor = Anchor::Key { id, pem: key.pem.clone() };
        self.check_compromised(name, &anchor, &signer).await?;
        let change = SignatureChange::SetKey { project: name.clone(), key: Box::new(key) };
        match self.commit(change, by).await {
            Ok(_) => Ok(format!("{name} signs with the key {id} ({signer})")),
            Err(Refusal::Precondition) => {
                Err(NotSigned::Again("another key was made at the same time".into()))
            }
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// What signs now, opened. A key that the mesh's own authority has not certified yet is.
    pub(super) async fn opened(&self, project: &Project, by: &Actor) -> Result<Opened, NotSigned> {
        let (keys, trusted, identity) = {
            let view = self.neighbours.records.view()?;
            let identity = view.notation_identity(project.id)?;
            (view.mesh_keys(project.id)?, view.trusted(project.id)?, identity)
        };
        let signs = |key: &&MeshKey| {
            trusted.signers.iter().any(|signer| {
                signer.logged && signer.state == State::Active && signer.is(&By::Key(key.id))
            })
        };
        let Some(key) = keys.iter().rev().find(signs) else {
            let name = &project.name;
            return Err(NotSigned::Hopeless(format!(
                "project {name} has no key of its own: atoll sign key --project {name}"
            )));
        };
        let opened = self.open(&key.sealed, project, key.version).await.map_err(|error| {
            let me = self.neighbours.name_of(self.neighbours.me);
            let told = format!("{me} cannot open the project's key: {error}");
            match error {
                SealedError::Unusable(_) | SealedError::Beginning => NotSigned::Again(told),
                _ => NotSigned::Hopeless(told),
            }
        })?;
        let (own, now) = (Own::of(&trusted.signers), clock::timestamp());
        let mut own = own.unwrap_or(Own { key: key.id, authority: None });
        let identity = match identity.filter(|one| own.authority == Some(one.authority)) {
            Some(identity)
                if identity.key == key.id
                    && (identity.sealed.is_none() || now.after(RENEWED) < identity.until) =>
            {
                Some(identity.chain)
            }
            // its authority certifies the new key as it did the one before, and the same one again
            Some(identity) if identity.sealed.is_some() => {
                match self.certify(project, &opened, Some(identity), by).await {
                    Ok(chain) => Some(chain),
                    // an authority whose passphrase is lost keeps the project from signing for
                    // notation, and from nothing else
                    Err(NotSigned::Hopeless(why)) => {
                        warn!(project = %project.name, why, "not signed for notation: `atoll sign notation` makes another authority");
                        None
                    }
                    Err(error) => return Err(error),
                }
            }
            _ => None,
        };
        let read = |chain: String| {
            let read = Identity::read(&chain, &opened);
            read.map_err(|error| NotSigned::Hopeless(format!("the key's certificates: {error}")))
        };
        let identity = identity.map(read).transpose()?;
        // a signature that has expired when it is made is none
        let identity = identity.filter(|identity| now < identity.validity().1);
        own.authority = identity.as_ref().map(Identity::authority);
        Ok(Opened { key: opened, identity, own })
    }

    /// Has the project sign for notation: with certificates that somebody gives, or with those of an
    /// authority of the mesh's own for this project.
    pub(super) async fn identify(
        &self,
        name: &ProjectName,
        chain: Option<&str>,
        by: &Actor,
    ) -> Result<String, NotSigned> {
        let project = self.project(name)?;
        let opened = self.opened(&project, by).await?;
        let chain = match chain {
            Some(chain) => {
                let hopeless = |error: sign::BadAnchor| {
                    NotSigned::Hopeless(format!("the certificates: {error}"))
                };
                let identity = Identity::read(chain, &opened.key).map_err(hopeless)?;
                self.set_identity(&project, &opened.key, &identity, chain, None, by).await?;
                chain.to_owned()
            }
            None => {
                let known = self.neighbours.records.view()?.notation_identity(project.id)?;
                let known = known.filter(|known| known.sealed.is_some());
                match self.certify(&project, &opened.key, known, by).await {
                    // its passphrase is lost, and nobody can sign with it any more
                    Err(NotSigned::Hopeless(_)) => {
                        self.certify(&project, &opened.key, None, by).await?
                    }
                    done => done?,
                }
            }
        };
        let identity = Identity::read(&chain, &opened.key);
        let identity = identity.map_err(|error| NotSigned::Again(error.to_string()))?;
        Ok(format!(
            "{name} signs for notation, too, as {} until {}",
            identity.subject(),
            identity.validity().1
        ))
    }

    /// Certifies a key with the authority that the mesh has made for the project, or with a new one.
    async fn certify(
        &self,
        project: &Project,
        key: &SigningKey,
        known: Option<NotationIdentity>,
        by: &Actor,
    ) -> Result<String, NotSigned> {
        let again = |error: &dyn std::fmt::Display| NotSigned::Again(error.to_string());
        let (name, now) = (project.name.as_str(), clock::timestamp());
        let known = known.and_then(|known| Some((known.sealed?, known.chain)));
        let (ca, certificate, sealed) = match known {
            Some((sealed, chain)) => {
                let ca = self.open(&sealed, project, 0).await;
                let ca = ca.map_err(|error| {
                    let told = format!("the project's authority: {error}");
                    match error {
                        SealedError::Unusable(_) | SealedError::Beginning => NotSigned::Again(told),
                        _ => NotSigned::Hopeless(told),
                    }
                })?;
                // the authority's certificate is the last
                let begin = chain.rfind("-----BEGIN").unwrap_or_default();
                (ca, chain[begin..].to_owned(), sealed)
            }
            None => {
                let ca = SigningKey::generate().map_err(|error| again(&error))?;
                let certificate = authority::authority(&ca, name, now);
                let certificate = certificate.map_err(|error| again(&error))?;
                let copy = SigningKey::from_pkcs8(&ca.to_pkcs8().map_err(|error| again(&error))?);
                let copy = copy.map_err(|error| again(&error))?;
                let sealed = self.seal(copy, project, 0).await?;
                (ca, certificate, ByteBuf::from(sealed))
            }
        };
        let subject = format!("{name} {}", &key.id().to_string()[..12]);
        let chain = authority::certify(key, &subject, name, (&ca, &certificate), now);
        let chain = chain.map_err(|error| again(&error))?;
        let identity = Identity::read(&chain, key).map_err(|error| again(&error))?;
        self.set_identity(project, key, &identity, &chain, Some(sealed), by).await?;
        Ok(chain)
    }

    async fn set_identity(
        &self,
        project: &Project,
        key: &SigningKey,
        read: &Identity,
        chain: &str,
        sealed: Option<ByteBuf>,
        by: &Actor,
    ) -> Result<(), NotSigned> {
        let identity = NotationIdentity {
            key: key.id(),
            authority: read.authority(),
            chain: chain.to_owned(),
            until: read.validity().1,
            sealed,
        };
        let change = SignatureChange::SetIdentity {
            project: project.name.clone(),
            identity: Box::new(identity),
            authority: read.authority_pem(),
        };
        self.commit(change, by).await?;
        Ok(())
    }

    /// Tells the ledger what this node opens, and seals anew what is under an earlier key-encryption
    /// key, for the projects whose primary this node is.
    pub(super) async fn keep_sealed(self: &Arc<Self>) {
        let mut told = None::<BTreeSet<String>>;
        loop {
            if let Err(error) = self.tell_what_opens().await {
                info!(%error, "which signing keys this node opens is not in the ledger yet");
            }
            match at_length(|| self.old_seals()) {
                Ok((old, closed)) => {
                    metrics::gauge!("atoll_signing_keys_closed").set(closed.len() as f64);
                    if told.as_ref() != Some(&closed) && !closed.is_empty() {
                        let me = self.neighbours.name_of(self.neighbours.me);
                        warn!(node = me, projects = ?closed, "this node cannot open the signing keys of these projects");
                    }
                    told = Some(closed);
                    for project in old {
                        match self.reseal(&project).await {
                            Ok(0) => {}
                            Ok(count) => info!(%project, count, "signing keys were sealed anew"),
                            Err(error) => {
                                info!(%project, %error, "signing keys were not sealed anew yet");
                            }
                        }
                    }
                }
                Err(error) => warn!(%error, "signing keys cannot be read"),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn tell_what_opens(&self) -> Result<(), String> {
        let me = self.neighbours.me;
        // what it said before it was restarted stands until it knows better
        if self.terms.keks.begin() {
            return Ok(());
        }
        let mut keks = self.terms.keks.ids();
        keks.truncate(MOST_KEKS);
        {
            let view = self.neighbours.records.view().map_err(|error| error.to_string())?;
            let known = view.opens().map_err(|error| error.to_string())?;
            let level = view.level().map_err(|error| error.to_string())?;
            if level < Level::SIGNING || known.get(&me).map_or(&[][..], Vec::as_slice) == keks {
                return Ok(());
            }
        }
        let command = Command::Trust(Box::new(TrustChange::Opens { node: me, keks }));
        let operation = OperationId(rand::random());
        let proposed = self.neighbours.records.propose(operation, command, self.terms.commit).await;
        match proposed.map_err(|error| error.to_string())?.outcome {
            // a node that joins is listed in a moment
            Outcome::Done | Outcome::NotFound => Ok(()),
            outcome => Err(format!("{outcome:?}")),
        }
    }

    /// The own projects with a key that is not sealed as it shall be; and those, of all, with a key that
    /// this node cannot open.
    fn old_seals(&self) -> Result<(Vec<ProjectName>, BTreeSet<String>), RecordError> {
        let view = self.neighbours.records.view()?;
        let (mut old, mut closed) = (Vec::new(), BTreeSet::new());
        let has = self.terms.keks.ids();
        let seals = self.terms.keks.first().and_then(|kek| kek.id().ok());
        let named = view.level()? >= Level::SIGNING;
        for (id, under) in view.signing_projects()? {
            let name: Option<ProjectName> = view.record(&records_key::project_number(id))?;
            let Some(name) = name else { continue };
            if has.is_empty() || under.is_some_and(|under| !has.contains(&under)) {
                closed.insert(name.to_string());
            }
            let Some(seals) = seals.filter(|_| named) else { continue };
            let Some(project) = self.own_project(&*view, id)? else { continue };
            let identity = view.notation_identity(id)?;
            let sealed = view.mesh_keys(id)?.into_iter().map(|key| key.sealed);
            let sealed = sealed.chain(identity.and_then(|identity| identity.sealed));
            let is_old = |sealed: ByteBuf| {
                sealed_under(&sealed).is_none_or(|(under, _)| under != Some(seals))
            };
            if sealed.into_iter().any(is_old) {
                old.push(project.name);
            }
        }
        Ok((old, closed))
    }

    /// Seals a project's keys under this node's first key-encryption key, as far as they open. Returns
    /// how many.
    async fn reseal(&self, name: &ProjectName) -> Result<usize, NotSigned> {
        let project = self.project(name)?;
        let seals = self.sealing_kek()?.id();
        let seals = seals.map_err(|error| NotSigned::Again(error.to_string()))?;
        let (keys, identity) = {
            let view = self.neighbours.records.view()?;
            (view.mesh_keys(project.id)?, view.notation_identity(project.id)?)
        };
        let authority = identity.and_then(|identity| identity.sealed).map(|sealed| (0, sealed));
        let sealed = keys.into_iter().map(|key| (key.version, key.sealed)).chain(authority);
        let mut resealed = Vec::new();
        for (version, was) in sealed {
            if sealed_under(&was).is_some_and(|(under, _)| under == Some(seals)) {
                continue;
            }
            // what does not open may be another replica's to seal anew
            let Ok(key) = self.open(&was, &project, version).await else { continue };
            let becomes = ByteBuf::from(self.seal(key, &project, version).await?);
            resealed.push(Resealed { version, was, becomes });
        }
        let count = resealed.len();
        if count > 0 {
            let project = name.clone();
            let change = SignatureChange::Reseal { project, keys: resealed };
            self.commit_here(change, &Actor::mesh()).await?;
        }
        Ok(count)
    }

    /// Whether this node has the key-encryption key of a project's newest key, as far as that says which
    /// it is.
    pub(super) fn opens(&self, project: ProjectId) -> Result<bool, RecordError> {
        let keys = self.neighbours.records.view()?.mesh_keys(project)?;
        let under = keys.last().and_then(|key| sealed_under(&key.sealed));
        let under = under.and_then(|(under, _)| under);
        Ok(under.is_none_or(|under| self.terms.keks.ids().contains(&under)))
    }

    /// Whether the project's key has certificates, or the mesh can make them. Those that the operator
    /// gave are of one key: after that was replaced, others must be given.
    pub(super) fn signs_for_notation(
        &self,
        project: &Project,
        own: &Own,
    ) -> Result<bool, RecordError> {
        let view = self.neighbours.records.view()?;
        let identity = view.notation_identity(project.id)?;
        let now = clock::timestamp();
        Ok(identity.is_some_and(|one| {
            Some(one.authority) == own.authority
                && (one.key == own.key && now < one.until || one.sealed.is_some())
        }))
    }
}
