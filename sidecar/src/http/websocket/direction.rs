//! One direction of a WebSocket connection: what comes from one side becomes what goes to the other, judged and masked on the way.
//!
//! No sockets: the story reads into `unread` and writes `out`. A message takes one of three ways: it passes as it was written; it is rewritten, in frames of ours, as masks let
//! its text go, and with tokens that become their values on their way out; or it is held, because a rule reads it, until it is whole.
//!
//! Compressed messages are undone to be read and pass as they were written. One that is rewritten leaves uncompressed, which RFC 7692 §6 leaves to the sender message by message.
//! The receiver's window then lacks it, so that later messages, which may refer to it, are rewritten too, unless each stands alone.
//!
//! Invariant: of a message that is denied not a byte is in `out`; and `out` ends inside a frame only while [`Direction::is_clean`] says no.

use std::{sync::Arc, time::Instant};

use bytes::BytesMut;
use chaperone_crds::{
    decide::MessageView,
    record::{Event, MaskedInfo, Outcome},
};
use rustls::crypto::SecureRandom;

use super::{
    hold::Hold,
    message::{Denied, Message, Way, layers, refusal},
    talk::{Rules, Seen, Talk, direction},
};
use crate::websocket::{
    Decoder, Deflate, FrameError, Inflate, Item, Kind, Opcode, Piece, Side, Utf8, write_frame,
};

/// Most rewritten bytes of one frame.
const MAX_FRAME_BYTES: usize = 64 * 1024;
/// What one step did.
pub(super) enum Step {
    /// Everything that came is used.
    Starved,
    /// There is more to do.
    Again,
    /// A message is over, and this is its record.
    Record(Box<Event>),
    /// A message is refused.
    Denied(Box<Denied>),
}

/// What is in `out` and may not leave yet.
pub(super) struct Unsent {
    bytes: BytesMut,
    open: bool,
}

/// Messages and bytes that came.
#[derive(Clone, Copy, Default)]
pub(super) struct Tally {
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

/// One direction.
pub(super) struct Direction {
    sender: Side,
    decoder: Decoder,
    inflate: Option<Inflate>,
    /// Whether compressed messages stand alone.
    no_context: bool,
    /// Whether the receiver's window lacks what the sender's has.
    latched: bool,
    rules: Option<Arc<Rules>>,
    message: Option<Message>,
    /// A piece under way, its payload, and how much of that is used.
    piece: Option<(Piece, Vec<u8>, usize)>,
    /// Text of a message that is rewritten, before it is framed.
    plain: Vec<u8>,
    /// Whether `out` ends inside a frame.
    open: bool,
    /// Whether what was written of it does.
    cut: bool,
    /// What goes to the other side.
    pub(super) out: BytesMut,
    /// What came.
    pub(super) tally: Tally,
    /// What masks found.
    pub(super) findings: Vec<MaskedInfo>,
    /// The sender's close frame, with its code.
    pub(super) closed: Option<(Instant, Option<u16>)>,
}

impl Direction {
    /// What `sender` will send.
    pub(super) fn new(sender: Side, deflate: Option<Deflate>) -> Self {
        let no_context = deflate.is_some_and(|deflate| match sender {
            Side::Agent => deflate.agent_no_context,
            Side::Upstream => deflate.upstream_no_context,
        });
        Self {
            sender,
            decoder: Decoder::new(sender, deflate.is_some()),
            inflate: deflate.map(|_| Inflate::new(no_context)),
            no_context,
            latched: false,
            rules: None,
            message: None,
            piece: None,
            plain: Vec::new(),
            open: false,
            cut: false,
            out: BytesMut::new(),
            tally: Tally::default(),
            findings: Vec::new(),
            closed: None,
        }
    }

    /// Whether a frame may follow what is in `out`.
    pub(super) fn is_clean(&self) -> bool {
        !self.open
    }

    /// All of `out` was written.
    pub(super) fn written(&mut self) {
        self.cut = self.open;
    }

