//! What must be true when the faults of a trial have ended.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rules::words::digest::Digest;
use serde_json::{Value, json};

use super::clients::{Clients, Pushed, get};
use super::stage::{PROJECT, Stage, locked};
use crate::formed::BEGINS;
use crate::mesh::{PATIENCE, alive_in};
use crate::registry::{blob_path, manifest_path};
use crate::wire::{Request, Sink};
use crate::{process, stop};

/// How long a mesh may take to get over what befell it. It is no figure: beyond it somebody must
/// come and help.
const HEALED_WITHIN: Duration = Duration::from_secs(180);
/// How long disks may have what nothing refers to any more. Uploads that broke off expire meanwhile.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);
/// How long what is held somewhere may be answered with 503 after that.
pub(crate) const READ_WITHIN: Duration = Duration::from_secs(60);

/// How long it took until all nodes were ready, saw each other and had the same records; or what
/// was still missing.
pub(crate) fn healed(stage: &Stage) -> Result<Result<Duration, String>> {
    let begun = Instant::now();
    let mut missing = String::new();
    let healed = process::until("the mesh has healed", HEALED_WITHIN, || {
        missing = what_is_missing(stage).err().unwrap_or_default();
        Ok(missing.is_empty().then(|| begun.elapsed()))
    });
    stop::check()?;
    Ok(healed.map_err(|_| format!("it did not heal: {missing}")))
}

fn what_is_missing(stage: &Stage) -> Result<(), String> {
    let mut records = Vec::new();
    let mut primaries = Vec::new();
    for at in 0..stage.nodes() {
        if stage.mesh.ended(at).is_some() {
            return Err(format!("node-{at} does not run"));
        }
        if !stage.mesh.is_ready(at) {
            return Err(format!("node-{at} is not ready"));
        }
        if at >= stage.replicas() {
            continue; // an edge has no records
        }
        let status = stage.mesh.status(at).map_err(|error| format!("node-{at}: {error:#}"))?;
        if alive_in(&status) != stage.nodes() {
            return Err(format!("node-{at} does not see all others: {}", status["nodes"]));
        }
        let mine = &status["ledger"]["records"];
        if mine["same"] == false
            || mine["differ_from"].as_array().is_some_and(|all| !all.is_empty())
        {
            return Err(format!("node-{at} differs: {mine}"));
        }
        records.push((mine["revision"].clone(), mine["fingerprint"].clone()));
        let projects = status["projects"].as_array().cloned().unwrap_or_default();
        let project = projects.iter().find(|project| project["name"] == PROJECT);
        primaries.push(project.map(|project| project["primary"].clone()));
    }
    if records.iter().any(|one| *one != records[0]) {
        return Err(format!("their records are not the same: {records:?}"));
    }
    if primaries.iter().any(|one| *one != primaries[0] || one.is_none()) {
        return Err(format!("they name different primaries: {primaries:?}"));
    }
    Ok(())
}

