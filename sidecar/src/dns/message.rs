//! DNS messages (RFC 1035 section 4), as far as the resolver reads them.
//!
//! Owns reading a query's question and an answer's addresses, and writing the
//! short replies that the resolver gives itself. Messages are forwarded as the
//! bytes they were; only one that loses addresses is written anew.
//!
//! Invariant: an answer counts only for the question that was asked, and its
//! addresses only as far as a chain of aliases leads to them from that name.

use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::{Header, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use super::names::normalize;

/// Bytes of a message header (RFC 1035 section 4.1.1).
pub const HEADER: usize = 12;

/// Most records of an answer that are read; the rest is forwarded all the same.
/// No name has more addresses in practice, and 64 KiB hold about 4,000.
const MAX_RECORDS: usize = 512;

/// Most aliases followed from the name asked, as in common resolvers.
const MAX_ALIASES: usize = 16;

/// Most bytes of the text that goes with a refusal: with the longest question, the
/// reply stays within the 512 bytes that every client takes.
const MAX_EXPLANATION: usize = 200;

/// Type of the pseudo-record with extensions (RFC 6891 section 6.1.1).
const OPT: u16 = 41;

/// UDP payload that the reply offers, bytes (RFC 9715).
const PAYLOAD: u16 = 1_232;

/// Option "Extended DNS Error" (RFC 8914 section 2).
const EXTENDED_ERROR: u16 = 15;

/// Extended error "Blocked": by a security policy of the resolver's operator (RFC
/// 8914 section 4.16).
const BLOCKED: u16 = 15;

/// Response codes (RFC 1035 section 4.1.1).
pub const FORMERR: u8 = 1;
/// The server failed.
pub const SERVFAIL: u8 = 2;
/// The kind of query is not implemented.
pub const NOTIMP: u8 = 4;
/// Policy refuses.
pub const REFUSED: u8 = 5;

/// What a client asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    id: u16,
    query: Query,
    /// Where the question ends in the message.
    end: usize,
}

/// A message that is not a query to be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswerable {
    /// A response, or too short for a header. Replying could start a loop.
    NotAQuery,
    /// To be answered with this response code.
    Refuse(u8),
}

/// What a nameserver answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Response code.
    pub rcode: u8,
    /// Addresses of the name asked and how long each is valid.
    pub addresses: Vec<(IpAddr, Duration)>,
}

// === impl Question ===

impl Question {
    /// Reads a query.
    pub fn read(message: &[u8]) -> Result<Self, Unanswerable> {
        let mut decoder = BinDecoder::new(message);
        if message.len() < HEADER || is_response(message) {
            return Err(Unanswerable::NotAQuery);
        }
        let malformed = Unanswerable::Refuse(FORMERR);
        let header = Header::read(&mut decoder).map_err(|_| malformed)?;
        if header.metadata.op_code != OpCode::Query {
            return Err(Unanswerable::Refuse(NOTIMP));
        }
        if header.counts.queries != 1 {
            return Err(malformed);
        }
        if is_compressed(message) {
            return Err(malformed);
        }
        let query = Query::read(&mut decoder).map_err(|_| malformed)?;
        if query.name().iter().any(has_a_dot) {
            return Err(malformed);
        }
        Ok(Self {
            id: header.metadata.id,
            query,
            end: decoder.index(),
        })
    }

