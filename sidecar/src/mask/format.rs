//! How a text is built, as far as masks know.

/// How a text is built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Text whose structure masks do not know. If paths are to be masked and it begins like a JSON object or array, it is read as one: services send JSON under any type.
    #[default]
    Plain,
    /// A message of which nothing says what it is: if it begins like a JSON object or array, it is read as one.
    Message,
    /// JSON documents, one after another: `application/json`, JSON sequences (RFC 7464).
    Json,
    /// One JSON document a line.
    Lines,
    /// Server-sent events whose data may be JSON.
    Events,
    /// `application/x-www-form-urlencoded`.
    Form,
    /// Percent-encoded text without fields, such as the path of a URL.
    Encoded,
}
