//! The format of a corpus: one input a line. `#` begins a comment, and `\` an escape: `\\ \n \r \t \#`, `\xHH` for a byte
//! and `\u{HEX}` for a character. An empty input is `\e`.

/// The inputs of a corpus, in their order.
pub(crate) fn entries(text: &str) -> Vec<Vec<u8>> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(unescape).collect()
}

/// Decodes a line. A malformed escape stands for itself.
fn unescape(line: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), line);
    while let Some(c) = rest.chars().next() {
        let (decoded, length) = escape(rest).unwrap_or_else(|| (c.to_string().into_bytes(), c.len_utf8()));
        bytes.extend(decoded);
        rest = rest.get(length..).unwrap_or_default();
    }
    bytes
}

/// The bytes that an escape at the beginning of the text stands for, and its length.
fn escape(text: &str) -> Option<(Vec<u8>, usize)> {
    let escape = text.strip_prefix('\\')?;
    let plain = |byte: u8| Some((vec![byte], 2));
    match escape.chars().next()? {
        'e' => Some((Vec::new(), 2)),
        'n' => plain(b'\n'),
        'r' => plain(b'\r'),
        't' => plain(b'\t'),
        '\\' => plain(b'\\'),
        '#' => plain(b'#'),
        'x' => Some((vec![u8::from_str_radix(escape.get(1..3)?, 16).ok()?], 4)),
        'u' => {
            let hex = escape.strip_prefix("u{")?.split_once('}')?.0;
            let c = char::from_u32(u32::from_str_radix(hex, 16).ok()?)?;
            Some((c.to_string().into_bytes(), hex.len() + 4))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded() {
        let lines = "# a comment\n\nplain\n\\e\n\\#1\\n\\r\\t\\\\\n\\x00\\xff\n\\u{e9}\\u{10ffff}\nC:\\dir\\x\n";
        let expected: [&[u8]; 6] =
            [b"plain", b"", b"#1\n\r\t\\", b"\0\xff", "\u{e9}\u{10ffff}".as_bytes(), b"C:\\dir\\x"];
        assert_eq!(entries(lines), expected);
    }
}
