//! The configured keys of callers.

use runtime::secret::Secret;

/// The keys of callers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeysConfig {
    /// `API_KEY`: the key of private routes.
    pub api: Secret<Vec<u8>>,
    /// `ADMIN_API_KEY`: the key of admin routes.
    pub admin: Secret<Vec<u8>>,
    /// `VIEWER_API_KEY`: the key that reads operator routes and may not act; `None` means that no key may do only that.
    pub viewer: Option<Secret<Vec<u8>>>,
    /// `JWT_SECRET`: signs the tokens of users; `None` means a random secret for this process.
    pub jwt: Option<Secret<Vec<u8>>>,
}
