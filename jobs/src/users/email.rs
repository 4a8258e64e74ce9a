//! Validation of e-mail addresses. The error texts are those of the Python package `email-validator`, on which clients
//! match.

use std::{collections::BTreeSet, fmt};

use icu_properties::props::GeneralCategoryGroup;

use crate::text::{self, category, is_mark};

/// The limit of an address (RFC 5321 §4.5.3.1.3).
const MAX_BYTES: usize = 254;
/// The limit of a domain name (RFC 1035 §2.3.4).
const MAX_DOMAIN_BYTES: usize = 253;
/// The limit of each part of a domain name between periods.
const MAX_LABEL_BYTES: usize = 63;

/// A valid e-mail address in NFC. Its domain is in lower case, with Unicode instead of Punycode.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Email(String);

impl Email {
    /// Parses an address. Surrounding whitespace is ignored. Quoted strings, comments, display names and IP addresses
    /// are refused.
    ///
    /// # Errors
    /// Returns the reason as a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.ends_with('>') {
            return Err("A display name and angle brackets around the email address are not permitted here.".into());
        }
        let Some((local, domain)) = text.split_once('@') else {
            return Err("An email address must have an @-sign.".into());
        };
        check_local(local)?;
        let composed = text::nfc(local);
        if composed != local {
            check_local(&composed).map_err(|wrong| format!("After Unicode normalization: {wrong}"))?;
        }
        let domain = check_domain(domain)?;
        let address = format!("{composed}@{domain}");
        let unit = if address.is_ascii() { "character" } else { "byte" };
        match excess(address.len(), MAX_BYTES, unit) {
            Some(more) => Err(format!("The email address is too long ({more}).")),
            None => Ok(Self(address)),
        }
    }

    /// The address.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The account key. The database compares accounts by it, and rate limits count by it, so that a different spelling
    /// of the same address circumvents neither.
    pub fn key(&self) -> String {
        text::account_key(&self.0)
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks the part before the @-sign: a dot-atom (RFC 5322) with visible characters of every script (RFC 6531).
fn check_local(local: &str) -> Result<(), String> {
    const MARKS: &str = "_!#$%&'*+-/=?^`{|}~.";
    if local.is_empty() {
        return Err("There must be something before the @-sign.".into());
    }
    if local.starts_with('"') {
        return Err("Quoting the part before the @-sign is not allowed here.".into());
    }
    if let Some(wrong) =
        unexpected_characters(local, |c| c.is_ascii_alphanumeric() || !c.is_ascii() || MARKS.contains(c))
    {
        return Err(format!("The email address contains invalid characters before the @-sign: {wrong}."));
    }
    check_ends(local, '.', "cannot start with a period", "cannot have a period immediately before the @-sign")?;
    if local.contains("..") {
        return Err("An email address cannot have two periods in a row.".into());
    }
    // A mark at the start would modify the character before the address.
    let starts_with_mark = local.starts_with(is_mark);
    match unexpected_characters(local, |c| is_visible(c) || (is_mark(c) && !(starts_with_mark && local.starts_with(c))))
    {
        Some(wrong) => Err(format!("The email address contains unsafe characters: {wrong}.")),
        None => Ok(()),
    }
}

/// Whether a character has its own glyph.
fn is_visible(c: char) -> bool {
    const VISIBLE: GeneralCategoryGroup = GeneralCategoryGroup::Letter
        .union(GeneralCategoryGroup::Number)
        .union(GeneralCategoryGroup::Punctuation)
        .union(GeneralCategoryGroup::Symbol);
    c.is_ascii_graphic() || VISIBLE.contains(category(c))
}

/// Checks the domain, and returns its canonical form (IDNA).
fn check_domain(domain: &str) -> Result<String, String> {
    if domain.is_empty() {
        return Err("There must be something after the @-sign.".into());
    }
    if domain.starts_with('[') && domain.ends_with(']') {
        return Err("A bracketed IP address after the @-sign is not allowed here.".into());
    }
    if let Some(more) = excess(domain.chars().count(), MAX_DOMAIN_BYTES, "character") {
        return Err(format!("The email address is too long after the @-sign ({more})."));
    }
    let is_allowed = |c: char| c.is_alphanumeric() || c == '-' || c == '.' || !c.is_ascii();
    if let Some(wrong) = unexpected_characters(domain, is_allowed) {
        return Err(format!("The part after the @-sign contains invalid characters: {wrong}."));
    }
    check_separators(domain)?;
    let ascii = idna::domain_to_ascii(domain).map_err(|_| idna_error(domain))?;
    let (unicode, result) = idna::domain_to_unicode(&ascii);
    result.map_err(|_| idna_error(domain))?;
    // IDNA maps some characters to ASCII ones that are not allowed: U+00A0 to a blank, `℀` to `a/c`.
    if let Some(wrong) = unexpected_characters(&unicode, is_allowed) {
        return Err(format!(
            "The part after the @-sign contains invalid characters after Unicode normalization: {wrong}."
        ));
    }
    // IDNA ignores some characters, such as U+FEFF, so others become neighbours.
    check_separators(&unicode)?;
    let is_reserved = |label: &str| label.get(2..4) == Some("--") && !label.starts_with("xn");
    if ascii.split('.').any(is_reserved) {
        let place = "immediately after the @-sign or after a period, except Punycode";
        return Err(format!("An email address cannot have two letters followed by two dashes {place}."));
    }
    if let Some(more) = excess(ascii.len(), MAX_DOMAIN_BYTES, "byte") {
        return Err(format!("The email address is too long after the @-sign ({more} after IDNA encoding)."));
    }
    for label in ascii.split('.') {
        if let Some(more) = excess(label.len(), MAX_LABEL_BYTES, "character") {
            return Err(format!("After the @-sign, periods cannot be separated by so many characters ({more})."));
        }
    }
    if !ascii.contains('.') {
        return Err("The part after the @-sign is not valid. It should have a period.".into());
    }
    if !ascii.ends_with(|c: char| c.is_ascii_alphabetic()) {
        return Err("The part after the @-sign is not valid. It is not within a valid top-level domain.".into());
    }
    Ok(unicode)
}

/// Checks that no part of a domain between periods is empty, or begins or ends with a hyphen.
fn check_separators(domain: &str) -> Result<(), String> {
    for (mark, name) in [('.', "period"), ('-', "hyphen")] {
        let start = format!("cannot have a {name} immediately after the @-sign");
        check_ends(domain, mark, &start, &format!("cannot end with a {name}"))?;
    }
    if domain.contains("..") {
        return Err("An email address cannot have two periods in a row.".into());
    }
    if domain.contains(".-") || domain.contains("-.") {
        return Err("An email address cannot have a period and a hyphen next to each other.".into());
    }
    Ok(())
}

/// The error text for a domain that IDNA refuses. The library does not return the reason.
fn idna_error(domain: &str) -> String {
    let is_wrong = |label: &&str| idna::domain_to_ascii(label).is_err() || idna::domain_to_unicode(label).1.is_err();
    let place = "The part after the @-sign";
    match domain.split(['.', '\u{3002}', '\u{ff0e}', '\u{ff61}']).find(is_wrong) {
        Some(label) if label.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("xn--")) => {
            format!("{place} is not valid IDNA (Invalid A-label).")
        }
        Some(label) => format!("{place} is invalid (The label '{}' is not valid IDNA).", label.escape_debug()),
        None => format!("{place} is invalid (Its labels together are not valid IDNA)."),
    }
}

