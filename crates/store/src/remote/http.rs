//! Places that speak HTTP: how each service is set up, its options and credentials, and what it promises.
//!
//! - Credentials come from the lookup that the caller gave, never from the environment or files.

mod answer;
mod failure;
mod service;
mod store;
mod swift;
mod transport;

use std::sync::Arc;

use opendal::{HttpTransporter, Operator, OperatorUri, services};

use self::service::{OTHER, S3, SWIFT, Service, WEBDAV};
use self::store::Remote;
use self::swift::{Account, Login, PLACEHOLDER};
use self::transport::Transport;
use crate::options::OpenOptions;
use crate::remote::store::RemoteStore;
use crate::remote::url::PlaceUrl;
use crate::{Error, Result};

/// Before the scheme of a service that is passed on to OpenDAL as it is.
const OPENDAL: &str = "opendal+";
/// What a URL means whose scheme, before the rest of it, is one of [`super::SCHEMES`].
pub(crate) fn place(
    url: &str,
    (scheme, rest): (&str, &str),
    options: &OpenOptions<'_>,
) -> Result<Arc<dyn RemoteStore>> {
    let remote = match scheme {
        "s3" => s3(url, options)?,
        "swift" => swift(url, options)?,
        "webdav" => webdav(url, "http", options)?,
        "webdavs" => webdav(url, "https", options)?,
        service => other(url, service.trim_start_matches(OPENDAL), rest, options)?,
    };
    Ok(Arc::new(remote))
}

/// The store of an operator that is built and can reach its server.
fn remote(
    (url, base): (&PlaceUrl, String),
    service: Service,
    operator: opendal::Result<Operator>,
    login: Option<Login>,
    options: &OpenOptions<'_>,
) -> Result<Remote> {
    let operator = operator.map_err(|error| Error::Io {
        name: "its options".to_string(),
        place: url.text.clone(),
        during: "reading",
        source: std::io::Error::other(error.message().to_string()),
    })?;
    let transport = Transport::new(login).map_err(|error| Error::Io {
        name: "encrypted connections".to_string(),
        place: url.text.clone(),
        during: "preparing",
        source: std::io::Error::other(error),
    })?;
    let context = operator
        .context()
        .clone()
        .with_http_transport(HttpTransporter::new(transport));
    let operator = operator.with_context(context);
    Ok(Remote::new(
        operator,
        service,
        url.text.clone(),
        base,
        options.retry.seed,
    ))
}

/// A credential that must be there.
fn need(url: &PlaceUrl, value: Option<String>, advice: &'static str) -> Result<String> {
    value.filter(|value| !value.is_empty()).ok_or_else(|| Error::Denied {
        name: "its credentials".to_string(),
        place: url.text.clone(),
        during: "looking for",
        advice,
    })
}

fn s3(url: &str, options: &OpenOptions<'_>) -> Result<Remote> {
    let url = PlaceUrl::parse(url, &["endpoint", "region"])?;
    url.need_host("an S3 URL has the form s3://bucket/prefix")?;
    url.need_no_user_or_port()?;
    let find = options.credentials;
    let advice = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
    let region = url
        .option("region")
        .or_else(|| find("AWS_REGION"))
        .or_else(|| find("AWS_DEFAULT_REGION"))
        .unwrap_or_else(|| "us-east-1".to_string());
    let mut service = services::S3::default()
        .bucket(&url.host)
        .region(&region)
        .access_key_id(&need(&url, find("AWS_ACCESS_KEY_ID"), advice)?)
        .secret_access_key(&need(&url, find("AWS_SECRET_ACCESS_KEY"), advice)?)
        .disable_config_load()
        .disable_ec2_metadata();
    if let Some(token) = find("AWS_SESSION_TOKEN") {
        service = service.session_token(&token);
    }
    if let Some(endpoint) = url.option("endpoint").or_else(|| find("AWS_ENDPOINT_URL")) {
        service = service.endpoint(&endpoint);
    }
    remote((&url, url.base()), S3, Operator::new(service), None, options)
}

