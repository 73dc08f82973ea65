//! A sink tried with one marked record, beside its delivery: by the sink's settings, its format and the code that delivers, on a connection of its own.
//!
//! Owns the marked record: it says who asked, is of a stream of its own, and is in no log, so that no cursor knows it. Refuses retries: what happened is the answer.

use std::time::Duration;

use chaperone_crds::{
    bodies::unsalted,
    chain::{Chain, StreamId},
    record::{AgentRef, Event, EventKind, ReadInfo},
    resources::Format,
};
use chaperone_sinks::{
    backoff::random,
    settings::{Sink, Target as Settings},
};
use jiff::Timestamp;
use serde::Serialize;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use super::{
    batch::outgoing,
    target::{Answer, Failure, Make, Outgoing, Then},
};

/// How long a sink may take: as long as Splunk may for an acknowledgement, and less than who asks waits.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(50);
/// Longest text of an outcome, in characters.
const MESSAGE_CHARS: usize = 1024;
/// What `read.what` of the marked record is.
pub(crate) const WHAT: &str = "sink.test";

/// Somebody wants a sink tried.
pub(super) struct Asked {
    pub(super) name: String,
    pub(super) read: ReadInfo,
    pub(super) answer: oneshot::Sender<Result<Outcome, Untried>>,
}

/// What happened.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Outcome {
    /// The sink's name.
    sink: String,
    /// The target acknowledged the record.
    acknowledged: bool,
    /// Why not: the word that the metrics have.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// The same in words, or what an acknowledgement is worth.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// How long it took, connecting included.
    milliseconds: u64,
    /// The marked record's stream. Its number there is 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<String>,
}

/// Why nothing was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Untried {
    /// The ledger delivers no sink of this name.
    NoSuchSink,
    /// It is being tried.
    Busy,
    /// The ledger ends.
    Stopping,
}

impl Outcome {
    /// Settings that cannot be tried.
    pub(super) fn unusable(sink: &str, problems: &[String]) -> Self {
        Self::failed(sink, "settings", &problems.join("; "))
    }

    fn failed(sink: &str, reason: &'static str, message: &str) -> Self {
        Self {
            sink: sink.to_owned(),
            acknowledged: false,
            reason: Some(reason),
            message: Some(message.chars().take(MESSAGE_CHARS).collect()),
            milliseconds: 0,
            stream: None,
        }
    }
}

/// Tries a sink. The record's number is that of the next in the log.
pub(super) async fn run(
    sink: Sink,
    make: Make,
    agent: AgentRef,
    read: ReadInfo,
    leaf: u64,
) -> Outcome {
    let record = match marked(agent, read, leaf, sink.format) {
        Ok(record) => record,
        Err(error) => return Outcome::failed(&sink.name, "render", &error),
    };
    let begun = Instant::now();
    let tried = timeout(TRIAL_TIMEOUT, attempt(&sink, &make, &record)).await;
    let tried = tried.unwrap_or_else(|_| {
        let why = format!("no answer within {} s", TRIAL_TIMEOUT.as_secs());
        Err(Failure::soon("timeout", why))
    });
    let mut outcome = match tried {
        Ok(()) => Outcome {
            sink: sink.name.clone(),
            acknowledged: true,
            reason: None,
            message: worth(&sink.target),
            milliseconds: 0,
            stream: None,
        },
        Err(Failure {
            reason, message, ..
        }) => Outcome::failed(&sink.name, reason, &message),
    };
    outcome.milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    outcome.stream = Some(record.about.stream);
    outcome
}

async fn attempt(sink: &Sink, make: &Make, record: &Outgoing) -> Result<(), Failure> {
    let mut target = make(sink)?;
    let Answer {
        refused,
        unfit,
        refused_unnamed,
        again,
    } = target.test(record).await?;
    let refusal = refused.into_iter().chain(unfit).map(|(_, why)| why).next();
    match refusal.or(refused_unnamed.map(|(_, why)| why)) {
        Some(why) => Err(Failure::new(Then::Refused, "refused", why)),
        None if !again.is_empty() => Err(Failure::soon("partly", "the target did not take it now")),
        None => Ok(()),
    }
}