/// Checks that a part neither starts nor ends with `mark`.
fn check_ends(part: &str, mark: char, start: &str, end: &str) -> Result<(), String> {
    if part.ends_with(mark) {
        return Err(format!("An email address {end}."));
    }
    if part.starts_with(mark) {
        return Err(format!("An email address {start}."));
    }
    Ok(())
}

/// The characters that are not allowed, each once and quoted; `None` if there are none.
fn unexpected_characters(part: &str, is_allowed: impl Fn(char) -> bool) -> Option<String> {
    let found: BTreeSet<String> = part.chars().filter(|c| !is_allowed(*c)).map(describe_character).collect();
    (!found.is_empty()).then(|| found.into_iter().collect::<Vec<_>>().join(", "))
}

/// A readable form of a character, also of an invisible one.
fn describe_character(c: char) -> String {
    match c {
        ' ' => "SPACE".into(),
        '\'' => "\"'\"".into(),
        '\\' => "\"\\\"".into(),
        c if is_visible(c) => format!("'{c}'"),
        c => format!("U+{:04X}", u32::from(c)),
    }
}

/// How far a length is above its limit; `None` if it is not.
fn excess(length: usize, limit: usize, unit: &str) -> Option<String> {
    let more = length.checked_sub(limit).filter(|more| *more > 0)?;
    Some(format!("{more} {unit}{} too many", if more == 1 { "" } else { "s" }))
}

