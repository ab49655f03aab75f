//! What administrators look up in an LDAP directory: whether it answers, whom it has, and which groups.

use rules::ledger::directory::Configurations;
use rules::ledger::events::Actor;
use rules::people::groups::subject;
use rules::people::ldap;
use rules::words::roles::Provider;
use upstream::directory::{Connected, Depth, Entry};

use super::ldap::{Terms, person, unanswered, wanted};
use super::vouching::Enrolled;
use super::{Access, AccessError};

/// The maximum number of people or groups in an answer.
const LISTED: usize = 500;

/// Somebody in the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedPerson {
    /// The name with which they sign in.
    pub name: String,
    /// For people; empty if it is not known.
    pub real_name: String,
    /// For people; empty if it is not known.
    pub email: String,
}

/// A group in the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroup {
    /// Its name for people.
    pub name: String,
    /// Its distinguished name.
    pub dn: String,
}

/// What groups are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WantedGroups {
    /// Those with this common name.
    Named(String),
    /// The one with this distinguished name.
    At(String),
}

/// Why somebody got no account, in Harbor's words (its `src/pkg/ldap/manager.go`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotImported {
    /// The name is empty, or can be nobody's.
    Empty,
    /// The directory did not answer.
    Failed,
    /// The directory has nobody of that name, or several.
    Unknown,
    /// Somebody else has the name here, or it cannot be a user's.
    Taken,
}

impl NotImported {
    /// The word for clients.
    pub fn word(self) -> &'static str {
        match self {
            NotImported::Empty => "empty_uid",
            NotImported::Failed => "failed_search_user",
            NotImported::Unknown => "unknown_user",
            NotImported::Taken => "conflict_username",
        }
    }
}

impl Access {
    /// Tries these settings: whether the directory answers, takes the account that searches, and has
    /// the base. The error is a sentence for an administrator.
    pub async fn ping_ldap(&self, settings: &Configurations) -> Result<(), String> {
        let terms = self.ldap_of(settings).map_err(|e| e.to_string())?;
        let Some(terms) = terms else { return Err("auth_mode is not ldap_auth".into()) };
        let look = async |open: &mut Connected| {
            open.search(&terms.base, Depth::Base, "(objectClass=*)", &["1.1"], 1).await
        };
        match self.ask_directory(&terms, look).await {
            Ok(found) if found.is_empty() => {
                let base = &terms.base;
                Err(format!("the account that searches does not see {base} (ldap_base_dn)"))
            }
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The people with this name in the directory, or all for an empty name, at most 500; `None` if
    /// nobody signs in with its passwords here.
    pub async fn search_ldap_people(
        &self,
        name: &str,
    ) -> Result<Option<Vec<ListedPerson>>, AccessError> {
        let Some(terms) = self.ldap().await? else { return Ok(None) };
        let filter = match name {
            "" => ldap::everybody(&terms.attribute, &terms.filter),
            name => ldap::person(&terms.attribute, name, &terms.filter),
        };
        let wanted = wanted(&terms);
        let look = async |open: &mut Connected| {
            open.search(&terms.base, terms.depth, &filter, &wanted, LISTED).await
        };
        let found = self.ask_directory(&terms, look).await.map_err(|e| unanswered(&e))?;
        let mut people: Vec<ListedPerson> =
            found.iter().map(|entry| listed(&terms, entry)).collect();
        people.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Some(people))
    }

    /// Groups of the directory, at most 500; `None` if nobody signs in with its passwords here.
    pub async fn search_ldap_groups(
        &self,
        which: &WantedGroups,
    ) -> Result<Option<Vec<ListedGroup>>, AccessError> {
        let Some(terms) = self.ldap().await? else { return Ok(None) };
        let below = if terms.group_base.is_empty() { &terms.base } else { &terms.group_base };
        let (base, depth, filter) = match which {
            WantedGroups::Named(name) => {
                (below, terms.group_depth, ldap::person("cn", name, &terms.group_filter))
            }
            WantedGroups::At(dn) => {
                (dn, Depth::Base, ldap::everybody("objectClass", &terms.group_filter))
            }
        };
        let look =
            async |open: &mut Connected| open.search(base, depth, &filter, &["cn"], LISTED).await;
        let found = self.ask_directory(&terms, look).await.map_err(|e| unanswered(&e))?;
        let group = |entry: &Entry| {
            let dn = subject(Provider::Ldap, &entry.dn)?;
            Some(ListedGroup { name: entry.value("cn").to_owned(), dn })
        };
        Ok(Some(found.iter().filter_map(group).collect()))
    }

    /// Gives somebody of the directory an account, before they have signed in. One who has an account
    /// already keeps it. `None` if nobody signs in with the directory's passwords here.
    pub async fn import_from_ldap(
        &self,
        name: &str,
        by: &Actor,
    ) -> Result<Option<Result<(), NotImported>>, AccessError> {
        let Some(terms) = self.ldap().await? else { return Ok(None) };
        if !ldap::can_be_name(name) {
            return Ok(Some(Err(NotImported::Empty)));
        }
        let filter = ldap::person(&terms.attribute, name, &terms.filter);
        let wanted = wanted(&terms);
        let look = async |open: &mut Connected| {
            let found = open.search(&terms.base, terms.depth, &filter, &wanted, 2).await?;
            match found.as_slice() {
                [entry] => person(&terms, open, entry, name).await.map(Some),
                _ => Ok(None),
            }
        };
        let person = match self.ask_directory(&terms, look).await {
            Ok(Some(Some(person))) => person,
            Ok(Some(None)) => return Ok(Some(Err(NotImported::Taken))),
            Ok(None) => return Ok(Some(Err(NotImported::Unknown))),
            Err(error) => {
                let _ = unanswered(&error);
                return Ok(Some(Err(NotImported::Failed)));
            }
        };
        if self.account_of(&person.vouched).await?.is_some() {
            return Ok(Some(Ok(())));
        }
        Ok(Some(match self.enrol(person, by).await? {
            Enrolled::Made(_) | Enrolled::Known(_) => Ok(()),
            Enrolled::Taken => Err(NotImported::Taken),
        }))
    }
}

fn listed(terms: &Terms, entry: &Entry) -> ListedPerson {
    let real_name = [entry.value("displayName"), entry.value("cn")];
    let real_name = real_name.into_iter().find(|text| !text.is_empty()).unwrap_or_default();
    ListedPerson {
        name: entry.value(&terms.attribute).to_owned(),
        real_name: real_name.to_owned(),
        email: entry.value("mail").to_owned(),
    }
}
