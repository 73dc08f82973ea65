//! The story of a WebSocket connection after its handshake: both directions at once, message by message, until one side ends it or policy does.
//!
//! Invariant: whatever bytes pass were read as frames of RFC 6455 first. A connection that Chaperone ends hears why, in a close frame, on both sides where one may be sent.

mod direction;
mod hold;
mod message;
mod talk;

use std::{io, pin::pin, time::Duration};

use bytes::BytesMut;
use chaperone_crds::record::{EventKind, Outcome, Timing, WsInfo};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

pub(crate) use self::talk::Opening;
use self::{
    direction::{Direction, Step, key},
    message::Denied,
    talk::Talk,
};
use crate::{
    commit::{self, Unheld},
    link::{DRAIN, Link, builtin, micros},
    websocket::{FrameError, Opcode, Side, close_payload, write_frame},
    wire::{self, Io, Wire},
};

/// Bytes that are written in one go while more is there to be read.
const FLUSH_BYTES: usize = 64 * 1024;
/// Longest time that one side stays open after the other has ended. What is still to be said after a close frame is short.
const HALF_OPEN: Duration = Duration::from_secs(30);
/// Longest time for a close frame of ours to leave.
const GOODBYE: Duration = Duration::from_secs(1);
/// Longest time in which a side's answer to it is read away: a socket closed with bytes unread is reset, and a reset can overtake the close frame.
const LINGER: Duration = Duration::from_secs(2);

/// How a direction ended.
enum End {
    /// Its sender ended, and the receiver was told.
    Eof,
    /// A message is denied.
    Denied(Box<Denied>),
    /// Its bytes are refused.
    Malformed(FrameError),
    /// One of the two broke off.
    Broke(io::Error),
    /// A message may not leave before its record is held, and that is not.
    Unheld(Unheld),
    /// The sidecar stops.
    Stopping,
}

/// Relays messages until the connection is over, and records it.
pub(crate) async fn serve<A: Io, U: Io>(
    link: &Link,
    agent: &mut Wire<A>,
    upstream: &mut Wire<U>,
    opening: Opening,
) {
    let mut sent = Direction::new(Side::Agent, opening.deflate);
    let mut received = Direction::new(Side::Upstream, opening.deflate);
    let talk = Talk::begin(link, opening);
    let (side, end) = relay(&talk, agent, upstream, &mut sent, &mut received).await;
    let verdict = Verdict::of(&end, side, &sent, &received);
    if let End::Denied(denied) = &end {
        let metrics = &link.shared.metrics;
        metrics.denials.with_label_values(&[&denied.why]).inc();
        if let Some(event) = &denied.event {
            link.shared.recorder.record((**event).clone()).await;
        }
    }
    match end {
        End::Eof => {}
        End::Broke(_) => {
            agent.stream.break_off();
            upstream.stream.break_off();
        }
        _ => {
            let code = verdict.code.unwrap_or(1001);
            tokio::join!(
                farewell(agent, &mut received, None, code, &verdict.words),
                farewell(upstream, &mut sent, key(Side::Agent), code, &verdict.words),
            );
        }
    }
    record(&talk, verdict, &sent, &received).await;
}

/// Both directions, until both have ended or one ends the connection. Says which was first.
async fn relay<A: Io, U: Io>(
    talk: &Talk<'_>,
    agent: &mut Wire<A>,
    upstream: &mut Wire<U>,
    sent: &mut Direction,
    received: &mut Direction,
) -> (Side, End) {
    let (from_agent, from_upstream) = (&mut agent.unread, &mut upstream.unread);
    let (mut agent_read, mut agent_write) = tokio::io::split(&mut agent.stream);
    let (mut upstream_read, mut upstream_write) = tokio::io::split(&mut upstream.stream);
    let mut up = pin!(pump(
        talk,
        &mut agent_read,
        from_agent,
        &mut upstream_write,
        sent
    ));
    let mut down = pin!(pump(
        talk,
        &mut upstream_read,
        from_upstream,
        &mut agent_write,
        received
    ));
    let (side, end) = tokio::select! {
        end = &mut up => (Side::Agent, end),
        end = &mut down => (Side::Upstream, end),
        () = talk.link.cut_off() => return (Side::Agent, End::Stopping),
    };
    let patience = match &end {
        End::Eof => HALF_OPEN,
        // The other direction ends too, as soon as its message is whole.
        End::Stopping => DRAIN,
        _ => return (side, end),
    };
    let other = async {
        match side {
            Side::Agent => (Side::Upstream, down.await),
            Side::Upstream => (Side::Agent, up.await),
        }
    };
    match tokio::time::timeout(patience, other).await {
        Ok((_, End::Eof | End::Stopping)) | Err(_) => (side, end),
        Ok((other, worse)) => (other, worse),
    }
}

