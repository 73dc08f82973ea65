//! A connection to one broker: frames, which versions it speaks, who we are. One request at a time.
//!
//! Invariant: an answer is of the request before it, or the connection is given up; what a broker announces is no reason to allocate.

use std::time::Duration;

use chaperone_sinks::{
    dial::{Dialer, Stream},
    settings::{KafkaLogin, SaslMechanism},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, timeout},
};

use super::{
    fault,
    messages::{self, Api},
    scram::{Hash, Scram},
    wire::{Reader, Writer},
};
use crate::sinks::target::{Failure, Then};

/// How long a broker may take for an answer: longer than it may wait for its replicas.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The same of an answer that waits for nothing.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Mechanisms that are named when ours is not among them.
const NAMED_MECHANISMS: usize = 10;

/// A connection that knows us.
pub(super) struct Connection {
    stream: Stream,
    client: String,
    correlation: i32,
    /// Until when the broker takes our login.
    pub(super) until: Option<Instant>,
}

impl Connection {
    /// Connects and logs in.
    pub(super) async fn open(
        dialer: &Dialer,
        login: Option<&KafkaLogin>,
        client: &str,
    ) -> Result<Self, Failure> {
        let mut connection = Self {
            stream: dialer.dial().await?,
            client: client.to_owned(),
            correlation: 0,
            until: None,
        };
        connection.agree().await?;
        if let Some(login) = login {
            connection.log_in(login).await?;
        }
        Ok(connection)
    }

    /// Sends a request and reads its answer, without the header.
    pub(super) async fn ask(&mut self, api: Api, body: &Writer) -> Result<Vec<u8>, Failure> {
        self.exchange(api, body, ANSWER_TIMEOUT).await
    }

    async fn exchange(
        &mut self,
        api: Api,
        body: &Writer,
        patience: Duration,
    ) -> Result<Vec<u8>, Failure> {
        self.correlation = self.correlation.wrapping_add(1);
        let frame = messages::framed(api, self.correlation, &self.client, body);
        let answer = timeout(patience, async {
            self.stream.write_all(&frame).await.map_err(broken)?;
            self.stream.flush().await.map_err(broken)?;
            self.answer(api).await
        });
        answer.await.map_err(|_| {
            let why = format!("no answer to {} within {} s", api.name, patience.as_secs());
            Failure::soon("timeout", why)
        })?
    }

