//! Values of each kind, made from the published formats and not from the detectors: forms that a detector is known to miss are among them.
//! Addresses and numbers are of ranges kept for documentation and fiction where there are such; no value belongs to anybody.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::random::{BASE32, BASE62, BASE64, BASE64URL, HEX, Random, UPPER};

/// One value of the kind that a detector is for.
pub(crate) fn value(detector: &str, r: &mut Random) -> String {
    match detector {
        "email" => email(r),
        "creditCard" => card(r),
        "usSsn" => ssn(r),
        "iban" => iban(r),
        "phone" => phone(r),
        "ipv4" => ipv4(r),
        "ipv6" => ipv6(r),
        "awsAccessKey" => format!("{}{}", r.of(&["AKIA", "ASIA"]), r.text(BASE32, 16)),
        "cloudKey" => cloud_key(r),
        "apiToken" => api_token(r),
        "privateKey" => private_key(r),
        "jwt" => jwt(r),
        "highEntropy" => entropy(r),
        other => panic!("no values of kind {other}"),
    }
}

fn email(r: &mut Random) -> String {
    let first = r.of(&[
        "ada", "grace", "alan", "edsger", "barbara", "donald", "linus",
    ]);
    let last = r.of(&["lovelace", "hopper", "turing", "dijkstra", "liskov"]);
    let domain = r.of(&[
        "example.com",
        "mail.example.org",
        "example.net",
        "sub.dept.example.co.uk",
        "xn--bcher-kva.example",
    ]);
    match r.below(60) {
        0 => format!("j\u{f6}rg.{last}@{domain}"),
        1 => format!("\"{first} {last}\"@{domain}"),
        2 => format!("{first}.o'brien@{domain}"),
        3..9 => format!("{first}+{}@{domain}", r.of(&["news", "a1", "shop-2"])),
        9..20 => format!("{first}_{}@{domain}", r.digits(3)),
        _ => format!("{first}.{last}@{domain}"),
    }
}

fn card(r: &mut Random) -> String {
    let (prefix, length) = r.of(&[
        ("4", 16),
        ("4", 16),
        ("4", 16),
        ("51", 16),
        ("55", 16),
        ("2221", 16),
        ("2720", 16),
        ("34", 15),
        ("37", 15),
        ("6011", 16),
        ("65", 16),
        ("3528", 16),
        ("36", 14),
        ("62", 16),
        ("62", 19),
        ("4", 13),
    ]);
    let body = format!("{prefix}{}", r.digits(length - prefix.len() - 1));
    let digits = format!("{body}{}", luhn_digit(&body));
    match (r.below(12), length) {
        (0..6, _) => digits,
        (6..9, 16) => grouped(&digits, &[4, 4, 4, 4], " "),
        (9..11, 16) => grouped(&digits, &[4, 4, 4, 4], "-"),
        (11, 16) => grouped(&digits, &[4, 4, 4, 4], "."),
        (_, 15) => grouped(&digits, &[4, 6, 5], " "),
        _ => digits,
    }
}

/// The last digit of a number that passes Luhn.
pub(crate) fn luhn_digit(body: &str) -> u32 {
    let sum: u32 = body
        .bytes()
        .rev()
        .enumerate()
        .map(|(place, byte)| {
            let digit = u32::from(byte - b'0') * (2 - place as u32 % 2);
            digit / 10 + digit % 10
        })
        .sum();
    (10 - sum % 10) % 10
}

fn grouped(text: &str, sizes: &[usize], separator: &str) -> String {
    let mut rest = text;
    let mut groups = Vec::new();
    for size in sizes {
        let (group, after) = rest.split_at((*size).min(rest.len()));
        groups.push(group);
        rest = after;
    }
    groups.retain(|group| !group.is_empty());
    groups.join(separator)
}

fn ssn(r: &mut Random) -> String {
    let area = loop {
        let area = 1 + r.below(899);
        if area != 666 {
            break area;
        }
    };
    let (group, serial) = (1 + r.below(99), 1 + r.below(9999));
    match r.below(10) {
        0 => format!("{area:03}{group:02}{serial:04}"),
        1 => format!("{area:03} {group:02} {serial:04}"),
        _ => format!("{area:03}-{group:02}-{serial:04}"),
    }
}

