//! What the provider says of itself (OpenID Connect Discovery 1.0), its keys, and whether a token is by its hand.
//!
//! Owns the way to it. Refuses redirects, other issuers, and every algorithm that does not take a private key.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use bytes::Bytes;
use chaperone_sinks::{ClientError, Endpoint, client::HttpClient, net::HostNet};
use http_body_util::Full;
use hyper::Request;
use jsonwebtoken::{
    Algorithm, DecodingKey, Header, Validation, decode, decode_header,
    jwk::{Jwk, JwkSet, KeyOperations, PublicKeyUse},
};
use oauth2::{HttpRequest, HttpResponse};
use rustls::ClientConfig;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::sync::Mutex;

use super::{claims::Claims, refused, unavailable};
use crate::refusal::Refusal;

/// How long what the provider says of itself is not asked again.
const LIFE: Duration = Duration::from_secs(600);
/// How long keys stand before an unknown one has them asked for again: made-up tokens must not become a flood on the provider.
const KEYS_REST: Duration = Duration::from_secs(10);
/// Most of an answer, in bytes.
const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// Longest token.
const MAX_TOKEN_BYTES: usize = 64 * 1024;
/// What may have signed: whoever has a public key or the client's secret can sign by none of these.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// What of a provider's document is used.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Document {
    issuer: String,
    pub(super) authorization_endpoint: String,
    pub(super) token_endpoint: String,
    jwks_uri: String,
}

/// An OpenID provider.
pub(super) struct Provider {
    issuer: String,
    tls: Arc<ClientConfig>,
    version: String,
    document: Mutex<Option<(Document, Instant)>>,
    keys: Mutex<Option<(JwkSet, Instant)>>,
}

impl Provider {
    pub(super) fn new(issuer: &str, tls: Arc<ClientConfig>, version: &str) -> anyhow::Result<Self> {
        Endpoint::parse(issuer).context("--oidc-issuer-url")?;
        Ok(Self {
            issuer: issuer.to_owned(),
            tls,
            version: version.to_owned(),
            document: Mutex::default(),
            keys: Mutex::default(),
        })
    }

    pub(super) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// What it says of itself.
    pub(super) async fn document(&self) -> Result<Document, Refusal> {
        let mut known = self.document.lock().await;
        if let Some((document, at)) = known.as_ref()
            && at.elapsed() < LIFE
        {
            return Ok(document.clone());
        }
        let place = self.issuer.trim_end_matches('/');
        let url = format!("{place}/.well-known/openid-configuration");
        let document: Document = self.get(&url).await?;
        let ours = [
            &document.authorization_endpoint,
            &document.token_endpoint,
            &document.jwks_uri,
        ];
        // Section 4.3: the same, or somebody else speaks for it.
        if document.issuer != self.issuer || !ours.iter().all(|url| url.starts_with("https://")) {
            tracing::warn!(
                issuer = document.issuer,
                "the document at --oidc-issuer-url is another issuer's, or names endpoints without TLS"
            );
            return Err(unavailable("what answers is not the provider"));
        }
        *known = Some((document.clone(), Instant::now()));
        Ok(document)
    }

