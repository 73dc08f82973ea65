//! Secrets that begin with a literal: access keys, private keys, JSON web tokens and API tokens. One pass of a vectorised
//! multi-literal search finds them all.

use aho_corasick::{AhoCorasick, MatchKind};

use super::bytes::{Step, is_base64url, is_word, run_end, slice, word_may_begin};
use super::{Found, Match, Tail, jwt, pem};

/// Longest API token that is waited for, bytes; longer ones are dropped to their end.
const TOKEN_BYTES: usize = 512;
/// Capitals and digits after `AKIA` or `ASIA`.
const ACCESS_KEY_BYTES: usize = 16;

/// A kind of secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Secret {
    AwsAccessKey,
    PrivateKey,
    Jwt,
    ApiToken,
}

/// An API token: its prefix, and how many bytes must follow.
struct ApiToken {
    prefix: &'static str,
    min: usize,
}

/// Anthropic, GitHub and Slack. The bytes that follow are base64url; the least number is well below what is issued, since a
/// shorter one may be a token cut short.
const API_TOKENS: [ApiToken; 11] = [
    token("sk-ant-", 8),
    token("ghp_", 16),
    token("gho_", 16),
    token("ghu_", 16),
    token("ghs_", 16),
    token("ghr_", 16),
    token("github_pat_", 16),
    token("xoxb-", 10),
    token("xoxp-", 10),
    token("xoxa-", 10),
    token("xoxs-", 10),
];

const fn token(prefix: &'static str, min: usize) -> ApiToken {
    ApiToken { prefix, min }
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
    secret: Secret,
    /// Bytes that must follow an API token's prefix.
    min: usize,
    rule: usize,
}

impl Tokens {
    /// `None` when nothing is asked for.
    pub(super) fn new(secrets: &[(Secret, usize)]) -> Option<Tokens> {
        let kinds: Vec<Kind> = secrets
            .iter()
            .flat_map(|&(secret, rule)| literals(secret, rule))
            .collect();
        let longest = kinds.iter().map(|kind| kind.literal.len()).max()?;
        let literals = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostFirst)
            .build(kinds.iter().map(|kind| kind.literal))
            // Fewer than twenty short literals cannot exceed the automaton's limits.
            .expect("short literals build");
        Some(Tokens {
            literals,
            kinds,
            longest,
        })
    }

    /// The first secret that begins at or after `from`.
    pub(super) fn next(&self, text: &[u8], from: usize, eof: bool) -> Found {
        let mut at = from;
        while let Some(found) = self.literals.find(slice(text, at, text.len())) {
            let start = at + found.start();
            at = start + 1;
            let Some(kind) = self.kinds.get(found.pattern().as_usize()) else {
                continue;
            };
            match step(kind, text, start, eof) {
                Step::No => {}
                Step::More => return Found::Undecided(start),
                Step::Yes { end, tail } => {
                    return Found::Match(Match {
                        start,
                        end,
                        rule: kind.rule,
                        tail,
                    });
                }
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

fn literals(secret: Secret, rule: usize) -> Vec<Kind> {
    let kind = |literal: &'static [u8], min| Kind {
        literal,
        secret,
        min,
        rule,
    };
    match secret {
        Secret::AwsAccessKey => vec![kind(b"AKIA", 0), kind(b"ASIA", 0)],
        Secret::PrivateKey => vec![kind(pem::BEGIN, 0)],
        Secret::Jwt => vec![kind(jwt::PREFIX.as_bytes(), 0)],
        Secret::ApiToken => API_TOKENS
            .iter()
            .map(|token| kind(token.prefix.as_bytes(), token.min))
            .collect(),
    }
}

fn step(kind: &Kind, text: &[u8], start: usize, eof: bool) -> Step {
    match kind.secret {
        Secret::PrivateKey => pem::step(text, start, eof),
        Secret::Jwt => jwt::step(text, start, eof),
        _ if !word_may_begin(text, start) => Step::No,
        Secret::AwsAccessKey => access_key(text, start + kind.literal.len(), eof),
        Secret::ApiToken => api_token(kind, text, start, eof),
    }
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

fn api_token(kind: &Kind, text: &[u8], start: usize, eof: bool) -> Step {
    let limit = start + TOKEN_BYTES;
    let body = start + kind.literal.len();
    let end = run_end(text, body, limit, is_base64url);
    if end == limit {
        return Step::Yes {
            end,
            tail: Tail::Token,
        };
    }
    match text.get(end) {
        None if !eof => Step::More,
        _ if end - body < kind.min => Step::No,
        _ => Step::closed(end),
    }
}
