//! When a packet arrives, if it does: delay, rate, queue and loss, without a clock or a socket.

use std::time::Duration;

/// What the WAN between two regions is like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Profile {
    /// Its name in reports.
    pub(crate) name: &'static str,
    /// There and back.
    pub(crate) round_trip: Duration,
    /// What a region's link carries each way; none: as fast as the machine is.
    pub(crate) bytes_per_second: Option<f64>,
    /// The share of packets that is lost, each way.
    pub(crate) loss: f64,
}

/// The WANs of the goals.
pub(crate) const PROFILES: [Profile; 4] = [
    Profile { name: "LAN", round_trip: Duration::ZERO, bytes_per_second: None, loss: 0.0 },
    Profile {
        name: "R1",
        round_trip: Duration::from_millis(30),
        bytes_per_second: Some(12.5e6),
        loss: 0.0,
    },
    Profile {
        name: "R2",
        round_trip: Duration::from_millis(100),
        bytes_per_second: Some(12.5e6),
        loss: 0.001,
    },
    Profile {
        name: "R3",
        round_trip: Duration::from_millis(200),
        bytes_per_second: Some(6.25e6),
        loss: 0.01,
    },
];

/// How long a packet may wait for a link before it is dropped, at least; a link to far away has
/// room for a round trip.
const SHORTEST_QUEUE: f64 = 0.03;

/// Bytes of IP packets that crossed, packets lost on their way included.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traffic {
    /// From node to node.
    pub(crate) nodes: Vec<Vec<u64>>,
    /// From region to region, where they differ.
    pub(crate) regions: Vec<Vec<u64>>,
}

impl Traffic {
    fn new(nodes: usize, regions: usize) -> Self {
        Traffic { nodes: vec![vec![0; nodes]; nodes], regions: vec![vec![0; regions]; regions] }
    }

    /// The bytes that came into a region from all others since an earlier reading.
    pub(crate) fn came_into(&self, region: usize, before: &Traffic) -> u64 {
        let came = |traffic: &Traffic| traffic.regions.iter().map(|from| from[region]).sum::<u64>();
        came(self) - came(before)
    }

    /// What a node sent to another since an earlier reading.
    pub(crate) fn between(&self, from: usize, to: usize, before: &Traffic) -> u64 {
        self.nodes[from][to] - before.nodes[from][to]
    }
}

/// One direction of a link: the second at which it has sent all that waits for it.
#[derive(Clone, Copy, Debug, Default)]
struct Pipe(f64);

impl Pipe {
    /// When a packet that comes at `now` has left, or nothing if the queue is full.
    fn pass(&mut self, now: f64, bytes: usize, rate: Option<f64>, queue: f64) -> Option<f64> {
        let Some(rate) = rate else { return Some(now) };
        let begin = self.0.max(now);
        if begin - now > queue {
            return None;
        }
        self.0 = begin + bytes as f64 / rate;
        Some(self.0)
    }
}

/// All links: each node has one, and each region has one to the WAN that its nodes share.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) profile: Profile,
    pub(super) node_rate: Option<f64>,
    /// From node to node: whether nothing arrives.
    pub(super) cut: Vec<Vec<bool>>,
    pub(super) traffic: Traffic,
    regions: Vec<usize>,
    node_pipes: Vec<[Pipe; 2]>,
    region_pipes: Vec<[Pipe; 2]>,
}

impl Model {
    pub(super) fn new(regions: &[usize]) -> Self {
        let count = regions.iter().max().map_or(0, |last| last + 1);
        Model {
            profile: PROFILES[0],
            node_rate: None,
            cut: vec![vec![false; regions.len()]; regions.len()],
            traffic: Traffic::new(regions.len(), count),
            regions: regions.to_vec(),
            node_pipes: vec![[Pipe::default(); 2]; regions.len()],
            region_pipes: vec![[Pipe::default(); 2]; count],
        }
    }

    /// How many nodes there are.
    pub(super) fn nodes(&self) -> usize {
        self.regions.len()
    }

    /// The second at which a packet sent at `now` arrives, or nothing if it does not. `dice` is one
    /// throw from 0 to 1.
    pub(super) fn send(
        &mut self,
        now: f64,
        from: usize,
        to: usize,
        bytes: usize,
        dice: f64,
    ) -> Option<f64> {
        let Profile { round_trip, bytes_per_second: rate, loss, .. } = self.profile;
        let (here, there) = (self.regions[from], self.regions[to]);
        let queue = round_trip.as_secs_f64().max(SHORTEST_QUEUE);
        let mut at = self.node_pipes[from][0].pass(now, bytes, self.node_rate, SHORTEST_QUEUE)?;
        if here != there {
            at = self.region_pipes[here][0].pass(at, bytes, rate, queue)?;
            self.traffic.regions[here][there] += bytes as u64;
        }
        self.traffic.nodes[from][to] += bytes as u64;
        if self.cut[from][to] {
            return None;
        }
        if here != there {
            if dice < loss {
                return None;
            }
            at += round_trip.as_secs_f64() / 2.0;
            at = self.region_pipes[there][1].pass(at, bytes, rate, queue)?;
        }
        self.node_pipes[to][1].pass(at, bytes, self.node_rate, SHORTEST_QUEUE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Profile = Profile {
        name: "slow",
        round_trip: Duration::from_millis(100),
        bytes_per_second: Some(1000.0),
        loss: 0.5,
    };

    fn close(left: Option<f64>, right: f64) -> bool {
        left.is_some_and(|left| (left - right).abs() < 1e-9)
    }

    #[test]
    fn a_packet_pays_for_the_way_and_for_those_before_it() {
        let mut model = Model::new(&[0, 0, 1]);
        model.profile = SLOW;
        assert!(close(model.send(1.0, 0, 2, 10, 0.9), 1.0 + 0.01 + 0.05 + 0.01));
        assert!(
            close(model.send(1.0, 1, 2, 10, 0.9), 1.0 + 0.02 + 0.05 + 0.01),
            "both share the region's link"
        );
        assert!(close(model.send(1.0, 0, 1, 10, 0.0), 1.0), "there is no WAN within a region");
        assert_eq!(model.traffic.regions[0][1], 20);
        assert_eq!(model.traffic.nodes[0], [0, 10, 10]);
    }

    #[test]
    fn a_lost_packet_and_one_for_which_the_queue_is_full_do_not_arrive() {
        let mut model = Model::new(&[0, 1]);
        model.profile = SLOW;
        assert_eq!(model.send(0.0, 0, 1, 10, 0.4), None);
        assert!(model.send(0.0, 0, 1, 200, 0.9).is_some());
        assert_eq!(
            model.send(0.0, 0, 1, 10, 0.9),
            None,
            "210 ms of waiting are more than the queue's 100"
        );
        assert_eq!(
            model.traffic.regions[0][1], 210,
            "what was dropped before the link did not cross it"
        );
    }

    #[test]
    fn a_way_that_is_cut_is_cut_in_one_direction() {
        let mut model = Model::new(&[0, 1]);
        model.cut[0][1] = true;
        assert_eq!(model.send(0.0, 0, 1, 10, 0.9), None);
        assert!(model.send(0.0, 1, 0, 10, 0.9).is_some());
    }

    #[test]
    fn a_nodes_own_link_limits_it_within_its_region_too() {
        let mut model = Model::new(&[0, 0, 0]);
        model.node_rate = Some(1000.0);
        assert!(close(model.send(0.0, 0, 1, 10, 0.9), 0.02));
        assert!(
            close(model.send(0.0, 0, 2, 10, 0.9), 0.03),
            "sending takes turns, receiving does not"
        );
    }
}
