//! One account for all writings of an address, one password for all encodings of its letters, and names that show.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{LOGIN, PASSWORD, REGISTER, System, client_at, registration};
use crate::harness::{
    http::send,
    process::{Process, start_worker},
};

const SOON: Duration = Duration::from_secs(30);

/// Writings of one address each, the first of which is registered.
const WRITINGS: &[&[&str]] = &[
    &["ali@example.com", "ALI@example.com", "ALİ@example.com", "alI\u{307}@example.com", "ａｌｉ@example.com"],
    &["straße@example.com", "STRASSE@example.com", "STRAẞE@example.com", "ſtraſſe@example.com"],
    &["οδός@example.com", "ΟΔΌΣ@example.com", "οδόσ@example.com", "οδο\u{301}ς@example.com"],
    &["josé@bücher.example", "JOSE\u{301}@BU\u{308}CHER.example", "josé@xn--bcher-kva.example"],
    &["ﬁgaro@example.com", "figaro@example.com", "FIGARO@EXAMPLE.COM"],
    &["ｋ@example.com", "\u{212a}@example.com", "k@example\u{ff0e}com"],
];

#[tokio::test]
async fn all_writings_of_an_address_are_one_account() {
    let system = System::start(&[]).await;
    for writings in WRITINGS {
        system.register(writings[0]).await;
        for writing in *writings {
            let answer = system.login(writing, PASSWORD).await;
            assert_eq!(answer.status, 200, "{writing}: {answer:?}");
            let again = system.post(REGISTER, &registration(writing)).await;
            again.assert_problem(409, writing);
        }
    }
    // Other mailboxes, however alike they look.
    for other in ["jose@bücher.example", "alı@example.com", "odos@example.com"] {
        system.login(other, PASSWORD).await.assert_problem(401, other);
        system.register(other).await;
    }
}

#[tokio::test]
async fn all_writings_of_an_address_share_one_limit() {
    let system = System::start(&[]).await;
    for (writings, place) in WRITINGS.iter().zip((0..).step_by(4)) {
        system.register(writings[0]).await;
        let clients: Vec<_> = (30 + place..34 + place).map(client_at).collect();
        let (begun, mut taken, mut refused) = (Instant::now(), 0, None);
        for number in 0..48 {
            let body = json!({"email": writings[number % writings.len()], "password": PASSWORD}).to_string();
            let answer = system.post_from(&clients[number % clients.len()], LOGIN, body).await;
            match answer.status {
                200 => taken += 1,
                _ => refused = Some(answer),
            }
        }
        // A bucket of 30, which gets one every two seconds.
        let refilled = begun.elapsed().as_secs() / 2 + 1;
        assert!((30..=30 + refilled).contains(&taken), "{writings:?}: {taken} of 48");
        assert!(refused.expect("a refusal").header("ratelimit-policy").starts_with("\"login-account\""));
    }
}

#[tokio::test]
async fn an_accent_may_be_encoded_either_way() {
    const COMPOSED: &str = "caf\u{e9} noir";
    const DECOMPOSED: &str = "cafe\u{301} noir";
    let system = System::start(&[]).await;
    for (email, registered) in [("a@example.com", COMPOSED), ("b@example.com", DECOMPOSED)] {
        let body = json!({"email": email, "password": registered, "full_name": "Ada"});
        assert_eq!(system.post(REGISTER, &body).await.status, 201);
        for password in [COMPOSED, DECOMPOSED] {
            assert_eq!(system.login(email, password).await.status, 200, "{email} {password:?}");
        }
        system.login(email, "cafe noir").await.assert_problem(401, "without the accent");
    }
    // The hash of the decomposed one, as an earlier release made it: the first login replaces it.
    let old = "UPDATE users SET password_hash = '$argon2id$v=19$m=19456,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$guXcE3jt9AiNU+GTnZxuT1MHiRrtX84Ok8VOdV+5sjU'
               WHERE email = 'a@example.com'";
    sqlx::query(old).execute(&system.database.pool().await).await.expect("an old hash");
    for (password, status) in [(COMPOSED, 401), (DECOMPOSED, 200), (COMPOSED, 200), (DECOMPOSED, 200)] {
        assert_eq!(system.login("a@example.com", password).await.status, status, "{password:?}");
    }
}

#[tokio::test]
async fn an_address_may_have_what_email_validator_accepts() {
    let system = System::start(&[]).await;
    for (sent, kept) in [
        ("jose\u{301}@example.com", "josé@example.com"),
        ("หมู@example.com", "หมู@example.com"),
        ("हिन्दी@example.com", "हिन्दी@example.com"),
        ("ada@bu\u{308}cher.example", "ada@bücher.example"),
        ("☃…@example.com", "☃…@example.com"),
    ] {
        assert_eq!(system.register(sent).await["email"], kept, "{sent}");
    }
    for (sent, why) in [
        ("\u{301}a@example.com", "The email address contains unsafe characters: U+0301."),
        ("a\u{200b}b@example.com", "The email address contains unsafe characters: U+200B."),
    ] {
        let answer = system.post(REGISTER, &registration(sent)).await;
        answer.assert_problem(422, sent);
        let expected = format!("value is not a valid email address: {why}");
        assert_eq!(answer.validation_errors()[0].2, expected);
    }
}

