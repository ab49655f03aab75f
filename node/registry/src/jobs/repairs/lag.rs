//! What regions lack, as the last repairs of this node have found it: blobs and bytes that are known
//! to be missing and are not copied yet.

use std::collections::{BTreeMap, BTreeSet};

use metrics::gauge;
use parking_lot::Mutex;
use rules::words::names::{ProjectName, Region};
use serde_json::{Value, json};

/// What each region lacks: blobs, and their bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lag(BTreeMap<Region, (u64, u64)>);

impl Lag {
    /// A copy of a blob with so many bytes is missing in a region.
    pub(super) fn add(&mut self, region: &Region, size: u64) {
        let (blobs, bytes) = self.0.entry(region.clone()).or_default();
        (*blobs, *bytes) = (*blobs + 1, bytes.saturating_add(size));
    }

    /// It was made.
    pub(super) fn remove(&mut self, region: &Region, size: u64) {
        if let Some((blobs, bytes)) = self.0.get_mut(region) {
            (*blobs, *bytes) = (blobs.saturating_sub(1), bytes.saturating_sub(size));
            if *blobs == 0 {
                self.0.remove(region);
            }
        }
    }

    /// For the progress of a job.
    pub(super) fn show(&self) -> Value {
        let regions = self.0.iter().map(|(region, (blobs, bytes))| {
            (region.to_string(), json!({"blobs": blobs, "bytes": bytes}))
        });
        regions.collect::<serde_json::Map<_, _>>().into()
    }
}

/// The lag of all projects whose primary this node is, as metrics.
#[derive(Default)]
pub(super) struct Lags {
    of: Mutex<BTreeMap<ProjectName, Lag>>,
    /// The regions that have a metric.
    told: Mutex<BTreeSet<Region>>,
}

impl Lags {
    /// What a repair of this project has found, or what is left of that.
    pub(super) fn set(&self, project: &ProjectName, lag: &Lag) {
        self.of.lock().insert(project.clone(), lag.clone());
    }

    /// Forgets projects that are not this node's any more, and sets the metrics.
    pub(super) fn tell(&self, is_mine: impl Fn(&ProjectName) -> bool) {
        let all = {
            let mut of = self.of.lock();
            of.retain(|project, _| is_mine(project));
            sum(of.values())
        };
        let mut told = self.told.lock();
        told.extend(all.0.keys().cloned());
        for region in told.iter() {
            let (blobs, bytes) = all.0.get(region).copied().unwrap_or_default();
            gauge!("atoll_replication_lag_blobs", "region" => region.to_string()).set(blobs as f64);
            gauge!("atoll_replication_lag_bytes", "region" => region.to_string()).set(bytes as f64);
        }
    }
}

fn sum<'a>(all: impl Iterator<Item = &'a Lag>) -> Lag {
    let mut sum = Lag::default();
    for (region, (blobs, bytes)) in all.flat_map(|lag| &lag.0) {
        let (all_blobs, all_bytes) = sum.0.entry(region.clone()).or_default();
        (*all_blobs, *all_bytes) = (*all_blobs + blobs, all_bytes.saturating_add(*bytes));
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_lacks_what_was_found_and_is_not_copied_yet() {
        let [east, west] = ["east", "west"].map(|name| name.parse::<Region>().unwrap());
        let mut lag = Lag::default();
        lag.add(&east, 10);
        lag.add(&east, 5);
        lag.add(&west, 7);
        let shown = json!({
            "east": {"blobs": 2, "bytes": 15}, "west": {"blobs": 1, "bytes": 7},
        });
        assert_eq!(lag.show(), shown);
        lag.remove(&east, 10);
        lag.remove(&west, 7);
        lag.remove(&west, 7);
        assert_eq!(lag.show(), json!({"east": {"blobs": 1, "bytes": 5}}));
        let both = [lag.clone(), lag];
        assert_eq!(sum(both.iter()).show(), json!({"east": {"blobs": 2, "bytes": 10}}));
    }
}
