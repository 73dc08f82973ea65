//! Every seed and every former finding holds to its target, on stable Rust.

use std::{fs, path::Path};

use chaperone_fuzz::TARGETS;

#[test]
fn every_target_holds_for_its_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, run) in TARGETS {
        let seeds = fs::read_dir(corpus.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut count = 0;
        for seed in seeds {
            let path = seed.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            if let Err(panic) = std::panic::catch_unwind(|| run(&bytes)) {
                eprintln!("{} is a finding", path.display());
                std::panic::resume_unwind(panic);
            }
            count += 1;
        }
        assert!(count > 0, "{name} has no seed");
    }
}

#[test]
fn every_target_holds_for_short_inputs() {
    for (name, run) in TARGETS
        .iter()
        .filter(|(name, _)| !["spool", "connection", "upgrade", "ledger_segment"].contains(name))
    {
        for byte in 0..=u8::MAX {
            for input in [&[][..], &[byte], &[byte, b'\n'], &[byte; 5]] {
                let held = std::panic::catch_unwind(|| run(input));
                assert!(held.is_ok(), "{name} on {input:?}");
            }
        }
    }
}
