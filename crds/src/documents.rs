//! Policy files: YAML documents of kind `AgentPolicy`, `ClusterAgentPolicy` or `AuditSink`, checked as the API server would.
//!
//! Owns reading them with places, and the schema check: the same generated schema that the CRDs carry, so that a file that passes here passes
//! there. Refuses unknown fields, wrong types, sizes and names, and says for each where it stands and what to do. What only the compiler knows
//! (expressions, host patterns) is [`crate::compile`]'s.
//! Invariant: a parsed document satisfies the schema of its kind.

mod node;
mod schema;

use std::fmt;

use kube::CustomResourceExt;
use serde::de::DeserializeOwned;

use self::node::{Node, Place, Tree};
use crate::{
    compile::excerpt,
    resources::{AgentPolicy, AuditSink, ClusterAgentPolicy, GROUP, VERSION},
    snapshot::Policy,
};

/// Largest file, in bytes. The API server takes 1.5 MiB for one object; a file of policies is far below.
pub const MAX_FILE_BYTES: usize = 4 * 1024 * 1024;
/// Namespace of an `AgentPolicy` that names none.
const DEFAULT_NAMESPACE: &str = "default";
/// Longest name of an object, in characters (RFC 1123 subdomain).
const MAX_NAME_CHARS: usize = 253;

/// One document of a file.
#[derive(Clone, Debug, PartialEq)]
pub enum Document {
    /// A policy of one namespace.
    AgentPolicy(Box<AgentPolicy>),
    /// A policy of the cluster.
    ClusterAgentPolicy(Box<ClusterAgentPolicy>),
    /// A sink.
    AuditSink(Box<AuditSink>),
}

impl Document {
    /// Kind and name: `AgentPolicy team/web`.
    #[must_use]
    pub fn title(&self) -> String {
        match self {
            Self::AuditSink(sink) => {
                format!(
                    "AuditSink {}",
                    sink.metadata.name.as_deref().unwrap_or_default()
                )
            }
            Self::AgentPolicy(_) => format!("AgentPolicy {}", self.reference()),
            Self::ClusterAgentPolicy(_) => format!("ClusterAgentPolicy {}", self.reference()),
        }
    }

    /// The policy that it is, for [`crate::compile::compile_policy`] and for a snapshot; `None` for a sink.
    #[must_use]
    pub fn policy(&self) -> Option<Policy> {
        match self {
            Self::AgentPolicy(policy) => {
                let namespace = policy.metadata.namespace.as_deref();
                Some(Policy::namespaced(
                    namespace.unwrap_or(DEFAULT_NAMESPACE),
                    policy.metadata.name.as_deref().unwrap_or_default(),
                    policy.metadata.generation.unwrap_or_default(),
                    &policy.spec,
                ))
            }
            Self::ClusterAgentPolicy(policy) => Some(Policy::cluster(
                policy.metadata.name.as_deref().unwrap_or_default(),
                policy.metadata.generation.unwrap_or_default(),
                &policy.spec,
            )),
            Self::AuditSink(_) => None,
        }
    }

    fn reference(&self) -> String {
        self.policy()
            .map(|policy| policy.reference.to_string())
            .unwrap_or_default()
    }
}

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentError {
    /// Line, from 1; 0 where no place is known.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
    /// Field, such as `spec.rules[0].action`; empty where there is none.
    pub path: String,
    /// What is wrong and how to mend it.
    pub message: String,
    /// The line that it is about.
    pub source_line: String,
}

impl fmt::Display for DocumentError {
    /// Three lines: where and what, the source line, a caret under the column.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}, column {}: ", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        if self.source_line.trim().is_empty() {
            return Ok(());
        }
        let (shown, caret) = excerpt(
            &self.source_line,
            u32::try_from(self.column).unwrap_or(u32::MAX),
        );
        write!(f, "\n  {shown}\n  {caret}^")
    }
}

impl std::error::Error for DocumentError {}

/// All that is wrong with a file, at least one error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentErrors(pub Vec<DocumentError>);

impl fmt::Display for DocumentErrors {
    /// The errors, with an empty line between two.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, error) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str("\n\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for DocumentErrors {}

/// Reads all documents of a file. Empty documents are passed over.
///
/// # Errors
/// All that is wrong with the file; a file without any document is wrong.
pub fn parse(yaml: &str) -> Result<Vec<Document>, DocumentErrors> {
    let mut report = Report {
        yaml,
        errors: Vec::new(),
    };
    let mut documents = Vec::new();
    if yaml.len() > MAX_FILE_BYTES {
        let message = format!("the file is larger than {MAX_FILE_BYTES} bytes; split it");
        report.add(Place::default(), "", message);
        return Err(DocumentErrors(report.errors));
    }
    match node::documents(yaml) {
        Ok(trees) => {
            let trees = trees.iter().filter(|tree| tree.value != Node::Null);
            documents.extend(trees.filter_map(|tree| document(tree, &mut report)));
            if documents.is_empty() && report.errors.is_empty() {
                let message = "the file has no document; write an AgentPolicy, ClusterAgentPolicy or AuditSink";
                report.add(Place::default(), "", message);
            }
        }
        Err((place, message)) => report.add(place, "", message),
    }
    if report.errors.is_empty() {
        Ok(documents)
    } else {
        Err(DocumentErrors(report.errors))
    }
}

/// Collects errors with their source lines.
struct Report<'y> {
    yaml: &'y str,
    errors: Vec<DocumentError>,
}

