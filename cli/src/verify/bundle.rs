//! An evidence bundle, and the verdict for programs.

use std::{path::Path, process::ExitCode};

use anyhow::{Context, bail};
use chaperone_crds::pod::PodIdentity;
use chaperone_ledger::bundle;
use serde::Serialize;

use super::{Args, answer, ledger::CheckpointJson, read_keys};

pub(super) fn run(directory: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    if args.part {
        bail!("--part is for files: a bundle says itself where it begins");
    }
    if !args.checkpoints.is_empty() {
        bail!(
            "--checkpoint is for a ledger: a bundle has the tiles of its own records only, and cannot show what came before its checkpoint"
        );
    }
    let keys = read_keys(&args.keys)?;
    let verdict = bundle::verify(directory, &keys).context("cannot read the bundle")?;
    answer(
        args.output,
        &verdict,
        &BundleJson::of(&verdict),
        verdict.is_intact(),
    )
}

/// The verdict for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BundleJson {
    intact: bool,
    origin: String,
    subject: bundle::Subject,
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint: Option<CheckpointJson>,
    records: u64,
    streams: Vec<ShownJson>,
    /// Whose the streams are, by the ledger's own word.
    whose: Vec<WhoseJson>,
    /// Policies that took effect.
    policies: Vec<PoliciesJson>,
    /// The first hundred.
    faults: Vec<String>,
    fault_count: u64,
}

#[derive(Serialize)]
struct WhoseJson {
    stream: String,
    workload: PodIdentity,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PoliciesJson {
    revision: String,
    policies: Vec<String>,
    /// Their text is in the record, and is that of the revision.
    has_text: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownJson {
    stream: String,
    first_seq: u64,
    last_seq: u64,
    records: u64,
    /// Records about something else.
    context: u64,
    /// Records of which there is the hash alone.
    withheld: u64,
    /// Records, of those that are shown, whose texts of bodies were deleted.
    deleted_content: u64,
}

impl BundleJson {
    fn of(verdict: &bundle::Verdict) -> Self {
        let streams = verdict.streams.iter().map(|(stream, shown)| ShownJson {
            stream: stream.to_string(),
            first_seq: shown.first,
            last_seq: shown.last,
            records: shown.records,
            context: shown.context,
            withheld: shown.withheld,
            deleted_content: shown.deleted_content,
        });
        let whose = verdict.whose.iter().map(|whose| WhoseJson {
            stream: whose.stream.clone(),
            workload: whose.workload.clone(),
        });
        let policies = verdict.policies.iter().map(|policies| PoliciesJson {
            revision: policies.revision.clone(),
            policies: policies.policies.clone(),
            has_text: policies.has_text,
        });
        Self {
            intact: verdict.is_intact(),
            origin: verdict.origin.to_string(),
            subject: verdict.subject.clone(),
            checkpoint: verdict.head.as_ref().map(CheckpointJson::of),
            records: verdict.records(),
            streams: streams.collect(),
            whose: whose.collect(),
            policies: policies.collect(),
            faults: verdict.faults.iter().map(ToString::to_string).collect(),
            fault_count: verdict.fault_count,
        }
    }
}