    /// Takes what is not written out of `out`, so that nobody sends it.
    pub(super) fn take_back(&mut self) -> Unsent {
        Unsent {
            open: std::mem::replace(&mut self.open, self.cut),
            bytes: self.out.split(),
        }
    }

    /// It may go.
    pub(super) fn give_back(&mut self, unsent: Unsent) {
        self.open = unsent.open;
        self.out.unsplit(unsent.bytes);
    }

    /// Whether nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.decoder.between_messages() && self.piece.is_none() && self.message.is_none()
    }

    /// Takes from `unread`, a little at a time: a compressed piece may take many steps.
    ///
    /// # Errors
    /// When the bytes are refused.
    pub(super) fn step(
        &mut self,
        unread: &mut BytesMut,
        talk: &Talk<'_>,
    ) -> Result<Step, FrameError> {
        if self.piece.is_some() {
            return self.go_on(talk);
        }
        match self.decoder.next(unread)? {
            None => Ok(Step::Starved),
            Some(Item::Control { raw }) => {
                self.out.extend_from_slice(&raw);
                Ok(Step::Again)
            }
            Some(Item::Close { raw, code }) => {
                self.closed = Some((Instant::now(), code));
                self.out.extend_from_slice(&raw);
                Ok(Step::Again)
            }
            Some(Item::Piece(piece)) => {
                if let Some((kind, compressed)) = piece.begins {
                    self.begin(kind, compressed, talk);
                }
                let mut payload = Vec::new();
                if self.reads_payload() {
                    piece.payload(&mut payload);
                } else if let Some(message) = &mut self.message {
                    message.bytes = message.bytes.saturating_add(piece.len() as u64);
                }
                self.piece = Some((piece, payload, 0));
                self.go_on(talk)
            }
        }
    }

    fn begin(&mut self, kind: Kind, compressed: bool, talk: &Talk<'_>) {
        let rules = talk.rules(self.rules.as_ref());
        self.rules = Some(rules.clone());
        let way = if rules.judged {
            Way::Hold(Hold::default())
        } else {
            self.way(&rules, kind, compressed)
        };
        self.message = Some(Message {
            kind,
            compressed,
            since: Instant::now(),
            way,
            utf8: Utf8::default(),
            bytes: 0,
            sample: rules.sample(direction(self.sender), kind),
            rules,
            verdict: None,
            begun: false,
        });
    }

    /// What becomes of a message that policy lets pass.
    fn way(&mut self, rules: &Rules, kind: Kind, compressed: bool) -> Way {
        let layers = layers(rules, self.sender, kind);
        if layers.is_empty() && !(compressed && self.latched) {
            return Way::Pass;
        }
        self.latched |= compressed && !self.no_context;
        Way::Rewrite(layers)
    }

    /// Binary messages that pass as they are need not be looked at.
    fn reads_payload(&self) -> bool {
        self.message.as_ref().is_some_and(|message| {
            message.compressed || message.kind == Kind::Text || !matches!(message.way, Way::Pass)
        })
    }

    /// Uses what is there of the piece under way.
    fn go_on(&mut self, talk: &Talk<'_>) -> Result<Step, FrameError> {
        let Some((piece, payload, used)) = self.piece.take() else {
            return Ok(Step::Again);
        };
        let compressed = self.message.as_ref().is_some_and(|m| m.compressed);
        let denied = if compressed {
            match self.inflate(&piece, &payload, used, talk)? {
                Inflated::More(used, denied) => {
                    self.piece = Some((piece, payload, used));
                    return Ok(denied.map_or(Step::Again, Step::Denied));
                }
                Inflated::Done => None,
            }
        } else {
            self.feed(&payload, talk)?
        };
        match denied {
            Some(denied) => Ok(Step::Denied(denied)),
            None => self.finish(&piece, talk),
        }
    }

