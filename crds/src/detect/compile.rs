//! From masks to what searches for them.

use std::sync::{Arc, LazyLock};

use super::custom::Custom;
use super::digits::Digits;
use super::email::Sign;
use super::fields::{FIELD, FieldError, Fields};
use super::headers::{HEADER, HeaderNames};
use super::pattern::{PatternError, parse};
use super::restore::Restore;
use super::tokens::{Secret, Tokens};
use super::{Builtin, Found, MaskWith, Scan, address, entropy, iban, phone};
use crate::resources::policy::Mask;
use crate::tokenize::TokenKey;

/// Name of the mask that finds secrets in records, whatever policy says.
pub const BUILTIN_MASK: &str = "builtin";

/// Name of the rule under which tokens are found that are restored.
pub const RESTORE_RULE: &str = "token";

/// The detectors of secrets, which always apply to records.
const SECRETS: [Builtin; 5] = [
    Builtin::AwsAccessKey,
    Builtin::PrivateKey,
    Builtin::Jwt,
    Builtin::ApiToken,
    Builtin::CloudKey,
];

/// Why masks do not compile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MaskError {
    /// One pattern is refused.
    #[error("mask \"{mask}\", {error}")]
    Pattern {
        /// Name of the mask.
        mask: String,
        /// What is wrong.
        error: PatternError,
    },
    /// One path is refused.
    #[error("mask \"{mask}\", {error}")]
    Field {
        /// Name of the mask.
        mask: String,
        /// What is wrong.
        error: FieldError,
    },
    /// The patterns are sound, but too large together.
    #[error(
        "the custom patterns of all masks are too large together ({0}); use fewer of them, or smaller repetition counts"
    )]
    TooLarge(String),
}

/// One detector of one mask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Name of the mask.
    pub mask: Arc<str>,
    /// Name of the detector or of the custom pattern.
    pub detector: Arc<str>,
    /// What replaces its matches.
    pub with: MaskWith,
}

/// All masks that apply to a text, compiled into one search. Immutable; shared by all streams.
#[derive(Debug, Default)]
pub struct CompiledMasks {
    rules: Vec<Rule>,
    tokens: Option<Tokens>,
    emails: Option<(usize, [Sign; 2])>,
    digits: Option<Digits>,
    custom: Option<Custom>,
    phone: Option<usize>,
    ipv4: Option<usize>,
    ipv6: Option<usize>,
    iban: Option<usize>,
    entropy: Option<usize>,
    key: Option<Arc<TokenKey>>,
    /// Set where tokens are looked for, and nothing else.
    pub(super) restore: Option<Restore>,
    fields: Fields,
    headers: HeaderNames,
}

impl CompiledMasks {
    pub(super) const ENGINES: usize = 12;

