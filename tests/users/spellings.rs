//! Unicode: one account for all spellings of an e-mail address, passwords in every normal form, and visible names.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{LOGIN, PASSWORD, REGISTER, System, client_at, registration};
use crate::harness::{
    eventually,
    process::{Process, start_worker},
};

const SOON: Duration = Duration::from_secs(30);

/// Groups of spellings, each of one e-mail address. The first one is registered.
const SPELLINGS: &[&[&str]] = &[
    &["ali@example.com", "ALI@example.com", "ALİ@example.com", "alI\u{307}@example.com", "ａｌｉ@example.com"],
    &["straße@example.com", "STRASSE@example.com", "STRAẞE@example.com", "ſtraſſe@example.com"],
    &["οδός@example.com", "ΟΔΌΣ@example.com", "οδόσ@example.com", "οδο\u{301}ς@example.com"],
    &["josé@bücher.example", "JOSE\u{301}@BU\u{308}CHER.example", "josé@xn--bcher-kva.example"],
    &["ﬁgaro@example.com", "figaro@example.com", "FIGARO@EXAMPLE.COM"],
    &["ｋ@example.com", "\u{212a}@example.com", "k@example\u{ff0e}com"],
];

#[tokio::test]
async fn all_spellings_of_an_email_are_one_account() {
    let system = System::start(&[]).await;
    for spellings in SPELLINGS {
        system.register(spellings[0]).await;
        for spelling in *spellings {
            let response = system.login(spelling, PASSWORD).await;
            assert_eq!(response.status, 200, "{spelling}: {response:?}");
            let again = system.post_json(REGISTER, &registration(spelling)).await;
            again.assert_problem(409, spelling);
        }
    }
    // Other mailboxes that look alike.
    for other in ["jose@bücher.example", "alı@example.com", "odos@example.com"] {
        system.login(other, PASSWORD).await.assert_problem(401, other);
        system.register(other).await;
    }
}

#[tokio::test]
async fn all_spellings_of_an_email_share_one_login_limit() {
    let system = System::start(&[]).await;
    for (spellings, place) in SPELLINGS.iter().zip((0..).step_by(4)) {
        system.register(spellings[0]).await;
        let clients: Vec<_> = (30 + place..34 + place).map(client_at).collect();
        let (begun, mut sent, mut accepted, mut refused) = (Instant::now(), 0, 0, None);
        // More on a slow machine, on which much of the quota refills meanwhile.
        while sent < 48 || sent < 300 && refused.is_none() {
            let body = json!({"email": spellings[sent % spellings.len()], "password": PASSWORD}).to_string();
            let response = system.post_from(&clients[sent % clients.len()], LOGIN, body).await;
            sent += 1;
            match response.status {
                200 => accepted += 1,
                _ => refused = Some(response),
            }
        }
        // A bucket of 30 tokens, refilled by one every two seconds.
        let refilled = begun.elapsed().as_secs() / 2 + 1;
        assert!((30..=30 + refilled).contains(&accepted), "{spellings:?}: {accepted} of {sent}");
        assert!(refused.expect("a refusal").header("ratelimit-policy").starts_with("\"login-account\""));
    }
}

#[tokio::test]
async fn password_accents_match_in_either_unicode_form() {
    const COMPOSED: &str = "caf\u{e9} noir";
    const DECOMPOSED: &str = "cafe\u{301} noir";
    let system = System::start(&[]).await;
    for (email, registered) in [("a@example.com", COMPOSED), ("b@example.com", DECOMPOSED)] {
        let body = json!({"email": email, "password": registered, "full_name": "Ada"});
        assert_eq!(system.post_json(REGISTER, &body).await.status, 201);
        for password in [COMPOSED, DECOMPOSED] {
            assert_eq!(system.login(email, password).await.status, 200, "{email} {password:?}");
        }
        system.login(email, "cafe noir").await.assert_problem(401, "without the accent");
    }
    // The hash of the decomposed form, as an earlier release stored it. The first login replaces it.
    let old = "UPDATE users SET password_hash = '$argon2id$v=19$m=19456,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$guXcE3jt9AiNU+GTnZxuT1MHiRrtX84Ok8VOdV+5sjU'
               WHERE email = 'a@example.com'";
    sqlx::query(old).execute(&system.database.pool().await).await.expect("an old hash");
    for (password, status) in [(COMPOSED, 401), (DECOMPOSED, 200), (COMPOSED, 200), (DECOMPOSED, 200)] {
        assert_eq!(system.login("a@example.com", password).await.status, status, "{password:?}");
    }
}

