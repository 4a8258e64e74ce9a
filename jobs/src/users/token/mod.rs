//! Access tokens: JSON Web Tokens with one key and one algorithm. Only this module issues and checks them.

use std::{fmt, sync::Arc, time::Duration};

use argon2::password_hash::rand_core::{OsRng, RngCore};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::model::{Role, UserId};
use runtime::error::Error;

/// The lifetime of a token.
pub const LIFETIME: Duration = Duration::from_secs(3600);
/// The key length: that of the HS256 hash (RFC 7518 §3.2).
const KEY_BYTES: usize = 32;
/// The limit of a token. Our tokens have about 180 bytes; longer texts are refused without parsing.
const MAX_BYTES: usize = 4096;

/// Issues and checks tokens with the system's key. Clones share the key.
#[derive(Clone)]
pub struct Tokens(Arc<Keys>);

struct Keys {
    sign: EncodingKey,
    check: DecodingKey,
    validation: Validation,
}

/// The claims of a valid token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The `sub` claim: the id of a user in tokens that we issue; `unknown` if another system issued one without it.
    pub subject: String,
    /// The role of the subject.
    pub role: Role,
}

impl Claims {
    /// The user id; `None` if the subject is not a user, as in a token that another system issued with our key.
    pub fn user(&self) -> Option<UserId> {
        // `+1` and `01` parse as numbers, but are not the canonical form of an id.
        let id: i64 = self.subject.parse().ok()?;
        (id > 0 && id.to_string() == self.subject).then_some(UserId(id))
    }
}

/// Why a token is invalid. The reason is for the log only: the client does not see it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidToken(String);

/// The `sub` claim. It is a text (RFC 7519 §4.1.2), but some issuers write a number.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Subject {
    Text(String),
    Number(i64),
}

/// The claims in the token's payload.
#[derive(Debug, Serialize, Deserialize)]
struct WireClaims {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sub: Option<Subject>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iat: Option<serde_json::Number>,
    exp: serde_json::Number,
}

impl Tokens {
    /// Tokens with this key.
    pub fn new(key: &[u8]) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = 0;
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp"]);
        let (sign, check) = (EncodingKey::from_secret(key), DecodingKey::from_secret(key));
        Self(Arc::new(Keys { sign, check, validation }))
    }

    /// Tokens with a random key that exists only in this process.
    pub fn random() -> Self {
        let mut key = [0; KEY_BYTES];
        OsRng.fill_bytes(&mut key);
        Self::new(&key)
    }

    /// Issues a token for a user, valid for [`LIFETIME`] from now.
    ///
    /// # Errors
    /// Fails if the token cannot be signed.
    pub fn issue(&self, user: UserId, role: Role) -> Result<String, Error> {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let claims = WireClaims {
            sub: Some(Subject::Text(user.to_string())),
            role: Some(role.into_str().into()),
            iat: Some(now.into()),
            exp: now.saturating_add_unsigned(LIFETIME.as_secs()).into(),
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.0.sign)
            .map_err(|error| Error::Internal(format!("cannot sign a token: {error}")))
    }

    /// Returns the claims of a token that is signed with our key and valid now.
    ///
    /// # Errors
    /// Returns the reason if it is not.
    pub fn check(&self, token: &str) -> Result<Claims, InvalidToken> {
        let invalid = |reason: &dyn fmt::Display| InvalidToken(reason.to_string());
        if token.len() > MAX_BYTES {
            return Err(invalid(&"longer than any of ours"));
        }
        let data = jsonwebtoken::decode::<WireClaims>(token, &self.0.check, &self.0.validation)
            .map_err(|error| invalid(&error))?;
        // RFC 7515 §4.1.11: a token with unsupported critical extensions must be refused. We support none.
        if data.header.crit.is_some() {
            return Err(invalid(&"has critical extensions"));
        }
        let role = match data.claims.role {
            None => Role::User,
            Some(name) => name.parse().map_err(|_| invalid(&"has an unknown role"))?,
        };
        let subject = match data.claims.sub {
            Some(Subject::Text(text)) => text,
            Some(Subject::Number(number)) => number.to_string(),
            None => "unknown".into(),
        };
        Ok(Claims { subject, role })
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens(…)")
    }
}

#[cfg(test)]
mod tests;
