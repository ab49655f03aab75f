//! Time as an argument.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point in time on one machine's monotonic clock, in microseconds since boot. The clock also
/// counts while the machine is suspended.
///
/// Moments of two machines cannot be compared. Leases only compare moments of the same machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// The moment `micros` after boot.
    pub const fn from_micros(micros: u64) -> Self {
        Moment(micros)
    }

    /// Microseconds since boot.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to this moment; zero if `earlier` is later.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;
    fn add(self, rhs: Duration) -> Moment {
        Moment(self.0.saturating_add(rhs.as_micros() as u64))
    }
}

impl Sub<Duration> for Moment {
    type Output = Moment;
    fn sub(self, rhs: Duration) -> Moment {
        Moment(self.0.saturating_sub(rhs.as_micros() as u64))
    }
}

/// Wall-clock time in milliseconds since the Unix epoch, taken by the proposer of a command. It is
/// for people, and never decides an order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC, to the second.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / 1000;
        let (days, rest) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = civil_from_days(days as i64);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
            rest / 3600,
            rest / 60 % 60,
            rest % 60
        )
    }
}

impl Timestamp {
    /// The time from `earlier` to this one; `None` if `earlier` is later, because the clock was set
    /// back since or another machine's clock is ahead. Then nobody knows how long ago it was.
    pub fn since(self, earlier: Timestamp) -> Option<Duration> {
        self.0.checked_sub(earlier.0).map(Duration::from_millis)
    }

    /// The time between this one and `other`, whichever is later. A time that is far ahead is as
    /// doubtful as one that is long past.
    pub fn apart(self, other: Timestamp) -> Duration {
        Duration::from_millis(self.0.abs_diff(other.0))
    }

    /// The time `later` than this one.
    pub fn after(self, later: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(later.as_millis().min(u128::from(u64::MAX)) as u64))
    }
}

/// Howard Hinnant's `civil_from_days`: the proleptic Gregorian year, month (1 to 12) and day (1 to
/// 31) of a number of days since 1970-01-01.
pub fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = (doy - (153 * mp + 2) / 5 + 1) as u32;
    let month = if mp < 10 { mp + 3 } else { mp - 9 } as u32;
    (yoe + era * 400 + i64::from(month <= 2), month, day)
}

/// The time that a text says: `2027-01-31`, which is the beginning of that day, or
/// `2027-01-31T12:00:00Z`, both in UTC; `None` if it says none.
pub fn read(text: &str) -> Option<Timestamp> {
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, time.strip_suffix('Z')?),
        None => (text, "00:00:00"),
    };
    let part = |text: &str, length: usize, most: u32| {
        let fits = text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit());
        fits.then(|| text.parse::<u32>().ok()).flatten().filter(|number| *number <= most)
    };
    let fields = |text: &str, between: char| {
        let fields: Vec<String> = text.split(between).map(str::to_owned).collect();
        <[String; 3]>::try_from(fields).ok()
    };
    let ([year, month, day], [hour, minute, second]) = (fields(date, '-')?, fields(time, ':')?);
    let (year, month, day) = (part(&year, 4, 9999)?, part(&month, 2, 12)?, part(&day, 2, 31)?);
    let seconds = part(&hour, 2, 23)? * 3600 + part(&minute, 2, 59)? * 60 + part(&second, 2, 59)?;
    // the day whose date is this one: dates only grow with the days
    let wanted = (i64::from(year), month, day);
    let (mut low, mut high) = (0_i64, 10_000 * 366);
    while low < high {
        let middle = (low + high) / 2;
        match civil_from_days(middle) < wanted {
            true => low = middle + 1,
            false => high = middle,
        }
    }
    let is_a_date = civil_from_days(low) == wanted;
    is_a_date.then(|| Timestamp((low as u64 * 86_400 + u64::from(seconds)) * 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_read_as_dates() {
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(Timestamp(1_709_210_096_000).to_string(), "2024-02-29T12:34:56Z");
    }

    #[test]
    fn dates_read_as_timestamps() {
        for written in ["2027-01-31T12:00:05Z", "1970-01-01T00:00:00Z", "2028-02-29T23:59:59Z"] {
            assert_eq!(read(written).map(|time| time.to_string()).as_deref(), Some(written));
        }
        assert_eq!(read("2027-01-31"), read("2027-01-31T00:00:00Z"));
        for wrong in ["", "2027", "2027-02-29", "2027-13-01", "2027-1-1", "2027-01-01T24:00:00Z"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert_eq!(read("2027-01-01T00:00:00+01:00"), None, "UTC only");
    }

    #[test]
    fn since_never_goes_below_zero() {
        assert_eq!(Moment::from_micros(1).since(Moment::from_micros(5)), Duration::ZERO);
    }
}
