//! Prints the OpenAPI document that is committed as `api/openapi.json`.
//!
//! Redirect it to another file first: the build reads `api/openapi.json`.

fn main() {
    print!("{}", api::openapi_json());
}
