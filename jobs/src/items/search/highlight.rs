//! Shows where a document matches: everything escaped first, then marked; the excerpt is around the first match.

use super::{model::Document, words::Terms};

/// An excerpt of a description has about this many characters, as Elasticsearch is asked for, too.
pub const EXCERPT: usize = 150;
/// Between the title and the excerpt.
pub const BETWEEN: &str = " … ";

/// The title, and the part of the description that matches, with `<em>` around the words that do.
pub fn highlight(document: &Document, terms: &Terms) -> String {
    let title = mark(&document.title, terms);
    let description = document.description.as_deref().and_then(|text| mark(excerpt(text, terms)?, terms));
    match (title, description) {
        (Some(title), Some(description)) => format!("{title}{BETWEEN}{description}"),
        (Some(text), None) | (None, Some(text)) => text,
        // The database and we cut words apart in different places: shown all the same.
        (None, None) => escape(&document.title),
    }
}

/// HTML that shows this text.
pub fn escape(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
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
    html
}

/// Runs of letters and digits, and what is between them, in order; `true` for the former.
fn pieces(text: &str) -> impl Iterator<Item = (bool, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let is_word = rest.chars().next()?.is_alphanumeric();
        let end = rest.find(|c: char| c.is_alphanumeric() != is_word).unwrap_or(rest.len());
        let (piece, later) = rest.split_at(end);
        rest = later;
        Some((is_word, piece))
    })
}

/// The text in HTML with its matches marked; `None` when there are none.
fn mark(text: &str, terms: &Terms) -> Option<String> {
    let (mut html, mut marked) = (String::with_capacity(text.len() + 32), false);
    for (is_word, piece) in pieces(text) {
        if is_word && terms.matches(&piece.to_lowercase()) {
            marked = true;
            html.push_str("<em>");
            html.push_str(&escape(piece));
            html.push_str("</em>");
        } else {
            html.push_str(&escape(piece));
        }
    }
    marked.then_some(html)
}

/// About [`EXCERPT`] characters of whole words that begin a little before the first match; `None` without a match.
fn excerpt<'a>(text: &'a str, terms: &Terms) -> Option<&'a str> {
    /// What the first match stands in.
    const BEFORE: usize = 40;
    let mut at = 0;
    let found = pieces(text).find_map(|(is_word, piece)| {
        let start = at;
        at += piece.len();
        (is_word && terms.matches(&piece.to_lowercase())).then_some((start, at))
    });
    let (start, end) = found?;
    let is_gap = |c: char| c.is_whitespace();
    let earliest = text[..start].char_indices().rev().take(BEFORE).last().map_or(start, |(at, _)| at);
    // A word that would be cut is left out.
    let from = if earliest == 0 { 0 } else { text[earliest..start].find(is_gap).map_or(start, |gap| earliest + gap) };
    let latest = text[from..].char_indices().nth(EXCERPT).map_or(text.len(), |(at, _)| from + at).max(end);
    let to =
        if latest == text.len() { latest } else { text[end..latest].rfind(is_gap).map_or(latest, |gap| end + gap) };
    Some(text[from..to].trim())
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
    fn the_last_word_matches_what_it_begins() {
        assert_eq!(shown("Red Keyboard", None, "red key"), "<em>Red</em> <em>Keyboard</em>");
        assert_eq!(shown("Redder Keyboard", None, "red keyboard"), "Redder <em>Keyboard</em>");
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
    }
}
