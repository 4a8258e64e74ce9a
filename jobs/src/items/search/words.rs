//! Query parsing: the terms of a search, their `tsquery`, and corrections of misspelt words.

use std::{collections::HashMap, ops::Range};

use super::analysis::{is_correctable, title_key};
use crate::text::{Word, pairs, words};

/// One term of a query; a document must match all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Term {
    /// A word.
    Word(String),
    /// Neighbouring characters of a script without blanks; they match anywhere inside a run.
    Run(String),
}

/// The terms of a query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Terms {
    /// All terms without duplicates, in the order of the query.
    terms: Vec<Term>,
    /// Whether the last term may match as a prefix.
    pub(super) has_prefix: bool,
    title_key: String,
}

/// The corrections of each misspelt word.
pub(super) type Corrections = HashMap<String, Vec<String>>;

/// How a term may match.
#[derive(Debug, Clone, Copy)]
pub(super) enum Match<'a> {
    /// As a whole word.
    Whole,
    /// The last term also as a prefix.
    Prefix,
    /// Also as one of its corrections.
    Corrected(&'a Corrections),
}

/// Where a term may match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Title,
    Any,
}

impl Terms {
    /// Parses a query. It has no operators: all characters are plain text.
    pub(super) fn parse(query: &str) -> Self {
        let words = words(query);
        let mut terms: Vec<Term> = Vec::new();
        let mut has_prefix = false;
        for word in &words {
            let term = if word.is_unspaced() { Term::Run(word.text.clone()) } else { Term::Word(word.text.clone()) };
            has_prefix = !terms.contains(&term);
            if has_prefix {
                terms.push(term);
            }
        }
        // A single letter is a prefix of a sixteenth of all words. Merging their posting lists takes 20 ms.
        let is_long = |term: &Term| matches!(term, Term::Word(word) if word.chars().nth(1).is_some());
        has_prefix = has_prefix && terms.last().is_some_and(is_long);
        Self { terms, has_prefix, title_key: title_key(&words) }
    }

    /// Whether the query has no words.
    pub(super) fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The `title_key` of a document whose title equals the query.
    pub(super) fn title_key(&self) -> &str {
        &self.title_key
    }

    /// The terms, each with whether it may match as a prefix.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Term, bool)> {
        let prefix = self.terms.len().checked_sub(1).filter(|_| self.has_prefix);
        self.terms.iter().enumerate().map(move |(at, term)| (term, Some(at) == prefix))
    }

    /// The words that may be misspelt.
    pub(super) fn correctable(&self) -> Vec<String> {
        let words = self.terms.iter().filter_map(|term| match term {
            Term::Word(word) if is_correctable(word) => Some(word.clone()),
            _ => None,
        });
        words.collect()
    }

    /// The query in PostgreSQL's `tsquery` notation. Terms contain only letters, marks and digits, so nothing is
    /// escaped.
    pub(super) fn tsquery(&self, how: Match<'_>, field: Field) -> String {
        let weight = if field == Field::Title { "A" } else { "" };
        let plain = |word: &str| if weight.is_empty() { format!("'{word}'") } else { format!("'{word}':{weight}") };
        let prefix = |word: &str| format!("'{word}':*{weight}");
        let term = |(term, is_prefix): (&Term, bool)| match term {
            Term::Run(run) if run.chars().nth(1).is_none() => prefix(run),
            Term::Run(run) => {
                let pairs = pairs(run, false).iter().map(|pair| plain(pair)).collect::<Vec<_>>();
                format!("({})", pairs.join(" <-> "))
            }
            Term::Word(word) => match how {
                Match::Whole => plain(word),
                _ if is_prefix && !matches!(how, Match::Corrected(_)) => prefix(word),
                Match::Prefix => plain(word),
                Match::Corrected(corrections) => {
                    let typed = if is_prefix { prefix(word) } else { plain(word) };
                    let corrected = corrections.get(word).into_iter().flatten().map(|word| plain(word));
                    format!("({})", std::iter::once(typed).chain(corrected).collect::<Vec<_>>().join(" | "))
                }
            },
        };
        self.iter().map(term).collect::<Vec<_>>().join(" & ")
    }

    /// The positions of the terms in the words of a document's two texts, in order. A term that occurs in neither text
    /// is at the position of a word that it may misspell.
    pub(super) fn positions(&self, texts: [&[Word]; 2]) -> [Vec<Range<usize>>; 2] {
        let mut positions = [Vec::new(), Vec::new()];
        for (term, is_prefix) in self.iter() {
            let mut found = texts.map(|words| {
                find_term(words, term, |known, word| known == word || (is_prefix && known.starts_with(word)))
            });
            if found.iter().all(Vec::is_empty) {
                found = texts.map(|words| find_term(words, term, is_similar));
            }
            positions.iter_mut().zip(found).for_each(|(all, new)| all.extend(new));
        }
        positions.map(merge_ranges)
    }
}

/// The positions of a term. `matches` compares a word of the document with the term.
fn find_term(words: &[Word], term: &Term, matches: impl Fn(&str, &str) -> bool) -> Vec<Range<usize>> {
    let positions = words.iter().flat_map(|known| match term {
        Term::Run(run) if known.is_unspaced() => known.positions_of(run),
        Term::Word(word) if !known.is_unspaced() && matches(&known.text, word) => vec![known.at.clone()],
        _ => Vec::new(),
    });
    positions.collect()
}

