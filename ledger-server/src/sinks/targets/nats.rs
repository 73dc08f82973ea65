//! NATS JetStream: one message for each record.
//!
//! Contract: a record is acknowledged once the stream says that it has stored its message. The message's ID is stream and number, and within the stream's window of duplicates (two minutes, unless it says otherwise) what
//! comes again is dropped; after that the headers `Chaperone-Stream` and `Chaperone-Seq` tell copies. Which stream takes the subjects is the server's to say: none is made.

mod fault;

use std::{sync::Arc, time::Duration};

use async_nats::{
    Client, ConnectOptions, Event, ServerError,
    jetstream::{self, Context, message::PublishMessage},
};
use chaperone_sinks::settings::{Nats, NatsLogin};
use tokio::sync::watch;

use super::Maker;
use crate::sinks::target::{About, Answer, Failure, Outgoing, Sending, Target, Then};

/// How long a connection may take, with TLS and login.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the stream may take for one acknowledgement.
const ACK_TIMEOUT: Duration = Duration::from_secs(30);
/// Messages under way at once: fewer than the library lets wait for acknowledgement.
const WINDOW: usize = 500;

/// Subjects and who takes them.
pub(super) struct NatsTarget {
    nats: Nats,
    name: String,
    tls: Option<rustls::ClientConfig>,
    session: Option<Session>,
}

/// A connection. The library would make it anew by itself; after a failure it is given up instead, so that what failed is known and tried when the loop says so.
struct Session {
    context: Context,
    /// What the server said against us, or that the connection broke.
    broken: watch::Receiver<Option<Failure>>,
}

impl NatsTarget {
    /// Reads the settings.
    pub(super) fn new(nats: &Nats, maker: &Maker) -> Result<Self, Failure> {
        let tls = nats.tls.as_ref();
        Ok(Self {
            tls: tls.map(|tls| tls.client_config(None)).transpose()?,
            name: format!("chaperone/{}", maker.version),
            nats: nats.clone(),
            session: None,
        })
    }

    async fn deliver(&mut self, batch: &[Outgoing]) -> Result<Answer, Failure> {
        let session = match self.session.take().filter(Session::is_whole) {
            Some(session) => session,
            None => self.begin().await?,
        };
        let mut answer = Answer::default();
        for (number, window) in batch.chunks(WINDOW).enumerate() {
            let first = number.saturating_mul(WINDOW);
            self.publish(&session, window, first, &mut answer).await?;
        }
        if session.is_whole() {
            self.session = Some(session);
        }
        Ok(answer)
    }

