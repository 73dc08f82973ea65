//! Playing a session: where it stands, and where a key or the passing of time brings it. Functions of the entries' times and a clock's value, without a terminal.
//!
//! Invariant: there is always a current entry, and it is one that the filter shows.

use std::time::Duration;

use chaperone_index::timeline::Place;

use super::pace::Pace;

/// How slow and how fast a session can be played by key.
const SLOWEST: f64 = 0.25;
const FASTEST: f64 = 64.0;
/// Longest wait while idle time is skipped, unless the command line says another.
const IDLE: Duration = Duration::from_secs(2);

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    PlayOrPause,
    Next,
    Back,
    NextTurn,
    PreviousTurn,
    First,
    Last,
    Faster,
    Slower,
    SkipIdle,
}

#[derive(Debug)]
pub(super) struct Player {
    entries: Vec<Entry>,
    /// Which entries are shown, in order; never empty.
    shown: Vec<usize>,
    /// The current one, among `shown`.
    at: usize,
    playing: bool,
    speed: f64,
    idle: Duration,
    skips_idle: bool,
    /// How far it has played, in microseconds since the session's first record.
    position: i64,
    /// What the clock said last.
    clock: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// When it is due: its time, or that of one before it where a clock went back or it has none.
    due: i64,
    turn: u64,
}

impl Player {
    /// At the first entry; plays at once where a pace is given. None where there is no entry.
    pub(super) fn new(places: impl Iterator<Item = Place>, pace: Option<Pace>) -> Option<Self> {
        let mut latest = None;
        let entries: Vec<_> = places
            .map(|place| {
                latest = latest.max(place.at);
                Entry {
                    due: latest.unwrap_or_default(),
                    turn: place.turn.number,
                }
            })
            .collect();
        let first = entries.first()?.due;
        let longest = pace.and_then(|pace| pace.longest);
        Some(Self {
            shown: (0..entries.len()).collect(),
            entries,
            at: 0,
            playing: pace.is_some(),
            speed: pace.map_or(1.0, |pace| pace.speed.clamp(SLOWEST, FASTEST)),
            idle: longest.unwrap_or(IDLE),
            skips_idle: longest.is_some(),
            position: first,
            clock: Duration::ZERO,
        })
    }

    /// Number of the current entry, among all.
    pub(super) fn current(&self) -> usize {
        self.shown.get(self.at).copied().unwrap_or_default()
    }

    /// Entries that are shown, and which of them is the current one.
    pub(super) fn shown(&self) -> (&[usize], usize) {
        (&self.shown, self.at)
    }

    pub(super) fn is_playing(&self) -> bool {
        self.playing
    }

    pub(super) fn speed(&self) -> f64 {
        self.speed
    }

    /// Longest wait, while idle time is skipped.
    pub(super) fn longest(&self) -> Option<Duration> {
        self.skips_idle.then_some(self.idle)
    }

    /// How far it has played, in microseconds since the session's first record.
    pub(super) fn position(&self) -> i64 {
        self.position
    }

