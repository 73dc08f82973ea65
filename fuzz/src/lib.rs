//! What every parser holds to on any bytes.
//!
//! Each target is a function that takes bytes and panics where a property does not hold. `make fuzz` lets libFuzzer look for such bytes (`engine/`), and the tests replay the
//! seeds in `corpus/TARGET` and every input that once was a finding. Targets take plain bytes, so that a seed is a file which a person can read: a request, a policy, a packet.
//! Invariant: a target depends on its bytes alone.

mod bodies;
mod configuration;
mod datagrams;
mod evidence;
mod grpc;
mod http1;
mod ledger;
mod masks;
mod names;
mod policy;
mod proof;
mod search;
mod sinks;
mod story;
mod tls;
mod tls_stream;
mod upgrade;
mod websocket;

/// One property, by name.
pub type Target = (&'static str, fn(&[u8]));

/// All targets. `corpus/` has a folder for each.
pub const TARGETS: &[Target] = &[
    ("body_filter", bodies::filter),
    ("bucket", sinks::bucket),
    ("cel", policy::cel),
    ("connection", story::connection),
    ("control", configuration::control),
    ("datagram", datagrams::datagram),
    ("detect", http1::detect),
    ("dns", names::dns),
    ("documents", policy::documents),
    ("grpc_message", grpc::message),
    ("grpc_messages", grpc::messages),
    ("grpc_web_text", grpc::text),
    ("hosts", names::hosts),
    ("http1_body", http1::body),
    ("http1_request", http1::request),
    ("http1_response", http1::response),
    ("http2_meter", grpc::meter),
    ("json", policy::json),
    ("ledger_bundle", proof::bundle),
    ("ledger_checkpoint", proof::checkpoint),
    ("ledger_ingest", ledger::ingest),
    ("ledger_note", proof::note),
    ("ledger_path", proof::path),
    ("ledger_proof", proof::proof),
    ("ledger_segment", ledger::segment),
    ("ledger_witness", proof::witness),
    ("mask", masks::mask),
    ("messages", search::messages),
    ("record_bodies", evidence::record_bodies),
    ("record_filter", sinks::filter),
    ("renderings", sinks::renderings),
    ("resolver_files", names::resolver_files),
    ("search", search::question),
    ("spool", evidence::spool),
    ("tls_hello", tls::hello),
    ("tls_stream", tls_stream::stream),
    ("upgrade", upgrade::upgrade),
    ("url", policy::url),
    ("verify", evidence::verify),
    ("websocket_frames", websocket::frames),
    ("websocket_inflate", websocket::inflate),
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<fn(&[u8])> {
    TARGETS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, run)| *run)
}

/// Places to cut an input: everywhere in a short one, at eight places in a long one.
fn cuts(length: usize) -> impl Iterator<Item = usize> {
    const EVERYWHERE: usize = 64;
    const PLACES: usize = 8;
    let step = if length <= EVERYWHERE {
        1
    } else {
        length.div_ceil(PLACES)
    };
    (0..length).step_by(step)
}

/// Two parts of an input, cut at its first line that is `---`.
fn parts(bytes: &[u8]) -> (&[u8], &[u8]) {
    const CUT: &[u8] = b"\n---\n";
    match bytes.windows(CUT.len()).position(|window| window == CUT) {
        Some(at) => (&bytes[..at], &bytes[at + CUT.len()..]),
        None => (bytes, &[]),
    }
}