fn swift(url: &str, options: &OpenOptions<'_>) -> Result<Remote> {
    let url = PlaceUrl::parse(url, &["endpoint", "region"])?;
    url.need_host("a Swift URL has the form swift://container/prefix")?;
    url.need_no_user_or_port()?;
    let account = account(&url, options.credentials)?;
    let service = services::Swift::default().endpoint(PLACEHOLDER).container(&url.host);
    let login = Some(Login::new(account));
    remote((&url, url.base()), SWIFT, Operator::new(service), login, options)
}

/// Keystone if the address of the login says version 3, or if only its variables are set; else TempAuth.
fn account(url: &PlaceUrl, find: &dyn Fn(&str) -> Option<String>) -> Result<Account> {
    let endpoint = url
        .option("endpoint")
        .or_else(|| find("ST_AUTH"))
        .or_else(|| find("OS_AUTH_URL"));
    let auth_url = need(
        url,
        endpoint,
        "set ST_AUTH or OS_AUTH_URL, or write `?endpoint=` and the address of the login",
    )?;
    if !auth_url.trim_end_matches('/').ends_with("/v3") {
        let advice = "set ST_USER and ST_KEY (an address of Keystone ends with /v3)";
        let (user, key) = (need(url, find("ST_USER"), advice)?, need(url, find("ST_KEY"), advice)?);
        return Ok(Account::V1 { auth_url, user, key });
    }
    let advice = "set OS_USERNAME, OS_PASSWORD and OS_PROJECT_NAME";
    let domain = |name| {
        find(name)
            .or_else(|| find("OS_DOMAIN_NAME"))
            .unwrap_or_else(|| "Default".to_string())
    };
    Ok(Account::V3 {
        auth_url,
        user: need(url, find("OS_USERNAME"), advice)?,
        user_domain: domain("OS_USER_DOMAIN_NAME"),
        password: need(url, find("OS_PASSWORD"), advice)?,
        project: need(url, find("OS_PROJECT_NAME"), advice)?,
        project_domain: domain("OS_PROJECT_DOMAIN_NAME"),
        region: url.option("region").or_else(|| find("OS_REGION_NAME")),
    })
}

fn webdav(url: &str, protocol: &str, options: &OpenOptions<'_>) -> Result<Remote> {
    let url = PlaceUrl::parse(url, &[])?;
    url.need_host("a WebDAV URL has the form webdav://host:port/path")?;
    let port = url.port.map_or_else(String::new, |port| format!(":{port}"));
    let mut service = services::Webdav::default()
        .endpoint(&format!("{protocol}://{}{port}", url.host))
        // Directories are made here, when it is sure that the place itself is there.
        .disable_create_dir(true);
    let find = options.credentials;
    if let Some(user) = url.user.clone().or_else(|| find("DRYSTONE_WEBDAV_USER")) {
        let password = find("DRYSTONE_WEBDAV_PASSWORD").unwrap_or_default();
        service = service.username(&user).password(&password);
    }
    remote((&url, url.base()), WEBDAV, Operator::new(service), None, options)
}

/// A service that OpenDAL sets up by itself; an option `$NAME` is the credential NAME.
fn other(url: &str, service: &str, rest: &str, options: &OpenOptions<'_>) -> Result<Remote> {
    let place = PlaceUrl::parse_open(url)?;
    let mut given = Vec::new();
    for (option, value) in place.options() {
        let value = match value.strip_prefix('$') {
            None => value.clone(),
            Some(name) => (options.credentials)(name).ok_or_else(|| Error::Denied {
                name: format!("the variable {name}"),
                place: place.text.clone(),
                during: "looking for",
                advice: "set it, since an option of the URL names it",
            })?,
        };
        given.push((option.clone(), value));
    }
    opendal::init_default_registry();
    let start = rest.split_once('?').map_or(rest, |(start, _)| start);
    let operator = OperatorUri::new(&format!("{service}://{start}"), given).and_then(Operator::from_uri);
    remote((&place, String::new()), OTHER, operator, None, options)
}
