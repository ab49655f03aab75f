//! The mesh's feature level: the formats, and the behaviour of [`crate::ledger::apply`], that all
//! replicas have agreed to use.
//!
//! Two builds may run side by side while a mesh is upgraded. Both must apply an entry in the same
//! way and read what the other wrote. So new features of a build are used only when every replica
//! has them: the operator raises the level (`atoll level raise`), which is an entry of the ledger.
//! Before that, a node can return to the earlier build without loss. After that, a build that lacks
//! the level refuses to take part.

use serde::{Deserialize, Serialize};

/// A feature level. It only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Level(pub u32);

impl Level {
    /// The level of a mesh that never raised it.
    pub const FIRST: Level = Level(1);
    /// From this level on: certificates without a role are not accepted; an id that was used is
    /// never admitted again; the key that signs tokens is sealed; what a node says of itself is
    /// checked; an operation keeps its id when its project's primary changes; a part of a name may
    /// be longer than 128 characters.
    pub const ROLES: Level = Level(2);
    /// From this level on a write may carry a precondition (`If-Match`, `If-None-Match`).
    pub const CONDITIONS: Level = Level(3);
    /// From this level on the ledger does not record what proxy projects cache. What it has of that
    /// is taken over by the nodes' caches ([`crate::ledger::cached`]) and removed. Manifests' bytes
    /// are recorded once for all repositories, and the tags of each manifest are known without
    /// reading all tags of its repository.
    pub const CACHES: Level = Level(4);
    /// From this level on there are users with roles, robots, and keys to sign tokens with.
    pub const PEOPLE: Level = Level(5);
    /// From this level on secrets in the ledger are sealed under keys of their own, which have
    /// versions, and a replica can be removed.
    pub const KEYS: Level = Level(6);
    /// From this level on the ledger's leader sends entries in streams, without waiting for the
    /// answer to each message.
    pub const STREAMS: Level = Level(6);
    /// From this level on the removal of a replica is a record before it is judged, one at a time,
    /// and a manifest that counts on the copies of that replica is not recorded.
    pub const LEAVING: Level = Level(7);
    /// From this level on the ledger has the key of each node, and the mesh can have another
    /// authority.
    pub const TRUST: Level = Level(7);
    /// From this level on a project may say which edges serve it.
    pub const EDGES: Level = Level(7);
    /// From this level on a tag can be added to a manifest that is there, and to no other.
    pub const TAGS: Level = Level(7);
    /// From this level on jobs are in the ledger, and go on when their node dies.
    pub const JOBS: Level = Level(7);
    /// From this level on the ledger records who changed what.
    pub const EVENTS: Level = Level(7);
    /// From this level on a replica gets the records of another in ranges, without those that it
    /// has.
    pub const RANGES: Level = Level(8);
    /// From this level on there are groups of identity providers, and users whom these vouch for.
    pub const DIRECTORY: Level = Level(8);
    /// From this level on what nothing refers to is collected.
    pub const COLLECTION: Level = Level(8);
    /// From this level on projects may say which tags never move and what stays, and pulls are
    /// counted.
    pub const POLICIES: Level = Level(8);
    /// From this level on a trust rule may be without keys: the issuer is asked for them. Who changes a
    /// rule's keys is recorded.
    pub const DISCOVERY: Level = Level(8);
    /// From this level on there are labels.
    pub const LABELS: Level = Level(8);
    /// From this level on tags that are about a manifest ([`fallback`](crate::words::fallback)) go
    /// with it.
    pub const FALLBACK_TAGS: Level = Level(8);
    /// From this level on a project's metadata can lose an entry.
    pub const METADATA: Level = Level(8);
    /// From this level on projects are found by their numbers.
    pub const NUMBERS: Level = Level(8);
    /// From this level on there are scans.
    pub const SCANS: Level = Level(8);
    /// From this level on the mesh keeps what it needs to ask an OIDC provider about people again.
    pub const PROVIDER_TOKENS: Level = Level(9);
    /// From this level on it is known how often somebody's account was deleted: what they were given
    /// to choose a name with makes no other one after that.
    pub const FORGOTTEN: Level = Level(9);
    /// From this level on events say what was before, and what is now.
    pub const DETAILS: Level = Level(9);
    /// From this level on what the mesh has made about a manifest goes with it.
    pub const MADE: Level = Level(9);
    /// From this level on projects say whom they trust to sign, and signatures are verified.
    pub const SIGNATURES: Level = Level(10);
    /// From this level on it is counted what projects store, and they may have limits.
    pub const QUOTAS: Level = Level(10);
    /// From this level on runs of collections and purges are recorded, collections are events, and
    /// events can be purged one by one.
    pub const UPKEEP: Level = Level(10);
    /// From this level on replicas can drain.
    pub const DRAINS: Level = Level(10);
    /// From this level on nodes are asked how far they have read their blobs again.
    pub const SCRUBS: Level = Level(10);
    /// From this level on replicas that return are asked what others have seen of their disks.
    pub const RETURNS: Level = Level(11);
    /// From this level on the mesh signs for notation, too, and it is known which replicas can open the
    /// keys that it signs with.
    pub const SIGNING: Level = Level(11);
    /// From this level on what is deleted is in its project's trash for a time.
    pub const TRASH: Level = Level(11);
    /// From this level on a region can be drilled.
    pub const DRILLS: Level = Level(11);
    /// From this level on replicas are asked which runs of the upkeep they have, and to stop them.
    pub const STOPS: Level = Level(11);
    /// From this level on a manifest with many signatures is deleted in steps, so that none stays.
    pub const STEPS: Level = Level(11);
    /// From this level on retention deletes an artifact only as long as it is as it was seen.
    pub const SEEN: Level = Level(11);
    /// From this level on images may be scanned by other scanners than the one that is built in.
    pub const SCANNERS: Level = Level(11);
    /// From this level on replicas are asked for sums of what they keep, and a repair records who keeps
    /// what.
    pub const TALLIES: Level = Level(12);
    /// From this level on images that proxy projects have cached may be scanned, and refused.
    pub const CACHED_SCANS: Level = Level(13);
    /// From this level on all that is about a manifest and has no tag goes with it, whatever it is.
    pub const REFERRERS: Level = Level(13);
    /// From this level on signatures of images that proxy projects have cached are asked of their
    /// upstreams and verified, and such images may be refused without.
    pub const CACHED_SIGNATURES: Level = Level(14);
    /// From this level on events say which ids a change of an allowlist added and took away.
    pub const ALLOWED_IDS: Level = Level(14);
    /// From this level on the deletion of what decided about an image is a change that edges hear of, and
    /// projects say how long edges that are cut off go by what they knew.
    pub const REVOCATIONS: Level = Level(15);
    /// From this level on a signer that is compromised keeps its key, and counts for nobody in whatever
    /// form its key comes.
    pub const COMPROMISED: Level = Level(15);
    /// The highest level that this build supports.
    pub const NEWEST: Level = Level::COMPROMISED;
}

impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What a node says of its build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// Its version, for people.
    pub version: String,
    /// The highest level that it supports.
    pub supports: Level,
    /// The level of the mesh as this node has applied it.
    pub level: Level,
}

impl Build {
    /// This build, in a mesh that has `level`.
    pub fn of_this(version: &str, level: Level) -> Self {
        Build { version: version.to_owned(), supports: Level::NEWEST, level }
    }
}

/// Why the level cannot be raised now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRaised {
    /// The mesh has it already.
    #[error("the mesh has feature level {0} already, the newest that this node's build knows")]
    Newest(Level),
    /// These replicas do not support it, or did not answer.
    #[error(
        "these replicas do not support feature level {0}, or did not answer: {1}; upgrade or start them first"
    )]
    Behind(Level, String),
}

/// The level to raise to: the highest that every replica supports, if it is above `current`.
/// `replicas` are all replicas in the ledger, by name, with their answers. One that did not answer
/// may run any build, so it counts as supporting only `current`.
pub fn next(current: Level, replicas: &[(String, Option<Build>)]) -> Result<Level, NotRaised> {
    if current >= Level::NEWEST {
        return Err(NotRaised::Newest(current));
    }
    let lowest =
        replicas.iter().map(|(_, build)| build.as_ref().map_or(current, |b| b.supports)).min();
    let reachable = lowest.unwrap_or(current).min(Level::NEWEST);
    if reachable > current {
        return Ok(reachable);
    }
    let next = Level(current.0 + 1);
    let behind = |build: &Option<Build>| build.as_ref().is_none_or(|b| b.supports < next);
    let names: Vec<&str> =
        replicas.iter().filter(|(_, b)| behind(b)).map(|(name, _)| name.as_str()).collect();
    Err(NotRaised::Behind(next, names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(supports: u32) -> Option<Build> {
        Some(Build { version: "1".into(), supports: Level(supports), level: Level::FIRST })
    }

    #[test]
    fn the_level_rises_to_what_every_replica_supports_and_never_past_one_that_is_silent() {
        let named = |builds: &[Option<Build>]| {
            builds
                .iter()
                .enumerate()
                .map(|(i, b)| (format!("node-{i}"), b.clone()))
                .collect::<Vec<_>>()
        };
        assert_eq!(next(Level::FIRST, &named(&[build(2), build(3)])), Ok(Level(2)));
        assert_eq!(
            next(Level::FIRST, &named(&[build(3), build(9)])),
            Ok(Level(3)),
            "no further than this build knows"
        );
        let behind = |names: &str| Err(NotRaised::Behind(Level(2), names.into()));
        assert_eq!(next(Level::FIRST, &named(&[build(2), build(1)])), behind("node-1"));
        assert_eq!(next(Level::FIRST, &named(&[None, build(2)])), behind("node-0"));
        assert_eq!(next(Level::NEWEST, &named(&[build(2)])), Err(NotRaised::Newest(Level::NEWEST)));
    }
}
