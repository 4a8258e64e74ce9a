//! Entity tags of things that count their versions, and the conditions that requests make of them (RFC 9110).

use jobs::items::Expected;
use poem::http::{HeaderMap, HeaderName, StatusCode, header};

use crate::problem::Problem;

/// The tag of a version.
pub fn of_version(version: i64) -> String {
    format!("\"{version}\"")
}

/// The tags of all lines of a header, each with its mark of weakness.
fn listed<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).iter().map(|value| value.to_str().unwrap_or_default());
    lines.flat_map(|tags| tags.split(',').map(str::trim))
}

/// A tag without its mark of weakness.
fn strong(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

/// Whether an `If-None-Match` names this tag; weakly compared.
pub fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    listed(headers, &header::IF_NONE_MATCH).any(|listed| listed == "*" || strong(listed) == tag)
}

/// Refuses to show what has this tag, when an `If-Match` does not name it; strongly compared.
///
/// # Errors
/// 412.
pub fn check_expected(headers: &HeaderMap, tag: &str) -> Result<(), Problem> {
    let wanted = |listed: &str| listed == "*" || listed == tag;
    if !headers.contains_key(header::IF_MATCH) || listed(headers, &header::IF_MATCH).any(wanted) {
        return Ok(());
    }
    Err(failed(tag))
}

/// 412, with the tag that there is.
pub fn failed(tag: &str) -> Problem {
    Problem::new(
        StatusCode::PRECONDITION_FAILED,
        format!("If-Match or If-None-Match does not hold: the ETag is now {tag}"),
    )
}

/// The versions that `If-Match` names; strongly compared, so a weak tag names none, and neither does one that is not
/// ours. Without the header, or with `*`, any will do.
pub fn expected(headers: &HeaderMap) -> Expected {
    if headers.contains_key(header::IF_MATCH) { versions(listed(headers, &header::IF_MATCH)) } else { Expected::Any }
}

/// The versions that `If-None-Match` names, to which a change must not be made; weakly compared.
pub fn unwanted(headers: &HeaderMap) -> Option<Expected> {
    let given = headers.contains_key(header::IF_NONE_MATCH);
    given.then(|| versions(listed(headers, &header::IF_NONE_MATCH).map(strong)))
}

fn versions<'a>(tags: impl Iterator<Item = &'a str>) -> Expected {
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
            assert_eq!(expected(&headers(header::IF_MATCH, values)), expected_versions, "{values:?}");
        }
    }

    #[test]
    fn if_none_match_names_what_is_known() {
        for (values, known) in [
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
            assert_eq!(is_known(&headers(header::IF_NONE_MATCH, values), "\"3\""), known, "{values:?}");
        }
    }

    #[test]
    fn if_none_match_names_what_must_not_be_changed() {
        for (values, unwanted_versions) in [
            (&[][..], None),
            (&["*"], Some(Expected::Any)),
            (&["\"3\", W/\"4\""], Some(Expected::Versions(vec![3, 4]))),
            (&["\"x\""], Some(Expected::Versions(vec![]))),
        ] {
            assert_eq!(unwanted(&headers(header::IF_NONE_MATCH, values)), unwanted_versions, "{values:?}");
        }
    }

    #[test]
    fn if_match_names_what_is_wanted() {
        for (values, wanted) in [
            (&[][..], true),
            (&["*"], true),
            (&["\"1\"", "\"3\""], true),
            (&["W/\"3\""], false),
            (&["\"4\""], false),
            (&[""], false),
        ] {
            assert_eq!(check_expected(&headers(header::IF_MATCH, values), "\"3\"").is_ok(), wanted, "{values:?}");
        }
    }
}
