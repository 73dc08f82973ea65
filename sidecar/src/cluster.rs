//! Places of the cluster that have a name of their own, whatever the agent calls them.
//!
//! Owns these names and the addresses that bear them, which Kubernetes gave and no agent. Invariant: a name is certain only where its address is known; where it merely may be
//! the place, the name denies and never allows.

use std::net::{IpAddr, SocketAddr};

/// A place of the cluster that has a name of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The API server.
    ApiServer,
    /// The kubelet of a node.
    Kubelet,
}

impl Place {
    /// Its name. That of the API server holds whatever the cluster's domain is. The kubelet has none in DNS, and nothing else can have this one: nothing below `alt` is a DNS name
    /// (RFC 9476), so no Service bears it, no resolver gives it an address and no public authority certifies it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ApiServer => "kubernetes.default.svc",
            Self::Kubelet => "kubelet.chaperone.alt",
        }
    }
}

/// Where kubelets listen unless they are told otherwise: their API, and what of it can be read without a credential, where that is on.
const KUBELET_PORTS: [u16; 2] = [10250, 10255];

/// Where the places of the cluster are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// The API server, as pods see it.
    pub api_server: Option<SocketAddr>,
    /// Addresses of the pod's node.
    pub node: Vec<IpAddr>,
}

/// A name that a destination has besides those that the agent or the resolver gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alias {
    /// The destination is this place: the name counts like any that leads there.
    Is(Place),
    /// It may be this place: what policy denies for the name is denied, and nothing is allowed by it.
    MayBe(Place),
}

impl Cluster {
    /// What the cluster calls a destination. A port of kubelets may be another node's kubelet, or this node's by an address that nobody told us (its own in the pods' network).
    #[must_use]
    pub fn alias(&self, destination: SocketAddr) -> Option<Alias> {
        if self.api_server == Some(destination) {
            return Some(Alias::Is(Place::ApiServer));
        }
        if !KUBELET_PORTS.contains(&destination.port()) {
            return None;
        }
        let ip = destination.ip().to_canonical();
        Some(match self.node.contains(&ip) {
            true => Alias::Is(Place::Kubelet),
            false => Alias::MayBe(Place::Kubelet),
        })
    }
}

impl Alias {
    fn place(self) -> Place {
        let (Self::Is(place) | Self::MayBe(place)) = self;
        place
    }

    /// The name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.place().name()
    }

    /// The name, where the destination is certainly the place.
    #[must_use]
    pub fn certain(self) -> Option<&'static str> {
        matches!(self, Self::Is(_)).then_some(self.name())
    }

    /// The same where somebody else says where the bytes go: through a proxy nobody knows.
    #[must_use]
    pub fn doubted(self) -> Self {
        Self::MayBe(self.place())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_certain_at_known_addresses_and_doubtful_at_a_kubelets_ports() {
        let cluster = Cluster {
            api_server: Some("10.96.0.1:443".parse().unwrap()),
            node: vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()],
        };
        let cases = [
            ("10.96.0.1:443", Some(Alias::Is(Place::ApiServer))),
            ("10.96.0.1:6443", None),
            ("192.0.2.7:443", None),
            ("192.0.2.7:10250", Some(Alias::Is(Place::Kubelet))),
            ("192.0.2.7:10255", Some(Alias::Is(Place::Kubelet))),
            ("[2001:db8::7]:10250", Some(Alias::Is(Place::Kubelet))),
            ("[::ffff:192.0.2.7]:10250", Some(Alias::Is(Place::Kubelet))),
            ("192.0.2.8:10250", Some(Alias::MayBe(Place::Kubelet))),
            ("192.0.2.8:10251", None),
        ];
        for (destination, expected) in cases {
            let alias = cluster.alias(destination.parse().unwrap());
            assert_eq!(alias, expected, "{destination}");
        }
        // Where nothing is known, as around one command, a rule against kubelets holds all the same.
        let nothing = Cluster::default();
        assert_eq!(
            nothing.alias("192.0.2.7:10250".parse().unwrap()),
            Some(Alias::MayBe(Place::Kubelet))
        );
    }
}
