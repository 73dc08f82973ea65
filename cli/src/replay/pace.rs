//! When a record is due while a session plays: a function of the records' times, without a clock.

use std::time::Duration;

/// How fast a session plays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pace {
    /// Seconds of the session in a second.
    pub(super) speed: f64,
    /// Longest wait between two records. None: as long as it was.
    pub(super) longest: Option<Duration>,
}

/// How far it has played.
#[derive(Debug)]
pub(super) struct Played {
    pace: Pace,
    /// Latest time of a record so far, in microseconds since the session's first.
    reached: Option<i64>,
    due: Duration,
}

impl Played {
    pub(super) fn nothing(pace: Pace) -> Self {
        Self {
            pace,
            reached: None,
            due: Duration::ZERO,
        }
    }

    /// How long after the start of playing a record of this time is due, in microseconds since the session's first. What has no time, or one that has
    /// been, is due with the one before it.
    pub(super) fn due(&mut self, at: Option<i64>) -> Duration {
        let Some(at) = at else {
            return self.due;
        };
        let reached = self.reached.unwrap_or(at);
        let ahead = at.saturating_sub(reached);
        self.reached = Some(at.max(reached));
        self.due = self.due.saturating_add(self.wait(ahead));
        self.due
    }

    fn wait(&self, ahead_us: i64) -> Duration {
        let ahead = Duration::from_micros(u64::try_from(ahead_us).unwrap_or(0));
        let played = ahead.as_secs_f64() / self.pace.speed;
        let wait = Duration::try_from_secs_f64(played).unwrap_or(Duration::MAX);
        self.pace.longest.map_or(wait, |longest| wait.min(longest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dues(speed: f64, longest: Option<u64>, times: &[Option<i64>]) -> Vec<u128> {
        let longest = longest.map(Duration::from_millis);
        let mut played = Played::nothing(Pace { speed, longest });
        let due = times.iter().map(|at| played.due(*at).as_millis());
        due.collect()
    }

    #[test]
    fn records_are_due_as_far_apart_as_they_were_at_the_speed_that_was_asked_for() {
        let times = [Some(0), Some(1_000_000), Some(5_000_000)];
        assert_eq!(dues(1.0, None, &times), [0, 1_000, 5_000]);
        assert_eq!(dues(4.0, None, &times), [0, 250, 1_250]);
        assert_eq!(dues(0.5, None, &times), [0, 2_000, 10_000]);
        assert_eq!(dues(1.0, Some(1_500), &times), [0, 1_000, 2_500]);
        assert_eq!(dues(1.0, Some(0), &times), [0, 0, 0]);
    }

    #[test]
    fn clocks_that_go_back_and_records_without_a_time_wait_for_nothing() {
        let times = [Some(3_000_000), Some(-9_000_000), None, Some(4_000_000)];
        assert_eq!(dues(1.0, None, &times), [0, 0, 0, 1_000]);
        let ends = [Some(i64::MIN), Some(i64::MAX), Some(i64::MIN)];
        assert_eq!(dues(1e-300, None, &ends)[1], Duration::MAX.as_millis());
    }
}