#[tokio::test]
async fn a_name_shows_something() {
    let system = System::start(&[]).await;
    for name in [
        "",
        " ",
        "\t\n",
        "\u{200b}",
        "\u{a0}\u{3000}",
        "\u{feff}\u{200d}",
        "\u{2060}",
        "\u{3164}",
        "\u{2800}",
        "\u{ad}",
    ] {
        let mut body = registration("ada@example.com");
        body["full_name"] = json!(name);
        let answer = system.post(REGISTER, &body).await;
        answer.assert_problem(422, name);
        let expected = ("string_too_short", "[\"body\",\"full_name\"]", "String should have at least 1 character");
        let failures = answer.validation_errors();
        let found: Vec<_> = failures.iter().map(|(kind, loc, msg)| (&**kind, &**loc, &**msg)).collect();
        assert_eq!(found, [expected], "{name:?}");
    }
    for (name, number) in [" Ada ", "A", "\u{200e}Ada", "李", "👩\u{200d}🚀"].into_iter().zip(0..) {
        let mut body = registration(&format!("ada-{number}@example.com"));
        body["full_name"] = json!(name);
        assert_eq!(system.post(REGISTER, &body).await.json()["full_name"], name);
    }
}

/// Users as an earlier release recorded them: without a key, two of them with the same one.
async fn earlier(system: &System) {
    let pool = system.database.pool().await;
    for email in ["Ada@example.com", "straße@example.com", "JOSÉ@example.com"] {
        system.register(email).await;
    }
    sqlx::query("UPDATE users SET email_key = NULL").execute(&pool).await.expect("no keys");
    // A second account, which has another password: that of the hash above.
    let second = "INSERT INTO users (email, full_name, password_hash) VALUES ('strasse@example.com', 'B',
                  '$argon2id$v=19$m=19456,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$guXcE3jt9AiNU+GTnZxuT1MHiRrtX84Ok8VOdV+5sjU')";
    sqlx::query(second).execute(&pool).await.expect("a second account");
}

/// Each of them logs in by its own writings, and only by its own password.
async fn assert_all_log_in(system: &System, when: &str) {
    const OTHER: &str = "cafe\u{301} noir";
    for (email, password, status) in [
        ("ADA@example.com", PASSWORD, 200),
        ("josé@example.com", PASSWORD, 200),
        ("straße@example.com", PASSWORD, 200),
        ("straße@example.com", OTHER, 401),
        ("strasse@example.com", OTHER, 200),
        ("STRASSE@example.com", OTHER, 200),
        ("strasse@example.com", PASSWORD, 401),
    ] {
        assert_eq!(system.login(email, password).await.status, status, "{when}: {email}");
    }
    for email in ["strasse@example.com", "straße@example.com", "Strasse@example.com"] {
        system.post(REGISTER, &registration(email)).await.assert_problem(409, email);
    }
}

#[tokio::test]
async fn accounts_of_an_earlier_release_stay_apart_and_get_their_keys() {
    let system = System::start(&[]).await;
    earlier(&system).await;
    assert_all_log_in(&system, "before").await;
    let mut migrating = Process::start(&["migrate"], &[("DATABASE_URL", &*system.database.url)]);
    assert!(migrating.wait_for_exit(SOON).await.success(), "{}", migrating.log());
    assert_all_log_in(&system, "after").await;
    assert_eq!(system.count("SELECT count(*) FROM users WHERE email_key IS NULL").await, 1, "the second of one key");
    assert_eq!(system.login("jose\u{301}@example.com", PASSWORD).await.status, 200, "by its key");
    // The writings that only the new rules know lead to the first one.
    assert_eq!(system.login("STRAẞE@example.com", PASSWORD).await.status, 200);
}

/// An old process that still runs goes on recording users without keys.
#[tokio::test]
async fn a_worker_adds_the_keys_that_are_missing() {
    let system = System::start(&[]).await;
    earlier(&system).await;
    let _worker = start_worker(&system.database.url, &[]).await;
    crate::harness::eventually("they have their keys", SOON, async || {
        system.count("SELECT count(*) FROM users WHERE email_key IS NULL").await == 1
    })
    .await;
    let ready = send(system.client.get(format!("{}/readyz", system.api.url))).await;
    assert_eq!(ready.status, 200);
}
