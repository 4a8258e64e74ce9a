//! Parser of `DATABASE_URL`. It splits the URL into parts and passes them to sqlx as query parameters, because sqlx reads
//! only those as libpq does. In other URLs, sqlx's parser ignores unknown parameters and takes several hosts for one name.
//! It also keeps the brackets of `[::1]`, and accepts no user without a host.

use std::{
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use percent_encoding::percent_decode_str;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use url::form_urlencoded::Serializer;

/// The parameters that may follow the `?`. `options[NAME]` is accepted as well.
const PARAMETERS: [&str; 13] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
    "statement-cache-capacity",
];
/// sqlx's other names of some parameters.
const ALIASES: [(&str, &str); 5] = [
    ("ssl-mode", "sslmode"),
    ("ssl-root-cert", "sslrootcert"),
    ("ssl-ca", "sslrootcert"),
    ("ssl-cert", "sslcert"),
    ("ssl-key", "sslkey"),
];
const SSL_MODES: &str = "disable, allow, prefer, require, verify-ca or verify-full";
const SEVERAL_HOSTS: &str = "it names several hosts, and Millrace connects to one: name the primary, or an address that \
                        always leads to it";

/// Parses a `postgres://` URL in libpq's form. It names one host, an IPv6 address in brackets, or the folder of a socket.
///
/// # Errors
/// When the URL is wrong. The text gives the reason without the URL, which may contain a password.
pub(crate) fn parse(url: &str) -> Result<PgConnectOptions, String> {
    let scheme = ["postgres://", "postgresql://"].into_iter().find_map(|scheme| url.strip_prefix(scheme));
    let parts = scheme.ok_or_else(|| "it must begin with postgres://".to_owned()).and_then(split);
    let options = parts.and_then(|parts| {
        let query = Serializer::new(String::new()).extend_pairs(parts).finish();
        PgConnectOptions::from_str(&format!("postgres:///?{query}")).map_err(|_| "it cannot be parsed".to_owned())
    });
    options.map_err(|reason| {
        format!("must be a PostgreSQL URL, such as postgres://user:password@localhost:5432/millrace; {reason}")
    })
}

type Parts = Vec<(String, String)>;

/// Splits the URL after its scheme into libpq's parameters. Empty ones are left out.
fn split(rest: &str) -> Result<Parts, String> {
    if rest.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#') {
        return Err("a blank in it must be written as %20, and a # as %23".to_owned());
    }
    let (base, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = base.split_once('/').unwrap_or((base, ""));
    let (user, address) = authority.rsplit_once('@').unwrap_or(("", authority));
    let is_password = |text: &str| text.contains('@') && !text.contains('=');
    if !authority.contains('@') && (database.contains('@') || query.split('&').any(is_password)) {
        return Err("a / in the user or the password must be written as %2F, and a ? as %3F".to_owned());
    }
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let (host, port) = split_address(address)?;
    let mut parts = Parts::new();
    for (name, text) in [("user", user), ("password", password), ("host", host), ("port", port), ("dbname", database)] {
        add_part(&mut parts, name, decode(text)?)?;
    }
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').ok_or("each parameter after the ? must be name=value")?;
        let name = decode(name)?;
        let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(&*name, |(_, name)| *name);
        add_part(&mut parts, name, decode(value)?)?;
    }
    Ok(parts)
}

/// Splits an address into host and port. Either may be missing.
fn split_address(address: &str) -> Result<(&str, &str), String> {
    if address.contains(',') {
        return Err(SEVERAL_HOSTS.to_owned());
    }
    let in_brackets = address.strip_prefix('[').map(|rest| rest.split_once(']').ok_or("a [ in it has no ]"));
    let (host, port) = match in_brackets.transpose()? {
        Some((host, rest)) => {
            host.parse::<Ipv6Addr>().map_err(|_| "the text in [ ] must be an IPv6 address, such as [::1]")?;
            (host, rest)
        }
        None => address.split_at(address.find(':').unwrap_or(address.len())),
    };
    match port.strip_prefix(':') {
        Some(port) if !port.contains(':') => Ok((host, port)),
        None if port.is_empty() => Ok((host, "")),
        _ => Err("an IPv6 address must be in brackets, such as [::1]:5432".to_owned()),
    }
}

