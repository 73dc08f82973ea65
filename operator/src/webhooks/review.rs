//! Admission review, `admission.k8s.io/v1`: what is read of a request, and how a verdict is answered.
//!
//! Objects stay untyped, so that fields which this build does not know survive injection.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{patch::Operation, status::truncate};

/// Longest message of a refusal, in bytes. The API server shows it to whoever asked.
const MAX_MESSAGE_BYTES: usize = 8192;
/// Longest warning, in bytes; kubectl shows up to 256 characters well.
const MAX_WARNING_BYTES: usize = 256;

/// An admission review as the API server sends it.
#[derive(Deserialize, Debug)]
pub struct Review {
    /// The request.
    pub request: Request,
}

/// What is read of a request.
#[derive(Deserialize, Debug, Default)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Names the request; the answer repeats it.
    pub uid: String,
    /// Kind of the object.
    #[serde(default)]
    pub kind: Kind,
    /// `CREATE`, `UPDATE`…
    #[serde(default)]
    pub operation: String,
    /// Namespace of the object.
    #[serde(default)]
    pub namespace: String,
    /// Who asks.
    #[serde(default)]
    pub user_info: User,
    /// The object as it would be stored.
    #[serde(default)]
    pub object: Value,
    /// The object as it is stored.
    #[serde(default)]
    pub old_object: Value,
    /// Nothing will be stored.
    #[serde(default)]
    pub dry_run: Option<bool>,
}

/// Kind of an object.
#[derive(Deserialize, Debug, Default)]
pub struct Kind {
    /// Such as `AgentPolicy`.
    #[serde(default)]
    pub kind: String,
}

/// Who asks.
#[derive(Deserialize, Debug, Default)]
pub struct User {
    /// Groups.
    #[serde(default)]
    pub groups: Vec<String>,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It may be, as it is.
    Allow {
        /// What the user should know.
        warnings: Vec<String>,
    },
    /// It may be, with these changes.
    Patch {
        /// The changes.
        patch: Vec<Operation>,
        /// What the user should know.
        warnings: Vec<String>,
    },
    /// It is none of our business.
    Exempt {
        /// What the user should know.
        warnings: Vec<String>,
    },
    /// It may not be.
    Refuse {
        /// Why, and what to change.
        message: String,
    },
    /// It cannot be read.
    Invalid {
        /// Why.
        message: String,
    },
}

impl Verdict {
    /// Allowed, and nothing to say.
    #[must_use]
    pub fn allow() -> Self {
        Self::Allow {
            warnings: Vec::new(),
        }
    }

    /// Refused for this reason.
    #[must_use]
    pub fn refuse(message: impl Into<String>) -> Self {
        Self::Refuse {
            message: message.into(),
        }
    }

    /// The metric's label.
    #[must_use]
    pub fn result(&self) -> &'static str {
        match self {
            Self::Allow { .. } => "allowed",
            Self::Patch { .. } => "patched",
            Self::Exempt { .. } => "exempt",
            Self::Refuse { .. } => "refused",
            Self::Invalid { .. } => "invalid",
        }
    }
}

/// The answer to the request with this uid, JSON.
#[must_use]
pub fn answer(uid: &str, verdict: Verdict) -> String {
    let mut response = json!({"uid": uid, "allowed": true});
    match verdict {
        Verdict::Allow { warnings } | Verdict::Exempt { warnings } => {
            put_warnings(&mut response, warnings);
        }
        Verdict::Patch { patch, warnings } => {
            let patch = serde_json::to_vec(&patch).expect("a patch has string keys only");
            response["patchType"] = json!("JSONPatch");
            response["patch"] = json!(STANDARD.encode(patch));
            put_warnings(&mut response, warnings);
        }
        Verdict::Refuse { message } | Verdict::Invalid { message } => {
            response["allowed"] = json!(false);
            let message = truncate(message, MAX_MESSAGE_BYTES);
            response["status"] = json!({"code": 403, "reason": "Forbidden", "message": message});
        }
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
        .to_string()
}

fn put_warnings(response: &mut Value, warnings: Vec<String>) {
    if warnings.is_empty() {
        return;
    }
    let warnings: Vec<_> = warnings
        .into_iter()
        .map(|warning| truncate(warning, MAX_WARNING_BYTES))
        .collect();
    response["warnings"] = json!(warnings);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_reviews_of_the_same_uid() {
        let parse = |verdict| -> Value { serde_json::from_str(&answer("u1", verdict)).unwrap() };
        let patched = parse(Verdict::Patch {
            patch: vec![Operation::Remove {
                path: "/a".to_owned(),
            }],
            warnings: vec!["w".repeat(300)],
        });
        let response = &patched["response"];
        assert_eq!(response["uid"], "u1");
        let patch = STANDARD
            .decode(response["patch"].as_str().unwrap())
            .unwrap();
        assert_eq!(
            serde_json::from_slice::<Value>(&patch).unwrap(),
            json!([{"op": "remove", "path": "/a"}])
        );
        assert_eq!(response["warnings"][0].as_str().unwrap().len(), 256);
        let refused = parse(Verdict::refuse("no"));
        assert_eq!(refused["response"]["allowed"], false);
        assert_eq!(refused["response"]["status"]["message"], "no");
    }
}
