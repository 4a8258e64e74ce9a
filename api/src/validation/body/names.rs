//! Texts that name something: one of a few words, a UUID, and texts free of outer blanks.

use std::borrow::Cow;

use uuid::Uuid;

use super::{Fields, fields::string};
use crate::validation::Wrong;

impl<'a> Fields<'a> {
    /// A text that is not empty once its outer blanks are left out. It may have any character, NUL too: whatever is to
    /// be stored is read by [`Fields::text`].
    pub fn stripped(&mut self, name: &'static str) -> Option<Cow<'a, str>> {
        self.field(name, |raw| {
            let text = string(raw).ok_or_else(|| Wrong::new("string_type", "Input should be a valid string"))??;
            let text = match text {
                Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
                Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
            };
            if text.is_empty() {
                let wrong = Wrong::new("string_too_short", "String should have at least 1 character");
                return Err(wrong.limit("min_length", 1));
            }
            Ok(text)
        })
    }

    /// One of these words, exactly; `expected` names them as Pydantic does: `'A', 'B' or 'C'`.
    pub fn choice<T>(
        &mut self,
        name: &'static str,
        expected: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let wrong = || Wrong::new("enum", format!("Input should be {expected}")).expected(expected);
        self.field(name, |raw| string(raw).and_then(Result::ok).and_then(|text| parse(&text)).ok_or_else(wrong))
    }

    /// A UUID in any of its notations.
    pub fn uuid(&mut self, name: &'static str) -> Option<Uuid> {
        self.field(name, |raw| match string(raw) {
            Some(text) => uuid(&text?),
            None => Err(Wrong::new("uuid_type", "UUID input should be a string, bytes or UUID object")),
        })
    }
}

/// Pydantic is built on the same parser, so that its own words are Pydantic's (2.14; earlier ones were longer).
fn uuid(text: &str) -> Result<Uuid, Wrong> {
    Uuid::parse_str(text).map_err(|error| {
        let reason = error.to_string();
        Wrong::new("uuid_parsing", format!("Input should be a valid UUID, {reason}")).error(reason)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Pydantic 2.14.3 was seen to answer.
    #[test]
    fn refuses_what_is_no_uuid_in_pydantics_words() {
        for (text, reason) in [
            ("", "invalid length: found 0"),
            ("1234", "invalid length: found 4"),
            ("not-a-uuid", "invalid character: found `n` at 0"),
            (" 75cf11e0-f5d5-4dd7-b895-22e7e3d66fa8", "invalid character: found ` ` at 0"),
            ("75cf11e0-f5d5-4dd7-b895-22e7e3d66faé", "invalid character: found `é` at 35"),
            ("\0", "invalid character: found `\0` at 0"),
            ("75cf11e0f5d54dd7b89522e7e3d66fa80", "invalid length: found 33"),
            ("75cf11e0-f5d5-4dd7-b895-22e7e3d66fa", "invalid group length in group 4: expected 12, found 11"),
            ("75cf11e-f5d5-4dd7-b895-22e7e3d66fa80", "invalid group length in group 0: expected 8, found 7"),
            ("75cf11e0-f5d5-4dd7-b89522e7e3d66fa8", "invalid group count: expected 5, found 4"),
            ("{75cf11e0-f5d5-4dd7-b895-22e7e3d66fa80}", "invalid group length in group 4: expected 12, found 15"),
            ("{abc}", "invalid group count: expected 5, found 1"),
        ] {
            let wrong = uuid(text).expect_err(text);
            assert_eq!(wrong.msg, format!("Input should be a valid UUID, {reason}"), "{text}");
            assert_eq!(wrong.kind, "uuid_parsing");
        }
        for text in [
            "75cf11e0-f5d5-4dd7-b895-22e7e3d66fa8",
            "75CF11E0F5D54DD7B89522E7E3D66FA8",
            "{75cf11e0-f5d5-4dd7-b895-22e7e3d66fa8}",
            "urn:uuid:75cf11e0-f5d5-4dd7-b895-22e7e3d66fa8",
        ] {
            assert_eq!(uuid(text).map(|id| id.to_string()), Ok("75cf11e0-f5d5-4dd7-b895-22e7e3d66fa8".into()));
        }
    }
}