/// Checks one parameter, and adds it if it has a value.
fn add_part(parts: &mut Parts, name: &str, value: String) -> Result<(), String> {
    if value.is_empty() {
        return Ok(());
    }
    let problem = match name {
        "port" if value.parse::<u16>().unwrap_or(0) == 0 => {
            "its port must be a number from 1 to 65535; a : or @ in the user or the password must be written as %3A or %40"
        }
        "host" if value.contains(',') => SEVERAL_HOSTS,
        "hostaddr" if value.parse::<IpAddr>().is_err() => "hostaddr must be an IP address",
        "sslmode" if PgSslMode::from_str(&value).is_err() => return Err(format!("sslmode must be {SSL_MODES}")),
        "statement-cache-capacity" if value.parse::<usize>().is_err() => "statement-cache-capacity must be a number",
        name if PARAMETERS.contains(&name) || (name.starts_with("options[") && name.ends_with(']')) => "",
        name => {
            // Only a text that looks like a name is repeated, because a misplaced password may be in this position.
            let is_name = name.len() < 40 && name.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c == '-');
            let name = if is_name { name } else { "one of its parameters" };
            return Err(format!("{name} is not supported: the parameters are {}", PARAMETERS.join(", ")));
        }
    };
    if !problem.is_empty() {
        return Err(problem.to_owned());
    }
    parts.push((name.to_owned(), value));
    Ok(())
}

/// Decodes `%` escapes.
fn decode(text: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| "the bytes written with % must be UTF-8")?;
    if decoded.contains('\0') { Err("it must not contain %00".to_owned()) } else { Ok(decoded.into_owned()) }
}

#[cfg(test)]
mod tests {
    use hostile::proptest::prelude::*;

    use super::*;

    /// Parses a URL into user, host or folder of the socket, port, and database.
    fn parse_address(url: &str) -> (String, String, u16, String) {
        let options = parse(url).unwrap_or_else(|problem| panic!("{url}: {problem}"));
        let socket = options.get_socket().map(|path| path.display().to_string());
        let host = socket.unwrap_or_else(|| options.get_host().to_owned());
        let database = options.get_database().unwrap_or_default().to_owned();
        (options.get_username().to_owned(), host, options.get_port(), database)
    }

    #[test]
    fn parses_the_urls_that_libpq_accepts() {
        for (url, user, host, port, database) in [
            ("postgres://u:p@h:1/d", "u", "h", 1, "d"),
            ("postgresql://u@h/d", "u", "h", 5432, "d"),
            ("postgres://u:p@[::1]:6/d", "u", "::1", 6, "d"),
            ("postgres://u@[2001:db8::7]/d", "u", "2001:db8::7", 5432, "d"),
            ("postgres://u:p@/d?host=/run/postgresql", "u", "/run/postgresql", 5432, "d"),
            ("postgres://u:p@/d?host=/run/pg&port=6", "u", "/run/pg", 6, "d"),
            ("postgres://u:p@:6/d?host=/run/pg", "u", "/run/pg", 6, "d"),
            ("postgres://u@%2Frun%2Fpg/d", "u", "/run/pg", 5432, "d"),
            ("postgres:///d?host=h&user=u&port=6&password=p", "u", "h", 6, "d"),
            ("postgres://u@h?dbname=d", "u", "h", 5432, "d"),
            ("postgres://u@h/?dbname=d", "u", "h", 5432, "d"),
            ("postgres://u@h/d?hostaddr=::1", "u", "::1", 5432, "d"),
            ("postgres://a%40b:p%2Fw%3A@h/d%20e", "a@b", "h", 5432, "d e"),
            ("postgres://u:p@w@h/d", "u", "h", 5432, "d"),
            ("postgres://u@h:/d?sslmode=", "u", "h", 5432, "d"),
            (
                "postgres://u@h/d?ssl-mode=require&application_name=x&options=-c%20geqo=off&options[a.b]=c",
                "u",
                "h",
                5432,
                "d",
            ),
        ] {
            assert_eq!(parse_address(url), (user.to_owned(), host.to_owned(), port, database.to_owned()), "{url}");
        }
    }

