//! How the process asks the kernel for memory.
//!
//! mimalloc asks for huge pages where the system offers them on request (`madvise`, the default of most distributions). They cost a sidecar more than they give: each thread's first
//! small allocation takes 2 MiB, and connections that come and go leave none of these pages empty.

use nix::sys::prctl;

/// From now on no huge page is taken, by this process or by what it starts. A kernel that refuses is left as it is: this saves memory and nothing else.
pub fn refuse_huge_pages() {
    let _ = prctl::set_thp_disable(true);
}

/// Runs `start` as if nothing had been refused: what it starts inherits the setting, and an agent's own use of huge pages is its own affair.
pub(crate) fn with_huge_pages<T>(start: impl FnOnce() -> T) -> T {
    let refused = prctl::get_thp_disable().unwrap_or(false);
    let _ = prctl::set_thp_disable(false);
    let started = start();
    let _ = prctl::set_thp_disable(refused);
    started
}
