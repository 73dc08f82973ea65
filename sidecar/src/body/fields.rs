//! Masks on header fields, of requests and responses.

use std::sync::Arc;

use chaperone_crds::{
    decide::HeaderFields,
    detect::{CompiledMasks, Match, Tail, is_left_alone},
    record::MaskedInfo,
};

use crate::mask::{Format, mask_all, mask_all_of};

/// Fields that are left alone but for the query and the fragment of the reference that they hold: its path routes, and what stands behind it is data (RFC 9110 §8.7, §10.2.2).
const REFERENCES: [&str; 2] = ["location", "content-location"];

/// Header fields that change, each by its name in lower case and with all of its values.
pub(crate) type Changed = Vec<(String, Vec<Vec<u8>>)>;

/// The fields of a response that masks change, and what was found in them.
pub(crate) fn masked_fields(
    masks: &Arc<CompiledMasks>,
    fields: &dyn HeaderFields,
) -> (Changed, Vec<MaskedInfo>) {
    let mut findings = Vec::new();
    let changed = changed(fields, |name, value| {
        let (value, found) = masked_value(masks, name, value);
        add(&mut findings, found);
        value
    });
    (changed, findings)
}

/// The fields that `edit` changes. It sees each value once.
pub(super) fn changed(
    fields: &dyn HeaderFields,
    mut edit: impl FnMut(&str, &[u8]) -> Vec<u8>,
) -> Changed {
    let mut all: Vec<(String, Vec<Vec<u8>>, bool)> = Vec::new();
    for (name, value) in fields.fields() {
        let name = name.to_ascii_lowercase();
        if is_left_alone(&name) && !REFERENCES.contains(&name.as_str()) {
            continue;
        }
        let edited = edit(&name, value);
        let differs = edited != value;
        match all.iter_mut().find(|(known, _, _)| *known == name) {
            Some((_, values, changed)) => {
                values.push(edited);
                *changed |= differs;
            }
            None => all.push((name, vec![edited], differs)),
        }
    }
    all.retain(|(_, _, changed)| *changed);
    all.into_iter()
        .map(|(name, values, _)| (name, values))
        .collect()
}

/// A value as masks leave it: whole ones that a mask names are replaced, in others what detectors find.
pub(super) fn masked_value(
    masks: &Arc<CompiledMasks>,
    name: &str,
    value: &[u8],
) -> (Vec<u8>, Vec<MaskedInfo>) {
    if REFERENCES.contains(&name) {
        return masked_reference(masks, value);
    }
    let Some(number) = masks.headers().rule(name) else {
        return mask_all(masks, value);
    };
    let found = Match {
        start: 0,
        end: value.len(),
        rule: number,
        tail: Tail::Closed,
    };
    let text = masks.replacement(&found, value).as_text().to_vec();
    let rule = masks.rules().get(number);
    let finding = rule.map(|rule| MaskedInfo {
        mask: rule.mask.to_string(),
        detector: rule.detector.to_string(),
        count: 1,
    });
    (text, finding.into_iter().collect())
}

/// A reference with its query and its fragment as masks leave them, each read as a form; what takes a match's place is percent-encoded.
fn masked_reference(masks: &Arc<CompiledMasks>, value: &[u8]) -> (Vec<u8>, Vec<MaskedInfo>) {
    let (mut out, mut findings) = (Vec::with_capacity(value.len()), Vec::new());
    let mut rest = value;
    for delimiters in [&b"?#"[..], b"#"] {
        let Some(at) = rest.iter().position(|b| delimiters.contains(b)) else {
            break;
        };
        let (before, behind) = rest.split_at(at.saturating_add(1));
        out.extend_from_slice(before);
        // A question mark in a fragment is part of it.
        let fragment = before.ends_with(b"#");
        let length = behind.iter().position(|&b| b == b'#' && !fragment);
        let (text, after) = behind.split_at(length.unwrap_or(behind.len()));
        let (masked, found) = mask_all_of(masks, Format::Form, text);
        out.extend(masked);
        add(&mut findings, found);
        rest = after;
    }
    out.extend_from_slice(rest);
    (out, findings)
}

fn add(all: &mut Vec<MaskedInfo>, found: Vec<MaskedInfo>) {
    for finding in found {
        let same = |known: &&mut MaskedInfo| {
            known.mask == finding.mask && known.detector == finding.detector
        };
        match all.iter_mut().find(same) {
            Some(known) => known.count = known.count.saturating_add(finding.count),
            None => all.push(finding),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_reference_query_and_fragment_are_masked_and_the_path_routes() {
        let mask = "{name: pii, detectors: [email], fields: [$.code]}";
        let mask = serde_saphyr::from_str(mask).unwrap();
        let masks = Arc::new(CompiledMasks::compile([&mask]).unwrap());
        for (value, expected) in [
            ("/u/ana@example.com", "/u/ana@example.com"),
            ("", ""),
            (
                "https://a.example/cb?to=ana@example.com&n=1",
                "https://a.example/cb?to=%5Bmasked%3Aemail%5D&n=1",
            ),
            (
                "/cb?code=1#to=ana@example.com",
                "/cb?code=%5Bmasked%3Afield%5D#to=%5Bmasked%3Aemail%5D",
            ),
            ("/cb#x?to=ana@example.com", "/cb#x?to=%5Bmasked%3Aemail%5D"),
            ("/cb?a#b#c", "/cb?a#b#c"),
        ] {
            let fields = [("Location", value)];
            let (changed, _) = masked_fields(&masks, &fields);
            let out = changed.first().and_then(|(_, values)| values.first());
            let out = out.map_or(value.as_bytes(), Vec::as_slice);
            assert_eq!(String::from_utf8_lossy(out), expected);
        }
    }
}
