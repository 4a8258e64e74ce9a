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
}
