//! Unit tests of the number parsers; the expected results are those of Pydantic 2.13.4.

use hostile::proptest::prelude::*;

use super::*;

const PARSING: &str = "Input should be a valid integer, unable to parse string as an integer";
const FRACTION: &str = "Input should be a valid integer, got a number with a fractional part";

#[test]
fn accepts_the_integers_that_pydantic_accepts() {
    for (raw, value) in [
        ("5", 5),
        ("5.0", 5),
        ("5.000", 5),
        ("true", 1),
        ("false", 0),
        ("-0", 0),
        ("0.0e99", 0),
        ("0e99999999999999999999", 0),
        ("-0e99999999999999999999", 0),
        ("0e-99999999999999999999", 0),
        ("1e2", 100),
        ("1.5e1", 15),
        ("500e-2", 5),
        ("9007199254740993.0", 9_007_199_254_740_993),
        ("9223372036854775807", i64::MAX),
    ] {
        assert_eq!(integer_from_json(raw, 0, i64::MAX), Ok(value), "{raw}");
    }
    assert_eq!(integer_from_json("-9223372036854775808", i64::MIN, 0), Ok(i64::MIN));
}

#[test]
fn bodies_and_queries_accept_the_same_integer_texts() {
    let zeros = "0".repeat(5000);
    for (text, value) in [
        ("5", 5),
        (" 5 ", 5),
        ("5\n", 5),
        ("\u{a0}5\u{3000}", 5),
        ("5.0", 5),
        ("5.000000000", 5),
        ("+5", 5),
        ("007", 7),
        ("1_000", 1000),
        ("1_0.0", 10),
        ("0_5", 5),
        ("0__5", 5),
        ("-0", 0),
        ("0_0", 0),
        (&format!("{zeros}5"), 5),
        ("9223372036854775807", i64::MAX),
    ] {
        let raw = serde_json::to_string(text).expect("JSON");
        assert_eq!(integer_from_text(text, 0, i64::MAX), Ok(value), "{text}");
        assert_eq!(integer_from_json(&raw, 0, i64::MAX), Ok(value), "{text}");
    }
    assert_eq!(integer_from_text("-3", -5, 5), Ok(-3));
}

#[test]
fn rejects_integer_texts_with_pydantics_errors() {
    let nines = "9".repeat(5000);
    for (text, kind, msg) in [
        ("99999999999999999999", "less_than_equal", "Input should be less than or equal to 10"),
        ("-99999999999999999999", "greater_than_equal", "Input should be greater than or equal to 0"),
        ("11", "less_than_equal", "Input should be less than or equal to 10"),
        ("-5", "greater_than_equal", "Input should be greater than or equal to 0"),
        (&nines, "int_parsing_size", "Unable to parse input string as an integer, exceeded maximum size"),
    ] {
        let error = integer_from_text(text, 0, 10).expect_err(text);
        assert_eq!((error.kind, &*error.msg), (kind, msg), "{text}");
    }
    for text in [
        "",
        " ",
        "x",
        "true",
        "5.5",
        "5.",
        ".0",
        "1e2",
        "+-1",
        "-+1",
        "--5",
        "+ 5",
        "-",
        "1__0",
        "_1",
        "1_",
        "0_",
        "5.0_0",
        "0x5",
        "٥",
        "５",
        "\u{feff}5",
        "NaN",
        "inf",
        "5 .0",
        "0-5",
    ] {
        let error = integer_from_text(text, 0, 10).expect_err(text);
        assert_eq!((error.kind, &*error.msg), ("int_parsing", PARSING), "{text}");
    }
}

#[test]
fn rejects_json_integers_with_pydantics_errors() {
    for (raw, kind, msg) in [
        ("5.5", "int_from_float", FRACTION),
        ("1e-1", "int_from_float", FRACTION),
        ("1e-99999999999999999999", "int_from_float", FRACTION),
        ("\"5.5\"", "int_parsing", PARSING),
        ("null", "int_type", "Input should be a valid integer"),
        ("[]", "int_type", "Input should be a valid integer"),
        ("{}", "int_type", "Input should be a valid integer"),
        ("-1", "greater_than_equal", "Input should be greater than or equal to 0"),
        ("-1e99", "greater_than_equal", "Input should be greater than or equal to 0"),
        ("11", "less_than_equal", "Input should be less than or equal to 10"),
        ("9223372036854775808", "less_than_equal", "Input should be less than or equal to 10"),
        ("1e99999999999999999999", "less_than_equal", "Input should be less than or equal to 10"),
        ("-1e99999999999999999999", "greater_than_equal", "Input should be greater than or equal to 0"),
    ] {
        let error = integer_from_json(raw, 0, 10).expect_err(raw);
        assert_eq!((error.kind, &*error.msg), (kind, msg), "{raw}");
    }
}

