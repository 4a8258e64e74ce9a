//! The documentation pages and `openapi.json`. The pages contain all their assets, so they work without internet.

mod document;

use std::{
    collections::HashMap,
    marker::PhantomData,
    sync::{Arc, OnceLock},
};

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

/// The content security policy of the pages: they may load nothing from other sites. If an update of a viewer refers to
/// an external font or image, the browser blocks it, and the other site does not learn who reads the page.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; \
                      img-src 'self' data:; font-src data:; worker-src blob:";
/// Redoc's link to external fonts. System fonts are good enough.
const REDOC_FONTS: &str = r#"<link href="https://fonts.googleapis.com/css?family=Montserrat:300,400,700|Roboto:300,400,700" rel="stylesheet">"#;
/// The last setting in Swagger UI's page. Ours is added after it: it removes the badge, an image from
/// validator.swagger.io that Swagger UI shows on every host except localhost.
const SWAGGER_SETTING: &str = "deepLinking: true,";

/// The OpenAPI document of an API, generated from its type.
pub type Document<A> = OpenApiService<DocumentedApi<A>, ()>;

/// The documented operations of `A`, without handlers.
pub struct DocumentedApi<A>(PhantomData<fn() -> A>);

impl<A> Default for DocumentedApi<A> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<A: OpenApi> OpenApi for DocumentedApi<A> {
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

/// The pages `/docs`, `/redoc` and `/openapi.json`. A page may have some megabytes, so it is built at its first request, and
/// clients can revalidate it by its `ETag`.
pub fn pages<A: OpenApi + 'static>(document: Document<A>) -> Vec<(&'static str, BoxEndpoint<'static>)> {
    let swagger = Arc::new(document);
    let (redoc, spec) = (Arc::clone(&swagger), Arc::clone(&swagger));
    vec![
        (
            "/docs",
            page("text/html; charset=utf-8", move || {
                let html = swagger.swagger_ui_html().replacen(&swagger.spec(), &text(&swagger), 1);
                html.replace(SWAGGER_SETTING, "deepLinking: true, validatorUrl: null,")
            }),
        ),
        (
            "/redoc",
            page("text/html; charset=utf-8", move || {
                let html = redoc.redoc_html().replacen(&redoc.spec(), &text(&redoc), 1);
                html.replacen(REDOC_FONTS, "", 1)
            }),
        ),
        ("/openapi.json", page("application/json", move || text(&spec) + "\n")),
    ]
}

fn page(content_type: &'static str, text: impl Fn() -> String + Send + Sync + 'static) -> BoxEndpoint<'static> {
    let built = OnceLock::<(Bytes, String)>::new();
    let endpoint = make_sync(move |request| -> poem::Result<Response> {
        let (text, tag) = built.get_or_init(|| with_etag(text()));
        let unchanged = entity_tag::is_unchanged(request.headers(), tag)?;
        let mut response =
            if unchanged { Response::from(StatusCode::NOT_MODIFIED) } else { Response::from(text.clone()) };
        let headers = response.headers_mut();
        if let Ok(tag) = HeaderValue::from_str(tag) {
            headers.insert(header::ETAG, tag);
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
        Ok(response)
    });
    endpoint.map_to_response().boxed()
}

/// A page with its `ETag`, which is the same in all processes of one build.
fn with_etag(text: String) -> (Bytes, String) {
    let tag = Sha256::digest(&text).iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>();
    (text.into(), format!("\"{tag}\""))
}

#[cfg(test)]
mod tests {
    use poem::{Endpoint, Request};

    use super::*;

    /// The tags and CSS rules of a page that load external resources.
    fn external_references(html: &str) -> Vec<&str> {
        ["src=\"http", "src='http", "src=\"//", "<link href=\"http", "@import", "url(http", "url(\"http", "url(//"]
            .into_iter()
            .filter(|reference| html.contains(reference))
            .collect()
    }

    #[tokio::test]
    async fn pages_work_without_internet() {
        let service = || -> Document<()> { OpenApiService::new(DocumentedApi::default(), "t", "1") };
        for (path, page) in pages(service()) {
            let mut response = page.get_response(Request::default()).await;
            assert!(
                response
                    .header("content-security-policy")
                    .is_some_and(|policy| policy.starts_with("default-src 'self'"))
            );
            let text = response.take_body().into_string().await.unwrap_or_default();
            assert!(text.contains("\"openapi\": \"3"), "{path} contains no document");
            assert_eq!(external_references(&text), Vec::<&str>::new(), "{path}");
            assert_eq!(path == "/docs", text.contains("deepLinking: true, validatorUrl: null,"));
        }
        assert_eq!(external_references(&service().redoc_html()).len(), 1, "REDOC_FONTS is no longer needed");
    }
}
