//! What built-in detectors find in a request, or in a message of WebSocket: the lists `http.detected` and `ws.detected`.
//!
//! Owns which text of a request is searched, and the list as expressions see it. Each detector searches by itself and only when an expression asks for it, so that no match hides that of another
//! detector, and a rule about one pays for one. Refuses bodies and messages that were not read whole, or that are not in a form that detectors read: an error, never "nothing found".
//! Invariant: no value of the operation is in the list, only names of detectors.

use std::{borrow::Cow, fmt, sync::OnceLock};

use cel::{
    ExecutionError,
    common::{
        traits::{Container, Indexer, Iterable, Iterator as CelIterator, Sizer},
        types::{CelInt, CelString, LIST_TYPE, Type},
        value::{CowVal, Val},
    },
};

use super::{
    facts::{ENCODED, Fault},
    shape::{at, copied, looked_up, same_elements},
    values::{Elements, SECRET_HEADERS, size},
};
use crate::{
    decide::{BodyView, HttpView, MessageView},
    detect::{Builtin, CompiledMasks},
};

/// Text of a request that is searched, piece by piece.
pub(super) type Texts<'a> = Vec<Cow<'a, [u8]>>;
/// Whether each detector finds something, once it was asked.
pub(super) type Answers = [OnceLock<bool>; Builtin::ALL.len()];

/// What is searched: path and query as sent and decoded, the values of header fields that expressions see (but Host), the body, and its trailers; forms also decoded.
///
/// # Errors
/// A fault where the body cannot be searched.
pub(super) fn texts<'a>(http: &HttpView<'a>) -> Result<Texts<'a>, Fault> {
    let body = match http.body {
        BodyView::Complete(bytes) => bytes,
        BodyView::TooLarge => return Err("the body is too large to be judged"),
        BodyView::Unreadable => return Err(ENCODED),
        BodyView::NotRead => return Err("the body was not read"),
    };
    if !body.is_empty() && is_unread(http) {
        return Err(ENCODED);
    }
    let mut texts = Texts::new();
    for text in [http.path, http.query] {
        add(&mut texts, text.as_bytes(), true);
    }
    for (name, value) in http.headers.fields().chain(http.trailers.fields()) {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        if !SECRET_HEADERS.iter().any(|known| is(known)) && !is("host") {
            add(&mut texts, value, false);
        }
    }
    let media = http.content_type.unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim();
    let form = media.eq_ignore_ascii_case("application/x-www-form-urlencoded");
    add(&mut texts, body, form);
    Ok(texts)
}

/// What is searched of a message: its text, as the other side gets it.
///
/// # Errors
/// A fault where there is no text to search.
pub(super) fn message_texts(message: MessageView<'_>) -> Result<Texts<'_>, Fault> {
    match message {
        MessageView::Text(text) => Ok(vec![Cow::Borrowed(text.as_bytes())]),
        MessageView::Binary(_) => {
            Err("detectors read text messages only; test it first, with !ws.binary")
        }
        MessageView::TooLarge => Err("the message is too large to be judged"),
    }
}

fn add<'a>(texts: &mut Texts<'a>, text: &'a [u8], escaped: bool) {
    if text.is_empty() {
        return;
    }
    texts.push(Cow::Borrowed(text));
    if escaped && text.iter().any(|b| matches!(b, b'%' | b'+')) {
        texts.push(Cow::Owned(unescape(text)));
    }
}

/// Undoes percent-encoding; what is no escape stays. `+` is a space.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        out.push(match (byte, after) {
            (b'+', _) => b' ',
            (b'%', [high, low, behind @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    rest = behind;
                    (high << 4) | low
                }
                _ => byte,
            },
            _ => byte,
        });
    }
    out
}

fn digit(byte: u8) -> Option<u8> {
    let value = char::from(byte).to_digit(16)?;
    u8::try_from(value).ok()
}

/// Whether the head says that the body is in a form that detectors do not read.
fn is_unread(http: &HttpView<'_>) -> bool {
    let coded = http.headers.fields().any(|(name, value)| {
        name.eq_ignore_ascii_case("grpc-encoding")
            && !value.trim_ascii().eq_ignore_ascii_case(b"identity")
    });
    let kind = http.content_type.unwrap_or_default().to_ascii_lowercase();
    coded || kind.contains("utf-16") || kind.contains("utf-32")
}

/// The list of the names of detectors that find something.
#[derive(Clone)]
pub(super) struct Detected<'f> {
    texts: &'f [Cow<'f, [u8]>],
    answers: &'f Answers,
    /// Names, made when a loop asks for them: then all detectors search.
    names: OnceLock<Vec<CelString<'static>>>,
}

impl<'f> Detected<'f> {
    pub(super) fn new(texts: &'f [Cow<'f, [u8]>], answers: &'f Answers) -> Self {
        Self {
            texts,
            answers,
            names: OnceLock::new(),
        }
    }

    fn finds(&self, at: usize, builtin: Builtin) -> bool {
        let search = || {
            let detector = CompiledMasks::alone(builtin);
            self.texts.iter().any(|text| detector.finds(text))
        };
        self.answers
            .get(at)
            .is_some_and(|answer| *answer.get_or_init(search))
    }

    fn names(&self) -> &[CelString<'static>] {
        self.names.get_or_init(|| {
            Builtin::ALL
                .into_iter()
                .enumerate()
                .filter(|(at, builtin)| self.finds(*at, *builtin))
                .map(|(_, builtin)| CelString::from(builtin.name()))
                .collect()
        })
    }
}

