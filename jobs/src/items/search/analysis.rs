//! Text analysis: the words of a document, the same for every index.

use std::collections::BTreeSet;

use super::model::Document;
use crate::text::{Word, is_mark, words};

/// Longer texts are cut to this number of characters.
const MAX_TITLE: usize = 1_000;
const MAX_DESCRIPTION: usize = 100_000;
/// A `tsvector` holds at most 16,383 positions and 1 MiB of words.
const MAX_WORDS: usize = 16_000;
const MAX_BYTES: usize = 400_000;

/// The searchable words of a document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Analysis {
    /// The words of the title, separated by blanks.
    pub title_key: String,
    /// The tokens of the title in order: words, or bigrams in a script without blanks.
    pub title: Vec<String>,
    /// The tokens of the description.
    pub description: Vec<String>,
}

impl Analysis {
    /// Analyses a document.
    pub(super) fn of(document: &Document) -> Self {
        let title = words(truncate(&document.title, MAX_TITLE));
        let description = words(truncate(document.description.as_deref().unwrap_or_default(), MAX_DESCRIPTION));
        let mut budget = (MAX_WORDS, MAX_BYTES);
        Self {
            title_key: title_key(&title),
            title: tokens(&title, &mut budget),
            description: tokens(&description, &mut budget),
        }
    }

    /// The document in PostgreSQL's `tsvector` notation: the title has weight `A`, the description `B`.
    pub(super) fn vector(&self) -> String {
        let title = (1..).zip(&self.title).map(|(position, word)| format!("'{word}':{position}A "));
        // One position stays free, so that no phrase spans the title and the description.
        let first = self.title.len() + 2;
        let description = (first..).zip(&self.description).map(|(position, word)| format!("'{word}':{position}B "));
        title.chain(description).collect()
    }

    /// The words that can be corrections of misspelt ones, without duplicates.
    pub(super) fn vocabulary(&self) -> BTreeSet<&str> {
        let all = self.title.iter().chain(&self.description).map(String::as_str);
        all.filter(|word| is_correctable(word)).collect()
    }
}

/// The words of a title, separated by blanks.
pub(super) fn title_key(words: &[Word]) -> String {
    words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ")
}

/// Whether a word can be misspelt: it consists of 3 to 32 letters and marks. Shorter and longer words are similar to
/// too many others. Numbers are never corrected: 1234 does not mean 1235.
pub(super) fn is_correctable(word: &str) -> bool {
    (3..=32).contains(&word.chars().count()) && word.chars().all(|c| c.is_alphabetic() || is_mark(c))
}

/// The tokens of these words, until the budget of words and bytes is used up.
fn tokens(words: &[Word], (count, bytes): &mut (usize, usize)) -> Vec<String> {
    let tokens = words.iter().flat_map(Word::tokens).map_while(|token| {
        *count = count.checked_sub(1)?;
        *bytes = bytes.checked_sub(token.len())?;
        Some(token)
    });
    tokens.collect()
}

fn truncate(text: &str, characters: usize) -> &str {
    // Fast path: a text has at most as many characters as bytes.
    if text.len() <= characters {
        return text;
    }
    text.char_indices().nth(characters).and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn analyse(title: &str, description: Option<&str>) -> Analysis {
        Analysis::of(&Document::example(title, description))
    }

    #[test]
    fn words_have_positions_and_weights() {
        let found = analyse("AC/DC", Some("it's 東京都"));
        assert_eq!(found.title_key, "ac dc");
        assert_eq!(found.vector(), "'ac':1A 'dc':2A 'it':4B 's':5B '東京':6B '京都':7B '都':8B ");
        assert_eq!(analyse("!", None), Analysis::default());
    }

    #[test]
    fn only_words_of_letters_are_corrections() {
        let found = analyse("Café 1234 ab x86 keyboard keyboard", Some("東京都"));
        assert_eq!(found.vocabulary(), BTreeSet::from(["cafe", "keyboard"]));
    }

    #[test]
    fn long_texts_stay_within_the_limits() {
        for word in ["a ", "東", "ﷺ ", "é"] {
            let found = analyse(&word.repeat(2_000), Some(&word.repeat(200_000)));
            assert!(found.title.len() + found.description.len() <= MAX_WORDS, "{word}");
            let bytes: usize = found.title.iter().chain(&found.description).map(String::len).sum();
            assert!(bytes <= MAX_BYTES, "{word}");
        }
    }
}
