//! Sizes as people write them on a command line: `190MB`, `64MiB`, `4096`.

use std::fmt;
use std::str::FromStr;

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) usize);

/// The largest size that is taken where everything pushed is held in memory.
const LARGEST: usize = 4 << 30;
/// The largest that is taken where nothing of it is.
const LARGEST_MADE: usize = 1 << 40;

const UNITS: [(&str, usize); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        up_to(LARGEST, text)
            .ok_or_else(|| format!("{text:?} is not a size such as 190MB or 64MiB, up to 4GiB"))
    }
}

/// Reads the size of something of which nothing is held in memory.
pub(crate) fn of_made(text: &str) -> Result<Size, String> {
    up_to(LARGEST_MADE, text)
        .ok_or_else(|| format!("{text:?} is not a size such as 10GB or 64MiB, up to 1024GiB"))
}

fn up_to(largest: usize, text: &str) -> Option<Size> {
    let unit = UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)));
    let (number, unit) = unit.unwrap_or((text, 1));
    let size = number.trim().parse::<usize>().ok().and_then(|number| number.checked_mul(unit));
    size.filter(|size| (1..=largest).contains(size)).map(Size)
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} MB", self.0 as f64 / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_decimal_or_binary() {
        assert_eq!("190MB".parse(), Ok(Size(190_000_000)));
        assert_eq!("64 MiB".parse(), Ok(Size(64 << 20)));
        assert_eq!("12".parse(), Ok(Size(12)));
        assert_eq!("12B".parse(), Ok(Size(12)));
        for bad in ["", "MB", "0", "-1MB", "1.5GB", "99999999999GiB", "5GiB"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
        assert_eq!(of_made("10GB"), Ok(Size(10_000_000_000)));
        assert!(of_made("1025GiB").is_err() && of_made("0").is_err());
    }
}
