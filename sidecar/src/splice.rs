//! Passes bytes both ways unread: for gaps, and for what follows an upgrade.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes that one direction reads at a time.
const BUFFER_BYTES: usize = 16 * 1024;

/// How many bytes passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spliced {
    /// From agent to upstream.
    pub sent: u64,
    /// From upstream to agent.
    pub received: u64,
}

/// Passes bytes both ways until both sides have ended, or one breaks. A half-closed side is half-closed on the other (RFC 9293 §3.6). `counts` grows as it goes, so
/// that it is right however this ends, cancelled too.
///
/// # Errors
/// When one side breaks: then break off both, for neither has heard all.
pub async fn splice<A, U>(agent: &mut A, upstream: &mut U, counts: &mut Spliced) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let (mut agent_read, mut agent_write) = tokio::io::split(agent);
    let (mut upstream_read, mut upstream_write) = tokio::io::split(upstream);
    tokio::try_join!(
        pass(&mut agent_read, &mut upstream_write, &mut counts.sent),
        pass(&mut upstream_read, &mut agent_write, &mut counts.received),
    )?;
    Ok(())
}

async fn pass<R, W>(from: &mut R, to: &mut W, count: &mut u64) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
            return to.shutdown().await;
        };
        to.write_all(bytes).await?;
        to.flush().await?;
        *count = count.saturating_add(read as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_half_close_reaches_the_other_side_and_the_answer_still_returns() {
        let (mut client, mut agent) = tokio::io::duplex(64);
        let (mut upstream, mut server) = tokio::io::duplex(64);
        let story = tokio::spawn(async move {
            let mut counts = Spliced::default();
            splice(&mut agent, &mut upstream, &mut counts)
                .await
                .unwrap();
            counts
        });
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut asked = Vec::new();
        server.read_to_end(&mut asked).await.unwrap();
        server.write_all(b"answer!").await.unwrap();
        drop(server);
        let mut answered = Vec::new();
        client.read_to_end(&mut answered).await.unwrap();
        assert_eq!(
            (&asked[..], &answered[..]),
            (&b"question"[..], &b"answer!"[..])
        );
        assert_eq!(
            story.await.unwrap(),
            Spliced {
                sent: 8,
                received: 7
            }
        );
    }
}
