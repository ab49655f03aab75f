//! `kill -9` of a node that is primary of many projects: how long until each of them takes a push
//! again, at another node.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;

use super::{Regions, Tiny, ensure_all, mesh, primary_of};
use crate::figures::{plain, quantile};
use crate::formed::Formed;
use crate::mesh::PATIENCE;
use crate::network::Profile;
use crate::process;
use crate::report::{Report, Table};
use crate::wan::{Found, Mark};

/// The node that is killed. The others push.
const VICTIM: usize = 0;
/// Clients that push at a time.
const CLIENTS: usize = 32;
/// How long one request of a client may hang before it tries again.
const CLIENT_PATIENCE: Duration = Duration::from_secs(15);
/// Between two tries of a client.
const RETRY: Duration = Duration::from_millis(20);
/// How long primaries may take to come home.
const HOME: Duration = Duration::from_secs(600);

pub(super) fn run(
    regions: &Regions,
    atoll: &Path,
    far: Profile,
    report: &mut Report,
    found: &mut Found,
) -> Result<()> {
    let mut table = Table::new(&["projects", "kill", "p50", "p99", "last", "never"]);
    let mut all = Vec::new();
    for count in &regions.projects {
        let mesh = mesh(atoll, far)?;
        let image = Tiny::random();
        let names: Vec<String> = (0..*count).map(|number| format!("p{number}")).collect();
        prepare(&mesh, &names, &image)?;
        let mut times = Vec::new();
        let mut never = 0;
        for kill in 0..regions.kills {
            process::until("the projects are home", HOME, || {
                let status = mesh.status(VICTIM).ok();
                let home = status.map_or(0, |status| primary_of(&status, "node-0").count());
                Ok((home >= *count).then_some(()))
            })?;
            let mut took = trial(&mesh, &names, &image, kill)?;
            mesh.start(VICTIM)?;
            never += count - took.len();
            took.sort_by(f64::total_cmp);
            let told = |q| {
                quantile(&took, q).map_or_else(|| "-".to_owned(), |s| format!("{} s", plain(s)))
            };
            eprintln!("loadtest: {count} projects, kill {}: last after {}", kill + 1, told(1.0));
            table.row(vec![
                count.to_string(),
                (kill + 1).to_string(),
                told(0.5),
                told(0.99),
                told(1.0),
                (count - took.len()).to_string(),
            ]);
            all.push(json!({"projects": count, "kill": kill + 1, "seconds": took}));
            times.extend(took);
        }
        times.sort_by(f64::total_cmp);
        let name = format!("{}, {count} projects on the node that is killed", far.name);
        let told = |q| quantile(&times, q).unwrap_or(f64::NAN);
        let (half, most) = if *count >= 100 { (None, 6.0) } else { (Some(3.5), 5.0) };
        let half = half.map(|goal| Mark::AtMost(goal, goal));
        found.add(&format!("{name}: RTO p50"), told(0.5), "s", half);
        found.add(&format!("{name}: RTO p99"), told(0.99), "s", Some(Mark::AtMost(most, 3.0)));
        found.add(&format!("{name}: RTO longest"), told(1.0), "s", None);
        found.add(
            &format!("{name}: never acknowledged"),
            never as f64,
            "",
            Some(Mark::AtMost(0.0, 0.0)),
        );
    }
    report.heading("From the kill to the next acknowledged push of each project");
    report.table(&table);
    report.record("primaries", all.into());
    Ok(())
}

/// Makes the projects at the node that will be killed, which is their home then, with an image.
fn prepare(mesh: &Formed, names: &[String], image: &Tiny) -> Result<()> {
    each(names, |_, name| {
        mesh.create_project(name, 2)?;
        image.push(&mut mesh.administrator(VICTIM), &format!("{name}/app"), "first")?;
        Ok(Some(()))
    })
    .map(drop)
}

/// Kills, and pushes to every project until it is acknowledged; how long each took since the kill.
fn trial(mesh: &Formed, names: &[String], image: &Tiny, kill: usize) -> Result<Vec<f64>> {
    mesh.kill(VICTIM)?;
    let (begun, tag) = (Instant::now(), format!("k{kill}"));
    each(names, |number, name| {
        let at = 1 + number % 2;
        let repository = format!("{name}/app");
        while begun.elapsed() < PATIENCE {
            let client = &mut mesh.administrator(at).patient_for(CLIENT_PATIENCE);
            if image.tag(client, &repository, &tag).is_ok() {
                return Ok(Some(begun.elapsed().as_secs_f64()));
            }
            std::thread::sleep(RETRY);
        }
        Ok(None)
    })
}

/// Does this for every project, some at a time.
fn each<T: Send>(
    names: &[String],
    work: impl Fn(usize, &str) -> Result<Option<T>> + Sync,
) -> Result<Vec<T>> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let worker = || -> Result<()> {
        loop {
            crate::stop::check()?;
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(name) = names.get(number) else { return Ok(()) };
            let result = work(number, name).with_context(|| format!("project {name}"))?;
            done.lock().unwrap_or_else(|broken| broken.into_inner()).extend(result);
        }
    };
    let ended = std::thread::scope(|scope| {
        let all: Vec<_> = (0..CLIENTS.min(names.len())).map(|_| scope.spawn(worker)).collect();
        all.into_iter()
            .map(|one| one.join().unwrap_or_else(|_| anyhow::bail!("a client panicked")))
            .collect()
    });
    ensure_all(ended)?;
    Ok(done.into_inner().unwrap_or_else(|broken| broken.into_inner()))
}
