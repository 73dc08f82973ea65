//! Pods whose evidence is missing.

use chaperone_ledger::gaps::{Answer, Gap};
use maud::{Markup, html};

use crate::{
    form::{Asked, Field, TIME_HINT, choice, field, text},
    frame::{Frame, Page, Place, page},
    link,
    refusal::{Notice, summary},
    sessions::short,
    text::inline,
};

/// Characters of a cell.
const CELL_CHARS: usize = 500;
/// Gaps that are shown: more are a matter for `chaperone audit gaps`.
const MOST: usize = 1000;

const FIELDS: [Field; 3] = [
    text(
        "namespace",
        "Namespace",
        "empty: all that you may see, if that is all",
    ),
    choice(
        "reason",
        "What is wrong",
        &[
            "no-sidecar",
            "no-token",
            "no-stream",
            "hole",
            "silent",
            "unclosed",
            "exempt",
        ],
    ),
    text("since", "Ended not before", TIME_HINT),
];

/// What the page shows.
#[derive(Clone, Debug)]
pub struct GapsPage<'a> {
    /// What was asked.
    pub asked: &'a Asked,
    /// The answer, or why there is none.
    pub found: Result<&'a Answer, Notice<'a>>,
}

/// The page of gaps.
#[must_use]
pub fn gaps(frame: &Frame<'_>, this: &GapsPage<'_>) -> String {
    let content = html! {
        @if let Err(why) = &this.found { (summary(why)) }
        form.question method="get" action=(link::to("gaps", &[])) role="search" aria-label="Gaps" {
            @for each in &FIELDS { (field(each, this.asked)) }
            button type="submit" { "Show" }
        }
        @if let Ok(answer) = this.found { (told(answer)) }
    };
    let this = Page {
        title: "Gaps",
        place: Place::Gaps,
        script: None,
        content,
    };
    page(frame, &this)
}

fn told(answer: &Answer) -> Markup {
    let time = |time: jiff::Timestamp| short(&time.to_string());
    let more = answer.gaps.len().saturating_sub(MOST);
    html! {
        p.lead {
            @if answer.gaps.is_empty() { "Nothing is missing, as far as is known." }
            @else if answer.is_complete() { "Nothing is wrong; what is told is exempt." }
            @else { strong.deny { "Evidence is missing." } }
        }
        p.note {
            "Of " (answer.pods) " pods that are there and those that ended since " (time(answer.ended_since)) ", at " (time(answer.at)) ". "
            @match answer.watching_since {
                Some(since) => { "The ledger has seen pods without interruption since " (time(since)) "; one that began and ended before left no trace if it wrote nothing." },
                None => strong.warn { "The ledger does not see pods now: those that it knows are judged, and others may be there." },
            }
        }
        @if !answer.gaps.is_empty() {
            div.wide role="region" aria-label="Gaps found" tabindex="0" {
                table {
                    caption { "Pods whose evidence is missing, and what to do" }
                    thead {
                        tr {
                            th scope="col" { "Pod" }
                            th scope="col" { "What is wrong" }
                            th scope="col" { "Since" }
                            th scope="col" { "Last record" }
                            th scope="col" { "The pod" }
                            th scope="col" { "More" }
                        }
                    }
                    tbody { @for gap in answer.gaps.iter().take(MOST) { (row(gap, &time)) } }
                }
            }
        }
        @let left = answer.left_out.saturating_add(u64::try_from(more).unwrap_or(u64::MAX));
        @if left > 0 { p.warn { (left) " more are not shown: ask for a namespace." } }
    }
}

fn row(gap: &Gap, time: &dyn Fn(jiff::Timestamp) -> String) -> Markup {
    let pod = format!("{}/{}", gap.namespace, gap.pod);
    let class = if gap.reason.is_wrong() {
        "deny"
    } else {
        "none"
    };
    html! {
        tr.deny[gap.reason.is_wrong()] {
            th.pod scope="row" { (inline(&pod, CELL_CHARS)) }
            td { span.verdict.(class) { (gap.reason.as_str()) } }
            td.time { (time(gap.since)) }
            td.time { @match gap.last_record { Some(at) => (time(at)), None => "none" } }
            td { @match gap.ended { Some(at) => { "gone, " span.time { (time(at)) } }, None => "there" } }
            td {
                (inline(&gap.detail, CELL_CHARS)) ". " (inline(&gap.advice, CELL_CHARS))
                @if let Some(stream) = &gap.stream { " " a href=(link::to("session", &[("id", stream), ("namespace", &gap.namespace), ("kind", "stream")])) { "Its stream" } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use chaperone_ledger::gaps::Reason;

    use super::*;

    #[test]
    fn every_reason_can_be_asked_for() {
        let words: Vec<_> = Reason::ALL.map(Reason::as_str).into();
        assert_eq!(FIELDS[1].words, words);
    }

    #[test]
    fn what_is_missing_is_told_with_what_to_do() {
        let now: jiff::Timestamp = "2026-11-29T10:00:00Z".parse().unwrap();
        let gap = Gap {
            namespace: "agents".to_owned(),
            pod: "<b>".to_owned(),
            uid: String::new(),
            node: String::new(),
            reason: Reason::Silent,
            detail: "nothing has come".to_owned(),
            advice: "look".to_owned(),
            since: now,
            ended: None,
            stream: Some("s".to_owned()),
            last_record: None,
            next_seq: None,
            missing: None,
        };
        let mut answer = Answer {
            at: now,
            watching_since: None,
            log_since: None,
            ended_since: now,
            pods: 1,
            gaps: vec![gap],
            left_out: 7,
        };
        let shown = told(&answer).into_string();
        for needle in [
            "Evidence is missing.",
            "agents/&lt;b&gt;",
            "does not see pods now",
            "nothing has come</bdi>. <bdi>look",
            "7 more are not shown",
            "id=s&amp;namespace=agents&amp;kind=stream",
        ] {
            assert!(shown.contains(needle), "{needle}: {shown}");
        }
        answer.gaps.clear();
        answer.watching_since = Some(now);
        let shown = told(&answer).into_string();
        assert!(
            shown.contains("Nothing is missing") && shown.contains("since 2026-11-29 10:00:00")
        );
    }
}
