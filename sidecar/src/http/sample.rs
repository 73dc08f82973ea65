//! The beginning of a body, decoded and masked, for the record; of a conversation with a model also its newest messages.

mod conversation;

use std::sync::Arc;

use chaperone_crds::{
    decide::HeaderFields,
    detect::CompiledMasks,
    record::{BodyInfo, NewestInfo},
};
use prost_reflect::MessageDescriptor;

use super::view;
use crate::{
    body::{DecodeStack, Format, Media, codings, media},
    grpc::{Messages, Shown},
    mask::Masker,
};

use conversation::{Conversation, MAX_BODY_BYTES};

/// Keeps up to a number of bytes of a body and masks them before anyone sees them.
pub(crate) struct Sample {
    /// `None`: nothing is kept.
    masker: Option<Masker>,
    decode: DecodeStack,
    /// The coding that was not undone.
    omitted: Option<String>,
    kept: Vec<u8>,
    limit: usize,
    seen: usize,
    /// What is looked for beyond the limit.
    conversation: Option<Box<Conversation>>,
    /// The messages of a gRPC call, counted at every audit level.
    call: Option<Box<Shown>>,
}

impl Sample {
    /// Keeps up to `limit` bytes of text, masked by `masks`.
    pub(crate) fn new(masks: Arc<CompiledMasks>, limit: usize) -> Self {
        Self {
            masker: Some(Masker::new(masks)),
            limit,
            ..Self::off()
        }
    }

    /// Keeps nothing.
    pub(crate) fn off() -> Self {
        Self {
            masker: None,
            decode: DecodeStack::new(&[]),
            omitted: None,
            kept: Vec::new(),
            limit: 0,
            seen: 0,
            conversation: None,
            call: None,
        }
    }

    /// Also keeps the newest messages of a request to a model, as many bytes of them as of the body.
    pub(crate) fn follow_conversation(&mut self) {
        if self.masker.is_some() && self.limit > 0 {
            self.conversation = Some(Box::new(Conversation::new(self.limit)));
        }
    }

    /// Also counts gRPC messages, and keeps them as JSON where their type is known.
    pub(crate) fn count_messages(&mut self, of: Option<MessageDescriptor>) {
        self.call = Some(Box::new(Shown::new(of)));
    }

    /// The gRPC messages so far, where they are counted.
    pub(crate) fn messages(&self) -> Option<&Messages> {
        self.call.as_deref().map(Shown::messages)
    }

    /// Says what the body is, before any of it comes: its head's fields.
    pub(crate) fn describe(&mut self, fields: &dyn HeaderFields) {
        if let Some(call) = &mut self.call {
            call.describe(fields);
        }
        let Some(masker) = &mut self.masker else {
            return;
        };
        if self.call.as_ref().is_some_and(|call| call.shows()) {
            return masker.set_format(Format::Lines);
        }
        if let Media::Text(format) = media(view::field(fields, "content-type").map(str::as_bytes)) {
            masker.set_format(format);
        }
        let fields = fields.fields();
        let values = fields.filter(|(name, _)| name.eq_ignore_ascii_case("content-encoding"));
        match codings(values.map(|(_, value)| value)) {
            Ok(codings) => self.decode = DecodeStack::new(&codings),
            Err(names) => self.omitted = Some(names),
        }
    }

    /// Sees more of the body.
    pub(crate) fn push(&mut self, payload: &[u8]) {
        if let Some(call) = &mut self.call {
            let wanted = self.masker.is_some() && self.omitted.is_none() && self.seen <= self.limit;
            let mut lines = wanted.then(Vec::new);
            if let Err(why) = call.push(payload, lines.as_mut()) {
                self.omitted = Some(why.to_owned());
            }
            if call.shows() {
                return self.keep(&lines.unwrap_or_default());
            }
        }
        if self.masker.is_none() || self.omitted.is_some() {
            return;
        }
        if self.decode.is_empty() {
            return self.keep(payload);
        }
        if !self.wants_more() {
            return;
        }
        self.decode.give(payload);
        while self.wants_more() {
            match self.decode.next() {
                Ok(Some(text)) => {
                    let text = text.to_vec();
                    self.keep(&text);
                }
                Ok(None) => return,
                // What was read up to the limit stands, whatever follows.
                Err(_) if self.seen > self.limit => self.conversation = None,
                Err(error) => {
                    self.omitted = Some(error.to_string());
                    return;
                }
            }
        }
    }

    fn wants_more(&self) -> bool {
        self.seen <= self.limit || self.conversation.is_some()
    }

    fn keep(&mut self, text: &[u8]) {
        let Some(masker) = &mut self.masker else {
            return;
        };
        let room = self.limit.saturating_sub(self.seen);
        let (shown, beyond) = text.split_at_checked(room).unwrap_or((text, b""));
        masker.push(shown, &mut self.kept);
        self.seen = self.seen.saturating_add(text.len());
        if self.seen > MAX_BODY_BYTES {
            self.conversation = None;
        }
        if let Some(conversation) = &mut self.conversation
            && !beyond.is_empty()
        {
            conversation.go_on(masker, &self.kept, beyond);
        }
    }

    /// The newest messages of the conversation, where what is kept of the body ends before they do. At the end of the body, before [`Self::finish`].
    pub(crate) fn newest(&mut self) -> Option<NewestInfo> {
        let conversation = self.conversation.take()?;
        let masker = self.masker.as_mut()?;
        let newest = conversation.finish(masker, self.kept.len());
        newest.filter(|_| self.omitted.is_none())
    }

    /// What the record shows. Where the body was cut, what the masker still holds back is dropped: it may be the beginning of a secret.
    pub(crate) fn finish(mut self) -> Option<BodyInfo> {
        let masker = self.masker.as_mut()?;
        if self.omitted.is_some() {
            return Some(BodyInfo {
                text: None,
                omitted: self.omitted,
                truncated: false,
            });
        }
        let truncated = self.seen > self.limit;
        if !truncated {
            masker.finish(&mut self.kept);
        }
        Some(match String::from_utf8(self.kept) {
            Ok(text) => BodyInfo {
                text: Some(text),
                omitted: None,
                truncated,
            },
            Err(error) if truncated && error.utf8_error().error_len().is_none() => {
                // Cut inside a character: what stands before it is whole.
                let end = error.utf8_error().valid_up_to();
                let mut bytes = error.into_bytes();
                bytes.truncate(end);
                BodyInfo {
                    text: String::from_utf8(bytes).ok(),
                    omitted: None,
                    truncated,
                }
            }
            Err(_) => BodyInfo {
                text: None,
                omitted: Some("binary".to_owned()),
                truncated,
            },
        })
    }
}
