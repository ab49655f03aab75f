//! The arithmetic of reports: quantiles within a round, medians over rounds, ratios between
//! servers.

use std::fmt;

use serde::Serialize;

/// The value that a share `q` of the sorted samples does not exceed (nearest rank); nothing of
/// nothing.
pub(crate) fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let rank = (q.clamp(0.0, 1.0) * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

/// The middle sample, or the mean of the two in the middle.
pub(crate) fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.get(sorted.len() / 2)?;
    let lower = sorted.get(sorted.len().checked_sub(1)? / 2)?;
    Some(f64::midpoint(*lower, *upper))
}

/// `ours / theirs`, if that says anything.
pub(crate) fn ratio(ours: f64, theirs: f64) -> Option<f64> {
    (theirs > 0.0 && ours.is_finite() && theirs.is_finite()).then(|| ours / theirs)
}

/// A figure over all rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    /// The middle round's.
    pub(crate) median: f64,
    /// The least.
    pub(crate) min: f64,
    /// The greatest.
    pub(crate) max: f64,
}

impl Spread {
    /// Of the rounds that have this figure; nothing if none has.
    pub(crate) fn of(rounds: impl IntoIterator<Item = Option<f64>>) -> Option<Self> {
        let rounds: Vec<f64> = rounds.into_iter().flatten().collect();
        let least = rounds.iter().copied().fold(f64::INFINITY, f64::min);
        let greatest = rounds.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Some(Spread { median: median(&rounds)?, min: least, max: greatest })
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} - {})", plain(self.median), plain(self.min), plain(self.max))
    }
}

/// A number with about three digits that mean something.
pub(crate) fn plain(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        size if size >= 0.1 => 3,
        _ => 4,
    };
    format!("{value:.decimals$}")
}

/// Two quantiles of a round, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Quantiles {
    /// What half of the requests did not exceed.
    pub(crate) p50: f64,
    /// What all but one in a hundred did not exceed.
    pub(crate) p99: f64,
}

impl Quantiles {
    /// Of samples in seconds, in any order.
    pub(crate) fn of_seconds(mut samples: Vec<f64>) -> Option<Self> {
        samples.sort_by(f64::total_cmp);
        Some(Quantiles {
            p50: quantile(&samples, 0.5)? * 1e3,
            p99: quantile(&samples, 0.99)? * 1e3,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_median_is_the_middle_or_between_the_two_middle_ones() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
    }

    #[test]
    fn a_quantile_is_a_sample_by_nearest_rank() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(quantile(&hundred, 0.5), Some(50.0));
        assert_eq!(quantile(&hundred, 0.99), Some(99.0));
        assert_eq!(quantile(&hundred, 1.0), Some(100.0));
        assert_eq!(quantile(&[7.0], 0.99), Some(7.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn a_ratio_to_nothing_says_nothing() {
        assert_eq!(ratio(1.0, 4.0), Some(0.25));
        assert_eq!(ratio(1.0, 0.0), None);
        assert_eq!(ratio(f64::NAN, 1.0), None);
    }

    #[test]
    fn rounds_without_the_figure_do_not_count() {
        let spread = Spread::of([Some(2.0), None, Some(10.0), Some(3.0)]).unwrap();
        assert_eq!(spread, Spread { median: 3.0, min: 2.0, max: 10.0 });
        assert_eq!(Spread::of([None, None]), None);
        assert_eq!(
            Spread { median: 1234.5, min: 0.25, max: 99.94 }.to_string(),
            "1234 (0.250 - 99.9)"
        );
    }

    #[test]
    fn latencies_are_told_in_milliseconds() {
        let told = Quantiles::of_seconds(vec![0.003, 0.001, 0.002]).unwrap();
        assert!((told.p50 - 2.0).abs() < 1e-9 && (told.p99 - 3.0).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn median_and_quantiles_stay_within_the_samples(samples in prop::collection::vec(0.0..1e6_f64, 1..50), q in 0.0..1.0_f64) {
            let spread = Spread::of(samples.iter().copied().map(Some)).unwrap();
            prop_assert!(spread.min <= spread.median && spread.median <= spread.max);
            let mut sorted = samples.clone();
            sorted.sort_by(f64::total_cmp);
            let value = quantile(&sorted, q).unwrap();
            prop_assert!(samples.contains(&value));
        }
    }
}
