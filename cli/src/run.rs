//! `chaperone run`: the sidecar around one command on this machine.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{ExitCode, ExitStatus},
};

use anyhow::{Context, bail};
use chaperone_crds::{
    control::{CertificateUse, ClientCertificate, Credential, SinkConfig, SinkTarget},
    documents::{self, Document},
    grpc::DescriptorSet,
    hosts::HostPattern,
    pod::PodIdentity,
    resources::{Commit, Format},
    snapshot::{Policy, Snapshot},
};
use chaperone_sidecar::{
    local::{self, LocalRun},
    memory,
    tls::check_client_certificate,
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
    /// Client certificate that servers are shown in the command's place: a host (api.example.com, *.example.com) and PEM files of the certificate (with what it chains through) and its key.
    #[arg(long, value_name = "HOST=CERT,KEY", value_parser = Pair::parse)]
    client_certificate: Vec<Pair>,
    /// Client certificate in the place of a Secret that policies name under tls.upstreams.
    #[arg(long, value_name = "NAME=CERT,KEY", value_parser = Pair::parse)]
    client_certificate_secret: Vec<Pair>,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// What a client certificate is for, and its files.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pair {
    subject: String,
    certificate: PathBuf,
    key: PathBuf,
}

impl Pair {
    fn parse(text: &str) -> Result<Self, String> {
        let parts = text
            .split_once('=')
            .and_then(|(subject, files)| Some((subject, files.split_once(',')?)));
        match parts {
            Some((subject, (certificate, key)))
                if [subject, certificate, key]
                    .iter()
                    .all(|part| !part.is_empty()) =>
            {
                Ok(Self {
                    subject: subject.to_owned(),
                    certificate: certificate.into(),
                    key: key.into(),
                })
            }
            _ => Err("write WHAT=CERT,KEY with two files".to_owned()),
        }
    }

    /// Reads the files. A certificate that cannot be presented is told before anything is set up.
    fn read(&self) -> anyhow::Result<Credential> {
        let read = |path: &Path| {
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
        };
        let (chain, key) = (read(&self.certificate)?, read(&self.key)?);
        check_client_certificate(&chain, &key).map_err(|why| {
            anyhow::anyhow!(
                "the client certificate for {} cannot be presented: {why}",
                self.subject
            )
        })?;
        Ok(Credential::Usable { chain, key })
    }
}

/// All client certificates of a run. A Secret that a policy names must be among them.
fn client_certificates(args: &Args, snapshot: &Snapshot) -> anyhow::Result<Vec<ClientCertificate>> {
    let mut certificates = Vec::new();
    for pair in &args.client_certificate {
        let pattern = HostPattern::parse(&pair.subject)
            .map_err(|error| anyhow::anyhow!("--client-certificate {}: {error}", pair.subject))?;
        anyhow::ensure!(
            !pattern.is_everything(),
            "--client-certificate {} would present the certificate to every server that asks; name the servers",
            pair.subject
        );
        certificates.push(ClientCertificate {
            use_for: CertificateUse::Host(pair.subject.clone()),
            credential: pair.read()?,
        });
    }
    let named = snapshot.client_certificates();
    for pair in &args.client_certificate_secret {
        anyhow::ensure!(
            named
                .iter()
                .any(|reference| reference.secret == pair.subject),
            "--client-certificate-secret {}: no policy names this Secret under tls.upstreams",
            pair.subject
        );
    }
    for reference in named {
        let mut given = args.client_certificate_secret.iter();
        let pair = given
            .find(|pair| pair.subject == reference.secret)
            .with_context(|| {
                format!("a policy asks for the client certificate of Secret {0}; add --client-certificate-secret {0}=CERT,KEY", reference.secret)
            })?;
        certificates.push(ClientCertificate {
            credential: pair.read()?,
            use_for: CertificateUse::Policies(reference),
        });
    }
    Ok(certificates)
}

/// A command on this machine has no ledger, and without one nothing would leave.
fn refuse_ledger(snapshot: &Snapshot) -> anyhow::Result<()> {
    let mut policies = snapshot.policies().iter();
    let asks = |policy: &&Policy| {
        let audit = policy.audit.as_ref();
        audit.is_some_and(|audit| audit.commit == Commit::Ledger)
    };
    match policies.find(asks) {
        Some(policy) => bail!(
            "policy {} asks for audit.commit: Ledger, and there is no ledger here; ask for Disk",
            policy.reference
        ),
        None => Ok(()),
    }
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
    refuse_ledger(&snapshot)?;
    let extra_roots = match &args.extra_roots {
        Some(path) => {
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
        }
        None => String::new(),
    };
    let grpc_descriptors = descriptors(&args.grpc_descriptors)?;
    let client_certificates = client_certificates(args, &snapshot)?;
    // Checked before anything is set up: a record that cannot be kept must not cost a run.
    let audit = audit_file(&args.audit)?;
    local::become_capable()?;
    let outcome = local::run(&LocalRun {
        snapshot,
        sinks: vec![SinkConfig {
            name: SINK.to_owned(),
            target: SinkTarget::File { path: audit },
            format: Format::Native,
            filter: None,
        }],
        extra_roots,
        grpc_descriptors,
        client_certificates,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_asks_for_a_ledger_is_refused_by_name() {
        let spec = |commit| {
            serde_json::from_value(
                serde_json::json!({"mode": "Audit", "audit": {"commit": commit}}),
            )
            .unwrap()
        };
        let snapshot = |commit| {
            let policy = Policy::namespaced("agents", "strict", 1, &spec(commit));
            Snapshot::new(vec![policy])
        };
        refuse_ledger(&snapshot("Disk")).unwrap();
        let error = refuse_ledger(&snapshot("Ledger")).unwrap_err().to_string();
        assert!(error.starts_with("policy agents/strict asks"), "{error}");
    }

    #[test]
    fn a_certificate_is_for_something_and_has_two_files() {
        let pair = Pair::parse("*.example.com=c=1.pem,/k,ey.pem").unwrap();
        assert_eq!(pair.subject, "*.example.com");
        assert_eq!(pair.certificate, PathBuf::from("c=1.pem"));
        assert_eq!(pair.key, PathBuf::from("/k,ey.pem"));
        for text in ["", "a", "a=", "a=c", "a=,k", "a=c,", "=c,k"] {
            assert!(Pair::parse(text).is_err(), "{text}");
        }
    }
}
