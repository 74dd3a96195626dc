//! The way out, where a firewall lets nothing through but its proxy: from the config, or from the environment.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::url::{at, host_and_port};
use super::{LinkError, Scheme, Secret, Url};
use crate::model::{Fault, Keys};

/// What is spoken with a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    /// `http://`: CONNECT (RFC 9110, section 9.3.6).
    Http,
    /// `socks5://`: SOCKS 5 (RFC 1928); the proxy resolves names.
    Socks5,
}

/// Where a proxy is: `http://proxy.example.com:3128`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProxyUrl {
    pub(super) speaks: Speaks,
    pub(super) host: String,
    pub(super) port: u16,
}

/// `mqtt.proxy`.
#[derive(Debug, Clone, PartialEq)]
pub enum Proxy {
    /// None, whatever the environment says.
    None,
    /// This one.
    By(By),
}

/// A proxy of the config: `"http://proxy.example.com:3128"`, or a table where it wants to know who comes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct By {
    url: ProxyUrl,
    /// The user name at the proxy; may hold `{id}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    /// The password at the proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<Secret>,
}

/// The proxy of one connection.
#[derive(Clone)]
pub(super) struct Via {
    pub(super) proxy: ProxyUrl,
    pub(super) login: Option<(String, String)>,
    /// Where it is set, for who has to mend it.
    set_by: String,
}

impl Proxy {
    /// Checks what the types can't say.
    pub(super) fn check(&self) -> Vec<Fault> {
        match self {
            Proxy::By(By { username: None, password: Some(_), .. }) => {
                vec![Fault::at("password", "expected a `username` beside it")]
            }
            Proxy::By(By { username: Some(name), .. }) if name.is_empty() || name.len() > 255 || name.contains(':') => {
                vec![Fault::at("username", "expected 1 to 255 bytes without a colon")]
            }
            Proxy::None | Proxy::By(_) => Vec::new(),
        }
    }

    /// Puts the gateway's id where the user name or the password's file has `{id}`.
    pub(super) fn expand(&mut self, id: &str) {
        if let Proxy::By(by) = self {
            by.username.iter_mut().for_each(|name| *name = name.replace("{id}", id));
            by.password.iter_mut().for_each(|secret| secret.expand(id));
        }
    }

    /// Its password.
    pub(super) fn secret(&self) -> Option<&Secret> {
        match self {
            Proxy::By(by) => by.password.as_ref(),
            Proxy::None => None,
        }
    }
}

/// The proxy on the way to this broker: the config's, else the environment's. Reads the password.
///
/// # Errors
/// When the password can't be read, or the environment names no proxy that is known.
pub(super) fn to(url: &Url, configured: Option<&Proxy>) -> Result<Option<Via>, LinkError> {
    let by = match configured {
        Some(Proxy::None) => return Ok(None),
        Some(Proxy::By(by)) => by,
        None => return from_environment(url, |name| std::env::var(name).ok()).map_err(LinkError::Config),
    };
    let password = by.password.as_ref().map(Secret::read).transpose()?;
    let password = password.map(|text| text.reveal().to_owned()).unwrap_or_default();
    let login = by.username.clone().map(|user| (user, password));
    Ok(Some(Via { proxy: by.url.clone(), login, set_by: "mqtt.proxy".to_owned() }))
}

/// As curl reads them: in small letters first, `https_proxy` for what is inside TLS, `http_proxy` for `ws://`,
/// `all_proxy` for the rest, and not what `no_proxy` lists. This machine itself is never behind a proxy.
fn from_environment(url: &Url, variable: impl Fn(&str) -> Option<String>) -> Result<Option<Via>, String> {
    let named = |name: &str| {
        let found = variable(name).map(|value| (name.to_owned(), value));
        let found = found.or_else(|| variable(&name.to_uppercase()).map(|value| (name.to_uppercase(), value)));
        found.filter(|(_, value)| !value.trim().is_empty())
    };
    let own = match url.scheme {
        Scheme::Mqtts | Scheme::Wss => named("https_proxy"),
        Scheme::Ws => named("http_proxy"),
        Scheme::Mqtt => None,
    };
    let Some((name, value)) = own.or_else(|| named("all_proxy")) else { return Ok(None) };
    let excepted = named("no_proxy").is_some_and(|(_, list)| is_listed(&url.host, &list));
    if excepted || is_this_machine(&url.host) {
        return Ok(None);
    }
    let (scheme, rest) = value.trim().split_once("://").unwrap_or(("http", value.trim()));
    let (login, authority) = rest.rsplit_once('@').map_or((None, rest), |(login, rest)| (Some(login), rest));
    // The value itself is not repeated: it may hold a password.
    let proxy = format!("{scheme}://{authority}").parse().map_err(|error| format!("the variable {name}: {error}"))?;
    let login = login.map(|login| {
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        (unescaped(user), unescaped(password))
    });
    Ok(Some(Via { proxy, login, set_by: format!("the variable {name}") }))
}

/// Whether the host is one of a list such as `localhost, .example.com, 10.0.0.7` or `*`.
fn is_listed(host: &str, list: &str) -> bool {
    let host = host.to_ascii_lowercase();
    list.split([',', ' ']).map(|entry| entry.trim().to_ascii_lowercase()).filter(|entry| !entry.is_empty()).any(
        |entry| {
            let name = entry.strip_prefix('.').unwrap_or(&entry);
            entry == "*" || host == name || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'))
        },
    )
}

