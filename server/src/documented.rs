//! What `docs/metrics.md` says is registered, for tests of the programs that compare it with what is.

use std::collections::BTreeSet;

use prometheus::{Registry, core::Collector};

/// The page. Each of its sections has one table: name, type, labels, meaning.
const PAGE: &str = include_str!("../../docs/metrics.md");

/// A metric's name, type and label names.
type Line = (String, String, Vec<String>);

/// Panics unless the section's table names exactly these metrics, and the registry has each of them.
pub fn assert_documented(section: &str, registry: &Registry, metrics: Vec<Box<dyn Collector>>) {
    let code: BTreeSet<Line> = metrics.iter().flat_map(|metric| lines(&**metric)).collect();
    assert_eq!(table(section), code, "docs/metrics.md and the code differ");
    for metric in metrics {
        let name = metric.desc()[0].fq_name.clone();
        registry
            .unregister(metric)
            .unwrap_or_else(|error| panic!("{name} is not registered: {error}"));
    }
    assert!(registry.gather().is_empty(), "more is registered");
}

fn lines(metric: &dyn Collector) -> Vec<Line> {
    let families = metric.collect();
    let described = metric.desc().into_iter().zip(families);
    described
        .map(|(desc, family)| {
            let kind = format!("{:?}", family.get_field_type()).to_lowercase();
            (desc.fq_name.clone(), kind, desc.variable_labels.clone())
        })
        .collect()
}

fn table(section: &str) -> BTreeSet<Line> {
    let heading = format!("\n## {section}");
    let (_, after) = PAGE.split_once(&heading).expect("the page has the section");
    let end = after.find("\n## ").unwrap_or(after.len());
    let rows = after[..end]
        .lines()
        .filter(|line| line.starts_with("| `chaperone_"));
    rows.map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let labels = words_in_code(cells[3]);
        (
            words_in_code(cells[1]).concat(),
            cells[2].to_owned(),
            labels,
        )
    })
    .collect()
}

/// What stands between backticks.
fn words_in_code(cell: &str) -> Vec<String> {
    let parts = cell.split('`').skip(1).step_by(2);
    parts.map(str::to_owned).collect()
}
