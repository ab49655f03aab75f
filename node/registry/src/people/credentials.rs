//! Passwords of users and secrets of robots.

use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use ground::clock;
use ground::supervise::blocking;
use rules::ledger::directory::{LookForGroups, cli_place};
use rules::ledger::people::LookForPeople;
use rules::ledger::records::{Look, ReadRecords, RecordError, User, key};
use rules::people::access::{Identity, Principal, named_administrator};
use rules::people::configurations::{AuthMode, Configured};
use rules::people::guesses::{Line, Origin};
use rules::people::passes::SCANNER;
use rules::people::robots::login_of;
use rules::people::trusts::WORKLOAD;
use rules::wire::Credentials;
use rules::words::digest::Digest;
use rules::words::names::{UserId, UserName};
use rules::words::roles::Provider;
use rules::words::secret::Secret;

use super::{Access, AccessError, found, not_yet};
use crate::view::{EdgeRecords, Freshness, Records};

/// The maximum number of checked passwords that are remembered.
const REMEMBERED: usize = 1024;

/// The maximum number of passwords that are checked at a time, for each [`Line`].
pub(super) const CHECKS: [(Line, usize); 3] =
    [(Line::Familiar, 2), (Line::Unfamiliar, 1), (Line::Edges, 1)];

/// The maximum number of new passwords that are hashed at a time.
pub(super) const HASHED: usize = 2;

/// The argon2id hash of a word that nobody knows. A name that does not exist is checked against it,
/// so that it takes as long as one that does.
const NOBODYS: &str = "$argon2id$v=19$m=19456,t=2,p=1$b2YgYSB3b3JkIHRoYXQgbm9ib2R5$OUqYTOdqYYCtzPyNK7e7aq3GXs2JrTnn6oqbvdjmY0o";

/// Whom right credentials name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// An account or a robot.
    Principal(Principal),
    /// The administrator of a mesh that has no accounts yet.
    Named(String),
}

impl Shown {
    /// The account or the robot; `None` for the administrator of a mesh that has none yet.
    pub(super) fn principal(self) -> Option<Principal> {
        match self {
            Shown::Principal(who) => Some(who),
            Shown::Named(_) => None,
        }
    }

    /// Who that is now, according to `records`; `None` if it is nobody any more.
    pub(super) fn identity(
        &self,
        records: &dyn ReadRecords,
        prefix: &str,
    ) -> Result<Option<Identity>, RecordError> {
        match self {
            Shown::Principal(who) => who.identity(records, clock::timestamp(), prefix),
            Shown::Named(name) => named_administrator(records, name),
        }
    }
}

/// What a password is compared with.
#[derive(Clone)]
enum Kept {
    /// The hash of a user's password.
    Password(Secret),
    /// The keyed hash of a robot's secret.
    Robot(Secret<Vec<u8>>),
    /// The sealed secret of a user of an OIDC provider.
    Cli(UserId, Secret),
}

/// The account behind a name, and what its password is compared with.
struct Candidate {
    kept: Kept,
    shown: Option<Shown>,
    /// Who that is; `None` if it may not sign in, even with the right password.
    identity: Option<Identity>,
    /// Whether the LDAP directory knows the password.
    in_directory: bool,
}

