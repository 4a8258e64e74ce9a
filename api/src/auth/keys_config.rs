//! The configured keys of callers, and secrets that no log shows.

use std::fmt;

/// The keys of callers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeysConfig {
    /// `API_KEY`: the key of private routes.
    pub api: Secret,
    /// `ADMIN_API_KEY`: the key of admin routes.
    pub admin: Secret,
    /// `VIEWER_API_KEY`: the key that reads operator routes and may not act; `None` means that no key may do only that.
    pub viewer: Option<Secret>,
    /// `JWT_SECRET`: signs the tokens of users; `None` means a random secret for this process.
    pub jwt: Option<Secret>,
}

/// Secret bytes. Their `Debug` output hides them.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Wraps these bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes themselves, for cryptographic functions.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
