//! Which names led to which addresses.
//!
//! Owns the memory of answers, and of the hosts file as it was at start, by
//! address and by name.
//! Refuses to know a name that only an alias mentioned: the name that was asked
//! is the one that counts, or whoever controls one zone could speak for another.
//!
//! Invariant: at most [`MAX_ADDRESSES`] addresses with [`MAX_NAMES`] names each
//! are remembered, and at most [`MAX_LED`] names with [`MAX_NAMES`] addresses
//! each, whatever is asked; the least recently used go first.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Hosts;

/// Most addresses remembered. At some 200 bytes each, 13 MiB.
const MAX_ADDRESSES: usize = 65_536;

/// Most names remembered for one address. Shared front ends of large providers
/// have more, but one pod asks for few of them.
const MAX_NAMES: usize = 16;

/// Most names whose addresses are remembered. At some 400 bytes each, 2 MiB.
const MAX_LED: usize = 4_096;

/// Shortest time an answer is remembered. Clients connect some time after they
/// asked, also when the time to live is 0.
const MIN_TTL: Duration = Duration::from_secs(60);

/// Longest time an answer is remembered, whatever its time to live says.
const MAX_TTL: Duration = Duration::from_secs(24 * 3600);

/// Names by address.
#[derive(Debug)]
pub struct Names {
    hosts: HashMap<IpAddr, Vec<Arc<str>>>,
    learned: Mutex<Memory>,
}

/// What answers said.
#[derive(Debug)]
struct Memory {
    names: Generations<IpAddr, Learned>,
    /// Where names led, the latest last. Whether it still holds, `names` says.
    addresses: Generations<Arc<str>, IpAddr>,
}

/// Two generations: what is used moves to the young one; when that is full, it
/// becomes the old one, and what was still old is forgotten.
#[derive(Debug)]
struct Generations<K, V> {
    young: HashMap<K, Vec<V>>,
    old: HashMap<K, Vec<V>>,
    /// Most keys of one generation.
    limit: usize,
}

#[derive(Clone, Debug)]
struct Learned {
    name: Arc<str>,
    until: Instant,
}

impl Names {
    /// Knows the hosts file for good and nothing else yet.
    pub fn new(hosts: Hosts) -> Self {
        Self::with_limit(hosts, MAX_ADDRESSES)
    }

    fn with_limit(hosts: Hosts, addresses: usize) -> Self {
        let mut by_address: HashMap<IpAddr, Vec<Arc<str>>> = HashMap::new();
        for (address, name) in hosts.entries() {
            by_address
                .entry(*address)
                .or_default()
                .push(name.as_str().into());
        }
        Self {
            hosts: by_address,
            learned: Mutex::new(Memory {
                names: Generations::new(addresses / 2),
                addresses: Generations::new(MAX_LED / 2),
            }),
        }
    }

    /// Names that led to this address, the latest answer first, then those of
    /// the hosts file.
    pub fn names_for(&self, address: IpAddr) -> Vec<Arc<str>> {
        self.names_at(address, Instant::now())
    }

    /// Whether this name led to this address: an answer said so that is not
    /// outdated, or the hosts file. Names compare without case or final dot.
    pub fn agrees(&self, name: &str, address: IpAddr) -> bool {
        let name = normalize(name);
        let address = address.to_canonical();
        // Asked for each request in clear text: without a list of names, and without the lock where the hosts file says it.
        let hosts = self.hosts.get(&address).into_iter().flatten();
        if hosts.map(|known| &**known).any(|known| *known == *name) {
            return true;
        }
        let now = Instant::now();
        self.lock().agrees(&name, address, now)
    }

    /// Other addresses that this name led to, as [`Self::agrees`] says it, the
    /// latest answer first, then those of the hosts file. None where the name did
    /// not lead to `address`.
    pub fn others(&self, name: &str, address: IpAddr) -> Vec<IpAddr> {
        self.others_at(name, address, Instant::now())
    }

