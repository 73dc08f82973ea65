//! What holds for the messages of one call: their types, and what policy says of each.
//!
//! Owns the decision what is done to the bodies of a call. Where a mask or a rule needs messages that nobody can read, Enforce refuses and Audit says so in the record. Without
//! any descriptor set, responses are to masks what pictures are: bytes.

use std::{fmt, sync::Arc};

use chaperone_crds::{
    decide::{GrpcMessage, HeaderFields, WsDirection},
    detect::CompiledMasks,
    grpc::Method,
    record::{DecisionInfo, Outcome},
};
use prost_reflect::MessageDescriptor;

use super::{Form, MessageFilter};
use crate::{
    body::{BodyFilter, Leaving, Treatment, Unreadable, codings, edits_of_filtered},
    mask::{Format, Layers},
};

/// What policy says of a message.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The decision.
    pub decision: DecisionInfo,
    /// Why an expression could not be evaluated.
    pub error: Option<String>,
}

impl Verdict {
    /// Whether the message is denied.
    #[must_use]
    pub fn denies(&self) -> bool {
        self.decision.action == Outcome::Deny
    }
}

/// Asks policy about a message.
pub type Judge = Arc<dyn Fn(WsDirection, GrpcMessage<'_>) -> Verdict + Send + Sync>;

/// One call.
pub struct Call {
    /// `package.Service/Method`.
    name: String,
    /// The types of its messages; `None`: no descriptor set has it.
    method: Option<Method>,
    /// Whether there are descriptor sets at all.
    described: bool,
    /// Where a rule reads its messages.
    judge: Option<Judge>,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Call").field(&self.name).finish()
    }
}

impl Call {
    /// A call of `name` (`package.Service/Method`). `described`: there are descriptor sets, which may lack it.
    #[must_use]
    pub fn new(
        name: String,
        method: Option<Method>,
        described: bool,
        judge: Option<Judge>,
    ) -> Self {
        Self {
            name,
            method,
            described,
            judge,
        }
    }

    /// Whether a rule reads its messages.
    pub(crate) fn is_judged(&self) -> bool {
        self.judge.is_some()
    }

    pub(super) fn judge(&self) -> Option<&Judge> {
        self.judge.as_ref()
    }

    /// The type of the messages of a direction.
    pub(super) fn message(&self, direction: WsDirection) -> Option<&MessageDescriptor> {
        let method = self.method.as_ref()?;
        Some(match direction {
            WsDirection::Send => &method.request,
            WsDirection::Receive => &method.response,
        })
    }

    /// The type of what the server sends; `None`: no descriptor set has it.
    #[must_use]
    pub fn response(&self) -> Option<&MessageDescriptor> {
        self.message(WsDirection::Receive)
    }

    /// What is done to the request's body. `masks` and `restore`: what is masked in it, and what makes tokens values again. `strict`: Enforce.
    pub(crate) fn leaving(
        self: &Arc<Self>,
        fields: &dyn HeaderFields,
        masks: Option<&Arc<CompiledMasks>>,
        restore: Option<&Arc<CompiledMasks>>,
        strict: bool,
    ) -> Leaving {
        if self.method.is_none() && masks.is_some() {
            let why = Unreadable::Undescribed(self.name.clone());
            match (strict, &self.judge) {
                (true, _) => return Leaving::Refuse(why),
                (false, None) => return Leaving::PassUnread(why),
                (false, Some(_)) => {}
            }
        }
        let readable = self.method.is_some() && (masks.is_some() || restore.is_some());
        if !readable && self.judge.is_none() {
            return Leaving::Pass;
        }
        let codings = match codings(values(fields)) {
            Ok(codings) => codings,
            Err(names) if strict => return Leaving::Refuse(Unreadable::Request(names)),
            Err(names) => return Leaving::PassUnread(Unreadable::Request(names)),
        };
        let form = form(fields).unwrap_or(Form::Grpc);
        let layers = Layers::new(masks.cloned(), restore.cloned(), Format::Message);
        let filter = MessageFilter::new(
            self.clone(),
            WsDirection::Send,
            (form, fields),
            (masks.cloned(), layers),
            strict,
        );
        let filter = BodyFilter::of_messages(filter, &codings, strict);
        Leaving::Filter(edits_of_filtered(fields), Box::new(filter))
    }

    /// What is done to the response's body; `None`: it is no gRPC.
    pub fn treat(
        self: &Arc<Self>,
        fields: &dyn HeaderFields,
        has_body: bool,
        masks: Option<&Arc<CompiledMasks>>,
        strict: bool,
    ) -> Option<Treatment> {
        let form = form(fields)?;
        let masks = masks.filter(|masks| masks.reads_bodies());
        if !has_body {
            return Some(Treatment::Pass);
        }
        if let (None, Some(_), true) = (&self.method, masks, self.described) {
            let why = Unreadable::Undescribed(self.name.clone());
            match (strict, &self.judge) {
                (true, _) => return Some(Treatment::Refuse(why)),
                (false, None) => return Some(Treatment::PassUnread(why)),
                (false, Some(_)) => {}
            }
        }
        if self.judge.is_none() && (masks.is_none() || self.method.is_none()) {
            return Some(Treatment::Pass);
        }
        let codings = match codings(values(fields)) {
            Ok(codings) => codings,
            Err(names) if strict => return Some(Treatment::Refuse(Unreadable::Coding(names))),
            Err(names) => return Some(Treatment::PassUnread(Unreadable::Coding(names))),
        };
        let layers = Layers::new(masks.cloned(), None, Format::Message);
        let filter = MessageFilter::new(
            self.clone(),
            WsDirection::Receive,
            (form, fields),
            (masks.cloned(), layers),
            strict,
        );
        let filter = BodyFilter::of_messages(filter, &codings, strict);
        Some(Treatment::Filter(
            edits_of_filtered(fields),
            Box::new(filter),
        ))
    }
}

fn form(fields: &dyn HeaderFields) -> Option<Form> {
    let value = fields.first("content-type")?;
    Form::of(std::str::from_utf8(value).ok()?)
}

fn values(fields: &dyn HeaderFields) -> impl Iterator<Item = &[u8]> {
    let all = fields.fields();
    all.filter(|(name, _)| name.eq_ignore_ascii_case("content-encoding"))
        .map(|(_, value)| value)
}
