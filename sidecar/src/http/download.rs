//! A response on its way to the agent: as written, or masked as it streams.

use std::{io, sync::Arc, time::Instant};

use bytes::BytesMut;
use chaperone_crds::{detect::CompiledMasks, record::MaskedInfo};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{pace::Pace, sample::Sample};
use crate::{
    http1::{
        BodyDecoder, BodyError, BodyFraming, HeadError, HeaderEditError, ResponseHead, Version,
        parse_response, write_chunk, write_last_chunk,
    },
    mask::Masker,
    wire,
};

/// Most interim responses (1xx) to one request. RFC 9110 §15.2 sets no bound; a server that sends more keeps a connection busy for nothing.
const MAX_INTERIM: usize = 16;

/// Why a response did not arrive whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DownloadError {
    /// No response came.
    #[error("the upstream closed the connection without an answer")]
    NoAnswer,
    /// The upstream broke off.
    #[error("the upstream broke off: {0}")]
    Upstream(io::Error),
    /// The upstream's head is refused.
    #[error("the upstream's response is malformed: {0}")]
    Head(#[from] HeadError),
    /// The upstream's body is refused, or ended early.
    #[error("the upstream's response body is malformed: {0}")]
    Body(#[from] BodyError),
    /// Too many 1xx.
    #[error("the upstream sent more than {MAX_INTERIM} interim responses")]
    Interim,
    /// A response that must be masked and cannot be read.
    #[error("the response is compressed ({0}), so that masks cannot read it")]
    Compressed(String),
    /// A part of a resource cannot be masked: a match may begin before it.
    #[error("the response is partial (206), so that masks cannot read it whole")]
    Partial,
    /// A switch to another protocol that the request did not ask for or policy does not allow.
    #[error("the upstream switched to another protocol unasked")]
    Switch,
    /// An edited head does not fit.
    #[error("the response head cannot be edited: {0}")]
    Edit(#[from] HeaderEditError),
    /// The agent went away.
    #[error("the agent went away: {0}")]
    Agent(io::Error),
    /// The sidecar stops.
    #[error("the sidecar stopped before the response was whole")]
    Stopping,
}

impl DownloadError {
    /// Label for metrics and records.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::NoAnswer => "no-answer",
            Self::Upstream(_) => "upstream-reset",
            Self::Head(_) | Self::Body(_) | Self::Interim | Self::Edit(_) => "malformed-response",
            Self::Compressed(_) => "compressed-response",
            Self::Partial => "partial-response",
            Self::Switch => "unasked-switch",
            Self::Agent(_) => "agent-gone",
            Self::Stopping => "stopping",
        }
    }

    /// Whether Chaperone refuses a response that came.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::Head(_)
            | Self::Body(_)
            | Self::Interim
            | Self::Compressed(_)
            | Self::Partial
            | Self::Switch => true,
            Self::NoAnswer
            | Self::Upstream(_)
            | Self::Edit(_)
            | Self::Agent(_)
            | Self::Stopping => false,
        }
    }
}

/// What is done to a response.
pub(crate) struct Plan<'a> {
    /// Method of the request, which decides whether a body follows.
    pub(crate) method: &'a str,
    /// Version of the agent's request: HTTP/1.0 knows no chunks.
    pub(crate) version: Version,
    /// Masks that apply to text.
    pub(crate) masks: Option<Arc<CompiledMasks>>,
    /// Whether an unreadable response is refused (Enforce) or passed and recorded (Audit).
    pub(crate) strict: bool,
    /// Whether a switch of protocols may pass.
    pub(crate) may_switch: bool,
    /// Whether the agent was told 100 Continue already.
    pub(crate) continued: bool,
}

