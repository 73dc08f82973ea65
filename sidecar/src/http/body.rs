//! A response's body under way: as written, or filtered as it streams and framed anew.

use std::sync::Arc;

use bytes::{Buf, BytesMut};
use chaperone_crds::{detect::CompiledMasks, record::MaskedInfo};
use futures::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    download::{DownloadError, Progress},
    sample::Sample,
};
use crate::{
    body::{BodyFilter, is_false_when_masked, masked_fields},
    grpc::Verdict,
    http1::{
        BodyDecoder, BodyFraming, HeaderEditError, Headers, ResponseHead, write_chunk,
        write_last_chunk,
    },
    wire::{self, Appetite, BULK_BYTES},
};

/// Bytes that one read asks for of a body that is filtered. What is read is held some six times on its way through the filter, as long as a slow agent likes.
const FILTERED_READ_BYTES: usize = 32 * 1024;

/// A body under way.
pub(super) struct Body {
    decoder: BodyDecoder,
    filter: Option<BodyFilter>,
    /// Masks for the trailers of what goes through the filter.
    masks: Option<Arc<CompiledMasks>>,
    /// What they found.
    found: Vec<MaskedInfo>,
    /// Whether the filter may change the payload, so that what trailers say of it would be false.
    altered: bool,
    /// Framing that the agent sees.
    written: BodyFraming,
    filtered: Vec<u8>,
    /// Bytes at the beginning of what is unread that leave as they are.
    ready: usize,
    /// The head, until it is sent: before that, a body that cannot be read may still be answered in words.
    head: Option<ResponseHead>,
}

impl Body {
    /// The body after `head`, which is written already. It is framed by `framing`, and by `written` once it is filtered. A chunked body that passes as it is goes through a filter of nothing
    /// where `masks` apply, for it may have trailers.
    pub(super) fn new(
        head: ResponseHead,
        framing: BodyFraming,
        filter: Option<BodyFilter>,
        written: BodyFraming,
        masks: Option<Arc<CompiledMasks>>,
    ) -> Self {
        let altered = filter.is_some();
        let trailers = framing == BodyFraming::Chunked && written == BodyFraming::Chunked;
        let filter = match masks {
            Some(_) if trailers => filter.or_else(|| Some(BodyFilter::of_nothing())),
            _ => filter,
        };
        Self {
            masks,
            found: Vec::new(),
            altered,
            decoder: BodyDecoder::new(framing),
            filter,
            written,
            filtered: Vec::new(),
            ready: 0,
            head: Some(head),
        }
    }

    /// Passes the body on; `out` holds the head, which leaves together with the first bytes of the body.
    pub(super) async fn pass<R, W>(
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
        let mut appetite = match self.filter {
            Some(_) => Appetite::up_to(FILTERED_READ_BYTES),
            None => Appetite::default(),
        };
        loop {
            let taken = self.take(unread, &mut progress.sample);
            progress.bytes = self.decoder.payload_bytes();
            taken?;
            // What is there already leaves in one write: a TLS stream gives a record at a time.
            let ahead = match self.decoder.is_done() || self.ready >= BULK_BYTES {
                true => None,
                false => appetite.fill(upstream, unread).now_or_never(),
            };
            if matches!(ahead, Some(Ok(read)) if read > 0) && self.filter.is_none() {
                continue;
            }
            self.send(agent, unread, out, progress).await?;
            if self.decoder.is_done() {
                return Ok(());
            }
            let read = match ahead {
                Some(read) => read,
                None => appetite.fill(upstream, unread).await,
            };
            if read.map_err(DownloadError::Upstream)? == 0 {
                self.decoder.eof()?;
                if let Some(filter) = &mut self.filter {
                    filter.end();
                }
                return self.send(agent, unread, out, progress).await;
            }
        }
    }

    /// Takes what is unread: it is ready to be sent as it is, or goes to the filter.
    fn take(&mut self, unread: &mut BytesMut, sample: &mut Sample) -> Result<(), DownloadError> {
        let filter = &mut self.filter;
        let fresh = unread.get(self.ready..).unwrap_or_default();
        let progress = self.decoder.pump(fresh, |payload| {
            sample.push(payload);
            if let Some(filter) = filter {
                filter.push(payload);
            }
        })?;
        match filter {
            None => self.ready = self.ready.saturating_add(progress.consumed),
            Some(filter) => {
                unread.advance(progress.consumed);
                // Also for a body of no bytes, which is done before it begins: its last chunk is due all the same.
                if progress.done {
                    filter.end();
                }
            }
        }
        Ok(())
    }

    /// Sends what is in `out`, then what is ready of `unread` or all that the filter lets go, a bounded piece at a time.
    async fn send<W: AsyncWrite + Unpin>(
        &mut self,
        agent: &mut W,
        unread: &mut BytesMut,
        out: &mut BytesMut,
        progress: &mut Progress,
    ) -> Result<(), DownloadError> {
        loop {
            let pulled = self.pull(out);
            self.report(progress);
            let more = pulled?;
            if !out.is_empty() || self.ready > 0 {
                progress.head = progress.head.take().or(self.head.take());
                let ready = unread.get(..self.ready).unwrap_or_default();
                let sent = wire::send_both(agent, out, ready).await;
                sent.map_err(DownloadError::Agent)?;
                out.clear();
                unread.advance(self.ready);
                self.ready = 0;
            }
            if !more {
                return Ok(());
            }
        }
    }

    /// Appends to `out`, in the framing that the agent sees, what the filter lets go; true when there is more.
    fn pull(&mut self, out: &mut BytesMut) -> Result<bool, DownloadError> {
        let Some(filter) = &mut self.filter else {
            return Ok(false);
        };
        let more = filter.pull(&mut self.filtered)?;
        match self.written {
            BodyFraming::Chunked => write_chunk(out, &self.filtered),
            _ => out.extend_from_slice(&self.filtered),
        }
        self.filtered.clear();
        if filter.is_done() && self.written == BodyFraming::Chunked {
            let trailers = self.trailers()?;
            write_last_chunk(out, &trailers);
        }
        Ok(more)
    }

    /// Trailers as the agent gets them: masked, and without those that say what is false of a masked body.
    fn trailers(&mut self) -> Result<Headers, HeaderEditError> {
        let mut kept = self.decoder.trailers().clone();
        if self.altered {
            for (name, _) in self.decoder.trailers().iter() {
                if is_false_when_masked(&name.to_ascii_lowercase()) {
                    kept.remove(name);
                }
            }
        }
        if let Some(masks) = &self.masks {
            let (changed, found) = masked_fields(masks, &kept);
            self.found.extend(found);
            for (name, values) in changed {
                kept.replace(&name, &values)?;
            }
        }
        Ok(kept)
    }

    /// Says how far it came: nobody may ask again.
    fn report(&mut self, progress: &mut Progress) {
        progress.head_findings.append(&mut self.found);
        if let Some(filter) = &self.filter {
            progress.findings.clear();
            progress.findings.extend_from_slice(filter.findings());
            progress.note = filter.note();
            if progress.verdict.is_none() || filter.verdict().is_some_and(Verdict::denies) {
                progress.verdict = filter.verdict().cloned();
            }
        }
    }
}
