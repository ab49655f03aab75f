//! The ratios of `goals.md` that `serve` and `door` can judge, and the judging.
//!
//! A floor must hold with access checks, log and metrics on; a goal is where we are going. Neither
//! makes a run fail.

use std::fmt;

use serde::Serialize;

use crate::figures::{plain, ratio};
use crate::operations::Operation;
use crate::peers::Role;

/// A figure that two servers are compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Figure {
    /// Microseconds of the server's CPU for a request.
    CpuUsPerRequest,
    /// CPU-seconds of the server for a billion bytes.
    CpuSPerGb,
    /// Million bytes a second.
    MbPerSecond,
    /// Requests a second.
    RequestsPerSecond,
    /// Milliseconds that all but one in a hundred pulls did not exceed.
    PullP99Ms,
}

impl Figure {
    /// Whether less of it is better.
    pub(crate) fn is_cost(self) -> bool {
        matches!(self, Figure::CpuUsPerRequest | Figure::CpuSPerGb | Figure::PullP99Ms)
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Figure::CpuUsPerRequest => "CPU us/request",
            Figure::CpuSPerGb => "CPU-s/GB",
            Figure::MbPerSecond => "MB/s",
            Figure::RequestsPerSecond => "requests/s",
            Figure::PullP99Ms => "p99 of pulls",
        })
    }
}

/// What a ratio is taken against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Against {
    /// The reference registry.
    Distribution,
    /// The better of all registries of the run, if there is one beside the reference.
    BestRegistry,
    /// The same files behind a web server.
    Files,
}

impl Against {
    /// What a single peer is measured as.
    pub(crate) fn role(role: Role) -> Option<Self> {
        match role {
            Role::Distribution => Some(Against::Distribution),
            Role::Files => Some(Against::Files),
            Role::Atoll | Role::Registry => None,
        }
    }
}

/// A ratio to keep and one to reach.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Goal {
    /// A condition that must hold.
    pub(crate) floor: f64,
    /// Where we are going.
    pub(crate) goal: f64,
}

/// The figures that an operation is compared by, the weightiest first.
pub(crate) fn figures(operation: Operation) -> &'static [Figure] {
    match operation {
        Operation::BlobLarge | Operation::UploadLarge | Operation::UploadLargeFour => {
            &[Figure::CpuSPerGb, Figure::MbPerSecond]
        }
        Operation::BlobSmall => &[Figure::CpuUsPerRequest, Figure::MbPerSecond],
        Operation::UploadSmallFour => &[Figure::RequestsPerSecond, Figure::CpuSPerGb],
        _ => &[Figure::CpuUsPerRequest, Figure::RequestsPerSecond],
    }
}

/// What `goals.md` says about a figure of an operation, if it says anything.
pub(crate) fn goal(operation: Operation, figure: Figure, against: Against) -> Option<Goal> {
    use Against::{BestRegistry, Distribution, Files};
    use Figure::{CpuSPerGb, CpuUsPerRequest, MbPerSecond, RequestsPerSecond};
    use Operation as Op;
    let (floor, goal) = match (operation, figure, against) {
        (Op::BlobLarge, CpuSPerGb, Distribution) => (0.55, 0.40),
        (Op::BlobLarge, CpuSPerGb, BestRegistry) => (0.60, 0.40),
        (Op::BlobLarge, CpuSPerGb, Files) => (1.0, 0.80),
        (Op::BlobLarge, MbPerSecond, Distribution | BestRegistry) => (1.2, 1.4),
        (Op::BlobLarge, MbPerSecond, Files) => (0.9, 1.0),
        (Op::BlobSmall, CpuUsPerRequest, Distribution) => (0.25, 0.15),
        (Op::BlobSmall, CpuUsPerRequest, BestRegistry) => (0.60, 0.40),
        (Op::BlobSmall, CpuUsPerRequest, Files) => (1.2, 0.8),
        (Op::ManifestTag | Op::ManifestDigest, CpuUsPerRequest, Distribution) => {
            (1.0 / 4.0, 1.0 / 7.0)
        }
        (Op::ManifestTag | Op::ManifestDigest, CpuUsPerRequest, BestRegistry) => (0.70, 0.45),
        (Op::ManifestTag | Op::ManifestDigest, CpuUsPerRequest, Files) => (1.5, 0.8),
        (Op::ManifestHead, CpuUsPerRequest, Distribution) => (1.0 / 4.0, 1.0 / 6.0),
        (Op::ManifestHead, CpuUsPerRequest, BestRegistry) => (0.75, 0.50),
        (Op::ManifestHead, CpuUsPerRequest, Files) => (2.0, 1.3),
        (Op::UploadLarge | Op::UploadLargeFour, MbPerSecond, Distribution) => (1.4, 1.8),
        (Op::UploadLarge | Op::UploadLargeFour, MbPerSecond, BestRegistry) => (1.2, 1.6),
        (
            Op::UploadLarge | Op::UploadLargeFour | Op::UploadSmallFour,
            CpuSPerGb,
            Distribution | BestRegistry,
        ) => (1.0, 0.8),
        (Op::UploadSmallFour, RequestsPerSecond, Distribution) => (2.5, 4.0),
        (Op::UploadSmallFour, RequestsPerSecond, BestRegistry) => (1.3, 2.0),
        (Op::Mount, CpuUsPerRequest, Distribution) => (1.0 / 3.0, 1.0 / 5.0),
        _ => return None,
    };
    Some(Goal { floor, goal })
}

