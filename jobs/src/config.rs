//! Reading the environment: every wrong value is found before anything starts, and all of them are named at once.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

type Lookup = Box<dyn Fn(&str) -> Option<String>>;

/// Variables being read, and everything found wrong with them so far.
pub struct Vars {
    lookup: Lookup,
    problems: Vec<String>,
}

/// Every problem of a start, one line each: the variable, what is wrong, an example.
#[derive(Debug, Default)]
pub struct Problems(Vec<String>);

impl Vars {
    /// Reads the process environment.
    pub fn from_env() -> Self {
        // What is not UTF-8 is set all the same: a secret must not count as unset.
        let lookup = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        Self { lookup: Box::new(lookup), problems: Vec::new() }
    }

    /// Reads from a list of pairs; for tests, which never touch the environment.
    pub fn from_pairs(pairs: &[(&str, &str)]) -> Self {
        let pairs: Vec<(String, String)> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let lookup = move |name: &str| pairs.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone());
        Self { lookup: Box::new(lookup), problems: Vec::new() }
    }

    /// The trimmed value of a variable; empty counts as unset.
    pub fn text(&mut self, name: &str) -> Option<String> {
        (self.lookup)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
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
    pub fn finish<T>(self, config: T) -> Result<T, Problems> {
        if self.problems.is_empty() { Ok(config) } else { Err(Problems(self.problems)) }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Problems {}

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
    pub fn read(vars: &mut Vars) -> Self {
        vars.read("ENV", Self::Dev, |text| match text {
            "dev" => Ok(Self::Dev),
            "test" => Ok(Self::Test),
            "prod" => Ok(Self::Prod),
            _ => Err("must be dev, test or prod, such as ENV=prod".into()),
        })
    }
}
