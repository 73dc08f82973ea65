//! The structural schema of a CRD, checked as the API server checks it.
//!
//! Covers what the generated schemas use: types, required and unknown fields, enums, lengths, ranges, patterns, list sizes, keyed lists, and
//! `x-kubernetes-validations`.

use std::sync::{Arc, LazyLock};

use cel::{Context, Env};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use regex::Regex;
use serde_json::Value;

use super::{
    Report,
    node::{Key, Node, Tree},
};
use crate::compile::nearest;

/// CEL as `x-kubernetes-validations` use it.
static CEL: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// Checks a whole document. `metadata` and `status` are the API server's own.
pub(super) fn check(tree: &Tree, schema: &JSONSchemaProps, report: &mut Report<'_>) {
    let Node::Map(entries) = &tree.value else {
        return;
    };
    for (key, value) in entries {
        match (key.name.as_str(), property(schema, &key.name)) {
            ("apiVersion" | "kind" | "metadata" | "status", _) => {}
            (name, Some(schema)) => visit(value, schema, name, report),
            (name, None) => unknown(
                key,
                name,
                &["apiVersion", "kind", "metadata", "spec"],
                report,
            ),
        }
    }
    required(tree, schema, "", report);
    rules(tree, schema, "", report);
}

fn visit(tree: &Tree, schema: &JSONSchemaProps, path: &str, report: &mut Report<'_>) {
    let before = report.errors.len();
    match (&tree.value, schema.type_.as_deref().unwrap_or_default()) {
        (Node::Null, _) if schema.nullable == Some(true) => return,
        (Node::Map(entries), "object") => object(tree, entries, schema, path, report),
        (Node::List(elements), "array") => array(tree, elements, schema, path, report),
        (Node::Text(text), "string") => string(tree, text, schema, path, report),
        (Node::Number(_), "integer" | "number") => number(tree, schema, path, report),
        (Node::Bool(_), "boolean") | (_, "") => {}
        (found, wanted) => {
            let message = format!(
                "{} is needed here, and this is {}",
                article(wanted),
                kind(found)
            );
            report.add(tree.place, path, message);
        }
    }
    if report.errors.len() == before {
        rules(tree, schema, path, report);
    }
}

fn object(
    tree: &Tree,
    entries: &[(Key, Tree)],
    schema: &JSONSchemaProps,
    path: &str,
    report: &mut Report<'_>,
) {
    let others = match &schema.additional_properties {
        Some(JSONSchemaPropsOrBool::Schema(schema)) => Some(&**schema),
        _ => None,
    };
    for (key, value) in entries {
        let below = format!("{path}.{}", key.name);
        match property(schema, &key.name).or(others) {
            Some(schema) => visit(value, schema, &below, report),
            None if schema.x_kubernetes_preserve_unknown_fields == Some(true) => {}
            None => {
                let known = schema.properties.iter().flatten();
                let known: Vec<&str> = known.map(|(name, _)| name.as_str()).collect();
                unknown(key, &below, &known, report);
            }
        }
    }
    required(tree, schema, path, report);
}

fn unknown(key: &Key, path: &str, known: &[&str], report: &mut Report<'_>) {
    let advice = match nearest(&key.name, known.iter().copied()) {
        Some(meant) => format!("did you mean {meant}?"),
        None if known.is_empty() => "leave it out".to_owned(),
        None => format!("there are {}", known.join(", ")),
    };
    let message = format!("unknown field \"{}\"; {advice}", key.name);
    report.add(key.place, path, message);
}

fn required(tree: &Tree, schema: &JSONSchemaProps, path: &str, report: &mut Report<'_>) {
    for name in schema.required.iter().flatten() {
        if tree.get(name).is_some() {
            continue;
        }
        let below = match path {
            "" => name.clone(),
            path => format!("{path}.{name}"),
        };
        let choices = property(schema, name).map(choices).unwrap_or_default();
        let advice = match choices.as_slice() {
            [] => String::new(),
            choices => format!("; write one of {}", choices.join(", ")),
        };
        report.add(tree.place, &below, format!("it is missing{advice}"));
    }
}

fn array(
    tree: &Tree,
    elements: &[Tree],
    schema: &JSONSchemaProps,
    path: &str,
    report: &mut Report<'_>,
) {
    let bounds = (schema.min_items, schema.max_items);
    count(tree, elements.len(), "entries", bounds, path, report);
    if let Some(JSONSchemaPropsOrArray::Schema(schema)) = &schema.items {
        for (number, element) in elements.iter().enumerate() {
            visit(element, schema, &format!("{path}[{number}]"), report);
        }
    }
    if schema.x_kubernetes_list_type.as_deref() == Some("map") {
        for key in schema.x_kubernetes_list_map_keys.iter().flatten() {
            unique(elements, key, path, report);
        }
    }
}

