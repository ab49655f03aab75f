//! Signing in with the password of an LDAP directory.
//!
//! The directory is asked when somebody signs in, not with each request: what it said counts for five
//! minutes, and for as long as a setting says while it is away. A user with a password here, and a
//! robot, are never asked for there.

use std::collections::{BTreeSet, HashMap};

use ground::clock;
use parking_lot::Mutex;
use rules::ledger::directory::{
    Configurations, DirectoryChange, LookForGroups, MOST_GROUPS, SEARCH_PASSWORD, Vouched,
};
use rules::ledger::events::Actor;
use rules::people::access::Identity;
use rules::people::configurations::{AuthMode, Configured};
use rules::people::groups::{subject, subjects};
use rules::people::guesses::Origin;
use rules::people::ldap::{self, Remembered, remembered};
use rules::words::digest::Digest;
use rules::words::moment::Moment;
use rules::words::names::{UserId, UserName};
use rules::words::roles::Provider;
use rules::words::secret::Secret;
use tokio::sync::Semaphore;
use tracing::{info, warn};
use upstream::UpstreamError;
use upstream::directory::{Connected, Depth, Directory, DirectoryPlace, Entry};

use super::credentials::Shown;
use super::vouching::{Enrolled, Person};
use super::{Access, AccessError};

/// The maximum number of questions to the directory at a time. They wait in no line of others.
const AT_A_TIME: usize = 8;
/// The maximum number of right passwords, and of users, that are remembered.
const REMEMBERED: usize = 4096;
/// How deep groups in groups are looked for, and how many of them in one question.
const DEEPEST: usize = 10;
const IN_ONE: usize = 50;

/// What this node remembers of the directory.
pub(super) struct Asking {
    directory: Directory,
    turns: Semaphore,
    /// When the directory said yes to a password, and who that is.
    passwords: Mutex<HashMap<Digest, (Moment, UserId)>>,
    /// When it was last asked about a user.
    users: Mutex<HashMap<UserId, Moment>>,
}

impl Asking {
    pub(super) fn new(directory: Directory) -> Self {
        let (passwords, users) = Default::default();
        Asking { directory, turns: Semaphore::new(AT_A_TIME), passwords, users }
    }
}

/// How the directory is asked.
pub(super) struct Terms {
    place: DirectoryPlace,
    pub(super) base: String,
    pub(super) depth: Depth,
    pub(super) filter: String,
    pub(super) attribute: String,
    membership: String,
    pub(super) group_base: String,
    pub(super) group_depth: Depth,
    pub(super) group_filter: String,
    admin_group: Option<String>,
    /// How long what it said counts while it is away, in milliseconds.
    lasts: u64,
}

fn depth(number: u64) -> Depth {
    match number {
        0 => Depth::Base,
        1 => Depth::Children,
        _ => Depth::Everywhere,
    }
}

fn age(at: Moment) -> u64 {
    u64::try_from(clock::now().since(at).as_millis()).unwrap_or(u64::MAX)
}

/// The directory's fault, for the person who waits. What it answered is in the log.
pub(super) fn unanswered(error: &UpstreamError) -> AccessError {
    warn!(%error, "the LDAP directory could not be asked");
    AccessError::Unchecked(
        "the LDAP directory does not answer as it should; try again later".into(),
    )
}

impl Access {
    /// The settings, if people sign in with passwords of a directory.
    pub(super) async fn ldap(&self) -> Result<Option<Terms>, AccessError> {
        let record = self.records.read(|records| records.configurations()).await?.0;
        self.ldap_of(&record)
    }

    pub(super) fn ldap_of(&self, record: &Configurations) -> Result<Option<Terms>, AccessError> {
        let configured = Configured::of(record);
        if configured.auth_mode() != AuthMode::Ldap {
            return Ok(None);
        }
        let own = |name: &str| configured.text(name).to_owned();
        let sealed = record.secrets.get(SEARCH_PASSWORD);
        let password =
            sealed.map(|sealed| self.secrets.open(SEARCH_PASSWORD, sealed.expose())).transpose()?;
        let searcher = own("ldap_search_dn");
        let searcher = (!searcher.is_empty()).then(|| (searcher, password.unwrap_or_default()));
        Ok(Some(Terms {
            place: DirectoryPlace {
                url: own("ldap_url"),
                starttls: configured.flag("ldap_starttls"),
                searcher,
            },
            base: own("ldap_base_dn"),
            depth: depth(configured.number("ldap_scope")),
            filter: own("ldap_filter"),
            attribute: own("ldap_uid"),
            membership: own("ldap_group_membership_attribute"),
            group_base: own("ldap_group_base_dn"),
            group_depth: depth(configured.number("ldap_group_search_scope")),
            group_filter: own("ldap_group_search_filter"),
            admin_group: subject(Provider::Ldap, configured.text("ldap_group_admin_dn")),
            lasts: configured.number("ldap_remember_minutes") * 60_000,
        }))
    }

