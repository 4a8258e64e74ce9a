//! Configuration from environment variables. All wrong values are found before anything starts and reported together.

mod env_file;
mod names;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    fs::File,
    io::Read as _,
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

pub use self::{env_file::EnvFile, names::SECRETS};

type Lookup = Box<dyn Fn(&str) -> Option<OsString>>;

/// Reads variables, and collects what is wrong with them.
pub struct EnvReader {
    lookup: Lookup,
    /// The contents of secret files by variable. Each file is read once, since a pipe can be read only once.
    files: BTreeMap<String, Option<String>>,
    errors: Vec<String>,
}

/// All errors of a configuration, one line each: the variable, what is wrong, an example.
#[derive(Debug, Default)]
pub struct ConfigErrors(Vec<String>);

impl EnvReader {
    /// Reads the process environment. A variable that is unset there comes from the file `.env` of the working folder.
    pub fn from_env() -> Self {
        let file = EnvFile::of_working_folder();
        let lookup = |name: &str| {
            std::env::var_os(name).or_else(|| file.values.get(name).map(|(_, value)| OsString::from(value)))
        };
        Self { lookup: Box::new(lookup), files: BTreeMap::new(), errors: file.errors.clone() }
    }

    /// Reads from a list of pairs, for tests: they never touch the environment.
    pub fn from_pairs(pairs: &[(&str, &str)]) -> Self {
        let pairs: Vec<(String, String)> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let lookup = move |name: &str| pairs.iter().find(|(k, _)| k == name).map(|(_, v)| v.into());
        Self { lookup: Box::new(lookup), files: BTreeMap::new(), errors: Vec::new() }
    }

    /// The trimmed value of a variable; an empty value counts as unset. For one of [`SECRETS`], `NAME_FILE` may name a
    /// file that holds the value.
    pub fn text(&mut self, name: &str) -> Option<String> {
        let value = self.single_text(name);
        if !SECRETS.contains(&name) {
            return value;
        }
        let variable = format!("{name}_FILE");
        match (value, self.single_text(&variable)) {
            (None, Some(path)) => match self.files.get(&variable) {
                Some(read) => read.clone(),
                None => {
                    let read = read_secret_file(&path).map_err(|expected| {
                        let example = format!("such as {variable}=/run/secrets/{}", name.to_ascii_lowercase());
                        self.add_error(&variable, &format!("{expected}; {example}"));
                    });
                    let read = read.ok();
                    self.files.insert(variable, read.clone());
                    read
                }
            },
            (Some(value), Some(_)) => {
                self.add_error(name, &format!("must not be set together with {variable}: unset one of the two"));
                Some(value)
            }
            (value, None) => value,
        }
    }

    /// Whether a variable has a value, valid or not.
    pub fn is_set(&self, name: &str) -> bool {
        let set = |name: &str| (self.lookup)(name).is_some_and(|value| !value.to_string_lossy().trim().is_empty());
        set(name) || (SECRETS.contains(&name) && set(&format!("{name}_FILE")))
    }

    /// The trimmed value of exactly this variable, without `NAME_FILE`.
    fn single_text(&mut self, name: &str) -> Option<String> {
        match (self.lookup)(name)?.into_string() {
            Ok(value) => Some(value.trim().to_owned()).filter(|value| !value.is_empty()),
            // `is_set` still returns true: an unreadable secret must not count as unset.
            Err(_) => {
                self.add_error(name, "must be text in UTF-8");
                None
            }
        }
    }

    /// The value that `read` parses from the text. On failure `read` returns what is expected, with an example.
    pub fn read<T>(&mut self, name: &str, default: T, read: impl FnOnce(&str) -> Result<T, String>) -> T {
        match self.text(name).map(|text| read(&text)) {
            None => default,
            Some(Ok(value)) => value,
            Some(Err(expected)) => {
                self.add_error(name, &expected);
                default
            }
        }
    }

    /// A number within the inclusive `range`.
    pub fn number<T>(&mut self, name: &str, default: T, range: std::ops::RangeInclusive<T>) -> T
    where
        T: FromStr + PartialOrd + fmt::Display + Copy,
    {
        self.read(name, default, |text| {
            text.parse()
                .ok()
                .filter(|value| range.contains(value))
                .ok_or_else(|| format!("must be a number from {} to {}, such as {default}", range.start(), range.end()))
        })
    }

    /// A duration within `range`. Both are in seconds, and fractions are allowed.
    pub fn seconds(&mut self, name: &str, default: f64, range: std::ops::RangeInclusive<f64>) -> std::time::Duration {
        std::time::Duration::from_secs_f64(self.number(name, default, range))
    }

    /// `HOST`, the address to listen on. Every listening process reads the same variable.
    pub fn host(&mut self) -> IpAddr {
        let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
        self.read("HOST", localhost, |text| match text {
            "localhost" => Ok(localhost),
            _ => text.parse().map_err(|_| "must be an IP address or localhost, such as HOST=0.0.0.0".into()),
        })
    }

