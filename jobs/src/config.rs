//! Reading the environment: every wrong value is found before anything starts, and all of them are named at once.

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

/// Variables being read, and everything found wrong with them so far.
pub struct EnvReader {
    lookup: Lookup,
    /// What the files of secrets hold, by their variables: a pipe can be read only once.
    files: BTreeMap<String, Option<String>>,
    problems: Vec<String>,
}

/// Every problem of a start, one line each: the variable, what is wrong, an example.
#[derive(Debug, Default)]
pub struct ConfigErrors(Vec<String>);

impl EnvReader {
    /// Reads the process environment; what is unset there is taken from the file `.env` of the working folder.
    pub fn from_env() -> Self {
        let file = EnvFile::of_working_folder();
        let lookup = |name: &str| {
            std::env::var_os(name).or_else(|| file.values.get(name).map(|(_, value)| OsString::from(value)))
        };
        Self { lookup: Box::new(lookup), files: BTreeMap::new(), problems: file.problems.clone() }
    }

    /// Reads from a list of pairs; for tests, which never touch the environment.
    pub fn from_pairs(pairs: &[(&str, &str)]) -> Self {
        let pairs: Vec<(String, String)> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let lookup = move |name: &str| pairs.iter().find(|(k, _)| k == name).map(|(_, v)| v.into());
        Self { lookup: Box::new(lookup), files: BTreeMap::new(), problems: Vec::new() }
    }

    /// The trimmed value of a variable; empty counts as unset. One of [`SECRETS`] may be in a file that `NAME_FILE`
    /// names.
    pub fn text(&mut self, name: &str) -> Option<String> {
        let value = self.plain(name);
        if !SECRETS.contains(&name) {
            return value;
        }
        let variable = format!("{name}_FILE");
        match (value, self.plain(&variable)) {
            (None, Some(path)) => match self.files.get(&variable) {
                Some(read) => read.clone(),
                None => {
                    let read = secret_in(&path).map_err(|problem| self.problem(&variable, &problem)).ok();
                    self.files.insert(variable, read.clone());
                    read
                }
            },
            (Some(value), Some(_)) => {
                self.problem(name, &format!("must not be set together with {variable}: unset one of the two"));
                Some(value)
            }
            (value, None) => value,
        }
    }

    /// Whether a variable has a value, be it a wrong one.
    pub fn is_set(&self, name: &str) -> bool {
        let set = |name: &str| (self.lookup)(name).is_some_and(|value| !value.to_string_lossy().trim().is_empty());
        set(name) || (SECRETS.contains(&name) && set(&format!("{name}_FILE")))
    }

    fn plain(&mut self, name: &str) -> Option<String> {
        match (self.lookup)(name)?.into_string() {
            Ok(value) => Some(value.trim().to_owned()).filter(|value| !value.is_empty()),
            // It is set all the same: a secret must not count as unset.
            Err(_) => {
                self.problem(name, "must be text in UTF-8");
                None
            }
        }
    }

    /// A value that `read` makes of the text; `read` answers what would be right, with an example, when it cannot.
    pub fn read<T>(&mut self, name: &str, default: T, read: impl FnOnce(&str) -> Result<T, String>) -> T {
        match self.text(name).map(|text| read(&text)) {
            None => default,
            Some(Ok(value)) => value,
            Some(Err(expected)) => {
                self.problem(name, &expected);
                default
            }
        }
    }

    /// A number within `range`, both ends included.
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

    /// A duration in seconds, fractions allowed, within `range` (in seconds).
    pub fn seconds(&mut self, name: &str, default: f64, range: std::ops::RangeInclusive<f64>) -> std::time::Duration {
        std::time::Duration::from_secs_f64(self.number(name, default, range))
    }

    /// `HOST`, the address to listen on: the same for every process that listens.
    pub fn host(&mut self) -> IpAddr {
        let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
        self.read("HOST", localhost, |text| match text {
            "localhost" => Ok(localhost),
            _ => text.parse().map_err(|_| "must be an IP address or localhost, such as HOST=0.0.0.0".into()),
        })
    }

    /// Remembers that a variable is wrong. The value itself is never repeated: it may be a secret.
    pub fn problem(&mut self, name: &str, expected: &str) {
        let problem = format!("{name}: {expected}");
        // Several readers may want one variable.
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// All the problems, when there are any.
    pub fn finish<T>(self, config: T) -> Result<T, ConfigErrors> {
        if self.problems.is_empty() { Ok(config) } else { Err(ConfigErrors(self.problems)) }
    }
}

/// The secret in a file: its text without the blanks and line ends around it.
fn secret_in(path: &str) -> Result<String, String> {
    /// More than any secret; less than what a wrong path such as `/dev/zero` would give.
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

/// What to say about variables that are set and that no program of Millrace reads, as far as they look like a mistake.
pub fn unknown_variables() -> Vec<String> {
    let file = &EnvFile::of_working_folder().values;
    let in_file = file
        .iter()
        .filter_map(|(name, (line, _))| names::unknown_in_file(name).map(|note| format!(".env line {line}: {note}")));
    in_file.chain(names::misspelt(std::env::vars_os().map(|(name, _)| name))).collect()
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for ConfigErrors {}

/// Which of three surroundings this process runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Environment {
    /// A developer's machine: default secrets are fine.
    Dev,
    /// A test run.
    Test,
    /// Production: default secrets and missing keys stop the process at start.
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

    /// A file of one test's own, removed with it.
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
            let problem = both.finish(()).expect_err("both").to_string();
            assert!(problem.starts_with(&format!("{name}: ")) && problem.contains(&variable), "{problem}");
        }
        let mut vars = EnvReader::from_pairs(&[("PORT_FILE", file.path())]);
        assert!(!vars.is_set("PORT") && vars.text("PORT").is_none(), "only secrets");
    }

    #[test]
    fn a_file_without_a_secret_is_named_and_not_repeated() {
        let (empty, lines) = (SecretFile::new("empty", b" \n"), SecretFile::new("lines", b"hunter2\nhunter2\n"));
        let binary = SecretFile::new("binary", b"hunter2\xff");
        for path in [empty.path(), lines.path(), binary.path(), "/nowhere/hunter", "/", "/dev/zero", "/dev/null"] {
            let mut vars = EnvReader::from_pairs(&[("API_KEY_FILE", path)]);
            assert!(vars.is_set("API_KEY") && vars.text("API_KEY").is_none(), "{path}");
            vars.text("API_KEY");
            let problems = vars.finish(()).expect_err(path).to_string();
            assert!(problems.starts_with("API_KEY_FILE: must name a file that holds the value"), "{path}: {problems}");
            assert!(!problems.contains("hunter2") && problems.lines().count() == 1, "{path}: {problems}");
        }
    }
}
