//! The users endpoints: registration and login.

mod attempts;
mod view;

use jobs::users::{Credentials, NewUser, Users, token::Tokens};
use poem::{Request, http::StatusCode};
use poem_openapi::{ApiResponse, OpenApi};

use self::{
    attempts::Attempts,
    view::{AccessToken, User},
};
use crate::{
    auth,
    problem::{ErrorStatuses, Failure, Problem},
    rate_limit::Limits,
    tags::Tag,
    validation::Body,
    wire::Json,
};

/// How many wrong logins one address may try at one account in a minute.
const WRONG_LOGINS: u32 = 10;
/// How many registrations of one account one address may try in a minute; none of them is a guess.
const REGISTRATIONS: u32 = 20;

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
            registrations: Attempts::new(
                limits,
                ["register-pair", "register-address", "register-account"],
                REGISTRATIONS,
            ),
            logins: Attempts::new(limits, ["login-pair", "login-address", "login-account"], WRONG_LOGINS),
        }
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

impl ErrorStatuses for Registering {
    const ALL: &'static [u16] = &[400, 408, 409, 413, 415, 422, 429, 503];
}

#[derive(Debug)]
struct LoggingIn;

impl ErrorStatuses for LoggingIn {
    const ALL: &'static [u16] = &[400, 401, 408, 413, 415, 422, 429, 503];
}

#[OpenApi(tag = "Tag::Users")]
impl UsersApi {
    /// Register a user
    ///
    /// An e-mail address is registered once, however it is written: 409 for one that is known. At most 60
    /// registrations a minute are taken from one network address, 30 for one e-mail address, and 20 from one network
    /// address for one e-mail address.
    #[oai(path = "/api/v1/users/register", method = "post", operation_id = "register_user")]
    async fn register(&self, request: &Request, body: Body<NewUser>) -> Result<Registered, Failure<Registering>> {
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
    /// address, 30 for one e-mail address, and 10 wrong ones from one network address for one e-mail address.
    #[oai(path = "/api/v1/users/login", method = "post", operation_id = "log_in")]
    async fn login(&self, request: &Request, body: Body<Credentials>) -> Result<LoggedIn, Failure<LoggingIn>> {
        let credentials = body.read()?;
        let attempt = self.logins.count(request, &credentials.email).await?;
        let user = match self.users.login(credentials).await {
            Ok(None) => return Err(auth::unauthorized("Incorrect email or password").into()),
            Ok(Some(user)) => Ok(user),
            Err(failed) => Err(failed),
        };
        attempt.take_back().await;
        let user = user?;
        let token = AccessToken::new(self.tokens.issue(user.id, user.role)?);
        Ok(LoggedIn::Ok(Json::new(&token)?, "no-store".into()))
    }
}
