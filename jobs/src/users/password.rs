//! Hashes of passwords, made by a few threads at a time: however many ask, processors are left for everybody else.

use std::{num::NonZero, sync::Arc};

use argon2::{
    Argon2, PasswordHash, PasswordHasher, PasswordVerifier,
    password_hash::{self, SaltString, rand_core::OsRng},
};
use metrics::{counter, describe_counter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::model::Password;
use crate::error::Error;

/// Every computation of a hash, whether to keep it or to compare it.
const HASHES: &str = "millrace_password_hashes_total";
/// Who waits for a thread, for each that hashes. A hash takes some 25 ms, so the last one in the queue waits less than a
/// second; whoever comes then is told to come back, since by the time of its turn its client would have given up.
const WAITING: usize = 32;
/// Compared with when there is no hash to compare with. Any salt costs the same.
const UNUSED_SALT: &[u8] = b"nobody has this!";

/// Computes hashes. Clones share the threads.
#[derive(Debug, Clone)]
pub struct Hasher {
    /// One for each that hashes or waits.
    places: Arc<Semaphore>,
    /// One for each that hashes.
    threads: Arc<Semaphore>,
}

impl Default for Hasher {
    /// Half of the processors: the other half goes on serving. Each hash takes 19 MiB as long as it lasts.
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self::new((processors / 2).max(1))
    }
}

impl Hasher {
    /// Computes at most so many hashes at a time.
    pub fn new(threads: usize) -> Self {
        describe_counter!(
            HASHES,
            "Password hashes computed: one for each registration and each login, right or wrong."
        );
        counter!(HASHES).absolute(0);
        let places = threads.saturating_mul(WAITING + 1).min(Semaphore::MAX_PERMITS);
        Self { places: Arc::new(Semaphore::new(places)), threads: Arc::new(Semaphore::new(threads)) }
    }

    /// A place in the queue, kept until its hash is computed. Whoever gets none has cost nothing yet.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when too many wait already.
    pub fn place(&self) -> Result<Place, Error> {
        match Arc::clone(&self.places).try_acquire_owned() {
            Ok(permit) => Ok(Place { _permit: permit, threads: Arc::clone(&self.threads) }),
            Err(_) => Err(Error::Unavailable("too many passwords wait to be hashed".into())),
        }
    }
}

/// A place in the queue of a [`Hasher`].
#[derive(Debug)]
pub struct Place {
    _permit: OwnedSemaphorePermit,
    threads: Arc<Semaphore>,
}

impl Place {
    /// A new hash of a password: Argon2id with a salt of its own, as a PHC string.
    ///
    /// # Errors
    /// [`Error::Internal`] when it cannot be computed.
    pub async fn hash(self, password: Password) -> Result<String, Error> {
        self.compute(move || hash(&password.normalised())).await
    }

    /// Compares a password with a hash: normalised first, then as it came, which earlier releases hashed. Without a hash
    /// it is wrong, which takes as long to find out.
    ///
    /// # Errors
    /// [`Error::Internal`] when the hash is not readable.
    pub async fn verify(self, password: Password, hash: Option<String>) -> Result<Verified, Error> {
        self.compute(move || {
            let (hash, normalised) = (hash.as_deref(), password.normalised());
            if is_of(hash, &normalised)? {
                return Ok(Verified::Right);
            }
            match password.as_sent() {
                Some(as_sent) if is_of(hash, as_sent)? => self::hash(&normalised).map(Verified::Outdated),
                _ => Ok(Verified::Wrong),
            }
        })
        .await
    }

    async fn compute<T: Send + 'static>(
        self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let closed = |error: tokio::sync::AcquireError| Error::Internal(error.to_string());
        let thread = Arc::clone(&self.threads).acquire_owned().await.map_err(closed)?;
        counter!(HASHES).increment(1);
        let computing = tokio::task::spawn_blocking(move || {
            let done = work();
            // Held to the end of the work, even when nobody waits for it any more.
            drop((thread, self));
            done
        });
        computing.await.map_err(|error| Error::Internal(format!("hashing a password: {error}")))?
    }
}

/// What a comparison found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verified {
    Right,
    /// Right, but the hash is not of the normalised password; this one is.
    Outdated(String),
    Wrong,
}

/// A hash with a salt of its own.
fn hash(password: &[u8]) -> Result<String, Error> {
    let salt = SaltString::generate(&mut OsRng);
    Ok(algorithm().hash_password(password, &salt).map_err(broken)?.to_string())
}

