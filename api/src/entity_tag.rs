//! Entity tags of versioned resources, and conditional requests (RFC 9110).

use jobs::items::Expected;
use poem::http::{HeaderMap, HeaderName, StatusCode, header};

use crate::problem::Problem;

/// The entity tag of a version.
pub(crate) fn of_version(version: i64) -> String {
    format!("\"{version}\"")
}

/// The tags in all lines of a header, weak prefix (`W/`) included.
fn header_tags<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).iter().map(|value| value.to_str().unwrap_or_default());
    lines.flat_map(|tags| tags.split(',').map(str::trim))
}

/// A tag without its weak prefix.
fn without_weak_prefix(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
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
    header_tags(headers, &header::IF_NONE_MATCH).any(|listed| listed == "*" || without_weak_prefix(listed) == tag)
}

/// Checks `If-Match` against the current tag, by strong comparison.
///
/// # Errors
/// 412 when `If-Match` is present and does not name the tag.
fn check_if_match(headers: &HeaderMap, tag: &str) -> Result<(), Problem> {
    let matches = |listed: &str| listed == "*" || listed == tag;
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

fn parse_versions<'a>(tags: impl Iterator<Item = &'a str>) -> Expected {
    let version = |tag: &str| {
        let version = tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok()?;
        (of_version(version) == tag).then_some(version)
    };
    let mut versions = Vec::new();
    for tag in tags {
        if tag == "*" {
            return Expected::Any;
        }
        versions.extend(version(tag));
    }
    Expected::Versions(versions)
}

#[cfg(test)]
mod tests {
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
        ] {
            assert_eq!(if_none_match_versions(&headers(header::IF_NONE_MATCH, values)), versions, "{values:?}");
        }
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
}
