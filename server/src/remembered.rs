//! Verdicts that hold for a while.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A bounded memory of values, each with its own end.
#[derive(Debug)]
pub struct Remembered<K, T> {
    most: usize,
    known: Mutex<HashMap<K, (T, Instant)>>,
}

impl<K: Eq + Hash, T: Clone> Remembered<K, T> {
    /// A memory of at most so many values; beyond it, those that ran out go first, then all.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            most,
            known: Mutex::default(),
        }
    }

    /// The value, if it is there and has not run out.
    pub fn get(&self, key: &K) -> Option<T> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (value, until) = known.get(key)?;
        (Instant::now() < *until).then(|| value.clone())
    }

    /// Remembers a value for this long.
    pub fn put(&self, key: K, value: T, life: Duration) {
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= self.most {
            known.retain(|_, (_, until)| now < *until);
        }
        if known.len() >= self.most {
            known.clear();
        }
        known.insert(key, (value, now + life));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_there_until_it_runs_out() {
        let memory = Remembered::new(10);
        memory.put("a", 1, Duration::from_secs(60));
        memory.put("b", 2, Duration::ZERO);
        assert_eq!((memory.get(&"a"), memory.get(&"b")), (Some(1), None));
    }

    #[test]
    fn it_never_holds_more_than_its_most() {
        let memory = Remembered::new(3);
        memory.put(0, 0, Duration::from_secs(60));
        for key in 1..4 {
            memory.put(key, key, Duration::ZERO);
        }
        // Those that ran out went, the first stayed.
        assert_eq!(memory.get(&0), Some(0));
        for key in 4..100 {
            memory.put(key, key, Duration::from_secs(60));
            assert!(memory.known.lock().unwrap().len() <= 3);
        }
    }
}