fn is_this_machine(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// Percent-encoding undone (RFC 3986, section 2.1).
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, more)) = rest.split_first() {
        let code = more.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = code.filter(|_| byte == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(code.unwrap_or(byte));
        rest = if code.is_some() { more.get(2..).unwrap_or_default() } else { more };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl FromStr for ProxyUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str =
            "expected a proxy such as \"http://proxy.example.com:3128\" or \"socks5://10.0.0.1:1080\"";
        let (scheme, rest) = text.split_once("://").ok_or(EXPECTED)?;
        let (speaks, port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (Speaks::Http, 8080),
            "socks5" | "socks5h" => (Speaks::Socks5, 1080),
            other => return Err(format!("`{other}://` is not known: {EXPECTED}")),
        };
        if rest.contains('@') {
            return Err("a user name and a password do not stand in the URL: use the keys `username` and `password` \
                        of a table { url = \"…\", … }"
                .to_owned());
        }
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            return Err(format!("expected nothing behind {scheme}://HOST:PORT"));
        }
        let (host, given) = host_and_port(authority, scheme)?;
        Ok(ProxyUrl { speaks, host, port: given.unwrap_or(port) })
    }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.speaks {
            Speaks::Http => "http",
            Speaks::Socks5 => "socks5",
        };
        write!(f, "{scheme}://{}", at(&self.host, self.port))
    }
}

impl Serialize for ProxyUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Proxy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Proxy::None => serializer.serialize_str("none"),
            Proxy::By(By { url, username: None, .. }) => url.serialize(serializer),
            Proxy::By(by) => by.serialize(serializer),
        }
    }
}

impl Proxy {
    /// Reads `proxy`.
    pub(super) fn read(keys: &mut Keys<'_>) -> Option<Self> {
        if keys.has_table("proxy") {
            return keys.inner("proxy", By::read).map(Proxy::By);
        }
        let expected = "a proxy such as \"http://proxy.example.com:3128\", a table with its url, or \"none\"";
        let text = keys.any("proxy", |value| value.as_str().map(str::to_owned), expected)?;
        if text == "none" {
            return Some(Proxy::None);
        }
        let url = text.parse().map_err(|text: String| keys.wrong("proxy", text)).ok()?;
        Some(Proxy::By(By { url, username: None, password: None }))
    }
}

impl By {
    fn read(table: &toml::Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        keys.needs("url");
        let nowhere = || ProxyUrl { speaks: Speaks::Http, host: String::new(), port: 0 };
        let read = By {
            url: keys.parsed("url", str::parse).unwrap_or_else(nowhere),
            username: keys.string("username"),
            password: Secret::at(&mut keys, "password"),
        };
        keys.end(read)
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the proxy {} (of {})", self.proxy, self.set_by)
    }
}

impl fmt::Debug for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Via").field("proxy", &self.proxy).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The proxy, and the login behind it; empty: none.
    fn found(url: &str, variables: &[(&str, &str)]) -> Result<String, String> {
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let via = from_environment(&url.parse().unwrap(), variable)?;
        Ok(via.map_or_else(String::new, |via| {
            let login = via.login.map(|(user, password)| format!(" {user} {password}")).unwrap_or_default();
            format!("{}{login}", via.proxy)
        }))
    }

    #[test]
    fn the_environment_is_read_as_curl_reads_it() {
        let both =
            [("https_proxy", "http://tls:3128"), ("http_proxy", "http://plain:3128"), ("ALL_PROXY", "socks5h://all")];
        let by = |proxy: &str| Ok(proxy.to_owned());
        for (url, proxy) in [
            ("mqtts://broker", "http://tls:3128"),
            ("wss://broker", "http://tls:3128"),
            ("ws://broker", "http://plain:3128"),
            ("mqtt://broker", "socks5://all:1080"),
        ] {
            assert_eq!(found(url, &both), by(proxy), "{url}");
        }
        assert_eq!(
            found("mqtts://broker", &[("HTTPS_PROXY", "proxy:8888")]),
            by("http://proxy:8888"),
            "without a scheme"
        );
        assert_eq!(found("mqtts://broker", &[("https_proxy", "")]), by(""));
        assert_eq!(found("mqtts://localhost", &both), by(""));
        assert_eq!(found("mqtts://[::1]", &both), by(""));
    }

    #[test]
    fn a_login_of_the_environment_is_unescaped_and_never_shown() {
        assert_eq!(
            found("mqtts://broker", &[("https_proxy", "http://a%40b:p%3aw%@proxy:1/")]),
            Ok("http://proxy:1 a@b p:w%".to_owned())
        );
        let error = found("mqtts://broker", &[("https_proxy", "ftp://user:hunter2@proxy")]).unwrap_err();
        assert!(
            error.starts_with("the variable https_proxy: `ftp://` is not known: expected a proxy such as"),
            "{error}"
        );
    }

    #[test]
    fn no_proxy_excepts_hosts_and_domains() {
        for (list, host, is) in [
            ("*", "broker.example.com", true),
            ("example.com", "broker.example.com", true),
            (".example.com", "Broker.Example.com", true),
            ("le.com", "broker.example.com", false),
            ("10.0.0.1, broker", "broker", true),
            ("10.0.0.1", "110.0.0.1", false),
            ("", "broker", false),
        ] {
            let variables = [("all_proxy", "http://proxy:1"), ("NO_PROXY", list)];
            assert_eq!(found(&format!("mqtt://{host}"), &variables).unwrap().is_empty(), is, "{list} {host}");
        }
    }

    #[test]
    fn a_wrong_proxy_says_what_was_expected() {
        for (text, expected) in [
            ("proxy", "expected a proxy such as \"http://proxy.example.com:3128\" or \"socks5://10.0.0.1:1080\""),
            ("https://proxy", "`https://` is not known: expected a proxy such as"),
            ("http://u:p@proxy", "a user name and a password do not stand in the URL"),
            ("http://proxy/path", "expected nothing behind http://HOST:PORT"),
            ("http://proxy:0", "`0` is not a port"),
        ] {
            let error = text.parse::<ProxyUrl>().unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}
