//! Tokeniser: splits a text into folded words with their positions.

use std::ops::Range;

use icu_properties::props::{GeneralCategoryGroup, Script};

use super::{
    category,
    fold::{decompose, script, write_folded},
    is_ignorable, is_mark, nfkc,
};

/// The limit of a word. Further characters are ignored.
const MAX_CHARACTERS: usize = 200;

/// A word of a text: a run of letters, marks and digits, folded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The word without case, width and diacritics.
    pub text: String,
    /// Its position in the text, in bytes.
    pub at: Range<usize>,
    /// The position of each character, in a script without blanks between words; otherwise empty.
    positions: Vec<Range<usize>>,
}

impl Word {
    /// Whether this is a run of a script without blanks between words, so that any part of it may be a word.
    pub fn is_unspaced(&self) -> bool {
        !self.positions.is_empty()
    }

    /// The tokens for a search index: the word itself. For a run without blanks, each pair of adjacent characters, then
    /// the last character.
    pub fn tokens(&self) -> Vec<String> {
        if self.is_unspaced() { pairs(&self.text, true) } else { vec![self.text.clone()] }
    }

    /// The positions in the text at which a part of a run without blanks occurs.
    pub fn positions_of(&self, part: &str) -> Vec<Range<usize>> {
        let length = part.chars().count();
        let starts = self.text.char_indices().enumerate().filter(|(_, (byte, _))| self.text[*byte..].starts_with(part));
        let position = |first: usize| {
            let last = self.positions.get((first + length).checked_sub(1)?)?;
            Some(self.positions.get(first)?.start..last.end)
        };
        starts.filter_map(|(first, _)| position(first)).collect()
    }
}

/// The pairs of adjacent characters of a run. The last character follows if `with_last` is set or if there is no pair.
pub(crate) fn pairs(run: &str, with_last: bool) -> Vec<String> {
    let following = run.chars().skip(1);
    let mut pairs: Vec<String> = run.chars().zip(following).map(|(a, b)| String::from_iter([a, b])).collect();
    if with_last || pairs.is_empty() {
        pairs.extend(run.chars().next_back().map(String::from));
    }
    pairs
}

/// The words of a text, in order.
///
/// After NFKC, every character that is not a letter, mark or digit separates words. Invisible characters inside a word
/// do not, except for the zero-width space. A word also ends where a script without blanks begins or ends.
pub fn words(text: &str) -> Vec<Word> {
    let mut splitter = Splitter::default();
    let (mut at, mut folded) = (0, String::new());
    while let Some(c) = text.get(at..).and_then(|rest| rest.chars().next()) {
        let start = at;
        at += c.len_utf8();
        // Fast path for ASCII, which is all of most texts.
        if c.is_ascii() && text.as_bytes().get(at).is_none_or(u8::is_ascii) {
            match c.is_ascii_alphanumeric() {
                true => splitter.push(c.to_ascii_lowercase(), start..at),
                false => splitter.close(),
            }
            continue;
        }
        at += text[at..].find(|c| !extends_previous(c)).unwrap_or(text.len() - at);
        folded.clear();
        write_folded(&decompose(&text[start..at]), &mut folded);
        // A sign after a word, such as `™`, is a separate word.
        let is_sign = matches!(c, '\u{2120}' | '\u{2122}' | '\u{1f16a}'..='\u{1f16c}');
        if is_sign || c == '\u{200b}' {
            splitter.close();
        }
        for c in nfkc(&folded).chars() {
            if is_word_character(c) { splitter.push(c, start..at) } else { splitter.close() }
        }
        if is_sign {
            splitter.close();
        }
    }
    splitter.close();
    splitter.words
}

/// Whether a character combines with the one before it.
fn extends_previous(c: char) -> bool {
    // Vowels and final consonants of Korean syllables; half-width voicing marks.
    is_mark(c) || matches!(c, '\u{1160}'..='\u{11ff}' | '\u{ff9e}' | '\u{ff9f}') || (is_ignorable(c) && c != '\u{200b}')
}

/// Whether a character is part of a word.
fn is_word_character(c: char) -> bool {
    let groups = [GeneralCategoryGroup::Letter, GeneralCategoryGroup::Mark, GeneralCategoryGroup::Number];
    c.is_ascii_alphanumeric() || (!c.is_ascii() && groups.iter().any(|group| group.contains(category(c))))
}

/// Whether a character belongs to a script without blanks between words.
fn is_unspaced(c: char) -> bool {
    // The signs for long vowels and for repetition belong to several scripts.
    !c.is_ascii()
        && (matches!(c, '\u{30fc}' | '\u{3031}'..='\u{3035}')
            || matches!(
                script(c),
                Script::Han
                    | Script::Hiragana
                    | Script::Katakana
                    | Script::Hangul
                    | Script::Bopomofo
                    | Script::Yi
                    | Script::Thai
                    | Script::Lao
                    | Script::Khmer
                    | Script::Myanmar
                    | Script::TaiLe
                    | Script::NewTaiLue
                    | Script::TaiTham
                    | Script::TaiViet
            ))
}

/// Collects characters into words.
#[derive(Default)]
struct Splitter {
    words: Vec<Word>,
    open: Option<OpenWord>,
}

/// The word that is being collected.
struct OpenWord {
    word: Word,
    length: usize,
    unspaced: bool,
}

