//! How long a server asks to be left alone: `Retry-After` in seconds or as a date (RFC 9110, section 10.2.3).

use std::time::{Duration, SystemTime};

use reqwest::header;

/// Nobody may put us off for longer at a time.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// `Retry-After: 0` must not become a busy loop.
const SHORTEST: Duration = Duration::from_secs(1);

/// The wait that these headers ask for, within bounds; `None` when they ask for none, or not in its form.
pub fn retry_after(headers: &header::HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).unwrap_or_default(),
    };
    Some(pause.clamp(SHORTEST, LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_forms_within_bounds() {
        let read = |text: &str| {
            retry_after(&[(header::RETRY_AFTER, text.parse().expect("a header value"))].into_iter().collect())
        };
        assert_eq!(read("120"), Some(Duration::from_secs(120)));
        assert_eq!(read("0"), Some(SHORTEST));
        assert_eq!(read("99999999999"), Some(LONGEST));
        assert_eq!(read("Fri, 31 Dec 1999 23:59:59 GMT"), Some(SHORTEST));
        assert_eq!(read("soon"), None);
        assert_eq!(read("-1"), None);
    }
}