    /// Writes a query of the resolver's own, recursion desired.
    pub fn write(id: u16, name: &Name, kind: RecordType) -> Option<(Self, Vec<u8>)> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(name.clone(), kind));
        let bytes = message.to_vec().ok()?;
        Some((Self::read(&bytes).ok()?, bytes))
    }

    /// The name in lower case, without the final dot.
    pub fn name(&self) -> String {
        normalize(&self.query.name().to_ascii())
    }

    /// `A`, `AAAA` and so on; `TYPE65399` where the type has no name (RFC 3597 section 5).
    pub fn kind(&self) -> String {
        match self.query.query_type() {
            RecordType::Unknown(code) => format!("TYPE{code}"),
            named => named.to_string(),
        }
    }

    /// Whether a zone transfer is asked for: many messages long, and never a
    /// client's business.
    pub fn is_transfer(&self) -> bool {
        matches!(self.query.query_type(), RecordType::AXFR | RecordType::IXFR)
    }

    /// Reads an answer, if these bytes are one to this question.
    pub fn answer(&self, message: &[u8]) -> Option<Answer> {
        let mut decoder = BinDecoder::new(message);
        let header = Header::read(&mut decoder).ok()?;
        if header.metadata.id != self.id
            || header.metadata.message_type != MessageType::Response
            || header.counts.queries != 1
            || !self.asks_the_same(&Query::read(&mut decoder).ok()?)
        {
            return None;
        }
        let count = usize::from(header.counts.answers).min(MAX_RECORDS);
        // A record that can't be read ends the reading, not the answer: the
        // client judges what it gets, and no address counts unread.
        let records: Vec<Record> = std::iter::from_fn(|| Record::read(&mut decoder).ok())
            .take(count)
            .collect();
        Some(Answer {
            rcode: rcode_of(message)?,
            addresses: addresses(self.query.name(), &records),
        })
    }

    /// A reply without records.
    pub fn reply(&self, message: &[u8], rcode: u8) -> Option<Vec<u8>> {
        reply(message.get(..self.end)?, 1, rcode)
    }

    /// A refusal. A client that speaks EDNS is told why (RFC 8914).
    pub fn refuse(&self, message: &[u8], why: &str) -> Option<Vec<u8>> {
        let mut reply = self.reply(message, REFUSED)?;
        let speaks_edns = Message::from_vec(message).is_ok_and(|query| query.edns.is_some());
        if !speaks_edns {
            return Some(reply);
        }
        let text = why.get(..why.floor_char_boundary(MAX_EXPLANATION))?;
        let length = u16::try_from(text.len().checked_add(2)?).ok()?;
        *reply.get_mut(HEADER - 1)? = 1;
        reply.push(0);
        for field in [
            OPT,
            PAYLOAD,
            0,
            0,
            length.checked_add(4)?,
            EXTENDED_ERROR,
            length,
            BLOCKED,
        ] {
            reply.extend(field.to_be_bytes());
        }
        reply.extend(text.as_bytes());
        Some(reply)
    }

    /// An answer without these addresses. What hints at them in other records
    /// (RFC 9460) goes too.
    pub fn without(&self, answer: &[u8], withheld: &[IpAddr]) -> Option<Vec<u8>> {
        let mut message = Message::from_vec(answer).ok()?;
        message.answers.retain(|record| match &record.data {
            RData::A(address) => !withheld.contains(&address.0.into()),
            RData::AAAA(address) => !withheld.contains(&address.0.into()),
            RData::HTTPS(_) | RData::SVCB(_) => false,
            _ => true,
        });
        // It is not what was signed any more.
        message.metadata.authentic_data = false;
        message.to_vec().ok()
    }

    fn asks_the_same(&self, other: &Query) -> bool {
        self.query.query_type() == other.query_type()
            && self.query.query_class() == other.query_class()
            && self.query.name().to_lowercase() == other.name().to_lowercase()
    }
}

/// A reply without question or records, to a message that can't be read.
pub fn bare_reply(message: &[u8], rcode: u8) -> Option<Vec<u8>> {
    reply(message.get(..HEADER)?, 0, rcode)
}

/// Name of a response code, as in the IANA registry "DNS RCODEs".
pub fn rcode_name(rcode: u8) -> &'static str {
    match rcode {
        0 => "NOERROR",
        1 => "FORMERR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        6 => "YXDOMAIN",
        7 => "YXRRSET",
        8 => "NXRRSET",
        9 => "NOTAUTH",
        10 => "NOTZONE",
        _ => "RESERVED",
    }
}

/// Addresses that the name leads to, through aliases.
fn addresses(asked: &Name, records: &[Record]) -> Vec<(IpAddr, Duration)> {
    let mut names = vec![asked.to_lowercase()];
    while names.len() <= MAX_ALIASES {
        let next = records.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if names.last() == Some(&record.name.to_lowercase()) => {
                Some(target.0.to_lowercase())
            }
            _ => None,
        });
        match next {
            Some(name) if !names.contains(&name) => names.push(name),
            _ => break,
        }
    }
    records
        .iter()
        .filter(|record| record.dns_class == DNSClass::IN)
        .filter_map(|record| {
            let address = match &record.data {
                RData::A(address) => IpAddr::from(address.0),
                RData::AAAA(address) => IpAddr::from(address.0),
                _ => return None,
            };
            names
                .contains(&record.name.to_lowercase())
                .then_some((address, Duration::from_secs(u64::from(record.ttl))))
        })
        .collect()
}

/// Turns a query's head into a reply: QR and RA set, RD and opcode kept, no
/// records.
fn reply(head: &[u8], questions: u16, rcode: u8) -> Option<Vec<u8>> {
    let [id0, id1, flags, _, ..] = *head else {
        return None;
    };
    let mut bytes = vec![id0, id1, 0x80 | (flags & 0x79), 0x80 | (rcode & 0x0f)];
    bytes.extend(questions.to_be_bytes());
    bytes.extend([0; 6]);
    bytes.extend(head.get(HEADER..)?);
    Some(bytes)
}

/// Whether the first name has a pointer (RFC 1035 section 4.1.4). Nothing but the header stands before it: such a name would read otherwise once a flag of the header is another.
fn is_compressed(message: &[u8]) -> bool {
    let mut at = HEADER;
    while let Some(length @ 1..) = message.get(at).copied() {
        if length & 0xc0 != 0 {
            return true;
        }
        at = at.saturating_add(usize::from(length)).saturating_add(1);
    }
    false
}

/// A dot within a label: not a host's name (RFC 1123 section 2.1), and in text easily
/// taken for the end of the label.
fn has_a_dot(label: &[u8]) -> bool {
    label.contains(&b'.')
}

fn is_response(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & 0x80 != 0)
}

fn rcode_of(message: &[u8]) -> Option<u8> {
    message.get(3).map(|flags| flags & 0x0f)
}

#[cfg(test)]
mod tests;
