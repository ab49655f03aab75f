//! Sizes as people write them on a command line: `190MB`, `64MiB`, `4096`.

use std::fmt;
use std::str::FromStr;

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) usize);

/// The largest size that is taken: everything pushed is held in memory.
const LARGEST: usize = 4 << 30;

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
        let unit = UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)));
        let (number, unit) = unit.unwrap_or((text, 1));
        let size = number.trim().parse::<usize>().ok().and_then(|number| number.checked_mul(unit));
        let size = size.filter(|size| (1..=LARGEST).contains(size));
        size.map(Size)
            .ok_or_else(|| format!("{text:?} is not a size such as 190MB or 64MiB, up to 4GiB"))
    }
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
    }
}
