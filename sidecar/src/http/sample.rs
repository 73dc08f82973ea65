//! The beginning of a body, masked, for the record.

use std::sync::Arc;

use chaperone_crds::{detect::CompiledMasks, record::BodyInfo};

use crate::mask::Masker;

/// Keeps up to a number of bytes of a body and masks them before anyone sees them.
pub(crate) struct Sample {
    /// `None`: nothing is kept.
    masker: Option<Masker>,
    kept: Vec<u8>,
    limit: usize,
    seen: usize,
}

impl Sample {
    /// Keeps up to `limit` bytes, masked by `masks`.
    pub(crate) fn new(masks: Arc<CompiledMasks>, limit: usize) -> Self {
        Self {
            masker: Some(Masker::new(masks)),
            kept: Vec::new(),
            limit,
            seen: 0,
        }
    }

    /// Keeps nothing.
    pub(crate) fn off() -> Self {
        Self {
            masker: None,
            kept: Vec::new(),
            limit: 0,
            seen: 0,
        }
    }

    /// Sees more of the body.
    pub(crate) fn push(&mut self, payload: &[u8]) {
        let Some(masker) = &mut self.masker else {
            return;
        };
        let room = self.limit.saturating_sub(self.seen);
        if let Some(part) = payload.get(..payload.len().min(room)) {
            masker.push(part, &mut self.kept);
        }
        self.seen = self.seen.saturating_add(payload.len());
    }

    /// What the record shows. Where the body was cut, what the masker still holds back is dropped: it may be the beginning of a secret.
    pub(crate) fn finish(mut self) -> Option<BodyInfo> {
        let masker = self.masker.as_mut()?;
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