    /// The user with this name and password of the directory; `None` if they are wrong.
    pub(super) async fn check_ldap(
        &self,
        name: &str,
        password: &Secret,
        origin: Origin,
    ) -> Result<Option<(Identity, Option<Shown>)>, AccessError> {
        let Some(terms) = self.ldap().await? else { return Ok(None) };
        if password.expose().is_empty() || !ldap::can_be_name(name) {
            return Ok(None);
        }
        let shown = [&terms.place.url, "\0", name, "\0", password.expose()].concat();
        let proof = Digest::sha256(shown.as_bytes());
        let look = || {
            let known = self.asking.passwords.lock().get(&proof).copied();
            (known, known.map(|(at, _)| remembered(age(at), terms.lasts)))
        };
        if let (Some((_, user)), Some(Remembered::Counts)) = look() {
            return self.user_shown(user).await;
        }
        let _turn = self.turns.take(proof).await;
        let (known, counts) = look();
        if let (Some((_, user)), Some(Remembered::Counts)) = (known, counts) {
            return self.user_shown(user).await;
        }
        self.begin(origin, name)?;
        let found = self.ask_ldap(&terms, name, password).await;
        let person = match found {
            Ok(Some(person)) => person,
            Ok(None) => {
                self.asking.passwords.lock().remove(&proof);
                metrics::counter!("atoll_logins_refused_total").increment(1);
                return Ok(None);
            }
            Err(error) => {
                self.handle_unproven(origin, name);
                let error = unanswered(&error);
                return match (known, counts) {
                    (Some((_, user)), Some(Remembered::Ask)) => self.user_shown(user).await,
                    _ => Err(error),
                };
            }
        };
        self.handle_right(origin, name);
        let by = Actor { name: person.name.to_string(), address: None };
        let who = match self.account_of(&person.vouched).await? {
            Some(known) => {
                let id = known.0.id;
                self.attest(known, person.vouched, &by).await?;
                Enrolled::Known(id)
            }
            None => self.enrol(person, &by).await?,
        };
        let id = match who {
            Enrolled::Made(id) | Enrolled::Known(id) => id,
            Enrolled::Taken => {
                let reason = format!("{name} is the name of another user here, or looks like it");
                return Err(AccessError::Denied(reason));
            }
        };
        remember(&self.asking.passwords, proof, (clock::now(), id));
        self.user_shown(id).await
    }

    /// Who a user is now, for a password that was right.
    async fn user_shown(
        &self,
        id: UserId,
    ) -> Result<Option<(Identity, Option<Shown>)>, AccessError> {
        let Ok(who) = self.principal(id).await else { return Ok(None) };
        let (now, prefix) = (clock::timestamp(), &self.terms.robot_prefix);
        let identity = self.records.read(|records| who.identity(records, now, prefix)).await?.0;
        Ok(identity.map(|identity| (identity, Some(Shown::Principal(who)))))
    }

    /// Runs questions at the directory, when it is their turn.
    pub(super) async fn ask_directory<T>(
        &self,
        terms: &Terms,
        questions: impl AsyncFnOnce(&mut Connected) -> Result<T, UpstreamError>,
    ) -> Result<T, UpstreamError> {
        let _turn = self.asking.turns.acquire().await;
        self.asking.directory.ask(&terms.place, questions).await
    }

    async fn ask_ldap(
        &self,
        terms: &Terms,
        name: &str,
        password: &Secret,
    ) -> Result<Option<Person>, UpstreamError> {
        let ask = async |open: &mut Connected| {
            let filter = ldap::person(&terms.attribute, name, &terms.filter);
            let wanted = wanted(terms);
            // two, to see that there is one
            let found = open.search(&terms.base, terms.depth, &filter, &wanted, 2).await?;
            let [entry] = found.as_slice() else {
                if found.len() > 1 {
                    warn!(name, "the directory has several people with this name: nobody comes in");
                }
                // as for a name that somebody has: the time must not tell who is there
                let nobody = format!("cn=nobody-of-this-name,{}", terms.base);
                let _ = open.proves(&nobody, password).await;
                return Ok(None);
            };
            if !open.proves(&entry.dn, password).await? {
                return Ok(None);
            }
            if let Some((dn, password)) = &terms.place.searcher {
                open.proves(dn, password).await?;
            }
            person(terms, open, entry, name).await
        };
        self.ask_directory(terms, ask).await
    }

