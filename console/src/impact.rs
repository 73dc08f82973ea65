//! What a candidate policy would have done with past operations.

use std::collections::BTreeMap;

use chaperone_crds::{
    impact::Impact,
    record::Record,
    summary::{clock, decided_by},
};
use maud::{Markup, html};

use crate::{
    Extent, Shown,
    entry::{verdict_mark, what},
    form::{Asked, Field, TIME_HINT, field, text},
    frame::{Frame, Page, Place, page},
    link,
    refusal::{Notice, summary},
    text::{block, inline},
};

/// Characters of a cell, and of what is wrong with a policy.
const CELL_CHARS: usize = 300;
const PROBLEM_CHARS: usize = 16 * 1024;
/// Operations that are shown; all are counted.
const MOST: usize = 200;

const FIELDS: [Field; 5] = [
    text("namespace", "Namespace", "whose past operations"),
    text("since", "Not before", TIME_HINT),
    text("until", "Before", TIME_HINT),
    text("host", "Host", "only to this name or address"),
    text("limit", "Records", "the newest so many, 1000 at most"),
];

/// What came of judging.
#[derive(Clone, Debug, Default)]
pub struct Judged<'a> {
    /// Operations that come out otherwise, each with what would have been.
    pub changed: Vec<(Shown<'a>, &'a Impact)>,
    /// Operations that come out the same.
    pub same: u64,
    /// Denied by what is built in.
    pub built_in: u64,
    /// Of pods that the policy does not select.
    pub not_selected: u64,
    /// What is not known, by why.
    pub unknown: BTreeMap<&'a str, u64>,
    /// Whether time ran out before all were judged.
    pub is_cut: bool,
}

/// What the page shows.
#[derive(Clone, Debug)]
pub struct ImpactPage<'a> {
    /// What was asked, the policy's text (`policy`) included.
    pub asked: &'a Asked,
    /// What is wrong with the policy: lines of text.
    pub problems: Option<&'a str>,
    /// What came of it, or why nothing did; None before anything is asked.
    pub found: Option<Result<(&'a Judged<'a>, &'a Extent), Notice<'a>>>,
}

/// The page of a candidate policy.
#[must_use]
pub fn impact(frame: &Frame<'_>, this: &ImpactPage<'_>) -> String {
    let policy = this.asked.get("policy").map_or("", String::as_str);
    let content = html! {
        @if let Some(Err(why)) = &this.found { (summary(why)) }
        @if let Some(problems) = this.problems {
            section.problem role="alert" aria-labelledby="problem" {
                h2 #problem { "The policy is refused" }
                (block(problems, PROBLEM_CHARS))
            }
        }
        p { "With this candidate, which past operations would have been denied? Nothing is changed in the cluster." }
        form method="post" action=(link::to("impact", &[])) aria-label="Candidate policy" {
            div.field {
                label for="policy" { "Candidate policy (YAML)" }
                p.hint #policy-hint { "One AgentPolicy or ClusterAgentPolicy, some 10 KiB at most" }
                textarea #policy name="policy" rows="14" spellcheck="false" required aria-describedby="policy-hint" { (policy) }
            }
            div.question { @for each in &FIELDS { (field(each, this.asked)) } button type="submit" { "Judge" } }
        }
        @if let Some(Ok((judged, far))) = this.found { (told(judged, far)) }
    };
    let this = Page {
        title: "Policy impact",
        place: Place::Impact,
        script: None,
        content,
    };
    page(frame, &this)
}

fn told(judged: &Judged<'_>, far: &Extent) -> Markup {
    let count = |is: fn(&Impact) -> bool| judged.changed.iter().filter(|(_, i)| is(i)).count();
    let by_rule = count(|impact| matches!(impact, Impact::Denied { rule: Some(_), .. }));
    let by_default = count(|impact| matches!(impact, Impact::Denied { rule: None, .. }));
    let lifted = count(|impact| matches!(impact, Impact::Lifted));
    let unknown: u64 = judged.unknown.values().sum();
    let more = judged.changed.len().saturating_sub(MOST);
    html! {
        h2 { "What it would have done" }
        dl.facts {
            div { dt { "Would have been denied by a rule" } dd { strong { (by_rule) } } }
            div { dt { "Would have been denied by default" } dd { strong { (by_default) } } }
            div { dt { "Denied then, and not by it" } dd { (lifted) } }
            div { dt { "The same" } dd { (judged.same) } }
            div { dt { "Denied by what is built in" } dd { (judged.built_in) } }
            div { dt { "Of pods that it does not select" } dd { (judged.not_selected) } }
            div { dt { "Not known" } dd { (unknown) } }
        }
        p.note {
            "Among the first " (far.indexed) " records of " (far.committed) ". The candidate is asked alone, as if it were enforced. What a rule of it denies is denied whatever else is in force; what it denies by default, an Allow of another policy may let pass. "
            "What it would mask, and messages of WebSocket and gRPC, are not judged; namespace labels are not known, so that a namespaceSelector counts as fulfilled."
        }
        @if judged.is_cut { p.warn { "Time ran out before all were judged: ask for less." } }
        @if far.cursor.is_some() { p.warn { "There are more records than were looked at: the newest were judged." } }
        @if !judged.unknown.is_empty() {
            h3 { "Not known, and why" }
            ul { @for (why, count) in &judged.unknown { li { (count) ": " (why) } } }
        }
        @if !judged.changed.is_empty() {
            div.wide role="region" aria-label="Operations that come out otherwise" tabindex="0" {
                table {
                    caption { "Operations that come out otherwise" }
                    thead { tr { th scope="col" { "Time" } th scope="col" { "Was" } th scope="col" { "What" } th scope="col" { "Decided then by" } th scope="col" { "Would be" } } }
                    tbody { @for (shown, impact) in judged.changed.iter().take(MOST) { (row(shown, impact)) } }
                }
            }
        }
        @if more > 0 { p.note { (more) " more are counted and not shown." } }
    }
}

fn row(shown: &Shown<'_>, impact: &Impact) -> Markup {
    let Ok(record) = Record::read(shown.line) else {
        return html! {};
    };
    let href = link::record(shown.stream, shown.seq, shown.namespace);
    html! {
        tr {
            td.time { (inline(record.time.get(..10).unwrap_or_default(), 10)) " " (inline(clock(&record.time), 20)) }
            td { (verdict_mark(&record)) }
            th.what scope="row" { a href=(href) { (inline(&what(&record), CELL_CHARS)) } }
            td { (inline(&decided_by(&record.event), CELL_CHARS)) }
            td {
                @match impact {
                    Impact::Denied { rule: Some(rule), .. } => { span.verdict.deny { "denied" } " by rule " (inline(rule, CELL_CHARS)) },
                    Impact::Denied { rule: None, reason } => { span.verdict.deny { "denied" } ": " (reason) },
                    Impact::Lifted => span.verdict.allow { "allowed" },
                    _ => {}
                }
            }
        }
    }
}
