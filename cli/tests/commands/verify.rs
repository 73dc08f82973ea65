//! `chaperone verify` and `chaperone export`.

use super::*;

#[test]
fn verify_answers_0_for_an_intact_log() {
    let output = chaperone(&["verify", "-"], &log());
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("intact"));
}

#[test]
fn verify_answers_1_and_names_the_first_bad_record() {
    let whole = log();
    let altered = text(&whole)
        .replacen("claude", "cloude", 2)
        .replacen("cloude", "claude", 1);
    let output = chaperone(&["verify", "-"], altered.as_bytes());
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stdout).contains("FIRST BAD RECORD 1"),
        "{}",
        text(&output.stdout)
    );

    let output = chaperone(&["verify", "-o", "json", "-"], altered.as_bytes());
    assert_eq!(output.status.code(), Some(1));
    let verdict: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(verdict["intact"], false);
    assert_eq!(verdict["streams"][0]["firstBadSeq"], 1);
}

#[test]
fn verify_reads_rotated_files_as_one_log() {
    let folder = std::env::temp_dir().join(format!("chaperone-verify-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let whole = log();
    let cut = text(&whole).match_indices('\n').nth(1).unwrap().0;
    let (first, second) = (folder.join("1.jsonl"), folder.join("2.jsonl"));
    // The first file lacks its last newline.
    std::fs::write(&first, &whole[..cut]).unwrap();
    std::fs::write(&second, &whole[cut + 1..]).unwrap();
    let (first, second) = (first.to_str().unwrap(), second.to_str().unwrap());

    let code = |arguments: &[&str]| chaperone(arguments, b"").status.code();
    assert_eq!(code(&["verify", first, second]), Some(0));
    assert_eq!(code(&["verify", second]), Some(1));
    assert_eq!(code(&["verify", "--part", second]), Some(0));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn verify_proves_a_ledger_with_its_key_and_checkpoints_kept_elsewhere() {
    let folder = std::env::temp_dir().join(format!("chaperone-ledger-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let key = ledger(&folder);
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (ledger, first, keys) = (path("ledger"), path("first"), path("keys"));
    std::fs::write(&keys, format!("{key}\n\n")).unwrap();

    let output = chaperone(&["verify", &ledger, "--key", &key], b"");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains("signed by ledger.example/prod"), "{said}");
    assert!(
        said.ends_with("4 records in 1 streams, 0 after the checkpoint: intact\n"),
        "{said}"
    );
    let with_first = [
        "verify",
        "-o",
        "json",
        &ledger,
        "--key",
        &keys,
        "--checkpoint",
        &first,
    ];
    let output = chaperone(&with_first, b"");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let verdict: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(verdict["intact"], true);
    assert_eq!(verdict["comparedWith"], serde_json::json!([2]));
    assert_eq!(verdict["checkpoint"]["size"], 4);
    assert_eq!(verdict["log"]["streams"][0]["closed"], true);

    // A byte of a record that no other record vouches for.
    let segment = folder.join("ledger/records/00000000.jsonl");
    let records = std::fs::read_to_string(&segment).unwrap();
    std::fs::write(&segment, records.replace("terminated", "Terminated")).unwrap();
    let output = chaperone(&["verify", &ledger, "--key", &key], b"");
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    assert!(said.contains("as leaf 3 than record 3 of stream"), "{said}");

    for (arguments, words) in [
        (&["verify", &ledger][..], "give the ledger's public key"),
        (&["verify", &ledger, "--part"], "--part is for files"),
        (&["verify", &ledger, "--key", "nonsense"], "neither a key"),
        (&["verify", &keys, &ledger], "verified alone"),
        (&["verify", &keys, "--key", &key], "for one directory"),
        (
            &["verify", folder.to_str().unwrap(), "--key", &key],
            "neither a ledger",
        ),
    ] {
        let output = chaperone(arguments, b"");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = text(&output.stderr);
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn what_export_takes_out_of_a_ledger_is_proved_with_the_key_alone() {
    let folder = std::env::temp_dir().join(format!("chaperone-export-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let key = ledger(&folder);
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (ledger, into) = (path("ledger"), path("evidence"));
    let stream = StreamId::from_random([7; 16]).to_string();
    let export = [
        "export", &ledger, "--key", &key, "--stream", &stream, "--into", &into,
    ];
    let output = chaperone(&export, b"");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains("4 records in "), "{said}");
    std::fs::remove_dir_all(&ledger).unwrap();

    let output = chaperone(&["verify", &into, "--key", &key], b"");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let output = chaperone(&["verify", "-o", "json", &into, "--key", &key], b"");
    let verdict: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(verdict["intact"], true);
    assert_eq!(verdict["subject"]["stream"], stream);
    assert_eq!(verdict["streams"][0]["records"], 4);
    let records = folder.join("evidence/records.jsonl");
    let altered = std::fs::read_to_string(&records)
        .unwrap()
        .replace("terminated", "Terminated");
    std::fs::write(&records, altered).unwrap();
    let output = chaperone(&["verify", &into, "--key", &key], b"");
    assert_eq!(output.status.code(), Some(1));

    for (arguments, words) in [
        (&export[..], "nothing is exported"),
        (&["verify", &into], "give the ledger's public key"),
        (
            &[
                "verify",
                &into,
                "--key",
                &key,
                "--checkpoint",
                &path("first"),
            ],
            "for a ledger",
        ),
        (
            &["export", &ledger, "--key", &key, "--into", &into],
            "--session",
        ),
    ] {
        let output = chaperone(arguments, b"");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = text(&output.stderr);
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
