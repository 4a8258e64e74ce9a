//! Standard Webhooks: with a secret set, only webhooks that are signed with it are accepted.

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use time::OffsetDateTime;

use super::{System, assert_ok, webhook};
use crate::harness::http::send;

const OLD: &[u8] = b"the secret that is rotated out";
const NEW: &[u8] = b"the secret that is rotated in";

pub(super) fn secret(bytes: &[u8]) -> String {
    format!("whsec_{}", STANDARD.encode(bytes))
}

pub(super) fn sign(secret: &[u8], id: &str, timestamp: &str, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
    mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

pub(super) fn headers(id: &str, timestamp: &str, signature: &str) -> Vec<(&'static str, String)> {
    vec![
        ("webhook-id", id.to_owned()),
        ("webhook-timestamp", timestamp.to_owned()),
        ("webhook-signature", signature.to_owned()),
    ]
}

#[tokio::test]
async fn only_recent_signatures_of_a_known_secret_are_accepted() {
    let secrets = format!("{}, {}", secret(OLD), secret(NEW));
    let system = System::start(&[("WEBHOOK_SECRET", &secrets)]).await;
    let (now, body) = (OffsetDateTime::now_utc().unix_timestamp(), webhook("t").to_string());
    let at = |offset: i64| (now + offset).to_string();
    let (this, before, after) = (at(0), at(-290), at(290));
    let good = sign(NEW, "m", &this, &body);
    let good = &*good;
    let among_others = format!("v1,AAAA v1a,xyz {good} v2,{}", &good[3..]);
    let unpadded = good.trim_end_matches('=');
    let spaced = body.replace(':', ": ");
    let (long_ago, far_off) = (at(-310), at(310));
    let mut cases = vec![
        // First, because the time that goes on makes these two wrong after ten seconds.
        ("290 s old", headers("m", &before, &sign(NEW, "m", &before, &body)), &body, 202),
        ("310 s early", headers("m", &far_off, &sign(NEW, "m", &far_off, &body)), &body, 401),
        ("the new secret", headers("m", &this, good), &body, 202),
        ("the old secret", headers("m", &this, &sign(OLD, "m", &this, &body)), &body, 202),
        ("among others", headers("m", &this, &among_others), &body, 202),
        ("without padding", headers("m", &this, unpadded), &body, 202),
        ("290 s early", headers("m", &after, &sign(NEW, "m", &after, &body)), &body, 202),
        ("310 s old", headers("m", &long_ago, &sign(NEW, "m", &long_ago, &body)), &body, 401),
        ("nothing", vec![], &body, 401),
        ("another secret", headers("m", &this, &sign(b"another", "m", &this, &body)), &body, 401),
        ("another id", headers("n", &this, good), &body, 401),
        ("another time", headers("m", &at(-1), good), &body, 401),
        ("another body", headers("m", &this, good), &spaced, 401),
        ("no version", headers("m", &this, &good[3..]), &body, 401),
        ("another version", headers("m", &this, &good.replace("v1,", "v2,")), &body, 401),
        ("half of it", headers("m", &this, &good[..20]), &body, 401),
        ("empty", headers("m", &this, ""), &body, 401),
        ("a comma only", headers("m", &this, "v1,"), &body, 401),
        ("no time", headers("m", "", &sign(NEW, "m", "", &body)), &body, 401),
        ("no id", headers("", &this, &sign(NEW, "", &this, &body)), &body, 401),
        ("a blank id", headers(" ", &this, &sign(NEW, "", &this, &body)), &body, 401),
        ("a fraction", headers("m", &format!("{this}.0"), &sign(NEW, "m", &format!("{this}.0"), &body)), &body, 401),
        (
            "milliseconds",
            headers("m", &format!("{this}000"), &sign(NEW, "m", &format!("{this}000"), &body)),
            &body,
            401,
        ),
        ("a sign", headers("m", &format!("+{this}"), &sign(NEW, "m", &format!("+{this}"), &body)), &body, 401),
    ];
    let line = |signature: &str| ("webhook-signature", signature.to_owned());
    let and = |more: &[(&'static str, String)]| [&headers("m", &this, good)[..], more].concat();
    cases.extend([
        ("a second line of signatures", and(&[line("v1,AAAA")]), &body, 202),
        ("in the second line", [&headers("m", &this, "v1,AAAA")[..], &[line(good)]].concat(), &body, 202),
        ("in no line", [&headers("m", &this, "v1,AAAA")[..], &[line("v1,BBBB")]].concat(), &body, 401),
        ("a second id", and(&[("webhook-id", "n".into())]), &body, 401),
        ("an empty second id", and(&[("webhook-id", String::new())]), &body, 401),
        ("the same id twice", and(&[("webhook-id", "m".into())]), &body, 401),
        ("a second time", and(&[("webhook-timestamp", before.clone())]), &body, 401),
    ]);
    for missing in 0..3 {
        let mut incomplete = headers("m", &this, good);
        incomplete.remove(missing);
        cases.push(("one header missing", incomplete, &body, 401));
    }
    for (case, headers, body, status) in cases {
        let request = headers
            .iter()
            .fold(system.post_webhook(body.clone()), |request, (name, value)| request.header(*name, value));
        let response = send(request).await;
        assert_ok(&response, status, case);
        if status == 401 {
            response.assert_problem(401, case);
            for leak in ["the secret", &good[3..], &secret(NEW)[6..]] {
                assert!(!response.text.contains(leak), "{case}: {}", response.text);
            }
        }
    }
    assert_eq!(system.count("SELECT count(*) FROM transactions").await, 1);
    assert_no_secret(&system);
}

/// The signature covers the raw bytes.
#[tokio::test]
async fn signed_bodies_are_validated_like_any_other() {
    let system = System::start(&[("WEBHOOK_SECRET", &secret(OLD))]).await;
    let now = OffsetDateTime::now_utc().unix_timestamp().to_string();
    let spaced = webhook("t").to_string().replace(':', ": ");
    for (body, status) in [("{", 400), ("{}", 422), ("", 422), (&*spaced, 202)] {
        let request = system.post_webhook(body.to_owned());
        send(request.try_clone().unwrap()).await.assert_problem(401, "unsigned");
        let headers = headers("m", &now, &sign(OLD, "m", &now, body));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, value));
        assert_ok(&send(request).await, status, body);
    }
    // Look-ups need no signature.
    assert_ok(&send(system.get("/v1/transactions/t")).await, 200, "GET");
    assert_no_secret(&system);
}

fn assert_no_secret(system: &System) {
    let log = system.api.process.log();
    assert!(!log.contains("whsec_") && !log.contains(&STANDARD.encode(NEW)), "{log}");
}
