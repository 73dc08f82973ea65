//! Names that a client may be on its way to when it asks for another.
//!
//! Owns undoing what clients do to a name before they ask: completing it with the search list, and putting underscored labels in front of it. Invariant: a name that is asked
//! as it is stands for nothing but itself and its host; only what was completed with a search domain, and so goes to the cluster's own DNS first, stands for more.

/// What the agent may mean by asking for `name`, without `name` itself. `search` is the search list of the pod.
///
/// With the search list `agents.svc.cluster.local svc.cluster.local`, `api.example.com.agents.svc.cluster.local` is on the way to `api.example.com`, and
/// `db.data.agents.svc.cluster.local` to `db.data` and `db.data.svc.cluster.local`. `_https._tcp.api.example.com` is about `api.example.com` (RFC 8552).
pub(crate) fn towards(name: &str, search: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for base in search.iter().filter_map(|domain| below(name, domain)) {
        found.push(base.to_owned());
        found.extend(search.iter().map(|domain| format!("{base}.{domain}")));
    }
    let hosts = found.iter().map(String::as_str).chain([name]);
    let hosts: Vec<String> = hosts.filter_map(host_of).map(str::to_owned).collect();
    found.extend(hosts);
    found.retain(|other| other != name);
    found.sort_unstable();
    found.dedup();
    found
}

/// The part of a name in front of a domain; `None` when it is not below it.
pub(super) fn below<'n>(name: &'n str, domain: &str) -> Option<&'n str> {
    let base = name.strip_suffix(domain)?.strip_suffix('.')?;
    (!base.is_empty()).then_some(base)
}

/// The host that a name with underscored labels in front is about.
fn host_of(name: &str) -> Option<&str> {
    let mut rest = name;
    while let Some((_, parent)) = rest.strip_prefix('_').and_then(|_| rest.split_once('.')) {
        rest = parent;
    }
    (rest != name && !rest.starts_with('_')).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_stands_for_what_the_search_list_and_underscores_were_put_to() {
        let search = ["agents.svc.cluster.local", "svc.cluster.local"].map(str::to_owned);
        let cases: [(&str, &[&str]); 6] = [
            ("api.example.com", &[]),
            (
                "api.example.com.agents.svc.cluster.local",
                &[
                    "api.example.com",
                    "api.example.com.agents",
                    "api.example.com.agents.agents.svc.cluster.local",
                    "api.example.com.svc.cluster.local",
                ],
            ),
            (
                "db.data.svc.cluster.local",
                &["db.data", "db.data.agents.svc.cluster.local"],
            ),
            ("_https._tcp.api.example.com", &["api.example.com"]),
            ("_dmarc", &[]),
            ("svc.cluster.local", &[]),
        ];
        for (name, expected) in cases {
            assert_eq!(towards(name, &search), expected, "{name}");
        }
        assert!(towards("api.example.com", &[]).is_empty());
    }
}