    async fn begin(&self) -> Result<Session, Failure> {
        let (sender, broken) = watch::channel(None);
        let sender = Arc::new(sender);
        let options = self.login()?;
        let options = options
            .name(&self.name)
            .connection_timeout(CONNECT_TIMEOUT)
            .max_reconnects(1)
            .ignore_discovered_servers()
            .event_callback(move |event| {
                if let Some(failure) = said(event) {
                    sender.send_if_modified(|known| {
                        let is_first = known.is_none();
                        known.get_or_insert(failure);
                        is_first
                    });
                }
                std::future::ready(())
            });
        let (host, scheme) = (
            &self.nats.host,
            if self.tls.is_some() { "tls" } else { "nats" },
        );
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.clone()
        };
        let url = format!("{scheme}://{host}:{}", self.nats.port);
        let client: Client = options.connect(url).await.map_err(|e| fault::connect(&e))?;
        let context = jetstream::context::ContextBuilder::new()
            .timeout(ACK_TIMEOUT)
            .ack_timeout(ACK_TIMEOUT)
            .build(client);
        Ok(Session { context, broken })
    }

    fn login(&self) -> Result<ConnectOptions, Failure> {
        let mut options = ConnectOptions::new();
        if let Some(tls) = &self.tls {
            options = options.require_tls(true).tls_client_config(tls.clone());
        }
        Ok(match &self.nats.login {
            NatsLogin::None => options,
            NatsLogin::Password(user, password) => {
                options.user_and_password(user.clone(), password.0.clone())
            }
            NatsLogin::Token(token) => options.token(token.0.clone()),
            NatsLogin::Nkey(seed) => options.nkey(seed.0.clone()),
            // Its error names no line of the file.
            NatsLogin::File(file) => options.credentials(&file.0).map_err(|_| {
                Failure::new(
                    Then::Rarely,
                    "settings",
                    "the credentials file cannot be read",
                )
            })?,
        })
    }

    /// Publishes a window of a batch and waits for its acknowledgements.
    async fn publish(
        &self,
        session: &Session,
        window: &[Outgoing],
        first: usize,
        answer: &mut Answer,
    ) -> Result<(), Failure> {
        let mut broken = session.broken.clone();
        let mut acks = Vec::with_capacity(window.len());
        for (place, record) in window.iter().enumerate() {
            let subject = subject(&self.nats.subject, &record.about);
            match session
                .context
                .send_publish(subject, self.message(record))
                .await
            {
                Ok(ack) => acks.push((place, ack)),
                Err(error) => fault::publish(&error, first.saturating_add(place), answer)?,
            }
        }
        for (place, ack) in acks {
            let acknowledged = tokio::select! {
                acknowledged = ack.into_future() => acknowledged,
                failure = broken.wait_for(Option::is_some) => return Err(failure.ok().and_then(|f| f.clone()).unwrap_or_else(closed)),
            };
            if let Err(error) = acknowledged {
                fault::publish(&error, first.saturating_add(place), answer)?;
            }
        }
        Ok(())
    }

    fn message(&self, record: &Outgoing) -> PublishMessage {
        let about = &record.about;
        let message = PublishMessage::build()
            .message_id(record.key())
            .header("Chaperone-Stream", about.stream.as_str())
            .header("Chaperone-Seq", about.seq.to_string().as_str())
            .payload(record.line.clone().into());
        match &self.nats.stream {
            Some(stream) => message.expected_stream(stream),
            None => message,
        }
    }
}

impl Session {
    fn is_whole(&self) -> bool {
        self.broken.borrow().is_none()
    }
}

impl Target for NatsTarget {
    fn send<'a>(&'a mut self, batch: &'a [Outgoing]) -> Sending<'a> {
        Box::pin(self.deliver(batch))
    }
}

/// What an event of the connection means for what is under way.
fn said(event: Event) -> Option<Failure> {
    match event {
        Event::Disconnected | Event::Closed => Some(closed()),
        Event::ServerError(ServerError::AuthorizationViolation) => Some(Failure::new(
            Then::Rarely,
            "unauthorized",
            "the server refuses the credentials",
        )),
        // Such as "Permissions Violation for Publish": the message is dropped, and no acknowledgement comes.
        Event::ServerError(ServerError::Other(why)) => {
            let then = match why.to_ascii_lowercase().contains("violation") {
                true => (Then::Rarely, "unauthorized"),
                false => (Then::Soon, "server-error"),
            };
            Some(Failure::new(then.0, then.1, fault::bounded(&why)))
        }
        _ => None,
    }
}

fn closed() -> Failure {
    Failure::soon("connect", "the connection broke")
}

/// `PREFIX.NAMESPACE.KIND`: a kind's own dots are levels.
fn subject(prefix: &str, about: &About) -> String {
    let plain = |text: &str| -> String {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        let plain = text.chars().map(|c| if is_plain(c) { c } else { '_' });
        plain.collect()
    };
    let levels = std::iter::once(about.agent.namespace.as_str()).chain(about.kind.split('.'));
    let levels: Vec<_> = levels
        .map(|level| {
            if level.is_empty() {
                "_".to_owned()
            } else {
                plain(level)
            }
        })
        .collect();
    format!("{prefix}.{}", levels.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::target::Agent;

    #[test]
    fn a_subject_has_a_level_for_each_part_and_no_wildcard() {
        let of = |namespace: &str, kind: &str| {
            let about = About {
                kind: kind.to_owned(),
                agent: Agent {
                    namespace: namespace.to_owned(),
                    ..Agent::default()
                },
                ..About::default()
            };
            subject("chaperone.records", &about)
        };
        assert_eq!(of("agents", "http"), "chaperone.records.agents.http");
        assert_eq!(
            of("agents", "stream.open"),
            "chaperone.records.agents.stream.open"
        );
        assert_eq!(of("a.b", "> *"), "chaperone.records.a_b.___");
        assert_eq!(of("", ""), "chaperone.records._._");
    }
}
