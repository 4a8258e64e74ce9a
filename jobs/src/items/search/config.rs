//! Configuration of the search.

use std::fmt;

use percent_encoding::percent_decode_str;
use url::Url;

use runtime::config::EnvReader;

/// The search settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// `ELASTICSEARCH_URL`: an Elasticsearch 8 or 9 or an OpenSearch, which is queried before PostgreSQL.
    pub elasticsearch: Option<Server>,
    /// `SEARCH_FALLBACK`: what happens to searches while Elasticsearch is down.
    pub fallback: Fallback,
}

/// What happens to searches while Elasticsearch is down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fallback {
    /// PostgreSQL runs them; it always stores every document.
    #[default]
    Postgres,
    /// They fail with 503.
    None,
}

/// A server and its credentials, which are never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Server {
    /// The URL without credentials, ending in `/`.
    pub url: Url,
    /// User and password.
    pub credentials: Option<(String, String)>,
}

impl Config {
    /// Reads the variables named at the fields.
    pub fn read(vars: &mut EnvReader) -> Self {
        Self {
            elasticsearch: vars.read("ELASTICSEARCH_URL", None, |text| Server::parse(text).map(Some)),
            fallback: vars.read("SEARCH_FALLBACK", Fallback::default(), |text| match text {
                "postgres" => Ok(Fallback::Postgres),
                "none" => Ok(Fallback::None),
                _ => Err("must be postgres or none, such as SEARCH_FALLBACK=postgres".into()),
            }),
        }
    }
}

impl Server {
    /// Parses a URL, which may contain credentials and a path.
    ///
    /// # Errors
    /// The expected form, if this is not an HTTP URL or has a query. The error does not contain `text`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expected = "must be an HTTP URL, such as https://user:password@search.example.com:9200";
        let mut url = Url::parse(text).map_err(|_| expected.to_owned())?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() || url.query().is_some() {
            return Err(expected.to_owned());
        }
        let decode = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
        let credentials = match (url.username(), url.password()) {
            ("", None) => None,
            (user, password) => Some((decode(user), decode(password.unwrap_or_default()))),
        };
        let cleared = url.set_username("").and_then(|()| url.set_password(None));
        cleared.map_err(|()| expected.to_owned())?;
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        Ok(Self { url, credentials })
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({})", self.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_leave_the_url_and_are_never_printed() {
        let server = Server::parse("https://me:p%40ss+w%25rd@search.example.com/behind").expect("a server");
        assert_eq!(server.credentials, Some(("me".into(), "p@ss+w%rd".into())));
        assert_eq!(format!("{server:?}"), "Server(https://search.example.com/behind/)");
        assert_eq!(Server::parse("http://localhost:9200").expect("a server").credentials, None);
    }

    #[test]
    fn errors_name_the_variable_without_its_value() {
        let mut vars = EnvReader::from_pairs(&[("ELASTICSEARCH_URL", "ftp://secret@x"), ("SEARCH_FALLBACK", "redis")]);
        let config = Config::read(&mut vars);
        let problems = vars.finish(config).expect_err("wrong values").to_string();
        assert!(problems.contains("ELASTICSEARCH_URL: must be") && problems.contains("SEARCH_FALLBACK: must be"));
        assert!(!problems.contains("secret"), "{problems}");
    }
}