impl Splitter {
    fn push(&mut self, c: char, at: Range<usize>) {
        // A mark belongs to the word of the character that it modifies.
        let unspaced = match &self.open {
            Some(open) if is_mark(c) => open.unspaced,
            _ => is_unspaced(c),
        };
        if self.open.as_ref().is_some_and(|open| open.unspaced != unspaced) {
            self.close();
        }
        let open = self.open.get_or_insert_with(|| OpenWord {
            word: Word { text: String::new(), at: at.start..at.start, positions: Vec::new() },
            length: 0,
            unspaced,
        });
        open.word.at.end = at.end;
        if unspaced {
            open.word.positions.push(at);
        } else {
            open.length += 1;
        }
        if open.length <= MAX_CHARACTERS {
            open.word.text.push(c);
        }
    }

    fn close(&mut self) {
        self.words.extend(self.open.take().map(|open| open.word));
    }
}

#[cfg(test)]
mod tests {
    use hostile::proptest::prelude::*;

    use super::*;

    fn texts(text: &str) -> Vec<String> {
        words(text).into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn words_consist_of_letters_marks_and_digits() {
        for (text, expected) in [
            ("AC/DC", &["ac", "dc"][..]),
            ("iPhone 12/13", &["iphone", "12", "13"]),
            ("SKU-1234_x", &["sku", "1234", "x"]),
            ("<b>fast</b>&nbsp;", &["b", "fast", "b", "nbsp"]),
            ("https://shop.example.com/a?b=c", &["https", "shop", "example", "com", "a", "b", "c"]),
            ("ada@example.com", &["ada", "example", "com"]),
            ("-5.5e3", &["5", "5e3"]),
            ("don't", &["don", "t"]),
            ("Apple™ Watch", &["apple", "tm", "watch"]),
            ("10㎏ ½", &["10kg", "1", "2"]),
            ("key\u{ad}board zero\u{200b}width", &["keyboard", "zero", "width"]),
            ("iPhone手机壳", &["iphone", "手机壳"]),
            ("第3章", &["第", "3", "章"]),
            ("スーパーマン2", &["スーパーマン", "2"]),
            ("café cafe\u{301}", &["cafe", "cafe"]),
            ("हिन्दी भाषा", &["हिन्दी", "भाषा"]),
            ("!?", &[]),
            ("", &[]),
            ("👍🏽", &[]),
        ] {
            assert_eq!(texts(text), expected, "{text}");
        }
        assert_eq!(texts(&"é".repeat(300)), ["e".repeat(MAX_CHARACTERS)]);
    }

    #[test]
    fn words_have_their_positions_in_the_text() {
        let text = "Ｔｅａ, cafe\u{301}! 東京都";
        let found_words = words(text);
        let texts: Vec<&str> = found_words.iter().map(|word| &text[word.at.clone()]).collect();
        assert_eq!(texts, ["Ｔｅａ", "cafe\u{301}", "東京都"]);
        let parts: Vec<&str> =
            found_words[2].positions_of("京都").into_iter().map(|position| &text[position]).collect();
        assert_eq!(parts, ["京都"]);
        assert!(found_words[2].positions_of("都東").is_empty() && !found_words[0].is_unspaced());
    }

    #[test]
    fn a_run_without_blanks_is_split_into_pairs() {
        let tokens = |text: &str| words(text).iter().flat_map(Word::tokens).collect::<Vec<_>>();
        assert_eq!(tokens("東京都 x"), ["東京", "京都", "都", "x"]);
        assert_eq!(tokens("茶"), ["茶"]);
        assert_eq!(pairs("茶", false), ["茶"]);
        assert_eq!(pairs("東京", false), ["東京"]);
    }

    #[test]
    fn the_normal_form_of_the_text_does_not_matter() {
        for text in ["Ångström ﬁne ①② Ⅳ ㎏", "ｶﾞﾗｽ 한국어 ไม้", "ﷺ", "e\u{301}a\u{323}\u{307}"]
        {
            assert_eq!(texts(&decompose(text)), texts(text), "{text}");
            assert_eq!(texts(&nfkc(text)), texts(text), "{text}");
        }
    }

    #[test]
    fn hostile_texts_become_bounded_words_that_are_their_own_form() -> Result<(), hostile::Failure> {
        let corpus = include_str!("../../../tests/corpora/search.txt");
        hostile::check_text(corpus, "\\PC{0,20}|[a-zÀ-ÿ0-9 '’\\-]{0,300}|[가-힣ぁ-ん一-龥]{0,8}", |text| {
            let (found, mut end) = (words(text), 0);
            for word in &found {
                prop_assert!(!word.text.is_empty() && word.text.chars().all(is_word_character), "{}", word.text);
                prop_assert!(text.get(word.at.clone()).is_some_and(|part| !part.is_empty()), "{:?}", word.at);
                // Two words may come from one character, such as `½`.
                prop_assert!(word.at.end >= end && word.at.start <= word.at.end, "{:?}", word.at);
                end = word.at.end;
                prop_assert!(word.is_unspaced() || word.text.chars().count() <= MAX_CHARACTERS);
                prop_assert!(word.tokens().iter().all(|token| !token.is_empty() && !token.contains(['\'', '\\', ' '])));
                prop_assert_eq!(texts(&word.text), [word.text.clone()], "the words of a word");
            }
            Ok(())
        })
    }
}
