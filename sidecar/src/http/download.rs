//! A response on its way to the agent: as written, or masked as it streams.

use std::{io, sync::Arc, time::Instant};

use bytes::BytesMut;
use chaperone_crds::{detect::CompiledMasks, record::MaskedInfo};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{body::Body, pace::Pace, sample::Sample};
use crate::{
    body::{BodyFilter, CodingError, Edit, Look, Message, Treatment, Unreadable, masked_fields},
    grpc::{Call, Verdict},
    http1::{
        BodyDecoder, BodyError, BodyFraming, HeadError, HeaderEditError, ResponseHead, Version,
        parse_response,
    },
    websocket::{HandshakeError, Offer},
    wire,
};

/// Most interim responses (1xx) to one request. RFC 9110 §15.2 sets no bound; a server that sends more keeps a connection busy for nothing.
pub(crate) const MAX_INTERIM: usize = 16;

/// Most payload that is read ahead to see the first text of a body under a coding. A gzip header may carry a file name, a zstd stream frames to skip; more is no text
/// of interest.
pub(crate) const MAX_LOOKED_AT_BYTES: usize = 64 * 1024;

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
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// A body that is not what its content coding says.
    #[error("the response cannot be decoded: {0}")]
    Coding(#[from] CodingError),
    /// A switch to another protocol that the request did not ask for or policy does not allow.
    #[error("the upstream switched to another protocol unasked")]
    Switch,
    /// An answer to a WebSocket handshake that does not fit it.
    #[error("the upstream's answer to the WebSocket handshake is refused: {0}")]
    Handshake(#[from] HandshakeError),
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
            Self::Unreadable(
                Unreadable::Coding(_)
                | Unreadable::Request(_)
                | Unreadable::Type
                | Unreadable::Unframed,
            ) => "compressed-response",
            Self::Unreadable(Unreadable::Partial(_)) => "partial-response",
            Self::Unreadable(Unreadable::Undescribed(_))
            | Self::Coding(CodingError::Message(_)) => "unreadable-response",
            Self::Coding(_) => "undecodable-response",
            Self::Switch => "unasked-switch",
            Self::Handshake(_) => "websocket-handshake",
            Self::Agent(_) => "agent-gone",
            Self::Stopping => "stopping",
        }
    }

    /// Whether it is a body that policy denies or nobody can read.
    pub(crate) fn is_unread(&self) -> bool {
        matches!(self, Self::Unreadable(_) | Self::Coding(_))
    }

    /// Whether Chaperone refuses a response that came.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::Head(_)
            | Self::Body(_)
            | Self::Interim
            | Self::Unreadable(_)
            | Self::Coding(_)
            | Self::Switch
            | Self::Handshake(_) => true,
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
    /// What a switch of protocols may lead to.
    pub(crate) switch: Switch<'a>,
    /// Whether the agent was told 100 Continue already.
    pub(crate) continued: bool,
    /// The gRPC call that the request is, where its messages may be read.
    pub(crate) call: Option<Arc<Call>>,
}

/// What may follow a head that ends HTTP/1.
#[derive(Clone, Copy)]
pub(crate) enum Switch<'a> {
    /// Nothing: it is refused.
    No,
    /// Bytes that pass unread.
    Tunnel,
    /// The inside of a tunnel that CONNECT asked for.
    Connect,
    /// WebSocket, if the upstream agrees to this.
    WebSocket(&'a Offer),
    /// HTTP/2.
    Http2,
}