    async fn answer(&mut self, api: Api) -> Result<Vec<u8>, Failure> {
        let length = self.stream.read_u32().await.map_err(broken)?;
        if length > api.longest {
            let why = format!(
                "the broker announces an answer to {} of {length} bytes, where {} are taken: it is no broker, or it expects TLS where there is none",
                api.name, api.longest
            );
            return Err(Failure::soon("protocol", why));
        }
        let correlation = self.stream.read_i32().await.map_err(broken)?;
        if correlation != self.correlation {
            let why = "the broker answers what was not asked";
            return Err(Failure::soon("protocol", why));
        }
        let length = u64::from(length).saturating_sub(4);
        // Grows with what comes.
        let mut body = Vec::new();
        let mut rest = (&mut self.stream).take(length);
        rest.read_to_end(&mut body).await.map_err(broken)?;
        match u64::try_from(body.len()) == Ok(length) {
            true => Ok(body),
            false => Err(broken(std::io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// Both sides speak the same.
    async fn agree(&mut self) -> Result<(), Failure> {
        let nothing = Writer::default();
        let asked = self.exchange(messages::API_VERSIONS, &nothing, HELLO_TIMEOUT);
        let answer = asked.await?;
        let (error, spoken) = messages::versions(Reader(&answer)).map_err(fault::malformed)?;
        if error != 0 {
            return Err(fault::of(error, "versions", ""));
        }
        for api in messages::NEEDED {
            let is_spoken = spoken.iter().any(|(key, oldest, newest)| {
                *key == api.key && (*oldest..=*newest).contains(&api.version)
            });
            if !is_spoken {
                let why = format!(
                    "the broker does not speak version {} of {}, as Kafka does since 2.4",
                    api.version, api.name
                );
                return Err(Failure::new(Then::Rarely, "settings", why));
            }
        }
        Ok(())
    }

    async fn log_in(&mut self, login: &KafkaLogin) -> Result<(), Failure> {
        let name = login.mechanism.name();
        let request = messages::handshake(name);
        let asked = self.exchange(messages::SASL_HANDSHAKE, &request, HELLO_TIMEOUT);
        let answer = asked.await?;
        let (error, known) = messages::handshaken(Reader(&answer)).map_err(fault::malformed)?;
        if error == fault::UNSUPPORTED_SASL_MECHANISM {
            let known: Vec<_> = known.into_iter().take(NAMED_MECHANISMS).collect();
            let known = format!("it knows {}", known.join(", "));
            return Err(fault::of(error, name, &known));
        }
        if error != 0 {
            return Err(fault::of(error, name, ""));
        }
        let hash = match login.mechanism {
            SaslMechanism::Plain => {
                let (user, password) = (&login.username, &login.password.0);
                let said = format!("\0{user}\0{password}");
                return self.step(said.as_bytes()).await.map(drop);
            }
            SaslMechanism::ScramSha256 => Hash::Sha256,
            SaslMechanism::ScramSha512 => Hash::Sha512,
        };
        let refused = |why| Failure::new(Then::Rarely, "unauthorized", why);
        let scram = Scram::begin(hash, &login.username, &login.password.0)
            .ok_or_else(|| Failure::soon("write", "the system has no randomness to give"))?;
        let server_first = self.step(scram.first().as_bytes()).await?;
        let (last, expected) = scram.last(&server_first).map_err(refused)?;
        let server_final = self.step(last.as_bytes()).await?;
        expected.check(&server_final).map_err(refused)
    }

    /// One step of a login.
    async fn step(&mut self, said: &[u8]) -> Result<Vec<u8>, Failure> {
        let request = messages::authenticate(said);
        let asked = self.exchange(messages::SASL_AUTHENTICATE, &request, HELLO_TIMEOUT);
        let answer = asked.await?;
        let answer = messages::authenticated(Reader(&answer)).map_err(fault::malformed)?;
        if answer.error != 0 {
            return Err(fault::of(answer.error, "login", &answer.message));
        }
        let lifetime = u64::try_from(answer.lifetime).unwrap_or_default();
        self.until = (lifetime > 0)
            .then(|| Instant::now().checked_add(Duration::from_millis(lifetime)))
            .flatten();
        Ok(answer.bytes)
    }
}

fn broken(error: std::io::Error) -> Failure {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Failure::soon(
            "connect",
            "the broker ended the connection: it is stopping, or expects a login or TLS that is not configured",
        ),
        // Where a client certificate is wanted, TLS 1.3 says so only after the handshake.
        std::io::ErrorKind::InvalidData => Failure::soon("tls", error),
        _ => Failure::soon("connect", error),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;

    /// A broker that answers one request with so many bytes, and announces others. Gives the request.
    async fn broker(mut to: DuplexStream, announced: u32, given: usize) -> Vec<u8> {
        let length = to.read_u32().await.unwrap();
        let mut request = vec![0; usize::try_from(length).unwrap()];
        to.read_exact(&mut request).await.unwrap();
        to.write_u32(announced).await.unwrap();
        // The correlation, which is that of the first request.
        let answer = [&1_i32.to_be_bytes()[..], &vec![7; given]].concat();
        // Who has heard enough is gone.
        let _ = to.write_all(&answer).await;
        request
    }

    async fn asked(api: Api, announced: u32, given: usize) -> Result<Vec<u8>, Failure> {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let mut connection = Connection {
            stream: Box::new(ours),
            client: "chaperone/test".to_owned(),
            correlation: 0,
            until: None,
        };
        let nothing = Writer::default();
        let ask = async {
            let answer = connection.ask(api, &nothing).await;
            drop(connection);
            answer
        };
        tokio::join!(ask, broker(theirs, announced, given)).0
    }

    #[tokio::test]
    async fn no_answer_is_longer_than_what_was_asked_for_can_be() {
        const MIB: u32 = 1024 * 1024;
        let others = [
            messages::SASL_HANDSHAKE,
            messages::API_VERSIONS,
            messages::SASL_AUTHENTICATE,
        ];
        for api in messages::NEEDED.into_iter().chain(others) {
            let most = match api == messages::FETCH {
                true => 64 * MIB,
                false => 4 * MIB,
            };
            let failure = asked(api, most + 1, 0).await.unwrap_err();
            assert_eq!(failure.reason, "protocol", "{}", api.name);
            let said = format!("to {} of {} bytes", api.name, most + 1);
            assert!(failure.message.contains(&said), "{}", failure.message);
        }
        for (api, length) in [(messages::METADATA, 4 * MIB), (messages::FETCH, 5 * MIB)] {
            let given = usize::try_from(length - 4).unwrap();
            let answer = asked(api, length, given).await.unwrap();
            assert_eq!(answer.len(), given, "{}", api.name);
        }
        // What is announced and does not come.
        let failure = asked(messages::FETCH, 64 * MIB, 9).await.unwrap_err();
        assert_eq!(failure.reason, "connect");
    }
}
