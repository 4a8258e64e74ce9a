//! A user and its parts.

use std::fmt;

pub use super::email::Email;
use crate::text;

/// A user's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(pub i64);

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a user may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Role {
    /// What everybody may.
    #[default]
    User,
    /// Also what operators may.
    Admin,
}

impl Role {
    /// Its name in the database and in tokens.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Admin => "admin",
        }
    }

    /// Reads its name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::User, Self::Admin].into_iter().find(|role| role.as_str() == text)
    }
}

/// A registered user, without what proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub id: UserId,
    pub email: String,
    pub full_name: String,
    pub role: Role,
}

/// Who wants to become a user.
#[derive(Debug, Clone)]
pub struct NewUser {
    pub email: Email,
    pub full_name: String,
    pub password: Password,
}

/// Who wants to be taken for a user.
#[derive(Debug, Clone)]
pub struct Credentials {
    pub email: Email,
    pub password: Password,
}

/// A password as it was typed. It is never printed, and never leaves this feature but as a hash.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Hides it.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// What is hashed: its bytes in NFC, since keyboards differ in how they encode an accent (RFC 8265 §4.2).
    pub(super) fn normalised(&self) -> Vec<u8> {
        text::nfc(&self.0).into_owned().into_bytes()
    }

    /// Its bytes as they came, unless those are the normalised ones: what earlier releases hashed.
    pub(super) fn as_sent(&self) -> Option<&[u8]> {
        (text::nfc(&self.0) != self.0).then_some(self.0.as_bytes())
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}
