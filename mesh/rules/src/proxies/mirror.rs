//! Which repository of this mesh a request means, when clients use it as a mirror of other
//! registries.
//!
//! Clients name the registry in four ways. containerd adds `?ns=docker.io` to each request to a
//! mirror. A host name can contain it (`docker.io.mirror.example`). podman puts it before the path
//! (`/v2/docker.io/library/nginx/...`). dockerd does not name it, because its mirrors are for
//! Docker Hub only. In all cases the answer is a repository of a proxy project, or none; it is
//! never the content of another registry.

use std::collections::{BTreeMap, BTreeSet};

use crate::words::names::{BadName, ProjectName, Reference, RepositoryName, bad};

/// The name under which images of Docker Hub are recorded.
pub const DOCKER_HUB: &str = "docker.io";

/// Names that people and programs write for Docker Hub.
pub const DOCKER_HUB_NAMES: [&str; 6] = [
    DOCKER_HUB,
    "index.docker.io",
    "hub.docker.com",
    "registry-1.docker.io",
    "registry.hub.docker.com",
    "www.docker.io",
];

/// The parts of a request that say which repository it means.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// Its `ns` parameter.
    pub ns: Option<&'a str>,
    /// Its Host header, with or without a port.
    pub host: Option<&'a str>,
    /// The repository in its path, as written: it may have one part only, or begin with a
    /// registry's name.
    pub written: &'a str,
    /// Whether it would write. Clients do not write to a mirror, so the default registry does not
    /// apply.
    pub writes: bool,
}

/// The operator's rules for mirroring; see the settings `mirrors`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MirrorRules {
    /// Names of this mesh itself (`host[:port]`), in addition to the hosts of its nodes' URLs.
    pub names: BTreeSet<String>,
    /// A request to `REGISTRY.domain` means that registry.
    pub domain: Option<String>,
    /// The registry that is meant if nothing names one and the path does not begin with a project.
    pub default: Option<String>,
    /// Registries for which an operator has chosen the project.
    pub aliases: BTreeMap<String, ProjectName>,
}

/// What the mesh knows of its projects and of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mirrored {
    /// `host[:port]` of every node's URL.
    pub own: BTreeSet<String>,
    /// All projects.
    pub projects: BTreeSet<ProjectName>,
    /// The proxy projects, and the registry (`host[:port]`) that each caches as a whole; `None` if
    /// it caches only a part of a registry.
    pub proxies: BTreeMap<ProjectName, Option<String>>,
}

/// What a request means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// This repository of this mesh.
    Repository(RepositoryName),
    /// A repository of this registry, which no project of this mesh caches.
    NotMirrored(String),
    /// A name that no repository can have.
    Malformed(BadName),
}

impl Mirrored {
    /// The name of `repository` in a project that caches Docker Hub, if `library/` was left out of
    /// it.
    pub fn in_library(&self, repository: &RepositoryName) -> Option<RepositoryName> {
        let host = self.proxies.get(&repository.project())?.as_deref()?;
        let name = repository.within_project();
        let short = registry(host) == DOCKER_HUB && !name.contains('/');
        short.then(|| format!("{}/library/{name}", repository.project()).parse().ok()).flatten()
    }
}

/// The canonical name of a registry: lower case, without the port of https, and `docker.io` for
/// Docker Hub.
pub fn registry(written: &str) -> String {
    let lower = written.trim().trim_end_matches('.').to_ascii_lowercase();
    let name = lower.strip_suffix(":443").unwrap_or(&lower);
    if DOCKER_HUB_NAMES.contains(&name) { DOCKER_HUB.to_owned() } else { name.to_owned() }
}

/// A registry's name where no colon is allowed, in a path or in a host name: `host_port` means
/// `host:port`.
pub fn without_colon(registry: &str) -> String {
    registry.replace(':', "_")
}

/// Reads [`without_colon`] back.
fn with_colon(written: &str) -> String {
    match written.rsplit_once('_') {
        Some((host, port))
            if is_registry(host) && (1..=5).contains(&port.len()) && digits(port) =>
        {
            format!("{host}:{port}")
        }
        _ => written.to_owned(),
    }
}

fn digits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

/// Whether the first part of an image's name is a registry, and not a project or user. This is
/// docker's rule: it contains a dot or a port, or is `localhost`.
pub fn is_registry(part: &str) -> bool {
    part.contains(['.', ':'])
        || part == "localhost"
        || part.strip_prefix("localhost_").is_some_and(digits)
}

impl MirrorRules {
    /// Whether only the path matters, so that [`MirrorRules::meaning`] needs no projects.
    pub fn is_plain(&self, asked: &Asked<'_>) -> bool {
        asked.ns.is_none()
            && (self.default.is_none() || asked.writes)
            && self.by_host(asked.host).is_none()
            && !is_registry(first_part(asked.written))
    }

    /// The repository that a request means. `ns` comes first, then the host, the path, and the
    /// default. If the path repeats what `ns` or the host says, the repetition is removed.
    pub fn meaning(&self, asked: &Asked<'_>, known: &Mirrored) -> Meaning {
        let ns = asked.ns.map(registry).filter(|ns| !ns.is_empty());
        let named = match ns {
            // `ns` is one of the mesh's own names, so the path is the mesh's own
            Some(ns) if self.is_own(&ns, known) => return self.by_path(asked.written, known),
            Some(ns) => Some(ns),
            None => self.by_host(asked.host),
        };
        if let Some(named) = named {
            return self.in_registry(&named, asked.written, known);
        }
        let first = first_part(asked.written);
        let own = is_project(first, known) || is_registry(first);
        if let Some(default) = self.default.as_deref().filter(|_| !own && !asked.writes)
            && let Some(project) = self.project_of(&registry(default), known)
        {
            return within(&project, asked.written);
        }
        self.by_path(asked.written, known)
    }

