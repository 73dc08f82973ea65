//! What a sink makes of records: which of them it gets, and how they are written for it.

use chaperone_crds::{filter::Filter, render::render_lines, resources::Format};
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