/// Reads everything back at every node; what is not as it was promised.
pub(crate) fn broken_promises(stage: &Stage, clients: &Clients) -> Result<Vec<String>> {
    let mut broken = Vec::new();
    for at in 0..stage.nodes() {
        let mut client = stage.mesh.administrator(at);
        for tag in clients.histories.tags() {
            let read = process::until("a tag is read", READ_WITHIN, || {
                Ok(clients.read(&mut client, &tag).then_some(()))
            });
            stop::check()?;
            if let Err(error) = read {
                broken.push(format!("node-{at}, {tag}: {error:#}"));
            }
        }
        // what a replica says first counts; an edge may not have heard yet
        let waits = at >= stage.replicas();
        let mut settled = |path: &str, right: &dyn Fn((u16, Digest)) -> bool| {
            let mut last = None;
            let answer = process::until("an answer that says something", READ_WITHIN, || {
                last = get(&mut client, path);
                let says = |answer: &(u16, Digest)| {
                    right(*answer) || (!waits && matches!(answer.0, 200 | 404))
                };
                Ok(last.filter(says))
            });
            stop::check()?;
            anyhow::Ok(answer.ok().or(last).map(|answer| (right(answer), answer)))
        };
        for Pushed { tag, manifest, blobs } in &*locked(&clients.pushed) {
            let repository = &clients.repository;
            let mut paths = vec![
                (manifest_path(repository, tag), *manifest),
                (manifest_path(repository, &manifest.to_string()), *manifest),
            ];
            paths.extend(blobs.iter().map(|blob| (blob_path(repository, blob), *blob)));
            for (path, digest) in paths {
                let answer = settled(&path, &|answer| answer == (200, digest))?;
                if !answer.is_some_and(|(right, _)| right) {
                    broken.push(format!("node-{at}: {path} was acknowledged; now {answer:?}"));
                }
            }
        }
        for image in &*locked(&clients.deleted) {
            let path = manifest_path(&clients.repository, &image.manifest.to_string());
            let answer = settled(&path, &|(status, _)| status == 404)?;
            if !answer.is_some_and(|(right, _)| right) {
                broken.push(format!("node-{at}: {path} was deleted; now {answer:?}"));
            }
        }
    }
    broken.extend(clients.histories.violations());
    broken.append(&mut locked(&clients.violations));
    Ok(broken)
}

/// Places of a node's inventory that are zero when nothing dead is left and nothing live is lost.
const NOTHING: [&str; 5] = [
    "/kept_because/unexplained/count",
    "/stray_files/count",
    "/arriving/count",
    "/missing_files",
    "/quarantined",
];
/// Those that are zero once the time of what was begun is over. A clock that was ahead has dated that
/// time ahead, too.
const NOTHING_DUE: [&str; 3] =
    ["/kept_because/garbage/count", "/kept_because/granted/count", "/uploads/count"];

/// Waits until each disk has what the ledger says, and nothing else; what does not come true. `clocks`
/// says that clocks were wrong.
pub(crate) fn leftovers(stage: &Stage, clocks: bool) -> Result<Option<String>> {
    let due: &[&str] = if clocks { &[] } else { &NOTHING_DUE };
    let mut left = String::new();
    let look = |at: usize| -> Result<Option<String>> {
        let mut client = stage.mesh.administrator(at).patient_for(PATIENCE);
        let mut body = Vec::new();
        let request = Request::new("GET", "/api/atoll/v1/inventory");
        let answer = client.send(&request, &mut Sink::Keep(&mut body))?;
        ensure!(answer.status == 200, "its inventory: {}", answer.status);
        let all: Value = serde_json::from_slice(&body)?;
        let is_zero = |place: &&&str| all.pointer(place).is_none_or(|count| *count == json!(0));
        let found = NOTHING.iter().chain(due).find(|place| !is_zero(place));
        Ok(found.map(|place| format!("{place}: {all}")))
    };
    let settled = process::until("the disks have what they should", SETTLED_WITHIN, || {
        for at in 0..stage.nodes() {
            let found = look(at).unwrap_or_else(|error| Some(format!("{error:#}")));
            if let Some(found) = found {
                left = format!("node-{at}: {found}");
                return Ok(None);
            }
        }
        Ok(Some(()))
    });
    stop::check()?;
    Ok(settled.err().map(|_| format!("something is left over or lost: {left}")))
}

