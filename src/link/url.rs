//! Where a broker is, parsed once.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::model::Keys;

/// What is spoken below MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `mqtt://`: TCP.
    Mqtt,
    /// `mqtts://`: TLS over TCP.
    Mqtts,
    /// `ws://`: WebSocket over TCP.
    Ws,
    /// `wss://`: WebSocket over TLS over TCP.
    Wss,
}

/// Where a broker is: `mqtts://broker.example.com:8883`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// What is spoken below MQTT.
    pub scheme: Scheme,
    /// A host name or an address; of IPv6 without its brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// Of a WebSocket, what the web server knows the broker by, with what may follow behind a `?`: from `/` on.
    pub path: String,
}

/// One value, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneOrMany<T>(pub Vec<T>);

/// What most brokers' web servers know MQTT by.
const DEFAULT_PATH: &str = "/mqtt";

impl Scheme {
    const ALL: [Scheme; 4] = [Scheme::Mqtt, Scheme::Mqtts, Scheme::Ws, Scheme::Wss];

    /// As it stands before `://`.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Mqtt => "mqtt",
            Scheme::Mqtts => "mqtts",
            Scheme::Ws => "ws",
            Scheme::Wss => "wss",
        }
    }

    /// Whether TLS guards it.
    pub fn is_tls(self) -> bool {
        matches!(self, Scheme::Mqtts | Scheme::Wss)
    }

    /// Whether it is a WebSocket.
    pub fn is_websocket(self) -> bool {
        matches!(self, Scheme::Ws | Scheme::Wss)
    }

    /// The port where the URL names none.
    pub fn default_port(self) -> u16 {
        match self {
            Scheme::Mqtt => 1883,
            Scheme::Mqtts => 8883,
            Scheme::Ws => 80,
            Scheme::Wss => 443,
        }
    }
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The text itself is not repeated where it might hold a password.
        let (scheme, rest) = text.split_once("://").ok_or("expected a URL such as \"mqtts://broker.example.com\"")?;
        let scheme = Scheme::ALL
            .into_iter()
            .find(|known| known.as_str() == scheme.to_ascii_lowercase())
            .ok_or_else(|| format!("`{scheme}://` is not known: expected mqtt://, mqtts://, ws:// or wss://"))?;
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        // Also behind a letter that ends the host: it may be one of a password.
        if rest.split('?').next().unwrap_or_default().contains('@') {
            return Err(
                "a user name and a password do not stand in the URL: use the keys `username` and `password`".to_owned()
            );
        }
        if !path.is_empty() && path != "/" && !scheme.is_websocket() {
            return Err(format!("`{path}`: expected no path behind {}://HOST:PORT", scheme.as_str()));
        }
        let (host, port) = host_and_port(authority, scheme.as_str())?;
        let path = match path {
            _ if !scheme.is_websocket() => String::new(),
            "" => DEFAULT_PATH.to_owned(),
            path if path.starts_with('/') => path.to_owned(),
            path => format!("/{path}"),
        };
        if path.contains('#') || path.contains(|c: char| c.is_control() || c == ' ' || !c.is_ascii()) {
            return Err("expected a path without spaces, `#` and letters beyond ASCII".to_owned());
        }
        Ok(Url { scheme, host, port: port.unwrap_or(scheme.default_port()), path })
    }
}

/// What stands between `://` and the path: a host, of IPv6 without its brackets, and a port where there is one.
pub(super) fn host_and_port(authority: &str, scheme: &str) -> Result<(String, Option<u16>), String> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or("expected a `]` behind the IPv6 address")?;
            if host.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(format!("`{host}` is not an IPv6 address"));
            }
            (host, port.strip_prefix(':').or(if port.is_empty() { None } else { Some(port) }))
        }
        None => match authority.split_once(':') {
            Some((_, more)) if more.contains(':') => {
                return Err(format!("expected an IPv6 address in brackets: {scheme}://[{authority}]"));
            }
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    if host.is_empty() || !host.chars().all(|c| c.is_alphanumeric() || "-._:".contains(c)) {
        return Err(format!("`{host}` is not a host name: expected one such as \"broker.example.com\""));
    }
    let port = match port {
        None => None,
        Some(port) => Some(
            port.parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| format!("`{port}` is not a port: expected a whole number from 1 to 65535"))?,
        ),
    };
    Ok((host.to_owned(), port))
}

