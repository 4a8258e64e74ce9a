//! Links: paths with percent-encoded segments and parameters.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// All characters except the unreserved ones of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Percent-encodes one segment of a path, or one value of a query.
pub(crate) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// A path with these parameters; those without a value are left out.
pub(crate) fn link(path: &str, parameters: &[(&str, Option<&str>)]) -> String {
    let mut link = path.to_owned();
    for (name, value) in parameters {
        let Some(value) = value.filter(|value| !value.is_empty()) else { continue };
        link.push(if link.contains('?') { '&' } else { '?' });
        link.push_str(name);
        link.push('=');
        link.push_str(&encoded(value));
    }
    link
}

/// The `Link` header for the next page: a path with these parameters.
pub(crate) fn next_link(path: &str, parameters: &[(&str, Option<&str>)]) -> String {
    format!("<{}>; rel=\"next\"", link(path, parameters))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_link_repeats_the_given_parameters() {
        let parameters = [("queue", Some("a_b")), ("state", None), ("error", Some("50 % \u{e9}&x>"))];
        assert_eq!(next_link("/jobs", &parameters), "</jobs?queue=a_b&error=50%20%25%20%C3%A9%26x%3E>; rel=\"next\"");
    }
}
