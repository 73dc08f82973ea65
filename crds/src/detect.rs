//! Detectors: what a mask looks for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A built-in detector.
#[derive(
    Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord,
)]
#[serde(rename_all = "camelCase")]
pub enum Builtin {
    /// E-mail addresses.
    Email,
    /// Payment card numbers of 13 to 19 digits that pass the Luhn check.
    CreditCard,
    /// United States social security numbers, `AAA-GG-SSSS`, in the ranges that are issued.
    UsSsn,
    /// AWS access key ids.
    AwsAccessKey,
    /// PEM private keys.
    PrivateKey,
    /// JSON web tokens.
    Jwt,
}

/// A pattern of the user's own.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CustomPattern {
    /// Name that records cite.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// Regular expression in RE2 syntax: no back-references, no look-around. Its matches must have a bounded length.
    #[schemars(length(min = 1, max = 512))]
    pub pattern: String,
}

/// What replaces a match.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MaskWith {
    /// `[masked:DETECTOR]`.
    #[default]
    Redact,
    /// All but the last four letters and digits become `*`; separators stay.
    Last4,
}
