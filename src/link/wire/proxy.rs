//! Through a proxy: asks it for the way to the broker, on a connection to it.

use std::io;

use base64ct::{Base64, Encoding};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_socks::tcp::Socks5Stream;

use super::{WireError, http};
use crate::link::Url;
use crate::link::proxy::{Speaks, Via};
use crate::link::url::at;

/// Asks the proxy for a connection to the broker.
pub(super) async fn through(via: &Via, stream: TcpStream, url: &Url) -> Result<TcpStream, WireError> {
    let result = match via.proxy.speaks {
        Speaks::Http => connect(via, stream, url).await,
        Speaks::Socks5 => socks(via, stream, url).await,
    };
    result.map_err(|why| WireError::Connect(format!("{via} {why}")))
}

/// CONNECT (RFC 9110, section 9.3.6).
async fn connect(via: &Via, mut stream: TcpStream, url: &Url) -> Result<TcpStream, String> {
    let target = at(&url.host, url.port);
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some((user, password)) = &via.login {
        // RFC 7617.
        let login = Base64::encode_string(format!("{user}:{password}").as_bytes());
        request += &format!("Proxy-Authorization: Basic {login}\r\n");
    }
    request += "\r\n";
    let broken = |error: io::Error| format!("ended the connection: {error}");
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    let status = status(&http::head(&mut stream).await.map_err(broken)?)?;
    match status {
        200..=299 => Ok(stream),
        // tinyproxy says 401.
        401 | 407 if via.login.is_some() => Err("does not accept this user name and password".to_owned()),
        401 | 407 => Err("wants to know who comes: set a user name and a password (mqtt.proxy)".to_owned()),
        403 | 405 => Err(format!("does not let us to {target} ({status}): its rules have to allow this port")),
        502..=504 => Err(format!("can't reach {target} ({status})")),
        other => Err(format!("answered {other} when it was asked for {target}")),
    }
}

/// The status of an answer.
fn status(answer: &[u8]) -> Result<u16, String> {
    let mut fields = [httparse::EMPTY_HEADER; http::MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(answer) {
        Ok(httparse::Status::Complete(_)) => response.code.ok_or_else(|| "answered without a status".to_owned()),
        Ok(httparse::Status::Partial) | Err(_) => {
            Err("does not speak HTTP: is it one for SOCKS (socks5://)?".to_owned())
        }
    }
}

/// CONNECT of SOCKS 5 (RFC 1928), with a user name and a password where they are known (RFC 1929).
async fn socks(via: &Via, stream: TcpStream, url: &Url) -> Result<TcpStream, String> {
    use tokio_socks::Error;
    let target = (url.host.as_str(), url.port);
    let connected = match &via.login {
        Some((user, password)) => Socks5Stream::connect_with_password_and_socket(stream, target, user, password).await,
        None => Socks5Stream::connect_with_socket(stream, target).await,
    };
    let wanted = at(&url.host, url.port);
    connected.map(Socks5Stream::into_inner).map_err(|error| match error {
        Error::PasswordAuthFailure(_) => "does not accept this user name and password".to_owned(),
        Error::InvalidAuthValues(_) => {
            "takes a user name and a password of 1 to 255 bytes each: both have to be set".to_owned()
        }
        Error::NoAcceptableAuthMethods if via.login.is_none() => {
            "wants to know who comes: set a user name and a password (mqtt.proxy)".to_owned()
        }
        Error::ConnectionNotAllowedByRuleset => format!("does not let us to {wanted}: its rules have to allow it"),
        Error::InvalidResponseVersion => "does not speak SOCKS 5: is it one for HTTP (http://)?".to_owned(),
        Error::Io(error) => format!("ended the connection: {error}"),
        other => format!("can't reach {wanted}: {other}"),
    })
}