/// How much longer pulls may take beside an attack than beside none.
pub(crate) fn beside_an_attack() -> Goal {
    Goal { floor: 2.0, goal: 2.0 }
}

/// How a ratio stands to its goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// The goal is met.
    Goal,
    /// The floor is met.
    Floor,
    /// Not even the floor is.
    Missed,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Goal => "met (goal)",
            Verdict::Floor => "met (floor)",
            Verdict::Missed => "**missed**",
        })
    }
}

/// Our figure beside a peer's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Judged {
    /// What is compared.
    pub(crate) figure: Figure,
    /// With whom.
    pub(crate) against: String,
    /// Ours divided by theirs.
    pub(crate) ratio: Option<f64>,
    /// What it should be.
    pub(crate) goal: Option<Goal>,
    /// Whether it is.
    pub(crate) verdict: Option<Verdict>,
}

impl Judged {
    /// Compares two medians.
    pub(crate) fn of(
        figure: Figure,
        against: String,
        ours: f64,
        theirs: f64,
        goal: Option<Goal>,
    ) -> Self {
        let ratio = ratio(ours, theirs);
        let verdict = ratio.zip(goal).map(|(ratio, goal)| verdict(figure, ratio, goal));
        Judged { figure, against, ratio, goal, verdict }
    }

    /// As a row: figure, peer, ratio, floor, goal, verdict.
    pub(crate) fn row(&self) -> Vec<String> {
        let none = || "-".to_owned();
        let times = |value: f64| format!("{}x", plain(value));
        vec![
            self.figure.to_string(),
            self.against.clone(),
            self.ratio.map_or_else(none, times),
            self.goal.map_or_else(none, |goal| times(goal.floor)),
            self.goal.map_or_else(none, |goal| times(goal.goal)),
            self.verdict.map_or_else(none, |verdict| verdict.to_string()),
        ]
    }
}

fn verdict(figure: Figure, ratio: f64, goal: Goal) -> Verdict {
    let reaches = |mark: f64| if figure.is_cost() { ratio <= mark } else { ratio >= mark };
    if reaches(goal.goal) {
        Verdict::Goal
    } else if reaches(goal.floor) {
        Verdict::Floor
    } else {
        Verdict::Missed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_must_stay_below_and_a_speed_above() {
        let (cost, speed) = (Figure::CpuSPerGb, Figure::MbPerSecond);
        let (low, high) = (Goal { floor: 0.5, goal: 0.4 }, Goal { floor: 1.2, goal: 1.4 });
        let judged = [0.4, 0.5, 0.51].map(|ratio| verdict(cost, ratio, low));
        assert_eq!(judged, [Verdict::Goal, Verdict::Floor, Verdict::Missed]);
        let judged = [1.4, 1.2, 1.19].map(|ratio| verdict(speed, ratio, high));
        assert_eq!(judged, [Verdict::Goal, Verdict::Floor, Verdict::Missed]);
    }

    #[test]
    fn every_goal_is_stricter_than_its_floor() {
        for operation in Operation::all() {
            for figure in figures(*operation) {
                for against in [Against::Distribution, Against::BestRegistry, Against::Files] {
                    if let Some(Goal { floor, goal }) = goal(*operation, *figure, against) {
                        assert_eq!(goal < floor, figure.is_cost(), "{operation:?} {figure}");
                    }
                }
            }
        }
    }

    #[test]
    fn without_a_goal_there_is_a_ratio_but_no_verdict() {
        let judged = Judged::of(Figure::MbPerSecond, "zot".into(), 3.0, 2.0, None);
        assert_eq!((judged.ratio, judged.verdict), (Some(1.5), None));
        assert_eq!(judged.row(), ["MB/s", "zot", "1.50x", "-", "-", "-"]);
        let nothing = Judged::of(
            Figure::MbPerSecond,
            "zot".into(),
            3.0,
            0.0,
            Some(Goal { floor: 1.0, goal: 2.0 }),
        );
        assert_eq!((nothing.ratio, nothing.verdict), (None, None));
    }
}
