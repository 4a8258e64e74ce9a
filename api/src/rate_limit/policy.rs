//! The policy of a rate limit: requests per window. Parses `RATE_LIMIT`.

use std::time::Duration;

use runtime::{clients::bucket::Size, config::EnvReader, duration::parse_duration};

/// The largest quota; a larger one would not limit anything.
const MAX_QUOTA: u32 = 1_000_000;
const MAX_WINDOW: Duration = Duration::from_secs(24 * 3600);

/// A quota that can be used at once, and then refills evenly over the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The name in headers and in Redis keys.
    pub name: &'static str,
    /// Requests per window.
    pub quota: u32,
    /// The time until an empty bucket is full again.
    pub window: Duration,
}

impl Policy {
    /// The admin routes: enough for manual work, and for a script that polls once a second.
    pub const ADMIN: Self = Self { name: "admin", quota: 60, window: Duration::from_secs(60) };
    /// The operators' routes: enough for a script that changes hundreds of jobs one by one.
    pub const OPERATORS: Self = Self { name: "operators", quota: 600, window: Duration::from_secs(60) };
    /// The default of `RATE_LIMIT`, for the price routes.
    pub const PRICES: Self = Self { name: "prices", quota: 120, window: Duration::from_secs(60) };

    /// Wrong keys, per client address.
    pub const WRONG_KEYS: Self = Self { name: "wrong-keys", quota: 30, window: Duration::from_secs(60) };

    /// Reads `RATE_LIMIT`: the limit of the price routes per credential.
    pub fn read(vars: &mut EnvReader) -> Self {
        let read = |text: &str| Self::PRICES.with(text, "requests", "RATE_LIMIT=120/60s, 120/1m or 7200/1h");
        vars.read("RATE_LIMIT", Self::PRICES, read)
    }

    /// Reads `WEBHOOK_QUOTA`: the limit of the webhook routes per sender, in webhooks. Unset means no limit.
    pub fn read_webhook_quota(vars: &mut EnvReader) -> Option<Self> {
        const WEBHOOKS: Policy = Policy { name: "webhooks", quota: 1, window: MAX_WINDOW };
        let read = |text: &str| WEBHOOKS.with(text, "webhooks", "WEBHOOK_QUOTA=10000/60s").map(Some);
        vars.read("WEBHOOK_QUOTA", None, read)
    }

    /// This policy with another quota and window.
    fn with(self, text: &str, what: &str, example: &str) -> Result<Self, String> {
        let limit = parse(text).map(|(quota, window)| Self { quota, window, ..self });
        limit.ok_or_else(|| {
            format!("must be {what}, up to {MAX_QUOTA}, in seconds, minutes or hours, up to a day, such as {example}")
        })
    }

    pub(super) fn size(self) -> Size {
        Size { quota: self.quota, window: self.window }
    }
}

fn parse(text: &str) -> Option<(u32, Duration)> {
    let (quota, window) = text.split_once('/')?;
    let (quota, window) = (quota.trim_end(), window.trim_start());
    // Rust would parse `+5`.
    let is_number = quota.bytes().all(|byte| byte.is_ascii_digit());
    let quota = quota.parse().ok().filter(|quota| is_number && (1..=MAX_QUOTA).contains(quota))?;
    // In days there is only one window, which is `24h` as well.
    let window = parse_duration(window).ok().filter(|_| !window.ends_with('d'))?.unsigned_abs();
    (!window.is_zero() && window <= MAX_WINDOW).then_some((quota, window))
}

#[cfg(test)]
mod tests {
    use hostile::proptest::prelude::*;

    use super::*;

    #[test]
    fn parses_quota_and_window() {
        for (text, quota, seconds) in
            [("120/60s", 120, 60), ("1/1m", 1, 60), ("7200 / 1h", 7200, 3600), ("1000000/24h", 1_000_000, 86_400)]
        {
            assert_eq!(parse(text), Some((quota, Duration::from_secs(seconds))), "{text}");
        }
        for wrong in [
            "",
            "/",
            "120",
            "120/",
            "/60s",
            "0/60s",
            "120/0s",
            "-1/60s",
            "+1/60s",
            "1.5/60s",
            "120/60",
            "120/s",
            "120/60ms",
            "120/60d",
            "1000001/1s",
            "1/25h",
            "1/99999999999999999999h",
            "120/60é",
            "120//60s",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        let mut vars = EnvReader::from_pairs(&[("RATE_LIMIT", "many")]);
        assert_eq!(Policy::read(&mut vars), Policy::PRICES);
        let problem = vars.finish(()).expect_err("wrong").to_string();
        assert!(problem.starts_with("RATE_LIMIT: must be") && problem.contains("RATE_LIMIT=120/60s"), "{problem}");
    }

    #[test]
    fn hostile_limits_are_refused_or_within_bounds() -> Result<(), hostile::Failure> {
        hostile::check_text(
            "120/60s\n7200 / 1h\n0/1s\n+1/1s\n1/٣s\n1//1s\n",
            "[0-9]{1,8} ?/ ?[0-9]{1,8}[smhd]",
            |text| {
                let Some((quota, window)) = parse(text) else { return Ok(()) };
                prop_assert!((1..=MAX_QUOTA).contains(&quota) && window <= MAX_WINDOW && !window.is_zero());
                let (number, rest) = text.split_once('/').expect("a slash");
                prop_assert_eq!(number.trim().parse().ok(), Some(quota));
                let rest = rest.trim();
                let seconds = match rest.as_bytes()[rest.len() - 1] {
                    b's' => 1,
                    b'm' => 60,
                    _ => 3600,
                };
                let count: u64 = rest[..rest.len() - 1].parse().expect("digits");
                prop_assert_eq!(window, Duration::from_secs(count * seconds));
                Ok(())
            },
        )
    }
}
