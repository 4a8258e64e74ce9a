//! Users: registration by e-mail address, login by password, and access tokens.

pub mod email;
mod model;
mod password;
mod store;
pub mod token;

use std::collections::HashSet;

pub use email::Email;
pub use model::{Credentials, NewUser, Password, Role, User, UserId};

use self::password::{Hasher, Verification};
use crate::text;
use runtime::{db::Pool, error::Error};

/// The feature. Clones share its state.
#[derive(Debug, Clone)]
pub struct Users {
    pool: Pool,
    hasher: Hasher,
}

impl Users {
    /// Starts the feature.
    pub fn start(pool: &Pool) -> Self {
        Self { pool: pool.clone(), hasher: Hasher::default() }
    }

    /// Creates a user; `None` if the address is known already.
    ///
    /// # Errors
    /// Returns [`Error::Unavailable`] if the database cannot take the write now, or if too many passwords wait to be
    /// hashed.
    pub async fn register(&self, mut new: NewUser) -> Result<Option<User>, Error> {
        let slot = self.hasher.reserve()?;
        let hash = slot.hash(std::mem::take(&mut new.password)).await?;
        store::insert(&self.pool, &new, &hash).await
    }

    /// Returns the user with this address and password; `None` if the address is unknown or the password is wrong. Both
    /// take the same time, because each computes one hash.
    ///
    /// # Errors
    /// Returns [`Error::Unavailable`] if the database cannot be reached now, or if too many passwords wait to be
    /// hashed.
    pub async fn login(&self, credentials: Credentials) -> Result<Option<User>, Error> {
        let slot = self.hasher.reserve()?;
        let (user, hash) = store::find_by_email(&self.pool, &credentials.email).await?.unzip();
        let verification = slot.verify(credentials.password, hash.clone()).await?;
        let user = user.filter(|_| verification != Verification::Wrong);
        if let (Some(user), Some(old), Verification::Outdated(new)) = (&user, hash, &verification) {
            store::replace_hash(&self.pool, user.id, &old, new).await?;
        }
        Ok(user)
    }

    /// Computes the missing account keys of users that a release without keys created. If two users have the same key,
    /// the first one gets it. The other one keeps none, and is still found by its address as written.
    ///
    /// # Errors
    /// Returns [`Error::Unavailable`] if the database cannot take the write now.
    pub async fn add_missing_keys(pool: &Pool) -> Result<u64, Error> {
        const PAGE: i64 = 1000;
        let (mut after, mut added) = (0, 0);
        loop {
            let page = store::without_key(pool, after, PAGE).await?;
            let Some((last, _)) = page.last() else { return Ok(added) };
            after = *last;
            let mut seen = HashSet::new();
            let keyed = page.into_iter().map(|(id, email)| (id, text::account_key(&email)));
            let (ids, keys): (Vec<_>, Vec<_>) = keyed.filter(|(_, key)| seen.insert(key.clone())).unzip();
            added += store::add_keys(pool, &ids, &keys).await?;
        }
    }

    /// Returns the user with this id.
    ///
    /// # Errors
    /// Returns [`Error::Unavailable`] if the database cannot be read now.
    pub async fn find(&self, id: UserId) -> Result<Option<User>, Error> {
        store::find(&self.pool, id).await
    }
}
