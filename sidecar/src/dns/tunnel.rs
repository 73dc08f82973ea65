//! Signs that queries carry data out.
//!
//! Owns counting: how much the names below one registered domain say in a minute, how many they are, how often text is asked for, how long a name is. A tunnel cannot do without one of
//! them; ordinary clients (CDNs, cloud APIs, buckets, search lists) stay below all of them by a factor, which tests hold. Refuses to decide: policy does.
//!
//! What a label says is estimated as its length times the entropy of its characters, and counts once a minute: a label of words says 2 to 10 bytes, one of a tunnel 30 to 40.
//! Invariant: at most [`MAX_DOMAINS`] domains with [`MAX_NAMES`] and [`MAX_LABELS`] hashes each are remembered, 6 MiB at the very most.

use std::{
    collections::{HashMap, HashSet, hash_map::RandomState},
    hash::BuildHasher,
    time::{Duration, Instant},
};

use super::towards::below;

/// The time that all limits are for.
const WINDOW: Duration = Duration::from_secs(60);

/// Longest part of a name below its registered domain, bytes. Private endpoints of clouds have up to 90, reverse names of IPv6 64; tunnels fill 255.
const MAX_BELOW: usize = 130;

/// Most bytes of information in the labels below one domain, per minute. A walk through 200 buckets of one provider says 2 KiB; 4 KiB a minute leave a tunnel 70 bytes a second.
const MAX_INFORMATION: f64 = 4_096.0;

/// Most different names below one domain, per minute. An agent that walks through buckets or tenants of one provider asks for tens.
const MAX_NAMES: usize = 300;

/// Most different labels in these names; ordinary ones have two to four, of which most repeat.
const MAX_LABELS: usize = 1_500;

/// Most queries for text (TXT, and the types that nobody uses otherwise) below one domain, per minute: mail and ownership checks ask once a name.
const MAX_TEXTS: u32 = 60;

/// Most bytes of information in all names together, per minute: a tunnel over many domains. Resolving a thousand ordinary names a minute takes 6 KiB.
const MAX_INFORMATION_OF_ALL: f64 = 16_384.0;

/// Most domains that are counted at once; the one that said least is forgotten.
const MAX_DOMAINS: usize = 256;

/// Labels that, below a country's domain of two letters, are registries': `co.uk`, `com.br`.
const REGISTRIES: [&str; 12] = [
    "co", "com", "org", "net", "edu", "gov", "ac", "or", "ne", "go", "gob", "nom",
];

/// Why queries look like a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// The name is longer than names are.
    Length,
    /// A type that has no use but tunnels: NULL and private ones.
    Type,
    /// Text asked for too often.
    Texts,
    /// Too many different names below one domain.
    Names,
    /// The names below one domain say too much.
    Information,
    /// The names of all domains together say too much.
    InformationOfAll,
}

impl Sign {
    /// A sentence for the agent and the record.
    pub(crate) fn message(self) -> String {
        let what = match self {
            Self::Length => format!("the name is longer than {MAX_BELOW} bytes below its domain"),
            Self::Type => "this type of query serves tunnels only".to_owned(),
            Self::Texts => {
                format!("more than {MAX_TEXTS} queries for text below one domain in a minute")
            }
            Self::Names => format!("more than {MAX_NAMES} names below one domain in a minute"),
            Self::Information => {
                format!(
                    "the names below one domain carry more than {MAX_INFORMATION} bytes in a minute"
                )
            }
            Self::InformationOfAll => {
                format!(
                    "the names asked for carry more than {MAX_INFORMATION_OF_ALL} bytes in a minute"
                )
            }
        };
        format!(
            "Looks like data carried out in DNS queries: {what}. A rule on dns that allows the domain lifts the limits for it."
        )
    }
}

/// Counts the queries of one pod.
#[derive(Debug)]
pub(crate) struct Tunnels {
    search: Vec<String>,
    hasher: RandomState,
    domains: HashMap<String, Window>,
    all: Window,
}

/// What was asked since a moment.
#[derive(Debug)]
struct Window {
    since: Instant,
    names: HashSet<u64>,
    labels: HashSet<u64>,
    information: f64,
    texts: u32,
}

// === impl Tunnels ===

impl Tunnels {
    /// Nothing asked yet. Names completed with a domain of `search` count as what they were before.
    pub(crate) fn new(search: &[String], now: Instant) -> Self {
        Self {
            search: search.to_vec(),
            hasher: RandomState::new(),
            domains: HashMap::new(),
            all: Window::new(now),
        }
    }

    /// Counts a query (lower case, without the final dot), unless it goes beyond a limit: then says which. What goes beyond is not counted, so that the limits lift with the minute.
    pub(crate) fn check(&mut self, name: &str, kind: &str, now: Instant) -> Option<Sign> {
        let written = self.search.iter().filter_map(|domain| below(name, domain));
        let written = written.min_by_key(|base| base.len()).unwrap_or(name);
        let (part, domain) = split(written);
        if part.len() > MAX_BELOW {
            return Some(Sign::Length);
        }
        if kind == "NULL" || is_private_type(kind) {
            return Some(Sign::Type);
        }
        let name = self.hasher.hash_one(written);
        let labels: Vec<(u64, f64)> = part
            .split('.')
            .map(|label| (self.hasher.hash_one(label), information(label)))
            .collect();
        self.all.roll(now);
        let said = self.all.information;
        let window = self.window(domain, now);
        let known = window.names.contains(&name);
        let says = window.news(&labels);
        // The domain itself counts among all: a tunnel may have many.
        let says_of_all = says + information(domain.split('.').next().unwrap_or_default());
        if !known && said + says_of_all > MAX_INFORMATION_OF_ALL {
            return Some(Sign::InformationOfAll);
        }
        let sign = window.count(name, &labels, says, is_text(kind));
        if sign.is_none() && !known {
            self.all.information += says_of_all;
        }
        sign
    }

