//! The script that checks proofs in the browser, run by Node.js: it accepts what the ledger proves, for trees of all shapes, and nothing else.

#![allow(clippy::unwrap_used, reason = "tests may")]

use std::{
    convert::Infallible,
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use chaperone_crds::{
    bodies,
    chain::{RecordHash, StreamId},
};
use chaperone_ledger::{
    checkpoint::Checkpoint,
    cosignature::Time,
    key::{Algorithm, SigningKey},
    leaf::Leaf,
    merkle::{Hash, Subtrees, inclusion_proof, node_hash, root},
    note, proof,
};
use serde_json::{Value, json};

const ORIGIN: &str = "ledger.example/console";

/// The leaves of a tree.
struct Leaves(Vec<Hash>);

impl Subtrees for Leaves {
    type Error = Infallible;

    fn subtree(&self, level: u8, index: u64) -> Result<Hash, Infallible> {
        if level == 0 {
            return Ok(self.0[usize::try_from(index).unwrap()]);
        }
        let half = |child: u64| self.subtree(level - 1, 2 * index + child);
        Ok(node_hash(&half(0)?, &half(1)?))
    }
}

/// A record: by its number without texts of bodies, with them, or without those that it had.
fn line(number: u64) -> String {
    let plain = format!("{{\"record\":{number},\"text\":\"grün\"");
    match number % 3 {
        0 => plain + "}",
        1 => with_content(number),
        _ => String::from_utf8(bodies::detached(with_content(number).as_bytes()).into()).unwrap(),
    }
}

fn with_content(number: u64) -> String {
    let content =
        format!("{{\"salt\":\"5a\",\"http.requestBody\":{{\"text\":\"blau {number}\"}}}}");
    let digest = RecordHash::of(content.as_bytes());
    let line = format!(
        "{{\"record\":{number},\"text\":\"grün\",\"bodiesSha256\":\"{digest}\",\"bodies\":{content}}}"
    );
    assert!(matches!(
        bodies::parts(line.as_bytes()),
        bodies::Parts::With { .. }
    ));
    line
}

fn stream() -> StreamId {
    StreamId::from_random([7; 16])
}

fn leaf(number: u64) -> Leaf {
    Leaf {
        stream: stream(),
        seq: number,
        record: RecordHash::of(line(number).as_bytes()),
    }
}

fn key(name: &str, algorithm: Algorithm) -> SigningKey {
    SigningKey::from_seed(name.parse().unwrap(), algorithm, [3; 32])
}

/// A record, its proof and the key that vouches for it.
fn case(tree: &Leaves, size: u64, index: u64) -> Value {
    let log = key(ORIGIN, Algorithm::Ed25519);
    let whole = root(tree, size).unwrap();
    let checkpoint = Checkpoint::new(ORIGIN.parse().unwrap(), size, whole);
    let signed = checkpoint.sign(&[&log], Time::default()).unwrap();
    let witness = key("witness.example/w1", Algorithm::CosignatureV1);
    let signed = note::countersign(&signed, &witness, Time::new(1_800_000_000).unwrap()).unwrap();
    let hashes = inclusion_proof(tree, index, size).unwrap();
    let text = proof::text(index, &hashes, std::str::from_utf8(&signed).unwrap());
    json!({"stream": stream().to_string(), "seq": index.to_string(), "line": line(index), "proof": text, "vkey": log.verifier().to_string()})
}

/// What each case comes to: its steps' words, or none where it is not what the script should say.
fn checked(cases: &[Value]) -> Vec<Vec<String>> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!(
        "proof-{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    ));
    fs::create_dir_all(&folder).unwrap();
    let module = concat!(env!("CARGO_MANIFEST_DIR"), "/src/assets/proof.js");
    fs::copy(module, folder.join("proof.mjs")).unwrap();
    fs::write(
        folder.join("cases.json"),
        serde_json::to_vec(cases).unwrap(),
    )
    .unwrap();
    fs::write(
        folder.join("run.mjs"),
        r#"import { check } from "./proof.mjs";
        import { readFileSync } from "node:fs";
        const cases = JSON.parse(readFileSync(new URL("cases.json", import.meta.url)));
        const found = [];
        for (const each of cases) found.push((await check({ ...each, line: new TextEncoder().encode(each.line) })).map(({ is }) => is));
        console.log(JSON.stringify(found));"#,
    )
    .unwrap();
    let mut node = Command::new("node");
    node.arg(folder.join("run.mjs")).stderr(Stdio::inherit());
    let output = node
        .output()
        .expect("node is missing: run hack/setup, or install nodejs");
    fs::remove_dir_all(&folder).unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_browser_accepts_what_the_ledger_proves() {
    let tree = Leaves((0..300).map(|number| leaf(number).hash()).collect());
    let mut cases = Vec::new();
    for size in (1_u64..=40).chain([64, 65, 127, 255, 256, 257, 300]) {
        for index in [0, 1, size / 3, size / 2, size.saturating_sub(2), size - 1] {
            if index < size {
                cases.push(case(&tree, size, index));
            }
        }
    }
    let found = checked(&cases);
    assert_eq!(found.len(), cases.len());
    for (case, steps) in cases.iter().zip(found) {
        assert_eq!(steps, ["yes", "yes", "yes"], "{case}");
    }
}

#[test]
fn the_browser_cuts_content_off_where_the_ledger_does() {
    let whole = with_content(1);
    let tail = whole.split_once("\"bodies\":").unwrap().1;
    let bare = String::from_utf8(bodies::detached(whole.as_bytes()).into()).unwrap();
    for line in [
        whole.clone(),
        bare.clone(),
        format!("{{\"a\":{whole}}}"),
        format!("[{whole}]"),
        format!("{{\"a\":{bare}}}"),
        format!("{whole} "),
        whole.replace("blau", "grün"),
        whole.replace("\"salt\"", "\"Salt\""),
        bare.to_uppercase(),
        format!("{}, \"bodies\":{tail}", bare.strip_suffix('}').unwrap()),
        json!({"text": whole, "more": bare}).to_string(),
        format!("{{\"x\":{whole},\"bodiesSha256\":\"{}\"}}", "0".repeat(64)),
        String::new(),
    ] {
        let leaf = Leaf {
            record: RecordHash::of(line.as_bytes()),
            ..leaf(0)
        };
        let mut case = case(&Leaves(vec![leaf.hash()]), 1, 0);
        case["line"] = json!(line);
        assert_eq!(checked(&[case]), [["yes", "yes", "yes"]], "{line}");
    }
}

#[test]
fn a_record_is_proved_with_its_content_and_without_and_with_no_other() {
    let tree = Leaves((0..300).map(|number| leaf(number).hash()).collect());
    let good = case(&tree, 211, 76);
    let line = good["line"].as_str().unwrap();
    let with = |line: &str| {
        let mut changed = good.clone();
        changed["line"] = json!(line);
        changed
    };
    let bare = String::from_utf8(bodies::detached(line.as_bytes()).into()).unwrap();
    assert!(line.contains("blau 76") && !bare.contains("blau"));
    let found = checked(&[
        with(line),
        with(&bare),
        with(&line.replace("blau", "grau")),
        with(&bare.replace("grün", "grau")),
    ]);
    assert_eq!(found[0], ["yes", "yes", "yes"]);
    assert_eq!(found[1], ["yes", "yes", "yes"]);
    for altered in &found[2..] {
        assert!(altered.contains(&"no".to_owned()), "{altered:?}");
    }
}

#[test]
fn the_browser_refuses_everything_else() {
    let tree = Leaves((0..300).map(|number| leaf(number).hash()).collect());
    let good = case(&tree, 211, 77);
    let proof = good["proof"].as_str().unwrap();
    let other = case(&tree, 211, 78);
    let with = |name: &str, value: &str| {
        let mut changed = good.clone();
        changed[name] = json!(value);
        changed
    };
    let lines: Vec<_> = proof.lines().collect();
    let mut cases = vec![
        with("line", "{\"record\":77,\"text\":\"grun\"}"),
        with("line", ""),
        with("seq", "78"),
        with("stream", "01010101-0101-4101-8101-010101010101"),
        with("proof", other["proof"].as_str().unwrap()),
        with("proof", &proof.replace("index 77", "index 76")),
        with("proof", &proof.replace("index 77", "index 077")),
        with("proof", &proof.replace("index 77", "index 211")),
        with(
            "proof",
            &proof.replace("index 77", "index 99999999999999999999999"),
        ),
        with("proof", &proof.replace("\n211\n", "\n212\n")),
        with("proof", &proof.replace("\n211\n", "\n0\n")),
        with(
            "proof",
            &proof.replace(&format!("{ORIGIN}\n"), "elsewhere\n"),
        ),
        with("proof", &proof.replace("tlog-proof@v1", "tlog-proof@v2")),
        with("proof", ""),
        with("proof", "\n\n"),
        with("vkey", "x"),
        with(
            "vkey",
            &key("elsewhere", Algorithm::Ed25519).verifier().to_string(),
        ),
        with(
            "vkey",
            &key("witness.example/w1", Algorithm::CosignatureV1)
                .verifier()
                .to_string(),
        ),
        with(
            "vkey",
            &good["vkey"].as_str().unwrap().replacen('+', "+0", 1),
        ),
        with(
            "vkey",
            &SigningKey::from_seed(ORIGIN.parse().unwrap(), Algorithm::Ed25519, [4; 32])
                .verifier()
                .to_string(),
        ),
    ];
    // Each hash of the way, the root and each signature with another byte; a hash less and one more.
    for (number, line) in lines.iter().enumerate() {
        let is_hash = line.len() == 44 && line.ends_with('=');
        let is_ours = line.starts_with(&format!("— {ORIGIN} "));
        if is_hash || is_ours {
            let mut changed: Vec<_> = lines.iter().map(|line| (*line).to_owned()).collect();
            let at = changed[number].len() - 8;
            let new = if changed[number].as_bytes()[at] == b'A' {
                "B"
            } else {
                "A"
            };
            changed[number].replace_range(at..=at, new);
            cases.push(with("proof", &(changed.join("\n") + "\n")));
        }
        if number >= 2 && is_hash && !lines[2..number].contains(&"") {
            let mut less = lines.clone();
            less.remove(number);
            cases.push(with("proof", &(less.join("\n") + "\n")));
            let mut more = lines.clone();
            more.insert(number, line);
            cases.push(with("proof", &(more.join("\n") + "\n")));
        }
    }
    assert!(cases.len() > 40, "{}", cases.len());
    for (case, steps) in cases.iter().zip(checked(&cases)) {
        assert!(steps.contains(&"no".to_owned()), "{steps:?}: {case}");
    }
    let found = checked(&[with("vkey", " ")]);
    assert_eq!(
        found,
        [["yes", "yes", "unknown"]],
        "without a key nobody vouches"
    );
}
