//! The generator reaches what it should, and a property that does not hold fails with its input.

use std::{cell::RefCell, collections::BTreeSet};

use proptest::{prop_assert, strategy::Just};

use super::*;

#[test]
fn the_corpus_comes_first_and_its_failure_names_the_entry() {
    let failure = check_text("fine\nwrong\n", Just(String::new()), |text| {
        prop_assert!(text != "wrong", "refused");
        Ok(())
    });
    let text = format!("{:?}", failure.expect_err("a failure"));
    assert!(text.starts_with("\"wrong\": refused"), "{text}");
}

#[test]
fn generated_input_is_unchanged_or_mutated() {
    let seen = RefCell::new(BTreeSet::new());
    let count = |text: &str| {
        seen.borrow_mut().insert(text.to_owned());
        Ok(())
    };
    check_text("alpha\n", Just("omega".to_owned()), count).expect("no property");
    let seen = seen.into_inner();
    assert!(seen.contains("alpha") && seen.contains("omega") && seen.len() > 100, "{} inputs", seen.len());
    assert!(seen.iter().any(|text| text.contains('\0')) && seen.iter().any(|text| text.len() > 60));
}

#[test]
fn a_failing_property_of_bytes_is_reported_with_a_small_input() {
    let failure = check_bytes("abc\n", Just(Vec::new()), |bytes| {
        prop_assert!(!bytes.contains(&0xff), "has 0xff");
        Ok(())
    });
    let text = format!("{:?}", failure.expect_err("a failure"));
    assert!(text.starts_with("b\"") && text.contains("\\xff") && text.len() < 200, "{text}");
}
