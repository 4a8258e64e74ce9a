//! Sessions: a signed cookie with the operator's name and role, valid in every API process with the same keys.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use poem::{Request, http::header};
use runtime::config::Environment;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::auth::KeysConfig;

const COOKIE: &str = "millrace_board";
/// A session ends after this time: longer than a shift.
const LIFETIME: Duration = Duration::hours(12);

/// What the holder of a session may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Role {
    /// Looks at everything.
    Viewer,
    /// Looks and acts.
    Operator,
}

/// A login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Session {
    pub role: Role,
    /// The operator's name, which the audit records.
    pub name: String,
    /// Every form carries it, so that no other site can send one.
    pub csrf: String,
    /// In seconds since 1970.
    expires: i64,
}

impl Session {
    /// The time until it ends.
    pub(super) fn remaining(&self, now: OffsetDateTime) -> std::time::Duration {
        let seconds = self.expires.saturating_sub(now.unix_timestamp());
        std::time::Duration::from_secs(seconds.try_into().unwrap_or(0))
    }

    /// Whether a form carries this session's token.
    pub(super) fn has_csrf(&self, token: Option<&str>) -> bool {
        token.is_some_and(|token| token.as_bytes().ct_eq(self.csrf.as_bytes()).into())
    }
}

/// Signs and checks sessions.
pub(super) struct Sessions {
    key: [u8; 32],
    secure: bool,
}

impl Sessions {
    /// Derives the key from the configured secrets: a change of one of them ends all sessions.
    pub(super) fn new(keys: &KeysConfig, environment: Environment) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"millrace board session");
        for secret in [Some(&keys.admin), keys.viewer.as_ref(), keys.jwt.as_ref()] {
            // Hashed one by one, so that no bytes move from one secret to the next.
            hash.update(Sha256::digest(secret.map_or(&b""[..], |secret| secret.expose())));
        }
        Self { key: hash.finalize().into(), secure: environment != Environment::Dev }
    }

    /// Starts a session; returns the value of `Set-Cookie`.
    pub(super) fn start(&self, role: Role, name: &str, now: OffsetDateTime) -> String {
        let csrf = Uuid::new_v4().simple().to_string();
        let session = Session { role, name: name.to_owned(), csrf, expires: (now + LIFETIME).unix_timestamp() };
        let payload = serde_json::to_vec(&session).unwrap_or_default();
        let mac = self.mac(&payload).map(|mac| mac.finalize().into_bytes()).unwrap_or_default();
        let value = format!("{}.{}", URL_SAFE_NO_PAD.encode(payload), URL_SAFE_NO_PAD.encode(mac));
        self.cookie(&value, LIFETIME)
    }

    /// The value of `Set-Cookie` that ends a session in the browser.
    pub(super) fn end(&self) -> String {
        self.cookie("", Duration::ZERO)
    }

    /// The session of a request; `None` without a valid one.
    pub(super) fn of(&self, request: &Request, now: OffsetDateTime) -> Option<Session> {
        let headers = request.headers().get_all(header::COOKIE).into_iter();
        let cookies = headers.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(';'));
        let mut values = cookies.filter_map(|cookie| cookie.trim().strip_prefix(COOKIE)?.strip_prefix('='));
        values.find_map(|value| self.check(value, now))
    }

    fn check(&self, value: &str, now: OffsetDateTime) -> Option<Session> {
        let (payload, mac) = value.split_once('.')?;
        let (payload, mac) = (URL_SAFE_NO_PAD.decode(payload).ok()?, URL_SAFE_NO_PAD.decode(mac).ok()?);
        self.mac(&payload)?.verify_slice(&mac).ok()?;
        let session: Session = serde_json::from_slice(&payload).ok()?;
        (session.expires > now.unix_timestamp()).then_some(session)
    }

    fn mac(&self, payload: &[u8]) -> Option<Hmac<Sha256>> {
        // HMAC takes a key of any length.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).ok()?;
        mac.update(payload);
        Some(mac)
    }

    fn cookie(&self, value: &str, lifetime: Duration) -> String {
        let secure = if self.secure { "; Secure" } else { "" };
        let seconds = lifetime.whole_seconds();
        format!("{COOKIE}={value}; Path=/board; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
    }
}

