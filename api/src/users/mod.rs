//! The users endpoints: registration and login.

mod attempts;
mod wire;

use jobs::users::{Credentials, NewUser, Users, token::Tokens};
use poem::{Request, http::StatusCode};
use poem_openapi::OpenApi;

use self::{
    attempts::Attempts,
    wire::{AccessToken, User},
};
use crate::{
    auth,
    context::Context,
    problem::{Failure, Problem, errors},
    tags::Tag,
    validation::Body,
    wire::{Json, responses},
};

/// Failed logins a minute from one network address to one account.
const WRONG_LOGINS: u32 = 10;
/// Registrations a minute of one account from one network address. The limit is higher, since a registration guesses no
/// password.
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
    pub(crate) fn new(Context { app, limits, tokens, .. }: &Context<'_>) -> Self {
        Self {
            users: app.users.clone(),
            tokens: tokens.clone(),
            registrations: Attempts::new(
                limits,
                ["register-pair", "register-address", "register-account"],
                REGISTRATIONS,
            ),
            logins: Attempts::new(limits, ["login-pair", "login-address", "login-account"], WRONG_LOGINS),
        }
    }
}

responses! {
    /// The user is registered and can log in.
    RegisterResponse = 201 Json<User>;

    /// A token for the user.
    LoginResponse = 200 Json<AccessToken> {
        /// `no-store`, since a token is secret.
        "Cache-Control": String,
    };
}

errors! {
    Registering: [400, 408, 409, 413, 415, 422, 429, 503];
    LoggingIn: [400, 401, 408, 413, 415, 422, 429, 503];
}

#[OpenApi(tag = "Tag::Users")]
impl UsersApi {
    /// Register a user
    ///
    /// An e-mail address can be registered once, regardless of case and spelling variants: 409 if it is known. The
    /// limits are 60 registrations a minute from one network address, 30 for one e-mail address, and 20 from one
    /// network address for one e-mail address.
    #[oai(path = "/api/v1/users/register", method = "post", operation_id = "register_user")]
    async fn register(&self, request: &Request, body: Body<NewUser>) -> Result<RegisterResponse, Failure<Registering>> {
        let new = body.read()?;
        self.registrations.count(request, &new.email).await?;
        let Some(user) = self.users.register(new).await? else {
            return Err(Problem::new(StatusCode::CONFLICT, "Email already registered").into());
        };
        tracing::info!(user = user.id.0, "user registered");
        Ok(RegisterResponse::Ok(Json::new(&User::from(user))?))
    }

    /// Log in
    ///
    /// Send the token in the header `Authorization: Bearer …` of further requests. An unknown address and a wrong
    /// password get the same 401 after the same time. The limits are 60 logins a minute from one network address, 30
    /// for one e-mail address, and 10 failed ones from one network address for one e-mail address.
    #[oai(path = "/api/v1/users/login", method = "post", operation_id = "log_in")]
    async fn login(&self, request: &Request, body: Body<Credentials>) -> Result<LoginResponse, Failure<LoggingIn>> {
        let credentials = body.read()?;
        let attempt = self.logins.count(request, &credentials.email).await?;
        let Some(user) = self.users.login(credentials).await.transpose() else {
            return Err(auth::unauthorized("Incorrect email or password").into());
        };
        attempt.refund().await;
        let user = user?;
        let token = AccessToken::new(self.tokens.issue(user.id, user.role)?);
        Ok(LoginResponse::Ok(Json::new(&token)?, "no-store".into()))
    }
}