    /// Undoes the next bit of a compressed piece; its input is the payload, and at the end of the message what the sender cut off.
    fn inflate(
        &mut self,
        piece: &Piece,
        payload: &[u8],
        used: usize,
        talk: &Talk<'_>,
    ) -> Result<Inflated, FrameError> {
        let Some(mut inflate) = self.inflate.take() else {
            return Err(FrameError::Reserved);
        };
        let tail = if piece.ends { Inflate::tail() } else { &[] };
        let total = payload.len().saturating_add(tail.len());
        let mut rest = match payload.get(used..) {
            Some(rest) if !rest.is_empty() => rest,
            _ => tail
                .get(used.saturating_sub(payload.len())..)
                .unwrap_or_default(),
        };
        let before = rest.len();
        let made = inflate.step(&mut rest).map(<[u8]>::to_vec);
        self.inflate = Some(inflate);
        let made = made?;
        let used = used.saturating_add(before.saturating_sub(rest.len()));
        if made.is_empty() && (used >= total || before == rest.len()) {
            return Ok(Inflated::Done);
        }
        Ok(Inflated::More(used, self.feed(&made, talk)?))
    }

    /// Shows the message's next bytes to everyone who reads them.
    fn feed(&mut self, bytes: &[u8], talk: &Talk<'_>) -> Result<Option<Box<Denied>>, FrameError> {
        let Some(message) = &mut self.message else {
            return Ok(None);
        };
        message.bytes = message.bytes.saturating_add(bytes.len() as u64);
        if message.kind == Kind::Text && !message.utf8.push(bytes) {
            return Err(FrameError::Utf8);
        }
        message.sample.push(bytes);
        if let Way::Hold(hold) = &mut message.way {
            if hold.has_room(bytes.len()) {
                hold.payload.extend_from_slice(bytes);
                return Ok(None);
            }
            if let Some(denied) = self.decide(true, talk) {
                return Ok(Some(denied));
            }
            self.release();
        }
        self.rewrite(bytes);
        if self.plain.len() >= MAX_FRAME_BYTES {
            self.emit(false);
        }
        Ok(None)
    }

    fn rewrite(&mut self, bytes: &[u8]) {
        if let Some(message) = &mut self.message {
            match &mut message.way {
                Way::Rewrite(layers) => layers.push(bytes, &mut self.plain),
                Way::Pass | Way::Hold(_) => {}
            }
        }
    }

    /// A piece is used up.
    fn finish(&mut self, piece: &Piece, talk: &Talk<'_>) -> Result<Step, FrameError> {
        let Some(message) = &mut self.message else {
            return Ok(Step::Again);
        };
        if piece.ends && !message.utf8.is_whole() {
            return Err(FrameError::Utf8);
        }
        if let Way::Hold(hold) = &mut message.way {
            hold.raw.extend_from_slice(&piece.raw);
            // The payload may be small where the frames are many.
            let too_much = !hold.has_room(0);
            if too_much || piece.ends {
                if let Some(denied) = self.decide(too_much, talk) {
                    return Ok(Step::Denied(denied));
                }
                self.release();
                self.open &= !piece.ends_frame;
            }
        } else if matches!(message.way, Way::Pass) {
            self.out.extend_from_slice(&piece.raw);
            self.open = !piece.ends_frame;
        }
        if piece.ends {
            return Ok(self.end(talk));
        }
        self.emit(false);
        Ok(Step::Again)
    }

    /// Asks policy about the message that is held.
    fn decide(&mut self, too_large: bool, talk: &Talk<'_>) -> Option<Box<Denied>> {
        let message = self.message.as_mut()?;
        let Way::Hold(hold) = &message.way else {
            return None;
        };
        let view = match (message.kind, std::str::from_utf8(&hold.payload)) {
            _ if too_large => MessageView::TooLarge,
            (Kind::Text, Ok(text)) => MessageView::Text(text),
            _ => MessageView::Binary(message.bytes),
        };
        let direction = direction(self.sender);
        let verdict = talk.judge(&message.rules, direction, message.kind, view);
        if verdict.decision.action == Outcome::Allow {
            message.verdict = Some(verdict);
            return None;
        }
        let (why, words) = (verdict.decision.reason.clone(), refusal(&verdict));
        message.verdict = Some(verdict);
        Some(Box::new(Denied {
            event: self.take_record(talk),
            why,
            words,
        }))
    }

