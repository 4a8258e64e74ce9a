//! Users: registered once for an e-mail address, known by a password, and from then on by a token.
//!
//! | file | what |
//! |---|---|
//! | `model` | a user and its parts |
//! | [`email`] | what an address looks like |
//! | `password` | hashes, a few at a time |
//! | [`token`] | who calls |
//! | `store` | all SQL |

pub mod email;
mod model;
mod password;
mod store;
pub mod token;

use std::collections::HashSet;

pub use email::Email;
pub use model::{Credentials, NewUser, Password, Role, User, UserId};
use sqlx::PgPool;

use self::password::{Hasher, Verified};
use crate::{boot::db::answered, error::Error, text};

/// The feature. Clones share everything.
#[derive(Debug, Clone)]
pub struct Users {
    pool: PgPool,
    hasher: Hasher,
}

impl Users {
    /// Starts the feature.
    pub fn start(pool: &PgPool) -> Self {
        Self { pool: pool.clone(), hasher: Hasher::default() }
    }

    /// Records a user; `None` when the address is known already.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database cannot take it now, or when too many passwords wait to be hashed.
    pub async fn register(&self, mut new: NewUser) -> Result<Option<User>, Error> {
        let place = self.hasher.place()?;
        let hash = place.hash(std::mem::take(&mut new.password)).await?;
        answered(store::insert(&self.pool, &new, &hash)).await
    }

    /// The user with this address and password; `None` for an unknown address as for a wrong password, after the same
    /// time: either computes one hash.
    ///
    /// # Errors
    /// As [`Users::register`].
    pub async fn login(&self, credentials: Credentials) -> Result<Option<User>, Error> {
        let place = self.hasher.place()?;
        let (user, hash) = answered(store::find_by_email(&self.pool, &credentials.email)).await?.unzip();
        let verified = place.verify(credentials.password, hash.clone()).await?;
        let user = user.filter(|_| verified != Verified::Wrong);
        if let (Some(user), Some(old), Verified::Outdated(new)) = (&user, hash, &verified) {
            answered(store::replace_hash(&self.pool, user.id, &old, new)).await?;
        }
        Ok(user)
    }

    /// Computes the account keys that are missing: those of users that a release without keys has recorded. Of two users
    /// with one key the first one gets it; the other stays without, and is found by its own writing as before.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database cannot take it now.
    pub async fn add_missing_keys(pool: &PgPool) -> Result<u64, Error> {
        const PAGE: i64 = 1000;
        let (mut after, mut added) = (0, 0);
        loop {
            let page = answered(store::without_key(pool, after, PAGE)).await?;
            let Some((last, _)) = page.last() else { return Ok(added) };
            after = *last;
            let mut seen = HashSet::new();
            let keyed = page.into_iter().map(|(id, email)| (id, text::account_key(&email)));
            let (ids, keys): (Vec<_>, Vec<_>) = keyed.filter(|(_, key)| seen.insert(key.clone())).unzip();
            added += answered(store::add_keys(pool, &ids, &keys)).await?;
        }
    }

    /// The user with this id.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database cannot be asked now.
    pub async fn find(&self, id: UserId) -> Result<Option<User>, Error> {
        answered(store::find(&self.pool, id)).await
    }
}
