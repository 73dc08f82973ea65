//! `chaperone-ledger`: the evidence path's program.

use chaperone_ledger_server::{
    key_file,
    run::run,
    settings::{Command, CommandLine},
};
use clap::Parser;

// For its symbols: copies and comparisons of static builds.
use chaperone_mem as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match CommandLine::parse().command {
        Command::GenerateKey { origin, out } => {
            println!("{}", key_file::generate(&out, &origin)?);
            Ok(())
        }
        Command::Serve(settings) => {
            chaperone_server::logging::start(&settings.log, settings.log_format)?;
            // Fails only if a provider was installed before, and nothing ran before.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
            run(*settings).await
        }
    }
}
