//! The documentation pages and `openapi.json`. Everything is in the pages themselves, so they work without internet.

mod document;

use std::{collections::HashMap, marker::PhantomData, sync::OnceLock};

use hyper::body::Bytes;
use poem::{
    EndpointExt, Response,
    endpoint::{BoxEndpoint, make_sync},
    http::{HeaderValue, Method, StatusCode, header},
};
use poem_openapi::{
    OpenApi, OpenApiService,
    registry::{MetaApi, Registry},
};
use sha2::{Digest, Sha256};

use crate::entity_tag;

/// Holds the pages to what they bring along: should an update of a viewer want a font or an image from elsewhere, the
/// browser refuses it instead of telling a stranger who reads this.
const POLICY: &str = "default-src 'self'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; \
                      img-src 'self' data:; font-src data:; worker-src blob:";
/// Where Redoc's page fetches fonts from; the system's own do as well.
const REDOC_FONTS: &str = r#"<link href="https://fonts.googleapis.com/css?family=Montserrat:300,400,700|Roboto:300,400,700" rel="stylesheet">"#;
/// The last setting of Swagger UI's page, after which ours goes.
const SWAGGER_SETTING: &str = "deepLinking: true,";

/// The document of an API, made from its type alone.
pub type Document<A> = OpenApiService<Shape<A>, ()>;

/// The operations of `A` without anything to run them.
pub struct Shape<A>(PhantomData<fn() -> A>);

impl<A> Default for Shape<A> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<A> Clone for Shape<A> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

impl<A: OpenApi> OpenApi for Shape<A> {
    fn meta() -> Vec<MetaApi> {
        document::complete_operations(A::meta())
    }

    fn register(registry: &mut Registry) {
        A::register(registry);
        registry.schemas.values_mut().for_each(document::simplify_parts);
    }

    fn add_routes(self, _: &mut HashMap<String, HashMap<Method, BoxEndpoint<'static>>>) {}
}

/// The text of `openapi.json`.
pub fn text<A: OpenApi>(document: &Document<A>) -> String {
    document::finish(&document.spec())
}

/// `/docs`, `/redoc` and `/openapi.json`. A page of megabytes is made when it is first asked for, and sent again only
/// once it has changed.
pub fn pages<A: OpenApi + 'static>(document: &Document<A>) -> Vec<(&'static str, BoxEndpoint<'static>)> {
    let (swagger, redoc, spec) = (document.clone(), document.clone(), document.clone());
    vec![
        (
            "/docs",
            page("text/html; charset=utf-8", move || {
                let html = swagger.swagger_ui_html().replacen(&swagger.spec(), &text(&swagger), 1);
                without_validator(&html)
            }),
        ),
        (
            "/redoc",
            page("text/html; charset=utf-8", move || {
                let html = redoc.redoc_html().replacen(&redoc.spec(), &text(&redoc), 1);
                without_fonts(&html)
            }),
        ),
        ("/openapi.json", page("application/json", move || text(&spec) + "\n")),
    ]
}

fn page(content_type: &'static str, text: impl Fn() -> String + Send + Sync + 'static) -> BoxEndpoint<'static> {
    let made = OnceLock::<(Bytes, String)>::new();
    let endpoint = make_sync(move |request| -> poem::Result<Response> {
        let (text, tag) = made.get_or_init(|| tagged(text()));
        entity_tag::check_expected(request.headers(), tag)?;
        let known = entity_tag::is_known(request.headers(), tag);
        let mut response = if known { Response::from(StatusCode::NOT_MODIFIED) } else { Response::from(text.clone()) };
        if let Ok(tag) = HeaderValue::from_str(tag) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        Ok(response)
    });
    endpoint.map_to_response().boxed()
}

/// A page with its tag, which is the same in all processes of one build.
fn tagged(text: String) -> (Bytes, String) {
    let tag = Sha256::digest(&text).iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>();
    (text.into(), format!("\"{tag}\""))
}

fn without_fonts(html: &str) -> String {
    html.replacen(REDOC_FONTS, "", 1)
}

/// Swagger UI shows a badge, an image from validator.swagger.io, on every page that is not on localhost.
fn without_validator(html: &str) -> String {
    html.replace(SWAGGER_SETTING, "deepLinking: true, validatorUrl: null,")
}

#[cfg(test)]
mod tests {
    use poem::{Endpoint, Request};

    use super::*;

    /// The tags and rules of a page that make a browser fetch something from elsewhere.
    fn fetched(html: &str) -> Vec<&str> {
        ["src=\"http", "src='http", "src=\"//", "<link href=\"http", "@import", "url(http", "url(\"http", "url(//"]
            .into_iter()
            .filter(|sign| html.contains(sign))
            .collect()
    }

    #[tokio::test]
    async fn pages_work_without_internet() {
        let service: Document<()> = OpenApiService::new(Shape::default(), "t", "1");
        for (path, page) in pages(&service) {
            let mut response = page.get_response(Request::default()).await;
            assert!(
                response
                    .header("content-security-policy")
                    .is_some_and(|policy| policy.starts_with("default-src 'self'"))
            );
            let text = response.take_body().into_string().await.unwrap_or_default();
            assert!(text.contains("\"openapi\": \"3"), "{path} shows no document");
            assert_eq!(fetched(&text), Vec::<&str>::new(), "{path}");
            assert_eq!(path == "/docs", text.contains("deepLinking: true, validatorUrl: null,"));
        }
        assert_eq!(fetched(&service.redoc_html()).len(), 1, "the fix is needed no more");
    }
}
