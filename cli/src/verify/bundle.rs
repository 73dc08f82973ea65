//! An evidence bundle, and the verdict for programs.

use std::{path::Path, process::ExitCode};

use anyhow::{Context, bail};
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
    /// The first hundred.
    faults: Vec<String>,
    fault_count: u64,
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
        });
        Self {
            intact: verdict.is_intact(),
            origin: verdict.origin.to_string(),
            subject: verdict.subject.clone(),
            checkpoint: verdict.head.as_ref().map(CheckpointJson::of),
            records: verdict.records(),
            streams: streams.collect(),
            faults: verdict.faults.iter().map(ToString::to_string).collect(),
            fault_count: verdict.fault_count,
        }
    }
}
