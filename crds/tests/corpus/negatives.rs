//! Texts in which nothing is to be found, though much of it looks so.

use super::random::{BASE62, BASE64, HEX, Random};
use super::values::luhn_digit;

/// How many kinds there are.
pub(crate) const KINDS: usize = 26;

/// A text of the given kind.
pub(crate) fn negative(kind: usize, r: &mut Random) -> String {
    match kind {
        0 => format!(
            "{{\"id\":\"{}-{}-4{}-a{}-{}\"}}",
            r.text(HEX, 8),
            r.text(HEX, 4),
            r.text(HEX, 3),
            r.text(HEX, 3),
            r.text(HEX, 12)
        ),
        1 => format!("{}  file.tar.gz\n", r.text(HEX, 64)),
        2 => format!("commit {}\nAuthor: nobody\n", r.text(HEX, 40)),
        3 => format!("FROM app@sha256:{}\n", r.text(HEX, 64)),
        4 => format!(
            "\"integrity\": \"sha512-{}==\",\n\"resolved\": \"https://registry.example/a/-/a-1.2.3.tgz\"",
            r.text(BASE64, 86)
        ),
        5 => {
            let length = 300 + r.below(900);
            format!(
                "<img src=\"data:image/png;base64,iVBORw0KGgo{}\">",
                r.text(BASE64, length)
            )
        }
        6 => format!(
            "{{\"ts\":17{},\"us\":17{},\"ns\":17{}}}",
            r.digits(11),
            r.digits(14),
            r.digits(17)
        ),
        7 => format!(
            "2026-{:02}-{:02}T{:02}:{:02}:{:02}.{}+02:00 started",
            1 + r.below(12),
            1 + r.below(28),
            r.below(24),
            r.below(60),
            r.below(60),
            r.digits(6)
        ),
        8 => format!(
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/{}.0.{}.{} Safari/537.36",
            100 + r.below(40),
            r.below(9999),
            r.below(250)
        ),
        9 => format!(
            "\"version\": \"{}.{}.{}.{}\"",
            r.below(40),
            r.below(20),
            r.below(99),
            r.below(99)
        ),
        10 => format!(
            "libfoo {}.{}.{}.{}-{}ubuntu1 amd64",
            r.below(9),
            r.below(20),
            r.below(9),
            r.below(9),
            1 + r.below(5)
        ),
        11 => format!("order 1{} shipped, parcel JD{}", r.digits(15), r.digits(18)),
        12 => format!(
            "order {}{} paid",
            r.of(&["2", "3", "4", "5", "6", "7", "8", "9"]),
            r.digits(15)
        ),
        13 => format!("ISBN 978{} EAN 4{}", r.digits(10), r.digits(12)),
        14 => {
            let body = format!("86{}", r.digits(12));
            format!("imei={body}{}", luhn_digit(&body))
        }
        15 => format!(
            "link/ether {0}:{1}:{0}:{2}:{1}:{2} brd ff:ff:ff:ff:ff:ff",
            r.text(HEX, 2),
            r.text(HEX, 2),
            r.text(HEX, 2)
        ),
        16 => format!(
            "!function(e,t){{var n=e.a?.b||{{}},r=t(n[{}],0x{}),o=+new Date,i=std::max(e,-{}.5)}}(this,{});",
            r.below(999),
            r.text(HEX, 8),
            r.below(99),
            r.below(9999)
        ),
        17 => format!(
            "use std::{{collections::BTreeMap}}; fn f{}() -> a::b::C {{ x::<u8>({}) }}",
            r.below(99),
            r.below(99)
        ),
        18 => format!(
            "M{}.{}-{}.{}c{}.{} {}.{} 0 1 {}.{}z",
            r.below(99),
            r.digits(2),
            r.below(9),
            r.digits(3),
            r.below(9),
            r.digits(2),
            r.below(99),
            r.digits(2),
            r.below(9),
            r.digits(3)
        ),
        19 => format!(
            "github.com/a/b v0.0.0-{}{} h1:{}=",
            2015 + r.below(11),
            r.text(HEX, 12),
            r.text(BASE64, 43)
        ),
        20 => format!(
            "\"@types/node\": \"^{}.{}.{}\", \"react@{}.2.0\", icon@2x.png, user@localhost",
            r.below(30),
            r.below(20),
            r.below(9),
            r.below(20)
        ),
        21 => format!(
            "pod/api-{}-{} 1/1 Running node/ip-10-0-{}-{}",
            r.text(HEX, 9),
            r.text("bcdfghjklmnpqrstvwxz", 5),
            r.below(255),
            r.below(255)
        ),
        22 => format!(
            "trace={} span={} etag=W/\"{}\"",
            r.text(HEX, 32),
            r.text(HEX, 16),
            r.text(HEX, 24)
        ),
        23 => format!(
            "lat=52.{} lon=-13.{} part 100-{}-{} rev {}",
            r.digits(6),
            r.digits(6),
            r.digits(2),
            r.digits(3),
            r.below(9)
        ),
        24 => format!(
            "if s.startswith(\"-----BEGIN PRIVATE KEY-----\") or t[:4] in (\"AKIA\", \"ghp_\", \"sk-\"): x{}()",
            r.below(99)
        ),
        _ => format!(
            ".btn-{}{{margin:0 -{}px;color:#{};transition:opacity .{}s}} /static/js/main.{}.chunk.js?v={}",
            r.text("abcdef", 5),
            r.below(50),
            r.text(HEX, 6),
            r.below(9),
            r.text(HEX, 8),
            r.text(BASE62, 8)
        ),
    }
}
