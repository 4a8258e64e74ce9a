//! Signatures of webhooks (Standard Webhooks 1.0): who holds a secret signed these bytes a moment ago.

use std::time::Duration;

use base64::{
    Engine,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use time::OffsetDateTime;

/// How far from now, either way, a signature may have been made: enough for a slow delivery and a clock that is off,
/// little enough to make a recorded request useless soon.
pub const TOLERANCE: Duration = Duration::from_secs(5 * 60);
/// More signatures than secrets that anyone rotates at once are not tried.
const MOST_SIGNATURES: usize = 16;
/// Some senders leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What the sender says about its signature, in the headers `webhook-id`, `webhook-timestamp` and `webhook-signature`.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    pub id: &'a [u8],
    pub timestamp: &'a [u8],
    pub signature: &'a [u8],
}

/// Why a signature is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("webhook-timestamp is not a number of seconds")]
    Timestamp,
    #[error("webhook-timestamp is more than 5 minutes from now")]
    TooOldOrNew,
    #[error("webhook-signature does not match")]
    Mismatch,
}

/// Whether any of `secrets` signed `body` within [`TOLERANCE`] of `now`. Comparing takes the same time whatever differs.
///
/// # Errors
/// What is wrong; a wrong signature is not told from a malformed one.
pub fn verify<'k>(
    signed: Signed<'_>,
    body: &[u8],
    secrets: impl IntoIterator<Item = &'k [u8]>,
    now: OffsetDateTime,
) -> Result<(), SignatureError> {
    // Digits only: `parse` alone would take `+1`, and two texts for one time are one too many under a signature.
    let digits = std::str::from_utf8(signed.timestamp).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    let seconds: i64 = digits.and_then(|text| text.parse().ok()).ok_or(SignatureError::Timestamp)?;
    if now.unix_timestamp().abs_diff(seconds) > TOLERANCE.as_secs() {
        return Err(SignatureError::TooOldOrNew);
    }
    let given: Vec<Vec<u8>> = signed
        .signature
        .split(|byte| *byte == b' ')
        .filter_map(|entry| entry.strip_prefix(b"v1,"))
        .take(MOST_SIGNATURES)
        .filter_map(|signature| BASE64.decode(signature).ok())
        .collect();
    let matches = secrets.into_iter().any(|secret| {
        // HMAC takes keys of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return false };
        for part in [signed.id, b".", signed.timestamp, b".", body] {
            mac.update(part);
        }
        given.iter().any(|given| mac.clone().verify_slice(given).is_ok())
    });
    if matches { Ok(()) } else { Err(SignatureError::Mismatch) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification.
    const SECRET: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const AT: i64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn check(id: &str, timestamp: &str, signature: &str, body: &[u8], now: i64) -> Result<(), SignatureError> {
        let secret = BASE64.decode(SECRET).expect("base64");
        let signed = Signed { id: id.as_bytes(), timestamp: timestamp.as_bytes(), signature: signature.as_bytes() };
        let now = OffsetDateTime::from_unix_timestamp(now).expect("a time");
        verify(signed, body, [&b"another secret"[..], &secret], now)
    }

    #[test]
    fn accepts_the_example_of_the_specification() {
        let at = AT.to_string();
        assert_eq!(check(ID, &at, SIGNATURE, BODY, AT), Ok(()));
        let among = format!("v1a,xyz v1,AAAA {SIGNATURE}");
        assert_eq!(check(ID, &at, &among, BODY, AT), Ok(()));
    }

    #[test]
    fn covers_id_time_and_body() {
        use SignatureError::Mismatch;
        let at = AT.to_string();
        assert_eq!(check("msg_other", &at, SIGNATURE, BODY, AT), Err(Mismatch));
        assert_eq!(check(ID, &(AT + 1).to_string(), SIGNATURE, BODY, AT), Err(Mismatch));
        assert_eq!(check(ID, &at, SIGNATURE, br#"{"test":2432232314}"#, AT), Err(Mismatch));
        for malformed in
            ["", "v1,", "v1", &SIGNATURE[3..], "v2,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", "v1,g0hM"]
        {
            assert_eq!(check(ID, &at, malformed, BODY, AT), Err(Mismatch), "{malformed}");
        }
    }

    #[test]
    fn five_minutes_either_way() {
        let at = AT.to_string();
        for (now, expected) in [
            (AT - 300, Ok(())),
            (AT + 300, Ok(())),
            (AT - 301, Err(SignatureError::TooOldOrNew)),
            (AT + 301, Err(SignatureError::TooOldOrNew)),
        ] {
            assert_eq!(check(ID, &at, SIGNATURE, BODY, now), expected, "{now}");
        }
        for malformed in ["", "soon", "+1614265330", "-1", "1614265330.5", " 1614265330", "99999999999999999999"] {
            assert_eq!(check(ID, malformed, SIGNATURE, BODY, AT), Err(SignatureError::Timestamp), "{malformed}");
        }
    }
}