fn unique(elements: &[Tree], key: &str, path: &str, report: &mut Report<'_>) {
    let mut seen = Vec::new();
    for (number, element) in elements.iter().enumerate() {
        let Some(value) = element.get(key) else {
            continue;
        };
        if seen.contains(&&value.value) {
            let message = format!("another entry of the list has this {key}; give each its own");
            report.add(value.place, &format!("{path}[{number}].{key}"), message);
        }
        seen.push(&value.value);
    }
}

fn string(tree: &Tree, text: &str, schema: &JSONSchemaProps, path: &str, report: &mut Report<'_>) {
    let choices = choices(schema);
    if !choices.is_empty() && !choices.iter().any(|choice| choice == text) {
        let message = format!(
            "\"{text}\" is not possible here; write one of {}",
            choices.join(", ")
        );
        report.add(tree.place, path, message);
        return;
    }
    let bounds = (schema.min_length, schema.max_length);
    count(
        tree,
        text.chars().count(),
        "characters",
        bounds,
        path,
        report,
    );
    if let Some(pattern) = &schema.pattern
        && !Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text))
    {
        report.add(
            tree.place,
            path,
            format!("\"{text}\" does not fit {pattern}"),
        );
    }
}

fn count(
    tree: &Tree,
    count: usize,
    what: &str,
    (least, most): (Option<i64>, Option<i64>),
    path: &str,
    report: &mut Report<'_>,
) {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    if let Some(most) = most.filter(|most| count > *most) {
        report.add(
            tree.place,
            path,
            format!("it has {count} {what} and may have {most}"),
        );
    }
    if let Some(least) = least.filter(|least| count < *least) {
        report.add(
            tree.place,
            path,
            format!("it has {count} {what} and needs {least}"),
        );
    }
}

fn number(tree: &Tree, schema: &JSONSchemaProps, path: &str, report: &mut Report<'_>) {
    let Node::Number(number) = &tree.value else {
        return;
    };
    if schema.type_.as_deref() == Some("integer") && number.is_f64() {
        report.add(tree.place, path, "a whole number is needed here");
    }
    let value = number.as_f64().unwrap_or_default();
    let (least, most) = (schema.minimum, schema.maximum);
    if least.is_some_and(|least| value < least) || most.is_some_and(|most| value > most) {
        let bound = |bound: Option<f64>| bound.map_or_else(|| "any".to_owned(), |b| b.to_string());
        let message = format!(
            "{number} is out of range; it goes from {} to {}",
            bound(least),
            bound(most)
        );
        report.add(tree.place, path, message);
    }
}

/// `x-kubernetes-validations`: CEL on `self`. A rule that cannot be evaluated is left to the API server.
fn rules(tree: &Tree, schema: &JSONSchemaProps, path: &str, report: &mut Report<'_>) {
    for rule in schema.x_kubernetes_validations.iter().flatten() {
        let Ok(program) = CEL.compile(&rule.rule) else {
            continue;
        };
        let mut context = Context::with_env(Arc::clone(&CEL));
        if context.add_variable("self", tree.to_json()).is_err() {
            continue;
        }
        if program.execute(&context) == Ok(cel::Value::Bool(false)) {
            let message = rule.message.as_ref().unwrap_or(&rule.rule);
            report.add(tree.place, path, message.clone());
        }
    }
}

fn property<'s>(schema: &'s JSONSchemaProps, name: &str) -> Option<&'s JSONSchemaProps> {
    schema.properties.as_ref()?.get(name)
}

fn choices(schema: &JSONSchemaProps) -> Vec<String> {
    let values = schema.enum_.iter().flatten();
    let texts = values.filter_map(|value| match &value.0 {
        Value::String(text) => Some(text.clone()),
        _ => None,
    });
    texts.collect()
}

fn article(wanted: &str) -> &str {
    match wanted {
        "object" => "a map",
        "array" => "a list",
        "string" => "a string",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        other => other,
    }
}

fn kind(node: &Node) -> &'static str {
    match node {
        Node::Null => "empty",
        Node::Bool(_) => "true or false; put it in quotes if it is meant as text",
        Node::Number(_) => "a number; put it in quotes if it is meant as text",
        Node::Text(_) => "text",
        Node::List(_) => "a list",
        Node::Map(_) => "a map",
    }
}
