//! Every golden record in every other format: files that today's code must reproduce byte for byte. `e2e/local/l20_renderings.py` holds them to the schemas that the formats are published with.
//! `BLESS=1` writes them anew.

#![allow(clippy::unwrap_used, reason = "tests may")]

use std::{fs, path::Path};

use chaperone_crds::{
    render::{beginning, render_lines},
    resources::Format,
};

#[test]
fn every_golden_record_renders_to_the_golden_bytes() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let folders = [golden.clone(), golden.join("v2")];
    let mut records: Vec<_> = folders
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "jsonl"))
        .collect();
    records.sort();
    let lines: Vec<u8> = records
        .iter()
        .flat_map(|path| fs::read(path).unwrap())
        .collect();
    assert!(lines.iter().filter(|b| **b == b'\n').count() > 40);
    for format in Format::ALL.into_iter().filter(|f| *f != Format::Native) {
        let rendered = render_lines(format, &lines).unwrap();
        let path = golden.join(format!("rendered/{format}.jsonl"));
        if std::env::var_os("BLESS").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &rendered).unwrap();
        }
        let kept = fs::read(&path).unwrap_or_default();
        assert!(kept == rendered, "{} differs", path.display());
        let text = String::from_utf8(rendered).unwrap();
        assert!(text.lines().all(|line| line.starts_with(beginning(format))));
    }
}
