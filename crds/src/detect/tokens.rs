//! Secrets that begin with a literal: access keys, private keys, JSON web tokens and API tokens. One pass of a vectorised
//! multi-literal search finds them all.

use aho_corasick::{AhoCorasick, MatchKind};

use super::bytes::{Step, is_base64url, is_word, run_end, slice, word_may_begin};
use super::context::{self, CONTEXT_BYTES, CONTEXTS, Context, Named};
use super::vendors::{API_TOKENS, CHECKED_BYTES, CLOUD_KEYS, Class, Vendor, checksum_holds};
use super::{Found, Tail, jwt, pem};

/// Longest API token that is waited for, bytes; longer ones are dropped to their end.
const TOKEN_BYTES: usize = 512;
/// Capitals and digits after `AKIA` or `ASIA`.
const ACCESS_KEY_BYTES: usize = 16;

/// Most bytes between an access key id and the secret beside it, as in `AKIA...","...` or `AKIA...,...`.
const PAIR_SEPARATOR_BYTES: usize = 4;

/// A kind of secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Secret {
    AwsAccessKey,
    PrivateKey,
    Jwt,
    ApiToken,
    CloudKey,
}

/// The search for the secrets that are asked for.
#[derive(Debug)]
pub(super) struct Tokens {
    literals: AhoCorasick,
    /// By the literal's index.
    kinds: Vec<Kind>,
    longest: usize,
}

#[derive(Clone, Copy, Debug)]
struct Kind {
    literal: &'static [u8],
    shape: Shape,
    rule: usize,
}

/// How a candidate is judged.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// An access key id. With a `pair`, that rule's when a secret access key stands beside it; with `alone`, else a match too.
    AccessKey {
        alone: bool,
        pair: Option<usize>,
    },
    PrivateKey,
    Jwt,
    Vendor(Vendor),
    Telegram,
    Context(Context),
}

impl Tokens {
    /// `None` when nothing is asked for.
    pub(super) fn new(secrets: &[(Secret, usize)]) -> Option<Tokens> {
        let mut kinds: Vec<Kind> = secrets
            .iter()
            .flat_map(|&(secret, rule)| literals(secret, rule))
            .collect();
        kinds.extend(access_keys(secrets));
        let longest = kinds.iter().map(|kind| kind.literal.len()).max()?;
        let literals = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostFirst)
            .build(kinds.iter().map(|kind| kind.literal))
            // Some dozens of short literals cannot exceed the automaton's limits.
            .expect("short literals build");
        Some(Tokens {
            literals,
            kinds,
            longest,
        })
    }

    /// The first secret that begins at or after `from`. A name may begin before.
    pub(super) fn next(&self, text: &[u8], from: usize, eof: bool) -> Found {
        let mut at = from.saturating_sub(CONTEXT_BYTES);
        while let Some(found) = self.literals.find(slice(text, at, text.len())) {
            let literal = at + found.start();
            at = literal + 1;
            let Some(kind) = self.kinds.get(found.pattern().as_usize()) else {
                continue;
            };
            if literal < from && !matches!(kind.shape, Shape::Context(_)) {
                continue;
            }
            match kind.judge(text, literal, eof) {
                NONE => {}
                Found::Undecided(start) => return Found::Undecided(start.max(from)),
                Found::Match(found) if found.start < from => {}
                found => return found,
            }
        }
        Found::Undecided(if eof {
            text.len()
        } else {
            self.open_literal(text, from)
        })
    }

    /// Where a literal may have begun whose end is not there yet.
    fn open_literal(&self, text: &[u8], from: usize) -> usize {
        let floor = from.max(text.len().saturating_sub(self.longest.saturating_sub(1)));
        (floor..text.len())
            .find(|&start| {
                let rest = slice(text, start, text.len());
                self.kinds.iter().any(|kind| kind.literal.starts_with(rest))
            })
            .unwrap_or(text.len())
    }
}

impl Kind {
    /// Judges the candidate whose literal stands at `at`; [`NONE`] when it is none.
    fn judge(&self, text: &[u8], at: usize, eof: bool) -> Found {
        let (start, step) = match self.shape {
            Shape::Context(context) => match context.step(text, at, eof) {
                Named::No => (at, Step::No),
                Named::More => (at, Step::More),
                Named::Secret { start, end } => (start, Step::closed(end)),
            },
            Shape::AccessKey { alone, pair } => return self.access_key(text, at, eof, alone, pair),
            Shape::PrivateKey => (at, pem::step(text, at, eof)),
            Shape::Jwt => (at, jwt::step(text, at, eof)),
            Shape::Vendor(vendor) => (at, self.vendor(&vendor, text, at, eof)),
            Shape::Telegram => (at, telegram(text, at, eof)),
        };
        step.found(start, self.rule).unwrap_or(NONE)
    }

    fn access_key(
        &self,
        text: &[u8],
        at: usize,
        eof: bool,
        alone: bool,
        pair: Option<usize>,
    ) -> Found {
        if !word_may_begin(text, at) {
            return NONE;
        }
        let step = access_key(text, at + self.literal.len(), eof);
        if let (Step::Yes { end, .. }, Some(rule)) = (step, pair) {
            match secret_beside(text, end, eof) {
                Named::No => {}
                Named::More => return Found::Undecided(at),
                Named::Secret { end, .. } => {
                    return Step::closed(end).found(at, rule).unwrap_or(NONE);
                }
            }
        }
        if matches!(step, Step::Yes { .. }) && !alone {
            return NONE;
        }
        step.found(at, self.rule).unwrap_or(NONE)
    }