    /// Compiles masks; [`Self::with_key`] gives them what `Hash` and `Token` need. Where several name the same built-in detector, the first wins; where matches begin at the same byte, the
    /// detector that was named first (built-in ones before patterns within a mask).
    ///
    /// # Errors
    /// All patterns that are refused.
    pub fn compile<'a>(
        masks: impl IntoIterator<Item = &'a Mask>,
    ) -> Result<CompiledMasks, Vec<MaskError>> {
        Builder::default().masks(masks).build()
    }

    /// Compiles masks for records: secrets are found first, and redacted, whatever the masks say.
    ///
    /// # Errors
    /// All patterns that are refused.
    pub fn compile_for_records<'a>(
        masks: impl IntoIterator<Item = &'a Mask>,
    ) -> Result<CompiledMasks, Vec<MaskError>> {
        Builder::default().secrets().masks(masks).build()
    }

    /// The detectors that always apply to records: `awsAccessKey`, `privateKey`, `jwt`, `apiToken` and `cloudKey`, under the name
    /// [`BUILTIN_MASK`].
    pub fn secrets() -> Arc<CompiledMasks> {
        static SECRETS: LazyLock<Arc<CompiledMasks>> = LazyLock::new(|| {
            let masks = Builder::default().secrets().build();
            // Without custom patterns nothing can be refused.
            Arc::new(masks.expect("built-in detectors compile"))
        });
        Arc::clone(&SECRETS)
    }

    /// One detector by itself.
    pub(crate) fn alone(builtin: Builtin) -> &'static CompiledMasks {
        static ALONE: LazyLock<Vec<(Builtin, CompiledMasks)>> = LazyLock::new(|| {
            let alone = |builtin| {
                let mut builder = Builder::default();
                builder.builtin(&BUILTIN_MASK.into(), builtin, MaskWith::Redact);
                // Without custom patterns nothing can be refused.
                let masks = builder.build().expect("built-in detectors compile");
                (builtin, masks)
            };
            Builtin::ALL.into_iter().map(alone).collect()
        });
        let known = ALONE.iter().find(|(known, _)| *known == builtin);
        let (_, masks) = known.expect("all detectors are compiled");
        masks
    }

    /// Whether anything is found in a whole text.
    pub(crate) fn finds(&self, text: &[u8]) -> bool {
        matches!(Scan::new(self, text, 0, true).next_found(), Found::Match(_))
    }

    /// With what makes hashes and tokens; without it, `Hash` and `Token` redact.
    #[must_use]
    pub fn with_key(self, key: Option<Arc<TokenKey>>) -> CompiledMasks {
        CompiledMasks { key, ..self }
    }

    /// A search for tokens of this namespace, made for matches of these detectors, whose replacements are the values that they
    /// stand for. Its one rule has the name [`RESTORE_RULE`], for mask and detector.
    pub fn restoring(key: Arc<TokenKey>, detectors: &[&str]) -> CompiledMasks {
        CompiledMasks {
            rules: vec![Rule {
                mask: RESTORE_RULE.into(),
                detector: RESTORE_RULE.into(),
                with: MaskWith::Token,
            }],
            restore: Some(Restore::new(key, detectors)),
            ..CompiledMasks::default()
        }
    }

    /// What makes tokens and hashes.
    pub(super) fn key(&self) -> Option<&TokenKey> {
        self.key.as_deref()
    }

    /// True when nothing is looked for.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What is looked for, in order of precedence.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Values that are replaced whole, in formats that have places. Their rules find nothing in text.
    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    /// Header fields whose values are replaced whole. Their rules find nothing in text.
    pub fn headers(&self) -> &HeaderNames {
        &self.headers
    }

    /// Whether anything is looked for in bodies.
    pub fn reads_bodies(&self) -> bool {
        self.rules.len() > self.headers.rules
    }

    /// Asks one engine for its first match at or after `from`.
    pub(super) fn ask(&self, engine: usize, text: &[u8], from: usize, eof: bool) -> Found {
        let email = |sign: usize| {
            let (rule, signs) = self.emails.as_ref()?;
            Some(signs.get(sign)?.next(*rule, text, from, eof))
        };
        let restore = self.restore.as_ref();
        let found = match engine {
            0 => self.tokens.as_ref().map(|it| it.next(text, from, eof)),
            1 => self.digits.as_ref().map(|it| it.next(text, from, eof)),
            2 => self.custom.as_ref().map(|it| it.next(text, from, eof)),
            3 => email(0),
            4 => email(1),
            5 => restore.map(|it| it.next_text(text, from, eof)),
            6 => restore.map(|it| it.next_card(text, from, eof)),
            7 => self.phone.map(|rule| phone::next(rule, text, from, eof)),
            8 => self
                .ipv4
                .map(|rule| address::next_v4(rule, text, from, eof)),
            9 => self
                .ipv6
                .map(|rule| address::next_v6(rule, text, from, eof)),
            10 => self.iban.map(|rule| iban::next(rule, text, from, eof)),
            11 => self
                .entropy
                .map(|rule| entropy::next(rule, text, from, eof)),
            _ => None,
        };
        found.unwrap_or(Found::Undecided(text.len()))
    }
}

#[derive(Default)]
struct Builder {
    rules: Vec<Rule>,
    builtins: Vec<Builtin>,
    secrets: Vec<(Secret, usize)>,
    digits: Digits,
    email: Option<usize>,
    phone: Option<usize>,
    ipv4: Option<usize>,
    ipv6: Option<usize>,
    iban: Option<usize>,
    entropy: Option<usize>,
    patterns: Vec<(regex_syntax::hir::Hir, usize)>,
    fields: Fields,
    headers: HeaderNames,
    errors: Vec<MaskError>,
}

