//! Who speaks first on a connection, and what.
//!
//! Invariant: no protocol that Chaperone reads is taken for one that it does not because its client was slow.

use std::time::Duration;

use crate::{
    detect::{DETECT_BYTES, Detected, detect},
    idle,
    link::Link,
    wire::{Io, Wire},
};

/// How long a client may say nothing before the upstream is dialled to see whether the server speaks first.
pub const SERVER_FIRST_WAIT: Duration = Duration::from_millis(300);
/// How long a silent client is waited for where policy lets no unread protocol pass: its first bytes may yet be a request. Clients that connect ahead of need and are reset connect
/// again.
const REFUSED_SILENCE: Duration = Duration::from_secs(10);
/// How long the first bytes may take once they have begun.
const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(60);

/// Who spoke first, and what.
pub enum First {
    /// The agent, in this protocol.
    Speaks(Detected),
    /// The agent waits for the server: a protocol of which Chaperone reads none yet.
    ServerFirst,
    /// The connection ended before anyone spoke.
    Silent,
}

/// Reads until the agent's bytes tell a protocol. With `upstream` connected, the first of both to speak decides, however long it takes. Without, a silent agent is taken
/// for one that waits for its server: soon where policy would let such a protocol pass, else after a time.
pub async fn first_bytes<A: Io, U: Io>(
    link: &Link,
    agent: &mut Wire<A>,
    upstream: Option<&mut Wire<U>>,
) -> First {
    let patience = if upstream.is_none() && link.may_pass_unread() {
        SERVER_FIRST_WAIT
    } else {
        REFUSED_SILENCE
    };
    first_bytes_within(patience, link, agent, upstream).await
}

/// The same where the upstream took no connection and may be reached at another address, once the agent has said what for.
pub async fn first_bytes_of_agent<A: Io>(link: &Link, agent: &mut Wire<A>) -> First {
    first_bytes_within(REFUSED_SILENCE, link, agent, None::<&mut Wire<A>>).await
}

async fn first_bytes_within<A: Io, U: Io>(
    patience: Duration,
    link: &Link,
    agent: &mut Wire<A>,
    mut upstream: Option<&mut Wire<U>>,
) -> First {
    let silence_ends = tokio::time::Instant::now() + patience;
    let mut bytes_end = None;
    let mut stopping = link.shared.stopping.clone();
    loop {
        match detect(&agent.unread) {
            Detected::More if agent.unread.len() < DETECT_BYTES => {}
            known => return First::Speaks(known),
        }
        let silent = agent.unread.is_empty();
        let dialled = upstream.is_some();
        if !silent {
            bytes_end.get_or_insert_with(|| tokio::time::Instant::now() + FIRST_BYTES_TIMEOUT);
        }
        let read = tokio::select! {
            biased;
            // Bytes that are there count before an end that came after them.
            read = idle::fill(agent) => read,
            spoke = server_speaks(upstream.as_deref_mut()), if silent => match spoke {
                true => return First::ServerFirst,
                false => return First::Silent,
            },
            () = tokio::time::sleep_until(silence_ends), if silent && !dialled => return First::ServerFirst,
            () = expires(bytes_end) => return First::Speaks(slow(&agent.unread)),
            Ok(_) = stopping.wait_for(|stop| *stop), if silent => return First::Silent,
        };
        match read {
            Ok(0) if silent => return First::Silent,
            Ok(0) => return First::Speaks(Detected::Unknown),
            Ok(_) => {}
            Err(_) => return First::Silent,
        }
    }
}

/// What bytes are that came too slowly to tell: a request as far as they look like one, so that no agent gets past by being slow.
fn slow(unread: &[u8]) -> Detected {
    if unread.contains(&b' ') {
        Detected::Http
    } else {
        Detected::Unknown
    }
}

async fn expires(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn is_answer(unread: &[u8]) -> bool {
    unread.starts_with(b"HTTP/1.")
}

/// Whether the server sent the first byte; false when it ended. An HTTP answer to no request (408, most likely) is a server's way of ending an idle connection.
async fn server_speaks<U: Io>(upstream: Option<&mut Wire<U>>) -> bool {
    match upstream {
        // It may have spoken before, in one segment with the proxy's answer to a CONNECT.
        Some(Wire { unread, .. }) if !unread.is_empty() && !is_answer(unread) => true,
        Some(upstream) => {
            idle::fill(upstream).await.is_ok_and(|read| read > 0) && !is_answer(&upstream.unread)
        }
        None => std::future::pending().await,
    }
}
