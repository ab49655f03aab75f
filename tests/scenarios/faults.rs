//! Whatever fails, at the upstream, between regions, at the node that sends or at the edge: a pull
//! that can succeed does, with every client, and what cannot is refused soon and in words.
//!
//! One cell of the table is one fault, at one place, under one client's pull of an image that
//! nobody has pulled before. The clients know two hosts: the edge, and a replica in another region.
//! The run writes `target/faults.md`; with `ATOLL_FAULTS=all` it goes through every fault with
//! every client (with other words than `all`, through the cells that have them,
//! `ATOLL_FAULTS="peer: killed"`), else the real clients beside `ctr` meet some of the faults.
//! Times are written down and not asserted, except that nothing makes a client wait for a first
//! byte.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tests::coast::{Coast, EDGE, clients};
use tests::complaints::Complaints;
use tests::http::Client;
use tests::image::Image;
use tests::proxies::create_proxy;
use tests::pullers::{Outcome, Pullers, Who};
use tests::pulling::{self, Pulled};
use tests::repository::create_project;
use tests::upstream::{Ending, Manner, Spoiling, Upstream};
use tests::{metrics, tools, wait};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// No first byte, and no refusal, may take longer: ten seconds are the promise, the rest is for a
/// busy machine.
const SOON: Duration = Duration::from_secs(15);
/// A client that is not done by then hangs.
const PATIENCE: Duration = Duration::from_secs(150);
/// Slow enough that something can happen in the middle of a blob, in kilobits a second.
const BOTTLENECK: u32 = 24_000;
const SETTINGS: &str = "upstreams: {allow_private: true, fresh_for: 0s, missing_for: 0s}\nmirrors: {names: registry.test}\n";
const EAST: usize = 0;
const WEST: usize = 1;
const CENTRAL: usize = 2;

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The upstream, for every request; another region has the image, or none has.
    Upstream { is: Manner, held: bool },
    /// The upstream's blobs.
    Blobs(Spoiling),
    /// The link of the region that sends, in the middle of a blob, for good; a third region has the
    /// blob.
    LinkCut,
    /// The same for six seconds, and no other node has the blob.
    LinkGone,
    /// The link of the region that receives is narrow.
    LinkNarrow,
    /// The node that sends to the edge is killed in the middle of a blob.
    PeerKilled,
    /// It is stopped there.
    PeerStopped,
    /// Both nodes that hold the layers have a flipped bit on their disks, each another.
    PeerLies,
    /// The edge was killed before.
    EdgeKilled,
    /// The edge is killed in the middle of a blob.
    EdgeKilledAmid,
    /// The edge is cut off from every replica and holds the image, or does not.
    EdgeAlone { held: bool },
}

/// The required result of a pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Pulled,
    Failed,
    /// The client itself cannot do it, or it depends on what the client asked for first.
    Either,
}

const REFUSED: Manner = Manner::Refuse;
const UPSTREAM: [Manner; 7] = [
    REFUSED,
    Manner::Swallow,
    Manner::Silent,
    Manner::Answer(404),
    Manner::Answer(429),
    Manner::Answer(500),
    Manner::Answer(503),
];
const BLOBS: [Spoiling; 5] = [
    Spoiling::Break(300 * KIB, Ending::Reset),
    Spoiling::Break(300 * KIB, Ending::Close),
    Spoiling::FlipOnce,
    Spoiling::FlipAlways,
    Spoiling::Slow(200 * KIB),
];
const REST: [Fault; 10] = [
    Fault::LinkCut,
    Fault::LinkGone,
    Fault::LinkNarrow,
    Fault::PeerKilled,
    Fault::PeerStopped,
    Fault::PeerLies,
    Fault::EdgeKilled,
    Fault::EdgeKilledAmid,
    Fault::EdgeAlone { held: true },
    Fault::EdgeAlone { held: false },
];

impl Fault {
    fn all() -> Vec<Self> {
        // an upstream that says 404 says that there is no such tag, held or not
        let held = UPSTREAM.into_iter().filter(|is| *is != Manner::Answer(404));
        let held = held.map(|is| Self::Upstream { is, held: true });
        let cold = UPSTREAM.into_iter().map(|is| Self::Upstream { is, held: false });
        held.chain(cold).chain(BLOBS.map(Self::Blobs)).chain(REST).collect()
    }

