//! Reads `Retry-After`: seconds or an HTTP date (RFC 9110, section 10.2.3).

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};

/// The longest wait that is accepted.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// `Retry-After: 0` must not become a busy loop.
const SHORTEST: Duration = Duration::from_secs(1);
/// The wait when the value cannot be read. Without one, a payment that is still being processed would count as done.
const UNREADABLE: Duration = Duration::from_secs(5);

/// The wait that these headers ask for, from 1 s to 24 h, or 5 s when it cannot be read. `None` only without the
/// header. Of several headers the longest wait counts.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let now = SystemTime::now();
    headers.get_all(RETRY_AFTER).iter().map(|value| read(value, now)).max()
}

fn read(value: &HeaderValue, now: SystemTime) -> Duration {
    let Ok(text) = value.to_str() else { return UNREADABLE };
    let text = text.trim();
    let pause = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a `u64` holds mean more than a day.
        text.parse().map_or(LONGEST, Duration::from_secs)
    } else if let Ok(date) = httpdate::parse_http_date(text) {
        date.duration_since(now).unwrap_or_default()
    } else {
        return UNREADABLE;
    };
    pause.clamp(SHORTEST, LONGEST)
}

#[cfg(test)]
mod tests {
    use hostile::proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn waits(values: &[&[u8]]) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(RETRY_AFTER, HeaderValue::from_bytes(value).expect("a header value"));
        }
        retry_after(&headers)
    }

    #[test]
    fn seconds_are_read_within_bounds() {
        assert_eq!(waits(&[]), None);
        for (text, seconds) in [
            ("120", 120),
            (" 7\t", 7),
            ("007", 7),
            ("0", 1),
            ("86400", 86_400),
            ("86401", 86_400),
            ("18446744073709551616", 86_400),
            ("99999999999999999999", 86_400),
            (&"9".repeat(1000), 86_400),
        ] {
            assert_eq!(waits(&[text.as_bytes()]), Some(SECOND * seconds), "{text}");
        }
        assert_eq!(waits(&[b"3", b"9", b"4s"]), Some(SECOND * 9), "the longest of several");
    }

    #[test]
    fn dates_are_read_in_all_three_forms() {
        let now = SystemTime::UNIX_EPOCH + SECOND * 1_795_858_200;
        // A minute later, and long ago.
        for (text, seconds) in [
            ("Sat, 28 Nov 2026 09:31:00 GMT", 60),
            ("Saturday, 28-Nov-26 09:31:00 GMT", 60),
            ("Sat Nov 28 09:31:00 2026", 60),
            ("Fri, 31 Dec 1999 23:59:59 GMT", 1),
            ("Friday, 31-Dec-99 23:59:59 GMT", 1),
            ("Fri Dec 31 23:59:59 1999", 1),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400),
        ] {
            assert_eq!(read(&HeaderValue::from_static(text), now), SECOND * seconds, "{text}");
        }
    }

    #[test]
    fn an_unreadable_value_is_a_wait_of_five_seconds() {
        for text in [
            "",
            " ",
            "4.5",
            "4s",
            "PT4S",
            "soon",
            "-1",
            "+5",
            "1e3",
            "0x10",
            "1 2",
            "1,2",
            "\"4\"",
            "Sat, 28 Nov 2026 09:31:00 -0000",
            "Sat, 28 Nov 2026 09:31:00 +0000",
            "Sat, 28 Nov 2026 09:31:00 UTC",
            "Sat, 31 Nov 2026 09:31:00 GMT",
            "2026-11-28T09:31:00Z",
            "1795858260.5",
        ] {
            assert_eq!(waits(&[text.as_bytes()]), Some(UNREADABLE), "{text:?}");
        }
        assert_eq!(waits(&[b"4\xff"]), Some(UNREADABLE), "not UTF-8");
    }

    /// The wait of a value that consists of digits, or of other characters than a date has.
    fn simple_wait(text: &str) -> Option<Duration> {
        let number = text
            .chars()
            .try_fold(0_u64, |number, c| Some(number.saturating_mul(10).saturating_add(c.to_digit(10)?.into())));
        match number.filter(|_| !text.is_empty()) {
            Some(seconds) => Some(SECOND * u32::try_from(seconds.clamp(1, 86_400)).expect("a day")),
            None => (!text.contains(':')).then_some(UNREADABLE),
        }
    }

    #[test]
    fn hostile_waits_are_bounded() -> Result<(), hostile::Failure> {
        let now = SystemTime::UNIX_EPOCH + SECOND * 1_795_858_200;
        let grammar = "[0-9]{1,25}|[-+]?[0-9]{1,3}(\\.[0-9])?|(Sat|Sun), [0-3][0-9] Nov [0-9]{4} [0-2][0-9]:[0-5][0-9]:[0-6][0-9] GMT";
        hostile::check_bytes(
            include_str!("../../../../tests/corpora/retry_after.txt"),
            grammar.prop_map(String::into_bytes),
            |bytes| {
                let Ok(value) = HeaderValue::from_bytes(bytes) else { return Ok(()) };
                let wait = read(&value, now);
                prop_assert!((SHORTEST..=LONGEST).contains(&wait), "{:?}", wait);
                let expected = match value.to_str() {
                    Ok(text) => simple_wait(text.trim()),
                    Err(_) => Some(UNREADABLE),
                };
                prop_assert_eq!(wait, expected.unwrap_or(wait));
                Ok(())
            },
        )
    }

    #[test]
    fn hostile_dates_are_the_time_until_then() -> Result<(), hostile::Failure> {
        // From 1970 to 9999, most of them within some days of now.
        let dates = prop_oneof![0..253_402_300_800_u64, 1_795_700_000..1_796_000_000_u64];
        hostile::check((dates, 1_795_700_000..1_796_000_000_u64), |(date, now)| {
            let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            let value = HeaderValue::from_str(&httpdate::fmt_http_date(at(*date))).expect("a header value");
            let expected = Duration::from_secs(date.saturating_sub(*now)).clamp(SHORTEST, LONGEST);
            prop_assert_eq!(read(&value, at(*now)), expected);
            Ok(())
        })
    }
}
