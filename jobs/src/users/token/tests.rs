//! Tests of valid tokens, and of every reason to refuse one.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::{Sha256, Sha384, Sha512};

use super::*;

const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

fn encode(part: &Value) -> String {
    URL_SAFE_NO_PAD.encode(part.to_string())
}

/// A token with this header and these claims, signed without the library.
fn sign<M: Mac + hmac::digest::KeyInit>(header: &Value, claims: &Value, key: &[u8]) -> String {
    let content = format!("{}.{}", encode(header), encode(claims));
    let mut mac = <M as Mac>::new_from_slice(key).expect("any key");
    mac.update(content.as_bytes());
    format!("{content}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

fn hs256(claims: &Value) -> String {
    sign::<Hmac<Sha256>>(&json!({"alg": "HS256", "typ": "JWT"}), claims, KEY)
}

fn claims() -> Value {
    json!({"sub": "7", "role": "user", "iat": now(), "exp": now() + 60})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().expect("an object").remove(name);
    claims
}

#[test]
fn issued_tokens_are_valid() {
    let tokens = Tokens::new(KEY);
    for (user, role) in [(UserId(1), Role::User), (UserId(i64::MAX), Role::Admin)] {
        let token = tokens.issue(user, role).expect("a token");
        let claims = tokens.check(&token).expect("valid");
        assert_eq!((claims.user(), claims.role), (Some(user), role));
        let payload = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok()).expect("claims");
        let payload: Value = serde_json::from_slice(&payload).expect("JSON");
        assert_eq!(payload["sub"], user.to_string());
        let lifetime = payload["exp"].as_i64().zip(payload["iat"].as_i64()).map(|(exp, iat)| exp - iat);
        assert_eq!(lifetime, Some(3600));
    }
}

#[test]
fn foreign_tokens_with_our_key_are_valid() {
    for (case, claims, user, role) in [
        ("all claims", claims(), Some(UserId(7)), Role::User),
        ("no role", without("role"), Some(UserId(7)), Role::User),
        ("no iat", without("iat"), Some(UserId(7)), Role::User),
        ("an admin that is not a user", json!({"sub": "ops", "role": "admin", "exp": now() + 60}), None, Role::Admin),
        ("a time with a fraction", with("exp", json!(now() as f64 + 60.5)), Some(UserId(7)), Role::User),
        ("valid from now", with("nbf", json!(now())), Some(UserId(7)), Role::User),
        ("an admin without a subject", json!({"role": "admin", "exp": now() + 60}), None, Role::Admin),
        ("the subject is a number", with("sub", json!(7)), Some(UserId(7)), Role::User),
        ("additional claims", with("email", json!("ada@example.com")), Some(UserId(7)), Role::User),
    ] {
        let found = Tokens::new(KEY).check(&hs256(&claims)).map(|claims| (claims.user(), claims.role));
        assert_eq!(found, Ok((user, role)), "{case}");
    }
}

#[test]
fn invalid_claims_are_refused() {
    for (case, claims) in [
        ("no exp", without("exp")),
        ("exp is null", with("exp", json!(null))),
        ("exp is a text", with("exp", json!((now() + 60).to_string()))),
        ("exp is negative", with("exp", json!(-1))),
        ("exp is zero", with("exp", json!(0))),
        ("just expired", with("exp", json!(now() - 2))),
        ("long expired", with("exp", json!(1_500_000_000))),
        ("not valid yet", with("nbf", json!(now() + 10))),
        ("nbf is a text", with("nbf", json!("now"))),
        ("sub is a list", with("sub", json!(["7"]))),
        ("sub is a number with a fraction", with("sub", json!(7.5))),
        ("an unknown role", with("role", json!("superuser"))),
        ("a role that is not a text", with("role", json!(["admin"]))),
        ("another audience", with("aud", json!("another-service"))),
        ("not an object", json!([1, 2])),
    ] {
        assert!(Tokens::new(KEY).check(&hs256(&claims)).is_err(), "{case}");
    }
}

#[test]
fn other_algorithms_and_keys_are_refused() {
    let header = |algorithm: &str| json!({"alg": algorithm, "typ": "JWT"});
    let unsigned = |algorithm: &str| format!("{}.{}.", encode(&header(algorithm)), encode(&claims()));
    let good = hs256(&claims());
    let (content, signature) = good.rsplit_once('.').expect("three parts");
    for (case, token) in [
        ("none", unsigned("none")),
        ("None", unsigned("None")),
        ("none, with a valid signature of another token", format!("{}{signature}", unsigned("none"))),
        ("HS256 without a signature", unsigned("HS256")),
        ("HS384", sign::<Hmac<Sha384>>(&header("HS384"), &claims(), KEY)),
        ("HS512", sign::<Hmac<Sha512>>(&header("HS512"), &claims(), KEY)),
        ("RS256 by name", sign::<Hmac<Sha256>>(&header("RS256"), &claims(), KEY)),
        ("ES256 by name", sign::<Hmac<Sha256>>(&header("ES256"), &claims(), KEY)),
        ("EdDSA by name", sign::<Hmac<Sha256>>(&header("EdDSA"), &claims(), KEY)),
        ("no algorithm", sign::<Hmac<Sha256>>(&json!({"typ": "JWT"}), &claims(), KEY)),
        ("another key", sign::<Hmac<Sha256>>(&header("HS256"), &claims(), b"another key")),
        ("an empty key", sign::<Hmac<Sha256>>(&header("HS256"), &claims(), b"")),
        ("a key in its own header", {
            let jwk = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode("mine"), "alg": "HS256"});
            sign::<Hmac<Sha256>>(&json!({"alg": "HS256", "jwk": jwk}), &claims(), b"mine")
        }),
        ("critical extensions", sign::<Hmac<Sha256>>(&json!({"alg": "HS256", "crit": ["x"], "x": 1}), &claims(), KEY)),
        ("other claims with the same signature", {
            let header = content.split('.').next().unwrap_or_default();
            format!("{header}.{}.{signature}", encode(&with("sub", json!("8"))))
        }),
    ] {
        assert!(Tokens::new(KEY).check(&token).is_err(), "{case}");
    }
    assert!(Tokens::new(KEY).check(&good).is_ok());
    assert!(Tokens::random().check(&good).is_err());
}