/// Whether a hash is of these bytes.
fn is_of(hash: Option<&str>, password: &[u8]) -> Result<bool, Error> {
    let Some(hash) = hash else {
        let mut nowhere = [0; argon2::Params::DEFAULT_OUTPUT_LEN];
        let hashed = algorithm().hash_password_into(password, UNUSED_SALT, &mut nowhere);
        return hashed.map(|()| false).map_err(|error| broken(error.into()));
    };
    // Parameters and salt are the hash's own.
    match algorithm().verify_password(password, &PasswordHash::new(hash).map_err(broken)?) {
        Ok(()) => Ok(true),
        Err(password_hash::Error::Password) => Ok(false),
        Err(error) => Err(broken(error)),
    }
}

/// Argon2id, version 0x13, 19 MiB, two passes, one lane: what OWASP recommends, and the crate's default.
fn algorithm() -> Argon2<'static> {
    Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, argon2::Params::DEFAULT)
}

/// Says what is wrong with a stored hash, or with the machine, but never what was hashed.
fn broken(error: password_hash::Error) -> Error {
    Error::Internal(format!("hashing a password: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> Password {
        Password::new(text.into())
    }

    #[tokio::test]
    async fn hashes_are_argon2id_with_salts_of_their_own() {
        let hasher = Hasher::new(2);
        let one = hasher.place().expect("a place").hash(password("correct horse")).await.expect("a hash");
        let other = hasher.place().expect("a place").hash(password("correct horse")).await.expect("a hash");
        assert!(one.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{one}");
        assert_ne!(one, other);
        let verify = async |typed, hash| hasher.place().ok()?.verify(password(typed), hash).await.ok();
        for (typed, verified) in [
            ("correct horse", Verified::Right),
            ("Correct horse", Verified::Wrong),
            ("correct horse ", Verified::Wrong),
            ("", Verified::Wrong),
        ] {
            assert_eq!(verify(typed, Some(one.clone())).await, Some(verified), "{typed:?}");
        }
        assert_eq!(verify("correct horse", None).await, Some(Verified::Wrong));
    }

    #[tokio::test]
    async fn both_encodings_of_an_accent_are_one_password() {
        const COMPOSED: &str = "caf\u{e9} noir";
        const DECOMPOSED: &str = "cafe\u{301} noir";
        let hasher = Hasher::new(1);
        let verify = async |typed, hash: &str| {
            hasher.place().expect("a place").verify(password(typed), Some(hash.into())).await.expect("compared")
        };
        let new = hasher.place().expect("a place").hash(password(DECOMPOSED)).await.expect("a hash");
        for typed in [COMPOSED, DECOMPOSED] {
            assert_eq!(verify(typed, &new).await, Verified::Right, "{typed}");
        }
        assert_eq!(verify("cafe noir", &new).await, Verified::Wrong);
        // As an earlier release made it.
        let old = super::hash(DECOMPOSED.as_bytes()).expect("a hash");
        let Verified::Outdated(newer) = verify(DECOMPOSED, &old).await else { panic!("it is right, and old") };
        assert_eq!(verify(COMPOSED, &newer).await, Verified::Right);
        assert_eq!(verify("cafe\u{300} noir", &old).await, Verified::Wrong);
    }

    #[tokio::test]
    async fn a_hash_that_is_none_is_our_fault_and_shows_nothing() {
        let place = Hasher::new(1).place().expect("a place");
        let error = place.verify(password("secret"), Some("$argon2id$x".into())).await.expect_err("unreadable");
        assert!(matches!(&error, Error::Internal(text) if !text.contains("secret") && !text.contains("$x")), "{error}");
    }

    #[tokio::test]
    async fn beyond_the_queue_nobody_waits() {
        let hasher = Hasher::new(1);
        let mut places: Vec<_> = (0..=WAITING).map(|_| hasher.place().expect("a place")).collect();
        assert!(matches!(hasher.place(), Err(Error::Unavailable(_))));
        // Who gives up leaves its place to the next one, and so does who is served.
        drop(places.pop());
        assert!(hasher.place().expect("a place").hash(password("x")).await.is_ok());
        assert!(hasher.place().is_ok());
    }

    #[tokio::test]
    async fn only_so_many_are_computed_at_a_time() {
        let hasher = Hasher::new(1);
        let thread = hasher.threads.clone().acquire_owned().await.expect("the only thread");
        let mut hash = Box::pin(hasher.place().expect("a place").hash(password("x")));
        assert!(futures_util::poll!(&mut hash).is_pending());
        let before = hasher.places.available_permits();
        drop(thread);
        assert!(hash.await.is_ok());
        assert_eq!(hasher.places.available_permits(), before + 1);
        assert_eq!(hasher.threads.available_permits(), 1);
    }
}
