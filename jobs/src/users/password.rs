//! Password hashing with limited concurrency, so that any number of logins leaves processors for other requests.

use std::{num::NonZero, sync::Arc};

use argon2::{
    Argon2, PasswordHash, PasswordHasher, PasswordVerifier,
    password_hash::{self, SaltString, rand_core::OsRng},
};
use metrics::{counter, describe_counter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::model::Password;
use runtime::error::Error;

/// Computed hashes, for registrations and for comparisons.
const HASHES: &str = "millrace_password_hashes_total";
/// The length of the queue, per hashing thread. A hash takes about 25 ms, so the last request in the queue waits less
/// than 1 s. Further requests are refused: their clients would have given up before their turn.
const WAITING_PER_THREAD: usize = 32;
/// The salt of the hash that is computed for an unknown user. Every salt costs the same time.
const UNUSED_SALT: &[u8] = b"unused salt text";

/// The hasher. Clones share its threads and its queue.
#[derive(Debug, Clone)]
pub(super) struct Hasher {
    /// A permit for each request that hashes or waits.
    slots: Arc<Semaphore>,
    /// A permit for each request that hashes.
    threads: Arc<Semaphore>,
}

impl Default for Hasher {
    /// Uses half of the processors; the other half stays free for requests. Each hash takes 19 MiB while it is
    /// computed.
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self::new((processors / 2).max(1))
    }
}

impl Hasher {
    /// A hasher that computes at most `threads` hashes at the same time.
    pub(super) fn new(threads: usize) -> Self {
        describe_counter!(
            HASHES,
            "Password hashes computed: one for each registration and each login, successful or not."
        );
        counter!(HASHES).absolute(0);
        let slots = threads.saturating_mul(WAITING_PER_THREAD + 1).min(Semaphore::MAX_PERMITS);
        Self { slots: Arc::new(Semaphore::new(slots)), threads: Arc::new(Semaphore::new(threads)) }
    }

    /// Reserves a slot in the queue until the hash is computed. Reserve it before other work, so that a refused request
    /// costs nothing.
    ///
    /// # Errors
    /// Returns [`Error::Unavailable`] if the queue is full.
    pub(super) fn reserve(&self) -> Result<QueueSlot, Error> {
        match Arc::clone(&self.slots).try_acquire_owned() {
            Ok(permit) => Ok(QueueSlot { _permit: permit, threads: Arc::clone(&self.threads) }),
            Err(_) => Err(Error::Unavailable("too many passwords wait to be hashed".into())),
        }
    }
}

/// A slot in the queue of a [`Hasher`].
#[derive(Debug)]
pub(super) struct QueueSlot {
    _permit: OwnedSemaphorePermit,
    threads: Arc<Semaphore>,
}

impl QueueSlot {
    /// Hashes a password by Argon2id with a new salt, and returns a PHC string.
    ///
    /// # Errors
    /// Returns [`Error::Internal`] if the hash cannot be computed.
    pub(super) async fn hash(self, password: Password) -> Result<String, Error> {
        self.compute(move || hash(&password.normalised_bytes())).await
    }

    /// Compares a password with a hash: first normalised, then as sent, which earlier releases hashed. Without a hash
    /// the password is wrong, and the comparison takes the same time.
    ///
    /// # Errors
    /// Returns [`Error::Internal`] if the hash cannot be parsed.
    pub(super) async fn verify(self, password: Password, hash: Option<String>) -> Result<Verification, Error> {
        self.compute(move || {
            let (hash, normalised) = (hash.as_deref(), password.normalised_bytes());
            if matches_hash(hash, &normalised)? {
                return Ok(Verification::Right);
            }
            match password.bytes_as_sent() {
                Some(as_sent) if matches_hash(hash, as_sent)? => self::hash(&normalised).map(Verification::Outdated),
                _ => Ok(Verification::Wrong),
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
            let result = work();
            // The permits are held until the work ends, even if the request is cancelled.
            drop((thread, self));
            result
        });
        computing.await.map_err(|error| Error::Internal(format!("hashing a password: {error}")))?
    }
}

/// The result of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verification {
    Right,
    /// Right, but the hash is not of the normalised password. Contains the new hash.
    Outdated(String),
    Wrong,
}

/// Hashes a password with a new salt.
fn hash(password: &[u8]) -> Result<String, Error> {
    let salt = SaltString::generate(&mut OsRng);
    Ok(algorithm().hash_password(password, &salt).map_err(hash_error)?.to_string())
}

