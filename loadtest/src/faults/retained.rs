//! A repository of which a retention rule keeps the newest tags: somebody pushes one tag after
//! another and has the rule run, while faults befall the mesh.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rules::words::digest::Digest;
use serde_json::{Value, json};

use super::clients::{CLIENT_PATIENCE, RETRY, get};
use super::stage::{PROJECT, Stage, locked};
use super::verdict::READ_WITHIN;
use crate::content::{Blob, manifest};
use crate::formed::Formed;
use crate::registry::{self, manifest_path};
use crate::wire::{Client, Request, Sink};

/// What the rule keeps of each repository.
const RETAINED: usize = 5;
/// Between two pushes.
const PAUSE: Duration = Duration::from_millis(200);
/// The rule runs after so many pushes.
const RUN_AFTER: usize = 4;
const RUNS: &str = "/api/v2.0/retentions/trial/executions";

/// What one trial's pusher knows.
#[derive(Debug)]
pub(crate) struct Retained {
    repository: String,
    /// Tags in the order of their pushes; with the manifest if the push was acknowledged.
    pushed: Mutex<Vec<(String, Option<Digest>)>>,
    /// How often the rule was said to run.
    pub(crate) runs: AtomicUsize,
}

/// Has the trials' project keep the newest tags of the repositories that [`Retained`] uses.
pub(crate) fn keep_the_newest(mesh: &Formed) -> Result<()> {
    let rule = json!({
        "template": "latestPushedK",
        "params": { "latestPushedK": RETAINED },
        "tag_selectors": [{ "decoration": "matches", "pattern": "**" }],
        "scope_selectors": { "repository": [{ "decoration": "repoMatches", "pattern": "retained-*" }] },
    });
    let policy = json!({ "scope": { "level": "project", "ref": PROJECT }, "rules": [rule] });
    mesh.make("/api/v2.0/retentions", &policy).map(drop)
}

impl Retained {
    pub(crate) fn new(seed: u64) -> Self {
        Retained {
            repository: format!("{PROJECT}/retained-{seed:x}-{:04x}", rand::random::<u16>()),
            pushed: Mutex::default(),
            runs: AtomicUsize::new(0),
        }
    }

    /// Pushes and has the rule run, at whichever node, until `over`.
    pub(crate) fn work(&self, stage: &Stage, seed: u64, over: &AtomicBool) {
        let dice = &mut StdRng::seed_from_u64(seed);
        while !over.load(Ordering::Relaxed) {
            let at = dice.random_range(0..stage.replicas());
            let mut client = stage.mesh.administrator(at).patient_for(CLIENT_PATIENCE);
            let well = self.push(&mut client).is_ok();
            if locked(&self.pushed).len().is_multiple_of(RUN_AFTER) && run(&mut client).is_ok() {
                self.runs.fetch_add(1, Ordering::Relaxed);
            }
            sleep(if well { PAUSE } else { RETRY });
        }
    }

    fn push(&self, client: &mut Client) -> Result<()> {
        let (layer, config) = (Blob::random(2048), Blob::config());
        let whole = manifest(&config, &[(layer.digest, layer.bytes.len())]);
        let tag = format!("k{}", locked(&self.pushed).len());
        locked(&self.pushed).push((tag.clone(), None));
        registry::upload_blob(client, &self.repository, &layer)?;
        registry::upload_blob(client, &self.repository, &config)?;
        registry::put_manifest(client, &self.repository, &tag, &whole)?;
        if let Some((_, acknowledged)) = locked(&self.pushed).last_mut() {
            *acknowledged = Some(whole.digest);
        }
        Ok(())
    }

