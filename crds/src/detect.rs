//! Detectors: what a mask looks for, and where it is found in text.
//!
//! Owns the detector types of the API, the check of custom patterns ([`check_pattern`]), the compiled set of a pod
//! ([`CompiledMasks`]) and the search ([`Scan`]), and what takes a match's place ([`Replacement`]). Refuses streams and buffers: those belong to the sidecar.
//!
//! Invariant: every answer is a pure function of the bytes *so far* that more bytes cannot change. A detector that needs more
//! bytes to be sure says [`Found::Undecided`] and names the first byte that it may still want, so masking a text cut anywhere
//! gives the same result as masking it whole.
//!
//! # What is found
//! Text is searched as it is on the wire. A detector's left edge may follow a byte that is no letter, digit or `_`, or one of the
//! escapes `\n \t \r \b \f \uXXXX` (JSON) and `%XX` (URLs), which end in letters and digits but separate words.
//!
//! | detector | found | not found |
//! |---|---|---|
//! | `email` | ASCII addresses with a dotted domain; the at sign also as `%40`, `\u0040`, `&#64;`; a plus also as `%2B`, `\u002b` | other characters in escapes, quoted or non-ASCII local parts, `user@localhost` |
//! | `creditCard` | 13 to 19 digits that begin with 2 to 6 (the payment industry's ranges, ISO/IEC 7812) and pass Luhn, in groups of three or more with single spaces or dashes | other separators, single spaced digits |
//! | `usSsn` | `AAA-GG-SSSS` in issued ranges | other separators, or none |
//! | `iban` | the countries, lengths and check digits of SWIFT's registry, in capitals, in one piece or in groups of four with spaces or dashes | small letters, other groups |
//! | `phone` | `+` and 8 to 15 digits of an assigned country code, in groups; `(AAA) EEE-NNNN`, `AAA-EEE-NNNN`, `AAA.EEE.NNNN` with valid area code and exchange | national numbers of other countries, numbers without separators or plus, `%2B` for the plus, extensions |
//! | `ipv4` | four decimal parts, of networks that name hosts | loopback, 0/8, 240/4 and masks; parts of longer versions; what follows `version` or a product's name and a slash |
//! | `ipv6` | all forms of RFC 4291 with at least one decimal digit | loopback, `::`, zone ids, `%3A` for a colon |
//! | `awsAccessKey` | `AKIA` or `ASIA` and 16 capitals or digits | |
//! | `cloudKey` | AWS secret access keys beside their id or after their name; Azure `AccountKey=`, `SharedAccessKey=`, `sig=`; Google API keys, OAuth secrets and access tokens; DigitalOcean tokens | the same values without id, name or prefix |
//! | `apiToken` | the vendors' prefixes with their lengths and checksums: Anthropic, OpenAI, GitHub, GitLab, Slack, Stripe, Hugging Face, npm, PyPI, SendGrid; the secret part of a Telegram bot's token | other vendors'; Twilio's, whose secrets have no form |
//! | `privateKey` | PEM private keys, also with escaped line breaks, up to END however far; a BEGIN line that no key follows is left alone | keys that are not PEM |
//! | `jwt` | three to five base64url parts whose header is JSON with an `alg` | tokens without a signature part; headers that do not begin with `{"`, `{ "` or `{` and a line break; after other base64url, headers whose `alg` is not among the first 96 bytes |
//! | `highEntropy` | runs of 24 to 128 of base64's characters with capitals, small letters and digits whose distribution has 4.1 bits per byte or more | hex, longer runs, hashes that say so (`sha512-`, `h1:`) |
//!
//! Text inside base64, other HTML entities, double percent-encoding, UTF-16 or split over several JSON strings (a model's deltas) is not
//! decoded. [`Fields`] are values that are masked whole, by their place in a document instead of by what they look like.

mod address;
mod bytes;
mod compile;
mod context;
mod custom;
mod digits;
mod email;
mod entropy;
mod fields;
mod headers;
mod iban;
mod jwt;
mod pattern;
mod pem;
mod phone;
mod replace;
mod restore;
mod scan;
mod tail;
#[cfg(test)]
mod tests;
mod tokens;
mod vendors;