    /// Whether every client meets it in a run that is not of everything.
    fn is_typical(self) -> bool {
        matches!(
            self,
            Self::Upstream {
                is: Manner::Refuse | Manner::Silent | Manner::Answer(503),
                held: true
            } | Self::Blobs(Spoiling::Break(..))
                | Self::PeerKilled
                | Self::EdgeAlone { held: true }
        )
    }

    /// Place and name.
    fn words(self) -> (&'static str, String) {
        let manner = |is| match is {
            Manner::Honest => "well".to_owned(),
            Manner::Refuse => "refused".to_owned(),
            Manner::Swallow => "black hole".to_owned(),
            Manner::Silent => "accepts, then silent".to_owned(),
            Manner::Answer(status) => format!("{status} for everything"),
            Manner::Page => "200 and a page for everything".to_owned(),
            Manner::Schema1 => "manifests of schema 1".to_owned(),
            Manner::DeniesBlobs => "HEAD denies every blob".to_owned(),
            Manner::InventsBlobs => "it invents bytes for every blob".to_owned(),
            Manner::Gateway => "a gateway that compresses everything".to_owned(),
            Manner::Sloppy => "an index with a mark and without sizes".to_owned(),
            Manner::HollowBlobs => "it says that it has every blob, and gives none".to_owned(),
        };
        let whose = |held| if held { "held in another region" } else { "held nowhere" };
        match self {
            Self::Upstream { is, held } => ("upstream", format!("{}; {}", manner(is), whose(held))),
            Self::Blobs(Spoiling::Nothing) => ("upstream", "well".to_owned()),
            Self::Blobs(Spoiling::Break(_, Ending::Reset)) => {
                ("upstream", "RST in each layer, once".to_owned())
            }
            Self::Blobs(Spoiling::Break(_, Ending::Close)) => {
                ("upstream", "FIN in each layer, once".to_owned())
            }
            Self::Blobs(Spoiling::FlipOnce) => {
                ("upstream", "wrong bytes in each blob, once".to_owned())
            }
            Self::Blobs(Spoiling::FlipAlways) => ("upstream", "wrong bytes, always".to_owned()),
            Self::Blobs(Spoiling::Slow(rate)) => {
                ("upstream", format!("slow, {} KiB/s", rate / KIB))
            }
            Self::LinkCut => ("region link", "cut mid-blob; a third region has it".to_owned()),
            Self::LinkGone => {
                ("region link", "cut mid-blob for 6 s; nobody else has it".to_owned())
            }
            Self::LinkNarrow => ("region link", "narrow, 8 Mbit/s".to_owned()),
            Self::PeerKilled => ("peer", "killed mid-blob".to_owned()),
            Self::PeerStopped => ("peer", "stopped mid-blob".to_owned()),
            Self::PeerLies => ("peer", "a flipped bit on each holder's disk".to_owned()),
            Self::EdgeKilled => ("edge", "killed before the pull".to_owned()),
            Self::EdgeKilledAmid => ("edge", "killed mid-blob".to_owned()),
            Self::EdgeAlone { held: true } => ("edge", "cut off, holds the image".to_owned()),
            Self::EdgeAlone { held: false } => {
                ("edge", "cut off, does not hold the image".to_owned())
            }
        }
    }

    fn layers(self) -> [usize; 3] {
        match self {
            Self::Blobs(Spoiling::Slow(_)) => [300 * KIB, 300 * KIB, 600 * KIB],
            Self::LinkCut
            | Self::LinkGone
            | Self::PeerKilled
            | Self::PeerStopped
            | Self::EdgeKilledAmid => [MIB / 2, MIB / 2, 6 * MIB],
            _ => [MIB, 2 * MIB, 4 * MIB],
        }
    }

    fn expected(self, who: Option<Who>) -> Expected {
        match self {
            Self::Upstream { held: false, .. } | Self::Blobs(Spoiling::FlipAlways) => {
                Expected::Failed
            }
            // it depends on how much of the wrong answer the client has seen
            Self::Blobs(Spoiling::FlipOnce) if who.is_some() => Expected::Either,
            // no node has the rest for a while, and some clients do not ask again
            Self::LinkGone => Expected::Either,
            // they do not go on with a blob at another host
            Self::EdgeKilledAmid if who.is_some() => Expected::Either,
            _ => Expected::Pulled,
        }
    }
}

/// What a cell of the table says.
struct Row {
    fault: Fault,
    who: Option<Who>,
    outcome: Outcome,
    took: Duration,
    first_byte: Option<Duration>,
}

