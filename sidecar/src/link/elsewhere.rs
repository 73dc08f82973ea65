//! Another address of the same name, where the one that the agent connected to takes no connection.
//!
//! The capture has answered the agent's `connect()` by then, so a client that knows several addresses has no reason left to try the next one, as it would without Chaperone
//! (RFC 8305 §5, RFC 6724 §2). Refuses what such a client could not have dialled: only addresses that the resolver gave for the name that the connection is known to be for (for all that it may be for), and none
//! that is nobody's on the network. Invariant: the next attempt is another link, to be judged where the first was, so that rules about addresses hold for the one that is dialled.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    time::Duration,
};

use super::Link;
use crate::wire::{Io, Wire};

/// Longest wait for an address while there is another: one SYN may be lost. The longest delay between attempts that RFC 8305 §8 has.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most addresses that are tried beside the last. Names with more are those of large providers, of which the first few are as good as all.
const MAX_TRIED: usize = 3;

/// What came of dialling.
pub(crate) enum Attempt {
    /// A connection.
    Connected(Wire<Box<dyn Io>>),
    /// None, and another address to try.
    Next(Box<Link>),
}

impl Link {
    /// Dials the destination, which is for one of `names`. Waits as long as for any destination unless there is another address that is each name's; not at all where there is one and
    /// this was silent lately.
    ///
    /// # Errors
    /// As [`Link::dial`], where there is no other address.
    pub(crate) async fn attempt(&self, names: &[&str]) -> io::Result<Attempt> {
        if let Some(next) = self.instead(names) {
            return Ok(Attempt::Next(Box::new(next)));
        }
        let mut dial = pin!(self.dial());
        let failed = match tokio::time::timeout(PATIENCE, &mut dial).await {
            Ok(Ok(wire)) => {
                self.shared.silent.forget(self.destination);
                return Ok(Attempt::Connected(wire));
            }
            Ok(Err(error)) => Some(error),
            Err(_) => None,
        };
        match (self.next(names), failed) {
            (Some(next), failed) => {
                if failed.is_none() {
                    self.shared.silent.remember(self.destination);
                }
                tracing::debug!(from = %self.destination, to = %next.destination, "another address of the name is dialled");
                Ok(Attempt::Next(Box::new(next)))
            }
            (None, Some(error)) => Err(error),
            (None, None) => dial.await.map(Attempt::Connected),
        }
    }

    /// Dials one address of the server name after the other; the link goes to the last from then on. For connections that are judged once they stand.
    ///
    /// # Errors
    /// Of the last address.
    pub(crate) async fn reach(&mut self) -> io::Result<Wire<Box<dyn Io>>> {
        loop {
            match self.attempt(self.named().as_slice()).await? {
                Attempt::Connected(wire) => return Ok(wire),
                Attempt::Next(next) => *self = *next,
            }
        }
    }

    /// Whether a name that the destination is known by has another address.
    pub(crate) fn may_be_elsewhere(&self) -> bool {
        let names = self.known_names();
        names.iter().any(|name| self.next(&[name]).is_some())
    }

    /// The same connection, going to `ip`.
    pub(crate) fn towards(&self, ip: IpAddr) -> Self {
        let mut next = self.clone();
        next.tried.push(self.destination.ip());
        next.destination.set_ip(ip);
        next
    }

    /// Where to go at once, because this address was silent lately and the next was not. Where all were, each gets its time again.
    fn instead(&self, names: &[&str]) -> Option<Self> {
        let silent = &self.shared.silent;
        let next = silent.knows(self.destination).then(|| self.next(names))?;
        next.filter(|next| !silent.knows(next.destination))
    }

    /// The same connection, going to the address that is to be tried next: of the other family first, as clients alternate, and those that were silent lately last. Whichever of
    /// `names` is meant, it is one of its addresses.
    fn next(&self, names: &[&str]) -> Option<Self> {
        // What is behind a proxy, the proxy dials.
        if self.tunnel.is_some() || self.tried.len() >= MAX_TRIED {
            return None;
        }
        let ip = self.destination.ip();
        let (name, more) = names.split_first()?;
        let mut others = self.shared.names.others(name, ip);
        for name in more {
            let its = self.shared.names.others(name, ip);
            others.retain(|other| its.contains(other));
        }
        let rank = |other: &IpAddr| {
            let place = SocketAddr::new(*other, self.destination.port());
            let silent = self.shared.silent.knows(place);
            (silent, other.is_ipv4() == ip.is_ipv4())
        };
        let others = others.into_iter().filter(|other| self.may_follow(*other));
        others.min_by_key(rank).map(|other| self.towards(other))
    }

    /// Whether an address may be dialled in the destination's place. What no connection is captured for, no agent can have meant; and the API server's is judged before it is dialled.
    fn may_follow(&self, other: IpAddr) -> bool {
        let ip = self.destination.ip();
        let egress = &self.shared.egress;
        let place = SocketAddr::new(other, self.destination.port());
        !self.tried.contains(&other)
            && (!egress.is_nowhere(other) || egress.is_nowhere(ip))
            && self.shared.cluster.api_server != Some(place)
    }
}
