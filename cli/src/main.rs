//! The command line of Chaperone: `chaperone`, and `kubectl-chaperone` for `kubectl chaperone`.
//!
//! Owns arguments and exit codes; each subcommand is a module. Invariant: 0 means yes, 1 means the answer is no (a broken log, a refused policy,
//! a cluster with something wrong), 2 means that there is no answer (usage, unreadable input, unreachable cluster). `run` ends as its command ends.

mod audit;
mod check;
mod cluster;
mod export;
mod hold;
mod observe;
mod output;
mod policy;
mod replay;
mod run;
mod search;
mod sink;
mod source;
mod verify;

use std::{
    ffi::{OsStr, OsString},
    io,
    path::Path,
    process::ExitCode,
};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use mimalloc::MiMalloc;

// For its symbols: copies and comparisons of static builds.
use chaperone_mem as _;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// File name under which kubectl finds the binary as its plugin.
const PLUGIN: &str = "kubectl-chaperone";

const EXAMPLES: &str = "\
Examples:
  chaperone check                           is the cluster in order, and if not, what mends it
  chaperone observe -n agents               watch what the agents of a namespace do
  chaperone observe --decision deny         only what was refused
  chaperone policy check policies.yaml      what the cluster would say of a policy
  chaperone run -- claude                   one command on this machine, without a cluster
  chaperone search --dir ledger 'pull request'  find records of a ledger
  chaperone replay --dir ledger 7f3c1a9e-…      what one session did, turn by turn
  chaperone audit gaps --dir ledger         which pods leave no evidence, or not all of it
  chaperone sink test siem --as audit/tester  does a sink take records, and if not, why
  chaperone hold add case-42 -n agents --reason …  keep evidence from being deleted
  chaperone verify audit.jsonl              prove that no record was changed, removed or moved

Exit status: 0 yes, 1 no, 2 no answer (usage, unreadable input, unreachable cluster).
`chaperone run` ends as its command ends.";

/// A checkpoint beside every agent: watch it, check it, prove its records.
#[derive(Parser)]
#[command(name = "chaperone", version, after_help = EXAMPLES, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Audit(Box<audit::Args>),
    Check(check::Args),
    Erase(hold::Erase),
    Export(export::Args),
    Hold(hold::Args),
    Observe(observe::Args),
    Policy(policy::Args),
    Replay(replay::Args),
    Run(run::Args),
    Search(Box<search::Args>),
    Sink(sink::Args),
    Verify(verify::Args),
    Completions(Completions),
}

/// Print a completion script for your shell.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  source <(chaperone completions bash)
  chaperone completions zsh > \"${fpath[1]}/_chaperone\"
  chaperone completions fish > ~/.config/fish/completions/chaperone.fish")]
struct Completions {
    /// The shell.
    shell: clap_complete::Shell,
}

fn main() -> ExitCode {
    let cli = parse(std::env::args_os().collect());
    let answer = match cli.command {
        Command::Audit(args) => audit::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Erase(args) => hold::erase(args),
        Command::Export(args) => export::run(&args),
        Command::Hold(args) => hold::run(args),
        Command::Observe(args) => observe::run(&args),
        Command::Policy(args) => policy::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Search(args) => search::run(&args),
        Command::Sink(args) => sink::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Completions(args) => completions(args.shell),
    };
    match answer {
        Ok(code) => code,
        // The reader of a pipe has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(output::NO_ANSWER)
        }
    }
}

/// Arguments as clap reads them. Usage errors, `--help` and `--version` end the process here.
fn parse(arguments: Vec<OsString>) -> Cli {
    let as_plugin = arguments.first().is_some_and(|name| is_plugin(name));
    let matches = command(as_plugin).get_matches_from(arguments);
    Cli::from_arg_matches(&matches).unwrap_or_else(|e| e.exit())
}

/// The command, named as the user called it: usage lines can then be copied.
fn command(as_plugin: bool) -> clap::Command {
    if as_plugin {
        let examples = EXAMPLES.replace("  chaperone ", "  kubectl chaperone ");
        Cli::command()
            .bin_name("kubectl chaperone")
            .after_help(examples)
    } else {
        Cli::command()
    }
}

fn is_plugin(argv0: &OsStr) -> bool {
    Path::new(argv0)
        .file_stem()
        .is_some_and(|name| name == PLUGIN)
}

fn completions(shell: clap_complete::Shell) -> anyhow::Result<ExitCode> {
    // Written at once: the generator panics on a writer that fails.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "chaperone", &mut script);
    io::Write::write_all(&mut io::stdout().lock(), &script)?;
    Ok(ExitCode::SUCCESS)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_well_formed() {
        command(false).debug_assert();
        command(true).debug_assert();
    }

    #[test]
    fn kubectl_finds_its_plugin_by_the_file_name() {
        assert!(is_plugin(OsStr::new("/usr/local/bin/kubectl-chaperone")));
        assert!(is_plugin(OsStr::new("kubectl-chaperone.exe")));
        assert!(!is_plugin(OsStr::new("/usr/bin/chaperone")));
    }

    #[test]
    fn usage_names_the_command_as_it_was_called() {
        let help = command(true).render_help().to_string();
        assert!(help.contains("Usage: kubectl chaperone"), "{help}");
        assert!(help.contains("  kubectl chaperone observe"), "{help}");
    }

    #[test]
    fn every_subcommand_teaches_by_example() {
        for sub in Cli::command().get_subcommands() {
            let help = sub.clone().render_help().to_string();
            assert!(help.contains("Examples:"), "{}", sub.get_name());
        }
    }
}
