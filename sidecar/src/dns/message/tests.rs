//! Questions and answers, sound and odd.

use std::str::FromStr;

use hickory_proto::rr::rdata::{A, CNAME, TXT};
use proptest::prelude::*;

use super::*;

fn name(text: &str) -> Name {
    Name::from_str(text).unwrap()
}

fn ask(text: &str) -> (Question, Vec<u8>) {
    Question::write(7, &name(text), RecordType::A).unwrap()
}

fn a(owner: &str, address: [u8; 4]) -> Record {
    Record::from_rdata(name(owner), 30, RData::A(A(address.into())))
}

fn alias(owner: &str, target: &str) -> Record {
    Record::from_rdata(name(owner), 30, RData::CNAME(CNAME(name(target))))
}

fn answer_with(question: &[u8], records: Vec<Record>) -> Vec<u8> {
    let mut message = Message::from_vec(question).unwrap().into_response();
    message.answers = records;
    message.to_vec().unwrap()
}

fn found(records: Vec<Record>) -> Vec<String> {
    let (question, bytes) = ask("asked.example.");
    let answer = question.answer(&answer_with(&bytes, records)).unwrap();
    answer
        .addresses
        .iter()
        .map(|(address, _)| address.to_string())
        .collect()
}

#[test]
fn a_question_has_name_and_type() {
    let (question, _) = ask("API.Example.");
    assert_eq!(
        (question.name(), question.kind()),
        ("api.example".into(), "A".into())
    );
}

#[test]
fn a_dot_within_a_label_is_malformed() {
    let (_, bytes) = Question::write(7, &name("a-b.example."), RecordType::A).unwrap();
    let mut dotted = bytes;
    dotted[HEADER + 2] = b'.';
    assert_eq!(Question::read(&dotted), Err(Unanswerable::Refuse(FORMERR)));
}

#[test]
fn addresses_count_through_a_chain_of_aliases_from_the_name_asked() {
    assert_eq!(found(vec![a("asked.example.", [1, 1, 1, 1])]), ["1.1.1.1"]);
    assert_eq!(
        found(vec![
            a("end.example.", [2, 2, 2, 2]),
            alias("middle.example.", "END.example."),
            alias("asked.example.", "middle.example."),
        ]),
        ["2.2.2.2"]
    );
}

#[test]
fn an_address_of_another_name_does_not_count() {
    assert!(found(vec![a("bank.example.", [6, 6, 6, 6])]).is_empty());
    assert!(
        found(vec![
            alias("bank.example.", "x.example."),
            a("x.example.", [6, 6, 6, 6])
        ])
        .is_empty()
    );
}

#[test]
fn aliases_in_a_circle_end() {
    assert_eq!(
        found(vec![
            alias("asked.example.", "b.example."),
            alias("b.example.", "asked.example."),
            a("b.example.", [3, 3, 3, 3]),
        ]),
        ["3.3.3.3"]
    );
}

#[test]
fn an_answer_to_another_question_is_none() {
    let (question, bytes) = ask("asked.example.");
    let good = answer_with(&bytes, vec![]);
    assert!(question.answer(&good).is_some());
    let mut other_id = good.clone();
    other_id[1] ^= 1;
    assert_eq!(question.answer(&other_id), None);
    assert_eq!(question.answer(&bytes), None, "a query is no answer");
    let (_, other) = ask("other.example.");
    assert_eq!(question.answer(&answer_with(&other, vec![])), None);
    assert_eq!(question.answer(&[]), None);
    let (_, same) = ask("ASKED.example.");
    assert!(
        question.answer(&answer_with(&same, vec![])).is_some(),
        "case does not matter"
    );
}

#[test]
fn records_after_one_that_can_not_be_read_do_not_count() {
    let (question, bytes) = ask("asked.example.");
    let text = RData::TXT(TXT::new(vec!["x".into()]));
    let mut cut = answer_with(
        &bytes,
        vec![
            a("asked.example.", [1, 1, 1, 1]),
            Record::from_rdata(name("asked.example."), 30, text),
        ],
    );
    cut.pop();
    assert_eq!(question.answer(&cut).unwrap().addresses.len(), 1);
}

