//! `loadtest wan`: what the mesh makes of wide area networks, beside TLS over TCP through the very
//! same ones.

mod fair;
mod faults;
mod hop;
mod pull;
mod spread;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::figures::plain;
use crate::network::{PROFILES, Profile};
use crate::report::{Report, Table};
use crate::size::Size;
use crate::tools;

/// What to measure. Needs root, `iproute2` and `util-linux`.
#[derive(Args, Debug)]
pub(crate) struct Wan {
    /// The atoll binary; without it the one beside loadtest
    #[arg(long, value_name = "PATH")]
    atoll: Option<PathBuf>,
    /// Rounds of each pull through one hop
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// The size of a large layer; over R3 a sixth of it
    #[arg(long, default_value = "100MB")]
    size: Size,
    /// What each node's link carries in a second where the links of nodes are limited
    #[arg(long, default_value = "10MB")]
    link: Size,
    /// Only these parts
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Only these WANs in `hop` and `fair`, by name
    #[arg(long, value_delimiter = ',')]
    over: Vec<String>,
}

/// The parts of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Cold through one hop against directly from the holder
    Hop,
    /// A TCP connection beside a pull through the mesh
    Fair,
    /// Three regions of four nodes, all pulling at once
    Regions,
    /// Eight and sixteen nodes of a region, all pulling at once over limited links
    Fanout,
    /// Sources that die or lie, slow clients, everything down
    Faults,
}

impl Wan {
    /// Measures and writes `wan.json` and `wan.md`, also what was found before a part failed.
    pub(crate) fn run(&self, out: &Path) -> Result<()> {
        let mut report = Report::new("wan", "The mesh over wide area networks");
        let atoll = tools::atoll(self.atoll.as_deref())?;
        report.server(
            "atoll",
            &format!("{}; a network namespace for each node", tools::version(&atoll)),
        );
        let mut found = Found::default();
        let measured = self.parts(&atoll, &mut report, &mut found);
        found.write(&mut report);
        if let Err(error) = &measured {
            report.say(&format!("**The run failed and is not whole:** {error:#}"));
        }
        report.write(out)?;
        measured
    }

    fn parts(&self, atoll: &Path, report: &mut Report, found: &mut Found) -> Result<()> {
        let wanted = |part| self.only.is_empty() || self.only.contains(&part);
        if wanted(Part::Hop) {
            hop::run(self, atoll, report, found)?;
        }
        if wanted(Part::Fair) {
            fair::run(self, atoll, report, found)?;
        }
        if wanted(Part::Regions) {
            spread::regions(self, atoll, report, found)?;
        }
        if wanted(Part::Fanout) {
            spread::fanout(self, atoll, report, found)?;
        }
        if wanted(Part::Faults) {
            faults::run(self, atoll, report, found)?;
        }
        Ok(())
    }

    fn profiles(&self) -> Vec<Profile> {
        let wanted = |profile: &Profile| {
            self.over.is_empty() || self.over.iter().any(|name| *name == profile.name)
        };
        PROFILES.into_iter().filter(wanted).collect()
    }

    /// A large layer for a WAN: TCP's CUBIC gets some 0.2 MB/s through R3, so that one is smaller
    /// there.
    fn large(&self, profile: &Profile) -> usize {
        if profile.loss >= 0.01 { self.size.0 / 6 } else { self.size.0 }
    }
}

/// What a figure should be: first what must hold, then where we are going.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mark {
    /// It is a cost.
    AtMost(f64, f64),
    /// It is a gain.
    AtLeast(f64, f64),
}

impl Mark {
    /// How a figure stands to it, in the words of the other reports.
    fn verdict(self, value: f64) -> &'static str {
        let reaches = |mark: f64| match self {
            Mark::AtMost(..) => value <= mark,
            Mark::AtLeast(..) => value >= mark,
        };
        let (Mark::AtMost(goal, stretch) | Mark::AtLeast(goal, stretch)) = self;
        match (reaches(stretch), reaches(goal)) {
            (true, _) => "met (stretch)",
            (_, true) => "met",
            _ => "**missed**",
        }
    }
}

/// Figures beside their goals, in the order they were found.
#[derive(Debug, Default)]
pub(crate) struct Found(Vec<(String, f64, &'static str, Option<Mark>)>);

impl Found {
    /// One more figure.
    pub(crate) fn add(&mut self, name: &str, value: f64, unit: &'static str, mark: Option<Mark>) {
        self.0.push((name.to_owned(), value, unit, mark));
    }

    /// All of them as a table, and for programs as `figures`.
    pub(crate) fn write(&self, report: &mut Report) {
        report.heading("Figures and goals");
        let mut table = Table::new(&["figure", "found", "goal", "stretch", "verdict"]);
        let mut all = Vec::new();
        for (name, value, unit, mark) in &self.0 {
            let show = |value: f64| {
                format!(
                    "{}{}{unit}",
                    plain(value),
                    if matches!(*unit, "" | "x") { "" } else { " " }
                )
            };
            let none = || "-".to_owned();
            let (goal, stretch) = match mark {
                Some(Mark::AtMost(goal, stretch)) => {
                    (format!("<= {}", show(*goal)), format!("<= {}", show(*stretch)))
                }
                Some(Mark::AtLeast(goal, stretch)) => {
                    (format!(">= {}", show(*goal)), format!(">= {}", show(*stretch)))
                }
                None => (none(), none()),
            };
            let verdict = mark.map(|mark| mark.verdict(*value));
            table.row(vec![
                name.clone(),
                show(*value),
                goal,
                stretch,
                verdict.unwrap_or("-").to_owned(),
            ]);
            all.push(json!({ "figure": name, "value": value, "unit": unit, "verdict": verdict.map(|word| word.replace('*', "")) }));
        }
        report.table(&table);
        report.record("figures", all.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_met_below_its_mark_and_a_gain_above() {
        let cost = Mark::AtMost(0.5, 0.4);
        assert_eq!(
            [0.4, 0.5, 0.51].map(|value| cost.verdict(value)),
            ["met (stretch)", "met", "**missed**"]
        );
        let gain = Mark::AtLeast(0.9, 1.2);
        assert_eq!(
            [1.2, 0.9, 0.89].map(|value| gain.verdict(value)),
            ["met (stretch)", "met", "**missed**"]
        );
        assert_eq!(cost.verdict(f64::NAN), "**missed**", "what was not found is not met");
    }
}
