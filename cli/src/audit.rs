//! `chaperone audit`: what an auditor asks of the evidence as a whole.

mod gaps;

use std::process::ExitCode;

/// Ask whether evidence is missing.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  chaperone audit gaps --as audit/auditor -A            of the ledger in the cluster, as this service account
  chaperone audit gaps --dir copy-of-ledger -n agents")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Gaps(gaps::Args),
}

/// Runs the subcommand.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Gaps(args) => gaps::run(args),
    }
}