    /// Lets a held message go.
    fn release(&mut self) {
        let Some(mut message) = self.message.take() else {
            return;
        };
        let way = self.way(&message.rules, message.kind, message.compressed);
        if let Way::Hold(hold) = std::mem::replace(&mut message.way, way) {
            match &mut message.way {
                Way::Rewrite(layers) => layers.push(&hold.payload, &mut self.plain),
                Way::Pass | Way::Hold(_) => {
                    self.out.extend_from_slice(&hold.raw);
                    // Until the piece that is under way has ended its frame.
                    self.open = true;
                }
            }
        }
        self.message = Some(message);
    }

    /// The message is over.
    fn end(&mut self, talk: &Talk<'_>) -> Step {
        if let Some(inflate) = &mut self.inflate
            && self.message.as_ref().is_some_and(|m| m.compressed)
        {
            inflate.end_message();
        }
        if let Some(message) = &mut self.message
            && let Way::Rewrite(layers) = &mut message.way
        {
            layers.finish(&mut self.plain);
            self.emit(true);
        }
        match self.take_record(talk) {
            Some(event) => Step::Record(event),
            None => Step::Again,
        }
    }

    /// Counts the message, and makes its record where it gets one.
    fn take_record(&mut self, talk: &Talk<'_>) -> Option<Box<Event>> {
        let message = self.message.take()?;
        let word = direction(self.sender);
        let metrics = &talk.link.shared.metrics;
        metrics
            .ws_messages
            .with_label_values(&[word.as_str()])
            .inc();
        self.tally.messages = self.tally.messages.saturating_add(1);
        self.tally.bytes = self.tally.bytes.saturating_add(message.bytes);
        let masked = match &message.way {
            Way::Rewrite(layers) => layers.findings().to_vec(),
            _ => Vec::new(),
        };
        metrics.masked.inc_by(masked.iter().map(|f| f.count).sum());
        for found in &masked {
            self.find(found);
        }
        let body = message
            .sample
            .finish()
            .filter(|_| message.kind == Kind::Text);
        let verdict = message
            .verdict
            .unwrap_or_else(|| Talk::unjudged(&message.rules));
        let seen = Seen {
            kind: message.kind,
            bytes: message.bytes,
            since: message.since,
            body,
            masked,
        };
        talk.message(&message.rules, word, verdict, seen)
    }

    fn find(&mut self, found: &MaskedInfo) {
        let known = self
            .findings
            .iter_mut()
            .find(|known| known.mask == found.mask && known.detector == found.detector);
        match known {
            Some(known) => known.count = known.count.saturating_add(found.count),
            None => self.findings.push(found.clone()),
        }
    }

    /// Writes what is ready of a rewritten message as a frame.
    fn emit(&mut self, fin: bool) {
        let Some(message) = &mut self.message else {
            return;
        };
        if !matches!(message.way, Way::Rewrite(_)) || (self.plain.is_empty() && !fin) {
            return;
        }
        let opcode = match (message.begun, message.kind) {
            (true, _) => Opcode::Continuation,
            (false, Kind::Text) => Opcode::Text,
            (false, Kind::Binary) => Opcode::Binary,
        };
        message.begun = true;
        write_frame(&mut self.out, opcode, fin, key(self.sender), &self.plain);
        self.plain.clear();
    }
}

enum Inflated {
    /// So much of the input is used, and more may come out.
    More(usize, Option<Box<Denied>>),
    /// Nothing more comes of it.
    Done,
}

/// A key for a frame of ours: the agent's frames need one that nobody can foresee (RFC 6455 §10.3).
pub(super) fn key(sender: Side) -> Option<[u8; 4]> {
    (sender == Side::Agent).then(|| {
        let mut key = [0; 4];
        let random: &dyn SecureRandom = rustls::crypto::aws_lc_rs::default_provider().secure_random;
        // Where the system has no randomness, no TLS works either; the key protects no secret.
        let _ = random.fill(&mut key);
        key
    })
}
