//! Entity tags of versioned resources, and conditional requests (RFC 9110).

use jobs::items::Expected;
use poem::http::{HeaderMap, HeaderName, StatusCode, header};

use crate::problem::Problem;

/// The entity tag of a version.
pub(crate) fn of_version(version: i64) -> String {
    format!("\"{version}\"")
}

/// The tags in all lines of a header, weak prefix (`W/`) included. They are bytes: a tag need not be ASCII or UTF-8.
fn header_tags<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(name).iter().flat_map(|value| split_tags(value.as_bytes()))
}

/// Splits a list at its commas. A tag may contain commas: `"a,*"` is one tag, and not `*`.
fn split_tags(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut is_quoted = false;
    let entries = list.split(move |byte| {
        // A tag has no escapes.
        is_quoted ^= *byte == b'"';
        *byte == b',' && !is_quoted
    });
    entries.map(<[u8]>::trim_ascii)
}

/// A tag without its weak prefix. `W/*` is no tag, and not `*`.
fn without_weak_prefix(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").filter(|opaque| opaque.starts_with(b"\"")).unwrap_or(tag)
}

/// Whether the response is 304: `If-None-Match` names the current tag.
///
/// # Errors
/// 412 when `If-Match` is present and does not name the tag.
pub(crate) fn is_unchanged(headers: &HeaderMap, tag: &str) -> Result<bool, Problem> {
    check_if_match(headers, tag).map(|()| matches_if_none_match(headers, tag))
}

/// Whether `If-None-Match` names this tag, by weak comparison.
fn matches_if_none_match(headers: &HeaderMap, tag: &str) -> bool {
    let matches = |listed: &[u8]| listed == b"*" || without_weak_prefix(listed) == tag.as_bytes();
    header_tags(headers, &header::IF_NONE_MATCH).any(matches)
}

/// Checks `If-Match` against the current tag, by strong comparison.
///
/// # Errors
/// 412 when `If-Match` is present and does not name the tag.
fn check_if_match(headers: &HeaderMap, tag: &str) -> Result<(), Problem> {
    let matches = |listed: &[u8]| listed == b"*" || listed == tag.as_bytes();
    if !headers.contains_key(header::IF_MATCH) || header_tags(headers, &header::IF_MATCH).any(matches) {
        return Ok(());
    }
    Err(precondition_failed(tag))
}

/// 412 with the current tag.
pub(crate) fn precondition_failed(tag: &str) -> Problem {
    Problem::new(
        StatusCode::PRECONDITION_FAILED,
        format!("If-Match or If-None-Match does not hold: the ETag is now {tag}"),
    )
}

/// The versions that `If-Match` names. Weak and unknown tags name no version, since the comparison is strong.
///
/// Without the header, or with `*`, every version matches.
pub(crate) fn if_match_versions(headers: &HeaderMap) -> Expected {
    if headers.contains_key(header::IF_MATCH) {
        parse_versions(header_tags(headers, &header::IF_MATCH))
    } else {
        Expected::Any
    }
}

/// The versions that `If-None-Match` names, by weak comparison. They must not be changed.
pub(crate) fn if_none_match_versions(headers: &HeaderMap) -> Option<Expected> {
    let given = headers.contains_key(header::IF_NONE_MATCH);
    given.then(|| parse_versions(header_tags(headers, &header::IF_NONE_MATCH).map(without_weak_prefix)))
}

fn parse_versions<'a>(tags: impl Iterator<Item = &'a [u8]>) -> Expected {
    let version = |tag: &[u8]| {
        let tag = std::str::from_utf8(tag).ok()?;
        let version = tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok()?;
        (of_version(version) == tag).then_some(version)
    };
    let mut versions = Vec::new();
    for tag in tags {
        if tag == b"*" {
            return Expected::Any;
        }
        versions.extend(version(tag));
    }
    Expected::Versions(versions)
}

#[cfg(test)]
mod tests {
    use hostile::proptest::prelude::*;
    use poem::http::HeaderValue;

    use super::*;

