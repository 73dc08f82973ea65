//! Login by an OpenID provider: the authorization code flow (OpenID Connect Core 1.0 section 3.1) with PKCE (RFC 7636).
//!
//! Owns what is asked of the provider and what its answer comes to: a user by the cluster's names, whose rights RBAC knows. Refuses every answer that is not to a question of this process, of a browser that asked it.
//! Names of users and groups are made as kube-apiserver makes them (`--oidc-username-claim` and so on), so that one RoleBinding serves both.

mod claims;
mod provider;
mod settings;

use std::sync::Arc;

use chaperone_server::reviews::User;
use oauth2::{
    AuthUrl, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EndpointNotSet, EndpointSet,
    ExtraTokenFields, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, RequestTokenError, Scope,
    StandardRevocableToken, StandardTokenResponse, TokenUrl,
    basic::{
        BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse,
        BasicTokenType,
    },
};
use serde::{Deserialize, Serialize};

use crate::refusal::{Code, Refusal};
use claims::Names;
use provider::{Document, Provider};

pub use settings::OidcArgs;

/// Bytes of a code, as the provider gives it: what is longer is none.
const MAX_CODE_BYTES: usize = 4096;

/// A provider of logins, and this program as its client.
pub struct Oidc {
    provider: Arc<Provider>,
    client: ClientId,
    secret: Option<ClientSecret>,
    redirect: Option<String>,
    scopes: Vec<String>,
    names: Names,
}

/// A login that was begun: what only this process and the provider's answer know.
pub struct Begun {
    /// Names the question in the answer.
    pub state: String,
    nonce: String,
    verifier: PkceCodeVerifier,
    redirect: String,
}

/// What stands in a token's answer besides the usual.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct IdToken {
    id_token: Option<String>,
}

impl ExtraTokenFields for IdToken {}

type Client<Auth = EndpointNotSet, Token = EndpointNotSet> = oauth2::Client<
    BasicErrorResponse,
    StandardTokenResponse<IdToken, BasicTokenType>,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    Auth,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    Token,
>;

impl Oidc {
    /// Who the provider is, for a page.
    #[must_use]
    pub fn issuer(&self) -> &str {
        self.provider.issuer()
    }

    /// Begins a login: where the browser is sent, and what is to be remembered. `host` is where the browser came to.
    ///
    /// # Errors
    /// [`Code::Unavailable`] where the provider does not answer, or not as one.
    pub async fn begin(&self, host: &str) -> Result<(String, Begun), Refusal> {
        let document = self.provider.document().await?;
        let redirect = match &self.redirect {
            Some(redirect) => redirect.clone(),
            None => format!("https://{host}/console/oidc/callback"),
        };
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let nonce = CsrfToken::new_random().into_secret();
        let client = self.client(&document, &redirect)?;
        let asked = client
            .authorize_url(CsrfToken::new_random)
            .add_scopes(self.scopes.iter().cloned().map(Scope::new))
            .add_extra_param("nonce", &nonce)
            .set_pkce_challenge(challenge);
        let (url, state) = asked.url();
        let begun = Begun {
            state: state.into_secret(),
            nonce,
            verifier,
            redirect,
        };
        Ok((url.to_string(), begun))
    }

    /// Who it is, by the code that the provider gave the browser.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`] where the provider's word is not taken, [`Code::Unavailable`] where it gives none.
    pub async fn finish(&self, begun: Begun, code: &str) -> Result<User, Refusal> {
        if code.is_empty() || code.len() > MAX_CODE_BYTES {
            return Err(refused("the provider gave no code"));
        }
        let document = self.provider.document().await?;
        let client = self.client(&document, &begun.redirect)?;
        let exchange = client
            .exchange_code(AuthorizationCode::new(code.to_owned()))
            .set_pkce_verifier(begun.verifier)
            .request_async(&|request| {
                let provider = Arc::clone(&self.provider);
                async move { provider.send(request).await }
            })
            .await;
        let answer = exchange.map_err(|error| match error {
            RequestTokenError::ServerResponse(said) => {
                tracing::warn!(error = %said, "the provider refuses a login's code");
                refused("the provider does not take its code back: try again")
            }
            error => {
                tracing::warn!(%error, "the provider gives no token");
                unavailable("the provider gives no token")
            }
        })?;
        let token = answer.extra_fields().id_token.as_deref();
        let token = token.ok_or_else(|| refused("the provider's answer has no id_token"))?;
        let claims = self.provider.verify(token, self.client.as_str()).await?;
        claims::known(&claims, &self.names, self.client.as_str(), &begun.nonce)
            .map_err(|why| refused(&why.to_string()))
    }

    fn client(
        &self,
        document: &Document,
        redirect: &str,
    ) -> Result<Client<EndpointSet, EndpointSet>, Refusal> {
        let wrong = |_| unavailable("the provider's document names no endpoints");
        let client = Client::new(self.client.clone());
        let client = match &self.secret {
            Some(secret) => client.set_client_secret(secret.clone()),
            None => client,
        };
        let auth = AuthUrl::new(document.authorization_endpoint.clone()).map_err(wrong)?;
        let token = TokenUrl::new(document.token_endpoint.clone()).map_err(wrong)?;
        let redirect = RedirectUrl::new(redirect.to_owned());
        let redirect = redirect.map_err(|_| {
            Refusal::new(
                Code::Malformed,
                "the request does not say where it came to (Host)",
            )
        })?;
        Ok(client
            .set_auth_uri(auth)
            .set_token_uri(token)
            .set_redirect_uri(redirect))
    }
}

fn refused(why: &str) -> Refusal {
    Refusal::new(Code::Unauthenticated, why)
}

fn unavailable(why: &str) -> Refusal {
    Refusal::new(Code::Unavailable, why)
}
