//! Orders of operators and their record: who does what, and why.

use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;

use super::storable::StorableText;

/// The interface that an operator used, or the process that acted by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// The web pages under `/board`.
    Board,
    /// The HTTP API under `/admin`.
    Http,
    /// The `millrace` command line.
    Cli,
    /// A worker, without an operator.
    Worker,
}

impl Via {
    /// The word in the database and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Board => "board",
            Self::Http => "http",
            Self::Cli => "cli",
            Self::Worker => "worker",
        }
    }
}

/// Who acts, and why. Every action of an operator needs one, and is recorded with it.
#[derive(Debug, Clone)]
pub struct Order {
    /// The operator's name, or that of the program that acts by itself.
    pub actor: String,
    pub via: Via,
    /// Why, for other operators.
    pub reason: String,
}

/// The most characters of a name or a reason.
const LONGEST: usize = 500;

impl Order {
    /// Creates an order.
    ///
    /// # Errors
    /// When the name or the reason is empty or longer than 500 characters. The text says which one.
    pub fn new(actor: &str, via: Via, reason: &str) -> Result<Self, String> {
        let check = |name: &str, text: &str| match text.trim() {
            "" => Err(format!("{name} must not be empty")),
            text if text.chars().count() > LONGEST => Err(format!("{name} must have at most {LONGEST} characters")),
            text => Ok(StorableText::from(text).to_string()),
        };
        Ok(Self { actor: check("actor", actor)?, via, reason: check("reason", reason)? })
    }
}

/// One recorded action.
#[derive(Debug, Clone, Serialize)]
pub struct Action {
    pub id: i64,
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    pub actor: String,
    /// `board`, `http`, `cli` or `worker`.
    pub via: String,
    /// A verb, such as `pause`.
    pub action: String,
    /// The queue, job, worker or schedule.
    pub target: String,
    /// Which jobs of the queue; `null` for one target.
    pub filter: Option<Value>,
    pub reason: String,
    /// How many targets were changed.
    pub count: i64,
}
