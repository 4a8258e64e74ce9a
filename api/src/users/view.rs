//! Users and tokens as the wire shows them, and what is read from the wire.

use jobs::users::{self, Credentials, Email, NewUser, Password, token};
use poem_openapi::{Object, registry::MetaSchema};
use serde::Serialize;

use crate::validation::{FieldError, Fields, FromBody, Text, Value, VisibleText, request};

/// Longer texts are no addresses, and are not searched for what is wrong with them.
const LONGEST_EMAIL: usize = 1024;

/// A registered user.
#[derive(Object, Serialize)]
pub struct User {
    /// Ours, and the `sub` of tokens.
    id: i64,
    /// As it was registered, in NFC, its domain in lower case.
    email: String,
    /// As it was registered.
    full_name: String,
}

impl From<users::User> for User {
    fn from(user: users::User) -> Self {
        Self { id: user.id.0, email: user.email, full_name: user.full_name }
    }
}

/// What proves who calls.
#[derive(Object, Serialize)]
pub struct AccessToken {
    /// For the header `Authorization: Bearer …`.
    access_token: String,
    /// Always `bearer`.
    token_type: String,
    /// The seconds for which it is good.
    expires_in: u64,
}

impl AccessToken {
    /// Shows one that has just been issued.
    pub fn new(access_token: String) -> Self {
        Self { access_token, token_type: "bearer".into(), expires_in: token::LIFETIME.as_secs() }
    }
}

request! {
    /// Registers a user. Unknown fields are ignored.
    #[example({"email": "ada@example.com", "password": "correct horse battery", "full_name": "Ada Lovelace"})]
    pub struct RegisterRequest {
        /// An e-mail address; capital letters, width and the encoding of accents make no difference.
        email: Email,
        /// Kept as a hash only (Argon2id); the encoding of accents makes no difference.
        password: SecretText<8, 1024>,
        /// How to address the user; at least one character that can be seen.
        full_name: VisibleText<1, 255>,
    }
}

request! {
    /// Asks for a token. Unknown fields are ignored.
    #[example({"email": "ada@example.com", "password": "correct horse battery"})]
    pub struct LoginRequest {
        /// The address of the registration; capital letters, width and the encoding of accents make no difference.
        email: Email,
        /// The password of the registration. One that is too short is only wrong.
        password: SecretText<0, 1024>,
    }
}

impl FromBody for NewUser {
    type Schema = RegisterRequest;

    const SECRET: Option<&'static str> = RegisterRequest::SECRET;

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let RegisterRequest { email, password, full_name } = RegisterRequest::read(fields)?;
        Some(Self { email, password: password.0, full_name: full_name.0 })
    }
}

impl FromBody for Credentials {
    type Schema = LoginRequest;

    const SECRET: Option<&'static str> = LoginRequest::SECRET;

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let LoginRequest { email, password } = LoginRequest::read(fields)?;
        Some(Self { email, password: password.0 })
    }
}

/// A password of so many characters.
#[derive(Debug)]
struct SecretText<const LEAST: usize, const MOST: usize>(Password);

impl<const LEAST: usize, const MOST: usize> Value for SecretText<LEAST, MOST> {
    const SECRET: bool = true;

    fn schema() -> MetaSchema {
        MetaSchema { format: Some("password"), ..Text::<LEAST, MOST>::schema() }
    }

    fn read(raw: &str) -> Result<Self, FieldError> {
        Text::<LEAST, MOST>::read(raw).map(|Text(text)| Self(Password::new(text)))
    }
}

impl Value for Email {
    fn schema() -> MetaSchema {
        MetaSchema { max_length: Some(254), ..MetaSchema::new_with_format("string", "email") }
    }

    fn read(raw: &str) -> Result<Self, FieldError> {
        let Text(text) = Text::<0, LONGEST_EMAIL>::read(raw)?;
        Self::parse(&text)
            .map_err(|reason| FieldError::new("value_error", format!("value is not a valid email address: {reason}")))
    }
}