    /// Records that a variable is wrong. The text never contains the value, which may be a secret.
    pub fn add_error(&mut self, name: &str, expected: &str) {
        let error = format!("{name}: {expected}");
        // Several readers may read the same variable.
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    /// Returns `config` if no variable was wrong.
    ///
    /// # Errors
    /// Returns all errors together if any variable was wrong.
    pub fn finish<T>(self, config: T) -> Result<T, ConfigErrors> {
        if self.errors.is_empty() { Ok(config) } else { Err(ConfigErrors(self.errors)) }
    }
}

/// Reads the secret in a file, without surrounding whitespace.
fn read_secret_file(path: &str) -> Result<String, String> {
    /// More than any secret, and a bound for wrong paths such as `/dev/zero`.
    const LIMIT: u64 = 64 << 10;
    let expected = "must name a file that holds the value";
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LIMIT + 1).read_to_end(&mut bytes));
    read.map_err(|error| format!("{expected}; it cannot be read: {error}"))?;
    let text = std::str::from_utf8(&bytes).unwrap_or_default().trim();
    if bytes.len() as u64 > LIMIT || text.is_empty() || text.contains(char::is_control) {
        return Err(format!("{expected}: one line of text in UTF-8, not empty"));
    }
    Ok(text.to_owned())
}

/// Warnings about variables that are set, but that Millrace does not read, if they look like a mistake.
pub fn unknown_variables() -> Vec<String> {
    let file = &EnvFile::of_working_folder().values;
    let in_file = file
        .iter()
        .filter_map(|(name, (line, _))| names::unknown_in_file(name).map(|note| format!(".env line {line}: {note}")));
    in_file.chain(names::misspelt_variables(std::env::vars_os().map(|(name, _)| name))).collect()
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for ConfigErrors {}

/// The environment in which this process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Environment {
    /// A developer's machine. Default secrets are accepted.
    Dev,
    /// A test run.
    Test,
    /// Production. Default secrets and missing keys stop the process at start.
    Prod,
}

impl Environment {
    /// Reads `ENV`.
    pub fn read(vars: &mut EnvReader) -> Self {
        vars.read("ENV", Self::Dev, |text| match text {
            "dev" => Ok(Self::Dev),
            "test" => Ok(Self::Test),
            "prod" => Ok(Self::Prod),
            _ => Err("must be dev, test or prod, such as ENV=prod".into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A temporary file of one test, removed on drop.
    struct SecretFile(std::path::PathBuf);

    impl SecretFile {
        fn new(name: &str, content: &[u8]) -> Self {
            let path = std::env::temp_dir().join(format!("millrace-secret-{name}-{}", std::process::id()));
            std::fs::write(&path, content).expect("a file");
            Self(path)
        }

        fn path(&self) -> &str {
            self.0.to_str().expect("UTF-8")
        }
    }

    impl Drop for SecretFile {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn every_secret_can_be_read_from_a_file() {
        let file = SecretFile::new("good", b"  a secret \r\n");
        for name in SECRETS {
            let variable = format!("{name}_FILE");
            let mut vars = EnvReader::from_pairs(&[(&variable, file.path()), (name, " ")]);
            assert!(vars.is_set(name), "{name}");
            assert_eq!(vars.text(name).as_deref(), Some("a secret"), "{name}");
            assert!(vars.finish(()).is_ok(), "{name}");
            let mut both = EnvReader::from_pairs(&[(&variable, file.path()), (name, "another")]);
            both.text(name);
            let error = both.finish(()).expect_err("both are set").to_string();
            assert!(error.starts_with(&format!("{name}: ")) && error.contains(&variable), "{error}");
        }
        let mut vars = EnvReader::from_pairs(&[("PORT_FILE", file.path())]);
        assert!(!vars.is_set("PORT") && vars.text("PORT").is_none(), "only secrets have NAME_FILE");
    }

    #[test]
    fn an_unusable_secret_file_is_reported_without_its_content() {
        let (empty, lines) = (SecretFile::new("empty", b" \n"), SecretFile::new("lines", b"hunter2\nhunter2\n"));
        let binary = SecretFile::new("binary", b"hunter2\xff");
        for path in [empty.path(), lines.path(), binary.path(), "/nowhere/hunter", "/", "/dev/zero", "/dev/null"] {
            let mut vars = EnvReader::from_pairs(&[("API_KEY_FILE", path)]);
            assert!(vars.is_set("API_KEY") && vars.text("API_KEY").is_none(), "{path}");
            vars.text("API_KEY");
            let errors = vars.finish(()).expect_err(path).to_string();
            assert!(errors.starts_with("API_KEY_FILE: must name a file that holds the value"), "{path}: {errors}");
            assert!(errors.ends_with("such as API_KEY_FILE=/run/secrets/api_key"), "{path}: {errors}");
            assert!(!errors.contains("hunter2") && errors.lines().count() == 1, "{path}: {errors}");
        }
    }
}
