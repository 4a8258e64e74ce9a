//! The words of a document, as every index keeps them.

use std::collections::BTreeSet;

use super::{model::Document, words::is_correctable};
use crate::text::{Word, words};

/// Only the beginning of longer texts is searched.
const LONGEST_TITLE: usize = 1_000;
const LONGEST_DESCRIPTION: usize = 100_000;
/// PostgreSQL keeps 16,383 positions and 1 MiB of words in a document.
const MOST_WORDS: usize = 16_000;
const MOST_BYTES: usize = 400_000;

/// What of a document is searched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Analysis {
    /// The words of the title with a blank between two.
    pub title_key: String,
    /// The words of the title in order; of a script without blanks, its pairs of characters.
    pub title: Vec<String>,
    /// The same of the description.
    pub description: Vec<String>,
}

impl Analysis {
    /// Analyses a document.
    pub fn of(document: &Document) -> Self {
        let title = words(beginning(&document.title, LONGEST_TITLE));
        let description = words(beginning(document.description.as_deref().unwrap_or_default(), LONGEST_DESCRIPTION));
        let mut left = (MOST_WORDS, MOST_BYTES);
        Self {
            title_key: title_key(&title),
            title: tokens(&title, &mut left),
            description: tokens(&description, &mut left),
        }
    }

    /// PostgreSQL's `tsvector` in its notation: the title has weight `A`, the description `B`.
    pub fn vector(&self) -> String {
        let title = (1..).zip(&self.title).map(|(place, word)| format!("'{word}':{place}A "));
        // One place stays free, so that no phrase goes on from the title to the description.
        let first = self.title.len() + 2;
        let description = (first..).zip(&self.description).map(|(place, word)| format!("'{word}':{place}B "));
        title.chain(description).collect()
    }

    /// The words that a misspelt one may have meant, each once.
    pub fn vocabulary(&self) -> BTreeSet<&str> {
        let all = self.title.iter().chain(&self.description).map(String::as_str);
        all.filter(|word| is_correctable(word)).collect()
    }
}

/// The words of a title with a blank between two.
pub fn title_key(words: &[Word]) -> String {
    words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ")
}

fn tokens(words: &[Word], (most, bytes): &mut (usize, usize)) -> Vec<String> {
    let tokens = words.iter().flat_map(Word::tokens).map_while(|token| {
        *most = most.checked_sub(1)?;
        *bytes = bytes.checked_sub(token.len())?;
        Some(token)
    });
    tokens.collect()
}

fn beginning(text: &str, characters: usize) -> &str {
    // The number of bytes bounds that of characters, and mostly settles it.
    if text.len() <= characters {
        return text;
    }
    text.char_indices().nth(characters).and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;

    fn analysis(title: &str, description: Option<&str>) -> Analysis {
        Analysis::of(&Document {
            id: 1,
            version: 1,
            title: title.into(),
            description: description.map(Into::into),
            price_cents: None,
            owner_id: 1,
            created_at: OffsetDateTime::UNIX_EPOCH,
            updated_at: OffsetDateTime::UNIX_EPOCH,
        })
    }

    #[test]
    fn words_have_places_and_weights() {
        let found = analysis("AC/DC", Some("it's 東京都"));
        assert_eq!(found.title_key, "ac dc");
        assert_eq!(found.vector(), "'ac':1A 'dc':2A 'it':4B 's':5B '東京':6B '京都':7B '都':8B ");
        assert_eq!(analysis("!", None), Analysis::default());
    }

    #[test]
    fn only_words_of_letters_are_meant_by_others() {
        let found = analysis("Café 1234 ab x86 keyboard keyboard", Some("東京都"));
        assert_eq!(found.vocabulary(), BTreeSet::from(["cafe", "keyboard"]));
    }

    #[test]
    fn no_text_is_too_long() {
        for word in ["a ", "東", "ﷺ ", "é"] {
            let found = analysis(&word.repeat(2_000), Some(&word.repeat(200_000)));
            assert!(found.title.len() + found.description.len() <= MOST_WORDS, "{word}");
            let bytes: usize = found.title.iter().chain(&found.description).map(String::len).sum();
            assert!(bytes <= MOST_BYTES, "{word}");
        }
    }
}