fn iban(r: &mut Random) -> String {
    let (country, bban) = match r.below(8) {
        0 => ("DE", r.digits(18)),
        1 => (
            "FR",
            format!("{}{}{}", r.digits(10), r.text(BASE32, 11), r.digits(2)),
        ),
        2 => ("GB", format!("{}{}", r.text(UPPER, 4), r.digits(14))),
        3 => ("NL", format!("{}{}", r.text(UPPER, 4), r.digits(10))),
        4 => ("NO", r.digits(11)),
        5 => (
            "MT",
            format!("{}{}{}", r.text(UPPER, 4), r.digits(5), r.text(BASE32, 18)),
        ),
        6 => ("CH", format!("{}{}", r.digits(5), r.text(BASE32, 12))),
        _ => ("PL", r.digits(24)),
    };
    let remainder = format!("{bban}{country}00")
        .bytes()
        .fold(0_u32, |rest, byte| match byte {
            b'0'..=b'9' => (rest * 10 + u32::from(byte - b'0')) % 97,
            _ => (rest * 100 + u32::from(byte - b'A') + 10) % 97,
        });
    let iban = format!("{country}{:02}{bban}", 98 - remainder);
    match r.below(12) {
        0 => iban.to_lowercase(),
        1 => grouped(&iban, &[4; 9], "-"),
        2..7 => grouped(&iban, &[4; 9], " "),
        _ => iban,
    }
}

fn phone(r: &mut Random) -> String {
    let area = r.of(&["212", "415", "312", "206", "604", "202"]);
    let fiction = format!("01{}", r.digits(2));
    match r.below(16) {
        0 => format!("({area}) 555-{fiction}"),
        1 => format!("{area}-555-{fiction}"),
        2 => format!("{area}.555.{fiction}"),
        3 => format!("+1 {area} 555 {fiction}"),
        4 => format!("+1{area}555{fiction}"),
        5 => format!("+1 ({area}) 555-{fiction}"),
        6 => format!("1-|{area}-555-{fiction}"),
        7 => format!("+44 20 7946 0{}", r.digits(3)),
        8 => format!("+44 (0)113 496 0{}", r.digits(3)),
        9 => format!("+49 30 23125 {}", r.digits(3)),
        10 => format!("+33 1 99 00 {} {}", r.digits(2), r.digits(2)),
        11 => format!("+61 2 5550 {}", r.digits(4)),
        12 => format!("+35315550{}", r.digits(3)),
        13 => format!("+46-8-465 004 {}", r.digits(2)),
        14 => format!("020 7946 0{}", r.digits(3)),
        _ => format!("{area}555{fiction}"),
    }
}

fn ipv4(r: &mut Random) -> String {
    let last = r.below(256);
    let address = match r.below(6) {
        0 => format!("192.0.2.{last}"),
        1 => format!("198.51.100.{last}"),
        2 => format!("203.0.113.{last}"),
        3 => format!("10.{}.{}.{last}", r.below(256), r.below(256)),
        4 => format!("172.16.{}.{last}", r.below(256)),
        _ => format!("192.168.{}.{last}", r.below(256)),
    };
    match r.below(12) {
        0 => address.replacen("192.", "192.0", 1),
        _ => address,
    }
}

fn ipv6(r: &mut Random) -> String {
    let groups: Vec<String> = (0..6).map(|_| r.text(HEX, 4)).collect();
    match r.below(8) {
        0 => format!("2001:db8:{}", groups.join(":")),
        1 => format!("2001:DB8:{}", groups.join(":").to_uppercase()),
        2 => format!("2001:db8::{}", groups[0]),
        3 => format!("2001:db8:{}::{}", groups[0], groups[1]),
        4 => format!(
            "fe80::{}:{}ff:fe{}:{}",
            groups[0],
            r.text(HEX, 2),
            r.text(HEX, 2),
            groups[1]
        ),
        5 => format!("fd{}:{}::1", r.text(HEX, 2), groups[0]),
        6 => format!("::ffff:192.0.2.{}", r.below(256)),
        _ => format!("2001:db8::{}:{}", groups[0], groups[1]),
    }
}

/// Where a key's name makes it one, the value stands after a bar: the carrier writes both.
fn cloud_key(r: &mut Random) -> String {
    let secret = r.text(BASE64, 40);
    match r.below(12) {
        0 => format!("AIza{}", r.text(BASE64URL, 35)),
        1 => format!("GOCSPX-{}", r.text(BASE64URL, 28)),
        2 => format!("ya29.a0A{}", r.text(BASE64URL, 120)),
        3 => format!("dop_v1_{}", r.text(HEX, 64)),
        4 => format!(
            "AccountName=st;AccountKey=|{}",
            STANDARD.encode(r.text(BASE62, 64))
        ),
        5 => format!(
            "Endpoint=sb://x.example/;SharedAccessKey=|{}",
            STANDARD.encode(r.text(BASE62, 32))
        ),
        6 => format!(
            "https://st.example/c?sv=2022-11-02&sig=|{}%3D",
            r.text(BASE62, 43)
        ),
        7 => format!("aws_secret_access_key = |{secret}"),
        8 => format!("AWS_SECRET_ACCESS_KEY=|{secret}"),
        9 => format!("\"SecretAccessKey\": \"|{secret}"),
        10 => format!("<SecretAccessKey>|{secret}"),
        _ => format!("secret: |{secret}"),
    }
}

