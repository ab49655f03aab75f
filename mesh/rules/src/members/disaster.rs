//! What would be lost if a region burned now: which blobs are nowhere else, and whether the ledger's
//! voters elsewhere have a majority.

use std::collections::{BTreeMap, BTreeSet};

use super::shortage::{Unable, able};
use crate::ledger::records::{NodeRecord, Role};
use crate::words::digest::Digest;
use crate::words::names::{NodeId, ProjectName, Region};

/// A project, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Its name.
    pub name: ProjectName,
    /// In how many regions its blobs should be.
    pub durability: u32,
    /// Its primary.
    pub primary: NodeId,
    /// The blobs that its manifests refer to.
    pub blobs: BTreeSet<Digest>,
}

/// What is known now.
pub struct Scene<'a> {
    /// All members.
    pub nodes: &'a [NodeRecord],
    /// The ledger's voters.
    pub voters: &'a BTreeSet<NodeId>,
    /// The replicas that are up.
    pub live: &'a BTreeSet<NodeId>,
    /// The replicas that take no copies, and why.
    pub unable: &'a BTreeMap<NodeId, Unable>,
    /// The projects that are no caches of a registry.
    pub projects: &'a [Content],
    /// What each replica that answered keeps for good.
    pub holdings: &'a BTreeMap<NodeId, BTreeSet<Digest>>,
}

/// Where a project's copies are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The number of its blobs that each region keeps; a region that keeps none is not there.
    pub copies: BTreeMap<Region, usize>,
    /// The blobs that fewer than two regions keep: what has none of them stands the loss of any one.
    pub alone: BTreeSet<Digest>,
}

/// What the mesh would be without a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fate {
    /// The region.
    pub region: Region,
    /// Its replicas that are up.
    pub replicas: usize,
    /// The blobs of each project that no replica elsewhere says it keeps, and that one here does.
    pub lost: BTreeMap<ProjectName, BTreeSet<Digest>>,
    /// The projects whose primary is here: they get another.
    pub primaries: usize,
    /// How many voters elsewhere are up, and how many voters there are in all. Those that burned count
    /// until others take their places, and that needs a majority.
    pub voters: (usize, usize),
    /// The number of regions elsewhere in which a replica takes copies.
    pub able: usize,
    /// The projects that could not be pushed to, because they want copies in more regions than these,
    /// and in how many. Regions that burned count, until their replicas are removed.
    pub refused: BTreeMap<ProjectName, usize>,
}

impl Fate {
    /// Whether the ledger could still be written to, without anybody's help.
    pub fn can_write(&self) -> bool {
        self.voters.0 * 2 > self.voters.1
    }

    /// Whether everything would go on with all that it has.
    pub fn is_harmless(&self) -> bool {
        self.lost.is_empty() && self.can_write() && self.refused.is_empty()
    }
}