impl Switch<'_> {
    /// Whether this head leads where it may.
    fn check(&self, head: &ResponseHead) -> Result<(), DownloadError> {
        match self {
            Self::No => Err(DownloadError::Switch),
            Self::Tunnel => Ok(()),
            // A 101 would be another switch.
            Self::Connect if head.status() == 101 => Err(DownloadError::Switch),
            Self::Connect => Ok(()),
            Self::Http2 => match head.upgrade() {
                Some(to) if to.eq_ignore_ascii_case("h2c") => Ok(()),
                _ => Err(DownloadError::Switch),
            },
            Self::WebSocket(offer) => {
                if !head
                    .upgrade()
                    .is_some_and(|to| to.eq_ignore_ascii_case("websocket"))
                {
                    return Err(DownloadError::Switch);
                }
                let fields = head.headers();
                offer.accepted(
                    fields.get_all("sec-websocket-accept"),
                    fields.get_all("sec-websocket-extensions"),
                )?;
                Ok(())
            }
        }
    }
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
    pub(crate) unmasked: Option<Unreadable>,
    /// What was wrong with a body that was passed on all the same (Audit).
    pub(crate) note: Option<CodingError>,
    /// What masks found in heads, interim ones too.
    pub(crate) head_findings: Vec<MaskedInfo>,
    /// What policy says of messages of a gRPC call.
    pub(crate) verdict: Option<Verdict>,
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
    let mut head = final_head(upstream, unread, agent, plan, progress).await?;
    progress.answered = Some(Instant::now());
    if head.switches() {
        plan.switch.check(&head)?;
        mask_fields(&mut head, plan, progress)?;
        head.write_to(&mut out);
        progress.head = Some(head);
        wire::send(agent, &out)
            .await
            .map_err(DownloadError::Agent)?;
        return Ok(false);
    }
    let framing = head.framing();
    progress.sample.describe(head.headers());
    let filter = filter(&mut head, upstream, unread, plan, progress).await?;
    mask_fields(&mut head, plan, progress)?;
    let written = if filter.is_some() {
        head.reframe(plan.version)?
    } else {
        framing
    };
    let reusable = head.keep_alive() && framing != BodyFraming::UntilClose;
    head.write_to(&mut out);
    Body::new(head, framing, filter, written, plan.masks.clone())
        .pass(upstream, unread, agent, &mut out, progress)
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
    progress: &mut Progress,
) -> Result<ResponseHead, DownloadError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    for _ in 0..=MAX_INTERIM {
        let mut head = read_head(upstream, unread, plan.method).await?;
        if !head.is_interim() {
            return Ok(head);
        }
        let repeated = head.status() == 100 && plan.continued;
        if !repeated && plan.version == Version::Http11 {
            mask_fields(&mut head, plan, progress)?;
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

/// The filter for this response, if it is to be masked; the head is edited accordingly. Fails where masks apply and cannot read it.
async fn filter<R>(
    head: &mut ResponseHead,
    upstream: &mut R,
    unread: &mut BytesMut,
    plan: &Plan<'_>,
    progress: &mut Progress,
) -> Result<Option<BodyFilter>, DownloadError>
where
    R: AsyncRead + Unpin,
{
    let message = Message {
        status: head.status(),
        has_body: head.framing() != BodyFraming::None,
        fields: head.headers(),
    };
    let (masks, call) = (plan.masks.as_ref(), plan.call.as_ref());
    let of_call =
        call.and_then(|call| call.treat(head.headers(), message.has_body, masks, plan.strict));
    let mut treatment = of_call.unwrap_or_else(|| message.treat(masks, plan.strict));
    if let Treatment::Look(look) = &mut treatment {
        treatment = look_at(look, upstream, unread, head.framing()).await?;
    }
    match treatment {
        Treatment::Pass | Treatment::Look(_) => Ok(None),
        Treatment::PassUnread(why) => {
            progress.unmasked = Some(why);
            Ok(None)
        }
        Treatment::Refuse(why) => Err(why.into()),
        Treatment::HeadOnly(edits) => {
            edit(head, &edits)?;
            Ok(None)
        }
        Treatment::Filter(edits, filter) => {
            edit(head, &edits)?;
            Ok(Some(*filter))
        }
    }
}

fn edit(head: &mut ResponseHead, edits: &[Edit]) -> Result<(), HeaderEditError> {
    head.headers_mut().apply(edits)
}

/// Masks the values of fields.
fn mask_fields(
    head: &mut ResponseHead,
    plan: &Plan<'_>,
    progress: &mut Progress,
) -> Result<(), HeaderEditError> {
    let Some(masks) = &plan.masks else {
        return Ok(());
    };
    let (changed, findings) = masked_fields(masks, head.headers());
    progress.head_findings.extend(findings);
    for (name, values) in changed {
        head.headers_mut().replace(&name, &values)?;
    }
    Ok(())
}

/// Looks at the first bytes of a body whose type says nothing, without using them up.
async fn look_at<R>(
    look: &mut Look,
    upstream: &mut R,
    unread: &mut BytesMut,
    framing: BodyFraming,
) -> Result<Treatment, DownloadError>
where
    R: AsyncRead + Unpin,
{
    let mut ended = false;
    loop {
        let mut first = Vec::new();
        let seen = BodyDecoder::new(framing).pump(unread, |payload| {
            let room = MAX_LOOKED_AT_BYTES.saturating_sub(first.len());
            first.extend_from_slice(payload.get(..payload.len().min(room)).unwrap_or_default());
        })?;
        let enough = seen.done || ended || first.len() >= MAX_LOOKED_AT_BYTES;
        if let Some(treatment) = look.at(&first, enough) {
            return Ok(treatment);
        }
        let read = wire::fill(upstream, unread).await;
        ended = read.map_err(DownloadError::Upstream)? == 0;
    }
}