    /// Whether a user whom a directory vouched for may get tokens without a password: it is asked
    /// whether it still has them, and for their groups. One that is away is believed for as long as the
    /// setting says.
    pub(super) async fn is_still_in_directory(&self, user: UserId) -> Result<bool, AccessError> {
        let look = |records: &dyn rules::ledger::records::ReadRecords| records.belonging(user);
        let belonging = self.records.read(look).await?.0;
        let Some(belonging) = belonging.filter(|one| one.vouched.provider == Provider::Ldap) else {
            return Ok(true);
        };
        let Some(terms) = self.ldap().await? else { return Ok(false) };
        let asked = self.asking.users.lock().get(&user).copied();
        if asked.is_some_and(|at| age(at) < ldap::FRESH) {
            return Ok(true);
        }
        let dn = belonging.vouched.subject.clone();
        let found = {
            let ask = async |open: &mut Connected| {
                let filter =
                    if terms.filter.is_empty() { "(objectClass=*)" } else { &terms.filter };
                let found = open.search(&dn, Depth::Base, filter, &wanted(&terms), 1).await?;
                match found.first() {
                    Some(entry) => person(&terms, open, entry, "").await,
                    None => Ok(None),
                }
            };
            self.ask_directory(&terms, ask).await
        };
        let by = Actor::mesh();
        match found {
            Ok(Some(person)) => {
                remember(&self.asking.users, user, clock::now());
                if let Some(known) = self.account_of(&person.vouched).await? {
                    self.attest(known, person.vouched, &by).await?;
                }
                Ok(true)
            }
            Ok(None) => {
                info!(user = user.0, "the directory does not have a user any more");
                self.change_directory(DirectoryChange::Disown { user }, &by).await?;
                Ok(false)
            }
            Err(error) => {
                let error = unanswered(&error);
                let said = clock::timestamp().apart(belonging.since).as_millis();
                // it is recorded once an hour
                if said < u128::from(terms.lasts) + 3_600_000 { Ok(true) } else { Err(error) }
            }
        }
    }
}

fn remember<K: std::hash::Hash + Eq, V>(all: &Mutex<HashMap<K, V>>, what: K, value: V) {
    let mut all = all.lock();
    if all.len() >= REMEMBERED {
        all.clear();
    }
    all.insert(what, value);
}

/// What is read of a person.
pub(super) fn wanted(terms: &Terms) -> Vec<&str> {
    let all = [terms.attribute.as_str(), "mail", "cn", "displayName", terms.membership.as_str()];
    all.into_iter().filter(|name| !name.is_empty()).collect()
}

/// The person of an entry, with their groups. `name` is what they have written.
pub(super) async fn person(
    terms: &Terms,
    open: &mut Connected,
    entry: &Entry,
    name: &str,
) -> Result<Option<Person>, UpstreamError> {
    let Some(called) = subject(Provider::Ldap, &entry.dn) else { return Ok(None) };
    let written = match entry.value(&terms.attribute) {
        "" => name,
        own => own,
    };
    let Ok(name) = written.parse::<UserName>() else {
        warn!(name = written, "a name in the directory cannot be a user's here");
        return Ok(None);
    };
    let groups = groups(terms, open, entry).await?;
    let administers = terms.admin_group.as_ref().is_some_and(|admin| groups.contains(admin));
    let (groups, too_many) = subjects(Provider::Ldap, groups.iter().map(String::as_str));
    if too_many {
        warn!(user = %name, "the directory has more groups of a user than count");
    }
    let vouched = Vouched { provider: Provider::Ldap, subject: called, groups, administers };
    let short = |text: &str| text.chars().filter(|c| !c.is_control()).take(60).collect();
    let real_name = [entry.value("displayName"), entry.value("cn")];
    let real_name = real_name.into_iter().find(|text| !text.is_empty()).unwrap_or_default();
    let (email, real_name) = (short(entry.value("mail")), short(real_name));
    Ok(Some(Person { vouched, name, email, real_name }))
}

/// The groups of a person: those that the entry names, those that name the entry, and those that have
/// one of these as a member.
async fn groups(
    terms: &Terms,
    open: &mut Connected,
    entry: &Entry,
) -> Result<BTreeSet<String>, UpstreamError> {
    let one_form = |dn: &String| subject(Provider::Ldap, dn);
    let said = if terms.membership.is_empty() { &[][..] } else { entry.values(&terms.membership) };
    let mut known: BTreeSet<String> = said.iter().filter_map(one_form).collect();
    if terms.group_base.is_empty() {
        return Ok(known);
    }
    let mut next: Vec<String> = known.iter().cloned().collect();
    next.push(entry.dn.clone());
    for _ in 0..DEEPEST {
        let mut found = Vec::new();
        for some in next.chunks(IN_ONE) {
            let filter = ldap::groups_of(some.iter().map(String::as_str), &terms.group_filter);
            let (base, depth) = (&terms.group_base, terms.group_depth);
            found.extend(open.search(base, depth, &filter, &["1.1"], MOST_GROUPS + 1).await?);
        }
        next = found
            .iter()
            .filter_map(|one| one_form(&one.dn))
            .filter(|dn| known.insert(dn.clone()))
            .collect();
        if next.is_empty() || known.len() > MOST_GROUPS {
            break;
        }
    }
    Ok(known)
}
