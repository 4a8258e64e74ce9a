//! Data types of users and their credentials.

use std::fmt;

use strum::{EnumString, IntoStaticStr};

pub(super) use super::email::Email;
use crate::text;

/// A user's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(pub i64);

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The role of a user. The database and tokens have the names in lower case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, EnumString, IntoStaticStr)]
#[strum(serialize_all = "lowercase", const_into_str)]
pub enum Role {
    /// The rights of every user.
    #[default]
    User,
    /// Also the rights of operators.
    Admin,
}

/// A registered user, without the password hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub id: UserId,
    pub email: String,
    pub full_name: String,
    pub role: Role,
}

/// The input of a registration.
#[derive(Debug, Clone)]
pub struct NewUser {
    pub email: Email,
    pub full_name: String,
    pub password: Password,
}

/// The input of a login.
#[derive(Debug, Clone)]
pub struct Credentials {
    pub email: Email,
    pub password: Password,
}

/// A password as the client sent it. `Debug` does not print it, and it leaves this feature only as a hash.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Wraps a password.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The bytes to hash: NFC, because keyboards differ in how they encode an accent (RFC 8265 §4.2).
    pub(super) fn normalised_bytes(&self) -> Vec<u8> {
        text::nfc(&self.0).into_owned().into_bytes()
    }

    /// The bytes as sent, which earlier releases hashed; `None` if they are equal to the normalised ones.
    pub(super) fn bytes_as_sent(&self) -> Option<&[u8]> {
        (text::nfc(&self.0) != self.0).then_some(self.0.as_bytes())
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}
