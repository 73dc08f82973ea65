//! One captured connection as every stage sees it: where it goes, which policies hold, and how it is recorded.
//!
//! Owns what records and policy are told about a connection as a whole. Invariant: what policy calls the destination's host was agreed (see [`crate::agree`]) or comes from the
//! sidecar's own resolver.

mod elsewhere;
mod silent;

use std::{
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use chaperone_crds::{
    decide::{Decision, Destination, Operation, Reason},
    record::{
        CertificateInfo, DecisionInfo, DestinationInfo, Event, EventKind, OperationInfo, Outcome,
        Timing,
    },
    resources::Protocol,
};

pub(crate) use self::elsewhere::Attempt;
pub use self::silent::Silent;
use crate::{
    cluster::{Alias, Place},
    shared::{Active, Shared},
    tunnel::Tunnel,
};

/// How long connections may finish once the sidecar stops. With the time that records and sinks get after it, below Kubernetes' usual grace of 30 s.
pub const DRAIN: Duration = Duration::from_secs(14);

/// One captured connection and the policies that hold for it now.
#[derive(Clone)]
pub struct Link {
    /// What all connections share.
    pub shared: Arc<Shared>,
    /// Policies when the connection came. Operations ask anew.
    pub active: Arc<Active>,
    /// Where the connection goes: to the address that the agent connected to, unless there are others in `tried`. Inside a tunnel, as [`Tunnel::destination`] says it.
    pub destination: SocketAddr,
    /// Addresses of the same name that took no connection, the one that the agent connected to first.
    pub tried: Vec<IpAddr>,
    /// The tunnel through a proxy that this runs in.
    pub tunnel: Option<Arc<Tunnel>>,
    /// Server name of the ClientHello, canonical.
    pub sni: Option<String>,
    /// The client certificate that was presented to the server, once it was.
    pub certificate: Option<Arc<CertificateInfo>>,
    /// When the connection came.
    pub since: Instant,
}

impl Link {
    /// Whether policy would let a protocol pass that is not read. If not, there is no use in asking the server whether it speaks first: the agent's first bytes may yet be HTTP.
    pub(crate) fn may_pass_unread(&self) -> bool {
        self.unread_decision(&self.now(), Protocol::Tcp).action == Outcome::Allow
    }

    /// The policies in force now.
    pub fn now(&self) -> Arc<Active> {
        self.shared
            .active
            .load_full()
            .unwrap_or_else(|| self.active.clone())
    }

    /// Name of the destination: what the cluster calls it, SNI, what CONNECT named, or a name that the resolver gave its address for.
    pub fn host(&self) -> Option<String> {
        let known = || self.known_names().into_iter().next();
        let certain = self.alias().and_then(Alias::certain);
        certain
            .or_else(|| self.named())
            .map(str::to_owned)
            .or_else(|| known().map(|name| name.to_string()))
    }

    /// Name that the agent itself gave the destination: SNI, or what CONNECT named.
    pub(crate) fn named(&self) -> Option<&str> {
        let tunnel = self.tunnel.as_ref();
        self.sni
            .as_deref()
            .or_else(|| tunnel.and_then(|tunnel| tunnel.name()))
    }

    /// `address:port`, or what CONNECT named.
    fn resource(&self) -> String {
        match &self.tunnel {
            Some(tunnel) => tunnel.authority(),
            None => self.destination.to_string(),
        }
    }

    /// Names that the resolver gave the address for.
    pub(crate) fn known_names(&self) -> Vec<Arc<str>> {
        self.shared.names.names_for(self.destination.ip())
    }

    /// What the cluster calls the destination. Through a proxy nobody knows where that is.
    pub(crate) fn alias(&self) -> Option<Alias> {
        let alias = self.shared.cluster.alias(self.destination)?;
        Some(match self.tunnel {
            Some(_) => alias.doubted(),
            None => alias,
        })
    }

    /// Whether this goes to the API server of the cluster.
    pub(crate) fn is_api_server(&self) -> bool {
        self.alias() == Some(Alias::Is(Place::ApiServer))
    }

    /// The proxy's address, as records show it.
    pub(crate) fn proxy(&self) -> Option<String> {
        let tunnel = self.tunnel.as_ref();
        tunnel.map(|tunnel| tunnel.proxy.destination.to_string())
    }

    /// The destination, as records show it.
    pub fn destination_info(&self) -> DestinationInfo {
        DestinationInfo {
            host: self.host(),
            ip: self.destination.ip().to_string(),
            original_ip: self.original_ip(),
            port: self.destination.port(),
            sni: self.sni.clone(),
            proxy: self.proxy(),
            client_certificate: self.certificate.as_deref().cloned(),
        }
    }

    /// The address that the agent connected to, as records show it, where the connection goes to another.
    pub(crate) fn original_ip(&self) -> Option<String> {
        self.tried.first().map(ToString::to_string)
    }

    /// What `active` says of this connection as a whole, for traffic that passes unread. In Enforce, TCP of unknown protocols needs a rule that allows it; a default is not
    /// enough. Where nothing names the destination, each name that led to its address counts, as [`either`] says; so does what the cluster calls it, whatever the agent says.
    ///
    /// Inside a tunnel nobody but the proxy says where unread bytes go: they need leave for the proxy as well, as TCP.
    pub fn unread_decision(&self, active: &Active, protocol: Protocol) -> DecisionInfo {
        self.unread_decision_if(true, active, protocol)
    }

    /// The same. `sni_is_here`: whether the server name is one of the address. At a place that the cluster names, one that is not gives no leave.
    pub(crate) fn unread_decision_if(
        &self,
        sni_is_here: bool,
        active: &Active,
        protocol: Protocol,
    ) -> DecisionInfo {
        let mut decision = self.decide_names(sni_is_here, active, protocol);
        if let Some(tunnel) = &self.tunnel {
            let proxy = tunnel.proxy.decide_names(true, active, Protocol::Tcp);
            decision = both(decision, proxy);
        }
        decision_info(active, decision)
    }

    fn decide_names(&self, sni_is_here: bool, active: &Active, protocol: Protocol) -> Decision {
        let decide = |host| self.decide_unread(active, protocol, host);
        let alias = self.alias();
        let certain = alias.and_then(Alias::certain);
        let (named, doubtful) = match self.named() {
            Some(named) if certain.is_some() && !sni_is_here => (None, Some(named)),
            named => (named, None),
        };
        let known = match named {
            Some(_) => Vec::new(),
            None => self.known_names(),
        };
        let names = named.into_iter().chain(known.iter().map(|name| &**name));
        let decided = names.chain(certain).map(|name| decide(Some(name)));
        let decision = decided.reduce(either).unwrap_or_else(|| decide(None));
        let maybe = alias.filter(|_| certain.is_none()).map(Alias::name);
        let doubtful = doubtful.into_iter().chain(maybe);
        doubtful.fold(decision, |decision, name| {
            if_meant(decision, decide(Some(name)))
        })
    }

    fn decide_unread(&self, active: &Active, protocol: Protocol, host: Option<&str>) -> Decision {
        let resource = self.resource();
        let operation = Operation {
            protocol,
            verb: "connect",
            resource: &resource,
            destination: Destination {
                host,
                ip: self.destination.ip(),
                port: self.destination.port(),
                sni: self.sni.as_deref(),
            },
            http: None,
            dns: None,
            ws: None,
            grpc: None,
        };
        active
            .snapshot
            .candidates(&operation)
            .decide(&active.config.identity, &operation)
    }

    /// An event about this connection.
    pub fn event(&self, kind: EventKind, protocol: &str) -> Box<Event> {
        let mut event = self.now().event(kind);
        event.destination = Some(self.destination_info());
        event.operation = Some(OperationInfo {
            protocol: protocol.to_owned(),
            verb: "connect".to_owned(),
            resource: self.resource(),
        });
        event.timing = self.timing();
        event
    }

    /// How long the connection has lasted.
    pub fn timing(&self) -> Option<Timing> {
        Some(Timing {
            total_us: micros(self.since.elapsed()),
            upstream_us: None,
            decide_us: None,
        })
    }

    /// Counts what became of the connection.
    pub fn count_connection(&self, result: &str) {
        self.shared
            .metrics
            .connections
            .with_label_values(&[result])
            .inc();
    }

    /// Records that the connection failed before any operation.
    pub async fn record_failure(&self, protocol: &str, reason: &'static str, error: String) {
        let mut event = self.event(EventKind::Connection, protocol);
        event.decision = Some(builtin(&self.now(), Outcome::Deny, reason, ""));
        event.error = Some(error);
        self.count_connection("failed");
        self.shared.recorder.record(event).await;
    }

    /// Records a connection that reached its upstream and ended without an operation. A ClientHello alone can carry a name out.
    pub async fn record_unused(&self, protocol: &str) {
        let mut event = self.event(EventKind::Connection, protocol);
        event.decision = Some(builtin(&self.now(), Outcome::Allow, "unused", ""));
        self.shared.recorder.record(event).await;
    }

    /// Ready once the sidecar has been stopping for [`DRAIN`]: what still runs is broken off, and recorded while there is time.
    pub async fn cut_off(&self) {
        self.stop().cut_off().await;
    }

    /// Tells of the sidecar's stop, for waits that come again and again.
    pub fn stop(&self) -> Stop {
        let mut stopping = self.shared.stopping.clone();
        Stop(Some(Box::pin(async move {
            if stopping.wait_for(|stop| *stop).await.is_err() {
                std::future::pending().await
            }
        })))
    }
}

/// Tells of the sidecar's stop. Made once for a connection: a new subscription for each request costs more than all its looks.
pub struct Stop(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Stop {
    /// Ready once the sidecar stops. May be asked again, also after it was dropped half-way.
    pub async fn told(&mut self) {
        if let Some(stop) = &mut self.0 {
            stop.await;
            self.0 = None;
        }
    }

    /// As [`Link::cut_off`].
    pub async fn cut_off(&mut self) {
        self.told().await;
        tokio::time::sleep(DRAIN).await;
    }
}

/// What holds where two places must both be allowed: the stricter decision, the first one's if they agree.
pub(crate) fn both(first: Decision, second: Decision) -> Decision {
    let strictness = |decision: &Decision| (decision.outcome == Outcome::Deny, decision.would_deny);
    match strictness(&second) > strictness(&first) {
        true => second,
        false => first,
    }
}

/// What holds where two names lead to one address and nobody says which is meant: what a rule denies for one of them, else what a rule or a default allows for one. That nobody allows the
/// other name denies nothing: its place is the same, and one that policy lets the agent reach.
pub(crate) fn either(first: Decision, second: Decision) -> Decision {
    match weight(&second) > weight(&first) {
        true => second,
        false => first,
    }
}

/// What holds where a place has an alias besides the name that was decided for: `decide` says what policy makes of that one.
pub(crate) fn with_alias(
    decision: Decision,
    alias: Option<Alias>,
    decide: impl FnOnce(&'static str) -> Decision,
) -> Decision {
    match alias {
        None => decision,
        Some(Alias::Is(place)) => either(decision, decide(place.name())),
        Some(Alias::MayBe(place)) => if_meant(decision, decide(place.name())),
    }
}

/// What holds where a place may be `other` as well: what a rule denies for that, else what holds for it itself. Nothing is allowed by a name that may be false.
pub(crate) fn if_meant(decision: Decision, other: Decision) -> Decision {
    let denies = weight(&other) >= DENIED_BY_RULE && weight(&other) > weight(&decision);
    let loosens = decision.outcome == Outcome::Deny && other.outcome == Outcome::Allow;
    match denies && !loosens {
        true => other,
        false => decision,
    }
}

/// Least [`weight`] of what a rule denies, or would.
const DENIED_BY_RULE: u8 = 3;

/// How much a decision for one of several names counts: what a rule denies most, what nobody allows least.
fn weight(decision: &Decision) -> u8 {
    let by_default = matches!(decision.reason, Reason::Default | Reason::Opaque);
    match (decision.outcome, decision.would_deny, by_default) {
        (Outcome::Deny, _, false) => 4,
        (_, true, false) => DENIED_BY_RULE,
        (Outcome::Allow, false, _) => 2,
        (Outcome::Allow, true, true) => 1,
        (Outcome::Deny, _, true) => 0,
    }
}

/// A decision of policy, as records show it.
pub fn decision_info(active: &Active, decision: Decision) -> DecisionInfo {
    DecisionInfo {
        action: decision.outcome,
        would_deny: decision.would_deny,
        mode: active.mode(),
        policy: decision.policy.map(|policy| policy.to_string()),
        rule: decision.rule.map(|rule| rule.to_string()),
        revision: active.config.revision.clone(),
        reason: decision.reason.as_str().to_owned(),
        message: decision.message.map(|message| message.to_string()),
    }
}

/// A decision that no policy made.
pub fn builtin(
    active: &Active,
    action: Outcome,
    reason: &'static str,
    message: &str,
) -> DecisionInfo {
    DecisionInfo {
        action,
        would_deny: false,
        mode: active.mode(),
        policy: None,
        rule: None,
        revision: active.config.revision.clone(),
        reason: reason.to_owned(),
        message: (!message.is_empty()).then(|| message.to_owned()),
    }
}

/// Whole microseconds.
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(outcome: Outcome, would_deny: bool, reason: Reason) -> Decision {
        Decision {
            outcome,
            would_deny,
            policy: None,
            rule: None,
            reason,
            message: None,
            error: None,
        }
    }

    #[test]
    fn of_two_names_a_rule_that_denies_holds_then_one_that_is_allowed_suffices() {
        use Outcome::{Allow, Deny};
        // From the one that counts most to the one that counts least.
        let strongest = [
            &[
                (Deny, false, Reason::Rule),
                (Deny, false, Reason::EvaluationError),
                (Deny, false, Reason::MetadataAddress),
            ][..],
            &[(Allow, true, Reason::Rule)],
            &[
                (Allow, false, Reason::Rule),
                (Allow, false, Reason::Default),
            ],
            &[
                (Allow, true, Reason::Default),
                (Allow, true, Reason::Opaque),
            ],
            &[
                (Deny, false, Reason::Default),
                (Deny, false, Reason::Opaque),
            ],
        ];
        for (at, stronger) in strongest.iter().enumerate() {
            for weaker in strongest.iter().skip(at + 1) {
                for (one, other) in stronger
                    .iter()
                    .flat_map(|s| weaker.iter().map(move |w| (s, w)))
                {
                    let (one, other) = (
                        decision(one.0, one.1, one.2),
                        decision(other.0, other.1, other.2),
                    );
                    // In whichever order the names were learned.
                    assert_eq!(either(one.clone(), other.clone()), one);
                    assert_eq!(either(other, one.clone()), one);
                }
            }
        }
    }

    #[test]
    fn a_name_that_may_be_false_denies_by_rule_and_allows_nothing() {
        use Outcome::{Allow, Deny};
        let by_rule = decision(Deny, false, Reason::Rule);
        let would = decision(Allow, true, Reason::Rule);
        let allowed = decision(Allow, false, Reason::Rule);
        let open = decision(Allow, false, Reason::Default);
        let closed = decision(Deny, false, Reason::Default);
        for (certain, doubtful, expected) in [
            (&open, &by_rule, &by_rule),
            (&allowed, &by_rule, &by_rule),
            (&closed, &by_rule, &by_rule),
            (&would, &by_rule, &by_rule),
            (&open, &would, &would),
            // What is closed stays so, whatever else would be denied or allowed.
            (&closed, &would, &closed),
            (&by_rule, &would, &by_rule),
            (&closed, &allowed, &closed),
            (&closed, &open, &closed),
            (&open, &closed, &open),
        ] {
            assert_eq!(if_meant(certain.clone(), doubtful.clone()), *expected);
        }
    }
}
