//! What a sink makes of records: which of them it gets, and how they are written for it.

use chaperone_bucket::{name, unfold};
use chaperone_crds::{filter::Filter, render::render_lines, resources::Format, verify::Line};
use chaperone_ledger::{
    archive::{Judge, Looked, Object, Row},
    audit::Trust,
};
use serde_json::Value;

use crate::parts;

/// A filter over `record`, a line that is `---`, and a line: any filter compiles or says why not, and has an answer for any line, the same each time.
pub(crate) fn filter(bytes: &[u8]) {
    let (expression, line) = parts(bytes);
    let Ok(expression) = std::str::from_utf8(expression) else {
        return;
    };
    match Filter::compile(expression) {
        Ok(filter) => assert_eq!(filter.passes(line), filter.passes(line)),
        Err(errors) => assert!(!errors.to_string().is_empty()),
    }
}

/// Lines of records: each format writes all of them or names one that is none; what is written is one line of JSON for each.
pub(crate) fn renderings(bytes: &[u8]) {
    let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    let count = lines.count();
    for format in Format::ALL {
        let Ok(written) = render_lines(format, bytes) else {
            continue;
        };
        if format == Format::Native {
            assert_eq!(written, bytes);
            continue;
        }
        let written: Vec<_> = written.split_inclusive(|b| *b == b'\n').collect();
        assert_eq!(written.len(), count);
        for line in written {
            assert!(serde_json::from_slice::<Value>(line).is_ok_and(|value| value.is_object()));
        }
    }
}

/// A name of an object, a line that is `---`, and its lines: any name is read or is none, any bytes unfold within bounds, and whatever an object has is judged.
pub(crate) fn bucket(bytes: &[u8]) {
    let (name, content) = parts(bytes);
    let name = String::from_utf8_lossy(name);
    let (leaf, first) = match name::read("a", &name) {
        name::Name::Records(begins) => (begins.leaf, begins.record),
        _ => (0, ""),
    };
    let unfolded = unfold::ndjson(content, |_| ());
    assert!(unfolded.records.len() <= 2 * unfold::MAX_RECORDS);
    let trust = Trust::default();
    for part in [false, true] {
        let mut judge = Judge::new(&trust, part).expect("nothing was kept");
        let lines = content.split(|byte| *byte == b'\n');
        let rows = lines.zip(0..).map(|(line, number)| Row {
            leaf: (leaf % 2 == 1).then_some(leaf.saturating_add(number)),
            looked: Looked::at(Line::Whole(line)),
        });
        judge.take(Object {
            name: &name,
            leaf,
            first,
            records: rows.collect(),
            fault: None,
            next: Some(leaf.saturating_add(3)),
        });
        let verdict = judge.finish();
        assert!(verdict.records <= verdict.lines);
        assert!(!verdict.to_string().is_empty());
    }
}
