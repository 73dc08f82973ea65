//! The sidecar's program: what the webhook injects.

use chaperone_sidecar::{memory, settings::Settings, sidecar};
use tracing_subscriber::EnvFilter;

// For its symbols: copies and comparisons of static builds.
use chaperone_mem as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    memory::refuse_huge_pages();
    // Standard output carries audit records.
    let filter =
        EnvFilter::try_from_env("CHAPERONE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .json()
        .with_writer(std::io::stderr)
        .with_env_filter(filter)
        .init();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    provider
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider is installed already"))?;
    let settings = Settings::from_environment()?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(sidecar::run(settings))
}
