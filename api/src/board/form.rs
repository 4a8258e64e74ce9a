//! Parameters of queries and forms.

use std::{fmt::Display, str::FromStr};

use poem::http::StatusCode;

use crate::problem::Problem;

/// The parameters of a query or of a form, decoded.
#[derive(Debug, Default)]
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    /// Parses `application/x-www-form-urlencoded`. PostgreSQL stores no NUL, so it is replaced.
    pub(super) fn parse(text: &[u8]) -> Self {
        let clean = |text: &str| text.replace('\0', "\u{fffd}").trim().to_owned();
        Self(url::form_urlencoded::parse(text).map(|(name, value)| (clean(&name), clean(&value))).collect())
    }

    /// The value of a parameter; `None` if it is absent or empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let mut values = self.0.iter().filter(|(key, _)| key == name);
        values.next().map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// The value of a parameter as owned text.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }

    /// A number between two others; `default` if the parameter is absent.
    ///
    /// # Errors
    /// 422 for any other value, with the name of the field and what would be right.
    pub(super) fn number<T: FromStr + PartialOrd + Display>(
        &self,
        name: &str,
        default: T,
        from: T,
        to: T,
    ) -> Result<T, Problem> {
        let Some(text) = self.get(name) else { return Ok(default) };
        let number = text.parse().ok().filter(|number| *number >= from && *number <= to);
        number.ok_or_else(|| invalid(name, &format!("must be a number from {from} to {to}")))
    }
}

/// 422 that names the field.
pub(super) fn invalid(field: &str, must: &str) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, format!("{field}: {must}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_empty_ones_are_absent() {
        let form = Form::parse(b"q=a%20b+c&empty=&blank=+&q=second&nul=a%00b&rate=20");
        assert_eq!(form.get("q"), Some("a b c"));
        assert_eq!((form.get("empty"), form.get("blank"), form.get("other")), (None, None, None));
        assert_eq!(form.get("nul"), Some("a\u{fffd}b"));
        assert_eq!(form.number("rate", 1, 1, 100).ok(), Some(20));
        assert_eq!(form.number("limit", 7, 1, 100).ok(), Some(7));
        let error = form.number("rate", 1, 1, 10).expect_err("too large").to_string();
        assert!(error.contains("rate: must be a number from 1 to 10"), "{error}");
    }
}
