//! Prefixes under which vendors issue tokens and keys, from their documentation and from the patterns that they report to GitHub's secret
//! scanning partner program.

use super::bytes::is_base64url;

/// What may follow a prefix, and how much of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vendor {
    pub(super) prefix: &'static str,
    pub(super) class: Class,
    /// Fewest bytes that follow. Well below what is issued where the vendor names no length, since a shorter one may be a token cut short.
    pub(super) min: usize,
    /// Most bytes that follow; a longer run is no token. `None`: any number.
    pub(super) max: Option<usize>,
}

/// Bytes of a token after its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// RFC 4648 section 5.
    Base64Url,
    /// The same and dots, none at the end.
    Dotted,
    /// Letters and digits, at least one of which is a digit.
    Alnum,
    /// Lower-case hex digits.
    Hex,
    /// 30 letters and digits and the six of their CRC-32 in base 62: GitHub's scheme, and npm's. With a right checksum a token is found in
    /// the midst of a word too.
    Checked,
}

impl Class {
    pub(super) fn test(self) -> fn(u8) -> bool {
        match self {
            Self::Base64Url => is_base64url,
            Self::Dotted => |byte| is_base64url(byte) || byte == b'.',
            Self::Alnum | Self::Checked => |byte| byte.is_ascii_alphanumeric(),
            Self::Hex => |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        }
    }
}

/// Bytes after the prefix of a token with a checksum, and how many of them it covers.
pub(super) const CHECKED_BYTES: (usize, usize) = (36, 30);

/// Anthropic, OpenAI (and others with `sk-`), GitHub, GitLab, Slack, Stripe, Hugging Face, npm, PyPI, SendGrid, Telegram.
pub(super) const API_TOKENS: &[Vendor] = &[
    open("sk-ant-", Class::Base64Url, 8),
    open("sk-proj-", Class::Base64Url, 20),
    open("sk-svcacct-", Class::Base64Url, 20),
    open("sk-admin-", Class::Base64Url, 20),
    open("sk-or-v1-", Class::Base64Url, 20),
    open("sk-", Class::Alnum, 32),
    open("ghp_", Class::Checked, 16),
    open("gho_", Class::Checked, 16),
    open("ghu_", Class::Checked, 16),
    open("ghs_", Class::Checked, 16),
    open("ghr_", Class::Checked, 16),
    open("github_pat_", Class::Base64Url, 16),
    open("glpat-", Class::Dotted, 16),
    open("gldt-", Class::Dotted, 16),
    open("glrt-", Class::Dotted, 16),
    open("glcbt-", Class::Dotted, 16),
    open("glptt-", Class::Dotted, 16),
    open("glagent-", Class::Dotted, 16),
    open("gloas-", Class::Dotted, 16),
    open("xoxb-", Class::Base64Url, 10),
    open("xoxp-", Class::Base64Url, 10),
    open("xoxa-", Class::Base64Url, 10),
    open("xoxs-", Class::Base64Url, 10),
    open("xoxr-", Class::Base64Url, 10),
    open("xoxe-", Class::Base64Url, 10),
    open("xoxe.", Class::Dotted, 20),
    open("xapp-", Class::Base64Url, 20),
    open("sk_live_", Class::Alnum, 16),
    open("sk_test_", Class::Alnum, 16),
    open("rk_live_", Class::Alnum, 16),
    open("rk_test_", Class::Alnum, 16),
    open("whsec_", Class::Alnum, 24),
    exact("hf_", Class::Alnum, 34, 40),
    exact("npm_", Class::Checked, 36, 36),
    open("pypi-AgE", Class::Base64Url, 50),
    exact("SG.", Class::Dotted, 66, 66),
];

/// Google Cloud and DigitalOcean.
pub(super) const CLOUD_KEYS: &[Vendor] = &[
    exact("AIza", Class::Base64Url, 35, 35),
    open("GOCSPX-", Class::Base64Url, 20),
    open("ya29.", Class::Dotted, 30),
    exact("dop_v1_", Class::Hex, 64, 64),
    exact("doo_v1_", Class::Hex, 64, 64),
    exact("dor_v1_", Class::Hex, 64, 64),
];

const fn open(prefix: &'static str, class: Class, min: usize) -> Vendor {
    Vendor {
        prefix,
        class,
        min,
        max: None,
    }
}

const fn exact(prefix: &'static str, class: Class, min: usize, max: usize) -> Vendor {
    Vendor {
        prefix,
        class,
        min,
        max: Some(max),
    }
}

/// Whether the last six of 36 letters and digits are the checksum of the others: CRC-32 (that of zlib) in base 62, zero-padded.
pub(super) fn checksum_holds(body: &[u8]) -> bool {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let (length, covered) = CHECKED_BYTES;
    let Some((covered, checksum)) = body.split_at_checked(covered) else {
        return false;
    };
    let mut rest = crc32(covered);
    let holds = checksum.iter().rev().all(|&byte| {
        let digit = DIGITS.get((rest % 62) as usize);
        rest /= 62;
        digit == Some(&byte)
    });
    holds && body.len() == length
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_published_example() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert!(checksum_holds(b"zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ0mLq17"));
        assert!(!checksum_holds(b"zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ0mLq18"));
        assert!(!checksum_holds(b"short"));
    }
}
