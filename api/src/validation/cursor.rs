//! Pagination cursors: bytes in URL-safe base64, which clients get in a `Link` header and send back.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use poem_openapi::registry::MetaSchema;

use super::{FieldError, QueryValue};

/// The alphabet of URL-safe base64.
const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A cursor of `BYTES` bytes. It is opaque to clients: its form may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor<const BYTES: usize>(pub [u8; BYTES]);

impl<const BYTES: usize> fmt::Display for Cursor<BYTES> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl<const BYTES: usize> QueryValue for Cursor<BYTES> {
    fn schema() -> MetaSchema {
        let (whole, spare) = (BYTES * 8 / 6, BYTES * 8 % 6);
        // The last digit encodes fewer than six bits.
        let last: String = DIGITS.chars().step_by(1 << (6 - spare)).collect();
        let last = if spare == 0 { String::new() } else { format!("[{last}]") };
        let pattern = format!("^[A-Za-z0-9_-]{{{whole}}}{last}$");
        MetaSchema { pattern: Some(pattern), ..MetaSchema::new("string") }
    }

    fn read(text: &str) -> Result<Self, FieldError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| FieldError::value_error("cursor must be one that a Link header gave"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_a_round_trip() {
        for bytes in [[0; 16], [255; 16], *b"sixteen letters!"] {
            let text = Cursor(bytes).to_string();
            assert_eq!(Cursor::read(&text), Ok(Cursor(bytes)));
            assert!(text.chars().all(|c| DIGITS.contains(c)), "{text}");
        }
    }

    #[test]
    fn rejects_invalid_cursors() {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        for text in [&encode(b"x"), &encode(b"fifteen letters"), &encode(&[0; 17]), "", "%%%", "AAAAAAAAAAAAAAAAAAAAAB"]
        {
            assert!(Cursor::<16>::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_pattern_matches_exactly_the_cursors() {
        let pattern = |schema: MetaSchema| schema.pattern.unwrap_or_default();
        assert_eq!(pattern(Cursor::<16>::schema()), "^[A-Za-z0-9_-]{21}[AQgw]$");
        assert_eq!(pattern(Cursor::<8>::schema()), "^[A-Za-z0-9_-]{10}[AEIMQUYcgkosw048]$");
    }
}
