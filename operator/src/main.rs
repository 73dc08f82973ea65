//! `chaperone-operator`: the control path of Chaperone.

use chaperone_operator::{run::run, settings::Settings};
use clap::Parser;

// For its symbols: copies and comparisons of static builds.
use chaperone_mem as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings = Settings::parse();
    chaperone_server::logging::start(&settings.log, settings.log_format)?;
    // Fails only if a provider was installed before, and nothing ran before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    run(settings).await
}
