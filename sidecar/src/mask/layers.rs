//! Sets of masks one after another: what one lets go, the next reads.

use std::sync::Arc;

use chaperone_crds::{detect::CompiledMasks, record::MaskedInfo};

use super::{Format, Masker};

/// Masks one stream with several sets.
#[derive(Debug, Default)]
pub struct Layers {
    /// Findings are those of the first alone.
    masks: Option<Masker>,
    /// Makes tokens values again.
    restore: Option<Masker>,
}

impl Layers {
    /// Masks first, then what makes tokens values again, in text of a format.
    pub fn new(
        masks: Option<Arc<CompiledMasks>>,
        restore: Option<Arc<CompiledMasks>>,
        format: Format,
    ) -> Self {
        let masker = |masks| Masker::of(masks, format);
        Self {
            masks: masks.map(masker),
            restore: restore.map(masker),
        }
    }

    /// Whether text passes as it is.
    pub fn is_empty(&self) -> bool {
        self.masks.is_none() && self.restore.is_none()
    }

    /// Takes the next bytes of the stream and appends to `out` all that is now beyond doubt.
    pub fn push(&mut self, text: &[u8], out: &mut Vec<u8>) {
        match (&mut self.masks, &mut self.restore) {
            (None, None) => out.extend_from_slice(text),
            (Some(only), None) | (None, Some(only)) => only.push(text, out),
            (Some(masks), Some(restore)) => {
                let mut between = Vec::new();
                masks.push(text, &mut between);
                restore.push(&between, out);
            }
        }
    }

    /// Ends the stream: appends what was held back.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        match (&mut self.masks, &mut self.restore) {
            (None, None) => {}
            (Some(only), None) | (None, Some(only)) => only.finish(out),
            (Some(masks), Some(restore)) => {
                let mut last = Vec::new();
                masks.finish(&mut last);
                restore.push(&last, out);
                restore.finish(out);
            }
        }
    }

    /// What the masks found so far; tokens that became values are no findings.
    pub fn findings(&self) -> &[MaskedInfo] {
        self.masks
            .as_ref()
            .map(Masker::findings)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use chaperone_crds::resources::Mask;
    use proptest::prelude::*;

    use super::*;

    fn masks(yaml: &str) -> Arc<CompiledMasks> {
        let mask: Mask = serde_saphyr::from_str(yaml).unwrap();
        Arc::new(CompiledMasks::compile([&mask]).unwrap())
    }

    fn through(layers: &mut Layers, pieces: &[&[u8]]) -> String {
        let mut out = Vec::new();
        for piece in pieces {
            layers.push(piece, &mut out);
        }
        layers.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn both() -> Layers {
        let first = masks("{name: pii, detectors: [email], fields: [\"$.secret\"]}");
        let second = masks("{name: ssn, detectors: [usSsn]}");
        Layers::new(Some(first), Some(second), Format::Message)
    }

    proptest! {
        #[test]
        fn a_message_cut_anywhere_leaves_the_same(cuts in prop::collection::vec(0..120_usize, 0..4)) {
            let text = br#"{"secret":{"a":[1]},"to":"ana@example.com","n":"078-05-1121","card":1}"#;
            let mut ends: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            ends.push(text.len());
            ends.sort_unstable();
            let (mut pieces, mut at) = (Vec::new(), 0);
            for end in ends {
                pieces.push(&text[at..end]);
                at = end;
            }
            let mut layers = both();
            let out = through(&mut layers, &pieces);
            prop_assert_eq!(out, r#"{"secret":"[masked:field]","to":"[masked:email]","n":"[masked:usSsn]","card":1}"#);
            let found: Vec<&str> = layers.findings().iter().map(|f| f.detector.as_str()).collect();
            prop_assert_eq!(found, ["field", "email"]);
        }
    }

    #[test]
    fn a_message_that_is_no_json_is_text_and_without_masks_it_passes() {
        let text = b"42[\"say\",{\"secret\":1,\"to\":\"ana@example.com\"}]";
        let expected = "42[\"say\",{\"secret\":1,\"to\":\"[masked:email]\"}]";
        assert_eq!(through(&mut both(), &[text]), expected);
        assert!(Layers::default().is_empty());
        assert_eq!(through(&mut Layers::default(), &[b"a"]), "a");
    }

    #[test]
    fn a_number_in_a_json_message_becomes_a_string_without_paths_too() {
        let layers = |text: &[u8]| {
            let masks = masks("{name: pii, detectors: [creditCard]}");
            through(
                &mut Layers::new(Some(masks), None, Format::Message),
                &[text],
            )
        };
        assert_eq!(
            layers(b"{\"n\":4111111111111111}"),
            "{\"n\":\"[masked:creditCard]\"}"
        );
        assert_eq!(layers(b"4111111111111111"), "[masked:creditCard]");
    }
}
