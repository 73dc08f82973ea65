//! Addresses that lately did not answer while there was another, so that only the first connection waits for them.
//!
//! Invariant: an address is known for [`SILENT_FOR`] at most, and [`MAX_SILENT`] at most are; what is not known is waited for.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How long an address is believed to stay silent. Short, because the name's order of addresses means something: this is what it takes to go back to the first.
const SILENT_FOR: Duration = Duration::from_secs(30);
/// Most addresses that are remembered. Each took a wait to become known; beyond, each connection waits.
const MAX_SILENT: usize = 256;

/// Where no answer came, and when that was known.
#[derive(Debug, Default)]
pub struct Silent(Mutex<HashMap<SocketAddr, Instant>>);

impl Silent {
    /// Whether a place was silent lately.
    pub(super) fn knows(&self, place: SocketAddr) -> bool {
        self.knew(place, Instant::now())
    }

    pub(super) fn remember(&self, place: SocketAddr) {
        self.learn(place, Instant::now());
    }

    /// It has answered.
    pub(super) fn forget(&self, place: SocketAddr) {
        self.lock().remove(&place);
    }

    fn knew(&self, place: SocketAddr, now: Instant) -> bool {
        self.lock()
            .get(&place)
            .is_some_and(|since| is_fresh(*since, now))
    }

    fn learn(&self, place: SocketAddr, now: Instant) {
        let mut known = self.lock();
        known.retain(|_, since| is_fresh(*since, now));
        if known.len() < MAX_SILENT {
            known.insert(place, now);
        }
    }

    /// A poisoned lock is taken all the same: each change is one assignment.
    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_fresh(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) < SILENT_FOR
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_silent_for_a_while_or_until_it_answers_and_by_its_port() {
        let (silent, now) = (Silent::default(), Instant::now());
        let place = |port| SocketAddr::from(([192, 0, 2, 1], port));
        silent.learn(place(80), now);
        silent.learn(place(81), now);
        silent.forget(place(81));
        let later = now + SILENT_FOR;
        assert!(silent.knew(place(80), later - Duration::from_millis(1)));
        assert!(!silent.knew(place(80), later), "it gets another try");
        assert!(!silent.knew(place(81), now), "it answered");
        assert!(!silent.knew(place(82), now), "nobody asked it");
    }

    #[test]
    fn places_are_bounded_and_old_ones_make_room() {
        let (silent, now) = (Silent::default(), Instant::now());
        let place = |number: u32| SocketAddr::from((number.to_be_bytes(), 80));
        for number in 0..1_000 {
            silent.learn(place(number), now);
        }
        assert_eq!(silent.lock().len(), MAX_SILENT);
        silent.learn(place(1_000), now + SILENT_FOR);
        assert_eq!(silent.lock().len(), 1);
    }
}
