//! Wire types of the users endpoints.

use jobs::users::{self, Credentials, Email, NewUser, Password, token};
use poem_openapi::{Object, registry::MetaSchema};
use serde::Serialize;

use crate::validation::{FieldError, Text, Value, VisibleText, request};

/// The longest text that is parsed as an e-mail address. Longer ones are rejected unparsed.
const MAX_EMAIL_LENGTH: usize = 1024;

/// A registered user.
#[derive(Object, Serialize)]
pub(super) struct User {
    /// The user's id, which is also the `sub` of tokens.
    id: i64,
    /// The registered address, in NFC and with its domain in lower case.
    email: String,
    /// The registered name.
    full_name: String,
}

impl From<users::User> for User {
    fn from(user: users::User) -> Self {
        Self { id: user.id.0, email: user.email, full_name: user.full_name }
    }
}

/// An access token.
#[derive(Object, Serialize)]
pub(super) struct AccessToken {
    /// The token to send in the header `Authorization: Bearer …`.
    access_token: String,
    /// Always `bearer`.
    token_type: String,
    /// The token's lifetime in seconds.
    expires_in: u64,
}

impl AccessToken {
    /// The response for a token that has just been issued.
    pub(super) fn new(access_token: String) -> Self {
        Self { access_token, token_type: "bearer".into(), expires_in: token::LIFETIME.as_secs() }
    }
}

request! {
    /// A registration. Unknown fields are ignored.
    #[example({"email": "ada@example.com", "password": "correct horse battery", "full_name": "Ada Lovelace"})]
    RegisterRequest for NewUser {
        /// An e-mail address. Case, character width and the encoding of accents are ignored.
        email: Email,
        /// Stored only as a hash (Argon2id). The encoding of accents is ignored.
        password: SecretText<8, 1024>,
        /// The user's name, with at least one visible character.
        full_name: VisibleText<1, 255>,
    }
}

request! {
    /// A login. Unknown fields are ignored.
    #[example({"email": "ada@example.com", "password": "correct horse battery"})]
    LoginRequest for Credentials {
        /// The registered address. Case, character width and the encoding of accents are ignored.
        email: Email,
        /// The registered password. A password that is too short is a wrong password, not a 422.
        password: SecretText<0, 1024>,
    }
}

/// A password of `MIN` to `MAX` characters.
struct SecretText<const MIN: usize, const MAX: usize>;

impl<const MIN: usize, const MAX: usize> Value for SecretText<MIN, MAX> {
    type Out = Password;

    const SECRET: bool = true;

    fn schema() -> MetaSchema {
        MetaSchema { format: Some("password"), ..Text::<MIN, MAX>::schema() }
    }

    fn read(raw: &str) -> Result<Password, FieldError> {
        Text::<MIN, MAX>::read(raw).map(Password::new)
    }
}

impl Value for Email {
    type Out = Self;

    fn schema() -> MetaSchema {
        MetaSchema { max_length: Some(254), ..MetaSchema::new_with_format("string", "email") }
    }

    fn read(raw: &str) -> Result<Self, FieldError> {
        let text = Text::<0, MAX_EMAIL_LENGTH>::read(raw)?;
        Self::parse(&text)
            .map_err(|reason| FieldError::new("value_error", format!("value is not a valid email address: {reason}")))
    }
}