pub use compile::{BUILTIN_MASK, CompiledMasks, MaskError, RESTORE_RULE, Rule};
pub(crate) use digits::luhn;
pub use fields::{
    Child, FIELD, FieldError, Fields, MAX_FIELD_BYTES, MAX_FIELD_STEPS, Places, check_field,
};
pub use headers::{HEADER, HeaderNames, check_header, is_left_alone};
pub use pattern::{
    MAX_PATTERN_CHARS, MAX_PATTERN_MATCH_BYTES, PATTERN_NFA_LIMIT_BYTES, PatternError,
    check_pattern,
};
pub use replace::Replacement;
pub use scan::{Found, Match, Scan};
pub use tail::{Skip, Tail};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bytes before the search position that detectors read to find a left edge or a secret's name; a caller that drops older bytes must
/// keep these. The longest is a name (17), what may lie between it and its value (12), and an escape before it (7).
pub const LOOK_BEHIND_BYTES: usize = 48;

/// Most bytes that an undecided candidate can reach back from the end of the text: the bound of a token (`jwt`) and of a custom
/// pattern's match. Longer tokens are decided at the bound and dropped to their end.
pub const MAX_UNDECIDED_BYTES: usize = 4096;

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
    /// International bank account numbers.
    Iban,
    /// Telephone numbers: international ones, and those of North America.
    Phone,
    /// IPv4 addresses.
    Ipv4,
    /// IPv6 addresses.
    Ipv6,
    /// API tokens of well-known vendors.
    ApiToken,
    /// Keys of cloud vendors other than AWS access key ids.
    CloudKey,
    /// Random-looking runs of letters and digits. Identifiers look so too: expect to mask some.
    HighEntropy,
}

impl Builtin {
    /// All of them.
    pub const ALL: [Builtin; 13] = [
        Builtin::Email,
        Builtin::CreditCard,
        Builtin::UsSsn,
        Builtin::AwsAccessKey,
        Builtin::PrivateKey,
        Builtin::Jwt,
        Builtin::Iban,
        Builtin::Phone,
        Builtin::Ipv4,
        Builtin::Ipv6,
        Builtin::ApiToken,
        Builtin::CloudKey,
        Builtin::HighEntropy,
    ];

    /// Name as users write it, and as records and placeholders cite it.
    pub fn name(self) -> &'static str {
        match self {
            Builtin::Email => "email",
            Builtin::CreditCard => "creditCard",
            Builtin::UsSsn => "usSsn",
            Builtin::AwsAccessKey => "awsAccessKey",
            Builtin::PrivateKey => "privateKey",
            Builtin::Jwt => "jwt",
            Builtin::Iban => "iban",
            Builtin::Phone => "phone",
            Builtin::Ipv4 => "ipv4",
            Builtin::Ipv6 => "ipv6",
            Builtin::ApiToken => "apiToken",
            Builtin::CloudKey => "cloudKey",
            Builtin::HighEntropy => "highEntropy",
        }
    }
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
    /// Regular expression in RE2 syntax: no back-references, no look-around. Its matches must have a bounded length ({1,64}, not + or *), at most 4096 bytes, and at least one byte. \d, \w and \b are ASCII; ^ and $ are refused, since text is searched as it streams. Text is searched as it is on the wire: in JSON a line break is the two characters \n, so a leading \b does not match there.
    #[schemars(length(min = 1, max = 512))]
    pub pattern: String,
}

/// What replaces a match.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MaskWith {
    /// `[masked:DETECTOR]`.
    #[default]
    Redact,
    /// All but the last four letters and digits become `*`; separators stay. Values with fewer than eight letters and digits become
    /// `*` whole. Private keys, and tokens longer than 4096 bytes, are redacted.
    Last4,
    /// Nothing: the match is left out.
    Null,
    /// `[hash:DETECTOR:16 hex digits]`, the same for equal values in all pods of a namespace, and of no use without Chaperone's key.
    /// Private keys, and tokens longer than 4096 bytes, are redacted.
    Hash,
    /// A token that stands for the value, the same for equal values in all pods of a namespace: an address at `tok.invalid` for `email`,
    /// a number that no card has for `creditCard`, else `tok_DETECTOR_` and letters and digits. Private keys, and values longer than
    /// 2048 bytes, are redacted.
    Token,
}
