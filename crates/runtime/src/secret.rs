//! Secrets, which no log shows.

use std::{fmt, ops::Deref};

/// A secret. `Debug` hides it, so a type that contains one can derive `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps a secret.
    pub fn new(secret: impl Into<T>) -> Self {
        Self(secret.into())
    }
}

impl<T: Deref> Secret<T> {
    /// The secret itself, for the code that signs, sends or compares it.
    pub fn expose(&self) -> &T::Target {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        let (text, bytes) = (Secret::<String>::new("hunter2"), Secret::<Vec<u8>>::new("hunter2"));
        assert_eq!((text.expose(), bytes.expose()), ("hunter2", &b"hunter2"[..]));
        assert_eq!(format!("{text:?} {bytes:#?}"), "Secret(…) Secret(…)");
    }
}
