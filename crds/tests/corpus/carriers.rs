//! Where values stand: the texts that agents read, each with its escapes.

use super::random::{HEX, Random};

/// A text, and the value as it is written there.
pub(crate) struct Sample {
    pub(crate) text: String,
    pub(crate) value: String,
}

/// Puts a value, after its context if it has one, into a text of some kind.
pub(crate) fn carry(value: &str, r: &mut Random) -> Sample {
    let (context, value) = value.split_once('|').unwrap_or(("", value));
    let n = r.below(100_000);
    let write = |before: &str, after: &str, escape: &dyn Fn(&str) -> String| {
        let written = escape(value);
        Sample {
            text: format!("{before}{}{written}{after}", escape(context)),
            value: written,
        }
    };
    match r.below(7) {
        0 => write(
            &format!("{{\"id\":{n},\"field\":\""),
            "\",\"ok\":true}",
            &json,
        ),
        1 => write(
            &format!("2026-11-25T02:00:{:02}Z INFO worker[{n}] got ", n % 60),
            " in 12ms\n",
            &str::to_owned,
        ),
        2 if context.contains("://") => write("<a href=\"", "&se=2026\">", &str::to_owned),
        2 => write(
            &format!("GET /v1/items/{n}?filter="),
            "&page=2 HTTP/1.1",
            &percent,
        ),
        3 => write(
            "<tr><td class=\"c1\">",
            "</td><td>7</td></tr>",
            &str::to_owned,
        ),
        4 => write(
            &format!("{n},"),
            ",2026-01-31,\"closed\"\r\n",
            &str::to_owned,
        ),
        5 => write(
            "    let config = load(\"",
            "\"); // from the console\n",
            &json,
        ),
        _ => write(
            &format!("export BUILD={}\nSETTING=", r.text(HEX, 8)),
            "\nNEXT=1\n",
            &str::to_owned,
        ),
    }
}

fn json(text: &str) -> String {
    let quoted = serde_json::to_string(text).expect("text serialises");
    quoted[1..quoted.len() - 1].to_owned()
}

/// RFC 3986 section 2.3: all but unreserved characters.
fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
