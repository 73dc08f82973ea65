//! `chaperone-ledger`: the evidence path's program.

use chaperone_ledger::store::{Config, SEGMENT_BYTES};
use chaperone_ledger_server::{
    key_file,
    run::run,
    settings::{Command, CommandLine},
    shared::{SharedSettings, import},
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
        Command::Share {
            dir,
            key_files,
            origin,
            shared,
            shared_secrets,
        } => {
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
            let (origin, keys) = key_file::read_all(&key_files, origin.as_ref())?;
            let config = Config {
                dir,
                origin,
                keys: keys.iter().map(|key| key.verifier().clone()).collect(),
                segment_bytes: SEGMENT_BYTES,
                checkpoint_seconds: 1,
            };
            let settings = SharedSettings::read(&shared, shared_secrets.as_deref())?;
            import(config, &settings, &mut |line| println!("{line}")).await
        }
        Command::Serve(settings) => {
            chaperone_server::logging::start(&settings.log, settings.log_format)?;
            // Fails only if a provider was installed before, and nothing ran before.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
            run(*settings).await
        }
    }
}