    /// The claims of a token that it has signed for this client, and that holds now.
    pub(super) async fn verify(&self, token: &str, client: &str) -> Result<Claims, Refusal> {
        let wrong = |why: &str| {
            tracing::warn!(why, "an id_token is not taken");
            refused("the provider's token is not taken")
        };
        if token.len() > MAX_TOKEN_BYTES {
            return Err(wrong("it is too long"));
        }
        let head = decode_header(token).map_err(|error| wrong(&error.to_string()))?;
        if !ALGORITHMS.contains(&head.alg) {
            return Err(wrong("its algorithm is none of a key pair"));
        }
        let key = self.key(&head).await?;
        let key = key.ok_or_else(|| wrong("no key of the provider has its id"))?;
        let key = DecodingKey::from_jwk(&key).map_err(|error| wrong(&error.to_string()))?;
        let mut validation = Validation::new(head.alg);
        validation.set_audience(&[client]);
        validation.set_issuer(&[&self.issuer]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        let token = decode::<Claims>(token, &key, &validation);
        Ok(token.map_err(|error| wrong(&error.to_string()))?.claims)
    }

    /// The key that the head names, of keys that were asked for lately, or are asked for now.
    async fn key(&self, head: &Header) -> Result<Option<Jwk>, Refusal> {
        let mut known = self.keys.lock().await;
        if let Some((keys, at)) = known.as_ref() {
            let found = pick(keys, head);
            if (found.is_some() && at.elapsed() < LIFE) || at.elapsed() < KEYS_REST {
                return Ok(found);
            }
        }
        let document = self.document().await?;
        let keys: JwkSet = self.get(&document.jwks_uri).await?;
        let found = pick(&keys, head);
        *known = Some((keys, Instant::now()));
        Ok(found)
    }

    async fn get<T: DeserializeOwned>(&self, url: &str) -> Result<T, Refusal> {
        let request = Request::get(url).header("accept", "application/json");
        let request = request
            .body(Vec::new())
            .map_err(|_| unavailable("a URL of the provider's is none"))?;
        let answer = self.send(request).await.map_err(|error| {
            tracing::warn!(%error, url, "the OpenID provider does not answer");
            unavailable("the OpenID provider does not answer")
        })?;
        let read = serde_json::from_slice(answer.body()).ok();
        read.filter(|_| answer.status().is_success())
            .ok_or_else(|| {
                tracing::warn!(
                    status = answer.status().as_u16(),
                    url,
                    "the OpenID provider does not answer as one"
                );
                unavailable("the OpenID provider does not answer as one")
            })
    }

    /// One exchange, over a connection of its own: logins are rare.
    pub(super) async fn send(&self, request: HttpRequest) -> Result<HttpResponse, ClientError> {
        let (mut head, body) = request.into_parts();
        let endpoint = Endpoint::parse(&head.uri.to_string())?;
        if !endpoint.is_tls {
            let why = "the OpenID provider is asked over TLS only";
            return Err(ClientError::Settings(why.to_owned()));
        }
        head.uri = endpoint.target.clone();
        let tls = Some(Arc::clone(&self.tls));
        let client = HttpClient::new(endpoint, tls, Arc::new(HostNet), &self.version)?;
        let mut client = client.with_longest_answer(MAX_ANSWER_BYTES);
        let request = Request::from_parts(head, Full::new(Bytes::from(body)));
        let answer = client.exchange(request).await?;
        let mut response = HttpResponse::new(answer.body.unwrap_or_default().to_vec());
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        Ok(response)
    }
}

/// The key of this id, if it is one to verify with; of a token that names none, the only one of its kind.
fn pick(keys: &JwkSet, head: &Header) -> Option<Jwk> {
    let verifies = |key: &&Jwk| {
        let common = &key.common;
        let by_use =
            !matches!(&common.public_key_use, Some(other) if *other != PublicKeyUse::Signature);
        let by_operations = common.key_operations.as_ref();
        let by_operations = by_operations.is_none_or(|all| all.contains(&KeyOperations::Verify));
        let by_algorithm = common
            .key_algorithm
            .is_none_or(|named| named.to_string().parse() == Ok(head.alg));
        by_use && by_operations && by_algorithm
    };
    let mut fit = keys.keys.iter().filter(verifies);
    match &head.kid {
        Some(id) => fit
            .find(|key| key.common.key_id.as_ref() == Some(id))
            .cloned(),
        None => fit.next().filter(|_| fit.next().is_none()).cloned(),
    }
}

#[cfg(test)]
mod tests {
    use chaperone_sinks::tls;
    use jsonwebtoken::{EncodingKey, encode, get_current_timestamp};
    use serde_json::{Value, json};

    use super::*;

    const ISSUER: &str = "https://login.example/realm";

    fn key() -> EncodingKey {
        let key = rcgen::KeyPair::generate().unwrap();
        EncodingKey::from_ec_der(key.serialized_der())
    }