/// One direction, to its end.
async fn pump<R, W>(
    talk: &Talk<'_>,
    from: &mut R,
    unread: &mut BytesMut,
    to: &mut W,
    direction: &mut Direction,
) -> End
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut stopping = talk.link.shared.stopping.clone();
    loop {
        match direction.step(unread, talk) {
            Ok(Step::Again) if direction.out.len() < FLUSH_BYTES => {}
            Ok(Step::Again) => {
                if let Err(error) = write(to, &mut direction.out).await {
                    return End::Broke(error);
                }
                direction.written();
            }
            // Before the message's end leaves.
            Ok(Step::Record(event)) => {
                let (shared, active) = (&talk.link.shared, talk.link.now());
                let unsent = direction.take_back();
                let stop = talk.link.cut_off();
                match commit::record(shared, &active, stop, event).await {
                    Ok(_) => direction.give_back(unsent),
                    Err(unheld) if unheld.why.is_refusal() => return End::Unheld(unheld),
                    Err(_) => return End::Stopping,
                }
            }
            Ok(Step::Denied(denied)) => return End::Denied(denied),
            Err(error) => return End::Malformed(error),
            Ok(Step::Starved) => {
                if let Err(error) = write(to, &mut direction.out).await {
                    return End::Broke(error);
                }
                direction.written();
                let idle = direction.is_idle() && unread.is_empty();
                let read = tokio::select! {
                    biased;
                    read = wire::fill(from, unread) => read,
                    Ok(_) = stopping.wait_for(|stop| *stop), if idle => return End::Stopping,
                };
                match read {
                    Ok(0) => {
                        return match to.shutdown().await {
                            Ok(()) => End::Eof,
                            Err(error) => End::Broke(error),
                        };
                    }
                    Ok(_) => {}
                    Err(error) => return End::Broke(error),
                }
            }
        }
        // A message that expands a thousandfold must not keep others waiting.
        tokio::task::consume_budget().await;
    }
}

/// Writes all. What was written is gone from `out` even if this is cancelled.
async fn write<W: AsyncWrite + Unpin>(to: &mut W, out: &mut BytesMut) -> io::Result<()> {
    while !out.is_empty() {
        if to.write_buf(out).await? == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    to.flush().await
}

/// Ends a side in words, where a frame may follow what it has got, and reads its answer away.
async fn farewell<S: Io>(
    wire: &mut Wire<S>,
    towards: &mut Direction,
    key: Option<[u8; 4]>,
    code: u16,
    words: &str,
) {
    if !towards.is_clean() {
        return wire.stream.break_off();
    }
    if towards.closed.is_none() {
        let payload = close_payload(code, words);
        write_frame(&mut towards.out, Opcode::Close, true, key, &payload);
    }
    let said = async {
        write(&mut wire.stream, &mut towards.out).await?;
        wire.stream.shutdown().await
    };
    if !matches!(tokio::time::timeout(GOODBYE, said).await, Ok(Ok(()))) {
        return wire.stream.break_off();
    }
    let gone = async {
        while wire.fill().await.is_ok_and(|read| read > 0) {
            wire.unread.clear();
        }
    };
    let _ = tokio::time::timeout(LINGER, gone).await;
}

/// How the connection ended, for its record and for the peers.
struct Verdict {
    closed_by: &'static str,
    code: Option<u16>,
    words: String,
    error: Option<String>,
    /// Why Chaperone refuses to go on, as a word.
    refused: Option<&'static str>,
}

impl Verdict {
    fn of(end: &End, side: Side, sent: &Direction, received: &Direction) -> Self {
        let chaperone = |code, words: String, error, refused| Self {
            closed_by: "chaperone",
            code: Some(code),
            words,
            error,
            refused,
        };
        match end {
            End::Denied(denied) => chaperone(1008, denied.words.clone(), None, None),
            End::Malformed(error) => {
                let words = error.to_string();
                let refused = Some("malformed-frame");
                chaperone(error.close_code(), words.clone(), Some(words), refused)
            }
            End::Unheld(unheld) => {
                let words = unheld.to_string();
                chaperone(1013, words.clone(), Some(words), Some(unheld.why.reason()))
            }
            End::Stopping => chaperone(1001, "the sidecar stops".to_owned(), None, None),
            End::Eof => Self::ended(side, None, sent, received),
            End::Broke(error) => Self::ended(side, Some(error.to_string()), sent, received),
        }
    }

    /// Ended by one of the peers: by the one whose close frame came first, else by the one whose bytes ended first.
    fn ended(side: Side, error: Option<String>, sent: &Direction, received: &Direction) -> Self {
        let (side, code) = match (sent.closed, received.closed) {
            (Some((agent, code)), Some((upstream, _))) if agent <= upstream => (Side::Agent, code),
            (_, Some((_, code))) => (Side::Upstream, code),
            (Some((_, code)), None) => (Side::Agent, code),
            (None, None) => (side, None),
        };
        Self {
            closed_by: match side {
                Side::Agent => "agent",
                Side::Upstream => "upstream",
            },
            code,
            words: String::new(),
            // After a close frame, how the sockets end says nothing.
            error: error.filter(|_| code.is_none()),
            refused: None,
        }
    }
}

async fn record(talk: &Talk<'_>, verdict: Verdict, sent: &Direction, received: &Direction) {
    let shared = &talk.link.shared;
    let active = talk.link.now();
    let mut event = talk.event(&active, EventKind::WsClose, "close");
    if let Some(reason) = verdict.refused {
        shared.metrics.denials.with_label_values(&[reason]).inc();
        event.decision = Some(builtin(&active, Outcome::Deny, reason, &verdict.words));
    }
    event.error = verdict.error;
    event.masked.clone_from(&received.findings);
    event.ws = Some(WsInfo {
        connection: talk.number,
        closed_by: verdict.closed_by.to_owned(),
        code: verdict.code,
        sent_messages: sent.tally.messages,
        sent_bytes: sent.tally.bytes,
        received_messages: received.tally.messages,
        received_bytes: received.tally.bytes,
    });
    event.timing = Some(Timing {
        total_us: micros(talk.since.elapsed()),
        upstream_us: None,
        decide_us: None,
    });
    shared.recorder.record(event).await;
}
