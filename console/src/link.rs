//! Where the pages are: paths and parameters. Nothing that a record says becomes a link of its own; names from records are values of parameters, encoded.

use chaperone_index::query::encoded;

/// Where the console is mounted.
pub const ROOT: &str = "/console";

/// A page's address: parameters that are empty are left out.
#[must_use]
pub fn to(page: &str, parameters: &[(&str, &str)]) -> String {
    let given = parameters.iter().filter(|(_, value)| !value.is_empty());
    let pairs: Vec<_> = given
        .map(|(name, value)| format!("{name}={}", encoded(value)))
        .collect();
    match pairs.is_empty() {
        true => format!("{ROOT}/{page}"),
        false => format!("{ROOT}/{page}?{}", pairs.join("&")),
    }
}

/// The page of a record.
#[must_use]
pub fn record(stream: &str, seq: u64, namespace: &str) -> String {
    let page = format!("records/{}/{seq}", encoded(stream));
    to(&page, &[("namespace", namespace)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_encoded_and_empty_ones_left_out() {
        assert_eq!(
            to("session", &[("id", "a&b=<\">"), ("namespace", "")]),
            "/console/session?id=a%26b%3D%3C%22%3E"
        );
        assert_eq!(to("live", &[]), "/console/live");
        assert_eq!(record("s", 3, "n"), "/console/records/s/3?namespace=n");
    }
}
