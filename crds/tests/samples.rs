//! The samples in `config/samples` and the policies in `docs/policy.md` and `docs/tls.md` are what they say: accepted as they are.

use std::{fs, path::Path};

use chaperone_crds::{
    compile::{CompiledSnapshot, compile_policy},
    documents,
    snapshot::Snapshot,
};

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

#[test]
fn every_sample_parses_and_compiles_alone_and_together() {
    let mut policies = Vec::new();
    let mut files = 0;
    for entry in fs::read_dir(root().join("config/samples")).unwrap() {
        let path = entry.unwrap().path();
        let yaml = fs::read_to_string(&path).unwrap();
        let name = path.display();
        let documents = documents::parse(&yaml).unwrap_or_else(|e| panic!("{name}: {e}"));
        for policy in documents.iter().filter_map(documents::Document::policy) {
            compile_policy(&policy).unwrap_or_else(|e| panic!("{name}: {e}"));
            policies.push(policy);
        }
        files += 1;
    }
    assert!(files >= 8, "{files} samples");
    CompiledSnapshot::compile(&Snapshot::new(policies)).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn the_yaml_of_the_policy_reference_is_accepted() {
    let pages: String = ["docs/policy.md", "docs/tls.md"]
        .map(|page| fs::read_to_string(root().join(page)).unwrap())
        .concat();
    let blocks: Vec<&str> = pages
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .filter(|block| block.starts_with("apiVersion"))
        .collect();
    assert!(blocks.len() >= 4, "{} blocks", blocks.len());
    for block in blocks {
        let documents = documents::parse(block).unwrap_or_else(|e| panic!("{e}\nin\n{block}"));
        for policy in documents.iter().filter_map(documents::Document::policy) {
            compile_policy(&policy).unwrap_or_else(|e| panic!("{e}\nin\n{block}"));
        }
    }
}

#[test]
fn the_expressions_of_the_policy_reference_are_accepted() {
    let page = fs::read_to_string(root().join("docs/policy.md")).unwrap();
    let mut count = 0;
    for block in page.split("```cel\n").skip(1) {
        let block = block.split("```").next().unwrap_or_default();
        for line in block.lines().filter(|line| !line.trim().is_empty()) {
            let quoted = serde_json::to_string(line).unwrap();
            let yaml = format!(
                "apiVersion: chaperone.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {{name: p}}\nspec: {{rules: [{{name: r, action: Deny, when: {quoted}}}]}}\n"
            );
            let documents = documents::parse(&yaml).unwrap_or_else(|e| panic!("{line}: {e}"));
            let policy = documents.first().and_then(documents::Document::policy);
            compile_policy(&policy.unwrap()).unwrap_or_else(|e| panic!("{e}"));
            count += 1;
        }
    }
    assert!(count >= 20, "{count} expressions");
}