/// What came of a response. Filled as it goes, so that it is right even when the response breaks off.
pub(crate) struct Progress {
    /// Head of the final response, once it was sent to the agent.
    pub(crate) head: Option<ResponseHead>,
    /// Payload bytes that the upstream sent.
    pub(crate) bytes: u64,
    /// When the head came.
    pub(crate) answered: Option<Instant>,
    /// What masks found.
    pub(crate) findings: Vec<MaskedInfo>,
    /// The body's beginning, for the record.
    pub(crate) sample: Sample,
    /// A response that should have been masked and passed unread (Audit).
    pub(crate) unmasked: Option<DownloadError>,
}

/// Passes one response on. Returns whether the upstream connection is good for another request.
///
/// # Errors
/// As [`DownloadError`]. If `progress.head` is there, the agent has received part of a response: only closing tells it the truth.
pub(crate) async fn download<R, W>(
    upstream: &mut R,
    unread: &mut BytesMut,
    agent: &mut W,
    plan: &Plan<'_>,
    progress: &mut Progress,
) -> Result<bool, DownloadError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut out = BytesMut::new();
    let mut head = final_head(upstream, unread, agent, plan).await?;
    progress.answered = Some(Instant::now());
    if head.switches() {
        if !plan.may_switch {
            return Err(DownloadError::Switch);
        }
        head.write_to(&mut out);
        progress.head = Some(head);
        wire::send(agent, &out)
            .await
            .map_err(DownloadError::Agent)?;
        return Ok(false);
    }
    let framing = head.framing();
    let masker = masker(&head, upstream, unread, plan, progress).await?;
    let written = if masker.is_some() {
        head.reframe(plan.version)?
    } else {
        framing
    };
    let reusable = head.keep_alive() && framing != BodyFraming::UntilClose;
    head.write_to(&mut out);
    progress.head = Some(head);
    let mut body = Body {
        decoder: BodyDecoder::new(framing),
        masker,
        written,
        masked: Vec::new(),
    };
    body.pass(upstream, unread, agent, &mut out, progress)
        .await?;
    // Bytes after a response answer no request (RFC 9112 §9.2): nothing that follows can be told apart.
    Ok(reusable && unread.is_empty())
}

/// Reads heads until one is final; interim ones are passed on.
async fn final_head<R, W>(
    upstream: &mut R,
    unread: &mut BytesMut,
    agent: &mut W,
    plan: &Plan<'_>,
) -> Result<ResponseHead, DownloadError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    for _ in 0..=MAX_INTERIM {
        let head = read_head(upstream, unread, plan.method).await?;
        if !head.is_interim() {
            return Ok(head);
        }
        let repeated = head.status() == 100 && plan.continued;
        if !repeated && plan.version == Version::Http11 {
            let mut out = BytesMut::new();
            head.write_to(&mut out);
            wire::send(agent, &out)
                .await
                .map_err(DownloadError::Agent)?;
        }
    }
    Err(DownloadError::Interim)
}

async fn read_head<R>(
    upstream: &mut R,
    unread: &mut BytesMut,
    method: &str,
) -> Result<ResponseHead, DownloadError>
where
    R: AsyncRead + Unpin,
{
    let mut pace = Pace::default();
    loop {
        if pace.is_worth_it(unread)
            && let Some((head, used)) = parse_response(unread, method)?
        {
            let _ = unread.split_to(used);
            return Ok(head);
        }
        let read = wire::fill(upstream, unread)
            .await
            .map_err(|error| match unread.is_empty() {
                true => DownloadError::NoAnswer,
                false => DownloadError::Upstream(error),
            })?;
        if read == 0 {
            return Err(DownloadError::NoAnswer);
        }
    }
}