    /// The window of a domain, begun anew when its minute is over.
    fn window(&mut self, domain: &str, now: Instant) -> &mut Window {
        if !self.domains.contains_key(domain) && self.domains.len() >= MAX_DOMAINS {
            self.domains.retain(|_, window| !window.is_over(now));
            self.forget_least();
        }
        let window = self.domains.entry(domain.to_owned());
        let window = window.or_insert_with(|| Window::new(now));
        window.roll(now);
        window
    }

    fn forget_least(&mut self) {
        let least = |(_, a): &(&String, &Window), (_, b): &(&String, &Window)| {
            a.information.total_cmp(&b.information)
        };
        if self.domains.len() >= MAX_DOMAINS
            && let Some((domain, _)) = self.domains.iter().min_by(least)
        {
            let domain = domain.clone();
            self.domains.remove(&domain);
        }
    }
}

// === impl Window ===

impl Window {
    fn new(since: Instant) -> Self {
        Self {
            since,
            names: HashSet::new(),
            labels: HashSet::new(),
            information: 0.0,
            texts: 0,
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= WINDOW
    }

    fn roll(&mut self, now: Instant) {
        if self.is_over(now) {
            *self = Self::new(now);
        }
    }

    /// What those of the labels say that were not asked before.
    fn news(&self, labels: &[(u64, f64)]) -> f64 {
        let new = labels
            .iter()
            .filter(|(hash, _)| !self.labels.contains(hash));
        new.map(|(_, says)| says).sum()
    }

    fn count(&mut self, name: u64, labels: &[(u64, f64)], says: f64, text: bool) -> Option<Sign> {
        if text && self.texts >= MAX_TEXTS {
            return Some(Sign::Texts);
        }
        if !self.names.contains(&name) {
            if self.names.len() >= MAX_NAMES || self.labels.len() >= MAX_LABELS {
                return Some(Sign::Names);
            }
            if self.information + says > MAX_INFORMATION {
                return Some(Sign::Information);
            }
            self.names.insert(name);
            self.labels.extend(labels.iter().map(|(hash, _)| hash));
            self.information += says;
        }
        self.texts = self.texts.saturating_add(u32::from(text));
        None
    }
}

/// A name in two: what stands below the registered domain, and that domain. Without a list of all registries: the last two labels, three below a country's registry, and the network of
/// a reverse name (RFC 1035 section 3.5, RFC 3596 section 2.5). Where this takes a provider's shared domain for one, its customers share the limits.
fn split(name: &str) -> (&str, &str) {
    let keep = match (below(name, "in-addr.arpa"), below(name, "ip6.arpa")) {
        (Some(_), _) => 4,
        (_, Some(_)) => 10,
        _ => match last_two(name) {
            Some((registry, country)) if country.len() == 2 && REGISTRIES.contains(&registry) => 3,
            _ => 2,
        },
    };
    match name.rmatch_indices('.').nth(keep - 1) {
        Some((at, _)) => {
            let (part, domain) = name.split_at(at);
            (part, domain.trim_start_matches('.'))
        }
        None => ("", name),
    }
}

fn last_two(name: &str) -> Option<(&str, &str)> {
    let mut labels = name.rsplit('.');
    let last = labels.next()?;
    Some((labels.next()?, last))
}

/// Bytes of information that the characters of a label carry: their number times the entropy of their distribution.
fn information(name: &str) -> f64 {
    let mut counts = [0_u32; 256];
    let mut total = 0.0;
    for byte in name.bytes() {
        if let Some(count) = counts.get_mut(usize::from(byte)) {
            *count += 1;
            total += 1.0;
        }
    }
    let bits = counts.iter().filter(|count| **count > 0).map(|count| {
        let count = f64::from(*count);
        count * (total / count).log2()
    });
    bits.sum::<f64>() / 8.0
}

fn is_text(kind: &str) -> bool {
    !matches!(
        kind,
        "A" | "AAAA"
            | "CNAME"
            | "HTTPS"
            | "SVCB"
            | "SRV"
            | "PTR"
            | "NS"
            | "SOA"
            | "MX"
            | "CAA"
            | "DS"
            | "DNSKEY"
    )
}

/// Types for private use (RFC 6895 section 3.1), written `TYPE65399` or bare.
fn is_private_type(kind: &str) -> bool {
    let number = kind.trim_start_matches(|c: char| !c.is_ascii_digit());
    number
        .parse::<u16>()
        .is_ok_and(|number| (65_280..65_535).contains(&number))
}

#[cfg(test)]
mod tests;