    /// Remembers that `name` was answered with `address`.
    pub(super) fn learn(&self, name: &str, address: IpAddr, ttl: Duration) {
        self.learn_at(name, address, ttl, Instant::now());
    }

    fn names_at(&self, address: IpAddr, now: Instant) -> Vec<Arc<str>> {
        let address = address.to_canonical();
        let mut learned = self.lock();
        let mut names: Vec<Arc<str>> = learned
            .names
            .touch(&address)
            .into_iter()
            .flatten()
            .rev()
            .filter(|entry| entry.until > now)
            .map(|entry| Arc::clone(&entry.name))
            .collect();
        names.extend(self.hosts.get(&address).into_iter().flatten().cloned());
        names
    }

    fn others_at(&self, name: &str, address: IpAddr, now: Instant) -> Vec<IpAddr> {
        let name = normalize(name);
        let mut found = self.lock().led(&name, now);
        let known = self
            .hosts
            .iter()
            .filter(|(_, names)| names.iter().any(|known| **known == *name));
        let mut known: Vec<IpAddr> = known.map(|(address, _)| *address).collect();
        known.retain(|address| !found.contains(address));
        // In one order, whatever the map's is.
        known.sort_unstable();
        found.append(&mut known);
        let address = address.to_canonical();
        let before = found.len();
        found.retain(|other| *other != address);
        match found.len() < before {
            true => found,
            false => Vec::new(),
        }
    }

    fn learn_at(&self, name: &str, address: IpAddr, ttl: Duration, now: Instant) {
        let address = address.to_canonical();
        let name = normalize(name);
        let until = now.checked_add(ttl.clamp(MIN_TTL, MAX_TTL)).unwrap_or(now);
        let mut learned = self.lock();
        let name: Arc<str> = name.into();
        let mut entries = learned.names.take(&address);
        entries.retain(|entry| entry.until > now && entry.name != name);
        let entry = Learned {
            name: Arc::clone(&name),
            until,
        };
        push_bounded(&mut entries, entry);
        learned.names.put(address, entries);
        let mut led = learned.addresses.take(&name);
        led.retain(|known| *known != address);
        push_bounded(&mut led, address);
        learned.addresses.put(name, led);
    }

    /// A poisoned lock is taken all the same: each change is one assignment.
    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn agrees(&mut self, name: &str, address: IpAddr, now: Instant) -> bool {
        let entries = self.names.touch(&address).into_iter().flatten();
        entries
            .filter(|entry| entry.until > now)
            .any(|entry| *entry.name == *name)
    }

    /// Addresses that the name led to, the latest first.
    fn led(&mut self, name: &str, now: Instant) -> Vec<IpAddr> {
        let mut led = self.addresses.touch(name).cloned().unwrap_or_default();
        led.reverse();
        led.retain(|address| self.agrees(name, *address, now));
        led
    }
}

impl<K: Eq + Hash, V> Generations<K, V> {
    fn new(limit: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            limit,
        }
    }

    fn take<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Vec<V>
    where
        K: Borrow<Q>,
    {
        let old = self.old.remove(key);
        self.young.remove(key).or(old).unwrap_or_default()
    }

    fn put(&mut self, key: K, entries: Vec<V>) {
        if self.young.len() >= self.limit {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, entries);
    }

    fn touch<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<&Vec<V>>
    where
        K: Borrow<Q>,
    {
        if let Some((key, entries)) = self.old.remove_entry(key) {
            self.put(key, entries);
        }
        self.young.get(key)
    }
}

/// Adds one; the oldest makes room.
fn push_bounded<V>(entries: &mut Vec<V>, entry: V) {
    if entries.len() >= MAX_NAMES {
        entries.remove(0);
    }
    entries.push(entry);
}