/// What is wrong if some artifact is in too few regions and for some time no more of them get their
/// copies. The next trial may take a disk away.
pub(crate) fn short_of_copies(stage: &Stage) -> Result<Option<String>> {
    let (mut fewest, mut since, mut told) = (u64::MAX, Instant::now(), String::new());
    while since.elapsed() < SETTLED_WITHIN {
        stop::check()?;
        let short = under_replicated(stage, &mut told);
        if short == Some(0) {
            return Ok(None);
        }
        if let Some(short) = short.filter(|short| *short < fewest) {
            (fewest, since) = (short, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    let told: String = told.chars().take(500).collect();
    Ok(Some(format!("{fewest} artifacts lack copies, and nothing is done about it: {told}")))
}

/// How many artifacts are in too few regions, if a node knows that of all replicas.
fn under_replicated(stage: &Stage, told: &mut String) -> Option<u64> {
    let mut client = stage.mesh.administrator(0).patient_for(PATIENCE);
    let mut body = Vec::new();
    let request = Request::new("GET", "/api/atoll/v1/replication");
    let answer = client.send(&request, &mut Sink::Keep(&mut body));
    *told = String::from_utf8_lossy(&body).into_owned();
    let all: Value = serde_json::from_str(told).ok()?;
    let whole = answer.is_ok_and(|answer| answer.status == 200) && all["silent"] == json!([]);
    all["under_replicated"].as_u64().filter(|_| whole)
}

/// Words that a node may not say, with what they mean.
const WORDS: [(&str, &str); 3] = [
    ("panicked at", "it panicked"),
    ("this node's records are not those of the other replicas", "its records were others'"),
    ("cannot be decoded", "it met what it cannot read"),
];

/// What the nodes' logs say from these places on that no fault may cause; the places move to the
/// end.
pub(crate) fn bad_words(stage: &Stage, read: &mut [usize]) -> Vec<String> {
    let mut bad = Vec::new();
    for (at, from) in read.iter_mut().enumerate() {
        let words = stage.mesh.words(at);
        let new = words.get(*from..).unwrap_or_default();
        for line in new.lines() {
            if let Some((_, meaning)) = WORDS.iter().find(|(word, _)| line.contains(word)) {
                bad.push(format!("node-{at}: {meaning}: {line}"));
            }
        }
        *from = words.len();
    }
    bad
}

/// The process of each node that led a term, by the nodes' logs. [`BEGINS`] stands before what each
/// process says. Of two nodes one may lead after the other in the same term: a leader of the ledger is
/// a term and a node. But no process leads on in the place of an earlier one.
#[derive(Debug, Default)]
pub(crate) struct Terms(BTreeMap<(u64, usize), usize>);

impl Terms {
    /// Reads the logs whole; what must not be.
    pub(crate) fn note(&mut self, stage: &Stage) -> Vec<String> {
        (0..stage.nodes()).flat_map(|at| self.read(at, &stage.mesh.words(at))).collect()
    }

    fn read(&mut self, at: usize, words: &str) -> Vec<String> {
        let (mut process, mut wrong) = (0, Vec::new());
        for line in words.lines() {
            process += usize::from(line == BEGINS);
            let Some((_, rest)) = line.split_once("this node leads the ledger") else { continue };
            let term = rest
                .split_once("term=")
                .map(|(_, rest)| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
            let Some(term) = term.and_then(|term| term.parse().ok()) else { continue };
            let first = *self.0.entry((term, at)).or_insert(process);
            if first != process {
                wrong.push(format!(
                    "two processes of node-{at} led in term {term}: {first} and {process}"
                ));
            }
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_process_leads_in_the_term_of_an_earlier_one() {
        let mut terms = Terms::default();
        let lead = |term| format!("INFO this node leads the ledger term={term}\n");
        assert!(terms.read(0, &format!("{BEGINS}\n{}", lead(1))).is_empty());
        assert!(terms.read(1, &format!("{BEGINS}\n{}", lead(2))).is_empty());
        assert!(terms.read(0, &format!("{BEGINS}\n{}", lead(1))).is_empty(), "read again");
        let again = format!("{BEGINS}\n{}{BEGINS}\n{}", lead(1), lead(1));
        assert_eq!(terms.read(0, &again).len(), 1, "back in its old term");
        assert!(terms.read(2, &lead(2)).is_empty(), "another node");
    }
}
