//! Prints the document that is committed as `api/openapi.json`; redirect it to another file first, since the build reads that one.

fn main() {
    print!("{}", api::openapi_json());
}
