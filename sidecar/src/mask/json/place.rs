//! The place in a document: the containers around it, the name or number of the value that comes, and where the paths stand.

use chaperone_crds::detect::{Child, CompiledMasks, Fields, MAX_FIELD_BYTES, Places};

/// Most bytes of a name as written that are kept to compare it: the longest that a path has, all of it as `\uXXXX`. A longer one is none of them.
const MAX_NAME_BYTES: usize = 6 * MAX_FIELD_BYTES;

/// A kind of value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `{…}`
    Object,
    /// `[…]`
    Array,
    /// `"…"`
    Text,
    /// A number, `true`, `false`, `null`.
    Bare,
}

/// One container around the place.
#[derive(Debug)]
struct Container {
    array: bool,
    /// Number of the element that comes.
    element: u64,
    /// Where the paths stand at the container.
    paths: Places,
}

/// The place in a document.
#[derive(Debug)]
pub(super) struct Place {
    /// Where paths stand at the document; empty where there are none, and then names are not kept.
    start: Places,
    containers: Vec<Container>,
    /// Name of the member that comes, as written.
    name: Vec<u8>,
}

impl Place {
    pub(super) fn new(masks: &CompiledMasks) -> Self {
        Self {
            start: masks.fields().start(),
            containers: Vec::new(),
            name: Vec::new(),
        }
    }

    /// Containers around the place.
    pub(super) fn depth(&self) -> usize {
        self.containers.len()
    }

    /// The innermost container.
    pub(super) fn innermost(&self) -> Option<Kind> {
        self.containers
            .last()
            .map(|container| match container.array {
                true => Kind::Array,
                false => Kind::Object,
            })
    }

    /// Back to the beginning of a document.
    pub(super) fn clear(&mut self) {
        self.containers.clear();
        self.name.clear();
    }

    pub(super) fn begin_name(&mut self) {
        self.name.clear();
    }

    /// One more byte of the name.
    pub(super) fn name(&mut self, byte: u8) {
        if !self.start.is_empty() && self.name.len() <= MAX_NAME_BYTES {
            self.name.push(byte);
        }
    }

    /// The name is complete: escapes are undone.
    pub(super) fn end_name(&mut self) {
        if memchr::memchr(b'\\', &self.name).is_none() {
            return;
        }
        let quoted = [b"\"", self.name.as_slice(), b"\""].concat();
        if let Ok(name) = serde_json::from_slice::<String>(&quoted) {
            self.name = name.into_bytes();
        }
    }

    /// Enters a value; says which rule selects it. `inside`: it is part of a selected value.
    pub(super) fn enter(&mut self, fields: &Fields, kind: Kind, inside: bool) -> Option<usize> {
        let (paths, rule) = match self.containers.last_mut() {
            None => (self.start.clone(), None),
            Some(container) => {
                let child = if container.array {
                    let element = container.element;
                    container.element = element.saturating_add(1);
                    Child::Element(element)
                } else {
                    let known = self.name.len() <= MAX_NAME_BYTES;
                    Child::Member(known.then_some(self.name.as_slice()))
                };
                if inside || container.paths.is_empty() {
                    (Places::new(), None)
                } else {
                    fields.child(&container.paths, child)
                }
            }
        };
        if matches!(kind, Kind::Object | Kind::Array) {
            self.containers.push(Container {
                array: kind == Kind::Array,
                element: 0,
                paths,
            });
        }
        rule
    }

    /// Leaves the innermost container.
    pub(super) fn leave(&mut self) {
        self.containers.pop();
    }
}