    /// When the mesh has healed: pushes as many as are retained, and has the rule run to its end. Then
    /// exactly these are there, at every node. What is not so. `clocks` says that clocks were wrong:
    /// nothing is deleted by a clock that is behind what was recorded.
    ///
    /// # Errors
    /// If a mesh that is whole refuses pushes or a run for a minute.
    pub(crate) fn afterwards(&self, stage: &Stage, clocks: bool) -> Result<Vec<String>> {
        let mut client = stage.mesh.administrator(0).patient_for(CLIENT_PATIENCE);
        // as everywhere else: for a while a node may say that it cannot. Of one that failed it is not
        // known whether it is there, so all that are retained come after it
        let (mut in_a_row, mut refused) = (0, None);
        let pushed = crate::process::until("as many pushes as are retained", READ_WITHIN, || {
            match self.push(&mut client) {
                Ok(()) => in_a_row += 1,
                Err(error) => {
                    eprintln!("loadtest: after the faults: {error:#}");
                    (in_a_row, refused) = (0, Some(error));
                    client = stage.mesh.administrator(0).patient_for(CLIENT_PATIENCE);
                    sleep(RETRY);
                }
            }
            Ok((in_a_row == RETAINED).then_some(()))
        });
        if let (Err(late), Some(error)) = (pushed, refused) {
            return Err(error.context(late));
        }
        // the newest in the list may be one that a clock that was ahead has dated
        // for a while a node may say that it cannot
        let place = crate::process::until("a run of the retention begins", READ_WITHIN, || {
            Ok(run(&mut client).ok())
        })?;
        let ended = crate::process::until("the retention has run", crate::mesh::PATIENCE, || {
            let run = the_run(&mut client, &place)?;
            Ok(run.filter(|run| !matches!(run["status"].as_str(), Some("Running" | "Pending"))))
        })?;
        let mut wrong = Vec::new();
        let refused = clocks && ended["result"].as_str().is_some_and(|why| why.contains("clock"));
        if ended["status"] != "Success" && !refused {
            wrong.push(format!("the retention ended so: {ended}"));
        }
        for at in 0..stage.nodes() {
            let mut client = stage.mesh.administrator(at).patient_for(CLIENT_PATIENCE);
            let pushed = locked(&self.pushed);
            let newest = pushed.len() - RETAINED;
            for (number, (tag, digest)) in pushed.iter().enumerate() {
                let path = manifest_path(&self.repository, tag);
                // as everywhere else: for a while an edge may not be able to say
                let mut found = None;
                let _ = crate::process::until("an answer that says something", READ_WITHIN, || {
                    found = get(&mut client, &path);
                    Ok(found.filter(|(status, _)| matches!(status, 200 | 404)))
                });
                crate::stop::check()?;
                let right = match found {
                    Some((200, found)) if number >= newest => Some(found) == *digest,
                    Some((404, _)) => number < newest,
                    Some((200, _)) if refused => true,
                    _ => false,
                };
                if !right {
                    wrong.push(format!(
                        "node-{at}: {path}, number {number} of {}: {found:?}",
                        pushed.len()
                    ));
                }
            }
        }
        Ok(wrong)
    }
}

/// Has the rule run; where that is told of.
fn run(client: &mut Client) -> Result<String> {
    let body: [&[u8]; 1] = [br#"{"dry_run": false}"#];
    let headers = [("Content-Type", "application/json")];
    let request = Request::new("POST", RUNS).headers(&headers).body(&body);
    let answer = client.send(&request, &mut Sink::Discard)?;
    ensure!(answer.status == 201, "a run of the retention: {}", answer.status);
    answer.location.context("a run of the retention has no Location")
}

/// The run that was told of; `None` if the node cannot say now.
fn the_run(client: &mut Client, place: &str) -> Result<Option<Value>> {
    let mut body = Vec::new();
    let path = format!("{RUNS}?page_size=100");
    let list = Request::new("GET", &path);
    let answer = client.send(&list, &mut Sink::Keep(&mut body))?;
    if answer.status == 503 {
        return Ok(None);
    }
    ensure!(answer.status == 200, "runs of the retention: {}", answer.status);
    let runs: Vec<Value> = serde_json::from_slice(&body)?;
    let number: u64 = place.rsplit('/').next().unwrap_or_default().parse()?;
    let run = runs.into_iter().find(|run| run["id"] == number);
    run.with_context(|| format!("{place} is not in the list of runs")).map(Some)
}
