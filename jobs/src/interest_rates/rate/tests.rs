//! Tests of averages against rationals of arbitrary precision.

use num_rational::BigRational;
use proptest::prelude::*;

use super::*;

fn rate(text: &str) -> Rate {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error:?}"))
}

fn average(texts: &[&str]) -> String {
    let rates: Vec<Rate> = texts.iter().map(|text| rate(text)).collect();
    Rate::average(rates.iter()).expect("an average").to_string()
}

#[test]
fn averages_are_formatted_as_in_the_original_service() {
    assert_eq!(average(&["100", "10"]), "55.0");
    assert_eq!(average(&["0"]), "0.0");
    assert_eq!(average(&["0.10", "0.2"]), "0.15");
    assert_eq!(average(&["1", "2", "2"]), "1.666666666666666667");
    assert_eq!(average(&["1e2", "1E1"]), "55.0");
    assert_eq!(average(&["99999999999999999999"]), "99999999999999999999.0");
    assert!(Rate::average([].iter()).is_none());
}

#[test]
fn ties_go_to_the_even_digit() {
    for (text, shown) in [
        ("0.0000000000000000005", "0.0"),
        ("0.0000000000000000015", "0.000000000000000002"),
        ("0.0000000000000000025", "0.000000000000000002"),
        ("0.00000000000000000250000000000000000001", "0.000000000000000003"),
        ("0.9999999999999999995", "1.0"),
    ] {
        assert_eq!(average(&[text]), shown, "{text}");
    }
    assert_eq!(average(&["0.000000000000000001", "0"]), "0.0");
    assert_eq!(average(&["0.000000000000000003", "0"]), "0.000000000000000002");
}

#[test]
fn refuses_invalid_rates() {
    use RateError::*;
    for (text, error) in [
        ("", NotNumber),
        ("abc", NotNumber),
        ("1_000", NotNumber),
        ("0x10", NotNumber),
        ("NaN", NotFinite),
        ("-Infinity", NotFinite),
        ("-0.0000000001", Negative),
        ("-1e-999999999", Negative),
        ("1e-101", TooManyPlaces),
        ("1e-999999999", TooManyPlaces),
        ("100000000000000000000", TooManyWholeDigits),
        ("1e999999999", TooManyWholeDigits),
        ("1e1000000000000000000", TooManyWholeDigits),
        ("1e-99999999999999999999", TooManyPlaces),
        ("-1e99999999999999999999", Negative),
    ] {
        assert_eq!(text.parse::<Rate>(), Err(error), "{text}");
    }
    for zero in ["0", "-0", "0e999999999", "0e99999999999999999999", "-0e-99999999999999999999", "0.000", "-0.0e-5"] {
        assert_eq!(rate(zero).to_string(), "0.0", "{zero}");
    }
}

/// Decimal texts as clients may send them.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[0-9]{1,20}(\\.[0-9]{1,18})?",
        1 => "[0-9]{1,20}\\.[0-9]{19,100}",
        1 => "[1-9]e-?[0-9]",
    ]
}

/// Parses the same value independently, as digits and a power of ten.
fn rational(text: &str) -> BigRational {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: BigInt = format!("{whole}{fraction}").parse().expect("digits");
    let power = exponent.parse::<i32>().expect("an exponent") - i32::try_from(fraction.len()).expect("short");
    BigRational::from(digits) * BigRational::from(BigInt::from(10)).pow(power)
}

proptest! {
    #[test]
    fn an_average_is_rounded_to_the_nearest_value(texts in prop::collection::vec(texts(), 1..40)) {
        let rates: Vec<Rate> = texts.iter().map(|text| rate(text)).collect();
        let average = Rate::average(rates.iter()).expect("an average");
        let exact = texts.iter().map(|text| rational(text)).sum::<BigRational>()
            / BigRational::from(BigInt::from(texts.len()));
        let unit = BigRational::from(BigInt::from(10)).pow(-18);
        let off = (rational(&average.digits()) - exact) / &unit;
        let half = BigRational::new(1.into(), 2.into());
        let even = (rational(&average.digits()) / &unit).to_integer() % 2 == BigInt::zero();
        let magnitude = if off < BigRational::zero() { -off } else { off };
        prop_assert!(magnitude < half || (magnitude == half && even), "{average}");
    }

    #[test]
    fn a_formatted_rate_parses_to_the_same_value(text in texts()) {
        let average = Rate::average([rate(&text)].iter()).expect("an average");
        let shown = average.to_string();
        prop_assert_eq!(rate(&shown), average);
        let (_, fraction) = shown.split_once('.').expect("a point");
        prop_assert!(fraction == "0" || !fraction.ends_with('0'), "{}", shown);
        prop_assert!(fraction.len() <= 18 && !shown.contains(['e', 'E']), "{}", shown);
    }
}

#[test]
fn hostile_rates_are_refused_or_within_their_limits() -> Result<(), hostile::Failure> {
    let corpus = include_str!("../../../../tests/corpora/number.txt");
    hostile::check_text(corpus, texts(), |text| {
        let Ok(rate) = text.parse::<Rate>() else { return Ok(()) };
        let shown = rate.to_string();
        let (whole, places) = shown.split_once('.').expect("a point");
        prop_assert!((1..=20).contains(&whole.len()) && (1..=100).contains(&places.len()), "{}", shown);
        prop_assert!(shown.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'), "{}", shown);
        prop_assert_eq!(shown.parse::<Rate>(), Ok(rate));
        Ok(())
    })
}