#[test]
fn accepts_the_numbers_that_pydantic_accepts_as_floats() {
    let exact = |raw| number_from_json(raw, |text| Ok(text.to_owned()));
    for (raw, text) in [
        ("5", "5"),
        ("-0.10000000000000000000000001", "-0.10000000000000000000000001"),
        ("1e999", "1e999"),
        ("\" 5.5\\n\"", "5.5"),
        ("\"1_0.0_1\"", "10.01"),
        ("true", "1"),
        ("false", "0"),
    ] {
        assert_eq!(exact(raw).as_deref(), Ok(text), "{raw}");
    }
    for (raw, kind, msg) in [
        ("null", "float_type", "Input should be a valid number"),
        ("[1]", "float_type", "Input should be a valid number"),
        ("{}", "float_type", "Input should be a valid number"),
        ("\"\"", "float_parsing", "Input should be a valid number, unable to parse string as a number"),
        ("\"1__0\"", "float_parsing", "Input should be a valid number, unable to parse string as a number"),
        ("\"_1\"", "float_parsing", "Input should be a valid number, unable to parse string as a number"),
    ] {
        let error = exact(raw).expect_err(raw);
        assert_eq!((error.kind, &*error.msg), (kind, msg), "{raw}");
    }
    assert_eq!(exact(r#""\ud800""#).expect_err("half a pair").kind, "string_unicode");
    assert_eq!(number_from_json("-1", |_| Err::<(), _>(FieldError::below(0))), Err(FieldError::below(0)));
}

#[test]
fn an_integer_pattern_has_the_bounds_of_its_range() {
    assert_eq!(integer_forms(10), ["0", "[1-9](_?[0-9]){0,0}", "1_?0"]);
    assert_eq!(
        integer_forms(255),
        ["0", "[1-9](_?[0-9]){0,1}", "[1-1](_?[0-9]){2}", "2_?[0-4](_?[0-9]){1}", "2_?5_?[0-4](_?[0-9]){0}", "2_?5_?5"]
    );
    assert!(integer_pattern(0, 10).starts_with("^\\s*(\\+?(0[0_]*)?(0|"), "{}", integer_pattern(0, 10));
    assert!(integer_pattern(-10, 10).starts_with("^\\s*[+-]?(0[0_]*)?(0|"), "{}", integer_pattern(-10, 10));
}

#[test]
fn integer_patterns_match_only_integers_within_their_range() -> Result<(), hostile::Failure> {
    for (min, max) in [(0, 7), (0, 10), (-255, 255), (-i64::MAX, i64::MAX)] {
        let pattern = integer_pattern(min, max);
        let texts = hostile::proptest::string::string_regex(pattern.trim_matches(['^', '$'])).expect("a pattern");
        hostile::check(texts, |text| {
            let read = integer_from_text(text, min, max);
            prop_assert!(read.is_ok(), "{:?}: {:?}", text, read);
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn hostile_json_is_no_integer_or_one_within_its_limits() -> Result<(), hostile::Failure> {
    let corpus = include_str!("../../../../tests/corpora/number.txt");
    let grammar = "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,4})?([eE][+-]?[0-9]{1,3})?|\" ?[+-]?[0-9_]{1,9}(\\.0{0,2})?\"";
    hostile::check_text(corpus, grammar, |raw| {
        // Only well-formed JSON without blanks around it comes this far.
        let is_json = serde_json::from_str::<&serde_json::value::RawValue>(raw).is_ok_and(|value| value.get() == raw);
        let Some(number) = Some(raw).filter(|_| is_json).and_then(|raw| integer_from_json(raw, -1000, 100_000).ok())
        else {
            return Ok(());
        };
        prop_assert!((-1000..=100_000).contains(&number), "{}", number);
        // A float is exact in this range.
        let text = raw.trim_matches('"').trim().replace('_', "");
        let expected = match raw {
            "true" => 1.0,
            "false" => 0.0,
            _ => text.parse::<f64>().unwrap_or(f64::NAN),
        };
        prop_assert_eq!(number as f64, expected);
        Ok(())
    })
}
