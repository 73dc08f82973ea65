//! Masks on header fields, of requests and responses.

use std::sync::Arc;

use chaperone_crds::{
    decide::HeaderFields,
    detect::{CompiledMasks, Match, Tail, is_left_alone},
    record::MaskedInfo,
};

use crate::mask::mask_all;

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
        if is_left_alone(&name) {
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
