//! Who acts: the header `X-Actor`, and the order that it belongs to.

use jobs::text::is_blank;
use poem::{Request, RequestBody, http::HeaderName};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaParamIn, MetaSchema, MetaSchemaRef, Registry},
};
use queue::operator::audit::{Order, Via};

use crate::{
    auth::Admin,
    problem::Problem,
    schema::{described, inline},
    validation::{FieldError, NeverDefault, ValidationError},
};

/// The header with the name of the operator.
const ACTOR: HeaderName = HeaderName::from_static("x-actor");
/// The most characters of that name.
const MAX_ACTOR: usize = 100;

/// The value of `X-Actor`, as the argument `#[oai(name = "X-Actor")] actor` of every endpoint that acts. It keeps its error,
/// so that a handler can report it together with those of the other parts.
pub(super) struct Actor(pub(super) Result<ActorName, ValidationError>);

/// The name in `X-Actor`, if the request has one.
pub(super) struct ActorName(Option<String>);

impl<'a> ApiExtractor<'a> for Actor {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter];

    const PARAM_IS_REQUIRED: bool = false;

    type ParamType = NeverDefault;
    type ParamRawType = NeverDefault;

    fn register(_: &mut Registry) {}

    fn param_in() -> Option<MetaParamIn> {
        Some(MetaParamIn::Header)
    }

    fn param_schema_ref() -> Option<MetaSchemaRef> {
        let name = MetaSchema { min_length: Some(1), max_length: Some(MAX_ACTOR), ..MetaSchema::new("string") };
        Some(inline(described("Who acts; recorded. 1 to 100 characters, without blanks at both ends.", name)))
    }

    async fn from_request(
        request: &'a Request,
        _: &mut RequestBody,
        _: ExtractParamOptions<NeverDefault>,
    ) -> poem::Result<Self> {
        Ok(Self(read(request)))
    }
}

impl ActorName {
    /// Builds the order of an action: who acts, and why. A caller without a name acts under that of its key or token.
    ///
    /// # Errors
    /// 422 when the reason is blank.
    pub(super) fn order(self, Admin(caller): &Admin, reason: &str) -> Result<Order, Problem> {
        let actor = self.0.unwrap_or_else(|| caller.operator_name());
        Order::new(&actor, Via::Http, reason)
            .map_err(|expected| FieldError::value_error(expected).at_text("body", "reason", reason).into())
    }
}

fn read(request: &Request) -> Result<ActorName, ValidationError> {
    let mut lines = request.headers().get_all(ACTOR).iter();
    let Some(value) = lines.next() else { return Ok(ActorName(None)) };
    let refuse = |error: FieldError, text: &str| error.at_text("header", "X-Actor", text);
    let text = std::str::from_utf8(value.as_bytes()).map_err(|_| refuse(FieldError::not_unicode(), ""))?.trim();
    if lines.next().is_some() {
        return Err(refuse(FieldError::value_error("X-Actor must be given once"), text));
    }
    match text.chars().count() {
        _ if is_blank(text) => Err(refuse(FieldError::too_short(1), text)),
        0..=MAX_ACTOR => Ok(ActorName(Some(text.to_owned()))),
        _ => Err(refuse(FieldError::too_long(MAX_ACTOR), text)),
    }
}

#[cfg(test)]
mod tests {
    use jobs::users::UserId;
    use poem::http::HeaderValue;

    use super::*;
    use crate::auth::{Caller, Key};

    #[test]
    fn the_actor_is_the_header_else_the_caller() {
        let actor = |given: &[&[u8]], caller: Caller| {
            let mut request = Request::default();
            for value in given {
                request.headers_mut().append(ACTOR, HeaderValue::from_bytes(value).expect("a header"));
            }
            let name = read(&request).map_err(Problem::from);
            let order = name.and_then(|name| name.order(&Admin(caller), "why"));
            order.map(|order| order.actor).map_err(|problem| problem.to_string())
        };
        let admin = || Caller::Key(Key::Admin);
        assert_eq!(actor(&[], admin()), Ok("admin key".into()));
        assert_eq!(actor(&[], Caller::User(UserId(7))), Ok("user 7".into()));
        assert_eq!(actor(&[], Caller::Subject("s".repeat(600))).map(|name| name.len()), Ok(MAX_ACTOR));
        assert_eq!(actor(&[b" ada "], Caller::User(UserId(7))), Ok("ada".into()));
        assert_eq!(actor(&["Zoë".as_bytes()], admin()), Ok("Zoë".into()));
        let invisible = "\u{200b}\u{2060}".as_bytes();
        let refused: [&[&[u8]]; 6] = [&[b""], &[b"  "], &[invisible], &[&[b'a'; 101]], &[b"\xff"], &[b"ada", b"bob"]];
        for given in refused {
            assert_eq!(actor(given, admin()), Err("422 Unprocessable Entity".into()), "{given:?}");
        }
    }
}
