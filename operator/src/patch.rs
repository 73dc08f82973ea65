//! A JSON document under edit, which keeps the JSON Patch (RFC 6902) that leads from the original to it.
//!
//! Owns pointers and operations. The document is untyped on purpose: what a newer API server put into a pod and this build does not know
//! stays as it is. Invariant: applying the operations to the original gives the document.

use serde::Serialize;
use serde_json::{Map, Value};

/// One operation of a JSON Patch (RFC 6902, section 4).
#[derive(Serialize, Clone, Debug, PartialEq)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Operation {
    /// Add a member, or insert an element (`/-` appends).
    Add {
        /// JSON pointer (RFC 6901).
        path: String,
        /// What is added.
        value: Value,
    },
    /// Replace what is there.
    Replace {
        /// JSON pointer (RFC 6901).
        path: String,
        /// What replaces it.
        value: Value,
    },
    /// Remove what is there.
    Remove {
        /// JSON pointer (RFC 6901).
        path: String,
    },
}

/// A document under edit.
#[derive(Clone, Debug)]
pub struct Editor {
    document: Value,
    operations: Vec<Operation>,
}

impl Editor {
    /// Starts with this document and no operation.
    #[must_use]
    pub fn new(document: Value) -> Self {
        Self {
            document,
            operations: Vec::new(),
        }
    }

    /// What is at a JSON pointer.
    #[must_use]
    pub fn get(&self, pointer: &str) -> Option<&Value> {
        self.document.pointer(pointer)
    }

    /// The elements of the array at a JSON pointer; none where there is no array.
    #[must_use]
    pub fn elements(&self, pointer: &str) -> &[Value] {
        self.get(pointer)
            .and_then(Value::as_array)
            .map_or(&[], Vec::as_slice)
    }

    /// Sets a member of the object at `parent`, which is made if it is absent or null.
    pub fn set(&mut self, parent: &str, key: &str, value: Value) {
        self.ensure(parent, Value::Object(Map::new()));
        let Some(Value::Object(object)) = self.document.pointer_mut(parent) else {
            return;
        };
        let path = format!("{parent}/{}", escape(key));
        let operation = match object.insert(key.to_owned(), value.clone()) {
            Some(old) if old == value => return,
            Some(_) => Operation::Replace { path, value },
            None => Operation::Add { path, value },
        };
        self.operations.push(operation);
    }

    /// Removes a member of the object at `parent`, if it is there.
    pub fn unset(&mut self, parent: &str, key: &str) {
        let Some(Value::Object(object)) = self.document.pointer_mut(parent) else {
            return;
        };
        if object.remove(key).is_some() {
            let path = format!("{parent}/{}", escape(key));
            self.operations.push(Operation::Remove { path });
        }
    }

    /// Inserts an element into the array at `array`, which is made if it is absent or null. An index past the end appends.
    pub fn insert(&mut self, array: &str, index: usize, value: Value) {
        self.ensure(array, Value::Array(Vec::new()));
        let Some(Value::Array(elements)) = self.document.pointer_mut(array) else {
            return;
        };
        let path = if index < elements.len() {
            elements.insert(index, value.clone());
            format!("{array}/{index}")
        } else {
            elements.push(value.clone());
            format!("{array}/-")
        };
        self.operations.push(Operation::Add { path, value });
    }

    /// Appends to the array at `array`, which is made if it is absent or null.
    pub fn append(&mut self, array: &str, value: Value) {
        self.insert(array, usize::MAX, value);
    }

    /// Replaces an element of the array at `array`, if it is there and differs.
    pub fn replace(&mut self, array: &str, index: usize, value: Value) {
        let path = format!("{array}/{index}");
        if let Some(slot) = self.document.pointer_mut(&path)
            && *slot != value
        {
            *slot = value.clone();
            self.operations.push(Operation::Replace { path, value });
        }
    }

    /// Removes an element of the array at `array`, if it is there.
    pub fn remove(&mut self, array: &str, index: usize) {
        if let Some(Value::Array(elements)) = self.document.pointer_mut(array)
            && index < elements.len()
        {
            elements.remove(index);
            let path = format!("{array}/{index}");
            self.operations.push(Operation::Remove { path });
        }
    }

    /// The operations, in order.
    #[must_use]
    pub fn into_operations(self) -> Vec<Operation> {
        self.operations
    }

    /// Makes the value at `pointer` an `empty` one if it is absent or null. Its parents are made as objects.
    fn ensure(&mut self, pointer: &str, empty: Value) {
        if self.get(pointer).is_some_and(|found| !found.is_null()) {
            return;
        }
        let Some((parent, key)) = pointer.rsplit_once('/') else {
            return;
        };
        let key = key.replace("~1", "/").replace("~0", "~");
        self.set(parent, &key, empty);
    }
}

/// A key as a reference token of a JSON pointer (RFC 6901, section 3).
fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn applied(original: &Value, operations: &[Operation]) -> Value {
        let patch: json_patch::Patch =
            serde_json::from_value(serde_json::to_value(operations).unwrap()).unwrap();
        let mut document = original.clone();
        json_patch::patch(&mut document, &patch).unwrap();
        document
    }

    #[test]
    fn operations_lead_from_the_original_to_the_document() {
        let original = json!({"a": {"b": [1, 2, 3], "x/y": 1}, "n": null});
        let mut editor = Editor::new(original.clone());
        editor.insert("/a/b", 0, json!(0));
        editor.append("/a/b", json!(4));
        editor.remove("/a/b", 1);
        editor.replace("/a/b", 1, json!("two"));
        editor.set("/a", "x/y", json!(2));
        editor.unset("/a", "missing");
        editor.append("/n", json!("was null"));
        editor.set("/made/of/objects", "k~/", json!(true));
        let document = editor.document.clone();
        assert_eq!(applied(&original, &editor.into_operations()), document);
        assert_eq!(
            document,
            json!({
                "a": {"b": [0, "two", 3, 4], "x/y": 2}, "n": ["was null"],
                "made": {"of": {"objects": {"k~/": true}}}
            })
        );
    }

    #[test]
    fn setting_what_is_there_already_is_no_operation() {
        let mut editor = Editor::new(json!({"a": {"b": 1}, "c": [1]}));
        editor.set("/a", "b", json!(1));
        editor.replace("/c", 0, json!(1));
        assert_eq!(editor.into_operations(), vec![]);
    }
}
