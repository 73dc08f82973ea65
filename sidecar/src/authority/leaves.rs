//! Leaves that were minted, by name, within a bound.
//!
//! Two generations: what is asked for moves to the young one; when that is full it becomes the old one, and what nobody asked for since is forgotten. So an agent that walks
//! through names costs its own leaves, not those of hosts in use, and no lookup ever walks the cache. Invariant: at most [`MAX_LEAVES`], and one cell per name, so that
//! connections which ask for one name at once wait for one mint.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::ServerConfig;
use time::{Duration, OffsetDateTime};
use tokio::sync::OnceCell;

/// Most leaves that are kept, in both generations together. About 3 KiB a leaf.
pub(super) const MAX_LEAVES: usize = 1024;
/// Minutes before its end from which a leaf is not presented to new connections.
const LAST_MINUTES: i64 = 60;

/// A minted leaf as rustls presents it.
pub(super) struct Leaf {
    pub(super) config: Arc<ServerConfig>,
    pub(super) not_after: OffsetDateTime,
}

/// The place of one name's leaf: empty until it is minted.
pub(super) type LeafCell = Arc<OnceCell<Leaf>>;

/// Cells by name.
#[derive(Default)]
pub(super) struct Leaves(Mutex<Generations>);

#[derive(Default)]
struct Generations {
    young: HashMap<Box<str>, LeafCell>,
    old: HashMap<Box<str>, LeafCell>,
}

impl Leaves {
    /// The cell for a name. A leaf that ends soon has made room for a fresh one.
    pub(super) fn cell(&self, name: &str, now: OffsetDateTime) -> LeafCell {
        // Whole entries only are put in and taken out, so the maps are valid whatever a panicking holder did.
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |cell: &LeafCell| {
            cell.get()
                .is_none_or(|leaf| leaf.not_after > now + Duration::minutes(LAST_MINUTES))
        };
        if let Some(cell) = generations.young.get(name).filter(|cell| fresh(cell)) {
            return cell.clone();
        }
        let kept = generations.old.remove(name).filter(fresh);
        let cell = kept.unwrap_or_default();
        generations.insert(name, cell.clone());
        cell
    }
}

impl Generations {
    fn insert(&mut self, name: &str, cell: LeafCell) {
        if self.young.len() >= MAX_LEAVES / 2 {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(name.into(), cell);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_use_outlive_any_number_of_others() {
        let (leaves, now) = (Leaves::default(), OffsetDateTime::now_utc());
        let used = leaves.cell("used.example.com", now);
        for number in 0..10 * MAX_LEAVES {
            leaves.cell(&format!("{number}.example.com"), now);
            if number % 100 == 0 {
                assert!(Arc::ptr_eq(&used, &leaves.cell("used.example.com", now)));
            }
        }
        let generations = leaves.0.lock().unwrap();
        assert!(generations.young.len() + generations.old.len() <= MAX_LEAVES);
    }

    #[test]
    fn names_that_nobody_asks_for_are_forgotten() {
        let (leaves, now) = (Leaves::default(), OffsetDateTime::now_utc());
        let once = leaves.cell("once.example.com", now);
        for number in 0..MAX_LEAVES {
            leaves.cell(&format!("{number}.example.com"), now);
        }
        assert!(!Arc::ptr_eq(&once, &leaves.cell("once.example.com", now)));
    }
}
