//! A cold pull through one hop of the mesh against going to the holding node directly, over HTTPS
//! and the same WAN.

use anyhow::Result;
use serde_json::json;

use super::pull::{Pulled, Way, must_pull};
use super::{Found, Mark, Wan};
use crate::figures::{Spread, plain};
use crate::formed::{Formed, Site};
use crate::network::Profile;
use crate::report::{Report, Table};

/// The node that holds what is pulled, the one that clients ask, and the edge in the same region.
const HOLDER: usize = 0;
const NEAR: usize = 1;
const THERE_AND_NEAR: [usize; 2] = [HOLDER, NEAR];

/// One profile and size.
struct Case {
    profile: Profile,
    size: usize,
    mesh: Vec<Pulled>,
    /// By congestion control of TCP: Linux's default first.
    direct: [Vec<Pulled>; 2],
}

const CONTROLS: [&str; 2] = ["cubic", "bbr"];

pub(super) fn run(
    wan: &Wan,
    atoll: &std::path::Path,
    report: &mut Report,
    found: &mut Found,
) -> Result<()> {
    let mesh =
        Formed::of(atoll, &[Site::replica(0), Site::replica(1), Site::replica(2)], true, "")?;
    mesh.create_project("bench", 1)?;
    let mut cases = Vec::new();
    for profile in wan.profiles() {
        mesh.network.profile(profile);
        for size in [1_000_000, wan.large(&profile)] {
            let rounds = if size > 1_000_000 { wan.rounds } else { wan.rounds * 3 };
            let mut case =
                Case { profile, size, mesh: Vec::new(), direct: [Vec::new(), Vec::new()] };
            for round in 0..rounds {
                case.round(&mesh, round)?;
            }
            eprintln!("loadtest: {} {:.0} MB done", profile.name, size as f64 / 1e6);
            cases.push(case);
        }
    }
    report.heading("One hop: cold through the mesh, and directly from the node that holds it");
    report.say(
        "Median (least - greatest) in ms, from before the connection was opened, over HTTPS and a fresh connection each time. Mesh: the \
         client asks the node beside it, which fetches over the WAN by a link that is open. Direct: the same client asks the node that \
         holds the bytes, over the same WAN; with TCP's CUBIC (Linux's default), and with BBR.",
    );
    let mut table = Table::new(&["WAN", "MB", "what", "first byte ms", "total ms", "MB/s"]);
    for case in &cases {
        case.rows(&mut table);
        case.judge(found);
    }
    report.table(&table);
    report.record("hop", cases.iter().map(Case::json).collect());
    Ok(())
}

impl Case {
    fn round(&mut self, mesh: &Formed, round: u16) -> Result<()> {
        let layer = mesh.push("bench/hop", self.size, &THERE_AND_NEAR)?;
        let digest = &layer.digest;
        let direct = Way { beside: NEAR, to: HOLDER };
        let mut turns = [0, 1, 2];
        turns.rotate_left(usize::from(round % 3));
        for turn in turns {
            if let Some(control) = CONTROLS.get(turn) {
                mesh.network.congestion(control)?;
                self.direct[turn].push(must_pull(mesh, direct, "bench/hop", digest)?);
            } else {
                self.mesh.push(must_pull(mesh, Way::at(NEAR), "bench/hop", digest)?);
            }
        }
        Ok(())
    }

    fn rows(&self, table: &mut Table) {
        let kinds = [
            ("mesh", &self.mesh),
            ("direct, cubic", &self.direct[0]),
            ("direct, bbr", &self.direct[1]),
        ];
        for (name, pulls) in kinds {
            let show = |of: fn(&Pulled) -> f64| {
                spread(pulls, of).map_or_else(String::new, |spread| spread.to_string())
            };
            let rate = spread(pulls, |one| one.total_ms)
                .map(|total| self.size as f64 / 1e3 / total.median);
            table.row(vec![
                self.profile.name.to_owned(),
                plain(self.size as f64 / 1e6),
                name.to_owned(),
                show(|one| one.first_ms),
                show(|one| one.total_ms),
                rate.map_or_else(String::new, plain),
            ]);
        }
    }

    fn judge(&self, found: &mut Found) {
        let at = |pulls: &[Pulled], of: fn(&Pulled) -> f64| {
            spread(pulls, of).map_or(f64::NAN, |spread| spread.median)
        };
        let first: fn(&Pulled) -> f64 = |one| one.first_ms;
        let total: fn(&Pulled) -> f64 = |one| one.total_ms;
        let name = self.profile.name;
        let size = format!("{:.0} MB", self.size as f64 / 1e6);
        let far = !self.profile.round_trip.is_zero();
        for (direct, control) in self.direct.iter().zip(CONTROLS) {
            let ratio = at(&self.mesh, first) / at(direct, first);
            let mark = far.then_some(Mark::AtMost(0.5, 0.4));
            found.add(
                &format!("1a: first byte, {size}, {name}, against direct ({control})"),
                ratio,
                "x",
                mark,
            );
            if self.size <= 1_000_000 {
                continue;
            }
            let ratio = at(&self.mesh, total) / at(direct, total);
            found.add(
                &format!("1b: total, {size}, {name}, against direct ({control})"),
                ratio,
                "x",
                Some(Mark::AtMost(1.10, 1.03)),
            );
            let mark = Mark::AtLeast(0.9, if name == "R3" { 1.2 } else { 1.0 });
            found.add(
                &format!("4b: rate, {name}, against TLS over TCP ({control})"),
                1.0 / ratio,
                "x",
                Some(mark),
            );
        }
        if !far {
            let added = at(&self.mesh, first) - at(&self.direct[0], first);
            found.add(
                &format!("1a: first byte, {size}, LAN, added"),
                added,
                "ms",
                Some(Mark::AtMost(3.0, 3.0)),
            );
        }
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "wan": self.profile.name, "bytes": self.size, "mesh": self.mesh,
            "direct_cubic": self.direct[0], "direct_bbr": self.direct[1],
        })
    }
}

fn spread(pulls: &[Pulled], of: fn(&Pulled) -> f64) -> Option<Spread> {
    Spread::of(pulls.iter().map(|one| Some(of(one))))
}