fn api_token(r: &mut Random) -> String {
    match r.below(20) {
        0 => format!("sk-ant-api03-{}AA", r.text(BASE64URL, 93)),
        1 => format!(
            "sk-proj-{}T3BlbkFJ{}",
            r.text(BASE64URL, 74),
            r.text(BASE64URL, 74)
        ),
        2 => format!("sk-{}T3BlbkFJ{}", r.text(BASE62, 20), r.text(BASE62, 20)),
        3..6 => checked(r.of(&["ghp_", "gho_", "ghs_"]), r),
        6 => format!("github_pat_{}_{}", r.text(BASE62, 22), r.text(BASE62, 59)),
        7 => format!("glpat-{}", r.text(BASE64URL, 20)),
        8 => format!("glpat-{}.01.{}", r.text(BASE64URL, 27), r.text(HEX, 9)),
        9 => format!(
            "xoxb-{}-{}-{}",
            r.digits(12),
            r.digits(12),
            r.text(BASE62, 24)
        ),
        10 => format!(
            "xoxp-{}-{}-{}-{}",
            r.digits(12),
            r.digits(12),
            r.digits(12),
            r.text(HEX, 32)
        ),
        11 => format!("sk_live_{}", r.text(BASE62, 24)),
        12 => format!("rk_test_{}", r.text(BASE62, 24)),
        13 => format!("hf_{}", r.text(BASE62, 34)),
        14 => checked("npm_", r),
        15 => format!("pypi-AgEIcHlwaS5vcmc{}", r.text(BASE64URL, 150)),
        16 => format!("SG.{}.{}", r.text(BASE64URL, 22), r.text(BASE64URL, 43)),
        17 => format!("bot{}|:AA{}", r.digits(10), r.text(BASE64URL, 33)),
        18 => format!("SK{}", r.text(HEX, 32)),
        _ => format!("whsec_{}", r.text(BASE62, 32)),
    }
}

/// GitHub's checksum: CRC-32 of 30 characters in base 62.
fn checked(prefix: &str, r: &mut Random) -> String {
    let body = r.text(BASE62, 30);
    let mut crc = flate2_crc(body.as_bytes());
    let mut digits = [0_u8; 6];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62.as_bytes()[(crc % 62) as usize];
        crc /= 62;
    }
    format!("{prefix}{body}{}", String::from_utf8_lossy(&digits))
}

fn flate2_crc(bytes: &[u8]) -> u32 {
    let table: Vec<u32> = (0..256_u32)
        .map(|n| {
            (0..8).fold(n, |c, _| {
                if c & 1 == 1 {
                    0xedb8_8320 ^ (c >> 1)
                } else {
                    c >> 1
                }
            })
        })
        .collect();
    !bytes.iter().fold(u32::MAX, |c, b| {
        table[((c ^ u32::from(*b)) & 0xff) as usize] ^ (c >> 8)
    })
}

fn private_key(r: &mut Random) -> String {
    let label = r.of(&[
        "RSA PRIVATE KEY",
        "PRIVATE KEY",
        "EC PRIVATE KEY",
        "OPENSSH PRIVATE KEY",
        "ENCRYPTED PRIVATE KEY",
    ]);
    let lines: Vec<String> = (0..3 + r.below(20)).map(|_| r.text(BASE64, 64)).collect();
    format!(
        "-----BEGIN {label}-----\n{}\n{}==\n-----END {label}-----",
        lines.join("\n"),
        r.text(BASE64, 22)
    )
}

fn jwt(r: &mut Random) -> String {
    let header = r.of(&[
        r#"{"alg":"HS256","typ":"JWT"}"#,
        r#"{"typ":"JWT","alg":"RS256","kid":"k1"}"#,
        r#"{"alg":"ES256"}"#,
        r#"{ "alg": "HS256" }"#,
    ]);
    let payload = format!(
        r#"{{"sub":"{}","exp":17{}}}"#,
        r.text(BASE62, 12),
        r.digits(8)
    );
    format!(
        "{}.{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(payload),
        r.text(BASE64URL, 43)
    )
}

fn entropy(r: &mut Random) -> String {
    match r.below(10) {
        0 => r.text(HEX, 40),
        1 => r.text(BASE62, 16),
        2 => format!("{}A1a2", r.text(BASE62, 20)),
        3..6 => {
            let length = 32 + r.below(33);
            r.text(BASE64URL, length)
        }
        _ => {
            let length = 32 + r.below(65);
            r.text(BASE62, length)
        }
    }
}