impl fmt::Debug for Detected<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Detected")
    }
}

impl Val for Detected<'_> {
    looked_up!(LIST_TYPE);

    /// Element by element.
    fn equals(&self, other: &dyn Val) -> bool {
        same_elements(self.names(), |name| name, other)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(self.clone())
    }
}

impl Container for Detected<'_> {
    /// Asks the detector of this name alone.
    fn contains(&self, value: &dyn Val) -> Result<bool, ExecutionError> {
        let Some(name) = value.downcast_ref::<CelString<'_>>() else {
            return Ok(false);
        };
        let mut all = Builtin::ALL.into_iter().enumerate();
        let known = all.find(|(_, builtin)| builtin.name() == name.inner());
        Ok(known.is_some_and(|(at, builtin)| self.finds(at, builtin)))
    }
}

impl Indexer for Detected<'_> {
    fn get<'b, 'v>(&'b self, index: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        at(self.names(), index).map(|name| CowVal::Borrowed(name as &dyn Val))
    }

    copied!();
}

impl Iterable for Detected<'_> {
    fn iter<'b, 'v>(&'b self) -> Box<dyn CelIterator<'b, 'v> + 'b>
    where
        Self: 'v,
    {
        Box::new(Elements::new(self.names()))
    }
}

impl Sizer for Detected<'_> {
    fn size(&self) -> CelInt {
        size(self.names().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fixtures::request;

    const KEY: &str = "AKIAIOSFODNN7EXAMPLE";

    fn found(change: impl FnOnce(&mut HttpView<'_>)) -> Result<Vec<String>, Fault> {
        let mut operation = request("POST", "a.example.com", "/");
        let http = operation.http.as_mut().unwrap();
        http.body = BodyView::Complete(b"");
        change(http);
        let texts = texts(http)?;
        let answers = Answers::default();
        let detected = Detected::new(&texts, &answers);
        Ok(detected
            .names()
            .iter()
            .map(|n| n.inner().to_owned())
            .collect())
    }

    #[test]
    fn detectors_search_the_url_header_fields_and_the_body() {
        let card = vec!["creditCard".to_owned()];
        assert_eq!(found(|_| {}), Ok(vec![]));
        assert_eq!(
            found(|http| http.path = "/x/4111111111111111"),
            Ok(card.clone())
        );
        assert_eq!(
            found(|http| http.query = "n=4111+1111+1111+1111"),
            Ok(card.clone())
        );
        assert_eq!(
            found(|http| http.query = "n=4111%2D1111%2D1111%2D1111"),
            Ok(card.clone())
        );
        let headers = [("X-Note", "4111 1111 1111 1111")];
        let mut operation = request("GET", "a.example.com", "/");
        let http = operation.http.as_mut().unwrap();
        http.headers = &headers;
        http.body = BodyView::Complete(b"");
        let all = texts(http).unwrap();
        let answers = Answers::default();
        assert_eq!(Detected::new(&all, &answers).names().len(), 1);
        let body = BodyView::Complete(b"{\"a\":\"4111111111111111\"}");
        assert_eq!(found(|http| http.body = body), Ok(card.clone()));
        let form = |http: &mut HttpView<'_>| {
            http.content_type = Some("Application/x-www-form-urlencoded; charset=utf-8");
            http.body = BodyView::Complete(b"n=4111+1111+1111+1111&x=%zz%");
        };
        assert_eq!(found(form), Ok(card));
    }

    #[test]
    fn detectors_search_trailers() {
        let trailers = [("X-Note", "4111 1111 1111 1111")];
        let mut operation = request("POST", "a.example.com", "/");
        let http = operation.http.as_mut().unwrap();
        http.trailers = &trailers;
        http.body = BodyView::Complete(b"");
        let all = texts(http).unwrap();
        let answers = Answers::default();
        let detected = Detected::new(&all, &answers);
        assert_eq!(detected.names()[0].inner(), "creditCard");
    }

    #[test]
    fn credentials_and_host_are_not_searched() {
        let bearer = format!("Bearer {KEY}");
        let headers = [
            ("Authorization", bearer.as_str()),
            ("cookie", KEY),
            ("X-Api-Key", KEY),
            ("Host", "192.0.2.1"),
        ];
        let mut operation = request("GET", "a.example.com", "/");
        let http = operation.http.as_mut().unwrap();
        http.headers = &headers;
        http.body = BodyView::Complete(b"");
        assert!(texts(http).unwrap().iter().all(|text| **text == *b"/"));
    }

    #[test]
    fn a_match_of_one_detector_hides_none_of_another() {
        let body = BodyView::Complete(b"4111-1111-1111-1111@example.com");
        let found = found(|http| http.body = body).unwrap();
        assert_eq!(found, ["email", "creditCard"]);
    }

    #[test]
    fn a_body_that_cannot_be_searched_is_an_error() {
        for body in [BodyView::TooLarge, BodyView::NotRead, BodyView::Unreadable] {
            assert!(found(|http| http.body = body).is_err());
        }
        let headers = [("grpc-encoding", "gzip")];
        let mut operation = request("POST", "a.example.com", "/");
        let http = operation.http.as_mut().unwrap();
        http.headers = &headers;
        http.body = BodyView::Complete(b"x");
        assert!(texts(http).is_err());
        let wide = |http: &mut HttpView<'_>| {
            http.content_type = Some("text/plain; charset=UTF-16LE");
            http.body = BodyView::Complete(b"x");
        };
        assert!(found(wide).is_err());
    }
}
