//! The words of a search: which are looked for, which the last one may begin, and which of all words was meant.

/// What matches a search.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// Lower-case words, any of which matches.
    words: Vec<String>,
    /// The last word, as far as it has been typed.
    prefix: Option<String>,
}

impl Terms {
    /// The words that a search looks for: those in quotes too, but not the excluded ones.
    pub fn read(query: &str) -> Self {
        let wanted = query.split_whitespace().filter(|word| !word.starts_with('-'));
        let words: Vec<String> = wanted.flat_map(split).filter(|word| word != "or").collect();
        let prefix = completes(query).then(|| words.last().cloned()).flatten();
        Self { words, prefix }
    }

    /// Whether a lower-case word is one of these.
    pub fn matches(&self, word: &str) -> bool {
        self.words.iter().any(|own| own == word)
            || self.prefix.as_ref().is_some_and(|prefix| word.starts_with(&**prefix))
    }

    /// The words themselves.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// These words or those that were meant: the search for it in PostgreSQL's notation, and what then matches.
    /// `None` when there is nothing to correct.
    pub fn corrected(&self, known: &[Known]) -> Option<(String, Self)> {
        let mut corrected = self.clone();
        let mut groups = Vec::new();
        for (index, word) in self.words.iter().enumerate() {
            let is_prefix = self.prefix.is_some() && index + 1 == self.words.len();
            let mut group = vec![format!("'{word}'{}", if is_prefix { ":*" } else { "" })];
            for meant in meant(word, known) {
                group.push(format!("'{meant}'"));
                corrected.words.push(meant.to_owned());
            }
            groups.push(format!("({})", group.join(" | ")));
        }
        (corrected.words.len() > self.words.len()).then(|| (groups.join(" & "), corrected))
    }
}

/// A word of the documents that resembles a word of the search.
#[derive(Debug, Clone)]
pub struct Known {
    pub asked: String,
    pub word: String,
}

/// Whether the last word may be the beginning of one: it is not in quotes, not excluded, and long enough that few
/// words begin with it. One letter begins a sixteenth of all words, whose lists take 20 ms to merge.
pub fn completes(query: &str) -> bool {
    let last = query.split_whitespace().next_back().unwrap_or_default();
    let letters = last.chars().rev().take_while(|c| c.is_alphanumeric()).count();
    !last.starts_with('-') && letters >= 2 && query.matches('"').count().is_multiple_of(2)
}

fn split(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

/// The nearest words, unless the word itself is known.
fn meant<'a>(word: &str, known: &'a [Known]) -> Vec<&'a str> {
    /// So many words may be equally near.
    const MOST: usize = 5;
    let candidates = known.iter().filter(|known| known.asked == word).map(|known| &*known.word);
    // Only letters and digits: they go into a query as they are.
    let candidates = candidates.filter(|candidate| candidate.chars().all(char::is_alphanumeric));
    let mut near: Vec<(usize, &str)> = candidates.map(|candidate| (distance(word, candidate), candidate)).collect();
    if near.iter().any(|(distance, _)| *distance == 0) {
        return Vec::new();
    }
    near.retain(|(distance, _)| *distance <= tolerated(word));
    near.sort_unstable();
    near.into_iter().take(MOST).map(|(_, candidate)| candidate).collect()
}

/// How many letters may be wrong: Elasticsearch's `AUTO`.
fn tolerated(word: &str) -> usize {
    match word.chars().count() {
        0..=2 => 0,
        3..=5 => 1,
        _ => 2,
    }
}

/// How many letters were added, lost or replaced, or changed places with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut least = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    least = least.min(rows[i - 2][j - 2] + 1);
                }
                least
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_words_that_are_looked_for() {
        for (query, words, prefix) in [
            ("Red  KEY", vec!["red", "key"], Some("key")),
            ("\"red key\"", vec!["red", "key"], None),
            ("red -key", vec!["red"], None),
            ("red or wi-fi", vec!["red", "wi", "fi"], Some("fi")),
            ("r", vec!["r"], None),
            ("\"open quo", vec!["open", "quo"], None),
            ("!?", vec![], None),
            ("' | ! & :*", vec![], None),
        ] {
            let terms = Terms::read(query);
            assert_eq!(
                (terms.words(), terms.prefix.as_deref()),
                (&*words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>(), prefix),
                "{query}"
            );
        }
    }

    #[test]
    fn counts_wrong_letters() {
        for (a, b, expected) in
            [("", "", 0), ("mosue", "mouse", 1), ("keybord", "keyboard", 1), ("a", "", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!((distance(a, b), distance(b, a)), (expected, expected), "{a} {b}");
        }
    }

    #[test]
    fn corrects_what_is_unknown_only() {
        let known = |asked: &str, word: &str| Known { asked: asked.into(), word: word.into() };
        let all = [
            known("wireless", "wireless"),
            known("wireless", "wirless"),
            known("keybord", "keyboard"),
            known("keybord", "keyboards"),
            known("keybord", "kayak"),
            known("keybord", "k'b"),
        ];
        let (query, terms) = Terms::read("wireless keybord").corrected(&all).expect("a correction");
        assert_eq!(query, "('wireless') & ('keybord':* | 'keyboard' | 'keyboards')");
        assert!(terms.matches("keyboards") && terms.matches("wireless") && !terms.matches("wirless"));
        assert_eq!(Terms::read("wireless").corrected(&all), None);
    }
}