/// The masker for this response, if it is text. Fails where masks apply and cannot read it.
async fn masker<R>(
    head: &ResponseHead,
    upstream: &mut R,
    unread: &mut BytesMut,
    plan: &Plan<'_>,
    progress: &mut Progress,
) -> Result<Option<Masker>, DownloadError>
where
    R: AsyncRead + Unpin,
{
    let Some(masks) = &plan.masks else {
        return Ok(None);
    };
    if head.framing() == BodyFraming::None {
        return Ok(None);
    }
    let media = media(head.headers().get("content-type"));
    if media == Media::Binary {
        return Ok(None);
    }
    if let Some(error) = unreadable(head) {
        if plan.strict {
            return Err(error);
        }
        progress.unmasked = Some(error);
        return Ok(None);
    }
    if media == Media::Unsaid && !looks_like_text(upstream, unread, head.framing()).await? {
        return Ok(None);
    }
    Ok(Some(Masker::new(masks.clone())))
}

/// Looks at the first bytes of a body whose type says nothing, without using them up.
async fn looks_like_text<R>(
    upstream: &mut R,
    unread: &mut BytesMut,
    framing: BodyFraming,
) -> Result<bool, DownloadError>
where
    R: AsyncRead + Unpin,
{
    loop {
        let mut first = Vec::new();
        let seen = BodyDecoder::new(framing).pump(unread, |payload| {
            let room = SNIFFED_BYTES.saturating_sub(first.len());
            first.extend_from_slice(payload.get(..payload.len().min(room)).unwrap_or_default());
        })?;
        if !first.is_empty() || seen.done {
            return Ok(is_text(&first));
        }
        if wire::fill(upstream, unread)
            .await
            .map_err(DownloadError::Upstream)?
            == 0
        {
            return Ok(true);
        }
    }
}

/// Whether bytes are text: UTF-8 (perhaps cut inside a character) without NUL.
fn is_text(bytes: &[u8]) -> bool {
    let utf8 = match std::str::from_utf8(bytes) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    };
    utf8 && memchr::memchr(0, bytes).is_none()
}

fn unreadable(head: &ResponseHead) -> Option<DownloadError> {
    let coded = head
        .headers()
        .get_all("content-encoding")
        .map(|value| String::from_utf8_lossy(value).trim().to_ascii_lowercase())
        .find(|coding| !coding.is_empty() && coding != "identity");
    match coded {
        Some(coding) => Some(DownloadError::Compressed(coding)),
        None if head.status() == 206 => Some(DownloadError::Partial),
        None => None,
    }
}

/// What a media type says of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Media {
    /// Text, or what may hold text: masked.
    Text,
    /// No text: passes as it is.
    Binary,
    /// Nothing: the body's first bytes tell. Downloads of any kind come as `application/octet-stream`, and a mask must not change a byte of a program.
    Unsaid,
}

/// Most bytes of a body that are looked at to tell text from other bytes.
const SNIFFED_BYTES: usize = 512;

fn media(content_type: Option<&[u8]>) -> Media {
    let essence = content_type
        .unwrap_or_default()
        .split(|b| *b == b';')
        .next()
        .unwrap_or_default();
    let essence = essence.trim_ascii().to_ascii_lowercase();
    let Some(slash) = memchr::memchr(b'/', &essence) else {
        return Media::Unsaid;
    };
    let (kind, sub) = essence.split_at(slash);
    let sub = sub.get(1..).unwrap_or_default();
    match kind {
        _ if sub == b"octet-stream" => Media::Unsaid,
        b"image" if sub.ends_with(b"+xml") => Media::Text,
        b"image" | b"audio" | b"video" | b"font" => Media::Binary,
        b"application" if BINARY.contains(&sub) => Media::Binary,
        _ => Media::Text,
    }
}

/// Media types below `application/` whose bytes are no text.
const BINARY: [&[u8]; 12] = [
    b"gzip",
    b"zip",
    b"zstd",
    b"x-tar",
    b"x-gzip",
    b"x-xz",
    b"x-bzip2",
    b"x-7z-compressed",
    b"pdf",
    b"wasm",
    b"x-git-packed-objects",
    b"x-git-upload-pack-result",
];

/// A body under way.
struct Body {
    decoder: BodyDecoder,
    masker: Option<Masker>,
    /// Framing that the agent sees.
    written: BodyFraming,
    masked: Vec<u8>,
}