    fn headers(name: header::HeaderName, values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn if_match_names_versions() {
        for (values, expected_versions) in [
            (&[][..], Expected::Any),
            (&["*"], Expected::Any),
            (&["\"3\""], Expected::Versions(vec![3])),
            (&["\"3\" , \"4\"", "\"7\""], Expected::Versions(vec![3, 4, 7])),
            (&["W/\"3\""], Expected::Versions(vec![])),
            (&["\"03\""], Expected::Versions(vec![])),
            (&["3"], Expected::Versions(vec![])),
            (&[""], Expected::Versions(vec![])),
        ] {
            assert_eq!(if_match_versions(&headers(header::IF_MATCH, values)), expected_versions, "{values:?}");
        }
    }

    #[test]
    fn if_none_match_uses_weak_comparison() {
        for (values, matches) in [
            (&[][..], false),
            (&["\"3\""], true),
            (&["\"1\", W/\"3\""], true),
            (&["\"1\"", "\"x\" , \"3\""], true),
            (&["*"], true),
            (&["\"4\""], false),
            (&["3"], false),
            (&["w/\"3\""], false),
            (&[""], false),
        ] {
            assert_eq!(matches_if_none_match(&headers(header::IF_NONE_MATCH, values), "\"3\""), matches, "{values:?}");
        }
    }

    #[test]
    fn if_none_match_names_versions() {
        for (values, versions) in [
            (&[][..], None),
            (&["*"], Some(Expected::Any)),
            (&["\"3\", W/\"4\""], Some(Expected::Versions(vec![3, 4]))),
            (&["\"x\""], Some(Expected::Versions(vec![]))),
            (&["W/*"], Some(Expected::Versions(vec![]))),
            (&["\"a,*,b\""], Some(Expected::Versions(vec![]))),
        ] {
            assert_eq!(if_none_match_versions(&headers(header::IF_NONE_MATCH, values)), versions, "{values:?}");
        }
    }

    /// RFC 9110 allows bytes above 127 in a tag.
    #[test]
    fn a_tag_of_other_bytes_hides_no_other_tag() {
        for (value, versions) in [
            (&b"\"\xff\", \"3\""[..], vec![3]),
            (b"\"\xc3\xa9\" , W/\"3\"", vec![3]),
            (b"\"\xff,*\"", vec![]),
            (b"\"3\xff\"", vec![]),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, HeaderValue::from_bytes(value).expect("a header"));
            assert_eq!(matches_if_none_match(&headers, "\"3\""), !versions.is_empty(), "{value:?}");
            assert_eq!(if_none_match_versions(&headers), Some(Expected::Versions(versions)), "{value:?}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_MATCH, HeaderValue::from_bytes(b"\"\xff\", \"3\"").expect("a header"));
        assert_eq!(if_match_versions(&headers), Expected::Versions(vec![3]));
        assert!(check_if_match(&headers, "\"3\"").is_ok());
    }

    #[test]
    fn if_match_uses_strong_comparison() {
        for (values, matches) in [
            (&[][..], true),
            (&["*"], true),
            (&["\"1\"", "\"3\""], true),
            (&["W/\"3\""], false),
            (&["\"4\""], false),
            (&[""], false),
        ] {
            assert_eq!(check_if_match(&headers(header::IF_MATCH, values), "\"3\"").is_ok(), matches, "{values:?}");
        }
    }

    /// The tags of a list by RFC 9110 §8.8.3. A comma separates them if an even number of quotes is before it.
    fn tags_of(list: &str) -> Vec<String> {
        let is_separator = |at: &usize| list[..*at].matches('"').count().is_multiple_of(2);
        let commas = list.match_indices(',').map(|(at, _)| at).filter(is_separator);
        let ends: Vec<usize> = commas.chain([list.len()]).collect();
        let starts = [0].into_iter().chain(ends.iter().map(|end| end + 1));
        let entries = starts.zip(&ends).map(|(start, end)| list[start..*end].trim_ascii());
        let is_tag = |entry: &&str| {
            let opaque = entry.strip_prefix("W/").unwrap_or(entry);
            *entry == "*"
                || opaque.len() > 1
                    && opaque.starts_with('"')
                    && opaque.find('"') == Some(0)
                    && opaque[1..].find('"') == Some(opaque.len() - 2)
        };
        entries.filter(is_tag).map(str::to_owned).collect()
    }

    #[test]
    fn hostile_lists_of_tags_name_only_what_they_contain() -> Result<(), hostile::Failure> {
        let corpus = include_str!("../../tests/corpora/entity_tag.txt");
        let grammar = "((W/)?\"[0-9a-zé,* ]{0,4}\"|\\*|[0-9]{1,2})( ?, ?((W/)?\"[0-9a-zé,* ]{0,4}\"|\\*)){0,3}";
        hostile::check_text(corpus, grammar, |text| {
            let Ok(value) = HeaderValue::from_str(text) else { return Ok(()) };
            let strong = tags_of(text);
            let version = |tag: &String| {
                let digits = tag.strip_prefix('"')?.strip_suffix('"')?;
                digits.parse::<i64>().ok().filter(|version| version.to_string() == digits)
            };
            let expected = |tags: &[String]| match tags.iter().any(|tag| tag == "*") {
                true => Expected::Any,
                false => Expected::Versions(tags.iter().filter_map(version).collect()),
            };
            let weak: Vec<String> = strong.iter().map(|tag| tag.trim_start_matches("W/").to_owned()).collect();
            let mut headers = HeaderMap::new();
            headers.append(header::IF_MATCH, value.clone());
            headers.append(header::IF_NONE_MATCH, value);
            prop_assert_eq!(if_match_versions(&headers), expected(&strong));
            prop_assert_eq!(if_none_match_versions(&headers), Some(expected(&weak)));
            let any_of = |tags: &[String], wanted: &str| tags.iter().any(|tag| tag == "*" || tag == wanted);
            for wanted in ["\"3\"", "\"a\""] {
                prop_assert_eq!(check_if_match(&headers, wanted).is_ok(), any_of(&strong, wanted), "{}", wanted);
                prop_assert_eq!(matches_if_none_match(&headers, wanted), any_of(&weak, wanted), "{}", wanted);
            }
            Ok(())
        })
    }
}
