//! The `traceparent` of W3C Trace Context: the only parser, because the SDK's also accepts ids that are too short.

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// A longer one is refused. Only later versions may append fields.
const MAX_LENGTH: usize = 512;

/// Whether a text is a valid `traceparent`.
pub fn is_valid(text: &str) -> bool {
    parse(text).is_some()
}

/// The 16 bytes of the trace id; `None` for an invalid `traceparent`.
pub fn trace_id(text: &str) -> Option<[u8; 16]> {
    parse(text).map(|context| context.trace_id().to_bytes())
}

/// Parses `version-trace-parent-flags` in lower-case hex. Of later versions only the fields of version 00 are read.
pub(super) fn parse(text: &str) -> Option<SpanContext> {
    let mut parts = text.split('-');
    let mut hex = |length: usize| {
        let is_hex = |part: &&str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        parts.next().filter(|part| part.len() == length).filter(is_hex)
    };
    let (version, trace, parent, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
    if version == "ff"
        || version == "00" && parts.next().is_some()
        || text.len() > MAX_LENGTH
        || !text.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()? & TraceFlags::SAMPLED.to_u8());
    let (trace, parent) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(parent).ok()?);
    let context = SpanContext::new(trace, parent, flags, true, TraceState::default());
    context.is_valid().then_some(context)
}

/// Formats the `traceparent` of a span; `None` for the empty span.
pub(super) fn format(context: &SpanContext) -> Option<String> {
    let flags = u8::from(context.is_sampled());
    context.is_valid().then(|| format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id()))
}

#[cfg(test)]
mod tests {
    use hostile::proptest::prelude::*;

    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    #[test]
    fn a_parsed_traceparent_is_formatted_unchanged() {
        for flags in ["00", "01"] {
            let text = format!("00-{TRACE}-b7ad6b7169203331-{flags}");
            assert_eq!(parse(&text).as_ref().and_then(format), Some(text));
        }
        let later = parse(&format!("01-{TRACE}-b7ad6b7169203331-03-more")).expect("a later version");
        assert!(later.is_sampled() && later.is_remote());
        assert_eq!(trace_id(&format!("00-{TRACE}-b7ad6b7169203331-00")).map(|id| id[0]), Some(0x0a));
    }

    #[test]
    fn an_invalid_traceparent_is_refused() {
        for wrong in [
            String::new(),
            "00".into(),
            "00-1-2-01".into(),
            format!("00-{TRACE}-b7ad6b7169203331-01-more"),
            format!("ff-{TRACE}-b7ad6b7169203331-01"),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)),
            format!("00-{}-b7ad6b7169203331-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-b7ad6b7169203331"),
            format!("00-+{}-b7ad6b7169203331-01", &TRACE[1..]),
            format!("01-{TRACE}-b7ad6b7169203331-01-{}", "x".repeat(500)),
            format!("01-{TRACE}-b7ad6b7169203331-01-é"),
            format!("01-{TRACE}-b7ad6b7169203331-01-a b"),
        ] {
            assert!(!is_valid(&wrong), "{wrong}");
        }
    }

    #[test]
    fn hostile_traceparents_are_refused_or_formatted_unchanged() -> Result<(), hostile::Failure> {
        let corpus = include_str!("../../../../../tests/corpora/traceparent.txt");
        hostile::check_text(corpus, "[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[a-z]{0,5})?", |text| {
            let Some(context) = parse(text) else { return Ok(()) };
            prop_assert!(
                text.bytes().all(|byte| byte.is_ascii_graphic())
                    && (55..=MAX_LENGTH).contains(&text.len())
                    && !text.starts_with("ff")
            );
            prop_assert!(text.starts_with("00-") == (text.len() == 55) || !text.starts_with("00-"));
            prop_assert!(text.len() == 55 || text.as_bytes()[55] == b'-');
            // All that is read is in the text, as it stands there.
            let (version, rest) = text.split_at(2);
            prop_assert!(version.bytes().all(|byte| b"0123456789abcdef".contains(&byte)));
            let formatted = format(&context).expect("a valid context");
            prop_assert_eq!(&formatted[2..53], &rest[..51]);
            let sampled = u8::from_str_radix(&text[53..55], 16).expect("hex") & 1;
            prop_assert_eq!(&formatted[53..], format!("0{sampled}"));
            prop_assert!(text[3..35].bytes().any(|byte| byte != b'0') && text[36..52].bytes().any(|byte| byte != b'0'));
            Ok(())
        })
    }
}
