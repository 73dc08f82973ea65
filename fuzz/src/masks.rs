//! The masking engine.

use std::sync::{Arc, LazyLock};

use chaperone_crds::{
    compile::CompiledSnapshot,
    detect::CompiledMasks,
    snapshot::{Policy, Snapshot},
};
use chaperone_sidecar::mask::{HOLD_BACK_BYTES, Masker, mask_all};

/// Every detector, and patterns that are awkward to stream.
const SPEC: &str = r#"
masks:
  - name: everything
    detectors: [email, creditCard, usSsn, awsAccessKey, privateKey, jwt]
    patterns:
      - {name: staff, pattern: '\bEMP-\d{4,6}\b'}
      - {name: across-lines, pattern: '(?i)pass(?:word|phrase)?[:=]\s{0,4}\S{1,20}?;'}
      - {name: nested, pattern: '(?:ab|abc(?:de){0,3}f?)x?'}
"#;

pub(crate) static MASKS: LazyLock<Arc<CompiledMasks>> = LazyLock::new(|| {
    let spec = serde_saphyr::from_str(SPEC).expect("the policy is sound");
    let snapshot = Snapshot::new(vec![Policy::namespaced("team", "masks", 1, &spec)]);
    let compiled = CompiledSnapshot::compile(&snapshot).expect("the policy compiles");
    compiled
        .masks_for(None, [192, 0, 2, 1].into(), 443)
        .response
        .expect("the mask is on everything")
});

/// A text masked in pieces is the text masked whole; what is held back is bounded; and what was masked once holds nothing more to mask.
pub(crate) fn mask(bytes: &[u8]) {
    let (whole, findings) = mask_all(&MASKS, bytes);
    for size in [1, 3, 64, bytes.len() / 2] {
        let mut masker = Masker::new(Arc::clone(&MASKS));
        let mut out = Vec::new();
        for piece in bytes.chunks(size.max(1)) {
            masker.push(piece, &mut out);
            assert!(masker.held() <= HOLD_BACK_BYTES);
        }
        masker.finish(&mut out);
        assert_eq!(out, whole, "in pieces of {size}");
        assert_eq!(masker.findings(), &*findings);
    }
    assert_eq!(findings.is_empty(), whole == bytes);
}
