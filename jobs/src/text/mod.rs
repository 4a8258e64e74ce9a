//! Text normalisation: one set of rules for the words of a search, the keys of accounts, passwords and names.
//!
//! The rules are Unicode's: NFC and NFKC (UAX #15), full case folding, general categories and scripts. PostgreSQL's
//! functions are not used, because they depend on its version and on the locale of the database.

mod fold;
mod key;
mod words;

use std::borrow::Cow;

use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::{
    CodePointMapData, CodePointSetData,
    props::{DefaultIgnorableCodePoint, GeneralCategory, GeneralCategoryGroup},
};

pub(crate) use self::words::pairs;
pub use self::{
    key::account_key,
    words::{Word, words},
};

/// The canonical form (NFC). It is equal for texts that differ only in the encoding of accents.
pub fn nfc(text: &str) -> Cow<'_, str> {
    const { ComposingNormalizerBorrowed::new_nfc() }.normalize(text)
}

/// The compatibility form (NFKC). It is also equal for full-width and half-width letters, ligatures and similar forms.
fn nfkc(text: &str) -> Cow<'_, str> {
    const { ComposingNormalizerBorrowed::new_nfkc() }.normalize(text)
}

/// Whether a text contains only invisible characters: whitespace, control characters and characters without width.
pub fn is_blank(text: &str) -> bool {
    text.chars().all(is_invisible)
}

fn is_invisible(c: char) -> bool {
    /// A symbol by its category, but with an empty glyph.
    const BRAILLE_BLANK: char = '\u{2800}';
    c == BRAILLE_BLANK
        || is_ignorable(c)
        || GeneralCategoryGroup::Separator.contains(category(c))
        || matches!(category(c), GeneralCategory::Control | GeneralCategory::Format)
}

/// The general category of a character.
pub(crate) fn category(c: char) -> GeneralCategory {
    const { CodePointMapData::<GeneralCategory>::new() }.get(c)
}

/// Whether a character is a mark, which modifies the character before it.
pub(crate) fn is_mark(c: char) -> bool {
    !c.is_ascii() && GeneralCategoryGroup::Mark.contains(category(c))
}

/// Whether programs that do not support the character show nothing for it, such as a soft hyphen or a joiner.
fn is_ignorable(c: char) -> bool {
    !c.is_ascii() && const { CodePointSetData::new::<DefaultIgnorableCodePoint>() }.contains(c)
}

#[cfg(test)]
mod tests {
    use icu_properties::props::Script;

    use super::*;

    /// Every assigned character, without scripts whose characters have only one form.
    pub(super) fn characters() -> impl Iterator<Item = char> {
        let uniform = [Script::Han, Script::Hangul, Script::Tangut, Script::EgyptianHieroglyphs, Script::Yi];
        let is_named = |c: &char| !matches!(category(*c), GeneralCategory::Unassigned | GeneralCategory::PrivateUse);
        ('\0'..=char::MAX).filter(is_named).filter(move |c| !uniform.contains(&fold::script(*c)))
    }

    #[test]
    fn a_text_of_invisible_characters_is_blank() {
        for text in
            ["", " ", "\t\n", "\u{200b}", "\u{feff}\u{2060}", "\u{a0}\u{3000}", "\u{3164}", "\u{2800}", "\u{ad}"]
        {
            assert!(is_blank(text), "{text:?}");
        }
        for text in ["a", " a ", "\u{200d}👍", "!", "0", "東", "\u{301}x"] {
            assert!(!is_blank(text), "{text:?}");
        }
    }

    #[test]
    fn equal_glyphs_have_one_canonical_form() {
        assert_eq!(nfc("cafe\u{301}"), "café");
        assert_eq!(nfc("ﬁ"), "ﬁ", "a ligature is another glyph");
    }
}
