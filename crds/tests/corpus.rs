//! Precision and recall of the detectors, on texts made from public formats with a fixed seed.
//!
//! The texts are made when the test runs and not kept as files: files full of well-formed tokens set off every secret scanner. The
//! figures are those of docs/detectors.md; `cargo test -p chaperone-crds --test corpus -- --nocapture` prints them.

#![allow(clippy::unwrap_used, reason = "tests may")]

mod corpus {
    pub(crate) mod carriers;
    pub(crate) mod negatives;
    pub(crate) mod random;
    pub(crate) mod values;
}

use std::{collections::BTreeMap, fmt::Write as _, ops::Range};

use chaperone_crds::{
    detect::{Builtin, CompiledMasks, Found, MaskWith, Scan, Skip, Tail},
    resources::Mask,
};
use corpus::{carriers::carry, negatives, random::Random, values::value};

/// Texts with a value, for each detector.
const POSITIVES: usize = 400;
/// Texts without, of each kind.
const NEGATIVES: usize = 60;
const SEED: u64 = 20_261_125;

/// What a detector did, in values and matches.
#[derive(Default)]
struct Score {
    found: usize,
    missed: usize,
    wrong: usize,
}

impl Score {
    fn precision(&self) -> f64 {
        self.found as f64 / (self.found + self.wrong).max(1) as f64
    }

    fn recall(&self) -> f64 {
        self.found as f64 / (self.found + self.missed).max(1) as f64
    }
}

fn compiled(detectors: &[Builtin]) -> CompiledMasks {
    CompiledMasks::compile([&Mask {
        name: "corpus".into(),
        matches: None,
        detectors: detectors.to_vec(),
        patterns: Vec::new(),
        fields: Vec::new(),
        headers: Vec::new(),
        direction: chaperone_crds::resources::Direction::Response,
        with: MaskWith::Redact,
        restore_to: Vec::new(),
    }])
    .unwrap()
}

/// All matches in a text, by detector.
fn matches(masks: &CompiledMasks, text: &[u8]) -> Vec<(String, Range<usize>)> {
    let (mut found, mut from) = (Vec::new(), 0);
    while let Found::Match(next) = Scan::new(masks, text, from, true).next_found() {
        let end = match next.tail {
            Tail::Closed => next.end,
            tail => match tail.skip(text, next.end, true) {
                Skip::Done(end) | Skip::More(end) => end,
            },
        };
        let detector = masks.rules()[next.rule].detector.to_string();
        found.push((detector, next.start..end));
        from = end;
    }
    found
}

/// Whether two stretches share a byte.
fn touch(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start < b.end && b.start < a.end
}

fn measure(detectors: &[Builtin]) -> BTreeMap<&'static str, Score> {
    let masks = compiled(detectors);
    let mut scores: BTreeMap<&'static str, Score> = detectors
        .iter()
        .map(|d| (d.name(), Score::default()))
        .collect();
    let mut random = Random::new(SEED);
    for detector in detectors {
        for _ in 0..POSITIVES {
            let sample = carry(&value(detector.name(), &mut random), &mut random);
            let start = sample.text.find(&sample.value).unwrap();
            let wanted = start..start + sample.value.len();
            let found = matches(&masks, sample.text.as_bytes());
            let hit = |(name, range): &(String, Range<usize>)| {
                name == detector.name() && range.start <= wanted.start && wanted.end <= range.end
            };
            let score = scores.get_mut(detector.name()).unwrap();
            match found.iter().any(hit) {
                true => score.found += 1,
                false => score.missed += 1,
            }
            // A match of a part is wrong, and one elsewhere in the text; another detector's on the value is not counted twice.
            for (name, _) in found
                .iter()
                .filter(|m| !hit(m) && (!touch(&m.1, &wanted) || m.0 == detector.name()))
            {
                scores.get_mut(name.as_str()).unwrap().wrong += 1;
            }
        }
    }
    for kind in 0..negatives::KINDS {
        for _ in 0..NEGATIVES {
            let text = negatives::negative(kind, &mut random);
            for (name, range) in matches(&masks, text.as_bytes()) {
                if std::env::var_os("CORPUS_SHOW").is_some() {
                    println!("{kind} {name}: {} in {text}", &text[range]);
                }
                scores.get_mut(name.as_str()).unwrap().wrong += 1;
            }
        }
    }
    scores
}

#[test]
fn precision_and_recall_do_not_fall() {
    let known: Vec<Builtin> = Builtin::ALL
        .into_iter()
        .filter(|d| *d != Builtin::HighEntropy)
        .collect();
    let mut scores = measure(&known);
    scores.extend(measure(&[Builtin::HighEntropy]));
    let mut table =
        String::from("| detector | precision | recall | values | wrong |\n|---|---|---|---|---|\n");
    for detector in Builtin::ALL {
        let score = &scores[detector.name()];
        writeln!(
            table,
            "| `{}` | {:.3} | {:.3} | {POSITIVES} | {} |",
            detector.name(),
            score.precision(),
            score.recall(),
            score.wrong
        )
        .unwrap();
    }
    println!("{table}");
    let documented = include_str!("../../docs/detectors.md");
    for line in table.lines() {
        assert!(
            documented.contains(line),
            "docs/detectors.md has other figures than\n{table}"
        );
    }
}
