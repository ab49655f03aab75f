//! A closed loop: a fixed number of requests over a few connections, timed as a whole and one by
//! one.
//!
//! Requests are counted, not fitted into a window of time: every server then does the same work in
//! a round, and the last request of a slow one is not cut off.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::cpu;
use crate::figures::Quantiles;
use crate::peers::Peer;
use crate::stop;
use crate::wire::Client;

/// How long a server may go on with what it acknowledged, before its clock is read.
const TAIL: Duration = Duration::from_millis(100);

/// How much to ask at once, and how much in all.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Plan {
    /// Keep-alive connections, each with a thread of its own.
    pub(crate) connections: usize,
    /// Requests of all connections together.
    pub(crate) requests: usize,
}

/// One request's times and bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Until the answer's head was there, where that is told.
    pub(crate) first: Option<Duration>,
    /// Until everything was there.
    pub(crate) total: Duration,
    /// Bytes of content moved, either way.
    pub(crate) bytes: u64,
}

/// One round of one operation at one server.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Round {
    seconds: f64,
    requests: usize,
    bytes: u64,
    server_cpu_seconds: Option<f64>,
    client_cpu_seconds: f64,
    first_byte_ms: Option<Quantiles>,
    latency_ms: Option<Quantiles>,
}

impl Round {
    /// Requests in a second.
    pub(crate) fn requests_per_second(&self) -> Option<f64> {
        Some(self.requests as f64 / self.seconds)
    }

    /// Million bytes of content in a second; nothing where content is not the point.
    pub(crate) fn mb_per_second(&self) -> Option<f64> {
        (self.bytes > 0).then(|| self.bytes as f64 / 1e6 / self.seconds)
    }

    /// Microseconds of the server's CPU for a request.
    pub(crate) fn cpu_us_per_request(&self) -> Option<f64> {
        Some(self.server_cpu_seconds? * 1e6 / self.requests as f64)
    }

    /// CPU-seconds of the server for a billion bytes.
    pub(crate) fn cpu_s_per_gb(&self) -> Option<f64> {
        self.server_cpu_seconds.filter(|_| self.bytes > 0).map(|cpu| cpu * 1e9 / self.bytes as f64)
    }

    /// Microseconds of the client's CPU for a request.
    pub(crate) fn client_us_per_request(&self) -> Option<f64> {
        Some(self.client_cpu_seconds * 1e6 / self.requests as f64)
    }

    /// Until the first byte, where that is told.
    pub(crate) fn first_byte_ms(&self) -> Option<Quantiles> {
        self.first_byte_ms
    }

    /// Until the last byte.
    pub(crate) fn latency_ms(&self) -> Option<Quantiles> {
        self.latency_ms
    }
}

/// Runs `work` for every request number below the plan's, over clients that `open` makes.
pub(crate) fn run(
    plan: Plan,
    peer: &Peer,
    open: impl Fn(&Peer) -> Client + Sync,
    work: impl Fn(&mut Client, usize) -> Result<Sample> + Sync,
) -> Result<Round> {
    let next = AtomicUsize::new(0);
    let ready = Barrier::new(plan.connections + 1);
    let (before, begun, ended, threads) = std::thread::scope(|scope| {
        let one = || {
            let mut client = open(peer);
            let connected = client.connect();
            ready.wait();
            connected.with_context(|| format!("{} cannot be reached", peer.name))?;
            let mut samples = Vec::with_capacity(plan.requests / plan.connections * 2);
            let own = cpu::of_this_thread();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= plan.requests {
                    break;
                }
                stop::check()?;
                samples.push(work(&mut client, number).with_context(|| peer.name.clone())?);
            }
            Ok((samples, cpu::of_this_thread() - own))
        };
        let threads: Vec<_> = (0..plan.connections).map(|_| scope.spawn(one)).collect();
        let before = peer.cpu();
        ready.wait();
        let begun = Instant::now();
        let threads: Vec<Result<_>> =
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
        (before, begun, Instant::now(), threads)
    });
    std::thread::sleep(TAIL);
    let after = peer.cpu();
    let threads = threads.into_iter().collect::<Result<Vec<(Vec<Sample>, f64)>>>()?;
    let samples: Vec<Sample> = threads.iter().flat_map(|(samples, _)| samples).copied().collect();
    Ok(Round {
        seconds: (ended - begun).as_secs_f64(),
        requests: samples.len(),
        bytes: samples.iter().map(|sample| sample.bytes).sum(),
        server_cpu_seconds: before.zip(after).map(|(before, after)| after.since(&before)),
        client_cpu_seconds: threads.iter().map(|(_, cpu)| cpu).sum(),
        first_byte_ms: samples
            .iter()
            .map(|sample| sample.first.map(|first| first.as_secs_f64()))
            .collect::<Option<_>>()
            .and_then(Quantiles::of_seconds),
        latency_ms: Quantiles::of_seconds(
            samples.iter().map(|sample| sample.total.as_secs_f64()).collect(),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_a_round_follow_from_its_sums() {
        let round = Round {
            seconds: 2.0,
            requests: 100,
            bytes: 4_000_000_000,
            server_cpu_seconds: Some(1.0),
            client_cpu_seconds: 0.5,
            first_byte_ms: None,
            latency_ms: None,
        };
        assert_eq!(round.requests_per_second(), Some(50.0));
        assert_eq!(round.mb_per_second(), Some(2000.0));
        assert_eq!(round.cpu_us_per_request(), Some(10_000.0));
        assert_eq!(round.cpu_s_per_gb(), Some(0.25));
        assert_eq!(round.client_us_per_request(), Some(5000.0));
        let bare = Round { bytes: 0, server_cpu_seconds: None, ..round };
        assert_eq!(
            (bare.mb_per_second(), bare.cpu_us_per_request(), bare.cpu_s_per_gb()),
            (None, None, None)
        );
    }
}
