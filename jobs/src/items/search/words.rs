//! The words of a search: what they look for, in PostgreSQL's notation too, and which words were meant.

use std::{collections::HashMap, ops::Range};

use super::analysis::title_key;
use crate::text::{Word, is_mark, pairs, words};

/// One thing that a document must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Term {
    /// A word.
    Word(String),
    /// Neighbouring characters of a script without blanks, anywhere in a run of them.
    Run(String),
}

/// What a search looks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// All of them, each once, in the order of the search.
    terms: Vec<Term>,
    /// Whether the last one may be only the beginning of a word.
    is_begun: bool,
    key: String,
}

/// Which words were meant by which.
pub type Corrections = HashMap<String, Vec<String>>;

/// How a term may match.
#[derive(Debug, Clone, Copy)]
pub enum Match<'a> {
    /// As a whole word.
    Whole,
    /// The last one also as the beginning of a word.
    Begun,
    /// Also as a word that was meant.
    Meant(&'a Corrections),
}

/// Where a term may match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    Title,
    Any,
}

impl Terms {
    /// The terms of what was typed. Nothing in it is an operator.
    pub fn read(query: &str) -> Self {
        let words = words(query);
        let mut terms: Vec<Term> = Vec::new();
        let mut is_begun = false;
        for word in &words {
            let term = if word.is_unspaced() { Term::Run(word.text.clone()) } else { Term::Word(word.text.clone()) };
            is_begun = !terms.contains(&term);
            if is_begun {
                terms.push(term);
            }
        }
        // One letter begins a sixteenth of all words, whose lists take 20 ms to merge.
        let is_long = |term: &Term| matches!(term, Term::Word(word) if word.chars().nth(1).is_some());
        is_begun = is_begun && terms.last().is_some_and(is_long);
        Self { terms, is_begun, key: title_key(&words) }
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The key of a title that is exactly this.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The terms, and for each whether it may be only the beginning of a word.
    pub fn each(&self) -> impl Iterator<Item = (&Term, bool)> {
        let last = self.terms.len().checked_sub(1).filter(|_| self.is_begun);
        self.terms.iter().enumerate().map(move |(at, term)| (term, Some(at) == last))
    }

    /// Whether the last term may be only the beginning of a word.
    pub fn is_begun(&self) -> bool {
        self.is_begun
    }

    /// The words that may be misspelt.
    pub fn correctable(&self) -> Vec<String> {
        let words = self.terms.iter().filter_map(|term| match term {
            Term::Word(word) if is_correctable(word) => Some(word.clone()),
            _ => None,
        });
        words.collect()
    }

    /// What is searched for, as a `tsquery` in PostgreSQL's notation. Terms hold letters, marks and digits only.
    pub fn query(&self, how: Match<'_>, field: Field) -> String {
        let weight = if field == Field::Title { "A" } else { "" };
        let plain = |word: &str| if weight.is_empty() { format!("'{word}'") } else { format!("'{word}':{weight}") };
        let beginning = |word: &str| format!("'{word}':*{weight}");
        let term = |(term, is_begun): (&Term, bool)| match term {
            Term::Run(run) if run.chars().nth(1).is_none() => beginning(run),
            Term::Run(run) => {
                let pairs = pairs(run, false).iter().map(|pair| plain(pair)).collect::<Vec<_>>();
                format!("({})", pairs.join(" <-> "))
            }
            Term::Word(word) => match how {
                Match::Whole => plain(word),
                _ if is_begun && !matches!(how, Match::Meant(_)) => beginning(word),
                Match::Begun => plain(word),
                Match::Meant(corrections) => {
                    let own = if is_begun { beginning(word) } else { plain(word) };
                    let meant = corrections.get(word).into_iter().flatten().map(|meant| plain(meant));
                    format!("({})", std::iter::once(own).chain(meant).collect::<Vec<_>>().join(" | "))
                }
            },
        };
        self.each().map(term).collect::<Vec<_>>().join(" & ")
    }

    /// Where the terms stand in the words of a document's texts, in the order of the places. A term that stands in none
    /// of them as it is stands where a word is near it.
    pub fn places(&self, texts: [&[Word]; 2]) -> [Vec<Range<usize>>; 2] {
        let mut places = [Vec::new(), Vec::new()];
        for (term, is_begun) in self.each() {
            let mut found = texts
                .map(|words| occurrences(words, term, |own, word| own == word || (is_begun && own.starts_with(word))));
            if found.iter().all(Vec::is_empty) {
                found = texts.map(|words| occurrences(words, term, is_near));
            }
            places.iter_mut().zip(found).for_each(|(all, new)| all.extend(new));
        }
        places.map(merged)
    }
}

fn occurrences(words: &[Word], term: &Term, matches: impl Fn(&str, &str) -> bool) -> Vec<Range<usize>> {
    let places = words.iter().flat_map(|own| match term {
        Term::Run(run) if own.is_unspaced() => own.positions_of(run),
        Term::Word(word) if !own.is_unspaced() && matches(&own.text, word) => vec![own.at.clone()],
        _ => Vec::new(),
    });
    places.collect()
}

/// Places in order, and those that touch as one.
fn merged(mut places: Vec<Range<usize>>) -> Vec<Range<usize>> {
    places.sort_unstable_by_key(|place| (place.start, place.end));
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(places.len());
    for place in places {
        match merged.last_mut() {
            Some(last) if place.start <= last.end => last.end = last.end.max(place.end),
            _ => merged.push(place),
        }
    }
    merged
}

/// A word of the documents that resembles a word of the search.
#[derive(Debug, Clone)]
pub struct Known {
    pub asked: String,
    pub word: String,
}

/// The nearest words to each that is asked for; empty when there is nothing to correct.
pub fn corrections(known: &[Known]) -> Corrections {
    /// So many words may be equally near.
    const MOST: usize = 5;
    let mut near: HashMap<&str, Vec<(usize, &str)>> = HashMap::new();
    for Known { asked, word } in known {
        if asked != word && is_correctable(word) && is_near(word, asked) {
            near.entry(asked).or_default().push((strsim::osa_distance(asked, word), word));
        }
    }
    let nearest = near.into_iter().map(|(asked, mut words)| {
        words.sort_unstable();
        (asked.to_owned(), words.into_iter().take(MOST).map(|(_, word)| word.to_owned()).collect())
    });
    nearest.collect()
}

/// Whether a word can be misspelt: letters only, and neither so short nor so long that everything resembles it. Numbers
/// are not misspelt: 1234 does not mean 1235.
pub fn is_correctable(word: &str) -> bool {
    (3..=32).contains(&word.chars().count()) && word.chars().all(|c| c.is_alphabetic() || is_mark(c))
}

/// Whether a word is another one with a few letters wrong: added, lost, replaced, or swapped with the next one.
fn is_near(own: &str, word: &str) -> bool {
    let (long, tolerated) = (own.chars().count(), tolerated(word));
    tolerated > 0
        && long.abs_diff(word.chars().count()) <= tolerated
        && is_correctable(word)
        && strsim::osa_distance(own, word) <= tolerated
}

/// How many letters may be wrong: Elasticsearch's `AUTO`.
fn tolerated(word: &str) -> usize {
    match word.chars().count() {
        0..=2 => 0,
        3..=5 => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_typed_is_words() {
        for (query, whole, begun) in [
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
            let terms = Terms::read(query);
            assert_eq!(terms.query(Match::Whole, Field::Any), whole, "{query}");
            assert_eq!(terms.query(Match::Begun, Field::Any), begun, "{query}");
        }
        let terms = Terms::read("red 東京 key");
        assert_eq!(terms.query(Match::Begun, Field::Title), "'red':A & ('東京':A) & 'key':*A");
        assert_eq!((terms.key(), Terms::read("AC/DC").key()), ("red 東京 key", "ac dc"));
    }

    #[test]
    fn near_words_are_meant_too() {
        let known = |asked: &str, word: &str| Known { asked: asked.into(), word: word.into() };
        let corrections = corrections(&[
            known("wireless", "wireless"),
            known("keybord", "keyboard"),
            known("keybord", "keyboards"),
            known("keybord", "kayak"),
            known("keybord", "k'bord"),
        ]);
        let query = Terms::read("wireless keybord").query(Match::Meant(&corrections), Field::Any);
        assert_eq!(query, "('wireless') & ('keybord':* | 'keyboard' | 'keyboards')");
        for (own, word, near) in [
            ("mouse", "mosue", true),
            ("keyboard", "keybord", true),
            ("sitting", "kitten", false),
            ("cat", "cut", true),
            ("to", "ta", false),
            ("1235", "1234", false),
        ] {
            assert_eq!(is_near(own, word), near, "{own} {word}");
        }
    }
}
