//! How an index that the ledger makes takes documents.
//!
//! Invariant: no record is refused for a name or a value that an agent chose. Parts whose names agents choose are kept and not indexed, texts are no dates, and a value that does not fit its field is left out of that field alone.

use chaperone_crds::resources::Format;
use serde_json::{Value, json};

/// Longest text that is found by its whole value, in characters: four bytes each are less than what an index can hold of one.
const LONGEST_KEYWORD: u32 = 1024;

/// Body of the request that makes the index.
pub(super) fn index(format: Format) -> Value {
    let unread = || json!({"type": "object", "enabled": false});
    let whole = || json!({"type": "keyword", "index": false, "doc_values": false});
    let properties = match format {
        Format::Native => json!({
            "time": {"type": "date"},
            "http": {"properties": {"requestHeaders": unread(), "responseHeaders": unread()}},
            "read": {"properties": {"query": unread()}}
        }),
        Format::CloudEvents => json!({"time": {"type": "date"}, "data": unread()}),
        Format::Ocsf => {
            json!({"time": {"type": "date", "format": "epoch_millis"}, "raw_data": whole()})
        }
        Format::Ecs => json!({"@timestamp": {"type": "date"}, "chaperone": unread()}),
    };
    let texts = json!({"match_mapping_type": "string", "mapping": {"type": "keyword", "ignore_above": LONGEST_KEYWORD}});
    json!({
        "settings": {"index.mapping.ignore_malformed": true},
        "mappings": {"date_detection": false, "dynamic_templates": [{"texts": texts}], "properties": properties}
    })
}
