//! `chaperone run`: the sidecar around one command on this machine.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{ExitCode, ExitStatus},
};

use anyhow::Context;
use chaperone_crds::{
    control::{SinkConfig, SinkTarget},
    documents::{self, Document},
    grpc::DescriptorSet,
    pod::PodIdentity,
    snapshot::{Policy, Snapshot},
};
use chaperone_sidecar::{
    local::{self, LocalRun},
    memory,
};

/// Name of the sink that `--audit` makes.
const SINK: &str = "audit-file";
/// Namespace that records show for a command without a cluster.
const NAMESPACE: &str = "local";

/// Run one command on this machine under the same policies, masks and records as in a pod.
///
/// The command gets a network namespace of its own whose only way out is Chaperone. Nothing on the machine changes. Run it as root or, where the kernel allows
/// unprivileged user namespaces, as yourself. Called through sudo, the command runs as you.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  chaperone run -- claude                                     record everything, deny nothing
  chaperone run --policy policy.yaml -- claude -p 'fix it'    under the AgentPolicies of a file
  chaperone run --audit today.jsonl -- curl https://example.com
  chaperone verify today.jsonl                                prove the log

Exit status: the command's own; 125 when it could not be started under Chaperone.")]
pub(crate) struct Args {
    /// File with AgentPolicy and ClusterAgentPolicy resources, as for kubectl. All of them apply, whatever their selectors say. Without: everything is recorded, nothing denied.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Where records are appended.
    #[arg(long, value_name = "FILE", default_value = "chaperone-audit.jsonl")]
    audit: PathBuf,
    /// PEM file of roots that servers may chain to besides the Mozilla ones: your company's own.
    #[arg(long, value_name = "FILE")]
    extra_roots: Option<PathBuf>,
    /// Descriptor set of gRPC services (protoc --include_imports --descriptor_set_out, buf build), so that policies, masks and records read their messages; repeatable.
    #[arg(long, value_name = "FILE")]
    grpc_descriptors: Vec<PathBuf>,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Exit status when the command could not be started, as `env` and `timeout` use it.
const NOT_STARTED: u8 = 125;

/// Runs the command and ends as it ended.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match outcome(args) {
        Ok(status) => Ok(exit_code(status)),
        Err(error) => {
            eprintln!("chaperone: {error:#}");
            Ok(ExitCode::from(NOT_STARTED))
        }
    }
}

fn outcome(args: &Args) -> anyhow::Result<ExitStatus> {
    memory::refuse_huge_pages();
    let snapshot = snapshot(args.policy.as_deref())?;
    let extra_roots = match &args.extra_roots {
        Some(path) => {
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
        }
        None => String::new(),
    };
    let grpc_descriptors = descriptors(&args.grpc_descriptors)?;
    // Checked before anything is set up: a record that cannot be kept must not cost a run.
    let audit = audit_file(&args.audit)?;
    local::become_capable()?;
    let outcome = local::run(&LocalRun {
        snapshot,
        sinks: vec![SinkConfig {
            name: SINK.to_owned(),
            target: SinkTarget::File { path: audit },
        }],
        extra_roots,
        grpc_descriptors,
        identity: identity(&args.command),
        command: args.command.clone(),
    })?;
    for name in outcome.kept_variables {
        eprintln!(
            "chaperone: {name} was set already and stayed; clients that read it may not trust Chaperone"
        );
    }
    eprintln!(
        "chaperone: recorded in {}; prove it with: chaperone verify {0}",
        args.audit.display()
    );
    Ok(outcome.status)
}

fn descriptors(paths: &[PathBuf]) -> anyhow::Result<Vec<DescriptorSet>> {
    let pack = |path: &PathBuf| {
        let shown = path.display().to_string();
        let bytes = fs::read(path).with_context(|| format!("cannot read {shown}"))?;
        Ok(DescriptorSet::pack(&shown, &bytes)?)
    };
    paths.iter().map(pack).collect()
}

/// The policies of a file, all of them.
fn snapshot(path: Option<&Path>) -> anyhow::Result<Snapshot> {
    let Some(path) = path else {
        return Ok(Snapshot::default());
    };
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let documents =
        documents::parse(&text).with_context(|| format!("{} is not usable", path.display()))?;
    let policies: Vec<Policy> = documents.iter().filter_map(Document::policy).collect();
    anyhow::ensure!(
        !policies.is_empty(),
        "{} has no AgentPolicy or ClusterAgentPolicy",
        path.display()
    );
    let snapshot = Snapshot::new(policies);
    chaperone_crds::compile::CompiledSnapshot::compile(&snapshot)
        .map_err(|errors| anyhow::anyhow!("{} does not compile\n{errors}", path.display()))?;
    Ok(snapshot)
}

fn audit_file(path: &Path) -> anyhow::Result<String> {
    fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot write the audit file {}", path.display()))?;
    let absolute = fs::canonicalize(path)?;
    absolute
        .to_str()
        .map(str::to_owned)
        .context("the audit file's path is not UTF-8")
}

fn identity(command: &[String]) -> PodIdentity {
    let name = command.first().map(|program| {
        Path::new(program)
            .file_name()
            .map_or(program.clone(), |n| n.to_string_lossy().into_owned())
    });
    PodIdentity {
        namespace: NAMESPACE.to_owned(),
        pod: name.unwrap_or_default(),
        uid: std::process::id().to_string(),
        service_account: std::env::var("SUDO_USER")
            .or_else(|_| std::env::var("USER"))
            .unwrap_or_default(),
        node: fs::read_to_string("/proc/sys/kernel/hostname")
            .unwrap_or_default()
            .trim()
            .to_owned(),
        ..PodIdentity::default()
    }
}

/// The command's own status; 128 plus the signal where one ended it, as shells say it.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| signal.saturating_add(128)));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}
