//! One program for all targets: `FUZZ_TARGET` names the one that it runs. So everything is built and linked once.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names the target");
    chaperone_fuzz::target(&name).expect("FUZZ_TARGET is one of chaperone_fuzz::TARGETS")
});

fuzz_target!(|bytes: &[u8]| TARGET(bytes));
