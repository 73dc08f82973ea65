//! Who is logged in: in memory only, bounded in number and time.
//!
//! Owns names of logins and how long they hold. A login holds the token that was given; whether that is still accepted is asked with each page. Invariant: a login's name is 256 random bits that only the browser has; here stands its hash.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};

use crate::{
    random,
    refusal::{Code, Refusal},
};

/// Logins that hold at a time, and those of one user: the oldest of the user's makes room.
const MAX_LOGINS: usize = 1024;
const MAX_OF_USER: usize = 16;
/// How long one holds, and how long without a page. Most end before that: with their token, an hour long by default.
const LIFE: Duration = Duration::from_secs(12 * 60 * 60);
const IDLE: Duration = Duration::from_secs(60 * 60);
/// Tries to log in, of all together: so many at once, and then so many a second. Each asks the API server.
const TRIES: f64 = 30.0;
const TRIES_A_SECOND: f64 = 2.0;

/// Somebody who is logged in.
#[derive(Clone)]
pub(super) struct Login {
    pub(super) token: Arc<str>,
    pub(super) user: Arc<str>,
}

struct Held {
    login: Login,
    begun: Instant,
    seen: Instant,
}

type Name = [u8; 32];

/// All of them.
pub(super) struct Logins {
    held: Mutex<HashMap<Name, Held>>,
    /// Tries that are left, and when that was.
    tries: Mutex<(f64, Instant)>,
}

impl Default for Logins {
    fn default() -> Self {
        Self {
            held: Mutex::default(),
            tries: Mutex::new((TRIES, Instant::now())),
        }
    }
}

impl Logins {
    /// Whether one more login may be tried now.
    pub(super) fn may_try(&self) -> bool {
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, at) = *tries;
        let now = Instant::now();
        let more = now.duration_since(at).as_secs_f64() * TRIES_A_SECOND;
        let left = (left + more).min(TRIES);
        let has_room = left >= 1.0;
        *tries = (if has_room { left - 1.0 } else { left }, now);
        has_room
    }

    /// Begins a login. Its name, for the browser alone: 64 hex digits.
    ///
    /// # Errors
    /// Where there are too many.
    pub(super) fn begin(&self, token: String, user: String) -> Result<String, Refusal> {
        let name = random::name()?;
        let login = Login {
            token: token.into(),
            user: user.into(),
        };
        self.put(hash(&name), login, Instant::now())?;
        Ok(name)
    }

    fn put(&self, name: Name, login: Login, now: Instant) -> Result<(), Refusal> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, held| !held.is_over(now));
        let own = held
            .iter()
            .filter(|(_, held)| held.login.user == login.user);
        let own: Vec<_> = own.map(|(name, held)| (held.begun, *name)).collect();
        if own.len() >= MAX_OF_USER
            && let Some((_, oldest)) = own.iter().min()
        {
            held.remove(oldest);
        }
        if held.len() >= MAX_LOGINS {
            let why = format!("{MAX_LOGINS} logins hold already");
            return Err(Refusal::new(Code::Busy, why));
        }
        let entry = Held {
            login,
            begun: now,
            seen: now,
        };
        held.insert(name, entry);
        Ok(())
    }

    /// Who has this name.
    pub(super) fn find(&self, name: &str) -> Option<Login> {
        self.find_at(hash(name), Instant::now())
    }

    fn find_at(&self, name: Name, now: Instant) -> Option<Login> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let found = held.get_mut(&name)?;
        if found.is_over(now) {
            held.remove(&name);
            return None;
        }
        found.seen = now;
        Some(found.login.clone())
    }

    /// Ends a login.
    pub(super) fn end(&self, name: &str) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.remove(&hash(name));
    }

    /// How many hold.
    pub(super) fn count(&self) -> usize {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        held.retain(|_, held| !held.is_over(now));
        held.len()
    }
}

impl Held {
    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.begun) >= LIFE || now.duration_since(self.seen) >= IDLE
    }
}

fn hash(name: &str) -> Name {
    Sha256::digest(name).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(user: &str) -> Login {
        Login {
            token: "t".into(),
            user: user.into(),
        }
    }

    #[test]
    fn a_login_is_found_by_its_name_until_it_ends() {
        let logins = Logins::default();
        let name = logins.begin("token".to_owned(), "a".to_owned()).unwrap();
        assert_eq!(name.len(), 64);
        assert_eq!(&*logins.find(&name).unwrap().token, "token");
        assert!(logins.find("").is_none() && logins.find(&name[1..]).is_none());
        logins.end(&name);
        assert!(logins.find(&name).is_none());
        assert_ne!(logins.begin(String::new(), String::new()).unwrap(), name);
    }

    #[test]
    fn logins_end_when_nobody_looks_and_after_half_a_day() {
        let logins = Logins::default();
        let begin = Instant::now();
        logins.put([1; 32], login("a"), begin).unwrap();
        let mut at = begin;
        while at < begin + LIFE - IDLE {
            at += IDLE / 2;
            assert!(logins.find_at([1; 32], at).is_some());
        }
        assert!(logins.find_at([1; 32], begin + LIFE).is_none());
        logins.put([2; 32], login("a"), begin).unwrap();
        assert!(logins.find_at([2; 32], begin + IDLE).is_none());
    }

    #[test]
    fn logins_are_bounded_and_one_user_cannot_take_the_room_of_others() {
        let logins = Logins::default();
        let begin = Instant::now();
        for number in 0..=MAX_OF_USER {
            let name = [u8::try_from(number).unwrap(); 32];
            let at = begin + Duration::from_secs(number as u64);
            logins.put(name, login("a"), at).unwrap();
        }
        assert!(logins.find_at([0; 32], begin).is_none(), "the oldest went");
        assert!(logins.find_at([1; 32], begin).is_some());
        for number in 0..MAX_LOGINS - MAX_OF_USER {
            let name = hash(&number.to_string());
            logins.put(name, login(&number.to_string()), begin).unwrap();
        }
        let refused = logins.put([200; 32], login("x"), begin).unwrap_err();
        assert_eq!(refused.code, Code::Busy);
        let later = begin + IDLE + Duration::from_secs(60);
        assert!(logins.put([200; 32], login("x"), later).is_ok());
    }

    #[test]
    fn tries_are_bounded() {
        let logins = Logins::default();
        let tried = (0..100).filter(|_| logins.may_try()).count();
        assert!((30..40).contains(&tried), "{tried}");
    }
}
