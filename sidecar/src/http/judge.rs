//! One request before it is forwarded: where it goes, whether its names agree, and what policy says.

mod messages;
mod place;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use chaperone_crds::{
    decide::{BodyView, HeaderFields, HttpView, NO_FIELDS, Operation},
    record::{DecisionInfo, DestinationInfo, Outcome},
    resources::{Mode, Protocol},
};

pub(crate) use self::messages::call;
use self::place::Through;
pub(crate) use self::place::placed;
use super::{
    unfold::Unfolded,
    view::{self, RequestView},
};
use crate::{
    agree,
    cluster::Alias,
    link::{Link, builtin, decision_info},
    shared::Active,
};

/// What a request is, in policy's words.
#[derive(Clone)]
pub(crate) struct Subject {
    /// Host that policy sees: canonical; the address where the request names none.
    pub(crate) host: String,
    /// Address that policy sees: of the host where it is written as one, else the connection's.
    ip: IpAddr,
    /// Port of the place: the connection's, or what a proxy is asked for.
    port: u16,
    /// `http` or `https`.
    pub(crate) scheme: &'static str,
    /// `scheme://authority/path?query`.
    pub(crate) url: String,
    /// What the cluster calls the place.
    alias: Option<Alias>,
    /// The proxy that is asked for it.
    through: Option<Through>,
    /// Whether certificate or resolver vouch for the place.
    proved: bool,
}

impl Subject {
    /// Reads the subject of a request to the place that the connection goes to.
    fn of(link: &Link, request: &RequestView<'_>) -> Self {
        Self {
            ip: link.destination.ip(),
            alias: link.alias(),
            ..Self::at(link, request, link.destination.port())
        }
    }

    /// Reads the subject of a request to a place at this port.
    fn at(link: &Link, request: &RequestView<'_>, port: u16) -> Self {
        let RequestView {
            scheme,
            path,
            query,
            ..
        } = *request;
        let host = match request.host {
            Some(written) => agree::canonical(written),
            None => agree::canonical(&link.destination.ip().to_string()),
        };
        let default_port = if scheme == view::scheme(true) {
            443
        } else {
            80
        };
        let (open, close) = match host.contains(':') {
            true => ("[", "]"),
            false => ("", ""),
        };
        let shown = match port == default_port {
            true => String::new(),
            false => format!(":{port}"),
        };
        let slash = if path.starts_with('/') { "" } else { "/" };
        let mark = if query.is_some() { "?" } else { "" };
        let query = query.unwrap_or_default();
        // One allocation, and no formatting: this is done for each request.
        let url = [
            scheme, "://", open, &host, close, &shown, slash, path, mark, query,
        ]
        .concat();
        let ip = host.parse().unwrap_or(link.destination.ip());
        let alias = link.shared.cluster.alias(SocketAddr::new(ip, port));
        Self {
            ip,
            alias: alias.map(Alias::doubted),
            host,
            port,
            scheme,
            url,
            through: None,
            proved: false,
        }
    }

    /// The destination, as records show it.
    pub(crate) fn destination(&self, link: &Link) -> DestinationInfo {
        let certain = self.alias.and_then(Alias::certain);
        let host = certain.map_or_else(|| self.host.clone(), str::to_owned);
        DestinationInfo {
            ip: self.ip.to_string(),
            original_ip: link.original_ip(),
            port: self.port,
            // Said once: the two agree, or the exchange is refused and both stand.
            sni: link.sni.clone().filter(|sni| *sni != host),
            host: Some(host),
            proxy: match &self.through {
                Some(through) => Some(through.at.to_string()),
                None => link.proxy(),
            },
            client_certificate: link.certificate.as_deref().cloned(),
        }
    }
}

/// How far the names of a request agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Agreement {
    /// They do.
    Yes,
    /// Host is not the server name of the TLS connection, or not what CONNECT named: domain fronting. Refused in every mode.
    Fronted,
    /// In clear text, the address is not one of Host's. Refused in Enforce.
    Elsewhere,
}

/// Compares Host with SNI, address, and what CONNECT named. Over TLS the verified certificate has proved the address for the name.
async fn agreement(link: &Link, subject: &Subject, secure: bool) -> Agreement {
    if let Some(named) = link.tunnel.as_ref().and_then(|tunnel| tunnel.name()) {
        // What the certificate was verified for; in clear text, what the proxy was asked for.
        return match *named == *subject.host {
            true => Agreement::Yes,
            false => Agreement::Fronted,
        };
    }
    match &link.sni {
        Some(sni) if secure => {
            if *sni == subject.host {
                Agreement::Yes
            } else {
                Agreement::Fronted
            }
        }
        _ if secure => {
            // No SNI: the certificate was verified for the address.
            if subject.host.parse() == Ok(link.destination.ip()) {
                Agreement::Yes
            } else {
                Agreement::Fronted
            }
        }
        _ => {
            let names = &link.shared.names;
            match agree::host_has_address(
                &subject.host,
                link.destination.ip(),
                names,
                &link.shared.egress,
            )
            .await
            {
                true => Agreement::Yes,
                false => Agreement::Elsewhere,
            }
        }
    }
}

