//! A replica that lost its disk is let in anew, and gets all that it should keep.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;

use super::{Regions, mesh};
use crate::content::{Blob, MIB, manifest};
use crate::formed::Formed;
use crate::network::Profile;
use crate::process;
use crate::registry;
use crate::wan::Found;
use crate::wire::{Request, Sink};

const PROJECT: &str = "filled";
/// The replica that loses its disk.
const EMPTY: usize = 2;
/// The size of a layer.
const LAYER: usize = 64 * MIB;
/// How long the filling may take.
const PATIENCE: Duration = Duration::from_secs(3600);

pub(super) fn run(
    regions: &Regions,
    atoll: &Path,
    profiles: &[Profile],
    found: &mut Found,
) -> Result<()> {
    for profile in profiles {
        // it is filled over the WAN, and before that it does not matter how it got its bytes
        let mesh = mesh(atoll, crate::network::PROFILES[0])?;
        mesh.create_project(PROJECT, 3)?;
        let layers = regions.fill.0.div_ceil(LAYER);
        let pusher = &mut mesh.administrator(0);
        for number in 0..layers {
            crate::stop::check()?;
            let (layer, config) = (Blob::random(LAYER), Blob::config());
            let repository = format!("{PROJECT}/app");
            let manifest = manifest(&config, &[(layer.digest, LAYER)]);
            registry::upload_blob(pusher, &repository, &layer)?;
            registry::upload_blob(pusher, &repository, &config)?;
            registry::put_manifest(pusher, &repository, &format!("v{number}"), &manifest)?;
        }
        mesh.network.profile(*profile);
        mesh.kill(EMPTY)?;
        let (before, begun) = (mesh.network.traffic(), Instant::now());
        mesh.replace(EMPTY, 0)?;
        process::until("the replica has all", PATIENCE, || {
            std::thread::sleep(Duration::from_millis(200));
            Ok(is_whole(&mesh, layers)?.then_some(()))
        })?;
        let (seconds, bytes) = (begun.elapsed().as_secs_f64(), (layers * LAYER) as f64);
        let came: u64 =
            (0..EMPTY).map(|from| mesh.network.traffic().between(from, EMPTY, &before)).sum();
        let name = format!("{}, an empty replica is filled with {}", profile.name, regions.fill);
        found.add(&format!("{name}: from its removal on"), seconds, "s", None);
        found.add(&format!("{name}: rate"), bytes / 1e6 / seconds, "MB/s", None);
        found.add(
            &format!("{name}: bytes that came for a byte kept"),
            came as f64 / bytes,
            "x",
            None,
        );
        eprintln!("loadtest: {name} in {seconds:.0} s");
    }
    Ok(())
}

/// Whether all artifacts are in as many regions as they should be, the filled one among them.
fn is_whole(mesh: &Formed, artifacts: usize) -> Result<bool> {
    let mut said = Vec::new();
    let mut client = mesh.administrator(0).patient_for(Duration::from_secs(30));
    let request = Request::new("GET", "/api/atoll/v1/replication?of=filled&all=true");
    let answer = client.send(&request, &mut Sink::Keep(&mut said))?;
    if answer.status != 200 {
        return Ok(false);
    }
    let told: Value = serde_json::from_slice(&said)?;
    let known = told["of"].as_u64();
    ensure!(known == Some(artifacts as u64), "{known:?} of {artifacts} artifacts are known");
    let everywhere = told["artifacts"]
        .as_array()
        .is_some_and(|all| all.iter().all(|artifact| artifact["replicated"] == 3));
    Ok(told["silent"].as_array().is_some_and(Vec::is_empty) && everywhere)
}
