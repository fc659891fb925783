//! The login of OpenStack Swift: TempAuth (version 1) and Keystone (version 3), with a new token when one has expired.
//!
//! - Logins are made one at a time: of many requests that meet an expired token, one logs in and the others take its token.
//! - The address of the objects comes from the login, so that it may move.

use std::fmt;
use std::sync::Arc;

use http::{HeaderValue, Request, Uri};
use opendal::{Buffer, Error, ErrorKind, Result};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::remote::http::answer::words;
use crate::remote::http::failure::{refused, unreachable};
use crate::remote::limits::ANSWER_LIMIT;

/// Stands for the address of the objects until the login names it.
pub(crate) const PLACEHOLDER: &str = "http://swift.invalid";

/// Who logs in, and where.
pub(crate) enum Account {
    /// TempAuth: one request with user and key.
    V1 {
        /// Such as `https://host/auth/v1.0`.
        auth_url: String,
        /// Such as `account:user`.
        user: String,
        /// The user's key.
        key: String,
    },
    /// Keystone: a password for a project.
    V3 {
        /// Such as `https://host:5000/v3`.
        auth_url: String,
        /// The user's name.
        user: String,
        /// The domain of the user.
        user_domain: String,
        /// The user's password.
        password: String,
        /// The project's name.
        project: String,
        /// The domain of the project.
        project_domain: String,
        /// Which region's endpoint to take; the first if not given.
        region: Option<String>,
    },
}

/// The login at one place.
pub(crate) struct Login {
    account: Account,
    session: Mutex<Option<Arc<Session>>>,
}

/// What a login gave.
pub(crate) struct Session {
    storage_url: String,
    token: HeaderValue,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").finish_non_exhaustive()
    }
}

impl Login {
    /// Nothing is sent before the first request.
    pub(crate) fn new(account: Account) -> Self {
        Self {
            account,
            session: Mutex::default(),
        }
    }

    /// The present session, or a new one if there is none or the present one is `refused`.
    pub(crate) async fn session(&self, client: &Client, refused: Option<&Arc<Session>>) -> Result<Arc<Session>> {
        let mut present = self.session.lock().await;
        match (&*present, refused) {
            (Some(session), None) => return Ok(Arc::clone(session)),
            (Some(session), Some(refused)) if !Arc::ptr_eq(session, refused) => return Ok(Arc::clone(session)),
            _ => {}
        }
        let fresh = Arc::new(match &self.account {
            Account::V1 { auth_url, user, key } => v1(client, auth_url, user, key).await?,
            Account::V3 { .. } => self.v3(client).await?,
        });
        *present = Some(Arc::clone(&fresh));
        Ok(fresh)
    }

    async fn v3(&self, client: &Client) -> Result<Session> {
        let Account::V3 {
            auth_url,
            user,
            user_domain,
            password,
            project,
            project_domain,
            region,
        } = &self.account
        else {
            return Err(malformed("the account is of another version"));
        };
        let domain = |name: &str| json!({ "name": name });
        let question = json!({ "auth": {
            "identity": {
                "methods": ["password"],
                "password": { "user": { "name": user, "domain": domain(user_domain), "password": password } },
            },
            "scope": { "project": { "name": project, "domain": domain(project_domain) } },
        }});
        let url = format!("{}/auth/tokens", auth_url.trim_end_matches('/'));
        let answer = client
            .post(url)
            .json(&question)
            .timeout(ANSWER_LIMIT)
            .send()
            .await
            .map_err(unreachable)?;
        if !answer.status().is_success() {
            return Err(refused(answer).await);
        }
        let token = header(&answer, "x-subject-token")?;
        let answer: Value = serde_json::from_slice(&words(answer).await?)
            .map_err(|_| malformed("the answer to the login is no JSON"))?;
        let storage_url = storage_url(&answer, region.as_deref())
            .ok_or_else(|| malformed("the catalogue of the login has no object store for the region"))?;
        Ok(Session { storage_url, token })
    }
}

async fn v1(client: &Client, auth_url: &str, user: &str, key: &str) -> Result<Session> {
    let question = client
        .get(auth_url)
        .header("x-auth-user", user)
        .header("x-auth-key", key)
        .timeout(ANSWER_LIMIT);
    let answer = question.send().await.map_err(unreachable)?;
    if !answer.status().is_success() {
        return Err(refused(answer).await);
    }
    let storage_url = header(&answer, "x-storage-url")?
        .to_str()
        .map_err(|_| malformed("the address in the answer to the login is no text"))?
        .trim_end_matches('/')
        .to_string();
    let token = header(&answer, "x-auth-token")?;
    Ok(Session { storage_url, token })
}

fn header(answer: &reqwest::Response, name: &'static str) -> Result<HeaderValue> {
    let missing = || malformed("the answer to the login has no token or address; is this the address of a login?");
    let mut value = answer.headers().get(name).cloned().ok_or_else(missing)?;
    value.set_sensitive(true);
    Ok(value)
}

/// The public address of the object store in a Keystone catalogue.
fn storage_url(answer: &Value, region: Option<&str>) -> Option<String> {
    let services = answer.get("token")?.get("catalog")?.as_array()?;
    let is = |value: &Value, key: &str, text: &str| value.get(key).and_then(Value::as_str) == Some(text);
    services
        .iter()
        .filter(|service| is(service, "type", "object-store"))
        .filter_map(|service| service.get("endpoints")?.as_array())
        .flatten()
        .filter(|endpoint| is(endpoint, "interface", "public"))
        .find(|endpoint| region.is_none_or(|region| is(endpoint, "region", region)))
        .and_then(|endpoint| Some(endpoint.get("url")?.as_str()?.trim_end_matches('/').to_string()))
}

fn malformed(what: &'static str) -> Error {
    Error::new(ErrorKind::Unexpected, what)
}

impl Session {
    /// The request, sent to this session's address with its token.
    pub(crate) fn address(&self, mut request: Request<Buffer>) -> Result<Request<Buffer>> {
        let path = request.uri().path_and_query().map_or("", |path| path.as_str());
        let uri: Uri = format!("{}{path}", self.storage_url)
            .parse()
            .map_err(|_| malformed("the login gave no usable address"))?;
        *request.uri_mut() = uri;
        request.headers_mut().insert("x-auth-token", self.token.clone());
        Ok(request)
    }
}