/// A decision, and what was learned on the way to it.
pub(crate) struct Judgement {
    pub(crate) decision: DecisionInfo,
    /// Why an expression could not be evaluated.
    pub(crate) error: Option<String>,
    /// Status of the answer if it is a denial.
    pub(crate) status: u16,
    pub(crate) decide_us: u64,
}

impl Judgement {
    /// For a request that opens a tunnel: it needs leave for the bytes that it would bring too, which are not read. What policy says of those is there where both pass.
    pub(crate) fn with_tunnel(self, link: &Link, active: &Active) -> (Self, Option<DecisionInfo>) {
        if self.decision.action == Outcome::Deny {
            return (self, None);
        }
        let decision = link.unread_decision(active, Protocol::Tcp);
        match decision.action {
            Outcome::Deny => (Self { decision, ..self }, None),
            Outcome::Allow => (self, Some(decision)),
        }
    }
}

/// Body of a request, as far as it was read for the decision.
pub(crate) enum Judged<'a> {
    /// No rule asked for it.
    NotRead,
    /// All of it, as it was sent, and the fields behind it.
    Whole(&'a [u8], &'a dyn HeaderFields),
    /// It is longer than [`MAX_JUDGED_BODY_BYTES`].
    TooLarge,
}

/// Everything that a decision looks at.
pub(crate) struct Case<'a> {
    pub(crate) link: &'a Link,
    pub(crate) active: &'a Arc<Active>,
    pub(crate) request: RequestView<'a>,
    pub(crate) subject: &'a Subject,
}

impl Case<'_> {
    /// Whether a rule that may apply reads the body.
    pub(crate) fn needs_body(&self) -> bool {
        let snapshot = &self.active.snapshot;
        snapshot.reads_body()
            && self.with_operation(BodyView::NotRead, NO_FIELDS, |operation| {
                self.subject
                    .any(self.active, operation, |rules| rules.needs_body())
            })
    }

    /// What policy says.
    pub(crate) fn judge(&self, body: &Judged<'_>, agreement: Agreement) -> Judgement {
        let since = Instant::now();
        let (unfolded, trailers) = match body {
            Judged::Whole(bytes, trailers) => {
                let unfolded = Unfolded::of(self.request.fields, bytes);
                (Some(unfolded), *trailers)
            }
            Judged::NotRead | Judged::TooLarge => (None, NO_FIELDS),
        };
        let view = match (body, &unfolded) {
            (_, Some(unfolded)) => unfolded.view(),
            (Judged::TooLarge, None) => BodyView::TooLarge,
            (Judged::NotRead | Judged::Whole(..), None) => BodyView::NotRead,
        };
        let decision = self.with_operation(view, trailers, |operation| {
            self.subject.decide(self.active, operation)
        });
        let elapsed = since.elapsed();
        self.link
            .shared
            .metrics
            .decision_seconds
            .observe(elapsed.as_secs_f64());
        let error = decision.error.clone();
        let mut judgement = Judgement {
            decision: decision_info(self.active, decision),
            error,
            status: 403,
            decide_us: crate::link::micros(elapsed),
        };
        self.apply_agreement(agreement, &mut judgement);
        judgement
    }

    fn apply_agreement(&self, agreement: Agreement, judgement: &mut Judgement) {
        let host = &self.subject.host;
        match agreement {
            Agreement::Yes => {}
            Agreement::Fronted => {
                let message = format!(
                    "Host {host} is not the place that this connection was opened to; connect to {host} itself."
                );
                judgement.decision = builtin(self.active, Outcome::Deny, "host-mismatch", &message);
                judgement.status = 421;
            }
            Agreement::Elsewhere if judgement.decision.action == Outcome::Deny => {}
            Agreement::Elsewhere => {
                let ip = self.link.destination.ip();
                let message = format!(
                    "{ip} is not an address of Host {host}; connect to {host} by its name."
                );
                let enforced = self.active.mode() == Mode::Enforce;
                let action = if enforced {
                    Outcome::Deny
                } else {
                    Outcome::Allow
                };
                judgement.decision = builtin(self.active, action, "host-mismatch", &message);
                judgement.decision.would_deny = !enforced;
                judgement.status = 421;
            }
        }
    }

    fn with_operation<T>(
        &self,
        body: BodyView<'_>,
        trailers: &dyn HeaderFields,
        ask: impl FnOnce(&Operation<'_>) -> T,
    ) -> T {
        let operation = Operation {
            protocol: Protocol::Http,
            verb: self.request.method,
            resource: &self.subject.url,
            destination: self.subject.place(self.link),
            http: Some(HttpView {
                method: self.request.method,
                scheme: self.subject.scheme,
                host: &self.subject.host,
                path: self.request.path,
                query: self.request.query.unwrap_or_default(),
                headers: self.request.fields,
                content_type: view::field(self.request.fields, "content-type"),
                body_size: self.request.body_size,
                body,
                trailers,
            }),
            dns: None,
            ws: None,
            grpc: None,
        };
        ask(&operation)
    }
}
