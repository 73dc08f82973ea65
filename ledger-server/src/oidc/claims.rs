//! From a token's claims, which the provider has signed, to a user: a function.

use chaperone_server::reviews::User;
use serde_json::{Map, Value};
use thiserror::Error;

/// Most groups, and bytes of a name: kube-apiserver takes longer ones, and nobody binds them.
const MAX_GROUPS: usize = 1000;
const MAX_NAME_BYTES: usize = 512;
/// Names that begin so are the cluster's own.
const SYSTEM: &str = "system:";
/// Who has logged in at all.
const AUTHENTICATED: &str = "system:authenticated";

/// How users and groups are named.
pub(super) struct Names {
    pub(super) username_claim: String,
    pub(super) username_prefix: String,
    pub(super) groups_claim: Option<String>,
    pub(super) groups_prefix: String,
}

/// Why it is nobody.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(super) enum Nobody {
    #[error("the provider's answer is to another question")]
    Nonce,
    #[error("the token was made for another client")]
    Party,
    #[error("the token has no claim {0:?} that is a name")]
    Unnamed(String),
    #[error("the provider has not verified the e-mail address")]
    Unverified,
    #[error("the name {0:?} is one of the cluster's own: set --oidc-username-prefix")]
    System(String),
}

/// Claims as their JSON has them.
pub(super) type Claims = Map<String, Value>;

/// The user; signature, issuer, audience and times were looked at before.
pub(super) fn known(
    claims: &Claims,
    names: &Names,
    client: &str,
    nonce: &str,
) -> Result<User, Nobody> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    if text("nonce") != Some(nonce) {
        return Err(Nobody::Nonce);
    }
    // OpenID Connect Core section 3.1.3.7, rules 4 and 5.
    let has_others = claims
        .get("aud")
        .and_then(Value::as_array)
        .is_some_and(|all| all.len() > 1);
    match text("azp") {
        Some(party) if party != client => return Err(Nobody::Party),
        None if has_others => return Err(Nobody::Party),
        _ => {}
    }
    let claim = names.username_claim.as_str();
    let name = text(claim).filter(|name| is_name(name));
    let name = name.ok_or_else(|| Nobody::Unnamed(claim.to_owned()))?;
    // As kube-apiserver has it: a provider that says nothing of it is believed, one that says no is not.
    if claim == "email"
        && claims
            .get("email_verified")
            .is_some_and(|v| *v != Value::Bool(true))
    {
        return Err(Nobody::Unverified);
    }
    let name = format!("{}{name}", names.username_prefix);
    if name.starts_with(SYSTEM) {
        return Err(Nobody::System(name));
    }
    let mut groups = groups(claims, names);
    groups.push(AUTHENTICATED.to_owned());
    Ok(User {
        name,
        groups,
        ..User::default()
    })
}

/// A claim that is one name, or a list of names. What the cluster keeps for itself is left out.
fn groups(claims: &Claims, names: &Names) -> Vec<String> {
    let claim = names.groups_claim.as_deref().and_then(|n| claims.get(n));
    let all: &[Value] = match claim {
        Some(Value::Array(all)) => all,
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    all.iter()
        .filter_map(Value::as_str)
        .filter(|name| is_name(name))
        .map(|name| format!("{}{name}", names.groups_prefix))
        .filter(|name| !name.starts_with(SYSTEM))
        .take(MAX_GROUPS)
        .collect()
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME_BYTES && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn names(claim: &str, prefix: &str) -> Names {
        Names {
            username_claim: claim.to_owned(),
            username_prefix: prefix.to_owned(),
            groups_claim: Some("groups".to_owned()),
            groups_prefix: prefix.to_owned(),
        }
    }

    fn judge(change: Value, names: &Names) -> Result<(String, Vec<String>), Nobody> {
        let mut claims = json!({"aud": "console", "nonce": "n", "sub": "u-1", "email": "ann@example.com", "groups": ["audit", 7, "", "system:masters"]});
        let claims = claims.as_object_mut().unwrap();
        claims.extend(change.as_object().unwrap().clone());
        let user = known(claims, names, "console", "n")?;
        Ok((user.name, user.groups))
    }

    #[test]
    fn users_and_groups_are_named_as_the_api_server_names_them() {
        let groups = |all: &[&str]| all.iter().map(|g| (*g).to_owned()).collect::<Vec<_>>();
        let (name, of) = judge(json!({}), &names("sub", "oidc:")).unwrap();
        assert_eq!(name, "oidc:u-1");
        assert_eq!(
            of,
            groups(&["oidc:audit", "oidc:system:masters", AUTHENTICATED])
        );
        let (name, of) = judge(json!({"groups": "one"}), &names("email", "")).unwrap();
        assert_eq!(name, "ann@example.com");
        assert_eq!(of, groups(&["one", AUTHENTICATED]));
        let (_, of) = judge(json!({}), &names("sub", "")).unwrap();
        assert_eq!(
            of,
            groups(&["audit", AUTHENTICATED]),
            "none of the cluster's own"
        );
    }

    #[test]
    fn who_is_not_named_or_not_asked_for_is_nobody() {
        let plain = names("sub", "");
        for (change, why) in [
            (json!({"nonce": "m"}), Nobody::Nonce),
            (json!({"nonce": null}), Nobody::Nonce),
            (json!({"azp": "other"}), Nobody::Party),
            (json!({"aud": ["console", "other"]}), Nobody::Party),
            (json!({"sub": ""}), Nobody::Unnamed("sub".to_owned())),
            (json!({"sub": 7}), Nobody::Unnamed("sub".to_owned())),
            (json!({"sub": "a\nb"}), Nobody::Unnamed("sub".to_owned())),
            (
                json!({"sub": "x".repeat(600)}),
                Nobody::Unnamed("sub".to_owned()),
            ),
            (
                json!({"sub": "system:admin"}),
                Nobody::System("system:admin".to_owned()),
            ),
        ] {
            assert_eq!(judge(change, &plain).unwrap_err(), why);
        }
        assert!(
            judge(
                json!({"aud": ["console", "other"], "azp": "console"}),
                &plain
            )
            .is_ok()
        );
        let by_mail = names("email", "");
        for verified in [json!(false), json!("true"), json!(null)] {
            let change = json!({"email_verified": verified});
            assert_eq!(judge(change, &by_mail).unwrap_err(), Nobody::Unverified);
        }
        assert!(judge(json!({"email_verified": true}), &by_mail).is_ok());
    }
}
