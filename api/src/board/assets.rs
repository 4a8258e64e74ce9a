//! The stylesheet, the script and the icon, compiled into the program.

use poem::{
    Response,
    http::{HeaderValue, header},
};

const STYLE: &str = include_str!("assets/style.css");
const SCRIPT: &str = include_str!("assets/board.js");
const ICON: &str = include_str!("assets/icon.svg");

/// The file with this name; `None` if it does not exist.
pub(super) fn find(name: &str) -> Option<Response> {
    let (text, content_type) = match name {
        "style.css" => (STYLE, "text/css; charset=utf-8"),
        "board.js" => (SCRIPT, "text/javascript; charset=utf-8"),
        "icon.svg" => (ICON, "image/svg+xml"),
        _ => return None,
    };
    let mut response = Response::from(text);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    Some(response)
}
