//! Addresses that a name should not lead to.
//!
//! Owns two signs. An address that is nobody's on the network, or the pod's own, is no answer to a name from outside: loopback, link-local (so also metadata services), unspecified,
//! multicast. And a name that led to public addresses and now leads to a private one of the same family has been rebound: the classic way to make a client that trusts a name talk to
//! what the name's owner can't reach. A name that has always led to private addresses is an internal service, as private endpoints of clouds and split-horizon zones are.
//!
//! Refuses to decide: policy does. Exempt are names below the search list (the cluster's own) and `localhost`. Invariant: at most [`MAX_PUBLIC`] names are remembered.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::towards::below;

/// Most names whose public addresses are remembered, per address family. At some 100 bytes each, 1 MiB; when full, all are forgotten but what was seen in the half before.
const MAX_PUBLIC: usize = 8_192;

/// How long a name that led to a public address may not lead to a private one. Rebinding takes seconds; a service that really moves into the private network is let in after a day.
const PUBLIC_FOR: Duration = Duration::from_secs(24 * 3600);

/// What kind of place an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Never the answer to a name from outside.
    Nowhere,
    /// A private network.
    Private,
    /// The internet.
    Public,
}

/// Tells addresses that look wrong for their name.
#[derive(Debug, Default)]
pub(super) struct Rebinding {
    search: Vec<String>,
    own: Vec<IpAddr>,
    public: Mutex<Public>,
}

/// Names that led to public addresses, with family and time. Two generations, as in `names`.
#[derive(Debug, Default)]
struct Public {
    young: HashMap<(String, bool), Instant>,
    old: HashMap<(String, bool), Instant>,
}

// === impl Rebinding ===

impl Rebinding {
    /// Names below `search` are exempt.
    pub(super) fn new(search: &[String]) -> Self {
        Self {
            search: search.to_vec(),
            ..Self::default()
        }
    }

    /// Addresses of the pod itself.
    pub(super) fn set_own(&mut self, own: Vec<IpAddr>) {
        self.own = own.into_iter().map(|ip| ip.to_canonical()).collect();
    }

    /// Which of the addresses that `name` (lower case, without the final dot) was answered with look wrong. Remembers the public ones.
    pub(super) fn suspicious(&self, name: &str, addresses: &[IpAddr]) -> Vec<IpAddr> {
        self.suspicious_at(name, addresses, Instant::now())
    }

    fn suspicious_at(&self, name: &str, addresses: &[IpAddr], now: Instant) -> Vec<IpAddr> {
        if addresses.is_empty() || self.is_exempt(name) {
            return Vec::new();
        }
        let places: Vec<_> = addresses.iter().map(|ip| (*ip, self.place(*ip))).collect();
        let mut public = self.public.lock().unwrap_or_else(PoisonError::into_inner);
        for (ip, place) in &places {
            if *place == Place::Public {
                public.remember(name, ip.to_canonical().is_ipv4(), now);
            }
        }
        let wrong = places.into_iter().filter(|(ip, place)| match place {
            Place::Nowhere => true,
            Place::Private => public.knows(name, ip.to_canonical().is_ipv4(), now),
            Place::Public => false,
        });
        wrong.map(|(ip, _)| ip).collect()
    }

    /// Whether an address is nobody's on the network, or the pod's own.
    pub(super) fn is_nowhere(&self, ip: IpAddr) -> bool {
        self.place(ip) == Place::Nowhere
    }

    fn is_exempt(&self, name: &str) -> bool {
        name == "localhost"
            || below(name, "localhost").is_some()
            || self
                .search
                .iter()
                .any(|domain| below(name, domain).is_some())
    }

    fn place(&self, ip: IpAddr) -> Place {
        let ip = ip.to_canonical();
        if self.own.contains(&ip) {
            return Place::Nowhere;
        }
        match ip {
            IpAddr::V4(ip) => place_v4(ip),
            IpAddr::V6(ip) => place_v6(ip),
        }
    }
}

// === impl Public ===