#[test]
fn texts_that_are_not_tokens_are_refused() {
    let tokens = Tokens::new(KEY);
    let good = hs256(&claims());
    for text in ["", ".", "..", "...", "a.b.c", "é.é.é", "\0", &"a".repeat(100_000), &format!("{good}.x")] {
        assert!(tokens.check(text).is_err(), "{text:.40}");
    }
    // Every truncation, and every character doubled or changed.
    for at in 0..good.len() {
        let (before, after) = good.split_at(at);
        let other = if after.starts_with('A') { "B" } else { "A" };
        assert!(tokens.check(before).is_err(), "truncated at {at}");
        assert!(tokens.check(&format!("{before}{other}{}", &after[1..])).is_err(), "changed at {at}");
        assert!(tokens.check(&format!("{before}{}{after}", &after[..1])).is_err(), "doubled at {at}");
    }
}

#[test]
fn only_a_canonical_id_names_a_user() {
    let user = |subject: &str| Claims { subject: subject.into(), role: Role::User }.user();
    assert_eq!(user("42"), Some(UserId(42)));
    for subject in ["", "0", "-1", "+1", "01", " 1", "1.0", "9223372036854775808", "ada"] {
        assert_eq!(user(subject), None, "{subject:?}");
    }
}

#[test]
fn debug_output_contains_no_key() {
    assert_eq!(format!("{:?}", Tokens::new(KEY)), "Tokens(…)");
}
