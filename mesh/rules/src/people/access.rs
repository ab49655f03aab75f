//! Which identity may do what. There are one administrator and anonymous pulls of public projects.
//! Roles and robot accounts will build on [`Identity`] later.

use serde::{Deserialize, Serialize};

use crate::ledger::records::Project;
use crate::proxies::mirror::without_colon;
use crate::words::names::{ProjectName, RepositoryName};

/// The authenticated identity behind a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Identity {
    /// No credentials were shown.
    Anonymous,
    /// An administrator, who may do everything.
    Administrator(String),
}

impl Identity {
    /// The name for logs.
    pub fn name(&self) -> &str {
        match self {
            Identity::Anonymous => "anonymous",
            Identity::Administrator(name) => name,
        }
    }
}

/// An action, in the terms of token scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Action {
    /// Read manifests, tags, blobs.
    Pull,
    /// Upload blobs, put manifests.
    Push,
    /// Delete manifests, tags, blobs.
    Delete,
}

impl Action {
    /// The word in a token's scope.
    pub fn name(self) -> &'static str {
        match self {
            Action::Pull => "pull",
            Action::Push => "push",
            Action::Delete => "delete",
        }
    }
}

/// Whether `identity` may do `action` in `project`. `None` stands for a project that does not
/// exist; only an administrator is told so.
pub fn allowed(identity: &Identity, action: Action, project: Option<&Project>) -> bool {
    match identity {
        Identity::Administrator(_) => true,
        Identity::Anonymous => action == Action::Pull && project.is_some_and(|p| p.public),
    }
}

/// One scope of a token request: `repository:demo/app:pull,push`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// The repository.
    pub repository: RepositoryName,
    /// The actions that are asked for. Unknown words are left out.
    pub actions: Vec<Action>,
}

impl Scope {
    /// Parses one scope by the token grammar of the distribution project:
    /// `type[(class)]:name:actions`. The class names a kind of image and has no effect. A registry
    /// before the name may have a port. `None` for other types (`registry:catalog:*`) and malformed
    /// scopes, which grant nothing.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        let kind = match kind.strip_suffix(')') {
            Some(classed) => classed.split_once('(').filter(|(_, class)| is_class(class))?.0,
            None => kind,
        };
        if kind != "repository" {
            return None;
        }
        let (written, words) = rest.rsplit_once(':')?;
        let repository = match written.split_once('/') {
            Some((host, path)) if host.contains(':') => format!("{}/{path}", without_colon(host)),
            _ => written.to_owned(),
        };
        let mut actions: Vec<Action> = words
            .split(',')
            .flat_map(|word| match word.trim() {
                "pull" => vec![Action::Pull],
                "push" => vec![Action::Push],
                "delete" => vec![Action::Delete],
                "*" => vec![Action::Pull, Action::Push, Action::Delete],
                _ => vec![],
            })
            .collect();
        actions.sort_unstable();
        actions.dedup();
        Some(Scope { repository: repository.parse().ok()?, actions })
    }

    /// The project that the scope is in.
    pub fn project(&self) -> ProjectName {
        self.repository.project()
    }
}

/// A scope for the registry as a whole: `registry:catalog:*`. Only administrators get one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RegistryScope {
    /// The list of all repositories (distribution's term).
    Catalog,
    /// The API under `/api/`.
    Api,
}

impl RegistryScope {
    /// The word in the scope.
    pub fn name(self) -> &'static str {
        match self {
            RegistryScope::Catalog => "catalog",
            RegistryScope::Api => "api",
        }
    }

    /// Parses one scope; `None` for all others.
    pub fn parse(text: &str) -> Option<Self> {
        let name = text.strip_prefix("registry:")?.strip_suffix(":*")?;
        [RegistryScope::Catalog, RegistryScope::Api].into_iter().find(|scope| scope.name() == name)
    }
}

fn is_class(class: &str) -> bool {
    !class.is_empty() && class.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_may_have_a_class_and_a_port() {
        let scope =
            |text| Scope::parse(text).map(|scope| (scope.repository.to_string(), scope.actions));
        let both = vec![Action::Pull, Action::Push];
        assert_eq!(scope("repository(plugin):p/x:push,pull"), Some(("p/x".into(), both.clone())));
        assert_eq!(scope("repository(image2):p/x:pull, push"), Some(("p/x".into(), both)));
        let pull = vec![Action::Pull];
        assert_eq!(
            scope("repository:r.example:5000/a/b:pull"),
            Some(("r.example_5000/a/b".into(), pull))
        );
        for bad in [
            "repository():p/x:pull",
            "repository(a:p/x:pull",
            "repositorya):p/x:pull",
            "registry(x):p/x:pull",
            "repository(A):p/x:pull",
            "repository(a)b:p/x:pull",
            "repository",
            "repository:",
            "",
        ] {
            assert_eq!(scope(bad), None, "{bad}");
        }
    }

    #[test]
    fn scopes_are_read_as_clients_write_them() {
        let scope = Scope::parse("repository:demo/app:push,pull").unwrap();
        assert_eq!(scope.actions, [Action::Pull, Action::Push]);
        assert_eq!(Scope::parse("repository:demo/app:*").unwrap().actions.len(), 3);
        assert!(Scope::parse("registry:catalog:*").is_none());
        assert!(Scope::parse("repository:../x:pull").is_none());
        assert!(Scope::parse("repository:demo/app:fly").unwrap().actions.is_empty());
    }

    #[test]
    fn scopes_of_the_registry_are_two_and_mean_nothing_else() {
        assert_eq!(RegistryScope::parse("registry:catalog:*"), Some(RegistryScope::Catalog));
        assert_eq!(RegistryScope::parse("registry:api:*"), Some(RegistryScope::Api));
        for other in
            ["registry:catalog:pull", "registry::*", "repository:demo/a:*", "registry:api", ""]
        {
            assert_eq!(RegistryScope::parse(other), None, "{other}");
        }
    }

    #[test]
    fn nobody_writes_without_credentials() {
        for action in [Action::Push, Action::Delete] {
            assert!(!allowed(&Identity::Anonymous, action, None));
        }
        assert!(!allowed(&Identity::Anonymous, Action::Pull, None));
    }
}
