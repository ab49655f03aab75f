//! Where a figure comes from: machine, commit, date, command. A figure without them is hearsay.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::process::first_line;

/// What stands at the head of every report.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Origin {
    /// When the run began, in UTC.
    pub(crate) date: String,
    /// The commit of the source tree, with `, dirty` behind it if something was changed.
    pub(crate) commit: String,
    /// The command line.
    pub(crate) command: String,
    /// Cores that the run may use.
    pub(crate) cores: usize,
    /// Name of the processor.
    pub(crate) cpu: String,
    /// Memory in GiB.
    pub(crate) memory_gib: f64,
    /// Version of the kernel.
    pub(crate) kernel: String,
    /// The file system that the servers' folders are on.
    pub(crate) file_system: String,
    /// Load of the machine over the last minute when the run began.
    pub(crate) load_before: String,
    /// What was built without optimisation, if anything: such figures count for nothing.
    pub(crate) caution: Option<String>,
}

impl Origin {
    /// Of a run that begins now.
    pub(crate) fn now() -> Self {
        let seconds =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Origin {
            date: date(seconds),
            commit: commit(),
            command: command(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            cpu: field("/proc/cpuinfo", "model name")
                .unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            memory_gib: memory().unwrap_or(0.0),
            kernel: text("/proc/sys/kernel/osrelease"),
            file_system: file_system(&std::env::temp_dir()),
            load_before: load(),
            caution: cfg!(debug_assertions).then(|| "loadtest itself is a debug build".to_owned()),
        }
    }
}

/// Load of the machine over the last minute.
pub(crate) fn load() -> String {
    text("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned()
}

/// The source tree: the one we stand in, else the one this was built from.
pub(crate) fn repository() -> PathBuf {
    let here =
        first_line(Command::new("git").args(["rev-parse", "--show-toplevel"])).map(PathBuf::from);
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned);
    let ours = |folder: &PathBuf| folder.join("loadtest/Cargo.toml").is_file();
    here.filter(ours).or(built.filter(ours)).unwrap_or_else(|| PathBuf::from("."))
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        first_line(Command::new("git").current_dir(repository()).args(arguments))
    };
    match git(&["rev-parse", "HEAD"]) {
        Some(commit) if git(&["status", "--porcelain"]).is_some() => format!("{commit}, dirty"),
        Some(commit) => commit,
        None => "unknown".to_owned(),
    }
}

/// The command line, without what a URL says between `//` and `@`: reports are passed around.
fn command() -> String {
    let shown = |argument: String| match (argument.find("//"), argument.rfind('@')) {
        (Some(from), Some(to)) if from < to => {
            format!("{}//...{}", &argument[..from], &argument[to..])
        }
        _ => argument,
    };
    std::env::args().map(shown).collect::<Vec<_>>().join(" ")
}

fn memory() -> Option<f64> {
    let total = field("/proc/meminfo", "MemTotal")?;
    Some(total.strip_suffix("kB")?.trim().parse::<f64>().ok()? / f64::from(1 << 20))
}

/// The type of the file system that a folder is on: the longest mount point above it.
fn file_system(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let mounts = text("/proc/mounts");
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let above = mounts.filter(|(point, _)| folder.starts_with(point));
    above
        .max_by_key(|(point, _)| point.len())
        .map_or_else(|| "unknown".to_owned(), |(_, kind)| kind.to_owned())
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = text(file);
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
}

fn text(file: &str) -> String {
    fs::read_to_string(file).unwrap_or_default().trim().to_owned()
}

/// Seconds since 1970 as a date and time of day in UTC, by Hinnant's `civil_from_days`.
fn date(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(date(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(date(1_795_564_799), "2026-11-24 23:59:59 UTC");
    }

    #[test]
    fn the_machine_can_be_told() {
        let origin = Origin::now();
        assert!(
            origin.memory_gib > 0.0 && !origin.kernel.is_empty() && origin.file_system != "unknown"
        );
    }
}
