//! Tests of the API's configuration: accepted and refused values.

use super::*;

fn read(pairs: &[(&str, &str)]) -> Result<ApiConfig, String> {
    let mut vars = EnvReader::from_pairs(pairs);
    let config = ApiConfig::read(&mut vars);
    vars.finish(config).map_err(|problems| problems.to_string())
}

/// The variables that the problems name, in order.
fn refused_variables(pairs: &[(&str, &str)]) -> Vec<String> {
    let problems = read(pairs).expect_err("should be refused");
    problems.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn dev_requires_no_variable() {
    assert_eq!(read(&[]), Ok(ApiConfig::default()));
}

#[test]
fn names_every_wrong_value_at_once() {
    let all = refused_variables(&[
        ("ENV", "production"),
        ("HOST", "example.com"),
        ("PORT", "65536"),
        ("WEBHOOK_SECRET", "whsec_c2hvcnQ="),
        ("WEBHOOK_CONFLICT", "maybe"),
        ("JWT_SECRET", "too short"),
        ("CORS_ORIGINS", "app.example.com"),
        ("TRUSTED_PROXIES", "proxy"),
        ("TRANSACTIONS_READ", "closed"),
        ("RATE_LIMIT", "120"),
    ]);
    let expected = [
        "ENV",
        "HOST",
        "PORT",
        "WEBHOOK_SECRET",
        "WEBHOOK_CONFLICT",
        "JWT_SECRET",
        "CORS_ORIGINS",
        "TRUSTED_PROXIES",
        "TRANSACTIONS_READ",
        "RATE_LIMIT",
    ];
    assert_eq!(all, expected);
}

/// A valid configuration for prod, with some variables replaced.
fn prod<'a>(changed: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let valid = [
        ("ENV", "prod"),
        ("API_KEY", "a key of the tests, number 1"),
        ("ADMIN_API_KEY", "a key of the tests, number 2"),
        ("JWT_SECRET", "a secret of 32 bytes or more, number 3"),
        ("WEBHOOK_SECRET", "none"),
    ];
    let kept = valid.into_iter().filter(|(name, _)| changed.iter().all(|(other, _)| other != name));
    kept.chain(changed.iter().copied()).collect()
}

#[test]
fn prod_requires_its_own_secrets() {
    assert_eq!(refused_variables(&[("ENV", "prod")]), ["WEBHOOK_SECRET", "JWT_SECRET", "API_KEY", "ADMIN_API_KEY"]);
    let config = read(&prod(&[])).expect("valid");
    assert_eq!(config.keys.api, Secret::new("a key of the tests, number 1"));
    assert_eq!(config.webhook.secrets, []);
    let one = "a key of the tests, number 1";
    let webhook = "whsec_YSBzZWNyZXQgb2YgdGhlIHRlc3RzLCBmb3VyIGFuZCBmaXZl";
    let two = format!("{webhook},{}", PUBLISHED_SECRETS[3]);
    for (changed, refused) in [
        (&[("API_KEY", DEFAULT_API_KEY)][..], &["API_KEY"][..]),
        (&[("API_KEY", DEFAULT_ADMIN_API_KEY)], &["API_KEY"]),
        (&[("ADMIN_API_KEY", DEFAULT_API_KEY)], &["ADMIN_API_KEY"]),
        (&[("JWT_SECRET", PUBLISHED_SECRETS[2])], &["JWT_SECRET"]),
        (&[("WEBHOOK_SECRET", &two)], &["WEBHOOK_SECRET"]),
        (&[("API_KEY", "a"), ("ADMIN_API_KEY", "a")], &["API_KEY", "ADMIN_API_KEY"]),
        (&[("API_KEY", "twenty-three characters")], &["API_KEY"]),
        // 24 bytes, and only 12 characters.
        (&[("ADMIN_API_KEY", "äöüäöüäöüäöü")], &["ADMIN_API_KEY"]),
        (&[("ADMIN_API_KEY", one)], &["ADMIN_API_KEY"]),
        (&[("VIEWER_API_KEY", one)], &["VIEWER_API_KEY"]),
        (&[("VIEWER_API_KEY", "twenty-three characters")], &["VIEWER_API_KEY"]),
        (&[("VIEWER_API_KEY", DEFAULT_API_KEY)], &["VIEWER_API_KEY"]),
        (&[("ADMIN_API_KEY", "  a key of the tests, number 1  ")], &["ADMIN_API_KEY"]),
        (
            &[
                ("JWT_SECRET", "a longer key of the tests, of 32 bytes"),
                ("API_KEY", "a longer key of the tests, of 32 bytes"),
            ],
            &["API_KEY"],
        ),
        (&[("API_KEY", webhook), ("WEBHOOK_SECRET", &two)], &["WEBHOOK_SECRET", "WEBHOOK_SECRET"]),
        (&[("WEBHOOK_SECRET", "")], &["WEBHOOK_SECRET"]),
        (&[("CALLBACK_SECRET", PUBLISHED_SECRETS[3])], &["CALLBACK_SECRET"]),
        (&[("WEBHOOK_SECRET", webhook), ("CALLBACK_SECRET", webhook)], &["CALLBACK_SECRET"]),
    ] {
        assert_eq!(refused_variables(&prod(changed)), refused, "{changed:?}");
    }
    for accepted in [
        &[("WEBHOOK_SECRET", webhook)][..],
        &[("API_KEY", "twenty-four characters!!")],
        &[("VIEWER_API_KEY", "a key of the tests, number 4")],
    ] {
        assert!(read(&prod(accepted)).is_ok(), "{accepted:?}: {:?}", read(&prod(accepted)));
    }
    // Other environments accept any key.
    for environment in ["dev", "test"] {
        let same = [("ENV", environment), ("API_KEY", "a"), ("ADMIN_API_KEY", "a"), ("VIEWER_API_KEY", "a")];
        assert!(read(&same).is_ok(), "{environment}");
    }
}

