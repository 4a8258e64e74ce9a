//! Credentials as arguments of handlers: what `openapi.json` says of them, and how the framework extracts them.

use poem::Request;
use poem_openapi::registry::{MetaSecurityScheme, Registry};

use crate::problem::Problem;

/// A security scheme of `openapi.json`.
#[derive(Clone, Copy)]
pub(super) struct Scheme {
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    /// The header of a key; `None` for a bearer token.
    pub(super) header: Option<&'static str>,
}

impl Scheme {
    /// The scheme of a key in this header.
    pub(super) const fn key(name: &'static str, header: &'static str, description: &'static str) -> Self {
        Self { name, description, header: Some(header) }
    }
}

/// A credential. A handler with this argument refuses all callers without it; list the statuses of
/// [`Self::authenticate`] in its [`errors!`](crate::problem::errors).
pub(super) trait Credential: Sized {
    /// The alternatives, each of which is enough.
    const SCHEMES: &'static [Scheme];

    /// Authenticates the caller of a request.
    ///
    /// # Errors
    /// 401 or 403 when the credential is missing or wrong, 429 after too many wrong keys.
    async fn authenticate(request: &Request) -> Result<Self, Problem>;
}

/// Registers these schemes for `openapi.json`.
pub(super) fn register(registry: &mut Registry, schemes: &[Scheme]) {
    for scheme in schemes {
        let is_token = scheme.header.is_none();
        registry.create_security_scheme(
            scheme.name,
            MetaSecurityScheme {
                ty: if is_token { "http" } else { "apiKey" },
                description: Some(scheme.description),
                name: scheme.header,
                key_in: scheme.header.map(|_| "header"),
                scheme: is_token.then_some("bearer"),
                bearer_format: is_token.then_some("JWT"),
                flows: None,
                openid_connect_url: None,
            },
        );
    }
}

/// Lets the framework extract a [`Credential`].
macro_rules! extractor {
    ($Type:ty, optional: $optional:literal) => {
        impl<'a> ::poem_openapi::ApiExtractor<'a> for $Type {
            const TYPES: &'static [::poem_openapi::ApiExtractorType] =
                &[::poem_openapi::ApiExtractorType::SecurityScheme];

            type ParamType = ();
            type ParamRawType = ();

            fn register(registry: &mut ::poem_openapi::registry::Registry) {
                $crate::auth::credential::register(registry, <Self as Credential>::SCHEMES);
            }

            fn security_schemes() -> Vec<&'static str> {
                <Self as Credential>::SCHEMES.iter().map(|scheme| scheme.name).collect()
            }

            fn has_security_fallback() -> bool {
                $optional
            }

            async fn from_request(
                request: &'a ::poem::Request,
                _: &mut ::poem::RequestBody,
                _: ::poem_openapi::ExtractParamOptions<()>,
            ) -> ::poem::Result<Self> {
                Ok(<Self as Credential>::authenticate(request).await?)
            }
        }
    };
}

pub(super) use extractor;
