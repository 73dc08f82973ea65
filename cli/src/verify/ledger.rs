//! A ledger's directory: what it is compared with, and the verdict for programs.

use std::{path::Path, process::ExitCode};

use anyhow::{Context, bail};
use chaperone_ledger::audit::{self, TreeHead};
use serde::Serialize;

use super::{Args, Verdict, answer, trust};

pub(super) fn run(directory: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    if args.part {
        bail!("--part is for files: a ledger has its streams from the beginning");
    }
    let verdict = audit::verify(directory, &trust(args)?).context("cannot read the ledger")?;
    answer(
        args.output,
        &verdict,
        &LedgerJson::of(&verdict),
        verdict.is_intact() && verdict.is_complete(),
    )
}

/// The verdict for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LedgerJson {
    /// Over records, tree, checkpoints and tiles together.
    intact: bool,
    /// No stream lacks records after its first one here.
    complete: bool,
    origin: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint: Option<CheckpointJson>,
    /// Sizes of the checkpoints that were kept elsewhere.
    compared_with: Vec<u64>,
    leaves: u64,
    /// Records of which only the leaf is left.
    deleted_records: u64,
    /// Records whose content is there, of those that had some.
    contents: u64,
    /// Records whose content was deleted, or that no key here opens.
    deleted_contents: u64,
    root: String,
    unsigned_records: u64,
    torn_bytes: u64,
    faults: Vec<String>,
    /// The streams alone, as of a file.
    log: Verdict,
}

#[derive(Serialize)]
pub(super) struct CheckpointJson {
    size: u64,
    root: String,
    signers: Vec<SignerJson>,
}

#[derive(Serialize)]
struct SignerJson {
    name: String,
    /// When a witness saw it, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<u64>,
}

impl LedgerJson {
    fn of(verdict: &audit::Verdict) -> Self {
        Self {
            intact: verdict.is_intact(),
            complete: verdict.is_complete(),
            origin: verdict.origin.to_string(),
            checkpoint: verdict.head.as_ref().map(CheckpointJson::of),
            compared_with: verdict.kept.clone(),
            leaves: verdict.leaves,
            deleted_records: verdict.streams.deleted(),
            contents: verdict.contents.there,
            deleted_contents: verdict.contents.gone,
            root: verdict.root.to_string(),
            unsigned_records: verdict.unsigned,
            torn_bytes: verdict.torn,
            faults: verdict.faults.iter().map(ToString::to_string).collect(),
            log: Verdict::of(&verdict.streams),
        }
    }
}

impl CheckpointJson {
    pub(super) fn of(head: &TreeHead) -> Self {
        let signers = head.signers.iter().map(|(name, time)| SignerJson {
            name: name.clone(),
            time: *time,
        });
        Self {
            size: head.size,
            root: head.root.to_string(),
            signers: signers.collect(),
        }
    }
}
