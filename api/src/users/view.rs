//! Users and tokens as the wire shows them, and what is read from the wire.

use jobs::users::{self, Credentials, Email, NewUser, Password, token};
use poem_openapi::{Object, types::Example};
use serde::Serialize;

use crate::validation::{Fields, FromBody, Wrong};

/// How many characters a password may have: more prove nothing.
const PASSWORD_LENGTH: std::ops::RangeInclusive<usize> = 8..=1024;
/// How many characters a name may have.
const NAME_LENGTH: std::ops::RangeInclusive<usize> = 1..=255;
/// Longer texts are no addresses, and are not searched for what is wrong with them.
const LONGEST_EMAIL: usize = 1024;

/// A registered user.
#[derive(Object, Serialize)]
pub struct User {
    /// Ours, and the `sub` of tokens.
    id: i64,
    /// As it was registered, its domain in lower case.
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

/// Who wants to become a user. Unknown fields are ignored.
#[derive(Object)]
#[oai(example)]
pub struct RegisterRequest {
    /// An e-mail address; capital letters make no difference.
    #[oai(validator(max_length = 254))]
    email: String,
    /// Kept as a hash only (Argon2id).
    #[oai(validator(min_length = 8, max_length = 1024))]
    password: String,
    /// How to address the user.
    #[oai(validator(min_length = 1, max_length = 255))]
    full_name: String,
}

impl Example for RegisterRequest {
    fn example() -> Self {
        let LoginRequest { email, password } = LoginRequest::example();
        Self { email, password, full_name: "Ada Lovelace".into() }
    }
}

/// Who wants a token. Unknown fields are ignored.
#[derive(Object)]
#[oai(example)]
pub struct LoginRequest {
    /// The address of the registration; capital letters make no difference.
    #[oai(validator(max_length = 254))]
    email: String,
    /// The password of the registration.
    #[oai(validator(max_length = 1024))]
    password: String,
}

impl Example for LoginRequest {
    fn example() -> Self {
        Self { email: "ada@example.com".into(), password: "correct horse battery".into() }
    }
}

impl FromBody for NewUser {
    type Schema = RegisterRequest;

    const SECRET: Option<&'static str> = Some("password");

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let email = email(fields);
        let password = fields.text("password", PASSWORD_LENGTH);
        let full_name = fields.text("full_name", NAME_LENGTH);
        Some(Self { email: email?, password: Password::new(password?), full_name: full_name? })
    }
}

impl FromBody for Credentials {
    type Schema = LoginRequest;

    const SECRET: Option<&'static str> = Some("password");

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let email = email(fields);
        // One that is too short is only wrong.
        let password = fields.text("password", 0..=*PASSWORD_LENGTH.end());
        Some(Self { email: email?, password: Password::new(password?) })
    }
}

fn email(fields: &mut Fields<'_>) -> Option<Email> {
    fields.text_as("email", 0..=LONGEST_EMAIL, |text| {
        Email::parse(&text)
            .map_err(|reason| Wrong::new("value_error", format!("value is not a valid email address: {reason}")))
    })
}