impl Builder {
    fn secrets(mut self) -> Self {
        let mask: Arc<str> = BUILTIN_MASK.into();
        for builtin in SECRETS {
            self.builtin(&mask, builtin, MaskWith::Redact);
        }
        self
    }

    fn masks<'a>(mut self, masks: impl IntoIterator<Item = &'a Mask>) -> Self {
        for mask in masks {
            let name: Arc<str> = mask.name.as_str().into();
            for &builtin in &mask.detectors {
                self.builtin(&name, builtin, mask.with);
            }
            for pattern in &mask.patterns {
                match parse(pattern) {
                    Ok(hir) => {
                        let rule = self.rule(&name, &pattern.name, mask.with);
                        self.patterns.push((hir, rule));
                    }
                    Err(error) => self.errors.push(MaskError::Pattern {
                        mask: mask.name.clone(),
                        error,
                    }),
                }
            }
            self.fields(mask, &name);
            self.headers(mask, &name);
        }
        self
    }

    fn headers(&mut self, mask: &Mask, name: &Arc<str>) {
        if mask.headers.is_empty() {
            return;
        }
        let rule = self.rule(name, HEADER, mask.with);
        self.headers.rules += 1;
        for pattern in &mask.headers {
            self.headers.add(pattern, rule);
        }
    }

    fn fields(&mut self, mask: &Mask, name: &Arc<str>) {
        if mask.fields.is_empty() {
            return;
        }
        let rule = self.rule(name, FIELD, mask.with);
        for path in &mask.fields {
            if let Err(error) = self.fields.add(path, rule) {
                self.errors.push(MaskError::Field {
                    mask: mask.name.clone(),
                    error,
                });
            }
        }
    }

    fn builtin(&mut self, mask: &Arc<str>, builtin: Builtin, with: MaskWith) {
        if self.builtins.contains(&builtin) {
            return;
        }
        self.builtins.push(builtin);
        let rule = self.rule(mask, builtin.name(), with);
        match builtin {
            Builtin::Email => self.email = Some(rule),
            Builtin::CreditCard | Builtin::UsSsn => self.digits.detectors.push((builtin, rule)),
            Builtin::AwsAccessKey => self.secrets.push((Secret::AwsAccessKey, rule)),
            Builtin::PrivateKey => self.secrets.push((Secret::PrivateKey, rule)),
            Builtin::Jwt => self.secrets.push((Secret::Jwt, rule)),
            Builtin::ApiToken => self.secrets.push((Secret::ApiToken, rule)),
            Builtin::CloudKey => self.secrets.push((Secret::CloudKey, rule)),
            Builtin::Phone => {
                self.phone = Some(rule);
                self.digits.detectors.push((builtin, rule));
            }
            Builtin::Ipv4 => self.ipv4 = Some(rule),
            Builtin::Ipv6 => self.ipv6 = Some(rule),
            Builtin::Iban => self.iban = Some(rule),
            Builtin::HighEntropy => self.entropy = Some(rule),
        }
    }

    fn rule(&mut self, mask: &Arc<str>, detector: &str, with: MaskWith) -> usize {
        self.rules.push(Rule {
            mask: Arc::clone(mask),
            detector: detector.into(),
            with,
        });
        self.rules.len() - 1
    }

    fn build(mut self) -> Result<CompiledMasks, Vec<MaskError>> {
        let custom = (!self.patterns.is_empty())
            .then(|| Custom::new(&self.patterns))
            .transpose();
        let custom = custom.unwrap_or_else(|error| {
            self.errors.push(MaskError::TooLarge(error));
            None
        });
        if !self.errors.is_empty() {
            return Err(self.errors);
        }
        Ok(CompiledMasks {
            tokens: Tokens::new(&self.secrets),
            emails: self
                .email
                .map(|rule| (rule, [Sign::Plain, Sign::escaped()])),
            digits: (!self.digits.detectors.is_empty()).then_some(self.digits),
            custom,
            phone: self.phone,
            ipv4: self.ipv4,
            ipv6: self.ipv6,
            iban: self.iban,
            entropy: self.entropy,
            key: None,
            restore: None,
            fields: self.fields,
            headers: self.headers,
            rules: self.rules,
        })
    }
}