/// What is to be said of an acknowledgement.
fn worth(target: &Settings) -> Option<String> {
    let words = match target {
        Settings::Syslog(_) => {
            "written: syslog has no acknowledgement, so look for the record there"
        }
        Settings::Splunk(splunk) if !splunk.acknowledge => {
            "the collector has it; whether it is indexed is not known (acknowledge: false)"
        }
        _ => return None,
    };
    Some(words.to_owned())
}

/// The record: that of a read of the ledger, which has a user, in a stream that has no other.
fn marked(agent: AgentRef, read: ReadInfo, leaf: u64, format: Format) -> Result<Outgoing, String> {
    let mut bytes = [0; 16];
    for part in bytes.chunks_mut(4) {
        part.copy_from_slice(&random().to_be_bytes());
    }
    let mut event = Event::new(EventKind::LedgerRead, agent);
    event.read = Some(read);
    let mut line = Vec::new();
    Chain::new(StreamId::from_random(bytes)).append(&event, Timestamp::now(), unsalted, &mut line);
    let line = line.strip_suffix(b"\n").unwrap_or(&line);
    outgoing(leaf, line, format).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chaperone_sinks::settings::{Batch, Http, Tls};

    use super::*;
    use crate::sinks::target::{Sending, Target};

    /// A target that gives one answer.
    struct Fixed(Result<Answer, Failure>, Duration);

    impl Target for Fixed {
        fn send<'a>(&'a mut self, batch: &'a [Outgoing]) -> Sending<'a> {
            assert_eq!(batch.len(), 1);
            let (answer, after) = (self.0.clone(), self.1);
            Box::pin(async move {
                tokio::time::sleep(after).await;
                answer
            })
        }
    }

    fn sink() -> Sink {
        Sink {
            name: "siem".to_owned(),
            format: Format::Ocsf,
            filter: None,
            start: Default::default(),
            batch: Batch {
                records: 1,
                bytes: 1,
                wait: Duration::ZERO,
            },
            target: Settings::Http(Http {
                url: String::new(),
                bearer: None,
                tls: Tls::default(),
            }),
        }
    }

    async fn tried(answer: Result<Answer, Failure>, after: Duration) -> Outcome {
        let make: Make = Arc::new(move |_| Ok(Box::new(Fixed(answer.clone(), after))));
        run(sink(), make, AgentRef::default(), ReadInfo::default(), 7).await
    }

    #[tokio::test(start_paused = true)]
    async fn an_outcome_says_what_happened_and_how_long_it_took() {
        let second = Duration::from_secs(1);
        let good = tried(Ok(Answer::default()), second).await;
        assert!(good.acknowledged && good.reason.is_none(), "{good:?}");
        assert_eq!(good.milliseconds, 1000);
        assert_eq!(good.stream.unwrap().len(), 36);
        let refused = Answer {
            refused: vec![(0, "no such field".to_owned())],
            ..Answer::default()
        };
        let unnamed = Answer {
            refused_unnamed: Some((1, "no".to_owned())),
            ..Answer::default()
        };
        let again = Answer {
            again: vec![0],
            ..Answer::default()
        };
        let cases = [
            (Ok(refused), second, "refused"),
            (Ok(unnamed), second, "refused"),
            (Ok(again), second, "partly"),
            (Err(Failure::soon("tls", "who is that?")), second, "tls"),
            (Ok(Answer::default()), TRIAL_TIMEOUT * 2, "timeout"),
        ];
        for (answer, after, reason) in cases {
            let bad = tried(answer, after).await;
            assert_eq!((bad.acknowledged, bad.reason), (false, Some(reason)));
            assert!(bad.message.is_some() && bad.milliseconds >= 1000, "{bad:?}");
        }
    }

    #[test]
    fn the_marked_record_is_a_record_in_every_format_and_says_who_asked() {
        for format in Format::ALL {
            let read = ReadInfo {
                user: "alice".to_owned(),
                what: WHAT.to_owned(),
                ..ReadInfo::default()
            };
            let one = marked(AgentRef::default(), read.clone(), 7, format).unwrap();
            let other = marked(AgentRef::default(), read, 7, format).unwrap();
            assert!(
                one.line.contains("alice") && one.line.contains(WHAT),
                "{}",
                one.line
            );
            assert_eq!((one.about.seq, one.leaf), (0, 7));
            assert_ne!(one.about.stream, other.about.stream);
        }
    }
}