/// The mesh, its upstream, the clients, and what was seen.
struct Table {
    wrong: Complaints,
    pullers: Pullers,
    coast: Coast,
    upstream: Upstream,
    rows: Vec<Row>,
}

#[test]
fn every_pull_that_can_succeed_does_and_no_first_byte_is_late() {
    let chosen = std::env::var("ATOLL_FAULTS").ok();
    let coast = Coast::raise(SETTINGS);
    let upstream = Upstream::start_at(clients());
    create_proxy(&coast.client(EAST), "hub", "docker-registry", upstream.url(), true);
    create_project(&coast.client(EAST), "one", true, 1);
    let pullers = Pullers::start(&coast.host(EDGE), &coast.host(WEST));
    let mut table =
        Table { wrong: Complaints::default(), pullers, coast, upstream, rows: Vec::new() };
    for fault in Fault::all() {
        for who in std::iter::once(None).chain(Who::ALL.map(Some)) {
            let wanted = match chosen.as_deref() {
                None => matches!(who, None | Some(Who::Ctr)) || fault.is_typical(),
                Some("all") => true,
                Some(words) => label(fault, who).contains(words),
            };
            if wanted {
                table.cell(fault, who);
                table.write(); // each time: the machine may not last
            }
        }
    }
}

impl Table {
    fn cell(&mut self, fault: Fault, who: Option<Who>) {
        let number = self.rows.len();
        let image = Image::unpackable(&fault.layers());
        let name = self.make(fault, &image, number);
        let label = label(fault, who);
        self.begin(fault, &image, &name);
        let (coast, done) = (&self.coast, AtomicBool::new(false));
        let (outcome, took, pulled, struck) = std::thread::scope(|beside| {
            let amid = beside.spawn(|| amid(coast, fault, &image, &done));
            let begun = Instant::now();
            let (outcome, pulled) = match who {
                Some(who) => (self.pullers.pull(who, &name, "1", PATIENCE), None),
                None => {
                    let pulled = self.own(&name, &image);
                    let outcome = pulled.failed.clone().map_or(Outcome::Pulled, Outcome::Failed);
                    (outcome, Some(pulled))
                }
            };
            let took = begun.elapsed();
            done.store(true, Ordering::Relaxed);
            (outcome, took, pulled, amid.join().expect("the fault does not panic"))
        });
        eprintln!("{label}: {outcome:?} in {:.1} s", took.as_secs_f64());
        self.wrong.unless(struck, || format!("{label}: the pull was over before anything failed"));
        let right = match (fault.expected(who), &outcome) {
            (_, Outcome::Hung) => false,
            (Expected::Either, _) => true,
            (Expected::Pulled, outcome) => *outcome == Outcome::Pulled,
            (Expected::Failed, outcome) => *outcome != Outcome::Pulled,
        };
        self.wrong
            .unless(right, || format!("{label}: {outcome:?}, expected {:?}", fault.expected(who)));
        if let Some(pulled) = &pulled {
            self.judge(fault, &label, pulled);
        }
        if matches!(fault, Fault::Blobs(_)) {
            let lies = |at: usize| metrics::value(&self.coast.client(at), "atoll_peers_lied_total");
            let lies = [EAST, WEST, CENTRAL, EDGE].map(lies);
            self.wrong.unless(lies == [0; 4], || {
                format!("{label}: a peer is blamed for the upstream: {lies:?}")
            });
        }
        let first_byte = pulled.map(|pulled| pulled.first_byte);
        self.rows.push(Row { fault, who, outcome, took, first_byte });
        self.end(fault, number);
    }

