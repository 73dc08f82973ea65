//! Paths: which values of a JSON document, or fields of a form, a mask replaces whole.
//!
//! Owns the syntax, a part of JSONPath (RFC 9535) that can be decided as a document streams, and the search for what a set of paths selects. Refuses filters, slices and
//! indices from the end, which need what has not come yet. Pure: callers read the document.
//!
//! | written | selects |
//! |---|---|
//! | `$.customer.phone` | the member `phone` of the member `customer` |
//! | `$.a["b c"]`, `$['a']` | a member of any name |
//! | `$.items[*].ssn`, `$.items[0]` | all elements, or one |
//! | `$.*` | all members |
//! | `$..password` | `password` at any depth |

mod parse;

pub use parse::{FieldError, check_field};

use self::parse::parse;

/// Name of the detector of fields, as records and placeholders cite it.
pub const FIELD: &str = "field";
/// Longest path, in bytes.
pub const MAX_FIELD_BYTES: usize = 256;
/// Most steps of a path. Each is a state that a document's depth can multiply.
pub const MAX_FIELD_STEPS: usize = 16;

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    /// Whether it may be taken at any depth below.
    descends: bool,
    selects: Selects,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Selects {
    Name(Box<str>),
    Index(u64),
    All,
}

/// A member or an element of a value.
#[derive(Clone, Copy, Debug)]
pub enum Child<'a> {
    /// A member of an object, or a field of a form, by its decoded name. `None`: the name is longer than any that a path can have.
    Member(Option<&'a [u8]>),
    /// An element of an array, from 0.
    Element(u64),
}

/// Where the paths of a set stand at one value: the numbers of the paths, and of the steps that its children may take.
pub type Places = Vec<(u16, u8)>;

/// All paths of a set of masks.
#[derive(Debug, Default)]
pub struct Fields {
    paths: Vec<(Vec<Step>, usize)>,
}

impl Fields {
    /// Adds a path under the rule of this number.
    pub(super) fn add(&mut self, path: &str, rule: usize) -> Result<(), FieldError> {
        self.paths.push((parse(path)?, rule));
        Ok(())
    }

    /// Whether nothing is selected.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// Where the paths stand at the document itself.
    pub fn start(&self) -> Places {
        (0..u16::try_from(self.paths.len()).unwrap_or(u16::MAX))
            .map(|path| (path, 0))
            .collect()
    }

    /// Goes to a child of the value at which the paths stand at `places`: where they stand there, and the rule that selects the child, if one does.
    pub fn child(&self, places: &[(u16, u8)], child: Child<'_>) -> (Places, Option<usize>) {
        let mut below = Places::new();
        let mut selected = None;
        for &(path, at) in places {
            let Some((steps, rule)) = self.paths.get(usize::from(path)) else {
                continue;
            };
            let Some(step) = steps.get(usize::from(at)) else {
                continue;
            };
            if step.descends {
                add(&mut below, (path, at));
            }
            if step.selects(child) {
                let next = at.saturating_add(1);
                if usize::from(next) < steps.len() {
                    add(&mut below, (path, next));
                } else {
                    selected = selected.or(Some(*rule));
                }
            }
        }
        (below, selected)
    }
}

fn add(places: &mut Places, place: (u16, u8)) {
    if !places.contains(&place) {
        places.push(place);
    }
}

impl Step {
    fn selects(&self, child: Child<'_>) -> bool {
        match (&self.selects, child) {
            (Selects::All, _) => true,
            (Selects::Name(name), Child::Member(Some(member))) => name.as_bytes() == member,
            (Selects::Index(index), Child::Element(element)) => *index == element,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(path: &str, way: &[Child<'_>]) -> bool {
        let mut fields = Fields::default();
        fields.add(path, 7).unwrap();
        let mut places = fields.start();
        let mut found = None;
        for &child in way {
            (places, found) = fields.child(&places, child);
        }
        assert!(found.is_none_or(|rule| rule == 7));
        found.is_some()
    }

    #[test]
    fn paths_select_what_they_say() {
        let key = |name: &'static str| Child::Member(Some(name.as_bytes()));
        let at = Child::Element;
        for (path, way, expected) in [
            ("$.a", &[key("a")][..], true),
            ("$.a", &[key("b")], false),
            ("$.a", &[key("a"), key("b")], false),
            ("$.a", &[at(0)], false),
            ("$['a'][\"b c\"]", &[key("a"), key("b c")], true),
            ("$.items[*].ssn", &[key("items"), at(3), key("ssn")], true),
            ("$.items[1]", &[key("items"), at(1)], true),
            ("$.items[1]", &[key("items"), at(2)], false),
            ("$.*.x", &[key("any"), key("x")], true),
            ("$..p", &[key("p")], true),
            ("$..p", &[key("a"), at(0), key("p")], true),
            ("$..p.q", &[key("p"), key("p"), key("q")], true),
            ("$..p.q", &[key("p"), key("x"), key("q")], false),
            ("$..[0]", &[key("a"), at(0)], true),
            ("$.a..*", &[key("a"), key("b"), at(1)], true),
            ("$.\u{e9}", &[key("\u{e9}")], true),
            ("$.x-id_2", &[key("x-id_2")], true),
            ("$['it\\'s']", &[key("it's")], true),
        ] {
            assert_eq!(selected(path, way), expected, "{path} {way:?}");
        }
        assert!(!selected("$.a", &[Child::Member(None)]));
        assert!(selected("$.*", &[Child::Member(None)]));
    }

    #[test]
    fn the_first_rule_that_selects_wins_and_places_do_not_multiply() {
        let mut fields = Fields::default();
        fields.add("$..a", 1).unwrap();
        fields.add("$.a", 2).unwrap();
        fields.add("$..*..*", 3).unwrap();
        let mut places = fields.start();
        for _ in 0..50 {
            let (below, rule) = fields.child(&places, Child::Member(Some(b"a")));
            assert!(rule.is_some_and(|rule| rule != 2));
            assert!(below.len() <= 4, "{below:?}");
            places = below;
        }
    }
}
