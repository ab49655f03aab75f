//! The CPU time of server processes, as the scheduler counts it.
//!
//! `/proc/PID/task/*/schedstat` has each thread's time in nanoseconds, but not that of threads that
//! have ended. `/proc/PID/stat` includes those, but counts in steps of 10 ms. So the fine value is
//! used unless the coarse one proves that something is missing.

use std::collections::BTreeMap;
use std::fs;

/// Clock ticks of a process's `stat` in a second: the same on every Linux that Rust's standard
/// library runs on.
const TICKS: f64 = 100.0;

/// How much user and system time of one process may be off, each rounded down to a tick, at both
/// ends.
const ROUNDING: f64 = 4.0 / TICKS;

/// The CPU time of some processes at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reading {
    /// Nanoseconds by thread.
    threads: BTreeMap<u32, u64>,
    /// Ticks, threads that have ended included.
    ticks: u64,
    processes: usize,
}

impl Reading {
    /// Reads the clocks now. A process that is gone counts nothing.
    pub(crate) fn of(pids: &[u32]) -> Self {
        let mut reading = Reading { processes: pids.len(), ..Reading::default() };
        for pid in pids {
            reading.ticks += fs::read_to_string(format!("/proc/{pid}/stat"))
                .ok()
                .and_then(|s| ticks(&s))
                .unwrap_or(0);
            for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten()
            {
                let id = thread.file_name().to_str().and_then(|name| name.parse().ok());
                let spent = fs::read_to_string(thread.path().join("schedstat"))
                    .ok()
                    .and_then(|s| nanoseconds(&s));
                reading.threads.extend(id.zip(spent));
            }
        }
        reading
    }

    /// CPU-seconds between an earlier reading of the same processes and this one.
    pub(crate) fn since(&self, before: &Reading) -> f64 {
        let fine = self.threads.iter().map(|(thread, now)| {
            let then = before.threads.get(thread).copied().unwrap_or(0);
            now.saturating_sub(then)
        });
        let fine = fine.sum::<u64>() as f64 / 1e9;
        let coarse = self.ticks.saturating_sub(before.ticks) as f64 / TICKS;
        let allowed = ROUNDING * self.processes.max(1) as f64;
        if coarse > fine + allowed { coarse } else { fine }
    }
}

/// The CPU time of the calling thread in seconds.
pub(crate) fn of_this_thread() -> f64 {
    let spent =
        fs::read_to_string("/proc/thread-self/schedstat").ok().and_then(|text| nanoseconds(&text));
    spent.unwrap_or(0) as f64 / 1e9
}

/// What processes have read and written so far, by the system's count.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DiskReading {
    /// Calls that read a file, from the page cache or the disk; sockets are not counted.
    pub(crate) reads: u64,
    /// Bytes that are to be written to disk, or were.
    pub(crate) written: u64,
}

impl DiskReading {
    /// Of all these together. A process that is gone counts nothing.
    pub(crate) fn of(pids: &[u32]) -> Self {
        let mut sum = DiskReading::default();
        for pid in pids {
            let text = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
            let field = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(name))?;
                line.trim().parse::<u64>().ok()
            };
            sum.reads += field("syscr:").unwrap_or(0);
            sum.written += field("write_bytes:").unwrap_or(0);
        }
        sum
    }
}

/// Bytes of memory that a process holds at the moment.
pub(crate) fn resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// The first number of a `schedstat`.
fn nanoseconds(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

/// `utime + stime` of a `stat`; the name before them may hold spaces and brackets.
fn ticks(text: &str) -> Option<u64> {
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(threads: &[(u32, u64)], ticks: u64) -> Reading {
        Reading { threads: threads.iter().copied().collect(), ticks, processes: 1 }
    }

    #[test]
    fn the_fine_clock_counts_while_it_misses_nobody() {
        let before = reading(&[(1, 1_000_000_000), (2, 5_000_000)], 100);
        let after = reading(&[(1, 1_500_000_000), (3, 7_000_000)], 153);
        assert!((after.since(&before) - 0.507).abs() < 1e-9);
    }

    #[test]
    fn the_coarse_clock_counts_when_a_thread_took_its_time_with_it() {
        let before = reading(&[(1, 0)], 0);
        let after = reading(&[(1, 100_000_000)], 90);
        assert!((after.since(&before) - 0.9).abs() < 1e-9);
    }

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b) (c) S 1 7 7 0 -1 4194560 1 2 3 4 30 12 0 0 20 0 1 0 99";
        assert_eq!(ticks(stat), Some(42));
        assert_eq!(ticks("7 (a) S 1"), None);
    }

    #[test]
    fn this_process_can_be_read() {
        let pid = std::process::id();
        let before = Reading::of(&[pid]);
        let end = std::time::Instant::now() + std::time::Duration::from_millis(60);
        while std::time::Instant::now() < end {}
        assert!(Reading::of(&[pid]).since(&before) > 0.0);
        assert!(resident_bytes(pid).is_some_and(|bytes| bytes > 100_000));
    }
}
