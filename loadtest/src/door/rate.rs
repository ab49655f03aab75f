//! A closed loop over some connections against nodes of which the processes are known.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::Result;
use serde::Serialize;

use crate::cpu::Reading;
use crate::figures::Quantiles;
use crate::stop;

/// One round of requests.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Rate {
    /// Requests in a second.
    pub(crate) per_second: f64,
    /// How long each took.
    pub(crate) latency_ms: Option<Quantiles>,
    /// Microseconds of the nodes' processor for one.
    pub(crate) cpu_us: f64,
    /// The same, of what stands before them.
    pub(crate) before_us: f64,
}

/// What a round is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loop<'a> {
    /// Processes of the nodes.
    pub(crate) nodes: &'a [u32],
    /// Processes that stand before them.
    pub(crate) before: &'a [u32],
    /// Connections, each with a thread of its own.
    pub(crate) connections: usize,
    /// Requests in all.
    pub(crate) requests: usize,
}

impl Loop<'_> {
    /// Does `work` for each number below that of the requests. Each thread has what `open` makes for
    /// it.
    pub(crate) fn run<C>(
        self,
        open: impl Fn() -> Result<C> + Sync,
        work: impl Fn(&mut C, usize) -> Result<()> + Sync,
    ) -> Result<Rate> {
        let (next, ready) = (AtomicUsize::new(0), Barrier::new(self.connections + 1));
        let read = || [self.nodes, self.before].map(Reading::of);
        let (all, took, cpu) = std::thread::scope(|scope| {
            let (open, work, next, ready) = (&open, &work, &next, &ready);
            let one = move || -> Result<Vec<f64>> {
                let opened = open();
                ready.wait();
                let (mut client, mut times) = (opened?, Vec::new());
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= self.requests {
                        return Ok(times);
                    }
                    stop::check()?;
                    let begun = Instant::now();
                    work(&mut client, number)?;
                    times.push(begun.elapsed().as_secs_f64());
                }
            };
            let threads: Vec<_> = (0..self.connections).map(|_| scope.spawn(one)).collect();
            let before = read();
            ready.wait();
            let begun = Instant::now();
            let all: Result<Vec<_>> =
                threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
            let took = begun.elapsed().as_secs_f64();
            let [nodes, others] = read();
            (all, took, [nodes.since(&before[0]), others.since(&before[1])])
        });
        let times = all?.concat();
        let count = times.len() as f64;
        Ok(Rate {
            per_second: count / took,
            latency_ms: Quantiles::of_seconds(times),
            cpu_us: cpu[0] * 1e6 / count,
            before_us: cpu[1] * 1e6 / count,
        })
    }
}