    /// A provider whose keys were just read: nothing is asked over the network.
    async fn provider(key: &EncodingKey, change: impl FnOnce(&mut Jwk)) -> Provider {
        let tls = tls::client_config(tls::Settings::default(), None).unwrap();
        let provider = Provider::new(ISSUER, Arc::new(tls), "0").unwrap();
        let mut jwk = Jwk::from_encoding_key(key, Algorithm::ES256).unwrap();
        jwk.common.key_id = Some("k1".to_owned());
        change(&mut jwk);
        let keys = JwkSet { keys: vec![jwk] };
        *provider.keys.lock().await = Some((keys, Instant::now()));
        provider
    }

    fn token(key: &EncodingKey, id: Option<&str>, change: Value) -> String {
        let now = get_current_timestamp();
        let mut claims =
            json!({"iss": ISSUER, "aud": "console", "sub": "ann", "iat": now, "exp": now + 300});
        let claims = claims.as_object_mut().unwrap();
        claims.extend(change.as_object().unwrap().clone());
        claims.retain(|_, value| !value.is_null());
        let mut head = Header::new(Algorithm::ES256);
        head.kid = id.map(str::to_owned);
        encode(&head, claims, key).unwrap()
    }

    #[tokio::test]
    async fn a_token_is_taken_that_the_provider_signed_for_this_client_and_that_holds() {
        let key = key();
        let provider = provider(&key, |_| {}).await;
        for id in [Some("k1"), None] {
            let claims = provider
                .verify(&token(&key, id, json!({})), "console")
                .await;
            assert_eq!(claims.unwrap()["sub"], "ann");
        }
        let now = get_current_timestamp();
        for (what, change) in [
            ("another issuer", json!({"iss": "https://login.example"})),
            ("another client", json!({"aud": "other"})),
            ("no client", json!({"aud": null})),
            ("no issuer", json!({"iss": null})),
            ("nobody", json!({"sub": null})),
            ("no end", json!({"exp": null})),
            ("over", json!({"exp": now - 120})),
            ("not yet", json!({"nbf": now + 600})),
        ] {
            let token = token(&key, Some("k1"), change);
            assert!(provider.verify(&token, "console").await.is_err(), "{what}");
        }
    }

    #[tokio::test]
    async fn nothing_is_taken_that_the_provider_has_not_signed() {
        let (key, other) = (key(), key());
        let known = provider(&key, |_| {}).await;
        let good = token(&key, Some("k1"), json!({}));
        let (head, rest) = good.split_once('.').unwrap();
        let (claims, signature) = rest.split_once('.').unwrap();
        let none = "eyJhbGciOiJub25lIn0";
        let shared = Header {
            kid: Some("k1".to_owned()),
            ..Header::new(Algorithm::HS256)
        };
        // The public key as a shared secret.
        let public = serde_json::to_vec(&Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap());
        let secret = EncodingKey::from_secret(&public.unwrap()).unwrap();
        for forged in [
            token(&other, Some("k1"), json!({})),
            token(&other, None, json!({})),
            token(&key, Some("k2"), json!({})),
            encode(&shared, &json!({"sub": "ann"}), &secret).unwrap(),
            format!("{none}.{claims}."),
            format!("{none}.{claims}.{signature}"),
            format!("{head}.{claims}."),
            format!("{head}.{claims}.{}", signature.replace('A', "B") + "x"),
            good.replace('.', ""),
            "x".repeat(MAX_TOKEN_BYTES + 1),
            String::new(),
        ] {
            assert!(known.verify(&forged, "console").await.is_err(), "{forged}");
        }
        // A key that is for something else, or for another algorithm.
        let encrypts = provider(&key, |jwk| {
            jwk.common.public_key_use = Some(PublicKeyUse::Encryption);
        });
        assert!(encrypts.await.verify(&good, "console").await.is_err());
        let says = provider(&key, |jwk| {
            jwk.common.key_algorithm = Some(jsonwebtoken::jwk::KeyAlgorithm::RS256);
        });
        assert!(says.await.verify(&good, "console").await.is_err());
    }

    #[tokio::test]
    async fn the_provider_is_asked_over_tls_alone() {
        let provider = provider(&key(), |_| {}).await;
        let request = Request::get("http://127.0.0.1:1/")
            .body(Vec::new())
            .unwrap();
        let error = provider.send(request).await.unwrap_err();
        assert!(error.to_string().contains("over TLS"), "{error}");
    }
}