impl Public {
    fn remember(&mut self, name: &str, v4: bool, now: Instant) {
        if self.young.len() >= MAX_PUBLIC / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert((name.to_owned(), v4), now);
    }

    fn knows(&self, name: &str, v4: bool, now: Instant) -> bool {
        let key = (name.to_owned(), v4);
        let since = self.young.get(&key).or_else(|| self.old.get(&key));
        since.is_some_and(|since| now.saturating_duration_since(*since) < PUBLIC_FOR)
    }
}

/// Ranges of RFC 6890.
fn place_v4(ip: Ipv4Addr) -> Place {
    let [a, b, ..] = ip.octets();
    let nowhere = a == 0 || ip.is_loopback() || ip.is_link_local() || ip.is_multicast() || a >= 240;
    // 100.64.0.0/10 is shared address space (RFC 6598), which clusters use for pods.
    let private = ip.is_private() || (a == 100 && b & 0xc0 == 64);
    match (nowhere, private) {
        (true, _) => Place::Nowhere,
        (false, true) => Place::Private,
        (false, false) => Place::Public,
    }
}

fn place_v6(ip: Ipv6Addr) -> Place {
    let [first, ..] = ip.segments();
    if ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || first & 0xffc0 == 0xfe80 {
        Place::Nowhere
    } else if first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfec0 {
        Place::Private
    } else {
        Place::Public
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(rebinding: &Rebinding, name: &str, addresses: &[&str], now: Instant) -> Vec<String> {
        let addresses: Vec<IpAddr> = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
        let found = rebinding.suspicious_at(name, &addresses, now);
        found.iter().map(ToString::to_string).collect()
    }

    fn rebinding() -> Rebinding {
        let mut rebinding = Rebinding::new(&["svc.cluster.local".to_owned()]);
        rebinding.set_own(vec!["10.244.0.7".parse().unwrap()]);
        rebinding
    }

    #[test]
    fn addresses_that_are_nobodys_or_the_pods_own_look_wrong_for_names_from_outside() {
        let (rebinding, now) = (rebinding(), Instant::now());
        for address in [
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "10.244.0.7",
        ] {
            assert_eq!(
                wrong(&rebinding, "evil.example", &[address], now).len(),
                1,
                "{address}"
            );
            for exempt in ["localhost", "a.localhost", "web.agents.svc.cluster.local"] {
                assert!(
                    wrong(&rebinding, exempt, &[address], now).is_empty(),
                    "{exempt}"
                );
            }
        }
    }

    #[test]
    fn a_name_that_was_public_may_not_become_private_and_one_that_always_was_may_stay() {
        let (rebinding, now) = (rebinding(), Instant::now());
        for _ in 0..3 {
            assert!(wrong(&rebinding, "db.corp.example", &["10.0.0.5", "fd00::5"], now).is_empty());
        }
        assert!(wrong(&rebinding, "evil.example", &["203.0.113.5"], now).is_empty());
        for private in ["10.0.0.5", "192.168.1.1", "172.16.0.1", "100.64.0.1"] {
            assert_eq!(
                wrong(&rebinding, "evil.example", &[private], now),
                [private]
            );
        }
        assert!(
            wrong(&rebinding, "evil.example", &["fd00::5"], now).is_empty(),
            "dual stack: the other family was never public"
        );
        let later = now + PUBLIC_FOR;
        assert!(wrong(&rebinding, "evil.example", &["10.0.0.5"], later).is_empty());
        assert_eq!(
            wrong(
                &rebinding,
                "both.example",
                &["203.0.113.5", "10.0.0.5"],
                now
            ),
            ["10.0.0.5"],
            "in one answer"
        );
    }

    #[test]
    fn memory_is_bounded() {
        let (rebinding, now) = (Rebinding::default(), Instant::now());
        for number in 0..3 * MAX_PUBLIC {
            wrong(
                &rebinding,
                &format!("host-{number}.example"),
                &["203.0.113.5"],
                now,
            );
        }
        let public = rebinding.public.lock().unwrap();
        assert!(public.young.len() + public.old.len() <= MAX_PUBLIC);
    }
}