#[cfg(test)]
mod tests {
    use hostile::proptest::prelude::*;

    use super::*;

    #[test]
    fn valid_addresses_are_normalised() {
        for (text, expected) in [
            ("ada@example.com", "ada@example.com"),
            ("  Ada.Lovelace+x@EXAMPLE.Com ", "Ada.Lovelace+x@example.com"),
            ("!#$%&'*+-/=?^_`{|}~@a-b.example", "!#$%&'*+-/=?^_`{|}~@a-b.example"),
            ("ürsula@bücher.example", "ürsula@bücher.example"),
            ("ada@xn--bcher-kva.example", "ada@bücher.example"),
            ("ada@b\u{3002}com", "ada@b.com"),
            ("a@1.2.3.com", "a@1.2.3.com"),
            ("a@x.test", "a@x.test"),
            ("jose\u{301}@example.com", "josé@example.com"),
            ("ada@bu\u{308}cher.example", "ada@bücher.example"),
            ("กำ@example.com", "กำ@example.com"),
            ("हिन्दी@example.com", "हिन्दी@example.com"),
            ("a\u{338}@example.com", "a\u{338}@example.com"),
            ("☃…@example.com", "☃…@example.com"),
        ] {
            assert_eq!(Email::parse(text).as_ref().map(Email::as_str), Ok(expected), "{text}");
        }
        let longest = format!("{}@example.com", "a".repeat(242));
        assert!(Email::parse(&longest).is_ok());
        assert_eq!(
            Email::parse(&format!("a{longest}")),
            Err("The email address is too long (1 character too many).".to_owned())
        );
    }

