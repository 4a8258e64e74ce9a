//! Highlighting: the matching part of a document as escaped HTML, with `<em>` around the matching words.

use std::ops::Range;

use super::{
    model::{Document, Hit},
    words::Terms,
};
use crate::text::{is_mark, words};

/// The approximate length of an excerpt in characters.
const EXCERPT_LENGTH: usize = 150;
/// Separates the title and the excerpt.
const SEPARATOR: &str = " … ";

/// The hit of a document, which matches these terms.
pub(super) fn hit(document: Document, terms: &Terms) -> Hit {
    Hit { highlight: highlight(&document, terms), document }
}

/// The title and the matching part of the description, with `<em>` around the matching words.
fn highlight(document: &Document, terms: &Terms) -> String {
    let (title, description) = (&*document.title, document.description.as_deref().unwrap_or_default());
    let [in_title, in_description] = terms.positions([&words(title), &words(description)]);
    let part = excerpt(description, &in_description);
    let description = || mark(description, &in_description, part.clone());
    match (in_title.is_empty(), in_description.is_empty()) {
        (false, false) => format!("{}{SEPARATOR}{}", mark(title, &in_title, 0..title.len()), description()),
        (true, false) => description(),
        // Also without a match: a document that an earlier release indexed matches by other rules until it is
        // reindexed.
        _ => mark(title, &in_title, 0..title.len()),
    }
}

/// Appends the text to `html`, escaped.
fn escape(text: &str, html: &mut String) {
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#x27;"),
            _ => html.push(c),
        }
    }
}

/// A part of a text as HTML, with `<em>` around these positions.
fn mark(text: &str, positions: &[Range<usize>], part: Range<usize>) -> String {
    let mut html = String::with_capacity(part.len() + 32);
    let mut at = part.start;
    for word in positions.iter().filter(|word| part.start <= word.start && word.end <= part.end) {
        escape(&text[at..word.start], &mut html);
        html.push_str("<em>");
        escape(&text[word.clone()], &mut html);
        html.push_str("</em>");
        at = word.end;
    }
    escape(&text[at..part.end], &mut html);
    html
}

/// About [`EXCERPT_LENGTH`] characters of whole words that begin shortly before the first match.
fn excerpt(text: &str, positions: &[Range<usize>]) -> Range<usize> {
    /// The number of characters before the first match.
    const CONTEXT: usize = 40;
    let Some(Range { start, end }) = positions.first().cloned() else { return 0..0 };
    let is_gap = |c: char| c.is_whitespace();
    let earliest = text[..start].char_indices().rev().take(CONTEXT).last().map_or(start, |(at, _)| at);
    // Starts at the first whole word.
    let from = if earliest == 0 { 0 } else { text[earliest..start].find(is_gap).map_or(start, |gap| earliest + gap) };
    let latest = text[from..].char_indices().nth(EXCERPT_LENGTH).map_or(text.len(), |(at, _)| from + at).max(end);
    // A text without blanks is cut between characters, never between a character and its marks.
    let whole = text[latest..].find(|c| !is_mark(c)).map_or(text.len(), |more| latest + more);
    let to = if latest == text.len() { latest } else { text[end..latest].rfind(is_gap).map_or(whole, |gap| end + gap) };
    let part = &text[from..to];
    let blank = part.len() - part.trim_start().len();
    from + blank..from + blank + part.trim().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn highlighted(title: &str, description: Option<&str>, query: &str) -> String {
        highlight(&Document::example(title, description), &Terms::parse(query))
    }

    #[test]
    fn markup_is_escaped_before_words_are_marked() {
        assert_eq!(
            highlighted("<b>Red</b> & \"red\" <script>", None, "red b"),
            "&lt;<em>b</em>&gt;<em>Red</em>&lt;/<em>b</em>&gt; &amp; &quot;<em>red</em>&quot; &lt;script&gt;"
        );
        assert_eq!(highlighted("Tom & Jerry", None, "amp"), "Tom &amp; Jerry", "an entity is not a word");
    }

    #[test]
    fn matching_words_are_marked() {
        for (title, query, expected) in [
            ("Red Keyboard", "red key", "<em>Red</em> <em>Keyboard</em>"),
            ("Redder Keyboard", "red keyboard", "Redder <em>Keyboard</em>"),
            ("AC/DC live", "dc", "AC/<em>DC</em> live"),
            ("Cafe\u{301} Crème", "café creme", "<em>Cafe\u{301}</em> <em>Crème</em>"),
            ("ﬁne ｆｕｌｌ", "fine full", "<em>ﬁne</em> <em>ｆｕｌｌ</em>"),
            ("東京都庁 Tower", "京都", "東<em>京都</em>庁 Tower"),
            ("ｶﾞﾗｽの靴", "ガラス", "<em>ｶﾞﾗｽ</em>の靴"),
            ("Blue keyboards", "keybord", "Blue <em>keyboards</em>"),
            ("keyboard keybord", "keybord", "keyboard <em>keybord</em>"),
        ] {
            assert_eq!(highlighted(title, None, query), expected, "{title}: {query}");
        }
    }

    #[test]
    fn an_excerpt_has_whole_words_around_the_match() {
        let long = format!("{} needle {}", "häystack ".repeat(50), "stråw ".repeat(80));
        let text = highlighted("x", Some(&long), "needle");
        assert!(text.starts_with("häystack ") && text.ends_with(" stråw"), "{text}");
        assert!(text.contains(" <em>needle</em> ") && text.chars().count() <= EXCERPT_LENGTH + 9, "{text}");
        let word = "ü".repeat(1000);
        assert_eq!(highlighted("x", Some(&word), &word), format!("<em>{word}</em>"));
        assert_eq!(highlighted("A needle", Some("one needle"), "needle"), "A <em>needle</em> … one <em>needle</em>");
        let thai = "กำ".repeat(300);
        assert!(highlighted("x", Some(&format!("{thai}ไม้{thai}")), "ไม้").contains("<em>ไม้</em>"));
    }
}
