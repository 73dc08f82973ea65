//! `chaperone policy check`: what the API server and the webhook would say of policy files.
//!
//! Owns reading files and telling the verdict. The judgement is `chaperone_crds`: the schema of the CRDs, then the compiler that the webhook calls.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use chaperone_crds::{
    compile::{PolicyError, compile_policy},
    documents::{self, Document, DocumentError, MAX_FILE_BYTES},
    filter::Filter,
};
use serde::Serialize;

use crate::output::{ColorChoice, Format, NO, Painted, Style, clean};

/// Work with policy files.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  chaperone policy check policies.yaml")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Check(CheckArgs),
}

/// Say what the API server and Chaperone's webhook would say of policy files, without a cluster.
///
/// Every error is told at once, each with its place, a caret and how to mend it. Files hold AgentPolicies, ClusterAgentPolicies and AuditSinks, with --- between them.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  chaperone policy check policies.yaml
  chaperone policy check policies/*.yaml            in a pipeline, before kubectl apply
  kubectl get agentpolicy coding -n agents -o yaml | chaperone policy check -

Exit status: 0 accepted, 1 refused, 2 unreadable.")]
struct CheckArgs {
    /// YAML files; - is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How the verdict is written.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// When to use colours.
    #[arg(long, value_enum, default_value_t)]
    color: ColorChoice,
}

/// Runs the subcommand.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let Command::Check(args) = &args.command;
    let verdicts = args
        .files
        .iter()
        .map(|path| {
            let text = read(path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok(judge(&path.display().to_string(), &text))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let accepted = verdicts.iter().all(|v| v.accepted);
    let mut out = io::stdout().lock();
    match args.output {
        Format::Text => write_text(&mut out, &verdicts, args.color.for_stdout())?,
        Format::Json => {
            let report = Report {
                accepted,
                files: &verdicts,
            };
            serde_json::to_writer_pretty(&mut out, &report).map_err(io::Error::from)?;
            writeln!(out)?;
        }
    }
    Ok(if accepted {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(NO)
    })
}

/// The text of a file, up to one byte more than a file may have: the parser says that it is too large.
fn read(path: &Path) -> io::Result<String> {
    let limit = u64::try_from(MAX_FILE_BYTES).map_or(u64::MAX, |limit| limit.saturating_add(1));
    let mut text = String::new();
    if path.as_os_str() == "-" {
        io::stdin().lock().take(limit).read_to_string(&mut text)?;
    } else {
        File::open(path)?.take(limit).read_to_string(&mut text)?;
    }
    Ok(text)
}

#[derive(Serialize)]
struct Report<'a> {
    accepted: bool,
    files: &'a [Verdict],
}

/// What is to be said of one file.
#[derive(Serialize, Debug)]
struct Verdict {
    file: String,
    accepted: bool,
    /// Kind and name of each document that was read.
    documents: Vec<String>,
    errors: Vec<Mistake>,
}

/// One error.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
struct Mistake {
    /// The whole error as text, with the line that it is about and a caret.
    text: String,
    message: String,
    /// The policy and its rule or mask, where the error is in an expression, a pattern or a host.
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    /// The field, such as `spec.rules[0].action`, or `when` of the rule.
    field: String,
    /// Line and column in the file, or in the field's text where `policy` is given.
    line: u64,
    column: u64,
}

impl From<&DocumentError> for Mistake {
    fn from(error: &DocumentError) -> Self {
        Self {
            text: error.to_string(),
            message: error.message.clone(),
            policy: None,
            rule: None,
            field: error.path.clone(),
            line: error.line,
            column: error.column,
        }
    }
}

impl From<&PolicyError> for Mistake {
    fn from(error: &PolicyError) -> Self {
        Self {
            text: error.to_string(),
            message: error.message.clone(),
            policy: Some(error.policy.to_string()),
            rule: error.rule.clone(),
            field: error.field.clone(),
            line: error.line.into(),
            column: error.column.into(),
        }
    }
}

/// What is wrong with a sink's filter. The text has the places.
fn filter_mistake(document: &Document) -> Option<Mistake> {
    let Document::AuditSink(sink) = document else {
        return None;
    };
    let errors = Filter::compile(sink.spec.filter.as_deref()?).err()?;
    Some(Mistake {
        text: format!("{}, {errors}", document.title()),
        message: errors.to_string(),
        policy: None,
        rule: None,
        field: "spec.filter".to_owned(),
        line: 0,
        column: 0,
    })
}

/// The verdict on the text of a file: a pure function.
fn judge(file: &str, text: &str) -> Verdict {
    let (documents, errors): (Vec<Document>, Vec<Mistake>) = match documents::parse(text) {
        Ok(documents) => {
            let errors = documents
                .iter()
                .filter_map(Document::policy)
                .filter_map(|policy| compile_policy(&policy).err())
                .flat_map(|errors| errors.0.iter().map(Mistake::from).collect::<Vec<_>>())
                .chain(documents.iter().filter_map(filter_mistake))
                .collect();
            (documents, errors)
        }
        Err(errors) => (Vec::new(), errors.0.iter().map(Mistake::from).collect()),
    };
    Verdict {
        file: file.to_owned(),
        accepted: errors.is_empty(),
        documents: documents.iter().map(Document::title).collect(),
        errors,
    }
}

fn write_text(out: &mut impl Write, verdicts: &[Verdict], color: bool) -> io::Result<()> {
    for verdict in verdicts {
        let (text, style) = if verdict.accepted {
            ("accepted", Style::Green)
        } else {
            ("REFUSED", Style::BoldRed)
        };
        let word = Painted {
            text,
            style,
            on: color,
        };
        write!(out, "{}: {word}", clean(&verdict.file))?;
        if verdict.accepted {
            writeln!(out, ": {}", clean(&verdict.documents.join(", ")))?;
        } else {
            writeln!(out)?;
        }
        for error in &verdict.errors {
            writeln!(out)?;
            for line in error.text.lines() {
                // Tabs stay: the caret below counts on them.
                let cleaned: Vec<_> = line.split('\t').map(clean).collect();
                writeln!(out, "{}", cleaned.join("\t"))?;
            }
        }
        if !verdict.errors.is_empty() {
            writeln!(out)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: chaperone.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {name: coding, namespace: agents}\n";

    fn policy(spec: &str) -> String {
        format!("{HEAD}{spec}")
    }

    fn text(verdict: Verdict) -> String {
        let mut out = Vec::new();
        write_text(&mut out, &[verdict], false).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_good_file_is_accepted_with_what_is_in_it() {
        let rule = "spec:\n  rules:\n  - {name: no-delete, when: 'http.method == \"DELETE\"', action: Deny}\n";
        let sink = "---\napiVersion: chaperone.dev/v1alpha1\nkind: AuditSink\nmetadata: {name: out}\nspec: {stdout: {}}\n";
        let verdict = judge("p.yaml", &(policy(rule) + sink));
        assert_eq!(
            text(verdict),
            "p.yaml: accepted: AgentPolicy agents/coding, AuditSink out\n"
        );
    }

    #[test]
    fn a_wrong_filter_of_a_sink_is_told_with_a_caret() {
        let sink = "apiVersion: chaperone.dev/v1alpha1\nkind: AuditSink\nmetadata: {name: out}\nspec: {stdout: {}, filter: 'record.knd == \"dns\"'}\n";
        let text = text(judge("s.yaml", sink));
        assert!(
            text.contains("AuditSink out, spec.filter, line 1, column 8: unknown field")
                && text.contains("\n         ^"),
            "{text}"
        );
    }

    #[test]
    fn every_error_of_every_rule_is_told_with_a_caret() {
        let rules = "spec:\n  rules:\n  - {name: one, when: 'http.metod == \"DELETE\"', action: Deny}\n  - {name: two, when: '1 + 1', action: Deny}\n";
        let verdict = judge("p.yaml", &policy(rules));
        assert!(!verdict.accepted);
        let rules: Vec<_> = verdict.errors.iter().map(|e| e.rule.as_deref()).collect();
        assert_eq!(rules, [Some("one"), Some("two")]);
        let text = text(verdict);
        assert!(
            text.starts_with(
                "p.yaml: REFUSED\n\npolicy agents/coding, rule \"one\", when, line 1,"
            ),
            "{text}"
        );
        assert!(text.contains("^\n"), "{text}");
    }

    #[test]
    fn what_the_schema_refuses_is_placed_in_the_file() {
        let verdict = judge("p.yaml", &policy("spec: {mode: Enforced, ruls: []}\n"));
        assert!(verdict.errors.len() >= 2, "{verdict:?}");
        assert!(verdict.errors.iter().all(|e| e.line == 4), "{verdict:?}");
    }

    #[test]
    fn a_file_cannot_write_to_the_terminal() {
        let verdict = judge("p.yaml", &policy("spec: {\"\\e[2J\": 1}\n"));
        assert!(!verdict.accepted);
        let text = text(verdict);
        assert!(!text.contains('\x1b'), "{text:?}");
    }
}
