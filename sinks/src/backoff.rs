//! How long a sink that failed is left alone: exponential with full jitter, so that a thousand sidecars do not come back in step.

use std::time::Duration;

/// Bound of the first wait.
const FIRST: Duration = Duration::from_millis(200);
/// Bound of all further waits.
const LONGEST: Duration = Duration::from_secs(30);
/// Bounds where repetition alone cannot help: settings, credentials, or a collector that refuses the batch.
const SLOW_FIRST: Duration = Duration::from_secs(15);
const SLOW_LONGEST: Duration = Duration::from_secs(300);
/// Longest wait that an answer's `Retry-After` can ask for.
pub const LONGEST_ASKED: Duration = Duration::from_secs(300);

/// Counts failures in a row.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after one more failure. `random` is uniform over all values.
    pub fn next(&mut self, slow: bool, random: u32) -> Duration {
        let (first, longest) = match slow {
            true => (SLOW_FIRST, SLOW_LONGEST),
            false => (FIRST, LONGEST),
        };
        let bound = first
            .saturating_mul(2_u32.saturating_pow(self.failures))
            .min(longest);
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

/// A random number; a fixed one where the system has none, since jitter is a courtesy.
#[must_use]
pub fn random() -> u32 {
    let mut bytes = [0x7f; 4];
    // A provider without randomness leaves the fixed number.
    let _ = rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut bytes);
    u32::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let mut backoff = Backoff::default();
        let bounds: Vec<_> = (0..9)
            .map(|_| backoff.next(false, u32::MAX).as_millis())
            .collect();
        assert_eq!(bounds[..4], [200, 400, 800, 1600]);
        assert_eq!(bounds[8], 30_000);
        assert_eq!(Backoff::default().next(true, u32::MAX), SLOW_FIRST);
    }

    #[test]
    fn jitter_reaches_down_to_nothing() {
        assert_eq!(Backoff::default().next(false, 0), Duration::ZERO);
    }
}