    /// What only a client that looks closely can tell.
    fn judge(&self, fault: Fault, label: &str, pulled: &Pulled) {
        self.wrong.unless(pulled.first_byte <= SOON, || {
            format!("{label}: a first byte after {:?}", pulled.first_byte)
        });
        self.wrong.unless(pulled.wrong.is_none(), || {
            format!("{label}: wrong bytes, whole: {:?}", pulled.wrong)
        });
        let flips = matches!(fault, Fault::Blobs(Spoiling::FlipOnce | Spoiling::FlipAlways));
        self.wrong.unless(flips || pulled.spoilt == 0, || {
            format!("{label}: {} answers with wrong bytes", pulled.spoilt)
        });
        match fault {
            Fault::Upstream { is, held: false } => {
                let status = pulled.refused;
                let clean = matches!(status, Some((404 | 429 | 503, true)));
                let fits =
                    (status.map(|(status, _)| status) == Some(404)) == (is == Manner::Answer(404));
                self.wrong.unless(clean && fits, || {
                    format!("{label}: refused with {status:?}, {:?}", pulled.failed)
                });
            }
            Fault::EdgeAlone { held: false } => {
                let refused = pulled.refused;
                self.wrong.unless(refused == Some((503, true)), || {
                    format!("{label}: refused with {refused:?}")
                });
            }
            Fault::Upstream { held: true, .. } | Fault::EdgeAlone { held: true } => {
                self.wrong.unless(pulled.warned, || format!("{label}: no warning"));
            }
            // the client must not notice that its answer's source has changed
            Fault::Blobs(Spoiling::Break(..))
            | Fault::LinkCut
            | Fault::PeerKilled
            | Fault::PeerStopped
            | Fault::PeerLies => {
                self.wrong.unless(pulled.broken == 0, || {
                    format!("{label}: {} answers broke off", pulled.broken)
                });
            }
            _ => {}
        }
    }

    /// Puts the image where it is to be before anything fails; its repository.
    fn make(&self, fault: Fault, image: &Image, number: usize) -> String {
        let push = |at: usize, name: &str| {
            let there = self.coast.repository(at, name);
            // after a cut was healed a node may refuse for a moment
            wait::until_ok("an image is pushed", || there.push(image, "1"));
        };
        let pull = |at: usize, name: &str| {
            let there = self.coast.repository(at, name);
            wait::until_ok("an image is pulled where it is to be held", || there.pull("1"));
        };
        match fault {
            Fault::Upstream { held, .. } => {
                let name = format!("hub/c{number}");
                self.upstream
                    .repository(&format!("c{number}"))
                    .push(image, "1")
                    .unwrap_or_else(|no| panic!("{no}"));
                if held {
                    pull(CENTRAL, &name);
                }
                name
            }
            Fault::Blobs(_) => {
                self.upstream
                    .repository(&format!("c{number}"))
                    .push(image, "1")
                    .unwrap_or_else(|no| panic!("{no}"));
                format!("hub/c{number}")
            }
            _ => {
                let name = format!("one/c{number}");
                push(CENTRAL, &name);
                if fault != Fault::LinkGone {
                    pull(WEST, &name);
                }
                name
            }
        }
    }

    /// What fails before the pull.
    fn begin(&self, fault: Fault, image: &Image, name: &str) {
        match fault {
            Fault::Upstream { is, .. } => self.upstream.behave(is),
            Fault::Blobs(spoiling) => self.upstream.spoil(spoiling),
            Fault::LinkCut | Fault::LinkGone => self.coast.narrow(EAST, BOTTLENECK),
            Fault::LinkNarrow => self.coast.narrow(EAST, 8_000),
            Fault::PeerKilled | Fault::PeerStopped | Fault::EdgeKilledAmid => {
                self.coast.narrow(EDGE, BOTTLENECK)
            }
            Fault::PeerLies => {
                for (holder, group) in [(WEST, 3), (CENTRAL, 9)] {
                    for layer in &image.blobs[1..] {
                        self.coast.node(holder).flip(layer, group * (64 << 10) + 77);
                    }
                }
            }
            Fault::EdgeKilled => drop(self.coast.node(EDGE).stop(Signal::KILL)),
            Fault::EdgeAlone { held } => {
                if held {
                    let there = self.coast.repository(EDGE, name);
                    wait::until_ok("the edge holds the image", || there.pull("1"));
                }
                self.coast.cut(EDGE);
            }
        }
    }

    /// All is well again, and so it must be seen to be.
    fn end(&self, fault: Fault, number: usize) {
        match fault {
            Fault::Upstream { .. } => {
                self.upstream.behave(Manner::Honest);
                let (name, image) = (format!("w{number}"), Image::tiny());
                self.upstream
                    .repository(&name)
                    .push(&image, "1")
                    .unwrap_or_else(|no| panic!("{no}"));
                for at in [EDGE, WEST] {
                    let there = self.coast.repository(at, &format!("hub/{name}"));
                    wait::until_ok("the upstream is asked again", || there.pull("1"));
                }
            }
            Fault::Blobs(_) => self.upstream.spoil(Spoiling::Nothing),
            Fault::PeerLies => {}
            _ => self.coast.settle(),
        }
    }

