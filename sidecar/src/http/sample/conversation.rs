//! What of a request to a model is looked for beyond the beginning that a record keeps: the newest messages, which are what its turn is about.

use chaperone_crds::{
    messages::newest::{Found, Newest},
    record::NewestInfo,
};

use crate::mask::Masker;

/// Longest body in which the newest messages are looked for, in bytes once it is decoded: what the Messages API takes of one request. A longer one is passed on like any other, and nobody is kept busy with what it unfolds to.
pub(super) const MAX_BODY_BYTES: usize = 32 * 1024 * 1024;

/// A body that goes on beyond what is kept of it.
pub(super) struct Conversation {
    newest: Newest,
    begun: bool,
    /// What was masked and not looked at yet.
    masked: Vec<u8>,
}

impl Conversation {
    /// Keeps at most `limit` bytes of messages.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            newest: Newest::new(limit),
            begun: false,
            masked: Vec::new(),
        }
    }

    /// Sees more of the body, beyond what was `kept`. Nothing is looked at before there is more.
    pub(super) fn go_on(&mut self, masker: &mut Masker, kept: &[u8], beyond: &[u8]) {
        if !self.begun {
            self.begun = true;
            self.newest.push(kept);
        }
        masker.push(beyond, &mut self.masked);
        self.look();
    }

    /// What there is at the end of the body, of which `kept` bytes are kept anyway.
    pub(super) fn finish(mut self, masker: &mut Masker, kept: usize) -> Option<NewestInfo> {
        if !self.begun {
            return None;
        }
        masker.finish(&mut self.masked);
        self.look();
        let found = self.newest.finish()?;
        let is_beyond = usize::try_from(found.end).map_or(true, |end| end > kept);
        is_beyond.then(|| info(found))
    }

    fn look(&mut self) {
        self.newest.push(&self.masked);
        self.masked.clear();
    }
}

fn info(found: Found) -> NewestInfo {
    NewestInfo {
        text: Some(found.text),
        at: found.at,
        truncated: found.truncated,
    }
}