/// Sorts ranges, and merges those that touch.
fn merge_ranges(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.sort_unstable_by_key(|range| (range.start, range.end));
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// A word of the documents that is similar to a word of the query.
#[derive(Debug, Clone)]
pub(super) struct SimilarWord {
    /// The word of the query.
    pub asked: String,
    /// The word of the documents.
    pub word: String,
}

/// The most similar words to each word of the query. A word without corrections is absent.
pub(super) fn corrections(similar: &[SimilarWord]) -> Corrections {
    /// The limit for each word of the query.
    const MAX_CORRECTIONS: usize = 5;
    let mut candidates: HashMap<&str, Vec<(usize, &str)>> = HashMap::new();
    for SimilarWord { asked, word } in similar {
        if asked != word && is_correctable(word) && is_similar(word, asked) {
            candidates.entry(asked).or_default().push((strsim::osa_distance(asked, word), word));
        }
    }
    let corrections = candidates.into_iter().map(|(asked, mut words)| {
        words.sort_unstable();
        (asked.to_owned(), words.into_iter().take(MAX_CORRECTIONS).map(|(_, word)| word.to_owned()).collect())
    });
    corrections.collect()
}

/// Whether `word` of the query may misspell `known`: a few letters are added, missing, replaced, or swapped with the
/// next.
fn is_similar(known: &str, word: &str) -> bool {
    let max_edits = max_edits(word);
    max_edits > 0
        && known.chars().count().abs_diff(word.chars().count()) <= max_edits
        && is_correctable(word)
        && strsim::osa_distance(known, word) <= max_edits
}

/// The allowed edit distance, the same as Elasticsearch's fuzziness `AUTO`.
fn max_edits(word: &str) -> usize {
    match word.chars().count() {
        0..=2 => 0,
        3..=5 => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use hostile::proptest::prelude::*;

    use super::*;

    #[test]
    fn queries_have_no_operators() {
        for (query, whole, prefix) in [
            ("Red  KEY", "'red' & 'key'", "'red' & 'key':*"),
            ("\"red key\"", "'red' & 'key'", "'red' & 'key':*"),
            ("red -key", "'red' & 'key'", "'red' & 'key':*"),
            ("red or wi-fi", "'red' & 'or' & 'wi' & 'fi'", "'red' & 'or' & 'wi' & 'fi':*"),
            ("r", "'r'", "'r'"),
            ("key key", "'key'", "'key'"),
            ("Café", "'cafe'", "'cafe':*"),
            ("東京都", "('東京' <-> '京都')", "('東京' <-> '京都')"),
            ("iPhone手", "'iphone' & '手':*", "'iphone' & '手':*"),
            ("!?", "", ""),
            ("' | ! & :*", "", ""),
        ] {
            let terms = Terms::parse(query);
            assert_eq!(terms.tsquery(Match::Whole, Field::Any), whole, "{query}");
            assert_eq!(terms.tsquery(Match::Prefix, Field::Any), prefix, "{query}");
        }
        let terms = Terms::parse("red 東京 key");
        assert_eq!(terms.tsquery(Match::Prefix, Field::Title), "'red':A & ('東京':A) & 'key':*A");
        assert_eq!((terms.title_key(), Terms::parse("AC/DC").title_key()), ("red 東京 key", "ac dc"));
    }

    #[test]
    fn similar_words_are_corrections() {
        let similar = |asked: &str, word: &str| SimilarWord { asked: asked.into(), word: word.into() };
        let corrections = corrections(&[
            similar("wireless", "wireless"),
            similar("keybord", "keyboard"),
            similar("keybord", "keyboards"),
            similar("keybord", "kayak"),
            similar("keybord", "k'bord"),
        ]);
        let query = Terms::parse("wireless keybord").tsquery(Match::Corrected(&corrections), Field::Any);
        assert_eq!(query, "('wireless') & ('keybord':* | 'keyboard' | 'keyboards')");
        for (known, word, expected) in [
            ("mouse", "mosue", true),
            ("keyboard", "keybord", true),
            ("sitting", "kitten", false),
            ("cat", "cut", true),
            ("to", "ta", false),
            ("1235", "1234", false),
        ] {
            assert_eq!(is_similar(known, word), expected, "{known} {word}");
        }
    }

    #[test]
    fn hostile_queries_are_quoted_terms_and_our_own_operators() -> Result<(), hostile::Failure> {
        let corpus = include_str!("../../../../tests/corpora/search.txt");
        hostile::check_text(corpus, "\\PC{0,20}|[a-z '|&!():*<>\\\\-]{0,40}", |query| {
            let terms = Terms::parse(query);
            let known: std::collections::HashSet<String> = terms.iter().map(|(term, _)| format!("{term:?}")).collect();
            prop_assert_eq!(known.len(), terms.terms.len(), "each term once");
            prop_assert!(terms.terms.len() <= query.chars().count() * 18, "a character gives at most 18 letters");
            for field in [Field::Title, Field::Any] {
                for how in [Match::Whole, Match::Prefix] {
                    let text = terms.tsquery(how, field);
                    prop_assert_eq!(text.is_empty(), terms.is_empty());
                    // Every second part between quotes is a term; what is outside is ours.
                    let parts: Vec<&str> = text.split('\'').collect();
                    prop_assert!(parts.len() % 2 == 1, "{}", text);
                    for (at, part) in parts.iter().enumerate() {
                        let inside = at % 2 == 1;
                        let term = !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || !c.is_ascii());
                        let ours = part.chars().all(|c| ":*A()&|<-> ".contains(c));
                        prop_assert!(if inside { term } else { ours }, "{}", text);
                    }
                }
            }
            let again = Terms::parse(terms.title_key());
            prop_assert_eq!(again.title_key(), terms.title_key());
            Ok(())
        })
    }
}
