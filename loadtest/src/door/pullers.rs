//! Quiet clients: each pulls an image of one small layer, rests, and pulls again.
//!
//! Half of them keep a connection, which they have opened before an attack begins, as a cluster's
//! nodes do; half open one for each pull, as a new client must.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde::Serialize;

use crate::cpu::{Reading, resident_bytes};
use crate::figures::Quantiles;
use crate::registry::ACCEPT;
use crate::stop;
use crate::wire::{Client, Request, Sink, Target};

/// How long a pull may stand still before it has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest rest between two pulls of one client; on average it is half.
const REST_MICROS: u64 = 40_000;

/// What is pulled, and how.
#[derive(Clone, Debug)]
pub(crate) struct Quiet {
    /// The node.
    pub(crate) target: Target,
    /// Its process.
    pub(crate) pid: u32,
    /// The path of the manifest.
    pub(crate) manifest: String,
    /// The path of the layer, and its length.
    pub(crate) layer: (String, u64),
    /// Clients; every second one keeps its connection.
    pub(crate) clients: usize,
    /// How long they pull.
    pub(crate) time: Duration,
}

/// What the clients of a round have seen.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Pulled {
    /// Pulls that succeeded.
    pub(crate) pulls: usize,
    /// Pulls that did not, over a connection that was kept.
    pub(crate) failed_kept: usize,
    /// Pulls that did not, over a connection of their own.
    pub(crate) failed_fresh: usize,
    /// How long those took that succeeded.
    pub(crate) latency_ms: Option<Quantiles>,
    /// The same, of those over a connection of their own.
    pub(crate) fresh_ms: Option<Quantiles>,
    /// The node's processor, in percent of one core.
    pub(crate) cpu_percent: f64,
    /// The node's memory at the end.
    pub(crate) resident_bytes: u64,
}

impl Quiet {
    /// Opens the connections that are kept, lets `begin` do what is to go on meanwhile, and pulls.
    pub(crate) fn round(&self, begin: impl FnOnce()) -> Result<Pulled> {
        let (connected, ready) = (Barrier::new(self.clients + 1), Barrier::new(self.clients + 1));
        let (all, cpu, took) = std::thread::scope(|scope| {
            let (connected, ready) = (&connected, &ready);
            let one = move |number: usize| {
                let kept = number.is_multiple_of(2);
                let mut client = self.client();
                let opened = if kept { client.connect() } else { Ok(()) };
                connected.wait();
                ready.wait();
                opened?;
                self.pull(kept, client).map(|found| (kept, found))
            };
            let threads: Vec<_> =
                (0..self.clients).map(|number| scope.spawn(move || one(number))).collect();
            connected.wait();
            begin();
            let (before, begun) = (Reading::of(&[self.pid]), Instant::now());
            ready.wait();
            let all: Result<Vec<_>> =
                threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
            let cpu = Reading::of(&[self.pid]).since(&before);
            (all, cpu, begun.elapsed().as_secs_f64())
        });
        let all = all?;
        let failed = |kept: bool| {
            all.iter().filter(|(one, _)| *one == kept).map(|(_, (_, failed))| failed).sum()
        };
        let times = |fresh_only: bool| -> Vec<f64> {
            let some = all.iter().filter(|(kept, _)| !(fresh_only && *kept));
            some.flat_map(|(_, (times, _))| times).copied().collect()
        };
        let Some(resident_bytes) = resident_bytes(self.pid) else { bail!("the node has ended") };
        Ok(Pulled {
            pulls: times(false).len(),
            failed_kept: failed(true),
            failed_fresh: failed(false),
            latency_ms: Quantiles::of_seconds(times(false)),
            fresh_ms: Quantiles::of_seconds(times(true)),
            cpu_percent: cpu / took * 100.0,
            resident_bytes,
        })
    }

    fn client(&self) -> Client {
        self.target.client().patient_for(PATIENCE)
    }

    /// Pulls until the time is over: how long each pull took, and how many failed.
    fn pull(&self, kept: bool, mut client: Client) -> Result<(Vec<f64>, usize)> {
        let (begun, mut times, mut failed) = (Instant::now(), Vec::new(), 0);
        while begun.elapsed() < self.time {
            stop::check()?;
            if !kept {
                client = self.client();
            }
            let one = Instant::now();
            match self.image(&mut client) {
                Ok(()) => times.push(one.elapsed().as_secs_f64()),
                Err(_) => failed += 1,
            }
            if !kept {
                client = self.client(); // closes it
            }
            std::thread::sleep(Duration::from_micros(rand::random_range(0..REST_MICROS)));
        }
        Ok((times, failed))
    }

    fn image(&self, client: &mut Client) -> Result<()> {
        let headers = [ACCEPT];
        let manifest = Request::new("GET", &self.manifest).headers(&headers);
        let (layer, length) = &self.layer;
        for (request, length) in [(manifest, None), (Request::new("GET", layer), Some(*length))] {
            let answer = client.send(&request, &mut Sink::Discard)?;
            ensure!(answer.status == 200, "status {}", answer.status);
            ensure!(length.is_none_or(|length| length == answer.bytes), "a short layer");
        }
        Ok(())
    }
}
