//! The messages of one direction for the record: counted, and as JSON where a descriptor has them.

use chaperone_crds::{decide::HeaderFields, grpc::to_json};
use prost_reflect::MessageDescriptor;

use super::{
    Form, Messages,
    count::TRAILERS,
    encoding::Encoding,
    frames::{Frames, PREFIX_BYTES, Step},
    text::Groups,
};

/// Sees the messages of one direction.
pub(crate) struct Shown {
    messages: Messages,
    form: Form,
    groups: Groups,
    encoding: Encoding,
    /// What messages are made of; `None`: they are counted alone.
    of: Option<MessageDescriptor>,
    frames: Frames,
}

impl Shown {
    /// Counts messages, and shows those of this type.
    pub(crate) fn new(of: Option<MessageDescriptor>) -> Self {
        Self {
            messages: Messages::default(),
            form: Form::Grpc,
            groups: Groups::default(),
            encoding: Encoding::Identity,
            of,
            frames: Frames::default(),
        }
    }

    /// Says what the body is.
    pub(crate) fn describe(&mut self, fields: &dyn HeaderFields) {
        let said = fields
            .first("content-type")
            .and_then(|value| std::str::from_utf8(value).ok());
        self.encoding = Encoding::of(fields);
        match said.and_then(Form::of) {
            Some(form) => self.form = form,
            // An error in HTML or JSON is no message.
            None => self.of = None,
        }
    }

    /// Whether messages become JSON.
    pub(crate) fn shows(&self) -> bool {
        self.of.is_some()
    }

    /// Counts of messages, and the status where it came at the body's end.
    pub(crate) fn messages(&self) -> &Messages {
        &self.messages
    }

    /// Sees more of the body. With `lines`, each message that is whole is appended as a line of JSON.
    ///
    /// # Errors
    /// Why a message cannot be shown, as a sentence.
    pub(crate) fn push(
        &mut self,
        payload: &[u8],
        mut lines: Option<&mut Vec<u8>>,
    ) -> Result<(), &'static str> {
        if self.form != Form::WebText {
            return self.bytes(payload, lines);
        }
        let (mut text, mut shown) = (payload, Ok(()));
        while let Some(group) = self.groups.next(&mut text) {
            let (_, bytes) = group.map_err(|_| "the body is not base64")?;
            let result = self.bytes(&bytes, lines.as_deref_mut());
            if result.is_err() {
                (shown, lines) = (result, None);
            }
        }
        shown
    }

    fn bytes(&mut self, bytes: &[u8], lines: Option<&mut Vec<u8>>) -> Result<(), &'static str> {
        self.messages.push(bytes);
        let (Some(of), Some(lines)) = (&self.of, lines) else {
            return Ok(());
        };
        let mut rest = bytes;
        while let Some(step) = self.frames.next(&mut rest) {
            let frame = match step {
                Step::Whole(frame) => frame,
                Step::TooLong(_) => return Err("a message is too large to be read"),
                Step::Beyond(_) => continue,
            };
            let Some((&[flags, ..], payload)) = frame.split_first_chunk::<PREFIX_BYTES>() else {
                continue;
            };
            if flags & TRAILERS != 0 {
                continue;
            }
            let unfolded;
            let message = match flags & 1 {
                0 => payload,
                _ => {
                    unfolded = self.encoding.unfold(payload)?;
                    &unfolded
                }
            };
            lines.extend(to_json(of, message).map_err(|why| why.why())?.as_bytes());
            lines.push(b'\n');
        }
        Ok(())
    }
}
