//! Where a request is for, and what it is asked through: an HTTP proxy that the agent knows of is sent whole URLs and CONNECT (RFC 9112 §3.2).
//!
//! Invariant: what is asked through a proxy is decided twice, as going to the place that it names and as going to the proxy, and both must allow it. So a server that is no proxy
//! is not reached past its own rules and masks by another's name.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use chaperone_crds::{
    compile::MaskSet,
    decide::{Candidates, Decision, Destination, Operation},
};

use super::{Agreement, Subject, agreement};
use crate::{
    cluster::Alias,
    http::view::{RequestView, scheme},
    link::{Link, both, either, with_alias},
    shared::Active,
};

/// A proxy that a request is sent to.
#[derive(Clone)]
pub(crate) struct Through {
    /// Names that it is known by.
    names: Vec<Arc<str>>,
    /// What the cluster calls it.
    alias: Option<Alias>,
    sni: Option<String>,
    /// Its address.
    pub(super) at: SocketAddr,
}

/// Reads where a request is for, and compares its names. `secure`: the connection is TLS.
pub(crate) async fn placed(
    link: &Link,
    request: &RequestView<'_>,
    secure: bool,
) -> (Subject, Agreement) {
    let subject = Subject::of(link, request);
    let agreed = agreement(link, &subject, secure).await;
    let Some(proxied) = request.proxied else {
        return (
            subject.proved(agreed, secure || link.tunnel.is_none()),
            agreed,
        );
    };
    if link.tunnel.is_some() {
        // A proxy behind the proxy is not read: a CONNECT leads to unread bytes, which need leave of their own.
        return match proxied.scheme {
            None => (subject.proved(agreed, false), Agreement::Yes),
            Some(_) => (subject.proved(agreed, secure), agreed),
        };
    }
    let here = agreed == Agreement::Yes && proxied.port == link.destination.port();
    let same_scheme = proxied.scheme == Some(scheme(secure));
    // Over TLS, https to another host is what domain fronting looks like, and what no client sends to a proxy.
    if same_scheme && (here || secure) {
        return (subject.proved(agreed, true), agreed);
    }
    let scheme = proxied.scheme.unwrap_or(request.scheme);
    let subject = Subject {
        through: Some(Through::of(link)),
        proved: false,
        ..Subject::at(link, &RequestView { scheme, ..*request }, proxied.port)
    };
    (subject, Agreement::Yes)
}

impl Through {
    fn of(link: &Link) -> Self {
        let names = match &link.sni {
            Some(sni) => vec![sni.as_str().into()],
            None => link.shared.names.names_for(link.destination.ip()),
        };
        Self {
            names,
            alias: link.alias(),
            sni: link.sni.clone(),
            at: link.destination,
        }
    }

    /// The same operation as one to the proxy, under each of its names.
    fn operations<'a>(&'a self, operation: &Operation<'a>) -> impl Iterator<Item = Operation<'a>> {
        let operation = *operation;
        let nameless = self.names.is_empty().then_some(None);
        let names = self.names.iter().map(|name| Some(&**name));
        names
            .chain(nameless)
            .map(move |host| self.operation(&operation, host))
    }

    fn operation<'a>(&'a self, operation: &Operation<'a>, host: Option<&'a str>) -> Operation<'a> {
        Operation {
            destination: Destination {
                host,
                ip: self.at.ip(),
                port: self.at.port(),
                sni: self.sni.as_deref(),
            },
            ..*operation
        }
    }

    fn any(&self, operation: &Operation<'_>, such: impl Fn(Operation<'_>) -> bool) -> bool {
        let alias = self.alias.map(Alias::name);
        self.operations(operation).any(&such)
            || alias.is_some_and(|name| such(self.operation(operation, Some(name))))
    }

    /// What policy says of the proxy, by any name that leads to it.
    fn decide(&self, active: &Active, operation: &Operation<'_>) -> Option<Decision> {
        let decided = self
            .operations(operation)
            .map(|operation| decide(active, &operation))
            .reduce(either)?;
        Some(with_alias(decided, self.alias, |name| {
            decide(active, &self.operation(operation, Some(name)))
        }))
    }
}

/// The same operation on a place of another name.
fn renamed<'a>(operation: &Operation<'a>, host: &'a str) -> Operation<'a> {
    let destination = Destination {
        host: Some(host),
        ..operation.destination
    };
    Operation {
        destination,
        ..*operation
    }
}

fn decide(active: &Active, operation: &Operation<'_>) -> Decision {
    active
        .snapshot
        .candidates(operation)
        .decide(&active.config.identity, operation)
}

impl Subject {
    /// Notes whether the place is proved: tokens become values again nowhere else.
    fn proved(self, agreed: Agreement, proved: bool) -> Self {
        Self {
            proved: proved && agreed == Agreement::Yes,
            ..self
        }
    }

    /// The name that the connection is for: the host, or the one that the proxy is known by.
    pub(crate) fn name(&self) -> Option<&str> {
        match &self.through {
            None => Some(&self.host),
            Some(through) => match through.names.as_slice() {
                [name] => Some(name),
                _ => None,
            },
        }
    }

    /// Where policy takes it to go.
    pub(crate) fn place<'a>(&'a self, link: &'a Link) -> Destination<'a> {
        let sni = link.sni.as_deref().filter(|_| self.through.is_none());
        Destination {
            host: Some(&self.host),
            ip: self.ip,
            port: self.port,
            sni,
        }
    }

    /// What policy says of an operation on it.
    pub(crate) fn decide(&self, active: &Active, operation: &Operation<'_>) -> Decision {
        let here = with_alias(decide(active, operation), self.alias, |name| {
            decide(active, &renamed(operation, name))
        });
        let through = self.through.as_ref();
        match through.and_then(|through| through.decide(active, operation)) {
            Some(there) => both(here, there),
            None => here,
        }
    }

    /// Whether the rules that may apply to an operation on it are such.
    pub(crate) fn any(
        &self,
        active: &Active,
        operation: &Operation<'_>,
        such: impl Fn(&Candidates<'_>) -> bool,
    ) -> bool {
        let such = |operation: Operation<'_>| such(&active.snapshot.candidates(&operation));
        such(*operation)
            || self
                .alias
                .is_some_and(|alias| such(renamed(operation, alias.name())))
            || self
                .through
                .as_ref()
                .is_some_and(|through| through.any(operation, such))
    }

    /// What is masked.
    pub(crate) fn masks(&self, active: &Active) -> MaskSet {
        let here = (Some(self.host.as_str()), self.ip, self.port);
        let alias =
            |alias: Option<Alias>, ip, port| alias.map(|alias| (Some(alias.name()), ip, port));
        let Some(through) = &self.through else {
            let (host, ip, port) = here;
            let masks = active.snapshot.masks_for(host, ip, port);
            let restore = masks.restore.filter(|_| self.proved);
            let Some(alias) = alias(self.alias, ip, port) else {
                return MaskSet { restore, ..masks };
            };
            // One place by two names: who reads there is as proved as before.
            let masks = active.snapshot.masks_for_any(&[here, alias]);
            return MaskSet { restore, ..masks };
        };
        let (ip, port) = (through.at.ip(), through.at.port());
        let names = through.names.iter().map(|name| Some(&**name));
        let mut places: Vec<(Option<&str>, IpAddr, u16)> = vec![here, (None, ip, port)];
        places.extend(names.map(|name| (name, ip, port)));
        places.extend(alias(self.alias, self.ip, self.port));
        places.extend(alias(through.alias, ip, port));
        active.snapshot.masks_for_any(&places)
    }
}