impl Url {
    /// All of it, with what may be a token: for the config and for the web server, not to be shown.
    pub(super) fn whole(&self) -> String {
        let Url { scheme, host, port, path } = self;
        format!("{}://{}{path}", scheme.as_str(), at(host, *port))
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is behind a `?` is often a token.
        f.write_str(self.whole().split('?').next().unwrap_or_default())
    }
}

/// `HOST:PORT`, as URLs have it.
pub(super) fn at(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl Serialize for Url {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.whole())
    }
}

impl Url {
    /// Reads one, or a list of them.
    pub(super) fn one_or_many<'a>(keys: &mut Keys<'a>, key: &'a str) -> OneOrMany<Url> {
        let texts = keys.texts(key, "a URL such as \"mqtts://broker.example.com\"").unwrap_or_default();
        let mut urls = Vec::new();
        for (place, text) in texts.iter().enumerate() {
            match text.parse() {
                Ok(url) => urls.push(url),
                Err(fault) if texts.len() == 1 => keys.wrong(key, fault),
                Err(fault) => keys.wrong(&format!("{key}[{place}]"), fault),
            }
        }
        OneOrMany(urls)
    }
}

impl<T: Serialize> Serialize for OneOrMany<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(serializer),
            many => many.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_scheme_host_and_port() {
        for (text, shown) in [
            ("mqtt://broker", "mqtt://broker:1883"),
            ("mqtts://Broker.example.com", "mqtts://Broker.example.com:8883"),
            ("MQTTS://10.0.0.1:8884/", "mqtts://10.0.0.1:8884"),
            ("mqtt://[fd00::1]", "mqtt://[fd00::1]:1883"),
            ("mqtt://[::1]:1884", "mqtt://[::1]:1884"),
            ("ws://broker/ws", "ws://broker:80/ws"),
            ("wss://broker", "wss://broker:443/mqtt"),
            ("wss://broker/", "wss://broker:443/"),
        ] {
            let url: Url = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(url.to_string().parse(), Ok(url), "reads back");
        }
    }

    #[test]
    fn what_may_be_a_token_is_not_shown() {
        let url: Url = "wss://broker/mqtt?token=hunter2".parse().unwrap();
        assert_eq!((url.path.as_str(), url.to_string().as_str()), ("/mqtt?token=hunter2", "wss://broker:443/mqtt"));
        assert_eq!(
            serde_json::to_value(&url).unwrap(),
            "wss://broker:443/mqtt?token=hunter2",
            "the config itself has it"
        );
    }

    #[test]
    fn a_wrong_url_says_what_was_expected() {
        for (text, expected) in [
            ("broker.example.com", "expected a URL such as \"mqtts://broker.example.com\""),
            ("http://broker", "`http://` is not known: expected mqtt://, mqtts://, ws:// or wss://"),
            (
                "mqtt://user:hunter2@broker",
                "a user name and a password do not stand in the URL: use the keys `username` and `password`",
            ),
            (
                "ws://user:hunter2/x@broker",
                "a user name and a password do not stand in the URL: use the keys `username` and `password`",
            ),
            ("mqtts://broker/path", "`/path`: expected no path behind mqtts://HOST:PORT"),
            ("ws://broker/a#b", "expected a path without spaces, `#` and letters beyond ASCII"),
            ("mqtt://broker:0", "`0` is not a port: expected a whole number from 1 to 65535"),
            ("mqtt://broker:mqtt", "`mqtt` is not a port: expected a whole number from 1 to 65535"),
            ("mqtt://fd00::1", "expected an IPv6 address in brackets: mqtt://[fd00::1]"),
            ("mqtt://[broker]", "`broker` is not an IPv6 address"),
            ("mqtt://[::1", "expected a `]` behind the IPv6 address"),
            ("mqtt://", "`` is not a host name: expected one such as \"broker.example.com\""),
            ("mqtt://my broker", "`my broker` is not a host name: expected one such as \"broker.example.com\""),
        ] {
            assert_eq!(text.parse::<Url>(), Err(expected.to_owned()), "{text}");
        }
    }
}