#[cfg(test)]
mod tests {
    use hostile::proptest::{prelude::*, sample::Index};

    use super::*;
    use runtime::secret::Secret;

    fn sessions(admin: &str, jwt: Option<&str>, environment: Environment) -> Sessions {
        let keys = KeysConfig {
            admin: Secret::new(admin),
            jwt: jwt.map(Secret::new),
            ..crate::config::ApiConfig::default().keys
        };
        Sessions::new(&keys, environment)
    }

    fn request(cookie: &str) -> Request {
        let value = cookie.split(';').next().unwrap_or_default();
        Request::builder().header("cookie", format!("other=1; {value}")).finish()
    }

    #[test]
    fn a_session_is_valid_in_processes_with_the_same_keys_until_it_expires() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let cookie = sessions("admin", None, Environment::Prod).start(Role::Operator, "ada; <b>", now);
        let check = |sessions: Sessions, now| sessions.of(&request(&cookie), now);
        let session = check(sessions("admin", None, Environment::Dev), now).expect("valid");
        assert_eq!((session.role, &*session.name), (Role::Operator, "ada; <b>"));
        assert!(session.has_csrf(Some(&session.csrf)) && !session.has_csrf(None) && !session.has_csrf(Some("x")));
        assert_eq!(check(sessions("admin", None, Environment::Dev), now + LIFETIME), None);
        assert_eq!(check(sessions("another", None, Environment::Dev), now), None);
        assert_eq!(check(sessions("admin", Some("jwt"), Environment::Dev), now), None);
    }

    #[test]
    fn a_changed_cookie_is_refused() {
        let (sessions, now) = (sessions("admin", None, Environment::Dev), OffsetDateTime::UNIX_EPOCH);
        let cookie = sessions.start(Role::Viewer, "ada", now);
        assert!(sessions.of(&request(&cookie), now).is_some());
        let value = cookie.split(';').next().unwrap_or_default();
        let (name_and_payload, mac) = value.split_once('.').expect("a signature");
        let forged = URL_SAFE_NO_PAD.encode(r#"{"role":"Operator","name":"eve","csrf":"","expires":9999999999}"#);
        for changed in [
            format!("{COOKIE}={forged}.{mac}"),
            format!("{name_and_payload}."),
            name_and_payload.to_owned(),
            format!("{COOKIE}="),
        ] {
            assert_eq!(sessions.of(&request(&changed), now), None, "{changed}");
        }
    }

    #[test]
    fn the_cookie_is_for_the_board_and_no_script() {
        let attributes = "; Path=/board; Max-Age=0; HttpOnly; SameSite=Strict";
        assert_eq!(sessions("a", None, Environment::Dev).end(), format!("{COOKIE}={attributes}"));
        assert_eq!(sessions("a", None, Environment::Prod).end(), format!("{COOKIE}={attributes}; Secure"));
    }

    #[test]
    fn hostile_changes_of_one_byte_end_a_session() -> Result<(), hostile::Failure> {
        let (sessions, now) = (sessions("admin", None, Environment::Dev), OffsetDateTime::UNIX_EPOCH);
        hostile::check((".{0,40}", any::<Index>(), any::<u8>()), |(name, at, byte)| {
            let cookie = sessions.start(Role::Viewer, name, now);
            let value = cookie.split(';').next().and_then(|value| value.split_once('=')).expect("a value").1;
            prop_assert_eq!(sessions.check(value, now).map(|session| session.name), Some(name.clone()));
            let mut changed = value.as_bytes().to_vec();
            let place = at.index(changed.len());
            changed[place] = *byte;
            let changed = String::from_utf8_lossy(&changed);
            prop_assert!(changed == value || sessions.check(&changed, now).is_none(), "{}", changed);
            Ok(())
        })
    }
}
