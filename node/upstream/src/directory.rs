//! An LDAP directory (RFC 4511), as a client sees it: one connection for each question, with TLS if the
//! address or the settings say so. Referrals are not followed.

use std::collections::HashMap;
use std::time::Duration;

use ground::supervise::Tasks;
use ldap3::{Ldap, LdapConnAsync, LdapConnSettings, LdapError, Scope, SearchEntry, SearchOptions};
use rules::words::secret::Secret;

use super::{Trust, UpstreamError};

/// The result that says that a name or password is wrong (RFC 4511 section 4.1.9).
const WRONG: u32 = 49;
/// Results that say that a search has found nothing, or more than was wanted.
const NO_SUCH_OBJECT: u32 = 32;
const SIZE_LIMIT: u32 = 4;

/// How far below its base a search looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// At the base only.
    Base,
    /// At its children.
    Children,
    /// Everywhere below.
    Everywhere,
}

/// A client for directories.
#[derive(Clone)]
pub struct Directory {
    trust: Trust,
    deadline: Duration,
    tasks: Tasks,
}

/// Where a directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryPlace {
    /// `ldap://HOST[:PORT]` or `ldaps://HOST[:PORT]`.
    pub url: String,
    /// Whether an `ldap://` connection changes to TLS before anything is said.
    pub starttls: bool,
    /// The name and password of the account that searches; without it the search is anonymous.
    pub searcher: Option<(String, Secret)>,
}

/// What a directory has of something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its distinguished name.
    pub dn: String,
    values: HashMap<String, Vec<String>>,
}

impl Entry {
    /// The values of an attribute. Capital letters of its name do not count.
    pub fn values(&self, attribute: &str) -> &[String] {
        self.values.get(&attribute.to_ascii_lowercase()).map_or(&[], Vec::as_slice)
    }

    /// The first value of an attribute; empty if there is none.
    pub fn value(&self, attribute: &str) -> &str {
        self.values(attribute).first().map_or("", String::as_str)
    }
}

impl Directory {
    /// A directory is asked within `deadline`, all questions of one connection together.
    pub fn new(trust: Trust, deadline: Duration, tasks: Tasks) -> Self {
        Directory { trust, deadline, tasks }
    }

    /// Runs questions on one connection, on which the searcher has signed in.
    pub async fn ask<T>(
        &self,
        place: &DirectoryPlace,
        questions: impl AsyncFnOnce(&mut Connected) -> Result<T, UpstreamError>,
    ) -> Result<T, UpstreamError> {
        let asked = async {
            let mut open = self.open(place).await?;
            let answer = questions(&mut open).await;
            let _ = open.0.unbind().await;
            answer
        };
        match tokio::time::timeout(self.deadline, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(UpstreamError::unreachable("the directory did not answer in time")),
        }
    }

    async fn open(&self, place: &DirectoryPlace) -> Result<Connected, UpstreamError> {
        let settings = LdapConnSettings::new()
            .set_conn_timeout(self.deadline)
            .set_starttls(place.starttls && place.url.starts_with("ldap:"))
            .set_config(self.trust.plain());
        let opened = LdapConnAsync::with_settings(settings, &place.url).await;
        let (connection, ldap) = opened.map_err(failed)?;
        self.tasks.spawn("directory.connection", async move {
            if let Err(error) = connection.drive().await {
                tracing::debug!(%error, "a connection to the directory ended");
            }
        });
        let mut open = Connected(ldap);
        if let Some((name, password)) = &place.searcher
            && !open.proves(name, password).await?
        {
            return Err(UpstreamError::Denied(
                "the directory refuses the account that searches (ldap_search_dn)".into(),
            ));
        }
        Ok(open)
    }
}

/// A connection.
pub struct Connected(Ldap);

impl Connected {
    /// Whether this is the password of the entry with this name. An empty one is never sent: a
    /// directory would take it for an anonymous visitor's, and agree (RFC 4513 section 5.1.2).
    pub async fn proves(&mut self, dn: &str, password: &Secret) -> Result<bool, UpstreamError> {
        if dn.is_empty() || password.expose().is_empty() {
            return Ok(false);
        }
        let said = self.0.simple_bind(dn, password.expose()).await.map_err(failed)?;
        match said.rc {
            0 => Ok(true),
            WRONG | NO_SUCH_OBJECT => Ok(false),
            code => Err(refused(code)),
        }
    }

    /// At most `most` entries that match the filter.
    pub async fn search(
        &mut self,
        base: &str,
        depth: Depth,
        filter: &str,
        attributes: &[&str],
        most: usize,
    ) -> Result<Vec<Entry>, UpstreamError> {
        let scope = match depth {
            Depth::Base => Scope::Base,
            Depth::Children => Scope::OneLevel,
            Depth::Everywhere => Scope::Subtree,
        };
        let limit = i32::try_from(most).unwrap_or(i32::MAX);
        self.0.with_search_options(SearchOptions::new().sizelimit(limit));
        let found =
            self.0.search(base, scope, filter, attributes.to_vec()).await.map_err(failed)?;
        match found.1.rc {
            0 | SIZE_LIMIT | NO_SUCH_OBJECT => {}
            code => return Err(refused(code)),
        }
        let entries = found.0.into_iter().filter(|one| !one.is_ref() && !one.is_intermediate());
        let entries = entries.map(|one| {
            let SearchEntry { dn, attrs, .. } = SearchEntry::construct(one);
            let lower = |(name, all): (String, Vec<String>)| (name.to_ascii_lowercase(), all);
            Entry { dn, values: attrs.into_iter().map(lower).collect() }
        });
        Ok(entries.take(most).collect())
    }
}

fn failed(error: LdapError) -> UpstreamError {
    UpstreamError::unreachable(format!("the directory: {error}"))
}

fn refused(code: u32) -> UpstreamError {
    UpstreamError::unreachable(format!("the directory answered with result {code}"))
}