#[tokio::test]
async fn emails_accept_what_email_validator_accepts() {
    let system = System::start(&[]).await;
    for (sent, stored) in [
        ("jose\u{301}@example.com", "josé@example.com"),
        ("หมู@example.com", "หมู@example.com"),
        ("हिन्दी@example.com", "हिन्दी@example.com"),
        ("ada@bu\u{308}cher.example", "ada@bücher.example"),
        ("☃…@example.com", "☃…@example.com"),
    ] {
        assert_eq!(system.register(sent).await["email"], stored, "{sent}");
    }
    for (sent, reason) in [
        ("\u{301}a@example.com", "The email address contains unsafe characters: U+0301."),
        ("a\u{200b}b@example.com", "The email address contains unsafe characters: U+200B."),
    ] {
        let response = system.post_json(REGISTER, &registration(sent)).await;
        response.assert_problem(422, sent);
        let expected = format!("value is not a valid email address: {reason}");
        assert_eq!(response.validation_errors()[0].2, expected);
    }
}

#[tokio::test]
async fn full_names_have_a_visible_character() {
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
        let response = system.post_json(REGISTER, &body).await;
        response.assert_problem(422, name);
        let expected = ("string_too_short", "[\"body\",\"full_name\"]", "String should have at least 1 character");
        let failures = response.validation_errors();
        let found: Vec<_> = failures.iter().map(|(kind, loc, msg)| (&**kind, &**loc, &**msg)).collect();
        assert_eq!(found, [expected], "{name:?}");
    }
    for (name, number) in [" Ada ", "A", "\u{200e}Ada", "李", "👩\u{200d}🚀"].into_iter().zip(0..) {
        let mut body = registration(&format!("ada-{number}@example.com"));
        body["full_name"] = json!(name);
        assert_eq!(system.post_json(REGISTER, &body).await.json()["full_name"], name);
    }
}

/// Inserts users as an earlier release did: without an e-mail key. Two of them share one key.
async fn insert_legacy_users(system: &System) {
    let pool = system.database.pool().await;
    for email in ["Ada@example.com", "straße@example.com", "JOSÉ@example.com"] {
        system.register(email).await;
    }
    sqlx::query("UPDATE users SET email_key = NULL").execute(&pool).await.expect("no keys");
    // A second account, whose password is that of the hash above.
    let second = "INSERT INTO users (email, full_name, password_hash) VALUES ('strasse@example.com', 'B',
                  '$argon2id$v=19$m=19456,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$guXcE3jt9AiNU+GTnZxuT1MHiRrtX84Ok8VOdV+5sjU')";
    sqlx::query(second).execute(&pool).await.expect("a second account");
}

/// Asserts that each user logs in by every spelling, and only with its own password.
async fn assert_logins(system: &System, when: &str) {
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
        system.post_json(REGISTER, &registration(email)).await.assert_problem(409, email);
    }
}

#[tokio::test]
async fn legacy_accounts_stay_separate_and_get_their_keys() {
    let system = System::start(&[]).await;
    insert_legacy_users(&system).await;
    assert_logins(&system, "before").await;
    let mut migrating = Process::start(&["migrate"], &[("DATABASE_URL", &*system.database.url)]);
    assert!(migrating.wait_for_exit(SOON).await.success(), "{}", migrating.log());
    assert_logins(&system, "after").await;
    assert_eq!(
        system.count("SELECT count(*) FROM users WHERE email_key IS NULL").await,
        1,
        "the second account of a shared key"
    );
    assert_eq!(system.login("jose\u{301}@example.com", PASSWORD).await.status, 200, "by its key");
    // A spelling that only the new rules match belongs to the first account.
    assert_eq!(system.login("STRAẞE@example.com", PASSWORD).await.status, 200);
}

/// A process of the earlier release may still insert users without keys during an upgrade.
#[tokio::test]
async fn a_worker_adds_missing_email_keys() {
    let system = System::start(&[]).await;
    insert_legacy_users(&system).await;
    let _worker = start_worker(&system.database.url, &[]).await;
    eventually("the users have their keys", SOON, async || {
        system.count("SELECT count(*) FROM users WHERE email_key IS NULL").await == 1
    })
    .await;
    system.api.wait_until_ready().await;
}
