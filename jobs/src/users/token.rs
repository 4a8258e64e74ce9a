//! Tokens that say who calls: JSON Web Tokens under one key and one algorithm, made and checked nowhere else.

use std::{fmt, sync::Arc, time::Duration};

use argon2::password_hash::rand_core::{OsRng, RngCore};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::model::{Role, UserId};
use crate::error::Error;

/// How long a token is good for.
pub const LIFETIME: Duration = Duration::from_secs(3600);
/// Clocks of two machines may differ by this much.
const LEEWAY: Duration = Duration::from_secs(30);
/// As long as the hash of HS256 (RFC 7518 §3.2).
const KEY_BYTES: usize = 32;
/// A token of ours has some 180 bytes; one of a stranger need not be read to its end.
const LONGEST: usize = 4096;

/// The one key of a system, which makes tokens and checks them. Clones share it.
#[derive(Clone)]
pub struct Tokens(Arc<Keys>);

struct Keys {
    sign: EncodingKey,
    check: DecodingKey,
    validation: Validation,
}

/// What a valid token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Whom it is about; the id of a user in tokens that we make.
    pub subject: String,
    /// What that one may do.
    pub role: Role,
}

impl Claims {
    /// The user that it is about; none in a token that something else was given under our key.
    pub fn user(&self) -> Option<UserId> {
        // `+1` and `01` are numbers, but not how an id is written.
        let id: i64 = self.subject.parse().ok()?;
        (id > 0 && id.to_string() == self.subject).then_some(UserId(id))
    }
}

/// Why a token is not valid. It is for the log: who shows a wrong token is not told what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

/// The claims as they travel.
#[derive(Debug, Serialize, Deserialize)]
struct Wire {
    sub: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iat: Option<serde_json::Number>,
    exp: serde_json::Number,
}

impl Tokens {
    /// Tokens under this key.
    pub fn new(key: &[u8]) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = LEEWAY.as_secs();
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp", "sub"]);
        let (sign, check) = (EncodingKey::from_secret(key), DecodingKey::from_secret(key));
        Self(Arc::new(Keys { sign, check, validation }))
    }

    /// Tokens under a key that nobody knows, and that ends with this process.
    pub fn random() -> Self {
        let mut key = [0; KEY_BYTES];
        OsRng.fill_bytes(&mut key);
        Self::new(&key)
    }

    /// A token for a user, good from now on for [`LIFETIME`].
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn issue(&self, user: UserId, role: Role) -> Result<String, Error> {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let claims = Wire {
            sub: user.to_string(),
            role: Some(role.as_str().into()),
            iat: Some(now.into()),
            exp: now.saturating_add_unsigned(LIFETIME.as_secs()).into(),
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.0.sign)
            .map_err(|error| Error::Internal(format!("cannot sign a token: {error}")))
    }

    /// What a token says, if it is one of ours and good now.
    ///
    /// # Errors
    /// Why it is not.
    pub fn check(&self, token: &str) -> Result<Claims, Refused> {
        let refused = |why: &dyn fmt::Display| Refused(why.to_string());
        if token.len() > LONGEST {
            return Err(refused(&"longer than any of ours"));
        }
        let data =
            jsonwebtoken::decode::<Wire>(token, &self.0.check, &self.0.validation).map_err(|error| refused(&error))?;
        // RFC 7515 §4.1.11: who does not understand what is critical must refuse it; we understand nothing of the kind.
        if data.header.crit.is_some() {
            return Err(refused(&"has critical extensions"));
        }
        let role = match data.claims.role {
            None => Role::User,
            Some(name) => Role::parse(&name).ok_or_else(|| refused(&"has an unknown role"))?,
        };
        Ok(Claims { subject: data.claims.sub, role })
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens(…)")
    }
}

#[cfg(test)]
mod tests;