/// Lower case, without the final dot.
pub(super) fn normalize(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn text(names: Vec<Arc<str>>) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn an_address_has_the_names_that_led_to_it_latest_first() {
        let names = Names::new(Hosts::parse(b"10.0.0.1 from-hosts"));
        names.learn("One.example.", ip("10.0.0.1"), MAX_TTL);
        names.learn("two.example", ip("10.0.0.1"), MAX_TTL);
        names.learn("one.example", ip("10.0.0.1"), MAX_TTL);
        assert_eq!(
            text(names.names_for(ip("10.0.0.1"))),
            ["one.example", "two.example", "from-hosts"]
        );
        assert!(names.agrees("TWO.example.", ip("10.0.0.1")));
        assert!(
            names.agrees("two.example", ip("::ffff:10.0.0.1")),
            "mapped is the same address"
        );
        assert!(!names.agrees("two.example", ip("10.0.0.2")));
        assert!(!names.agrees("example", ip("10.0.0.1")));
    }

    #[test]
    fn an_answer_is_remembered_a_minute_at_least_and_a_day_at_most() {
        let names = Names::new(Hosts::default());
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        names.learn_at("short", ip("::1"), Duration::ZERO, now);
        names.learn_at(
            "long",
            ip("::2"),
            Duration::from_secs(u64::from(u32::MAX)),
            now,
        );
        assert_eq!(names.names_at(ip("::1"), after(59)).len(), 1);
        assert_eq!(names.names_at(ip("::1"), after(61)).len(), 0);
        assert_eq!(names.names_at(ip("::2"), after(24 * 3600 - 1)).len(), 1);
        assert_eq!(names.names_at(ip("::2"), after(24 * 3600 + 1)).len(), 0);
    }

    #[test]
    fn memory_is_bounded_and_what_is_used_stays() {
        let names = Names::with_limit(Hosts::default(), 100);
        let address = |number: u32| IpAddr::from(number.to_be_bytes());
        for number in 0..10_000 {
            names.learn("busy", address(number), MAX_TTL);
            names.names_for(address(0));
        }
        let held = {
            let learned = names.lock();
            learned.names.young.len() + learned.names.old.len()
        };
        assert!(held <= 100, "{held}");
        assert!(names.agrees("busy", address(0)));
        assert!(!names.agrees("busy", address(1)));
        for number in 0..1_000 {
            names.learn(&format!("name-{number}"), address(0), MAX_TTL);
        }
        assert_eq!(names.names_for(address(0)).len(), MAX_NAMES);
        for number in 0..10_000 {
            names.learn(&format!("name-{number}"), address(number), MAX_TTL);
        }
        let learned = names.lock();
        let held = learned.addresses.young.len() + learned.addresses.old.len();
        assert!(held <= MAX_LED, "{held}");
    }

    #[test]
    fn a_name_has_the_other_addresses_that_it_led_to_as_long_as_they_hold() {
        let names = Names::new(Hosts::parse(b"10.0.0.9 dual.example\n10.0.0.8 other"));
        let now = Instant::now();
        let learn = |name, at, seconds| {
            names.learn_at(name, ip(at), Duration::from_secs(seconds), now);
        };
        learn("dual.example", "2001:db8::1", 300);
        learn("dual.example", "10.0.0.1", 300);
        learn("dual.example", "10.0.0.2", 60);
        learn("alias.example", "10.0.0.3", 300);
        let others = |name: &str, at: &str, seconds| -> Vec<String> {
            let later = now + Duration::from_secs(seconds);
            let others = names.others_at(name, ip(at), later);
            others.iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            others("Dual.example.", "2001:db8::1", 1),
            ["10.0.0.2", "10.0.0.1", "10.0.0.9"]
        );
        assert_eq!(
            others("dual.example", "2001:db8::1", 100),
            ["10.0.0.1", "10.0.0.9"]
        );
        assert_eq!(others("dual.example", "10.0.0.9", 301), [""; 0]);
        assert_eq!(
            others("dual.example", "10.0.0.3", 1),
            [""; 0],
            "not where the name led"
        );
        assert_eq!(others("alias.example", "10.0.0.3", 1), [""; 0]);
    }
}
