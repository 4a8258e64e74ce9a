//! Shows where a document matches: everything escaped first, then marked; the excerpt is around the first match.

use std::ops::Range;

use super::{model::Document, words::Terms};
use crate::text::{is_mark, words};

/// An excerpt of a description has about this many characters.
const EXCERPT: usize = 150;
/// Between the title and the excerpt.
const BETWEEN: &str = " … ";

/// The title, and the part of the description that matches, with `<em>` around the words that do.
pub fn highlight(document: &Document, terms: &Terms) -> String {
    let (title, description) = (&*document.title, document.description.as_deref().unwrap_or_default());
    let [in_title, in_description] = terms.places([&words(title), &words(description)]);
    let shown = excerpt(description, &in_description);
    let description = || mark(description, &in_description, shown.clone());
    match (in_title.is_empty(), in_description.is_empty()) {
        (false, false) => format!("{}{BETWEEN}{}", mark(title, &in_title, 0..title.len()), description()),
        (true, false) => description(),
        // Also without a match: what an earlier release indexed is found by other rules until it is indexed anew.
        _ => mark(title, &in_title, 0..title.len()),
    }
}

/// Writes HTML that shows this text.
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

/// A part of a text in HTML, with these places of it marked.
fn mark(text: &str, places: &[Range<usize>], part: Range<usize>) -> String {
    let mut html = String::with_capacity(part.len() + 32);
    let mut at = part.start;
    for place in places.iter().filter(|place| part.start <= place.start && place.end <= part.end) {
        escape(&text[at..place.start], &mut html);
        html.push_str("<em>");
        escape(&text[place.clone()], &mut html);
        html.push_str("</em>");
        at = place.end;
    }
    escape(&text[at..part.end], &mut html);
    html
}

/// About [`EXCERPT`] characters of whole words that begin a little before the first match.
fn excerpt(text: &str, places: &[Range<usize>]) -> Range<usize> {
    /// What the first match stands in.
    const BEFORE: usize = 40;
    let Some(Range { start, end }) = places.first().cloned() else { return 0..0 };
    let is_gap = |c: char| c.is_whitespace();
    let earliest = text[..start].char_indices().rev().take(BEFORE).last().map_or(start, |(at, _)| at);
    // A word that would be cut is left out.
    let from = if earliest == 0 { 0 } else { text[earliest..start].find(is_gap).map_or(start, |gap| earliest + gap) };
    let latest = text[from..].char_indices().nth(EXCERPT).map_or(text.len(), |(at, _)| from + at).max(end);
    // Without blanks, it ends between two characters and their marks.
    let whole = text[latest..].find(|c| !is_mark(c)).map_or(text.len(), |more| latest + more);
    let to = if latest == text.len() { latest } else { text[end..latest].rfind(is_gap).map_or(whole, |gap| end + gap) };
    let shown = &text[from..to];
    let blank = shown.len() - shown.trim_start().len();
    from + blank..from + blank + shown.trim().len()
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;

    fn shown(title: &str, description: Option<&str>, query: &str) -> String {
        let document = Document {
            id: 1,
            version: 1,
            title: title.into(),
            description: description.map(Into::into),
            price_cents: None,
            owner_id: 1,
            created_at: OffsetDateTime::UNIX_EPOCH,
            updated_at: OffsetDateTime::UNIX_EPOCH,
        };
        highlight(&document, &Terms::read(query))
    }

    #[test]
    fn markup_is_escaped_before_words_are_marked() {
        assert_eq!(
            shown("<b>Red</b> & \"red\" <script>", None, "red b"),
            "&lt;<em>b</em>&gt;<em>Red</em>&lt;/<em>b</em>&gt; &amp; &quot;<em>red</em>&quot; &lt;script&gt;"
        );
        assert_eq!(shown("Tom & Jerry", None, "amp"), "Tom &amp; Jerry", "an entity is no word");
    }

    #[test]
    fn the_words_that_are_found_are_marked() {
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
            assert_eq!(shown(title, None, query), expected, "{title}: {query}");
        }
    }

    #[test]
    fn an_excerpt_has_whole_words_around_the_match() {
        let long = format!("{} needle {}", "häystack ".repeat(50), "stråw ".repeat(80));
        let text = shown("x", Some(&long), "needle");
        assert!(text.starts_with("häystack ") && text.ends_with(" stråw"), "{text}");
        assert!(text.contains(" <em>needle</em> ") && text.chars().count() <= EXCERPT + 9, "{text}");
        let word = "ü".repeat(1000);
        assert_eq!(shown("x", Some(&word), &word), format!("<em>{word}</em>"));
        assert_eq!(shown("A needle", Some("one needle"), "needle"), "A <em>needle</em> … one <em>needle</em>");
        let thai = "กำ".repeat(300);
        assert!(shown("x", Some(&format!("{thai}ไม้{thai}")), "ไม้").contains("<em>ไม้</em>"));
    }
}
