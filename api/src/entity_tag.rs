//! Entity tags of things that count their versions, and the conditions that requests make of them (RFC 9110).

use jobs::items::Expected;
use poem::http::{HeaderMap, header};

/// The tag of a version.
pub fn of_version(version: i64) -> String {
    format!("\"{version}\"")
}

/// Whether an `If-None-Match` names this tag; weakly compared, as for GET.
pub fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let mut listed = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    listed.any(|tags| {
        tags.split(',').map(str::trim).any(|listed| listed == "*" || listed.strip_prefix("W/").unwrap_or(listed) == tag)
    })
}

/// The versions that `If-Match` names; strongly compared, so a weak tag names none, and neither does one that is not
/// ours. Without the header, or with `*`, any will do.
pub fn expected(headers: &HeaderMap) -> Expected {
    let mut given = headers.get_all(header::IF_MATCH).iter().peekable();
    if given.peek().is_none() {
        return Expected::Any;
    }
    let tags: Vec<&str> =
        given.flat_map(|value| value.to_str().unwrap_or_default().split(',').map(str::trim)).collect();
    if tags.contains(&"*") {
        return Expected::Any;
    }
    let version = |tag: &&str| {
        let version = tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok()?;
        (of_version(version) == **tag).then_some(version)
    };
    Expected::Versions(tags.iter().filter_map(version).collect())
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
        for (values, known) in
            [(&[][..], false), (&["\"3\""], true), (&["\"1\", W/\"3\""], true), (&["*"], true), (&["\"4\""], false)]
        {
            assert_eq!(is_known(&headers(header::IF_NONE_MATCH, values), "\"3\""), known, "{values:?}");
        }
    }
}