impl Body {
    /// Passes the body on; `out` holds the head, which leaves together with the first bytes of the body.
    async fn pass<R, W>(
        &mut self,
        upstream: &mut R,
        unread: &mut BytesMut,
        agent: &mut W,
        out: &mut BytesMut,
        progress: &mut Progress,
    ) -> Result<(), DownloadError>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            let taken = self.take(unread, out, &mut progress.sample);
            self.report(progress);
            taken?;
            if !out.is_empty() {
                wire::send(agent, out).await.map_err(DownloadError::Agent)?;
                out.clear();
            }
            if self.decoder.is_done() {
                return Ok(());
            }
            if wire::fill(upstream, unread)
                .await
                .map_err(DownloadError::Upstream)?
                == 0
            {
                self.decoder.eof()?;
                self.end(out, &mut progress.sample);
                self.report(progress);
                return wire::send(agent, out).await.map_err(DownloadError::Agent);
            }
        }
    }

    /// Says how far it came: nobody may ask again.
    fn report(&self, progress: &mut Progress) {
        progress.bytes = self.decoder.payload_bytes();
        if let Some(masker) = &self.masker {
            progress.findings.clear();
            progress.findings.extend_from_slice(masker.findings());
        }
    }

    /// Uses what is unread and appends to `out` what the agent is to see.
    fn take(
        &mut self,
        unread: &mut BytesMut,
        out: &mut BytesMut,
        sample: &mut Sample,
    ) -> Result<(), DownloadError> {
        let (masker, masked) = (&mut self.masker, &mut self.masked);
        let progress = self.decoder.pump(unread, |payload| match masker {
            Some(masker) => masker.push(payload, masked),
            None => sample.push(payload),
        })?;
        let raw = unread.split_to(progress.consumed);
        if self.masker.is_none() {
            out.extend_from_slice(&raw);
            return Ok(());
        }
        self.flush(out, sample);
        // Also for a body of no bytes, which is done before it begins: its last chunk is due all the same.
        if progress.done {
            self.end(out, sample);
        }
        Ok(())
    }

    /// Writes what the masker has let go, in the framing that the agent sees.
    fn flush(&mut self, out: &mut BytesMut, sample: &mut Sample) {
        sample.push(&self.masked);
        match self.written {
            BodyFraming::Chunked => write_chunk(out, &self.masked),
            _ => out.extend_from_slice(&self.masked),
        }
        self.masked.clear();
    }

    /// Writes what the masker held back, and the end of the body.
    fn end(&mut self, out: &mut BytesMut, sample: &mut Sample) {
        let Some(masker) = &mut self.masker else {
            return;
        };
        masker.finish(&mut self.masked);
        self.flush(out, sample);
        if self.written == BodyFraming::Chunked {
            write_last_chunk(out, &crate::http1::Headers::default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_tell_text_from_other_bytes() {
        for (value, expected) in [
            (None, Media::Unsaid),
            (Some("text/html; charset=utf-8"), Media::Text),
            (Some("application/json"), Media::Text),
            (Some("application/vnd.api+json"), Media::Text),
            (Some("image/svg+xml"), Media::Text),
            (Some("image/png"), Media::Binary),
            (Some("Application/Octet-Stream"), Media::Unsaid),
            (Some("application/gzip"), Media::Binary),
            (Some("nonsense"), Media::Unsaid),
        ] {
            assert_eq!(media(value.map(str::as_bytes)), expected, "{value:?}");
        }
    }

    #[test]
    fn text_is_utf8_without_nul() {
        assert!(is_text(b""));
        assert!(is_text("gr\u{fc}n".as_bytes()));
        assert!(is_text(&"gr\u{fc}n".as_bytes()[..3]));
        assert!(!is_text(b"\x7fELF\x02\x01\x00"));
        assert!(!is_text(b"\xff\xfea"));
    }
}