    /// The clock says `now`: goes on as far as is due.
    pub(super) fn tick(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.clock);
        self.clock = now;
        if !self.playing {
            return;
        }
        self.skip();
        self.position = self.position.saturating_add(self.micros(passed));
        while let Some(next) = self.due(self.at.saturating_add(1))
            && next <= self.position
        {
            self.at = self.at.saturating_add(1);
        }
        self.skip();
        if self.is_at_end() {
            self.playing = false;
            self.position = self.due(self.at).unwrap_or(self.position);
        }
    }

    pub(super) fn go(&mut self, step: Move) {
        let last = self.shown.len().saturating_sub(1);
        match step {
            Move::PlayOrPause => {
                if !self.playing && self.is_at_end() {
                    self.jump(0);
                }
                self.playing = !self.playing && !self.is_at_end();
            }
            Move::Next => self.jump(self.at.saturating_add(1).min(last)),
            Move::Back => self.jump(self.at.saturating_sub(1)),
            Move::NextTurn => {
                let turn = self.turn(self.at);
                let next = (self.at..=last).find(|at| self.turn(*at) > turn);
                self.jump(next.unwrap_or(last));
            }
            Move::PreviousTurn => self.jump(self.beginning_before()),
            Move::First => self.jump(0),
            Move::Last => self.jump(last),
            Move::Faster => self.speed = (self.speed * 2.0).min(FASTEST),
            Move::Slower => self.speed = (self.speed / 2.0).max(SLOWEST),
            Move::SkipIdle => self.skips_idle = !self.skips_idle,
        }
    }

    /// Goes to the next entry (or the one before) that matches, round the end. False where none does.
    pub(super) fn find(&mut self, back: bool, mut matches: impl FnMut(usize) -> bool) -> bool {
        let count = self.shown.len();
        let found = (1..=count).find_map(|step| {
            let step = if back {
                count.saturating_sub(step)
            } else {
                step
            };
            let at = self.at.saturating_add(step).checked_rem(count)?;
            self.shown.get(at).filter(|entry| matches(**entry))?;
            Some(at)
        });
        if let Some(at) = found {
            self.playing = false;
            self.jump(at);
        }
        found.is_some()
    }

    /// Shows only entries that match. False, and nothing changes, where none does.
    pub(super) fn filter(&mut self, mut matches: impl FnMut(usize) -> bool) -> bool {
        let shown: Vec<_> = (0..self.entries.len())
            .filter(|entry| matches(*entry))
            .collect();
        if shown.is_empty() {
            return false;
        }
        let current = self.current();
        let before = shown.partition_point(|entry| *entry <= current);
        self.shown = shown;
        self.jump(before.saturating_sub(1));
        true
    }

    /// Goes so near to the next entry that it is not waited for longer than it may be.
    fn skip(&mut self) {
        if let (Some(next), Some(longest)) = (self.due(self.at.saturating_add(1)), self.longest()) {
            let latest = next.saturating_sub(self.micros(longest));
            self.position = self.position.max(latest);
        }
    }

    /// Where the current turn begins, or the one before if that is here.
    fn beginning_before(&self) -> usize {
        let before = self.at.saturating_sub(1);
        let turn = self.turn(before);
        (0..=before)
            .find(|at| self.turn(*at) == turn)
            .unwrap_or_default()
    }

    fn jump(&mut self, at: usize) {
        self.at = at;
        self.position = self.due(at).unwrap_or(self.position);
    }

    fn is_at_end(&self) -> bool {
        self.at.saturating_add(1) >= self.shown.len()
    }

    fn entry(&self, at: usize) -> Option<&Entry> {
        self.shown
            .get(at)
            .and_then(|entry| self.entries.get(*entry))
    }

    fn due(&self, at: usize) -> Option<i64> {
        self.entry(at).map(|entry| entry.due)
    }

    fn turn(&self, at: usize) -> u64 {
        self.entry(at).map_or(0, |entry| entry.turn)
    }

    /// What of the session is played in this time. A float beyond the integers becomes the greatest of them.
    fn micros(&self, time: Duration) -> i64 {
        (time.as_secs_f64() * self.speed * 1e6) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chaperone_index::timeline::Turn;

    /// Seconds and turns.
    fn player(entries: &[(i64, u64)], pace: Option<(f64, Option<u64>)>) -> Player {
        let places = entries.iter().map(|(at, number)| Place {
            at: Some(at * 1_000_000),
            turn: Turn {
                number: *number,
                at: None,
            },
        });
        let pace = pace.map(|(speed, longest)| Pace {
            speed,
            longest: longest.map(Duration::from_secs),
        });
        Player::new(places, pace).unwrap()
    }

    const SESSION: [(i64, u64); 6] = [(0, 0), (1, 1), (2, 1), (3, 2), (63, 2), (64, 3)];

    fn tick(player: &mut Player, ms: u64) -> usize {
        player.tick(Duration::from_millis(ms));
        player.current()
    }

    #[test]
    fn entries_come_when_they_are_due() {
        let mut player = player(&SESSION, None);
        assert_eq!(tick(&mut player, 5_000), 0, "it stands until it is played");
        player.go(Move::PlayOrPause);
        assert_eq!(tick(&mut player, 5_999), 0);
        assert_eq!(tick(&mut player, 6_000), 1);
        player.go(Move::PlayOrPause);
        assert_eq!(tick(&mut player, 60_000), 1, "paused");
        player.go(Move::PlayOrPause);
        player.go(Move::Faster);
        player.go(Move::Faster);
        assert_eq!(tick(&mut player, 60_500), 3, "2 s in half of one");
        assert_eq!(tick(&mut player, 90_000), 5);
        assert!(!player.is_playing(), "it ends at the end");
        assert_eq!(player.position(), 64_000_000);
        player.go(Move::PlayOrPause);
        assert_eq!((player.current(), player.is_playing()), (0, true));
    }

    #[test]
    fn idle_time_is_skipped_to_what_was_asked_for() {
        let mut player = player(&SESSION, Some((1.0, Some(2))));
        assert_eq!(tick(&mut player, 3_000), 3);
        assert_eq!(tick(&mut player, 4_900), 3);
        assert_eq!(tick(&mut player, 5_000), 4, "a minute in 2 s");
        player.go(Move::First);
        player.go(Move::SkipIdle);
        assert_eq!(player.longest(), None);
        assert_eq!(tick(&mut player, 8_000), 3);
        assert_eq!(tick(&mut player, 20_000), 3);
    }

    #[test]
    fn steps_and_turns_stay_within_the_session() {
        let mut player = player(&SESSION, None);
        let mut go = |step| {
            player.go(step);
            player.current()
        };
        assert_eq!(go(Move::Back), 0);
        assert_eq!(go(Move::NextTurn), 1);
        assert_eq!(go(Move::NextTurn), 3);
        assert_eq!(go(Move::Next), 4);
        assert_eq!(go(Move::PreviousTurn), 3, "where this turn begins");
        assert_eq!(go(Move::PreviousTurn), 1, "where the one before does");
        assert_eq!(go(Move::Last), 5);
        assert_eq!(go(Move::Next), 5);
        assert_eq!(go(Move::NextTurn), 5);
        assert_eq!(go(Move::First), 0);
        assert_eq!(go(Move::PreviousTurn), 0);
        for _ in 0..20 {
            player.go(Move::Faster);
        }
        assert_eq!(player.speed(), FASTEST);
        for _ in 0..20 {
            player.go(Move::Slower);
        }
        assert_eq!(player.speed(), SLOWEST);
    }

    #[test]
    fn searching_goes_round_and_says_when_there_is_nothing() {
        let mut player = player(&SESSION, None);
        let is_even = |entry: usize| entry.is_multiple_of(2);
        for (back, current) in [(false, 2), (false, 4), (false, 0), (true, 4), (true, 2)] {
            assert!(player.find(back, is_even));
            assert_eq!(player.current(), current);
        }
        assert!(player.find(true, |entry| entry == 2), "only here");
        assert!(!player.find(false, |_| false));
        assert_eq!(player.current(), 2);
    }

    #[test]
    fn a_filter_leaves_what_matches_and_stays_near() {
        let mut player = player(&SESSION, None);
        player.go(Move::Last);
        assert!(player.filter(|entry| entry < 4 && entry != 0));
        assert_eq!((player.current(), player.shown().0.len()), (3, 3));
        player.go(Move::PreviousTurn);
        assert_eq!(player.current(), 1);
        assert!(!player.filter(|_| false));
        assert_eq!(player.shown().0, [1, 2, 3]);
        assert!(player.filter(|_| true));
        assert_eq!(player.current(), 1);
    }

    #[test]
    fn times_that_are_missing_go_back_or_are_far_away_break_nothing() {
        let far = i64::MAX / 1_000_000;
        let mut player = player(&[(5, 0), (1, 0), (far, 1)], Some((64.0, None)));
        assert_eq!(tick(&mut player, 0), 1, "a clock that went back is due");
        assert_eq!(tick(&mut player, u64::MAX), 2);
        let none = Place {
            at: None,
            turn: Turn::default(),
        };
        let player = Player::new([none, none].into_iter(), None).unwrap();
        assert_eq!(player.position(), 0);
        assert!(Player::new(std::iter::empty(), None).is_none());
    }
}
