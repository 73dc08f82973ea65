//! What is kept of the messages since the model's last answer, while it is not known which is the last.

use std::collections::VecDeque;

use super::newest::MAX_MESSAGES;

/// Messages one after another, at most so many bytes of them, the commas between them included; and as many of the one that is under way, until it is known whose it is.
///
/// Where they are longer, the oldest go first, each whole; of the newest its beginning stays in any case.
#[derive(Debug)]
pub(super) struct Kept {
    limit: usize,
    /// Those that are over.
    text: VecDeque<u8>,
    messages: VecDeque<Message>,
    /// Whether the last of them is the model's.
    by_model: bool,
    /// Whether the last of them is longer than what is kept of it.
    is_cut: bool,
    /// Whether messages before the first have gone.
    is_late: bool,
    /// Where the one begins that is under way, if one is.
    open: Option<u64>,
    role: Role,
    under_way: Vec<u8>,
    is_long: bool,
}

/// Who says a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Role {
    /// The model.
    Model,
    /// The agent's program, to set the scene: Claude Code puts pages of it behind the first prompt.
    System,
    /// Anybody else.
    #[default]
    Other,
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
            by_model: false,
            is_cut: false,
            is_late: false,
            open: None,
            role: Role::Other,
            under_way: Vec::new(),
            is_long: false,
        }
    }

    /// Nothing was said yet.
    pub(super) fn forget(&mut self) {
        self.text.clear();
        self.messages.clear();
        self.by_model = false;
        self.is_cut = false;
        self.is_late = false;
        self.open = None;
    }

    /// A message begins here, unless one is under way.
    pub(super) fn begin(&mut self, at: u64) {
        if self.open.is_none() {
            self.open = Some(at);
            self.role = Role::Other;
            self.under_way.clear();
            self.is_long = false;
        }
    }

    /// Who says the message that is under way.
    pub(super) fn said_by(&mut self, role: Role) {
        self.role = role;
    }

    /// More of the message that is under way, if one is.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.open.is_none() || self.is_long {
            return;
        }
        let room = self.limit.saturating_sub(self.under_way.len());
        let kept = bytes.get(..room).unwrap_or(bytes);
        self.under_way.extend_from_slice(kept);
        self.is_long = kept.len() < bytes.len();
    }

    /// The message that is under way, if one is, is over.
    pub(super) fn end(&mut self) {
        let Some(at) = self.open.take() else { return };
        if self.role == Role::System {
            return;
        }
        if self.by_model {
            self.forget();
        } else if self.is_cut || self.is_long && !self.messages.is_empty() {
            self.forget();
            self.is_late = true;
        }
        let bytes = self.under_way.len();
        while !self.messages.is_empty()
            && (self.messages.len() >= MAX_MESSAGES || self.room() < bytes)
        {
            self.drop_oldest();
        }
        self.text.extend(&self.under_way);
        self.messages.push_back(Message { at, bytes });
        self.by_model = self.role == Role::Model;
        self.is_cut = self.is_long;
    }

    /// Bytes that one more message may have, the commas before it counted.
    fn room(&self) -> usize {
        let used = self.text.len().saturating_add(self.messages.len());
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
