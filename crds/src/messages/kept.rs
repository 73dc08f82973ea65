//! What is kept of the messages since the model's last answer, while it is not known which is the last.

use std::collections::VecDeque;

use super::newest::MAX_MESSAGES;

/// Messages one after another, at most so many bytes of them, the commas between them included.
///
/// Where they are longer, the oldest go first, each whole; of the newest its beginning stays in any case.
#[derive(Debug)]
pub(super) struct Kept {
    limit: usize,
    text: VecDeque<u8>,
    messages: VecDeque<Message>,
    /// Whether bytes are of the last message.
    is_open: bool,
    /// Whether the last message is the model's.
    by_model: bool,
    /// Whether the last message is longer than what is kept of it.
    is_cut: bool,
    /// Whether messages before the first have gone.
    is_late: bool,
}

#[derive(Debug)]
struct Message {
    /// Bytes of the request before it.
    at: u64,
    /// Bytes of it that are kept.
    bytes: usize,
}

impl Kept {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            text: VecDeque::new(),
            messages: VecDeque::new(),
            is_open: false,
            by_model: false,
            is_cut: false,
            is_late: false,
        }
    }

    /// Nothing was said yet.
    pub(super) fn forget(&mut self) {
        self.text.clear();
        self.messages.clear();
        self.is_open = false;
        self.by_model = false;
        self.is_cut = false;
        self.is_late = false;
    }

    /// A message begins here, unless one is under way.
    pub(super) fn begin(&mut self, at: u64) {
        if self.is_open {
            return;
        }
        match (self.by_model, self.is_cut) {
            (true, _) => self.forget(),
            (false, true) => {
                self.forget();
                self.is_late = true;
            }
            (false, false) => {}
        }
        if self.messages.len() >= MAX_MESSAGES {
            self.drop_oldest();
        }
        self.messages.push_back(Message { at, bytes: 0 });
        self.is_open = true;
    }

    /// The message that is under way, if one is, is over.
    pub(super) fn end(&mut self) {
        self.is_open = false;
    }

    /// Who says the message that is under way.
    pub(super) fn said_by_model(&mut self, is: bool) {
        self.by_model = is;
    }

    /// More of the message that is under way, if one is.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if !self.is_open || self.is_cut {
            return;
        }
        while self.messages.len() > 1 && self.room() < bytes.len() {
            self.drop_oldest();
        }
        let kept = bytes.get(..bytes.len().min(self.room())).unwrap_or(bytes);
        self.text.extend(kept);
        if let Some(last) = self.messages.back_mut() {
            last.bytes = last.bytes.saturating_add(kept.len());
        }
        self.is_cut = kept.len() < bytes.len();
    }

    fn room(&self) -> usize {
        let commas = self.messages.len().saturating_sub(1);
        let used = self.text.len().saturating_add(commas);
        self.limit.saturating_sub(used)
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.messages.pop_front() {
            self.text.drain(..oldest.bytes.min(self.text.len()));
            self.is_late = true;
        }
    }

    /// Where the first begins, all of them, and whether there was more. Nothing where there is none, where the last is the model's and cut, so that it may not say whose it is, or where they are no JSON that anybody reads: not UTF-8, or with control characters, which
    /// a record would also have to write sixfold.
    pub(super) fn into_text(self) -> Option<(u64, String, bool)> {
        if self.by_model && self.is_cut {
            return None;
        }
        let at = self.messages.front()?.at;
        let mut bytes = self.text.into_iter();
        let mut text = Vec::with_capacity(bytes.len().saturating_add(self.messages.len()));
        for (number, message) in self.messages.iter().enumerate() {
            if number > 0 {
                text.push(b',');
            }
            text.extend(bytes.by_ref().take(message.bytes));
        }
        if let Err(error) = std::str::from_utf8(&text)
            && self.is_cut
            && error.error_len().is_none()
        {
            // Cut inside a character: what stands before it is whole.
            text.truncate(error.valid_up_to());
        }
        let text = String::from_utf8(text).ok()?;
        let is_control =
            |c: char| c.is_ascii_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{7f}');
        let truncated = self.is_cut || self.is_late;
        (!text.contains(is_control)).then_some((at, text, truncated))
    }
}
