//! Folding: removes case and diacritics, so that texts can be compared without them.

use icu_normalizer::DecomposingNormalizerBorrowed;
use icu_properties::{
    CodePointMapData,
    props::{GeneralCategory, Script},
};

use super::{category, is_ignorable};

/// The compatibility decomposition (NFKD): each letter is followed by its marks.
pub(super) fn decompose(text: &str) -> std::borrow::Cow<'_, str> {
    const { DecomposingNormalizerBorrowed::new_nfkd() }.normalize(text)
}

/// Full case folding of one decomposed character, as in Unicode's `CaseFolding.txt`: `ß` becomes `ss`, `ς` becomes `σ`.
///
/// It is computed as lower case, upper case, then lower case again. The dotless `ı` is an exception, since its upper
/// case is that of `i`. A test covers all characters.
pub(super) fn case_fold(c: char) -> impl Iterator<Item = char> {
    let dotless = (c == 'ı').then_some(c);
    let others = dotless.is_none().then(|| {
        let upper = c.to_lowercase().flat_map(char::to_uppercase);
        upper.flat_map(char::to_lowercase)
    });
    dotless.into_iter().chain(others.into_iter().flatten())
}

/// Appends a decomposed text to `to`, without case, diacritics and invisible characters.
pub(super) fn write_folded(decomposed: &str, to: &mut String) {
    for c in decomposed.chars().filter(|c| !is_ignorable(*c) && !is_diacritic(*c)) {
        for folded in case_fold(c) {
            match base_letters(folded) {
                Some(plain) => to.push_str(plain),
                None => to.push(folded),
            }
        }
    }
}

/// The script of a character.
pub(super) fn script(c: char) -> Script {
    const { CodePointMapData::<Script>::new() }.get(c)
}

/// Whether a mark is only an accent or a vowel point. In other scripts marks are vowels, and in Japanese they change
/// the consonant: `か` and `が` are two letters.
fn is_diacritic(c: char) -> bool {
    const VOICING: [char; 2] = ['\u{3099}', '\u{309a}'];
    !c.is_ascii()
        && matches!(category(c), GeneralCategory::NonspacingMark | GeneralCategory::EnclosingMark)
        && matches!(
            script(c),
            Script::Inherited
                | Script::Latin
                | Script::Greek
                | Script::Cyrillic
                | Script::Hebrew
                | Script::Arabic
                | Script::Syriac
        )
        && !VOICING.contains(&c)
}

/// The basic Latin letters for a letter with a stroke, a hook or a similar feature, which Unicode does not decompose.
/// Covers all lower-case letters whose name is `LATIN SMALL LETTER … WITH …`, and a few more.
fn base_letters(letter: char) -> Option<&'static str> {
    const BASE_LETTERS: [(&str, &str); 32] = [
        ("a", "ᶏⱥ"),
        ("ae", "æ"),
        ("b", "ƀƃɓᵬᶀꞗ"),
        ("c", "ƈȼɕꞓꞔ𝼝"),
        ("d", "đðƌȡɖɗᵭᶁᶑ"),
        ("e", "ɇᶒⱸꬴ"),
        ("f", "ƒᵮᶂꞙ"),
        ("g", "ǥɠᶃꞡ"),
        ("h", "ħɦⱨꞕ"),
        ("i", "ıɨᶖ𝼚"),
        ("j", "ȷɉʝ"),
        ("k", "ĸƙᶄⱪꝁꝃꝅꞣ"),
        ("l", "łƚȴɫɬɭᶅⱡꝉꞎꬷꬸꬹ𝼑𝼓"),
        ("m", "ɱᵯᶆꬺ"),
        ("n", "ŋƞȵɲɳᵰᶇꞑꞥꬻ"),
        ("o", "øⱺꝋꝍ𝼛"),
        ("oe", "œ"),
        ("p", "ƥᵱᵽᶈꝑꝓꝕ"),
        ("q", "ɋʠꝗꝙ"),
        ("r", "ɍɼɽɾᵲᵳᶉꞧꭉ𝼖"),
        ("s", "ȿʂᵴᶊꞩ𝼞"),
        ("t", "ŧƫƭȶʈᵵⱦ𝼉"),
        ("th", "þᵺ"),
        ("u", "ᶙꞹꭎꭒ"),
        ("v", "ʋᶌⱱⱴꝟ"),
        ("w", "ⱳ"),
        ("x", "ᶍꭖꭗꭘꭙ"),
        ("y", "ƴɏỿꭚ"),
        ("z", "ƶȥɀʐʑᵶᶎⱬ"),
        ("av", "ꜻ"),
        ("ao", "ꜵ"),
        ("hv", "ƕ"),
    ];
    let row = (!letter.is_ascii()).then(|| BASE_LETTERS.iter().find(|(_, letters)| letters.contains(letter)))?;
    row.map(|(plain, _)| *plain)
}

#[cfg(test)]
mod tests {
    use super::{super::tests::characters, *};

    fn fold(text: &str) -> String {
        let mut folded = String::new();
        write_folded(&decompose(text), &mut folded);
        super::super::nfkc(&folded).into_owned()
    }

    #[test]
    fn case_width_and_diacritics_are_removed() {
        for (text, expected) in [
            ("Café", "cafe"),
            ("cafe\u{301}", "cafe"),
            ("STRASSE", "strasse"),
            ("straße", "strasse"),
            ("STRAẞE", "strasse"),
            ("Łódź", "lodz"),
            ("Smørrebrød", "smorrebrod"),
            ("Ærø", "aero"),
            ("İstanbul", "istanbul"),
            ("ISPARTA ısparta", "isparta isparta"),
            ("ΟΔΟΣ οδός", "οδοσ οδοσ"),
            ("ｆｕｌｌ ﬁne", "full fine"),
            ("Ёлка", "елка"),
            ("soft\u{ad}hyphen", "softhyphen"),
            ("שָׁלוֹם", "שלום"),
            ("Đặng Thùy", "dang thuy"),
        ] {
            assert_eq!(fold(text), expected, "{text}");
        }
    }

    #[test]
    fn marks_that_distinguish_letters_are_kept() {
        for text in ["が", "ガラス", "हिन्दी", "ไม้", "한국어", "தமிழ்"] {
            assert_eq!(fold(text), super::super::nfkc(text), "{text}");
        }
        assert_eq!(fold("ｶﾞﾗｽ"), "ガラス");
        assert_eq!(fold("\u{1112}\u{1161}\u{11ab}"), "한");
    }

    #[test]
    fn folding_is_idempotent() {
        for c in characters() {
            let once = fold(c.encode_utf8(&mut [0; 4]));
            assert_eq!(fold(&once), once, "U+{:04X}", u32::from(c));
        }
    }
}
