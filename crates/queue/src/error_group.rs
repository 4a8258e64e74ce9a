//! The group of an error: errors that differ only in numbers, ids and quoted parts have the same one.

use sha2::{Digest, Sha256};

/// Returns the group of an error: 12 hexadecimal digits.
pub fn error_group(error: &str) -> String {
    Sha256::digest(skeleton(error)).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// The error in lower case, without what changes from job to job: a quoted part becomes `"`, and a word with a digit in
/// it (a number, an id, an address) becomes `#`. Only the first 1,000 characters count.
fn skeleton(error: &str) -> String {
    let mut skeleton = String::new();
    let mut word = String::new();
    let mut quote = None;
    let mut previous = ' ';
    for character in error.chars().take(1000).chain([' ']) {
        let is_inside_word =
            character.is_alphanumeric() || matches!(character, '-' | '_' | '.' | ':') && !word.is_empty();
        match quote {
            Some(end) if character == end => quote = None,
            Some(_) => {}
            None if is_inside_word => word.extend(character.to_lowercase()),
            None => {
                if !word.is_empty() {
                    let end = word.trim_end_matches([':', '.', '-', '_']).len();
                    let (name, rest) = word.split_at(end);
                    skeleton.push_str(if name.chars().any(|c| c.is_numeric()) { "#" } else { name });
                    skeleton.push_str(rest);
                    word.clear();
                }
                // An apostrophe inside a word opens nothing.
                if matches!(character, '"' | '`') || character == '\'' && !previous.is_alphanumeric() {
                    quote = Some(character);
                    skeleton.push('"');
                } else if !(character.is_whitespace() && skeleton.ends_with(' ')) {
                    skeleton.push(character);
                }
            }
        }
        previous = character;
    }
    skeleton
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_differ_in_numbers_ids_and_quotes_are_one_group() {
        for (one, other) in [
            ("processor returned 503", "processor returned 502"),
            (
                "error sending request for url (http://127.0.0.1:8080/a): Connection refused (os error 111)",
                "error sending request for url (http://127.0.0.1:9090/a): connection refused (os error 61)",
            ),
            ("no item 01KAJ3V1J4SJ9T7YQ0M2C6Z8XB", "no item 01KAJ3V1J4SJ9T7YQ0M2C6Z8XC"),
            ("unknown currency \"eur\"", "unknown currency \"a b 7\""),
            ("id 0b5c9f8e-4a54-4ad1-9d0a-6a2f6bb9c101 is gone", "id 3e9b1f8e-4a54-4ad1-9d0a-6a2f6bb9c102 is gone"),
            ("took 5s", "took 10.25s"),
        ] {
            assert_eq!(skeleton(one), skeleton(other), "{one} / {other}");
            assert_eq!(error_group(one), error_group(other));
        }
    }

    #[test]
    fn different_errors_are_different_groups() {
        let errors = ["connection refused", "connection reset", "the worker died", "can't connect", "can", ""];
        let groups: std::collections::HashSet<String> = errors.iter().map(|error| error_group(error)).collect();
        assert_eq!(groups.len(), errors.len());
        assert_eq!(error_group("connection refused").len(), 12);
    }

    #[test]
    fn any_text_has_a_group() {
        proptest::proptest!(|(text in "\\PC*")| {
            assert_eq!(error_group(&text).len(), 12);
        });
    }
}