    fn vendor(&self, vendor: &Vendor, text: &[u8], start: usize, eof: bool) -> Step {
        let body = start + self.literal.len();
        if !word_may_begin(text, start) {
            // In the midst of a word, a checksum must prove it.
            let (length, _) = CHECKED_BYTES;
            return match text.get(body..body + length) {
                _ if vendor.class != Class::Checked => Step::No,
                None => Step::short(eof),
                Some(token) if checksum_holds(token) => Step::closed(body + length),
                Some(_) => Step::No,
            };
        }
        let limit = start + TOKEN_BYTES;
        let end = run_end(text, body, limit, vendor.class.test());
        if end == limit {
            return match vendor.max {
                Some(_) => Step::No,
                None => Step::Yes {
                    end,
                    tail: Tail::Token,
                },
            };
        }
        if end == text.len() && !eof && vendor.max.is_none_or(|max| end - body <= max) {
            return Step::More;
        }
        let mut token = slice(text, body, end);
        if vendor.class == Class::Dotted {
            let dots = token.iter().rev().take_while(|&&byte| byte == b'.').count();
            token = slice(token, 0, token.len() - dots);
        }
        let is_long = token.len() >= vendor.min && vendor.max.is_none_or(|max| token.len() <= max);
        let has_digit = || token.iter().any(u8::is_ascii_digit);
        match vendor.class {
            _ if !is_long => Step::No,
            Class::Alnum if !has_digit() => Step::No,
            Class::Checked if vendor.max.is_some() && !checksum_holds(token) => Step::No,
            _ => Step::closed(body + token.len()),
        }
    }
}

/// What [`Kind::judge`] says of no secret.
const NONE: Found = Found::Undecided(usize::MAX);

fn literals(secret: Secret, rule: usize) -> Vec<Kind> {
    let kind = |literal: &'static [u8], shape| Kind {
        literal,
        shape,
        rule,
    };
    let vendors = |table: &'static [Vendor]| {
        table
            .iter()
            .map(move |vendor| kind(vendor.prefix.as_bytes(), Shape::Vendor(*vendor)))
    };
    match secret {
        Secret::AwsAccessKey => Vec::new(),
        Secret::PrivateKey => vec![kind(pem::BEGIN, Shape::PrivateKey)],
        Secret::Jwt => jwt::PREFIXES
            .iter()
            .map(|prefix| kind(prefix.as_bytes(), Shape::Jwt))
            .collect(),
        Secret::ApiToken => vendors(API_TOKENS)
            .chain([kind(TELEGRAM, Shape::Telegram)])
            .collect(),
        Secret::CloudKey => vendors(CLOUD_KEYS)
            .chain(
                CONTEXTS
                    .iter()
                    .map(|context| kind(context.name.as_bytes(), Shape::Context(*context))),
            )
            .collect(),
    }
}

/// The literals of access key ids, which two detectors look for.
fn access_keys(secrets: &[(Secret, usize)]) -> Vec<Kind> {
    let rule_of = |wanted| {
        let found = secrets.iter().find(|(secret, _)| *secret == wanted);
        found.map(|&(_, rule)| rule)
    };
    let alone = rule_of(Secret::AwsAccessKey);
    let pair = rule_of(Secret::CloudKey);
    let Some(rule) = alone.or(pair) else {
        return Vec::new();
    };
    let kind = |literal| Kind {
        literal,
        shape: Shape::AccessKey {
            alone: alone.is_some(),
            pair,
        },
        rule,
    };
    vec![kind(b"AKIA"), kind(b"ASIA")]
}

/// The secret access key that stands beside an id which ends at `end`.
fn secret_beside(text: &[u8], end: usize, eof: bool) -> Named {
    let start = run_end(text, end, end + PAIR_SEPARATOR_BYTES, |byte| {
        matches!(
            byte,
            b',' | b':' | b';' | b'"' | b'\'' | b' ' | b'\t' | b'|'
        )
    });
    if start == text.len() && !eof && start < end + PAIR_SEPARATOR_BYTES {
        return Named::More;
    }
    if start == end {
        return Named::No;
    }
    context::aws_secret(text, start, eof)
}

fn access_key(text: &[u8], start: usize, eof: bool) -> Step {
    let limit = start + ACCESS_KEY_BYTES;
    let end = run_end(text, start, limit, |byte| {
        byte.is_ascii_uppercase() || byte.is_ascii_digit()
    });
    match text.get(end) {
        None if !eof => Step::More,
        _ if end < limit => Step::No,
        Some(&byte) if is_word(byte) => Step::No,
        _ => Step::closed(end),
    }
}

/// What comes after a bot's number in its token; the number itself is public.
const TELEGRAM: &[u8] = b":AA";

/// Judges the secret part of a bot's token: 35 characters after at least eight digits and a colon.
fn telegram(text: &[u8], start: usize, eof: bool) -> Step {
    const NUMBER_DIGITS: usize = 8;
    const SECRET_BYTES: usize = 35;
    let number = slice(text, start.saturating_sub(NUMBER_DIGITS), start);
    if number.len() < NUMBER_DIGITS || !number.iter().all(u8::is_ascii_digit) {
        return Step::No;
    }
    let body = start + 1;
    let end = run_end(text, body, body + SECRET_BYTES + 1, is_base64url);
    match text.get(end) {
        None if !eof && end <= body + SECRET_BYTES => Step::More,
        _ if end != body + SECRET_BYTES => Step::No,
        _ => Step::closed(end),
    }
}