#[test]
fn what_is_no_plain_query_is_refused_with_the_right_code() {
    let (_, query) = ask("asked.example.");
    let with = |at: usize, value: u8| {
        let mut bytes = query.clone();
        bytes[at] = value;
        Question::read(&bytes)
    };
    assert_eq!(with(2, 0x81), Err(Unanswerable::NotAQuery));
    assert_eq!(with(2, 0x28), Err(Unanswerable::Refuse(NOTIMP)), "UPDATE");
    assert_eq!(
        with(5, 0),
        Err(Unanswerable::Refuse(FORMERR)),
        "no question"
    );
    assert_eq!(
        with(5, 2),
        Err(Unanswerable::Refuse(FORMERR)),
        "two questions"
    );
    assert_eq!(with(12, 0xff), Err(Unanswerable::Refuse(FORMERR)));
    assert_eq!(
        Question::read(&query[..14]),
        Err(Unanswerable::Refuse(FORMERR))
    );
    assert_eq!(Question::read(&query[..11]), Err(Unanswerable::NotAQuery));
}

#[test]
fn replies_keep_the_id_and_the_question() {
    let (question, bytes) = ask("asked.example.");
    let reply = Message::from_vec(&question.reply(&bytes, SERVFAIL).unwrap()).unwrap();
    assert_eq!(reply.metadata.id, 7);
    assert!(reply.metadata.recursion_desired && reply.metadata.recursion_available);
    assert_eq!(reply.queries.len(), 1);
    let bytes = question.reply(&bytes, SERVFAIL).unwrap();
    assert_eq!(
        question.answer(&bytes).map(|answer| answer.rcode),
        Some(SERVFAIL)
    );
    let bare = bare_reply(&bytes, FORMERR).unwrap();
    assert_eq!((bare.len(), rcode_of(&bare)), (HEADER, Some(FORMERR)));
}

#[test]
fn a_refusal_says_why_to_clients_that_speak_edns_and_fits_any_client() {
    let long = format!("{0}.{0}.{0}.example.", "a".repeat(60));
    for asked in ["asked.example.", long.as_str()] {
        let (question, plain) = ask(asked);
        let refusal = question.refuse(&plain, "denied").unwrap();
        assert_eq!(Message::from_vec(&refusal).unwrap().edns, None);
        let mut query = Message::from_vec(&plain).unwrap();
        query.set_edns(hickory_proto::op::Edns::new());
        let query = query.to_vec().unwrap();
        let question = Question::read(&query).unwrap();
        let why = format!("denied by policy a, rule b: {}", "ä".repeat(300));
        let bytes = question.refuse(&query, &why).unwrap();
        assert!(bytes.len() <= 512, "{}", bytes.len());
        let refusal = Message::from_vec(&bytes).unwrap();
        assert_eq!(
            question.answer(&bytes).map(|answer| answer.rcode),
            Some(REFUSED)
        );
        assert!(refusal.edns.is_some());
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("denied by policy a, rule b: ää"), "{text}");
        let option = [0, 15, 0, u8::try_from(MAX_EXPLANATION + 2).unwrap(), 0, 15];
        assert!(bytes.windows(6).any(|window| window == option));
    }
}

#[test]
fn addresses_are_taken_out_of_an_answer_and_the_rest_stays() {
    let (question, bytes) = ask("asked.example.");
    let answer = answer_with(
        &bytes,
        vec![
            alias("asked.example.", "b.example."),
            a("b.example.", [127, 0, 0, 1]),
            a("b.example.", [1, 1, 1, 1]),
        ],
    );
    let left = question.without(&answer, &[[127, 0, 0, 1].into()]).unwrap();
    let found = question.answer(&left).unwrap().addresses;
    let found: Vec<_> = found.iter().map(|(ip, _)| ip.to_string()).collect();
    assert_eq!(found, ["1.1.1.1"]);
    assert_eq!(Message::from_vec(&left).unwrap().answers.len(), 2);
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(
        noise in proptest::collection::vec(any::<u8>(), 0..128),
        at in any::<prop::sample::Index>(),
        value in any::<u8>(),
    ) {
        let _ = Question::read(&noise);
        let (question, query) = ask("asked.example.");
        let mut answer = answer_with(&query, vec![
            alias("asked.example.", "b.example."),
            a("b.example.", [1, 2, 3, 4]),
        ]);
        let at = at.index(answer.len());
        answer[at] = value;
        answer.extend(&noise);
        if let Some(read) = question.answer(&answer) {
            prop_assert!(read.addresses.len() <= MAX_RECORDS);
        }
        let _ = bare_reply(&noise, FORMERR);
        let _ = question.refuse(&noise, "no");
        let _ = question.without(&answer, &[[1, 2, 3, 4].into()]);
    }
}