#[test]
fn a_key_that_no_client_can_send_is_refused() {
    for name in ["API_KEY", "ADMIN_API_KEY", "VIEWER_API_KEY"] {
        for value in ["hunter2\u{1}hunter2", "hunter2\u{7f}hunter2", "hunter2\nhunter2"] {
            let problem = read(&[(name, value)]).expect_err("not sendable");
            assert!(problem.starts_with(&format!("{name}: must be ")) && !problem.contains("hunter2"), "{problem}");
        }
        assert!(read(&[(name, "a key with blanks, and ä")]).is_ok(), "{name}");
    }
}

#[test]
fn reading_transactions_requires_a_key_in_prod() {
    let secret = "x".repeat(32);
    let keys = [("API_KEY", &*secret), ("ADMIN_API_KEY", "another"), ("JWT_SECRET", &secret)];
    for (given, expected) in [
        (&[][..], TransactionsRead::Open),
        (&[("ENV", "test")], TransactionsRead::Open),
        (&[("ENV", "prod")], TransactionsRead::Key),
        (&[("ENV", "prod"), ("TRANSACTIONS_READ", "open")], TransactionsRead::Open),
        (&[("TRANSACTIONS_READ", "key")], TransactionsRead::Key),
    ] {
        let mut vars = EnvReader::from_pairs(&[&keys[..], given].concat());
        assert_eq!(ApiConfig::read(&mut vars).transactions_read, expected, "{given:?}");
    }
}

#[test]
fn reads_several_webhook_secrets() {
    let one = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let config = read(&[("WEBHOOK_SECRET", &format!("{one}, {one}"))]).expect("valid");
    let lengths = |config: &ApiConfig| -> Vec<usize> {
        config.webhook.secrets.iter().map(|secret| secret.secret.expose().len()).collect()
    };
    assert_eq!(lengths(&config), [24, 24]);
    let named = read(&[("WEBHOOK_SECRET", &format!("acme:{one},{one}, b.2_-:{one}"))]).expect("valid");
    assert_eq!(lengths(&named), [24, 24, 24]);
    let senders: Vec<_> = named.webhook.secrets.iter().map(|secret| secret.sender.as_deref()).collect();
    assert_eq!(senders, [Some("acme"), None, Some("b.2_-")]);
    let (nameless, blank, long) = (format!(":{one}"), format!("a b:{one}"), format!("{}:{one}", "a".repeat(65)));
    for wrong in [
        &nameless,
        &blank,
        &long,
        "acme:",
        "acme:acme:whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        &one[6..],
        "whsec_",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw,",
        "whsec_%%%",
    ] {
        assert_eq!(refused_variables(&[("WEBHOOK_SECRET", wrong)]), ["WEBHOOK_SECRET"], "{wrong}");
    }
}

#[test]
fn debug_output_and_problems_contain_no_secret() {
    let secret = "do-not-print-me-do-not-print-me-32";
    let names = ["API_KEY", "ADMIN_API_KEY", "VIEWER_API_KEY", "JWT_SECRET"];
    let config = read(&names.map(|name| (name, secret))).expect("valid");
    let printed = format!("{config:?}");
    assert!(!printed.contains("print-me") && !printed.contains("112"), "{printed}");
    let problems = read(&[("JWT_SECRET", "do-not-print-me")]).expect_err("too short");
    assert!(!problems.contains("print-me"), "{problems}");
}
