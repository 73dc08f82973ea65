//! JSON that was cut, brought to an end: so that what is there of it can be read.

/// The text with its open strings, lists and objects closed. A member, a number or a word that is not whole is left out. What was no beginning of JSON is none afterwards either.
pub(super) fn completed(mut text: String) -> String {
    let mut open = Open::default();
    for (at, byte) in text.bytes().enumerate() {
        if open.in_string {
            open.in_string(at, byte);
        } else {
            open.between(at, byte);
        }
    }
    let is_value = open.in_string && !open.is_name;
    text.truncate(if is_value { open.whole } else { open.safe });
    if is_value {
        text.push('"');
    }
    text.extend(open.closers.iter().rev());
    text
}

/// What is open at some place of the text.
#[derive(Default)]
struct Open {
    /// What closes the lists and objects, the outermost first.
    closers: Vec<char>,
    in_string: bool,
    /// Whether the string is a name, or the next would be.
    is_name: bool,
    /// Where a string may end so that no escape in it is cut.
    whole: usize,
    /// Characters of an escape that are to come, and what they were so far.
    escape: Escape,
    /// Whether a number or a word is under way.
    in_word: bool,
    /// Where the text may end, but for what closes it: the same lists and objects are open there as at the end.
    safe: usize,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    /// The backslash was there.
    Begun,
    /// So many of four hex digits are to come, and this is the number so far.
    Digits(u8, u32),
    /// The first half of a character was there, and its second must follow.
    Half,
}

impl Open {
    fn in_string(&mut self, at: usize, byte: u8) {
        let next = at.saturating_add(1);
        self.escape = match (self.escape, byte) {
            (Escape::Begun, b'u') => Escape::Digits(4, 0),
            (Escape::None | Escape::Half, b'\\') => Escape::Begun,
            (Escape::Digits(left, number), digit) => {
                let digit = char::from(digit).to_digit(16).unwrap_or_default();
                let number = number << 4 | digit;
                match (left, number) {
                    (2.., _) => Escape::Digits(left.saturating_sub(1), number),
                    (_, 0xd800..=0xdbff) => Escape::Half,
                    _ => Escape::None,
                }
            }
            (Escape::None | Escape::Half, b'"') => {
                self.in_string = false;
                if !self.is_name {
                    self.safe = next;
                }
                return;
            }
            _ => Escape::None,
        };
        if self.escape == Escape::None {
            self.whole = next;
        }
    }

    fn between(&mut self, at: usize, byte: u8) {
        let next = at.saturating_add(1);
        let ends_word = matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\r' | b'\n');
        if self.in_word && ends_word {
            self.in_word = false;
            self.safe = at;
        }
        match byte {
            b'"' => {
                self.in_string = true;
                self.escape = Escape::None;
                self.whole = next;
            }
            b'{' | b'[' => {
                self.closers.push(if byte == b'{' { '}' } else { ']' });
                self.is_name = byte == b'{';
                self.safe = next;
            }
            b'}' | b']' => {
                self.closers.pop();
                self.is_name = false;
                self.safe = next;
            }
            b',' => self.is_name = self.closers.last() == Some(&'}'),
            b':' => self.is_name = false,
            b' ' | b'\t' | b'\r' | b'\n' => {}
            _ => self.in_word = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn json_that_is_cut_anywhere_can_be_read_and_says_what_is_there_of_it() {
        let value = json!({"a": [1, -2.5e3, true, null, {}, []], "b\"\\": {"c": "x\n\u{1f600}\u{e9}\\", "d": "y"}, "e": "z"});
        let ascii =
            r#"{"a": "\ud83d\ude00\u00e9\n", "b" : [ 12 , "\\\"" , { } ] , "\u0063" : true }"#;
        for text in [value.to_string(), ascii.to_owned()] {
            let whole: Value = serde_json::from_str(&text).unwrap();
            for at in 1..=text.len() {
                let Some(cut) = text.get(..at) else { continue };
                let read = serde_json::from_str::<Value>(&completed(cut.to_owned()));
                let read =
                    read.unwrap_or_else(|e| panic!("{e}: {cut} as {}", completed(cut.to_owned())));
                assert!(begins(&read, &whole), "{read} is no beginning of {whole}");
            }
            assert_eq!(completed(text.clone()), text.trim_end());
        }
        let cut = completed(r#"[{"type":"tool_result","content":"long te"#.to_owned());
        assert_eq!(cut, r#"[{"type":"tool_result","content":"long te"}]"#);
    }

    /// Whether there is nothing in a value that is not in the other, at its beginning.
    fn begins(cut: &Value, whole: &Value) -> bool {
        match (cut, whole) {
            (Value::String(cut), Value::String(whole)) => whole.starts_with(cut),
            (Value::Array(cut), Value::Array(whole)) => {
                cut.iter().zip(whole).all(|(cut, whole)| begins(cut, whole))
                    && cut.len() <= whole.len()
            }
            (Value::Object(cut), Value::Object(whole)) => cut
                .iter()
                .all(|(name, cut)| whole.get(name).is_some_and(|whole| begins(cut, whole))),
            _ => cut == whole,
        }
    }

    #[test]
    fn what_is_no_json_does_no_harm() {
        for text in [
            "",
            "x",
            "]",
            "}}",
            "{]",
            "\\",
            "\"\\u",
            "[,",
            "{:",
            "\u{e9}",
            "[\"\\ud83d",
        ] {
            let _ = completed(text.to_owned());
        }
    }
}
