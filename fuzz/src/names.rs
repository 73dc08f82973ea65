//! DNS messages, the resolver's files and host patterns.

use chaperone_crds::hosts::{HostPattern, normalize_host};
use chaperone_sidecar::dns::{Hosts, ResolvConf, message};

use crate::{cuts, parts};

/// A query, and bytes as the answer to a query: a reply is one to the question, and an answer counts for its own question only.
pub(crate) fn dns(bytes: &[u8]) {
    let (query, answer) = parts(bytes);
    let question = match message::Question::read(query) {
        Ok(question) => question,
        Err(_) => {
            if let Some(reply) = message::bare_reply(query, message::FORMERR) {
                assert!(matches!(
                    message::Question::read(&reply),
                    Err(message::Unanswerable::NotAQuery)
                ));
            }
            return;
        }
    };
    let name = question.name();
    assert_eq!(normalize_host(&name), name);
    let reply = question
        .reply(query, message::REFUSED)
        .expect("a query that was read has a reply");
    let read = question
        .answer(&reply)
        .expect("the reply is one to its question");
    assert_eq!(read.rcode, message::REFUSED);
    assert!(read.addresses.is_empty());
    let _ = question.answer(answer);
    // The question's own bytes, turned into a response with what follows as its records.
    let records = answer.len().min(4);
    let mut forged = reply;
    forged[7] = u8::try_from(records).unwrap_or_default();
    forged.extend_from_slice(answer);
    let _ = question.answer(&forged);
}

/// `/etc/hosts` and `/etc/resolv.conf`.
pub(crate) fn resolver_files(bytes: &[u8]) {
    let _ = Hosts::parse(bytes);
    let _ = ResolvConf::parse(bytes);
}

/// A host pattern: what it names it matches, and a domain's pattern does not match the domain.
pub(crate) fn hosts(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match HostPattern::parse(text) {
        Ok(pattern @ HostPattern::Exact(_)) => {
            assert!(pattern.matches_name(&normalize_host(text)));
        }
        Ok(HostPattern::Below(domain)) => {
            let pattern = HostPattern::Below(domain.clone());
            assert!(!pattern.matches_name(&domain));
            assert!(pattern.matches_name(&format!("a.{domain}")));
            assert!(!pattern.matches_name(&format!("a{domain}")));
        }
        Ok(HostPattern::Network(network)) => assert_eq!(network.trunc(), network),
        Ok(HostPattern::Any) => assert_eq!(text, "*"),
        Err(error) => assert!(error.offset <= text.len() && text.is_char_boundary(error.offset)),
    }
    for cut in cuts(text.len()) {
        if text.is_char_boundary(cut) {
            let _ = HostPattern::parse(&text[..cut]);
        }
    }
}
