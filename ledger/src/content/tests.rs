use std::fs;

use super::*;
use crate::{
    leaf::Leaf,
    testing::{Folder, id},
};

fn leaf(seq: u64) -> Leaf {
    Leaf {
        stream: id(1),
        seq,
        record: chaperone_crds::chain::RecordHash::of(b"x"),
    }
}

#[test]
fn days_and_names_of_keys_have_one_form() {
    let day: Day = "20240229".parse().unwrap();
    assert_eq!(day.to_string(), "20240229");
    assert_eq!(day.begins().to_string(), "2024-02-29T00:00:00Z");
    assert_eq!(day.ends().to_string(), "2024-03-01T00:00:00Z");
    for other in [
        "",
        "2024022",
        "202402290",
        "20240230",
        "2024-2-9",
        "2024 229",
        "+2024022",
    ] {
        assert_eq!(other.parse::<Day>(), Err(BadDay), "{other}");
    }
    let name = "20240229-00ff11ee22dd33cc";
    assert_eq!(name.parse::<KeyId>().unwrap().to_string(), name);
    for other in [
        "",
        "20240229",
        "20240229-",
        "20240229-00FF11EE22DD33CC",
        "20240229-00ff",
    ] {
        assert_eq!(other.parse::<KeyId>(), Err(BadKeyId), "{other}");
    }
}

#[test]
fn what_is_sealed_opens_under_its_key_for_its_record_alone() {
    let (bytes, _) = Key::random().unwrap();
    let key = Key::new(&bytes);
    let text = b"what was said ".repeat(100);
    let packed = zstd::bulk::compress(&text, 1).unwrap();
    let sealed = key.seal(&leaf(1), packed.clone()).unwrap();
    assert_eq!(key.open(&leaf(1), sealed.as_bytes()), Some(text));
    assert_eq!(key.open(&leaf(2), sealed.as_bytes()), None);
    assert_ne!(
        key.seal(&leaf(1), packed).unwrap(),
        sealed,
        "each time another nonce"
    );
    let other = Key::new(&Key::random().unwrap().0);
    assert_eq!(other.open(&leaf(1), sealed.as_bytes()), None);
    for broken in ["", "QQ==", "!", &sealed[..sealed.len() - 4]] {
        assert_eq!(key.open(&leaf(1), broken.as_bytes()), None);
    }
    // What would unfold to more than any record has is none.
    let bomb = zstd::bulk::compress(&vec![0; 64 * 1024 * 1024], 1).unwrap();
    let sealed = key.seal(&leaf(1), bomb).unwrap();
    assert_eq!(key.open(&leaf(1), sealed.as_bytes()), None);
}

#[test]
fn who_reads_keys_sees_what_is_added_and_what_is_destroyed() {
    let folder = Folder::new();
    fs::create_dir(folder.path("keys")).unwrap();
    let day: Day = "20261124".parse().unwrap();
    let path = file(&folder.path("keys"), day);
    let line = |n: u8| {
        let id = KeyId::new(day, [n; 8]);
        let key = "A".repeat(43) + "=";
        let stream = crate::testing::id(1);
        format!(
            "{{\"id\":\"{id}\",\"key\":\"{key}\",\"stream\":\"{stream}\",\"made\":\"2026-11-24T10:00:00Z\"}}\n"
        )
    };
    let keys = Keys::of(&folder.0);
    let has = |n: u8| keys.key(&KeyId::new(day, [n; 8])).unwrap().is_some();
    assert!(!has(1));
    fs::write(&path, line(1)).unwrap();
    assert!(has(1) && !has(2));
    fs::write(&path, [line(1), line(2)].concat()).unwrap();
    assert!(has(1) && has(2));
    // One that is being written is none yet.
    let three = line(3);
    fs::write(&path, [&line(1), &line(2), &three[..40]].concat()).unwrap();
    assert!(has(2) && !has(3));
    fs::write(
        folder.path("keys/new"),
        [line(2), line(3), line(4)].concat(),
    )
    .unwrap();
    fs::rename(folder.path("keys/new"), &path).unwrap();
    assert!(!has(1) && has(2) && has(3) && has(4));
    fs::remove_file(&path).unwrap();
    assert!(!has(2));
}
