//! The only place that reads the clocks.

use std::time::Duration;

use rules::words::moment::{Moment, Timestamp};

/// The time on the monotonic clock that also counts suspend (`CLOCK_BOOTTIME`), so that a machine
/// that was suspended holds no lease when it wakes.
pub fn now() -> Moment {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Moment::from_micros(time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000)
}

/// How long this machine has been suspended since it booted: [`now`] counts this time, and
/// `Instant` does not.
pub fn suspended() -> Duration {
    let monotonic = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now().since(Moment::from_micros(
        monotonic.tv_sec as u64 * 1_000_000 + monotonic.tv_nsec as u64 / 1000,
    ))
}

/// The time on the wall clock.
#[expect(clippy::disallowed_methods, reason = "this is the place")]
pub fn timestamp() -> Timestamp {
    let since_epoch =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(since_epoch.as_millis() as u64)
}