/// Whether a hash is the hash of these bytes.
fn matches_hash(hash: Option<&str>, password: &[u8]) -> Result<bool, Error> {
    let Some(hash) = hash else {
        let mut output = [0; argon2::Params::DEFAULT_OUTPUT_LEN];
        let hashed = algorithm().hash_password_into(password, UNUSED_SALT, &mut output);
        return hashed.map(|()| false).map_err(|error| hash_error(error.into()));
    };
    // The parameters and the salt come from the hash.
    match algorithm().verify_password(password, &PasswordHash::new(hash).map_err(hash_error)?) {
        Ok(()) => Ok(true),
        Err(password_hash::Error::Password) => Ok(false),
        Err(error) => Err(hash_error(error)),
    }
}

/// Argon2id, version 0x13, 19 MiB, two passes, one lane: OWASP's recommendation and the crate's default.
fn algorithm() -> Argon2<'static> {
    Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, argon2::Params::DEFAULT)
}

/// Converts an error of the hash function. The text contains neither the password nor the hash.
fn hash_error(error: password_hash::Error) -> Error {
    Error::Internal(format!("hashing a password: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> Password {
        Password::new(text.into())
    }

    #[tokio::test]
    async fn hashes_are_argon2id_with_different_salts() {
        let hasher = Hasher::new(2);
        let one = hasher.reserve().expect("a free slot").hash(password("correct horse")).await.expect("a hash");
        let other = hasher.reserve().expect("a free slot").hash(password("correct horse")).await.expect("a hash");
        assert!(one.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{one}");
        assert_ne!(one, other);
        let verify = async |typed, hash| hasher.reserve().ok()?.verify(password(typed), hash).await.ok();
        for (typed, verification) in [
            ("correct horse", Verification::Right),
            ("Correct horse", Verification::Wrong),
            ("correct horse ", Verification::Wrong),
            ("", Verification::Wrong),
        ] {
            assert_eq!(verify(typed, Some(one.clone())).await, Some(verification), "{typed:?}");
        }
        assert_eq!(verify("correct horse", None).await, Some(Verification::Wrong));
    }

    #[tokio::test]
    async fn both_encodings_of_an_accent_are_the_same_password() {
        const COMPOSED: &str = "caf\u{e9} noir";
        const DECOMPOSED: &str = "cafe\u{301} noir";
        let hasher = Hasher::new(1);
        let verify = async |typed, hash: &str| {
            hasher.reserve().expect("a free slot").verify(password(typed), Some(hash.into())).await.expect("compared")
        };
        let new = hasher.reserve().expect("a free slot").hash(password(DECOMPOSED)).await.expect("a hash");
        for typed in [COMPOSED, DECOMPOSED] {
            assert_eq!(verify(typed, &new).await, Verification::Right, "{typed}");
        }
        assert_eq!(verify("cafe noir", &new).await, Verification::Wrong);
        // A hash of an earlier release.
        let old = super::hash(DECOMPOSED.as_bytes()).expect("a hash");
        let Verification::Outdated(newer) = verify(DECOMPOSED, &old).await else {
            panic!("the password is right and the hash is outdated")
        };
        assert_eq!(verify(COMPOSED, &newer).await, Verification::Right);
        assert_eq!(verify("cafe\u{300} noir", &old).await, Verification::Wrong);
    }

    #[tokio::test]
    async fn an_unreadable_hash_is_an_internal_error_without_secrets() {
        let slot = Hasher::new(1).reserve().expect("a free slot");
        let error = slot.verify(password("secret"), Some("$argon2id$x".into())).await.expect_err("unreadable");
        assert!(matches!(&error, Error::Internal(text) if !text.contains("secret") && !text.contains("$x")), "{error}");
    }

    #[tokio::test]
    async fn a_full_queue_refuses_requests() {
        let hasher = Hasher::new(1);
        let mut slots: Vec<_> = (0..=WAITING_PER_THREAD).map(|_| hasher.reserve().expect("a free slot")).collect();
        assert!(matches!(hasher.reserve(), Err(Error::Unavailable(_))));
        // A slot is released when a request is cancelled, and when its hash is computed.
        drop(slots.pop());
        assert!(hasher.reserve().expect("a free slot").hash(password("x")).await.is_ok());
        assert!(hasher.reserve().is_ok());
    }

    #[tokio::test]
    async fn concurrent_hashes_are_limited() {
        let hasher = Hasher::new(1);
        let thread = hasher.threads.clone().acquire_owned().await.expect("the only thread");
        let mut hash = Box::pin(hasher.reserve().expect("a free slot").hash(password("x")));
        assert!(futures_util::poll!(&mut hash).is_pending());
        let before = hasher.slots.available_permits();
        drop(thread);
        assert!(hash.await.is_ok());
        assert_eq!(hasher.slots.available_permits(), before + 1);
        assert_eq!(hasher.threads.available_permits(), 1);
    }
}
