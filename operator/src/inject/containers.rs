//! What injection does to the containers that are not the sidecar: trust mount, trust variables, dropped capabilities.

use std::fmt;

use chaperone_crds::pod as names;
use serde_json::{Value, json};

use crate::{injected, patch::Editor};

/// A trust variable that the user had set, or that cannot be merged, and that stays as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeptVariable {
    container: String,
    variable: &'static str,
}

impl KeptVariable {
    /// What the user is told at admission.
    pub(super) fn warning(&self) -> String {
        format!(
            "container {}: {} is set by you and kept; its clients must trust {}/{} to be read",
            self.container,
            self.variable,
            names::TRUST_DIR,
            names::ADDED_ROOTS_FILE
        )
    }
}

impl fmt::Display for KeptVariable {
    /// `container/NAME`, as the annotation has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.container, self.variable)
    }
}

/// Whether a container, as JSON, has the sidecar's name.
pub(super) fn is_sidecar(container: &Value) -> bool {
    container.get("name").and_then(Value::as_str) == Some(names::SIDECAR_NAME)
}

/// Prepares the container at `index` of `list`, unless it is the sidecar.
pub(super) fn prepare(editor: &mut Editor, list: &str, index: usize, kept: &mut Vec<KeptVariable>) {
    let path = format!("{list}/{index}");
    let Some(container) = editor.get(&path).filter(|c| c.is_object()) else {
        return;
    };
    if is_sidecar(container) {
        return;
    }
    let name = container
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    put_mount(editor, &path);
    for (variable, value) in names::trust_environment(names::TRUST_DIR) {
        if !put_variable(editor, &path, variable, &value) {
            kept.push(KeptVariable {
                container: name.clone(),
                variable,
            });
        }
    }
    drop_capabilities(editor, &path);
}

/// Mounts the trust bundle. A mount of another volume at its place is left, for `check` to refuse: two mounts at one path are invalid.
fn put_mount(editor: &mut Editor, path: &str) {
    let list = format!("{path}/volumeMounts");
    let ours = super::to_json(&injected::trust_mount());
    let mounts = editor.elements(&list);
    let at_path = mounts
        .iter()
        .position(|mount| mount.get("mountPath") == ours.get("mountPath"));
    match at_path {
        None => editor.append(&list, ours),
        Some(index) => {
            if mounts.get(index).and_then(|mount| mount.get("name")) == ours.get("name") {
                editor.replace(&list, index, ours);
            }
        }
    }
}

/// Sets a trust variable; false if the user's own value was kept instead. Variables from `envFrom` cannot be seen here; an entry in `env`
/// goes before them.
fn put_variable(editor: &mut Editor, path: &str, variable: &str, value: &str) -> bool {
    let list = format!("{path}/env");
    let found = editor
        .elements(&list)
        .iter()
        .enumerate()
        .rfind(|(_, entry)| entry.get("name").and_then(Value::as_str) == Some(variable));
    let Some((index, entry)) = found else {
        editor.append(&list, json!({"name": variable, "value": value}));
        return true;
    };
    if entry.get("valueFrom").is_some_and(|from| !from.is_null()) {
        return false;
    }
    let set = entry
        .get("value")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if set == value || (variable == names::JAVA_VARIABLE && set.contains(value)) {
        return true;
    }
    if variable == names::JAVA_VARIABLE && !set.contains("-Djavax.net.ssl.trustStore=") {
        let merged = format!("{set} {value}");
        editor.replace(
            &list,
            index,
            json!({"name": variable, "value": merged.trim_start()}),
        );
        return true;
    }
    false
}

/// Adds the capabilities that no other container may keep to `drop`, unless all are dropped. One that the user adds is left, for `check` to refuse.
fn drop_capabilities(editor: &mut Editor, path: &str) {
    let list = format!("{path}/securityContext/capabilities/drop");
    for capability in injected::DROPPED_CAPABILITIES {
        let dropped = editor
            .elements(&list)
            .iter()
            .filter_map(Value::as_str)
            .any(|dropped| injected::capability(dropped) == capability || dropped == "ALL");
        if !dropped {
            editor.append(&list, json!(capability));
        }
    }
}
