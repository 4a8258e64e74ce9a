//! Mutations: changes that break an input at one place and leave the rest as it was.

use std::fmt::Debug;

use proptest::{
    collection::vec,
    prelude::{BoxedStrategy, Strategy, any},
    prop_oneof,
    sample::{Index, select},
};

/// Characters and texts on which parsers fail: limits of numbers, separators, quotes, invisible and composed characters.
const SPECIAL_TEXT: [&str; 66] = [
    "\0",
    "\n",
    "\r\n",
    "\t",
    " ",
    "\u{b}",
    "\u{7f}",
    "\u{85}",
    "\u{a0}",
    "\u{2028}",
    "\u{3000}",
    "\u{feff}",
    "\u{200b}",
    "\u{200d}",
    "\u{202e}",
    "\u{ad}",
    "\u{301}",
    "\u{1160}",
    "\u{fffd}",
    "\u{10ffff}",
    "é",
    "ß",
    "İ",
    "ı",
    "ſ",
    "ﬁ",
    "１",
    "٣",
    "²",
    "½",
    "Ⅳ",
    "東",
    "が",
    "😀",
    "\"",
    "'",
    "`",
    "\\",
    "%",
    "%00",
    "%ff",
    "%2F",
    "#",
    "$",
    "&",
    "=",
    "@",
    ";",
    ",",
    ":",
    "/",
    "?",
    "*",
    "-",
    "+",
    ".",
    "_",
    "[",
    "]",
    "{",
    "}",
    "0",
    "9",
    "1e999999999",
    "-9223372036854775809",
    "99999999999999999999",
];

/// Bytes on which parsers fail: NUL, control characters, and parts of UTF-8.
const SPECIAL_BYTES: [&[u8]; 24] = [
    b"\0",
    b"\n",
    b"\r\n",
    b"\t",
    b" ",
    b"\x1b",
    b"\x7f",
    b"\x80",
    b"\xbf",
    b"\xc0\x80",
    b"\xc3",
    b"\xc3\xa9",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\"",
    b"'",
    b"\\",
    b"=",
    b",",
    b"-",
    b"0",
    b"99999999999999999999",
];

/// The most elements that one change deletes, copies or swaps.
const MAX_PART: usize = 12;
/// The most copies of a part that one change inserts.
const MAX_COPIES: usize = 40;

pub(crate) fn special_text() -> BoxedStrategy<Vec<char>> {
    let listed = select(SPECIAL_TEXT.to_vec()).prop_map(|text| text.chars().collect());
    prop_oneof![4 => listed, 1 => any::<char>().prop_map(|c| vec![c])].boxed()
}

pub(crate) fn special_bytes() -> BoxedStrategy<Vec<u8>> {
    let listed = select(SPECIAL_BYTES.to_vec()).prop_map(<[u8]>::to_vec);
    prop_oneof![2 => listed, 1 => any::<u8>().prop_map(|byte| vec![byte])].boxed()
}

/// One change, at a position relative to the length of the input.
#[derive(Debug, Clone)]
enum Change<T> {
    Insert(Index, Vec<T>),
    Replace(Index, usize, Vec<T>),
    Repeat(Index, usize, usize),
    Swap(Index, Index),
    Cut(Index),
    /// Continues with the other input, from a position in that.
    Splice(Index, Index),
}

impl<T: Clone> Change<T> {
    fn apply(&self, mut input: Vec<T>, other: &[T]) -> Vec<T> {
        let length = input.len();
        // A position may be the end.
        let position = |index: &Index| index.index(length + 1);
        match self {
            Self::Insert(at, new) => drop(input.splice(position(at)..position(at), new.iter().cloned())),
            Self::Replace(at, part, new) => {
                let at = position(at);
                drop(input.splice(at..(at + part).min(length), new.iter().cloned()));
            }
            Self::Repeat(at, part, copies) => {
                let at = position(at);
                let part: Vec<T> = input.iter().skip(at).take(*part).cloned().collect();
                let copies = part.iter().cycle().take(part.len() * copies).cloned().collect::<Vec<T>>();
                drop(input.splice(at..at, copies));
            }
            Self::Swap(one, other) if length > 0 => input.swap(one.index(length), other.index(length)),
            Self::Swap(..) => {}
            Self::Cut(at) => input.truncate(position(at)),
            Self::Splice(at, from) => {
                input.truncate(position(at));
                input.extend(other.iter().skip(from.index(other.len() + 1)).cloned());
            }
        }
        input
    }
}

/// Changes each input up to four times; a quarter stays unchanged.
pub(crate) fn mutated<T: Debug + Clone + 'static>(
    base: BoxedStrategy<Vec<T>>,
    special: BoxedStrategy<Vec<T>>,
) -> impl Strategy<Value = Vec<T>> {
    let at = any::<Index>;
    let change = prop_oneof![
        3 => (at(), special.clone()).prop_map(|(at, new)| Change::Insert(at, new)),
        3 => (at(), 1..3_usize, special).prop_map(|(at, part, new)| Change::Replace(at, part, new)),
        2 => (at(), 1..MAX_PART).prop_map(|(at, part)| Change::Replace(at, part, Vec::new())),
        1 => (at(), 1..MAX_PART, 1..MAX_COPIES).prop_map(|(at, part, copies)| Change::Repeat(at, part, copies)),
        1 => (at(), at()).prop_map(|(one, other)| Change::Swap(one, other)),
        1 => at().prop_map(Change::Cut),
        1 => (at(), at()).prop_map(|(at, from)| Change::Splice(at, from)),
    ];
    let changes = prop_oneof![1 => vec(change.clone(), 0..1), 3 => vec(change, 1..5)];
    (base.clone(), base, changes)
        .prop_map(|(input, other, changes)| changes.iter().fold(input, |input, change| change.apply(input, &other)))
}
