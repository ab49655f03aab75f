//! Keys of the map, one function per table.

use super::*;

fn make(table: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = vec![table];
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

/// The mesh's own record.
pub fn mesh() -> Vec<u8> {
    make(b'g', &[])
}

/// The replica that is being removed.
pub fn leaving() -> Vec<u8> {
    make(b'L', &[])
}

/// The mesh's feature level. If absent: [`Level::FIRST`](crate::ledger::level::Level::FIRST).
pub fn level() -> Vec<u8> {
    make(b'v', &[])
}

/// A project.
pub fn project(name: &ProjectName) -> Vec<u8> {
    make(b'p', &[name.as_str().as_bytes()])
}

/// All projects.
pub fn projects() -> Vec<u8> {
    make(b'p', &[])
}

/// The number that the last new project got.
pub fn last_project() -> Vec<u8> {
    make(b'c', &[b"p"])
}

/// The number that the last new upstream got.
pub fn last_upstream() -> Vec<u8> {
    make(b'c', &[b"s"])
}

/// A repository.
pub fn repository(name: &RepositoryName) -> Vec<u8> {
    make(b'y', &[name.as_str().as_bytes()])
}

/// All repositories.
pub fn repositories() -> Vec<u8> {
    make(b'y', &[])
}

/// All repositories of a project.
pub fn repositories_of(project: &ProjectName) -> Vec<u8> {
    make(b'y', &[project.as_str().as_bytes(), b"/"])
}

/// A tag.
pub fn tag(repository: &RepositoryName, tag: &Tag) -> Vec<u8> {
    make(b't', &[repository.as_str().as_bytes(), b"\0", tag.as_str().as_bytes()])
}

/// All tags of a repository.
pub fn tags(repository: &RepositoryName) -> Vec<u8> {
    make(b't', &[repository.as_str().as_bytes(), b"\0"])
}

/// All tags of a project.
pub fn tags_of(project: &ProjectName) -> Vec<u8> {
    make(b't', &[project.as_str().as_bytes(), b"/"])
}

/// A manifest of a repository.
pub fn manifest(repository: &RepositoryName, digest: &Digest) -> Vec<u8> {
    make(b'm', &[repository.as_str().as_bytes(), b"\0", &digest.to_key()])
}

/// All manifests of a project.
pub fn manifests_of(project: &ProjectName) -> Vec<u8> {
    make(b'm', &[project.as_str().as_bytes(), b"/"])
}

/// All manifests of a repository.
pub fn manifests(repository: &RepositoryName) -> Vec<u8> {
    make(b'm', &[repository.as_str().as_bytes(), b"\0"])
}

/// The bytes of a manifest.
pub fn content(digest: &Digest) -> Vec<u8> {
    make(b'd', &[&digest.to_key()])
}

/// That a tag names a manifest: the index of tags by their manifests.
pub fn named(repository: &RepositoryName, digest: &Digest, tag: &Tag) -> Vec<u8> {
    let tag = tag.as_str().as_bytes();
    make(b'w', &[repository.as_str().as_bytes(), b"\0", &digest.to_key(), tag])
}

/// All tags that name a manifest.
pub fn all_named(repository: &RepositoryName, digest: &Digest) -> Vec<u8> {
    make(b'w', &[repository.as_str().as_bytes(), b"\0", &digest.to_key()])
}

/// How far the tags of a repository are in that index, see
/// [`TagIndex`](super::TagIndex).
pub fn tag_index(repository: &RepositoryName) -> Vec<u8> {
    make(b'z', &[repository.as_str().as_bytes()])
}

/// The number of manifests of a repository that refer to a blob.
pub fn link(repository: &RepositoryName, digest: &Digest) -> Vec<u8> {
    make(b'l', &[repository.as_str().as_bytes(), b"\0", &digest.to_key()])
}

/// All blobs that a project's repositories refer to.
pub fn links_of(project: &ProjectName) -> Vec<u8> {
    make(b'l', &[project.as_str().as_bytes(), b"/"])
}

/// A blob.
pub fn blob(digest: &Digest) -> Vec<u8> {
    make(b'b', &[&digest.to_key()])
}

/// A manifest that is about a subject.
pub fn referrer(repository: &RepositoryName, subject: &Digest, digest: &Digest) -> Vec<u8> {
    make(b'r', &[repository.as_str().as_bytes(), b"\0", &subject.to_key(), &digest.to_key()])
}

/// All manifests that are about a subject.
pub fn referrers(repository: &RepositoryName, subject: &Digest) -> Vec<u8> {
    make(b'r', &[repository.as_str().as_bytes(), b"\0", &subject.to_key()])
}

/// All manifests of a repository that are about others.
pub fn all_referrers(repository: &RepositoryName) -> Vec<u8> {
    make(b'r', &[repository.as_str().as_bytes(), b"\0"])
}

/// An upstream.
pub fn upstream(id: UpstreamId) -> Vec<u8> {
    make(b's', &[&id.0.to_be_bytes()])
}

/// All upstreams.
pub fn upstreams() -> Vec<u8> {
    make(b's', &[])
}

/// A user of a mesh below the level [`Level::PEOPLE`](crate::ledger::level::Level::PEOPLE).
pub fn user(name: &str) -> Vec<u8> {
    make(b'u', &[name.as_bytes()])
}

/// All such users.
pub fn users() -> Vec<u8> {
    make(b'u', &[])
}

/// An account.
pub fn account(id: UserId) -> Vec<u8> {
    make(b'A', &[&id.0.to_be_bytes()])
}

/// All accounts.
pub fn accounts() -> Vec<u8> {
    make(b'A', &[])
}

/// The number of the account with this name.
pub fn user_name(name: &UserName) -> Vec<u8> {
    make(b'N', &[name.as_str().as_bytes()])
}

/// The names of all accounts.
pub fn user_names() -> Vec<u8> {
    make(b'N', &[])
}

/// The number that the last new account, robot or membership got.
pub fn last_of_people() -> Vec<u8> {
    make(b'c', &[b"A"])
}

/// A user's membership in a project.
pub fn member(project: ProjectId, user: UserId) -> Vec<u8> {
    make(b'M', &[&project.0.to_be_bytes(), &user.0.to_be_bytes()])
}

/// All members of a project.
pub fn members(project: ProjectId) -> Vec<u8> {
    make(b'M', &[&project.0.to_be_bytes()])
}

/// That a user is a member of a project.
pub fn membership(user: UserId, project: ProjectId) -> Vec<u8> {
    make(b'J', &[&user.0.to_be_bytes(), &project.0.to_be_bytes()])
}

/// All projects that a user is a member of.
pub fn memberships(user: UserId) -> Vec<u8> {
    make(b'J', &[&user.0.to_be_bytes()])
}

/// The project at the end of a key of [`membership`].
pub fn project_of_membership(key: &[u8]) -> Option<ProjectId> {
    key.get(9..)?.try_into().ok().map(|id| ProjectId(u64::from_be_bytes(id)))
}

/// A robot.
pub fn robot(id: RobotId) -> Vec<u8> {
    make(b'R', &[&id.0.to_be_bytes()])
}

/// All robots.
pub fn robots() -> Vec<u8> {
    make(b'R', &[])
}

/// The number of the robot with this name, without the prefix.
pub fn robot_name(login: &str) -> Vec<u8> {
    make(b'S', &[login.as_bytes()])
}

/// The numbers of all robots of a project.
pub fn robot_names_of(project: &ProjectName) -> Vec<u8> {
    make(b'S', &[project.as_str().as_bytes(), b"+"])
}

/// A trust rule, by its issuer.
pub fn trust(issuer: &str, robot: RobotId, id: TrustId) -> Vec<u8> {
    let issuer = Digest::sha256(issuer.as_bytes()).to_key();
    make(b'W', &[&issuer, &robot.0.to_be_bytes(), &id.0.to_be_bytes()])
}

/// All rules about an issuer.
pub fn trusts_in(issuer: &str) -> Vec<u8> {
    make(b'W', &[&Digest::sha256(issuer.as_bytes()).to_key()])
}

/// The issuer of a rule of a robot.
pub fn trust_place(robot: RobotId, id: TrustId) -> Vec<u8> {
    make(b'Y', &[&robot.0.to_be_bytes(), &id.0.to_be_bytes()])
}

/// The issuers of all rules of a robot.
pub fn trusts_of(robot: RobotId) -> Vec<u8> {
    make(b'Y', &[&robot.0.to_be_bytes()])
}

/// The rule of a key of [`trust_place`].
pub fn trust_of(key: &[u8]) -> Option<TrustId> {
    key.get(9..)?.try_into().ok().map(|id| TrustId(u64::from_be_bytes(id)))
}

/// A key that tokens are signed with.
pub fn token_key(number: u64) -> Vec<u8> {
    make(b'K', &[&number.to_be_bytes()])
}

/// All of them.
pub fn token_keys() -> Vec<u8> {
    make(b'K', &[])
}

/// The keys that seal secrets in the ledger; see [`SealingKey`](crate::ledger::sealing::SealingKey).
pub fn sealing_keys() -> Vec<u8> {
    make(b'Z', &[])
}

/// The name of the project with this number.
pub fn project_number(id: ProjectId) -> Vec<u8> {
    make(b'9', &[b"p", &id.0.to_be_bytes()])
}

/// How often people's records were changed.
pub fn people_version() -> Vec<u8> {
    make(b'V', &[])
}

/// A group of an identity provider.
pub fn group(id: GroupId) -> Vec<u8> {
    make(b'G', &[&id.0.to_be_bytes()])
}

/// All groups.
pub fn groups() -> Vec<u8> {
    make(b'G', &[])
}

/// The number of the group that the provider calls so.
pub fn group_subject(provider: Provider, subject: &str) -> Vec<u8> {
    make(b'D', &[b"g", &[provider.number() as u8], subject.as_bytes()])
}

/// The number of the user whom the provider calls so.
pub fn user_subject(provider: Provider, subject: &str) -> Vec<u8> {
    make(b'D', &[b"u", &[provider.number() as u8], subject.as_bytes()])
}

/// How often an account of whom the provider calls so was deleted.
pub fn forgotten(provider: Provider, subject: &str) -> Vec<u8> {
    make(b'9', &[b"g", &[provider.number() as u8], subject.as_bytes()])
}

/// What a provider says of a user.
pub fn belonging(user: UserId) -> Vec<u8> {
    make(b'H', &[&user.0.to_be_bytes()])
}

/// The membership of a group in a project.
pub fn group_member(project: ProjectId, group: GroupId) -> Vec<u8> {
    make(b'B', &[&project.0.to_be_bytes(), &group.0.to_be_bytes()])
}

/// All groups that are members of a project.
pub fn group_members(project: ProjectId) -> Vec<u8> {
    make(b'B', &[&project.0.to_be_bytes()])
}

/// That a group is a member of a project.
pub fn group_place(group: GroupId, project: ProjectId) -> Vec<u8> {
    make(b'I', &[&group.0.to_be_bytes(), &project.0.to_be_bytes()])
}

/// All projects that a group is a member of.
pub fn group_places(group: GroupId) -> Vec<u8> {
    make(b'I', &[&group.0.to_be_bytes()])
}

/// That a group was made a member of some project at some time.
pub fn groups_used() -> Vec<u8> {
    make(b'F', &[])
}

/// The settings that administrators change over the API.
pub fn configurations() -> Vec<u8> {
    make(b'1', &[])
}

/// The secret of a user for clients that have no browser.
pub fn cli_secret(user: UserId) -> Vec<u8> {
    make(b'2', &[&user.0.to_be_bytes()])
}

/// All of them.
pub fn cli_secrets() -> Vec<u8> {
    make(b'2', &[])
}

/// The user of a key of [`cli_secret`].
pub fn user_of_cli(key: &[u8]) -> Option<UserId> {
    key.get(1..)?.try_into().ok().map(|id| UserId(u64::from_be_bytes(id)))
}

/// Whether a key is one of people's records.
pub fn is_of_people(key: &[u8]) -> bool {
    let tables = b"ANMJRSWYGDHBI2";
    key.first().is_some_and(|table| tables.contains(table))
}

/// A node.
pub fn node(id: NodeId) -> Vec<u8> {
    make(b'n', &[&id.0.to_be_bytes()])
}

/// Marks a node as removed from the mesh, and when. Its certificate is not accepted any more.
pub fn removed(id: NodeId) -> Vec<u8> {
    make(b'x', &[&id.0.to_be_bytes()])
}

/// All removed nodes.
pub fn removals() -> Vec<u8> {
    make(b'x', &[])
}

/// The node of a key of [`removed`].
pub fn removed_of(key: &[u8]) -> Option<NodeId> {
    key.get(1..)?.try_into().ok().map(|id| NodeId(u64::from_be_bytes(id)))
}

/// All nodes.
pub fn nodes() -> Vec<u8> {
    make(b'n', &[])
}

/// An invitation, by the hash of its secret.
pub fn invitation(secret_hash: &Digest) -> Vec<u8> {
    make(b'i', &[&secret_hash.to_key()])
}

/// All invitations.
pub fn invitations() -> Vec<u8> {
    make(b'i', &[])
}

/// The recorded key of a node.
pub fn pin(id: NodeId) -> Vec<u8> {
    make(b'P', &[&id.0.to_be_bytes()])
}

/// The recorded keys of all nodes.
pub fn pins() -> Vec<u8> {
    make(b'P', &[])
}

/// An authority of the mesh.
pub fn authority(version: u64) -> Vec<u8> {
    make(b'C', &[&version.to_be_bytes()])
}

/// All authorities of the mesh.
pub fn authorities() -> Vec<u8> {
    make(b'C', &[])
}

/// The sealed key of an authority.
pub fn authority_key(version: u64) -> Vec<u8> {
    make(b'U', &[&version.to_be_bytes()])
}

/// What was exposed last.
pub fn exposed() -> Vec<u8> {
    make(b'T', &[])
}

/// The answer to a command.
pub fn operation(id: OperationId) -> Vec<u8> {
    make(b'o', &[&id.0.to_be_bytes()])
}

/// The commands in the order of their entries, so that old answers can be removed.
pub fn operation_order(revision: Revision) -> Vec<u8> {
    make(b'q', &[&revision.0.to_be_bytes()])
}

/// All commands in that order.
pub fn operation_orders() -> Vec<u8> {
    make(b'q', &[])
}

/// The repository of a tag's, manifest's or link's key, and what follows its name.
pub fn in_repository(key: &[u8]) -> Option<(RepositoryName, &[u8])> {
    let end = key.iter().position(|b| *b == 0)?;
    let name = std::str::from_utf8(key.get(1..end)?).ok()?;
    Some((name.parse().ok()?, &key[end + 1..]))
}

/// The digest at the end of a link's or a manifest's key.
pub fn digest_of(key: &[u8]) -> Option<Digest> {
    let end = key.iter().position(|b| *b == 0)?;
    Digest::from_key(&key[end + 1..]).ok()
}

/// The name at the end of a key with one name (project, repository).
pub fn name_of(key: &[u8]) -> String {
    String::from_utf8_lossy(key.get(1..).unwrap_or_default()).into_owned()
}

/// The tag at the end of a tag's key.
pub fn tag_of(key: &[u8]) -> String {
    let end = key.iter().position(|b| *b == 0).map_or(key.len(), |i| i + 1);
    String::from_utf8_lossy(&key[end..]).into_owned()
}