    #[test]
    fn refuses_other_urls_with_a_reason_and_without_the_password() {
        for (url, reason) in [
            ("mysql://u:hunter2@h/d", "begin with postgres://"),
            ("host=h user=u password=hunter2", "begin with postgres://"),
            ("hunter2", "begin with postgres://"),
            ("postgres://u:hunter2@a,b/d", "several hosts"),
            ("postgres://u:hunter2@a:1,b:2/d", "several hosts"),
            ("postgres://u:hunter2@/d?host=a,b", "several hosts"),
            ("postgres://u:hunter2@[half", "a [ in it has no ]"),
            ("postgres://u:hunter2@[name]/d", "IPv6 address"),
            ("postgres://u:hunter2@[::1]6/d", "in brackets"),
            ("postgres://u:hunter2@::1/d", "in brackets"),
            ("postgres://u:hunter2@h:99999/d", "port must be a number"),
            ("postgres://u:hunter2@h:0/d", "port must be a number"),
            ("postgres://u:hunter2@h:db/d", "port must be a number"),
            ("postgres://u:hunter/2@h/d", "written as %2F"),
            ("postgres://u:hunter?2@h/d", "written as %2F"),
            ("postgres://u:hunter2#@h/d", "as %23"),
            ("postgres://u:hunter 2@h/d", "written as %20"),
            ("postgres://u:%ff@h/d", "UTF-8"),
            ("postgres://u:%00@h/d", "%00"),
            (
                "postgres://u:hunter2@h/d?connect_timeout=5",
                "connect_timeout is not supported: the parameters are sslmode",
            ),
            ("postgres://u:hunter2@h/d?target_session_attrs=read-write", "target_session_attrs is not supported"),
            ("postgres://u:hunter2@h/d?schema=x", "schema is not supported"),
            ("postgres://u:hunter2@h/d?channel_binding=require", "channel_binding is not supported"),
            ("postgres://u:hunter2@h/d?sslmode=strict", "sslmode must be disable"),
            ("postgres://u:hunter2@h/d?port=x", "port must be a number"),
            ("postgres://u:hunter2@h/d?hostaddr=x", "hostaddr must be an IP address"),
            ("postgres://u:hunter2@h/d?sslmode", "name=value"),
        ] {
            let problem = parse(url).expect_err(url);
            assert!(problem.starts_with("must be a PostgreSQL URL, such as postgres://user:"), "{url}: {problem}");
            assert!(problem.contains(reason), "{url}: {problem}");
            assert!(!problem.contains("hunter"), "{url}: {problem}");
        }
    }

    #[test]
    fn hostile_urls_are_refused_without_their_password() -> Result<(), hostile::Failure> {
        let grammar = "postgres(ql)?://[a-z%@:]{0,4}(:hunter2)?@([a-z.]{1,4}|\\[[0-9a-f:]{0,8}\\])(:[0-9]{0,6})?/[a-z]{0,3}(\\?[a-z]{1,8}=[a-z0-9/]{0,5})?";
        hostile::check_text(include_str!("../../../tests/corpora/database_url.txt"), grammar, |url| {
            match parse(url) {
                Ok(options) => {
                    prop_assert!(url.starts_with("postgres://") || url.starts_with("postgresql://"));
                    prop_assert!(options.get_port() > 0 && !options.get_host().contains(','), "{}", options.get_host());
                }
                Err(problem) => {
                    prop_assert!(problem.starts_with("must be a PostgreSQL URL"), "{}", problem);
                    prop_assert!(!problem.contains("hunter2"), "{}", problem);
                }
            }
            Ok(())
        })
    }

    #[test]
    fn hostile_names_survive_their_encoding() -> Result<(), hostile::Failure> {
        let name = || "[^\u{0}]{1,20}";
        hostile::check((name(), name(), name(), 1..=u16::MAX), |(user, password, database, port)| {
            let encode = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
            let (name, secret, base) = (encode(user), encode(password), encode(database));
            let read = parse_address(&format!("postgres://{name}:{secret}@localhost:{port}/{base}"));
            prop_assert_eq!(read, (user.clone(), "localhost".to_owned(), *port, database.clone()));
            Ok(())
        })
    }
}