impl Access {
    /// The identity behind a name and a password, and what it can be named by; `None` if they are
    /// wrong. A password that was right is remembered by its hash, together with the record it was
    /// checked against, so that a changed password takes effect at once, and costs nothing. How
    /// many others are checked depends on the `origin` and on the account
    /// ([`Guesses`](rules::people::guesses::Guesses)).
    pub(super) async fn check_password(
        &self,
        name: &str,
        password: &Secret,
        origin: Origin,
    ) -> Result<Option<(Identity, Option<Shown>)>, AccessError> {
        if let Records::Edge(edge) = &self.records {
            let told = self.check_at_edge(edge, name, password, origin).await?;
            return Ok(told.map(|identity| (identity, None)));
        }
        if name == WORKLOAD {
            return self.check_workload(password).await;
        }
        // a pass is no password: it is taken where what it opens is known
        if name == SCANNER {
            return Ok(None);
        }
        let (candidate, freshness) =
            self.records.read(|records| self.candidate(records, name)).await?;
        let Some(candidate) = candidate else { return Err(not_yet()) };
        let Candidate { kept, shown, identity, in_directory } = candidate;
        if in_directory {
            return self.check_ldap(name, password, origin).await;
        }
        let proof = proof(name, password, &kept);
        let of_provider = match kept {
            Kept::Cli(user, _) => Some(user),
            _ => None,
        };
        if self.proven.lock().contains(&proof) {
            return self.who_has_shown(of_provider, identity, shown, freshness).await;
        }
        let _turn = self.turns.take(proof).await;
        if self.proven.lock().contains(&proof) {
            return self.who_has_shown(of_provider, identity, shown, freshness).await;
        }
        let line = self.begin(origin, name)?;
        let right = match kept {
            Kept::Robot(hash) => self.secrets.is_hash_of(&hash, password)?,
            Kept::Cli(user, sealed) => {
                let secret = self.secrets.open(&cli_place(user), sealed.expose())?;
                // hashes, so that the time tells nothing of the secret
                let [one, other] =
                    [&secret, password].map(|one| blake3::hash(one.expose().as_bytes()));
                if one != other {
                    // it takes as long as for a name that nobody has
                    self.takes(line, password, NOBODYS.into()).await?;
                }
                one == other
            }
            Kept::Password(hash) => self.takes(line, password, hash).await?,
        };
        let (true, Some(shown)) = (right, shown) else {
            metrics::counter!("atoll_logins_refused_total").increment(1);
            return found((None, freshness));
        };
        self.handle_right(origin, name);
        {
            let mut proven = self.proven.lock();
            if proven.len() >= REMEMBERED {
                proven.clear();
            }
            proven.insert(proof);
        }
        self.who_has_shown(of_provider, identity, Some(shown), freshness).await
    }

    /// Who has shown what was right. Whether the OIDC provider still vouches for one of its users is
    /// asked first, and may make them another one.
    async fn who_has_shown(
        &self,
        of_provider: Option<UserId>,
        identity: Option<Identity>,
        shown: Option<Shown>,
        freshness: Freshness,
    ) -> Result<Option<(Identity, Option<Shown>)>, AccessError> {
        let (Some(user), Some(who)) = (of_provider, &shown) else {
            return found((identity.map(|identity| (identity, shown)), freshness));
        };
        if identity.is_none() || !self.is_still_vouched_for(user).await? {
            return found((None, freshness));
        }
        let prefix = &self.terms.robot_prefix;
        let now = found(self.records.read(|records| who.identity(records, prefix)).await?)?;
        Ok(now.map(|identity| (identity, shown)))
    }

    /// The stored form of a new password. So many at a time as are checked: each takes memory on
    /// purpose, and every user may change their own.
    pub async fn hash_new(&self, password: Secret) -> Result<Secret, AccessError> {
        let fault = |why: String| AccessError::Internal(format!("a password's hash: {why}"));
        let turn = self.hashing.acquire().await;
        let turn = turn.map_err(|e| AccessError::Internal(e.to_string()))?;
        let hash = blocking(move || hash_password(&password)).await;
        drop(turn);
        hash.map_err(|e| fault(e.to_string()))?.map_err(fault)
    }

    /// Whether this is the password of a hash. argon2 takes tens of milliseconds and megabytes on
    /// purpose: guesses must queue, and not use up the machine.
    async fn takes(
        &self,
        line: Line,
        password: &Secret,
        hash: Secret,
    ) -> Result<bool, AccessError> {
        let turn = match self.lines.get(&line) {
            Some(line) => {
                let turn = line.acquire().await;
                Some(turn.map_err(|e| AccessError::Internal(e.to_string()))?)
            }
            None => None,
        };
        let password = password.clone();
        let right = blocking(move || verify(&password, &hash)).await;
        drop(turn);
        Ok(right.unwrap_or(false))
    }

    /// Whether this password is right now, for a caller who changes it. It counts as a try.
    pub async fn proves(
        &self,
        name: &str,
        password: &Secret,
        origin: Origin,
    ) -> Result<bool, AccessError> {
        Ok(self.check_password(name, password, origin).await?.is_some())
    }