    fn own(&self, name: &str, image: &Image) -> Pulled {
        let hosts = [EDGE, WEST].map(|at| {
            let url = format!("http://{}", self.coast.host(at));
            Client::of(&url).patient_for(Duration::from_secs(60))
        });
        pulling::pull(&hosts, name, "1", image)
    }

    /// A line for each fault and a column for each client, then what those said that failed.
    fn write(&self) {
        let (mut table, mut words) =
            (String::from("| place | fault | own client (first byte) |"), String::new());
        for who in Who::ALL {
            let _ = write!(table, " {who} |");
        }
        let _ = writeln!(table, "\n|---|---|{}", "---:|".repeat(1 + Who::ALL.len()));
        for fault in Fault::all() {
            let (place, what) = fault.words();
            let mut line = format!("| {place} | {what} |");
            let mut met = false;
            for who in std::iter::once(None).chain(Who::ALL.map(Some)) {
                let row = self.rows.iter().find(|row| row.fault == fault && row.who == who);
                met |= row.is_some();
                let _ = write!(line, " {} |", row.map(Row::cell).unwrap_or_default());
                if let Some(Row { outcome: Outcome::Failed(why), .. }) = row {
                    let _ = writeln!(words, "- {}: {}", label(fault, who), brief(why));
                }
            }
            if met {
                let _ = writeln!(table, "{line}");
            }
        }
        let file = tools::repository().join("target/faults.md");
        let text = format!("{table}\n{words}");
        let kept = std::fs::create_dir_all(file.parent().expect("a folder"))
            .and_then(|()| std::fs::write(&file, text));
        kept.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
}

impl Row {
    /// Seconds, and a word where it was not pulled.
    fn cell(&self) -> String {
        let word = match self.outcome {
            Outcome::Pulled => "",
            Outcome::Failed(_) => "failed ",
            Outcome::Hung => "**hung** ",
        };
        let first = self
            .first_byte
            .map(|first| format!(" ({:.2})", first.as_secs_f64()))
            .unwrap_or_default();
        format!("{word}{:.1}{first}", self.took.as_secs_f64())
    }
}

/// What fails in the middle of the largest layer; whether it did, if it was to.
fn amid(coast: &Coast, fault: Fault, image: &Image, done: &AtomicBool) -> bool {
    let receiver = match fault {
        Fault::LinkCut | Fault::LinkGone => EAST,
        Fault::PeerKilled | Fault::PeerStopped | Fault::EdgeKilledAmid => EDGE,
        _ => return true,
    };
    let layer = image.blobs.last().expect("a layer");
    while !done.load(Ordering::Relaxed) {
        let moving =
            coast.status(receiver).ok().and_then(|status| arriving(&status, &layer.digest));
        let Some(moving) = moving.filter(|moving| moving["bytes"].as_u64() > Some(MIB as u64))
        else {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        let Some(peer) = moving["peer"].as_str().and_then(|peer| coast.named(peer)) else {
            continue;
        };
        match fault {
            Fault::LinkCut => coast.cut(peer),
            Fault::LinkGone => {
                coast.cut(peer);
                std::thread::sleep(Duration::from_secs(6));
                coast.heal(peer);
            }
            Fault::PeerKilled => drop(coast.node(peer).stop(Signal::KILL)),
            Fault::PeerStopped => coast.node(peer).signal(Signal::STOP),
            _ => drop(coast.node(EDGE).stop(Signal::KILL)),
        }
        return true;
    }
    false
}

/// A node's transfer of a blob to itself, if one is going on.
fn arriving(status: &Value, digest: &str) -> Option<Value> {
    let moving = status["transfers"].as_array()?;
    moving.iter().find(|one| one["direction"] == "in" && one["digest"] == digest).cloned()
}

/// A client's words, short enough for a list and without what is another in each run.
fn brief(why: &str) -> String {
    let plain = |word: &str| {
        let differs =
            word.contains("sha256:") || word.contains("/storage") || word.starts_with("time=");
        if differs { "…".to_owned() } else { word.replace('\\', "") }
    };
    let text = why.split_whitespace().map(plain).collect::<Vec<_>>().join(" ");
    let mut short: String = text.chars().take(300).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// A cell's place, fault and client.
fn label(fault: Fault, who: Option<Who>) -> String {
    let (place, what) = fault.words();
    format!(
        "{place}: {what}, {}",
        who.map_or_else(|| "own client".to_owned(), |who| who.to_string())
    )
}
