//! Webhook signatures (Standard Webhooks 1.0): verifies that the holder of a secret signed these bytes recently.

use std::time::Duration;

use base64::{
    Engine,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use time::OffsetDateTime;

/// The largest difference between a signature's timestamp and now, in both directions. It allows for slow deliveries
/// and wrong clocks, and limits how long a recorded request can be replayed.
pub const TOLERANCE: Duration = Duration::from_secs(5 * 60);
/// The number of signatures that are checked: more than the secrets in use during a rotation.
const MAX_SIGNATURES: usize = 16;
/// Accepts Base64 without padding, since some senders omit it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The values of the headers `webhook-id`, `webhook-timestamp` and `webhook-signature`.
#[derive(Debug, Clone, Copy)]
pub struct SignatureHeaders<'a> {
    pub id: &'a [u8],
    pub timestamp: &'a [u8],
    pub signature: &'a [u8],
}

/// Why a signature is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("webhook-timestamp is not a number of seconds")]
    Timestamp,
    #[error("webhook-timestamp is more than 5 minutes from now")]
    TooOldOrNew,
    #[error("webhook-signature does not match")]
    Mismatch,
}

/// Verifies that one of `secrets` signed `body` within [`TOLERANCE`] of `now`, and returns its index. The comparison takes
/// constant time.
///
/// # Errors
/// When the timestamp is malformed or too far from `now`, or when no signature matches. A malformed signature does not
/// match.
pub fn verify<'k>(
    headers: SignatureHeaders<'_>,
    body: &[u8],
    secrets: impl IntoIterator<Item = &'k [u8]>,
    now: OffsetDateTime,
) -> Result<usize, SignatureError> {
    // Digits only: `parse` alone would accept `+1`, a second spelling of the same time.
    let digits = std::str::from_utf8(headers.timestamp).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    let seconds: i64 = digits.and_then(|text| text.parse().ok()).ok_or(SignatureError::Timestamp)?;
    if now.unix_timestamp().abs_diff(seconds) > TOLERANCE.as_secs() {
        return Err(SignatureError::TooOldOrNew);
    }
    let given: Vec<Vec<u8>> = headers
        .signature
        .split(|byte| *byte == b' ')
        .filter_map(|entry| entry.strip_prefix(b"v1,"))
        .take(MAX_SIGNATURES)
        .filter_map(|signature| BASE64.decode(signature).ok())
        .collect();
    let signer = secrets.into_iter().position(|secret| {
        // Never fails: HMAC accepts keys of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return false };
        for part in [headers.id, b".", headers.timestamp, b".", body] {
            mac.update(part);
        }
        given.iter().any(|given| mac.clone().verify_slice(given).is_ok())
    });
    signer.ok_or(SignatureError::Mismatch)
}

/// Signs a body as [`verify`] expects it: `v1,` and the HMAC-SHA256 of `id.timestamp.body` in Base64.
pub fn sign(secret: &[u8], id: &str, timestamp: &str, body: &[u8]) -> String {
    // Never fails: HMAC accepts keys of any length. Without a signature the receiver would refuse the message.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return String::new() };
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        mac.update(part);
    }
    format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use hostile::proptest::{collection::vec, prelude::*, sample::Index};

    use super::*;

    /// The example of the specification.
    const SECRET: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const AT: i64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn check(id: &str, timestamp: &str, signature: &str, body: &[u8], now: i64) -> Result<(), SignatureError> {
        let secret = BASE64.decode(SECRET).expect("base64");
        let headers =
            SignatureHeaders { id: id.as_bytes(), timestamp: timestamp.as_bytes(), signature: signature.as_bytes() };
        let now = OffsetDateTime::from_unix_timestamp(now).expect("a time");
        verify(headers, body, [&b"another secret"[..], &secret], now).map(|signer| assert_eq!(signer, 1))
    }

    #[test]
    fn the_example_of_the_specification_is_valid() {
        let at = AT.to_string();
        assert_eq!(check(ID, &at, SIGNATURE, BODY, AT), Ok(()));
        let among = format!("v1a,xyz v1,AAAA {SIGNATURE}");
        assert_eq!(check(ID, &at, &among, BODY, AT), Ok(()));
    }

    #[test]
    fn signs_the_example_of_the_specification() {
        let secret = BASE64.decode(SECRET).expect("base64");
        assert_eq!(sign(&secret, ID, &AT.to_string(), BODY), SIGNATURE);
    }

    #[test]
    fn the_signature_covers_id_time_and_body() {
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
    fn timestamps_may_differ_by_five_minutes() {
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

    /// Accepts a header by a comparison of texts, without a decoder: one of the first 16 signatures is the right one.
    fn is_signed(header: &[u8]) -> bool {
        let right = SIGNATURE.strip_prefix("v1,").unwrap_or_default().as_bytes();
        let unpadded = right.strip_suffix(b"=").unwrap_or(right);
        let entries = header.split(|byte| *byte == b' ').filter_map(|entry| entry.strip_prefix(b"v1,"));
        entries.take(MAX_SIGNATURES).any(|entry| entry == right || entry == unpadded)
    }

    #[test]
    fn hostile_signatures_match_only_if_they_are_the_right_one() -> Result<(), hostile::Failure> {
        let secret = BASE64.decode(SECRET).expect("base64");
        let (at, now) = (AT.to_string(), OffsetDateTime::from_unix_timestamp(AT).expect("a time"));
        let corpus = include_str!("../../../tests/corpora/signature.txt");
        let grammar = "(v1,[A-Za-z0-9+/]{43}=|v1a?,[A-Za-z0-9+/=]{0,8}| ){0,20}".prop_map(String::into_bytes);
        hostile::check_bytes(corpus, grammar, |signature| {
            let headers = SignatureHeaders { id: ID.as_bytes(), timestamp: at.as_bytes(), signature };
            prop_assert_eq!(verify(headers, BODY, [&*secret], now).is_ok(), is_signed(signature));
            Ok(())
        })
    }

    #[test]
    fn hostile_changes_of_one_byte_break_a_signature() -> Result<(), hostile::Failure> {
        let bytes = |most| vec(any::<u8>(), 1..most);
        let parts = (bytes(70), bytes(40), bytes(200), -300..=300_i64, 0..3_usize, any::<Index>(), 1..=255_u8);
        hostile::check(parts, |(secret, id, body, late, part, at, change)| {
            let mut signed = [id.clone(), AT.to_string().into_bytes(), body.clone()];
            let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("a key");
            mac.update(&signed.join(&b'.'));
            let signature = format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()));
            let check = |[id, timestamp, body]: &[Vec<u8>; 3]| {
                let headers = SignatureHeaders { id, timestamp, signature: signature.as_bytes() };
                verify(headers, body, [&**secret], OffsetDateTime::from_unix_timestamp(AT + late).expect("a time"))
                    .map(drop)
            };
            prop_assert_eq!(check(&signed), Ok(()));
            let place = at.index(signed[*part].len());
            signed[*part][place] ^= change;
            prop_assert!(check(&signed).is_err(), "byte {} of part {}", place, part);
            Ok(())
        })
    }
}