impl Scene<'_> {
    fn region_of(&self, node: NodeId) -> Option<&Region> {
        self.nodes.iter().find(|one| one.id == node).map(|one| &one.region)
    }

    /// The regions where each blob is kept, by replicas that answered.
    fn places(&self) -> BTreeMap<Digest, BTreeSet<&Region>> {
        let mut places: BTreeMap<Digest, BTreeSet<&Region>> = BTreeMap::new();
        for (node, held) in self.holdings {
            let Some(region) = self.region_of(*node) else { continue };
            for digest in held {
                places.entry(*digest).or_default().insert(region);
            }
        }
        places
    }

    /// The regions that have replicas, by name.
    fn regions(&self) -> BTreeSet<&Region> {
        let replicas = self.nodes.iter().filter(|node| node.role == Role::Replica);
        replicas.map(|node| &node.region).collect()
    }

    /// What becomes of the mesh without each region that has replicas.
    pub fn fates(&self) -> Vec<Fate> {
        let (places, able, regions) =
            (self.places(), able(self.nodes, self.unable), self.regions());
        let fate = |region: &Region| {
            let is_here = |node: NodeId| self.region_of(node) == Some(region);
            let mut lost: BTreeMap<ProjectName, BTreeSet<Digest>> = BTreeMap::new();
            for project in self.projects {
                let only_here = |digest: &&Digest| {
                    places.get(digest).is_some_and(|at| at.len() == 1 && at.contains(region))
                };
                let blobs: BTreeSet<Digest> =
                    project.blobs.iter().filter(only_here).copied().collect();
                if !blobs.is_empty() {
                    lost.insert(project.name.clone(), blobs);
                }
            }
            let able = able.iter().filter(|other| **other != region).count();
            let refused = |project: &Content| {
                let wanted = regions.len().min(project.durability as usize);
                (wanted > able).then(|| (project.name.clone(), wanted))
            };
            let up_elsewhere = |node: &&NodeId| self.live.contains(node) && !is_here(**node);
            Fate {
                region: region.clone(),
                replicas: self.live.iter().filter(|node| is_here(**node)).count(),
                lost,
                primaries: self.projects.iter().filter(|one| is_here(one.primary)).count(),
                voters: (self.voters.iter().filter(up_elsewhere).count(), self.voters.len()),
                able,
                refused: self.projects.iter().filter_map(refused).collect(),
            }
        };
        regions.iter().copied().map(fate).collect()
    }

    /// Where the copies of each project are, in the order of [`Scene::projects`].
    pub fn kept(&self) -> Vec<Kept> {
        let places = self.places();
        let kept = |project: &Content| {
            let (mut copies, mut alone) = (BTreeMap::new(), BTreeSet::new());
            for digest in &project.blobs {
                let at = places.get(digest);
                if at.is_none_or(|at| at.len() < 2) {
                    alone.insert(*digest);
                }
                for region in at.into_iter().flatten() {
                    *copies.entry((*region).clone()).or_default() += 1;
                }
            }
            Kept { copies, alone }
        };
        self.projects.iter().map(kept).collect()
    }

    /// The number of blobs of each project that fewer regions keep now than they should, but one at
    /// least.
    pub fn short(&self) -> BTreeMap<ProjectName, usize> {
        let (places, regions) = (self.places(), self.regions().len());
        let short = self.those(|digest, durability| {
            let wanted = regions.min(durability as usize);
            places.get(digest).is_some_and(|at| at.len() < wanted)
        });
        short.into_iter().map(|(name, blobs)| (name, blobs.len())).collect()
    }

    /// The blobs of each project that no replica which answered keeps.
    pub fn missing(&self) -> BTreeMap<ProjectName, BTreeSet<Digest>> {
        let places = self.places();
        self.those(|digest, _| !places.contains_key(digest))
    }

    fn those(
        &self,
        wrong: impl Fn(&Digest, u32) -> bool,
    ) -> BTreeMap<ProjectName, BTreeSet<Digest>> {
        let of = |one: &Content| -> BTreeSet<Digest> {
            let wrong = one.blobs.iter().filter(|digest| wrong(digest, one.durability));
            wrong.copied().collect()
        };
        let all = self.projects.iter().map(|one| (one.name.clone(), of(one)));
        all.filter(|(_, blobs)| !blobs.is_empty()).collect()
    }

    /// The replicas that did not say what they keep. They may have what seems to be missing.
    pub fn silent(&self) -> BTreeSet<NodeId> {
        let replicas = self.nodes.iter().filter(|node| node.role == Role::Replica);
        replicas.map(|node| node.id).filter(|id| !self.holdings.contains_key(id)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(n: u8) -> Digest {
        Digest::sha256(&[n])
    }

    fn node(n: u64, region: &str, role: Role) -> NodeRecord {
        NodeRecord {
            id: NodeId(n),
            name: format!("n{n}").parse().unwrap(),
            region: region.parse().unwrap(),
            role,
            address: ([127, 0, 0, 1], 1).into(),
            url: String::new(),
        }
    }

    struct World {
        nodes: Vec<NodeRecord>,
        voters: BTreeSet<NodeId>,
        live: BTreeSet<NodeId>,
        unable: BTreeMap<NodeId, Unable>,
        projects: Vec<Content>,
        holdings: BTreeMap<NodeId, BTreeSet<Digest>>,
    }

    impl World {
        /// Two replicas in the east, one in the west, one in the south; an edge in the north.
        fn new(holdings: &[(u64, &[u8])]) -> Self {
            let at = [(1, "east"), (2, "east"), (3, "west"), (4, "south")];
            let mut nodes: Vec<NodeRecord> =
                at.iter().map(|(n, region)| node(*n, region, Role::Replica)).collect();
            nodes.push(node(5, "north", Role::Edge));
            let holds =
                |(n, blobs): &(u64, &[u8])| (NodeId(*n), blobs.iter().map(|n| blob(*n)).collect());
            World {
                nodes,
                voters: [1, 3, 4].map(NodeId).into(),
                live: [1, 2, 3, 4].map(NodeId).into(),
                unable: BTreeMap::new(),
                projects: vec![Content {
                    name: "shop".parse().unwrap(),
                    durability: 2,
                    primary: NodeId(1),
                    blobs: [1, 2, 3].map(blob).into(),
                }],
                holdings: holdings.iter().map(holds).collect(),
            }
        }

        fn scene(&self) -> Scene<'_> {
            Scene {
                nodes: &self.nodes,
                voters: &self.voters,
                live: &self.live,
                unable: &self.unable,
                projects: &self.projects,
                holdings: &self.holdings,
            }
        }

        fn fate(&self, region: &str) -> Fate {
            let fates = self.scene().fates();
            fates.into_iter().find(|fate| fate.region.as_str() == region).unwrap()
        }
    }

    #[test]
    fn what_two_regions_keep_outlives_either_and_copies_within_one_do_not_count() {
        let world = World::new(&[(1, &[1, 2, 3]), (2, &[3]), (3, &[1]), (4, &[2])]);
        let east = world.fate("east");
        let shop: ProjectName = "shop".parse().unwrap();
        assert_eq!(east.lost, [(shop.clone(), [blob(3)].into())].into());
        assert_eq!((east.replicas, east.primaries, east.voters), (2, 1, (2, 3)));
        assert!(east.can_write() && !east.is_harmless());
        assert!(world.fate("west").is_harmless() && world.fate("south").is_harmless());
        assert_eq!(world.scene().short(), [(shop, 1)].into());
        let [kept] = &world.scene().kept()[..] else { panic!("one project") };
        let copies: Vec<(&str, usize)> =
            kept.copies.iter().map(|(region, count)| (region.as_str(), *count)).collect();
        assert_eq!(copies, [("east", 3), ("south", 1), ("west", 1)]);
        assert_eq!(kept.alone, [blob(3)].into());
        let mut many = World::new(&[(1, &[1, 2, 3]), (3, &[1, 2, 3]), (4, &[1, 2, 3])]);
        many.projects[0].durability = 4;
        assert!(many.scene().short().is_empty(), "there are three regions, and each has a copy");
        assert_eq!(world.scene().fates().len(), 3, "an edge keeps nothing");
    }

    #[test]
    fn without_a_majority_elsewhere_nothing_is_written_and_who_is_silent_may_have_more() {
        let mut world = World::new(&[(1, &[1, 2, 3]), (3, &[1, 2, 3])]);
        assert!(world.fate("east").can_write());
        world.live.remove(&NodeId(4));
        let (east, shop) = (world.fate("east"), "shop".parse().unwrap());
        assert!(east.lost.is_empty() && !east.can_write(), "{east:?}");
        assert_eq!(world.scene().silent(), [NodeId(2), NodeId(4)].into());
        world.holdings.clear();
        assert_eq!(world.scene().missing(), [(shop, [1, 2, 3].map(blob).into())].into());
        assert!(world.fate("east").lost.is_empty(), "it is missing already");
    }

    /// Writes were said to go on, and pushes were refused once the region was gone.
    #[test]
    fn pushes_go_on_only_where_enough_other_regions_take_copies() {
        let mut world = World::new(&[(1, &[1, 2, 3]), (3, &[1, 2, 3])]);
        assert!(world.fate("east").is_harmless() && world.fate("south").is_harmless());
        world.unable.insert(NodeId(4), Unable::Drains);
        let (east, shop) = (world.fate("east"), "shop".parse().unwrap());
        assert_eq!((east.able, &east.refused), (1, &[(shop, 2)].into()));
        assert!(east.can_write() && !east.is_harmless());
        assert!(world.fate("south").is_harmless(), "the other two take what comes");
        world.unable = [(NodeId(1), Unable::Down)].into();
        assert!(world.fate("west").is_harmless(), "another replica of its region does");
        world.projects[0].durability = 3;
        assert_eq!(world.fate("west").refused.len(), 1, "three are wanted, and two are left");
    }
}
