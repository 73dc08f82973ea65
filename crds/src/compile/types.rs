//! The types that expressions are checked against: what variables there are, and what fields they have.
//!
//! Invariant: the model and [`crate::cel_env`]'s resolver know the same names; a test holds them together.

use std::fmt;

/// A type, as far as it is known before the expression runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ty {
    /// No value yet: the elements of an empty list.
    Never,
    /// Anything: a part of a JSON body.
    Dyn,
    Bool,
    Int,
    UInt,
    Double,
    Text,
    /// The name of a built-in detector, as text.
    Detector,
    Bytes,
    Null,
    List(Box<Ty>),
    /// From text to this.
    Map(Box<Ty>),
}

impl Ty {
    pub(crate) fn list(of: Ty) -> Self {
        Self::List(Box::new(of))
    }

    pub(crate) fn map(of: Ty) -> Self {
        Self::Map(Box::new(of))
    }

    /// Whether nothing is known.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Dyn | Self::Never)
    }

    /// Whether some part of it is not known, or is a value of ours that compares itself.
    pub(crate) fn has_open_part(&self) -> bool {
        match self {
            Self::List(of) | Self::Map(of) => of.has_open_part(),
            other => other.is_open() || *other == Self::Detector,
        }
    }

    pub(crate) fn is_number(&self) -> bool {
        matches!(self, Self::Int | Self::UInt | Self::Double)
    }

    /// Whether a value of one can equal a value of the other.
    pub(crate) fn comparable(&self, other: &Self) -> bool {
        match (self, other) {
            (a, b) if a.is_open() || b.is_open() || a == b => true,
            (a, b) if a.is_number() && b.is_number() => true,
            (Self::Detector, Self::Text) | (Self::Text, Self::Detector) => true,
            // Only a part of a body can be null, and that is open.
            (Self::List(a), Self::List(b)) | (Self::Map(a), Self::Map(b)) => a.comparable(b),
            _ => false,
        }
    }

    /// The type of a value that has one of two types.
    pub(crate) fn join(self, other: Self) -> Self {
        match (self, other) {
            (Self::Never, b) => b,
            (a, Self::Never) => a,
            (a, b) if a == b => a,
            (Self::List(a), Self::List(b)) => Self::list(a.join(*b)),
            (Self::Map(a), Self::Map(b)) => Self::map(a.join(*b)),
            _ => Self::Dyn,
        }
    }
}

impl fmt::Display for Ty {
    /// With its article, for sentences: `a string`, `an int`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Never | Self::Dyn => "a value",
            Self::Bool => "a bool",
            Self::Int => "an int",
            Self::UInt => "a uint",
            Self::Double => "a double",
            Self::Text => "a string",
            Self::Detector => "the name of a detector",
            Self::Bytes => "bytes",
            Self::Null => "null",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        })
    }
}

/// A variable that expressions read by its fields.
pub(crate) struct Object {
    pub(crate) name: &'static str,
    pub(crate) fields: &'static [Field],
}

/// One field of a variable.
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(super) kind: FieldKind,
    /// Whether it can be absent, so that `has` is a question.
    pub(crate) optional: bool,
}

pub(super) enum FieldKind {
    /// An object that is read by its own fields only.
    Part,
    Text,
    Bool,
    Int,
    TextList,
    List,
    TextMap,
    Detectors,
    Json,
}

impl Field {
    pub(crate) fn ty(&self) -> Ty {
        match self.kind {
            FieldKind::Text => Ty::Text,
            FieldKind::Bool => Ty::Bool,
            FieldKind::Int => Ty::Int,
            FieldKind::TextList => Ty::list(Ty::Text),
            FieldKind::TextMap => Ty::map(Ty::Text),
            FieldKind::Detectors => Ty::list(Ty::Detector),
            FieldKind::List => Ty::list(Ty::Dyn),
            FieldKind::Json | FieldKind::Part => Ty::Dyn,
        }
    }
}

pub(super) const fn field(name: &'static str, kind: FieldKind) -> Field {
    Field {
        name,
        kind,
        optional: false,
    }
}

pub(super) const fn optional(name: &'static str, kind: FieldKind) -> Field {
    Field {
        name,
        kind,
        optional: true,
    }
}

/// Every variable.
pub(crate) const OBJECTS: &[Object] = &[
    Object {
        name: "agent",
        fields: &[
            field("namespace", FieldKind::Text),
            field("pod", FieldKind::Text),
            field("serviceAccount", FieldKind::Text),
            field("labels", FieldKind::TextMap),
            field("images", FieldKind::TextList),
        ],
    },
    Object {
        name: "destination",
        fields: &[
            optional("host", FieldKind::Text),
            field("ip", FieldKind::Text),
            field("port", FieldKind::Int),
            optional("sni", FieldKind::Text),
        ],
    },
    Object {
        name: "operation",
        fields: &[
            field("protocol", FieldKind::Text),
            field("verb", FieldKind::Text),
            field("resource", FieldKind::Text),
        ],
    },
    Object {
        name: "grpc",
        fields: &[
            optional("service", FieldKind::Text),
            optional("method", FieldKind::Text),
            field("direction", FieldKind::Text),
            optional("message", FieldKind::Json),
        ],
    },
    Object {
        name: "http",
        fields: &[
            field("method", FieldKind::Text),
            field("scheme", FieldKind::Text),
            field("host", FieldKind::Text),
            field("path", FieldKind::Text),
            field("query", FieldKind::TextMap),
            field("headers", FieldKind::TextMap),
            optional("contentType", FieldKind::Text),
            optional("bodySize", FieldKind::Int),
            optional("body", FieldKind::Json),
            field("detected", FieldKind::Detectors),
        ],
    },
    Object {
        name: "dns",
        fields: &[
            field("name", FieldKind::Text),
            field("type", FieldKind::Text),
        ],
    },
    Object {
        name: "ws",
        fields: &[
            field("direction", FieldKind::Text),
            field("binary", FieldKind::Bool),
            optional("size", FieldKind::Int),
            optional("text", FieldKind::Text),
            optional("json", FieldKind::Json),
            field("detected", FieldKind::Detectors),
        ],
    },
];

/// What an expression is about: the variables that it has, and what errors advise.
pub(crate) struct Scope {
    pub(crate) objects: &'static [Object],
    /// What to do about an expression that is empty.
    pub(crate) if_empty: &'static str,
    /// What to do about one that is too large.
    pub(crate) if_large: &'static str,
}

/// The scope of a rule's `when`: one operation.
pub(crate) const RULE: Scope = Scope {
    objects: OBJECTS,
    if_empty: "the expression is empty; leave when out for a rule that always applies",
    if_large: "split the rule",
};

/// The scope of a sink's `filter`: one record.
pub(crate) const FILTER: Scope = Scope {
    objects: super::record::RECORD,
    if_empty: "the filter is empty; leave it out for a sink that gets every record",
    if_large: "write a simpler filter",
};

impl Scope {
    /// The variable of this name.
    pub(crate) fn object(&self, name: &str) -> Option<&'static Object> {
        self.objects.iter().find(|object| object.name == name)
    }
}

impl Object {
    /// The field of this name.
    pub(crate) fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The names of its fields, for an error: `method, scheme, …`.
    pub(crate) fn field_names(&self) -> String {
        let names: Vec<_> = self.fields.iter().map(|field| field.name).collect();
        names.join(", ")
    }
}