    /// The repository that an image's name means, as people write it: with a registry, with one of
    /// this mesh's own names, or with neither in front.
    pub fn of_image(&self, name: &str, known: &Mirrored) -> Meaning {
        match name.split_once('/') {
            Some((first, rest)) if is_registry(first) && !is_project(first, known) => {
                let named = with_colon(first);
                self.meaning(&Asked { ns: Some(&named), written: rest, ..Asked::default() }, known)
            }
            _ => self.meaning(&Asked { written: name, ..Asked::default() }, known),
        }
    }

    /// A repository of the registry `named` (its canonical name). If the path begins with a project
    /// that caches the registry, or with the registry's name, that part is removed. Such paths come
    /// from containerd with a path in `hosts.toml`, from BuildKit's mirrors, and from users of
    /// Harbor.
    fn in_registry(&self, named: &str, written: &str, known: &Mirrored) -> Meaning {
        let chosen = self.project_of(named, known);
        if let Some((first, rest)) = written.split_once('/') {
            let caching = |project: &ProjectName| {
                chosen.as_ref() == Some(project)
                    || known
                        .proxies
                        .get(project)
                        .is_some_and(|host| host.as_deref().is_some_and(|h| registry(h) == named))
            };
            if let Some(project) = first.parse().ok().filter(caching) {
                return within(&project, rest);
            }
            if let Some(project) = chosen.as_ref().filter(|_| registry(&with_colon(first)) == named)
            {
                return within(project, rest);
            }
        }
        match chosen {
            Some(project) => within(&project, written),
            None => Meaning::NotMirrored(named.to_owned()),
        }
    }

    /// The project for `named` (a canonical name): the one that the operator chose, otherwise the
    /// first by name of those that cache it.
    pub fn project_of(&self, named: &str, known: &Mirrored) -> Option<ProjectName> {
        if let Some((_, project)) = self.aliases.iter().find(|(alias, _)| registry(alias) == named)
        {
            // an alias must name a proxy project: otherwise clients could push into it by a
            // mirror's name
            return known.proxies.contains_key(project).then(|| project.clone());
        }
        known
            .proxies
            .iter()
            .find(|(_, host)| host.as_deref().is_some_and(|host| registry(host) == named))
            .map(|(project, _)| project.clone())
    }

    /// Every registry that is mirrored, and its project.
    pub fn mirrored(&self, known: &Mirrored) -> BTreeMap<String, ProjectName> {
        let hosts = known.proxies.values().flatten().map(|host| registry(host));
        let names: BTreeSet<String> =
            hosts.chain(self.aliases.keys().map(|alias| registry(alias))).collect();
        names
            .into_iter()
            .filter_map(|name| self.project_of(&name, known).map(|project| (name, project)))
            .collect()
    }

    /// The registry in a host name, if [`MirrorRules::domain`] is set and the host is below it.
    pub fn by_host(&self, host: Option<&str>) -> Option<String> {
        let domain = self.domain.as_deref()?;
        let host = host?.to_ascii_lowercase();
        let host = match host.rsplit_once(':') {
            Some((name, port)) if digits(port) => name,
            _ => host.as_str(),
        };
        let registry_name = host.strip_suffix(&domain.to_ascii_lowercase())?.strip_suffix('.')?;
        (!registry_name.is_empty()).then(|| registry(&with_colon(registry_name)))
    }

    fn is_own(&self, ns: &str, known: &Mirrored) -> bool {
        self.names.iter().chain(&known.own).any(|own| registry(own) == ns)
    }

    /// Uses the path alone: a registry in front of it, if a project caches that, otherwise the path
    /// as it is.
    fn by_path(&self, written: &str, known: &Mirrored) -> Meaning {
        let as_it_is = || written.parse().map_or_else(Meaning::Malformed, Meaning::Repository);
        let Some((first, rest)) = written.split_once('/') else { return as_it_is() };
        if is_project(first, known) || !is_registry(first) {
            return as_it_is();
        }
        match self.project_of(&registry(&with_colon(first)), known) {
            Some(project) => within(&project, rest),
            // no project's name has a colon, so this can only have been meant as a registry
            None if first.contains(':') => Meaning::NotMirrored(registry(first)),
            None => as_it_is(),
        }
    }
}

/// Splits an image's name as people write it: `name[:tag][@digest]`. The tag is `latest` if there
/// is neither a tag nor a digest.
pub fn image(written: &str) -> Result<(&str, Reference), BadName> {
    let (front, digest) = match written.split_once('@') {
        Some((front, digest)) => (front, Some(digest)),
        None => (written, None),
    };
    // a colon before a slash is a registry's port
    let (name, tag) = match front.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (front, "latest"),
    };
    let reference = match digest {
        Some(digest) => digest
            .parse()
            .map(Reference::Digest)
            .map_err(|_| bad("what follows the '@' is not a digest"))?,
        None => tag.parse()?,
    };
    Ok((name, reference))
}

fn is_project(part: &str, known: &Mirrored) -> bool {
    part.parse().is_ok_and(|project: ProjectName| known.projects.contains(&project))
}

fn first_part(written: &str) -> &str {
    written.split('/').next().unwrap_or_default()
}

fn within(project: &ProjectName, rest: &str) -> Meaning {
    format!("{project}/{rest}").parse().map_or_else(Meaning::Malformed, Meaning::Repository)
}

#[cfg(test)]
mod tests;