    #[test]
    fn invalid_addresses_are_refused_with_the_reason() {
        for (text, why) in [
            ("", "An email address must have an @-sign."),
            ("@", "There must be something before the @-sign."),
            ("\"a b\"@example.com", "Quoting the part before the @-sign is not allowed here."),
            ("ada@[1.2.3.4]", "A bracketed IP address after the @-sign is not allowed here."),
            (
                "Ada <ada@example.com>",
                "A display name and angle brackets around the email address are not permitted here.",
            ),
            (
                "ada@ab--cd.com",
                "An email address cannot have two letters followed by two dashes immediately after the @-sign or after \
                 a period, except Punycode.",
            ),
            ("a\\b@example.com", "The email address contains invalid characters before the @-sign: \"\\\"."),
            ("ada", "An email address must have an @-sign."),
            ("@example.com", "There must be something before the @-sign."),
            ("ada@", "There must be something after the @-sign."),
            ("ada@example", "The part after the @-sign is not valid. It should have a period."),
            ("ada@1.2.3.4", "The part after the @-sign is not valid. It is not within a valid top-level domain."),
            (".ada@example.com", "An email address cannot start with a period."),
            ("ada.@example.com", "An email address cannot have a period immediately before the @-sign."),
            ("a..b@example.com", "An email address cannot have two periods in a row."),
            ("a@b..com", "An email address cannot have two periods in a row."),
            ("a@.com", "An email address cannot have a period immediately after the @-sign."),
            ("a@b.com.", "An email address cannot end with a period."),
            ("a@-b.com", "An email address cannot have a hyphen immediately after the @-sign."),
            ("a@b.com-", "An email address cannot end with a hyphen."),
            ("a@b-.com", "An email address cannot have a period and a hyphen next to each other."),
            ("a b@example.com", "The email address contains invalid characters before the @-sign: SPACE."),
            ("a(b)@example.com", "The email address contains invalid characters before the @-sign: '(', ')'."),
            ("a@b@example.com", "The part after the @-sign contains invalid characters: '@'."),
            (
                "a@\u{a0}b.com",
                "The part after the @-sign contains invalid characters after Unicode normalization: SPACE.",
            ),
            (
                "a@b\u{2100}d.com",
                "The part after the @-sign contains invalid characters after Unicode normalization: '/'.",
            ),
            ("a@exam_ple.com", "The part after the @-sign contains invalid characters: '_'."),
            ("a\u{202e}@example.com", "The email address contains unsafe characters: U+202E."),
            ("a\u{200d}b\u{a0}@example.com", "The email address contains unsafe characters: U+00A0, U+200D."),
            ("\u{301}a@example.com", "The email address contains unsafe characters: U+0301."),
            ("é.@example.com", "An email address cannot have a period immediately before the @-sign."),
            (
                "a\u{37e}@example.com",
                "After Unicode normalization: The email address contains invalid characters before the @-sign: ';'.",
            ),
            ("a@xn--a.com", "The part after the @-sign is not valid IDNA (Invalid A-label)."),
            ("a@XN--zzzzzzzz.com", "The part after the @-sign is not valid IDNA (Invalid A-label)."),
            ("a@b.1\u{5d0}.com", "The part after the @-sign is invalid (The label '1\u{5d0}' is not valid IDNA)."),
            ("a@b\u{200d}c.com", "The part after the @-sign is invalid (The label 'b\\u{200d}c' is not valid IDNA)."),
        ] {
            assert_eq!(Email::parse(text), Err(why.to_owned()), "{text}");
        }
        let label = format!("a@{}.com", "b".repeat(64));
        let why = "After the @-sign, periods cannot be separated by so many characters (1 character too many).";
        assert_eq!(Email::parse(&label), Err(why.to_owned()));
    }

    #[test]
    fn all_spellings_of_an_address_have_the_same_key() {
        for (one, other) in
            [("Ada@Example.com", "ADA@EXAMPLE.COM"), ("ALİ@x.com", "ali@x.com"), ("ß@x.com", "SS@x.com")]
        {
            let keys = [one, other].map(|text| Email::parse(text).map(|email| email.key()));
            assert_eq!(keys[0], keys[1]);
        }
    }

    #[test]
    fn hostile_addresses_have_one_form_and_one_key() -> Result<(), hostile::Failure> {
        let corpus = include_str!("../../../tests/corpora/email.txt");
        let grammar = "[a-zA-ZàÉßıİﬁ.+']{1,8}\\PC?@([a-zäß\\-]{1,6}|xn--[a-z0-9-]{1,6})\\.[a-zA-Zкд]{1,5}";
        hostile::check_text(corpus, grammar, |text| {
            let Ok(email) = Email::parse(text) else { return Ok(()) };
            let address = email.as_str();
            prop_assert_eq!(Email::parse(address), Ok(email.clone()), "an address is its own form");
            prop_assert!(address.len() <= MAX_BYTES);
            let (local, domain) = address.split_once('@').expect("an @-sign");
            prop_assert!(!local.is_empty() && domain.contains('.') && !domain.contains('@'), "{}", address);
            prop_assert!(!address.contains(|c: char| c.is_whitespace() || c.is_control()), "{}", address);
            prop_assert_eq!(domain.to_lowercase(), domain);
            let key = email.key();
            prop_assert_eq!(text::account_key(&key), key.clone(), "the key of a key");
            Ok(())
        })
    }
}