    /// The account that `name` signs in to; `None` if this node knows no accounts yet.
    fn candidate(
        &self,
        records: &dyn ReadRecords,
        name: &str,
    ) -> Result<Option<Candidate>, RecordError> {
        let prefix = &self.terms.robot_prefix;
        let nobody = || Kept::Password(NOBODYS.into());
        let (kept, shown) = if let Some(login) = login_of(name, prefix) {
            match records.robot_named(login)? {
                Some(robot) => {
                    let who = Principal::Robot { id: robot.id, generation: robot.generation };
                    (Kept::Robot(robot.secret_hash), Some(Shown::Principal(who)))
                }
                None => (Kept::Robot(Secret::default()), None),
            }
        } else {
            let account = match name.parse::<UserName>() {
                Ok(name) => records.account_named(&name)?,
                Err(_) => None,
            };
            match (account, records.record::<User>(&key::user(name))?) {
                (Some(account), _) => {
                    let who = Principal::User { id: account.id, generation: account.generation };
                    let kept = match account.password_hash.expose().is_empty() {
                        true => cli_secret(records, account.id)?.unwrap_or_else(nobody),
                        false => Kept::Password(account.password_hash),
                    };
                    (kept, Some(Shown::Principal(who)))
                }
                (None, Some(user)) => {
                    (Kept::Password(user.password_hash), Some(Shown::Named(name.to_owned())))
                }
                (None, None) => (nobody(), None),
            }
        };
        if shown.is_none() && records.get(&key::mesh())?.is_none() {
            return Ok(None);
        }
        let identity = match &shown {
            Some(shown) => shown.identity(records, prefix)?,
            None => None,
        };
        let in_directory = self.is_of_directory(records, name, shown.as_ref())?;
        Ok(Some(Candidate { kept, shown, identity, in_directory }))
    }

    /// Whether the LDAP directory is asked about this name: nobody has it here, or whoever has came from
    /// there. Users with a password here and robots are never asked for.
    fn is_of_directory(
        &self,
        records: &dyn ReadRecords,
        name: &str,
        shown: Option<&Shown>,
    ) -> Result<bool, RecordError> {
        if Configured::of(&records.configurations()?).auth_mode() != AuthMode::Ldap {
            return Ok(false);
        }
        Ok(match shown {
            None => !self.is_robot(name),
            Some(Shown::Principal(Principal::User { id, .. })) => records
                .belonging(*id)?
                .is_some_and(|belonging| belonging.vouched.provider == Provider::Ldap),
            Some(_) => false,
        })
    }

    /// A password is about to be checked.
    pub(super) fn begin(&self, origin: Origin, name: &str) -> Result<Line, AccessError> {
        let mut guesses = self.guesses.lock();
        let begun = match self.is_robot(name) {
            true => guesses.begin_secret(clock::now(), origin).map(|()| Line::Unfamiliar),
            false => guesses.begin(clock::now(), origin, name),
        };
        begun.map_err(|wait| {
            metrics::counter!("atoll_logins_throttled_total").increment(1);
            AccessError::TooMany(wait)
        })
    }

    pub(super) fn is_robot(&self, name: &str) -> bool {
        login_of(name, &self.terms.robot_prefix).is_some()
    }

    pub(super) fn handle_right(&self, origin: Origin, name: &str) {
        let mut guesses = self.guesses.lock();
        match self.is_robot(name) {
            true => guesses.handle_secret_unproven(origin),
            false => guesses.handle_right(origin, name),
        }
    }

    /// Somebody comes back from an identity provider, which is asked whether they say the truth. It
    /// counts as the try of a secret.
    pub(super) fn begin_errand(&self, origin: Origin) -> Result<(), AccessError> {
        self.guesses.lock().begin_secret(clock::now(), origin).map_err(AccessError::TooMany)
    }

    /// They did, or the provider could not be asked.
    pub(super) fn end_errand(&self, origin: Origin) {
        self.guesses.lock().handle_secret_unproven(origin);
    }