impl Report<'_> {
    fn add(&mut self, place: Place, path: &str, message: impl Into<String>) {
        let number = usize::try_from(place.line.saturating_sub(1)).unwrap_or(usize::MAX);
        let line = self.yaml.lines().nth(number).unwrap_or_default();
        self.errors.push(DocumentError {
            line: place.line,
            column: place.column,
            path: path.to_owned(),
            message: message.into(),
            source_line: if place.line > 0 {
                line.to_owned()
            } else {
                String::new()
            },
        });
    }
}

fn document(tree: &Tree, report: &mut Report<'_>) -> Option<Document> {
    let kind = header(tree, report)?;
    match kind {
        "AgentPolicy" => resource::<AgentPolicy>(tree, report)
            .map(|policy| Document::AgentPolicy(Box::new(policy))),
        "ClusterAgentPolicy" => resource::<ClusterAgentPolicy>(tree, report)
            .map(|policy| Document::ClusterAgentPolicy(Box::new(policy))),
        _ => resource::<AuditSink>(tree, report).map(|sink| Document::AuditSink(Box::new(sink))),
    }
}

/// Checks `apiVersion`, `kind` and `metadata`.
fn header<'t>(tree: &'t Tree, report: &mut Report<'_>) -> Option<&'t str> {
    let before = report.errors.len();
    if !matches!(tree.value, Node::Map(_)) {
        report.add(
            tree.place,
            "",
            "a document begins with apiVersion, kind and metadata",
        );
        return None;
    }
    let wanted = format!("{GROUP}/{VERSION}");
    match tree.get("apiVersion") {
        Some(version) if version.text() == Some(&wanted) => {}
        Some(version) => report.add(version.place, "apiVersion", format!("write {wanted}")),
        None => report.add(
            tree.place,
            "apiVersion",
            format!("it is missing; write apiVersion: {wanted}"),
        ),
    }
    const KINDS: [&str; 3] = ["AgentPolicy", "ClusterAgentPolicy", "AuditSink"];
    let kind = tree.get("kind");
    let known = kind
        .and_then(Tree::text)
        .filter(|kind| KINDS.contains(kind));
    if known.is_none() {
        let place = kind.map_or(tree.place, |kind| kind.place);
        report.add(place, "kind", format!("write one of {}", KINDS.join(", ")));
    }
    metadata(tree, known, report);
    known.filter(|_| report.errors.len() == before)
}

fn metadata(tree: &Tree, kind: Option<&str>, report: &mut Report<'_>) {
    let metadata = tree.get("metadata");
    let Some(name) = metadata.and_then(|metadata| metadata.get("name")) else {
        let place = metadata.map_or(tree.place, |metadata| metadata.place);
        report.add(
            place,
            "metadata.name",
            "it is missing; every object has a name",
        );
        return;
    };
    if !name.text().is_some_and(is_object_name) {
        report.add(name.place, "metadata.name", "a name has lower case letters, digits, dashes and dots, and begins and ends with a letter or digit");
    }
    if let Some(namespace) = metadata.and_then(|metadata| metadata.get("namespace"))
        && matches!(kind, Some("ClusterAgentPolicy" | "AuditSink"))
    {
        report.add(
            namespace.place,
            "metadata.namespace",
            "this kind belongs to the cluster; leave namespace out",
        );
    }
}

fn is_object_name(name: &str) -> bool {
    let part = |part: &str| {
        let ends =
            |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        ends(part.chars().next())
            && ends(part.chars().last())
            && part
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    name.len() <= MAX_NAME_CHARS && name.split('.').all(part)
}

/// Checks a document against the schema of its kind, and reads it.
fn resource<R: CustomResourceExt + DeserializeOwned>(
    tree: &Tree,
    report: &mut Report<'_>,
) -> Option<R> {
    let before = report.errors.len();
    let crd = R::crd();
    let version = crd
        .spec
        .versions
        .iter()
        .find(|version| version.name == VERSION);
    let schema = version.and_then(|version| version.schema.as_ref());
    if let Some(schema) = schema.and_then(|schema| schema.open_api_v3_schema.as_ref()) {
        schema::check(tree, schema, report);
    }
    for field in ["selector", "namespaceSelector"] {
        if let Some(selector) = tree.get("spec").and_then(|spec| spec.get(field)) {
            check_selector(selector, &format!("spec.{field}"), report);
        }
    }
    if report.errors.len() > before {
        return None;
    }
    serde_json::from_value(tree.to_json())
        .map_err(|error| report.add(tree.place, "", error.to_string()))
        .ok()
}

/// What no schema says of a label selector, and the webhook refuses.
fn check_selector(selector: &Tree, path: &str, report: &mut Report<'_>) {
    let Some(Node::List(expressions)) = selector.get("matchExpressions").map(|list| &list.value)
    else {
        return;
    };
    for (number, expression) in expressions.iter().enumerate() {
        let path = format!("{path}.matchExpressions[{number}]");
        let values = match expression.get("values").map(|values| &values.value) {
            Some(Node::List(values)) => values.len(),
            _ => 0,
        };
        let Some(operator) = expression.get("operator") else {
            continue;
        };
        let problem = match operator.text() {
            Some("In" | "NotIn") if values > 0 => continue,
            Some("Exists" | "DoesNotExist") if values == 0 => continue,
            Some("In" | "NotIn") => "In and NotIn need values",
            Some("Exists" | "DoesNotExist") => "Exists and DoesNotExist take no values",
            _ => "write one of In, NotIn, Exists, DoesNotExist",
        };
        report.add(operator.place, &format!("{path}.operator"), problem);
    }
}

#[cfg(test)]
mod tests;
