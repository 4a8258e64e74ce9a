//! The users endpoints: registration and login.

mod view;

use std::time::Duration;

use jobs::users::{Credentials, Email, NewUser, Users, token::Tokens};
use poem::{Request, http::StatusCode};
use poem_openapi::{ApiResponse, OpenApi};

use self::view::{AccessToken, User};
use crate::{
    auth,
    problem::{Fails, Problem, Statuses},
    rate_limit::{Limit, Limits, Policy, address},
    tags::Tag,
    validation::Body,
    wire::Json,
};

/// What a guesser gets from one address, and a household or an office needs.
const PER_ADDRESS: u32 = 60;
/// What a guesser gets from any number of addresses; nobody mistypes more often.
const PER_ACCOUNT: u32 = 30;
const WINDOW: Duration = Duration::from_secs(60);

/// The users endpoints.
#[derive(Clone)]
pub struct UsersApi {
    users: Users,
    tokens: Tokens,
    registrations: Attempts,
    logins: Attempts,
}

impl UsersApi {
    /// Endpoints that issue these tokens, within limits that all processes share.
    pub fn new(users: Users, tokens: Tokens, limits: &Limits) -> Self {
        Self {
            users,
            tokens,
            registrations: Attempts::new(limits, "register-address", "register-account"),
            logins: Attempts::new(limits, "login-address", "login-account"),
        }
    }
}

/// How often something may be tried.
#[derive(Clone)]
struct Attempts {
    by_address: Limit,
    by_account: Limit,
}

impl Attempts {
    fn new(limits: &Limits, address: &'static str, account: &'static str) -> Self {
        Self {
            by_address: limits.limit(Policy { name: address, quota: PER_ADDRESS, window: WINDOW }),
            by_account: limits.limit(Policy { name: account, quota: PER_ACCOUNT, window: WINDOW }),
        }
    }

    /// Counts an attempt. By its address first: who is over that limit cannot use up what the account has left.
    async fn count(&self, request: &Request, email: &Email) -> Result<(), Problem> {
        self.by_address.take(address(request)).await?;
        self.by_account.take(email.key()).await.map(drop)
    }
}

#[derive(ApiResponse)]
enum Registered {
    /// Registered; the user can log in.
    #[oai(status = 201)]
    Created(Json<User>),
}

#[derive(ApiResponse)]
enum LoggedIn {
    /// A token for the user.
    #[oai(status = 200)]
    Ok(
        Json<AccessToken>,
        /// `no-store`: a token is for its user alone.
        #[oai(header = "Cache-Control")]
        String,
    ),
}

#[derive(Debug)]
struct Registering;

impl Statuses for Registering {
    const ALL: &'static [u16] = &[400, 408, 409, 413, 415, 422, 429, 503];
}

#[derive(Debug)]
struct LoggingIn;

impl Statuses for LoggingIn {
    const ALL: &'static [u16] = &[400, 401, 408, 413, 415, 422, 429, 503];
}

#[OpenApi(tag = "Tag::Users")]
impl UsersApi {
    /// Register a user
    ///
    /// An e-mail address is registered once, however it is written: 409 for one that is known. At most 60
    /// registrations a minute are taken from one network address, and 30 for one e-mail address.
    #[oai(path = "/api/v1/users/register", method = "post", operation_id = "register_user")]
    async fn register(&self, request: &Request, body: Body<NewUser>) -> Result<Registered, Fails<Registering>> {
        let new = body.read()?;
        self.registrations.count(request, &new.email).await?;
        let Some(user) = self.users.register(new).await? else {
            return Err(Problem::new(StatusCode::CONFLICT, "Email already registered").into());
        };
        tracing::info!(user = user.id.0, "USER_REGISTERED");
        Ok(Registered::Created(Json::new(&User::from(user))?))
    }

    /// Log a user in
    ///
    /// The token goes into the header `Authorization: Bearer …` of further requests. An unknown address and a wrong
    /// password are answered by the same 401, after the same time. At most 60 logins a minute are taken from one network
    /// address, and 30 for one e-mail address.
    #[oai(path = "/api/v1/users/login", method = "post", operation_id = "log_in")]
    async fn login(&self, request: &Request, body: Body<Credentials>) -> Result<LoggedIn, Fails<LoggingIn>> {
        let credentials = body.read()?;
        self.logins.count(request, &credentials.email).await?;
        let Some(user) = self.users.login(credentials).await? else {
            return Err(auth::unauthorized("Incorrect email or password").into());
        };
        let token = AccessToken::new(self.tokens.issue(user.id, user.role)?);
        Ok(LoggedIn::Ok(Json::new(&token)?, "no-store".into()))
    }
}
