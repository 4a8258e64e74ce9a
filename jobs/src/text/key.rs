//! Account key: equal for all spellings of an e-mail address.

use super::{
    fold::{case_fold, decompose},
    is_ignorable, is_mark, nfkc,
};

/// The canonical form of an e-mail address: NFKC with full case folding and without invisible characters, as Unicode's
/// `NFKC_Casefold`, and with `İ` as `i`.
///
/// It is at least as coarse as PostgreSQL's `lower()` under any locale. Two addresses that an earlier release treated
/// as one account therefore have the same key. The dot above is dropped after an `i`, because of `İ`. Its lower case is
/// `i` in the C library, but `i` with the dot above in Unicode.
pub fn account_key(address: &str) -> String {
    if address.is_ascii() {
        return address.to_ascii_lowercase();
    }
    const DOT_ABOVE: char = '\u{307}';
    let (mut key, mut letter) = (String::with_capacity(address.len()), ' ');
    for c in decompose(address).chars().flat_map(case_fold).filter(|c| !is_ignorable(*c)) {
        if c == DOT_ABOVE && letter == 'i' {
            continue;
        }
        if !is_mark(c) {
            letter = c;
        }
        key.push(c);
    }
    nfkc(&key).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{
        super::{nfc, tests::characters},
        *,
    };

    #[test]
    fn all_spellings_of_an_address_have_the_same_key() {
        for (key, spellings) in [
            ("ali@x.com", &["ALI@x.com", "ALİ@x.com", "alI\u{307}@x.com", "ａｌｉ@x.com"][..]),
            ("strasse@x.com", &["straße@x.com", "STRASSE@x.com", "STRAẞE@x.com", "ſtraſſe@x.com"]),
            ("οδοσ@x.com", &["ΟΔΟΣ@x.com", "οδος@x.com", "οδοσ@x.com"]),
            ("josé@x.com", &["jose\u{301}@x.com", "JOSÉ@x.com", "JOSE\u{301}@x.com"]),
            ("figaro@x.com", &["ﬁgaro@x.com", "FIGARO@x.com"]),
            ("k@x.com", &["\u{212a}@x.com", "Ⓚ@x.com"]),
        ] {
            for spelling in spellings {
                assert_eq!(account_key(spelling), key, "{spelling}");
            }
        }
        assert_ne!(account_key("jose@x.com"), account_key("josé@x.com"), "another mailbox");
        assert_ne!(account_key("ı@x.com"), account_key("i@x.com"), "another mailbox");
    }

    #[test]
    fn case_and_normal_form_do_not_change_the_key_of_any_character() {
        for c in characters() {
            let text = format!("a{c}");
            let key = account_key(&text);
            let code = u32::from(c);
            assert_eq!(account_key(&key), key, "U+{code:04X} twice");
            assert_eq!(account_key(&text.to_lowercase()), key, "U+{code:04X} in lower case");
            assert_eq!(account_key(&nfc(&text)), key, "U+{code:04X} composed");
            assert_eq!(account_key(&decompose(&text)), key, "U+{code:04X} decomposed");
            if c != 'ı' {
                assert_eq!(account_key(&text.to_uppercase()), key, "U+{code:04X} in upper case");
            }
        }
    }
}