    pub(super) fn handle_unproven(&self, origin: Origin, name: &str) {
        let mut guesses = self.guesses.lock();
        match self.is_robot(name) {
            true => guesses.handle_secret_unproven(origin),
            false => guesses.handle_unproven(origin, name),
        }
    }

    /// A replica checks the password. What it said lately is used again, and costs nothing.
    async fn check_at_edge(
        &self,
        edge: &EdgeRecords,
        name: &str,
        password: &Secret,
        origin: Origin,
    ) -> Result<Option<Identity>, AccessError> {
        let credentials = Credentials::Basic(name.into(), password.clone());
        // a signature is no guess, and costs little to check
        let mut counted = name != WORKLOAD && !edge.knows(&credentials);
        let turn = match counted {
            true => Some(self.turns.take(shown(name, password)).await),
            false => None,
        };
        if turn.is_some() {
            counted = !edge.knows(&credentials);
        }
        if counted {
            self.begin(origin, name)?;
        }
        let verdict = edge.identify(credentials).await;
        if counted {
            match &verdict {
                Ok(Some(_)) => self.handle_right(origin, name),
                Ok(None) => {}
                Err(_) => self.handle_unproven(origin, name),
            }
        }
        Ok(verdict?.map(|(identity, _)| identity))
    }
}

/// What a user of the OIDC provider signs in with where there is no browser; `None` if they cannot.
fn cli_secret(records: &dyn ReadRecords, user: UserId) -> Result<Option<Kept>, RecordError> {
    let mode = Configured::of(&records.configurations()?).auth_mode();
    if mode != AuthMode::Oidc || is_forgotten(records, user)? {
        return Ok(None);
    }
    Ok(records.cli_secret(user)?.map(|sealed| Kept::Cli(user, sealed)))
}

/// See [`Configured::is_forgotten`].
pub(super) fn is_forgotten(records: &dyn ReadRecords, user: UserId) -> Result<bool, RecordError> {
    let belonging = records.belonging(user)?;
    let configurations = records.configurations()?;
    Ok(Configured::of(&configurations).is_forgotten(belonging.as_ref(), clock::timestamp()))
}

/// A hash of what somebody shows.
fn shown(name: &str, password: &Secret) -> Digest {
    Digest::sha256(&[name.as_bytes(), b"\0", password.expose().as_bytes()].concat())
}

/// What is remembered of a right password: a hash of it, with what it was compared with.
fn proof(name: &str, password: &Secret, kept: &Kept) -> Digest {
    let kept: &[u8] = match kept {
        Kept::Password(hash) => hash.expose().as_bytes(),
        Kept::Robot(hash) => hash.expose(),
        Kept::Cli(_, sealed) => sealed.expose().as_bytes(),
    };
    let shown = [name.as_bytes(), b"\0", password.expose().as_bytes(), b"\0", kept];
    Digest::sha256(&shown.concat())
}

fn verify(password: &Secret, hash: &Secret) -> bool {
    Argon2::default().verify_password(password.expose().as_bytes(), hash.expose().as_str()).is_ok()
}

/// Computes the stored form of a password.
pub fn hash_password(password: &Secret) -> Result<Secret, String> {
    let salt: [u8; 16] = rand::random();
    let hash: argon2::PasswordHash = Argon2::default()
        .hash_password_with_salt(password.expose().as_bytes(), &salt)
        .map_err(|e| e.to_string())?;
    Ok(hash.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_checks_against_its_own_hash_only() {
        let hash = hash_password(&"secret".into()).unwrap();
        assert!(verify(&"secret".into(), &hash));
        assert!(!verify(&"other".into(), &hash));
    }

    #[test]
    fn nobodys_hash_costs_what_a_real_one_costs() {
        let costs = |hash: &str| hash.split('$').take(4).map(str::to_owned).collect::<Vec<_>>();
        let real = hash_password(&"secret".into()).unwrap();
        assert_eq!(costs(NOBODYS), costs(real.expose()));
        // it can be read: one that cannot would be refused at once
        let parsed: Result<argon2::PasswordHash, _> = NOBODYS.parse();
        assert!(parsed.is_ok());
        assert!(!verify(&String::new().into(), &NOBODYS.into()));
    }
}
