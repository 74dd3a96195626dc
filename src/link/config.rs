//! The table `[mqtt]`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use toml::Table;

use super::{LinkError, OneOrMany, Proxy, Secret, Url};
use crate::model::{Fault, Keys, Span};

/// The longest topic root: with device, point and a suffix behind it, it stays far below every broker's topic limit.
const MAX_ROOT: usize = 200;

/// What every broker takes as a client id.
const MAX_CLIENT_ID: usize = 128;

/// rumqttc panics below, in MQTT 5; a shorter one would only load the line.
const MIN_KEEP_ALIVE: Span = Span::secs(5);

/// A dead link is noticed after 1.5 of these: later than that helps nobody.
const MAX_KEEP_ALIVE: Span = Span::secs(3600);

/// How the gateway reaches its broker.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Config {
    /// Where the broker is; of a list each is tried in order.
    pub url: OneOrMany<Url>,
    /// The version of MQTT (3.1.1).
    pub version: Version,
    /// What all topics begin with; `{id}` is the gateway's id (`sluicegate/{id}`).
    pub root: String,
    /// Where the readings, commands and outcomes of points are, to fit into a tree of topics that is there already:
    /// `{device}` and `{point}` are a level each, `{id}` or `{gateway}` is the gateway's id (the root, then
    /// `{device}/{point}`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// The name of the session at the broker, 1 to 128 bytes; no two clients may share one (`{id}`).
    pub client_id: String,
    /// How often a silent link is tried, in whole seconds from 5 s to 1 h (30 s).
    pub keep_alive: Span,
    /// What name resolution, TCP, TLS and the broker's answer may take together, 1 s to 5 min (20 s: a TLS handshake on
    /// an i.MX6 over a slow radio link).
    pub connect_timeout: Span,
    /// Publishes in flight, 1 to 1000 (64).
    pub window: u16,
    /// The user name at the broker; may hold `{id}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The password at the broker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// Who is trusted, and who the gateway is, on an mqtts:// or wss:// link. Without it: the system's roots, no client
    /// certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// What the web server before the broker wants to hear, on a ws:// or wss:// link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub websocket: Option<WebSocket>,
    /// The way out, where there is none but by a proxy. Without it: as the environment says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
}

/// The version of MQTT.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub enum Version {
    /// MQTT 3.1.1.
    #[default]
    #[serde(rename = "3.1.1")]
    V3,
    /// MQTT 5.
    #[serde(rename = "5")]
    V5,
}

/// TLS. There is no key to skip verification, and there will be none.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Tls {
    /// PEM file of the authorities that are trusted, instead of the system's roots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// PEM file of the client certificate, with its chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// The key of the client certificate: PEM, as PKCS#8, PKCS#1 or SEC1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Secret>,
    /// The name that the broker's certificate must carry; default: the host of the URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// What is offered in ALPN (RFC 7301), where one port serves several protocols: `mqtt`, `x-amzn-mqtt-ca`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alpn: Vec<String>,
}

/// WebSocket (RFC 6455), with the subprotocol `mqtt`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct WebSocket {
    /// Header fields of the request, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Header>,
}

/// The value of a header field.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Header {
    /// Everybody may know it.
    Text(String),
    /// Nobody may.
    Secret(Secret),
}

/// Puts the gateway's id where a path has `{id}`.
pub(super) fn expand_path(path: &Path, id: &str) -> PathBuf {
    path.to_str().map_or_else(|| path.to_owned(), |text| text.replace("{id}", id).into())
}

impl Config {
    /// Its keys.
    pub const KEYS: &[&str] = &[
        "url",
        "version",
        "root",
        "topic",
        "client_id",
        "keep_alive",
        "connect_timeout",
        "window",
        "username",
        "password",
        "tls",
        "websocket",
        "proxy",
    ];

    /// Reads them.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn read(table: &Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        keys.needs("url");
        let read = Config {
            url: Url::one_or_many(&mut keys, "url"),
            version: keys.one_of("version", &[("3.1.1", Version::V3), ("5", Version::V5)]).unwrap_or_default(),
            root: keys.text("root").unwrap_or("sluicegate/{id}").to_owned(),
            topic: keys.string("topic"),
            client_id: keys.text("client_id").unwrap_or("{id}").to_owned(),
            keep_alive: keys.time("keep_alive").unwrap_or(Span::secs(30)),
            connect_timeout: keys.time("connect_timeout").unwrap_or(Span::secs(20)),
            window: keys.small("window", 1, 1000).unwrap_or(64),
            username: keys.string("username"),
            password: Secret::at(&mut keys, "password"),
            tls: keys.inner("tls", Tls::read),
            websocket: keys.inner("websocket", WebSocket::read),
            proxy: Proxy::read(&mut keys),
        };
        keys.end(read)
    }

    /// Puts the gateway's id where texts and paths have `{id}`.
    pub fn expand(&mut self, id: &str) {
        for text in [&mut self.root, &mut self.client_id].into_iter().chain(&mut self.username) {
            *text = text.replace("{id}", id);
        }
        self.topic.iter_mut().for_each(|topic| *topic = topic.replace("{id}", id).replace("{gateway}", id));
        if let Some(tls) = &mut self.tls {
            for path in [&mut tls.ca, &mut tls.cert].into_iter().flatten() {
                *path = expand_path(path, id);
            }
        }
        let key = self.tls.as_mut().and_then(|tls| tls.key.as_mut());
        self.password.iter_mut().chain(key).for_each(|secret| secret.expand(id));
        for header in self.websocket.iter_mut().flat_map(|websocket| websocket.headers.values_mut()) {
            match header {
                Header::Text(text) => *text = text.replace("{id}", id),
                Header::Secret(secret) => secret.expand(id),
            }
        }
        self.proxy.iter_mut().for_each(|proxy| proxy.expand(id));
    }

    /// All secrets that it names.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &Secret> {
        let key = self.tls.as_ref().and_then(|tls| tls.key.as_ref());
        let headers = self.websocket.iter().flat_map(|websocket| websocket.headers.values());
        let headers = headers.filter_map(|header| match header {
            Header::Secret(secret) => Some(secret),
            Header::Text(_) => None,
        });
        self.password.iter().chain(key).chain(headers).chain(self.proxy.as_ref().and_then(Proxy::secret))
    }

    /// The header fields of a request to this URL, with their values; none where it is no WebSocket.
    pub(super) fn headers(&self, url: &Url) -> Result<Vec<(String, String)>, LinkError> {
        let read = |(name, header): (&String, &Header)| {
            let value = match header {
                Header::Text(text) => text.clone(),
                Header::Secret(secret) => secret.read()?.reveal().to_owned(),
            };
            Ok((name.clone(), value))
        };
        let websocket = self.websocket.as_ref().filter(|_| url.scheme.is_websocket());
        websocket.into_iter().flat_map(|websocket| &websocket.headers).map(read).collect()
    }

    /// Checks what the types can't say. Call [`Config::expand`] before.
    pub fn check(&self) -> Vec<Fault> {
        let mut faults = self.check_urls();
        let mut wrong = |path: &str, text: String| faults.push(Fault::at(path, text));
        if let Some(text) = root_fault(&self.root) {
            wrong("root", text);
        }
        if let Some(text) = self.topic.as_deref().and_then(template_fault) {
            wrong("topic", text);
        }
        if !(1..=MAX_CLIENT_ID).contains(&self.client_id.len()) || self.client_id.contains(char::is_control) {
            wrong("client_id", "expected 1 to 128 bytes without control characters".to_owned());
        }
        let keep_alive = self.keep_alive;
        if !(MIN_KEEP_ALIVE..=MAX_KEEP_ALIVE).contains(&keep_alive) || keep_alive.0.subsec_nanos() != 0 {
            wrong("keep_alive", format!("`{keep_alive}`: expected whole seconds from \"5s\" to \"1h\""));
        }
        let timeout = self.connect_timeout;
        if !(Duration::from_secs(1)..=Duration::from_secs(300)).contains(&timeout.0) {
            wrong("connect_timeout", format!("`{timeout}`: expected a duration from \"1s\" to \"5m\""));
        }
        match &self.username {
            Some(name) if name.is_empty() || name.len() > usize::from(u16::MAX) || name.contains('\0') => {
                wrong("username", "expected 1 to 65535 bytes without NUL".to_owned());
            }
            None if self.password.is_some() => wrong("password", "expected a `username` beside it".to_owned()),
            _ => {}
        }
        if let Some(tls) = &self.tls {
            faults.extend(tls.check().into_iter().map(|fault| fault.under(&["tls"])));
        }
        if let Some(websocket) = &self.websocket {
            faults.extend(websocket.check().into_iter().map(|fault| fault.under(&["websocket"])));
        }
        if let Some(proxy) = &self.proxy {
            faults.extend(proxy.check().into_iter().map(|fault| fault.under(&["proxy"])));
        }
        faults
    }

    fn check_urls(&self) -> Vec<Fault> {
        let urls = &self.url.0;
        if urls.is_empty() {
            return vec![Fault::at("url", "expected at least one URL such as \"mqtts://broker.example.com\"")];
        }
        let mut faults = Vec::new();
        let path = |index: usize| if urls.len() == 1 { "url".to_owned() } else { format!("url[{index}]") };
        let guarded = urls.iter().any(|url| url.scheme.is_tls());
        let open = urls.iter().position(|url| !url.scheme.is_tls());
        match open {
            // Who cuts the guarded link must not get the open one instead.
            Some(index) if guarded => faults.push(Fault::at(
                &path(index),
                "a list with and without TLS would fall back to plain text: expected mqtts:// or wss:// in all, or in none",
            )),
            Some(_) if self.tls.is_some() => {
                faults.push(Fault::at("tls", "needs TLS in the URL: expected url = \"mqtts://…\""));
            }
            _ => {}
        }
        if self.websocket.is_some() && !urls.iter().any(|url| url.scheme.is_websocket()) {
            faults.push(Fault::at("websocket", "needs a WebSocket in the URL: expected url = \"wss://…\""));
        }
        faults
    }
}

impl WebSocket {
    fn read(table: &Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        let headers = keys.inner("headers", |table| {
            let mut keys = Keys::of(table);
            let headers =
                table.keys().filter_map(|name| Some((name.clone(), Header::read(&mut keys, name)?))).collect();
            keys.end(headers)
        });
        keys.end(WebSocket { headers: headers.unwrap_or_default() })
    }

    fn check(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (name, value) in &self.headers {
            let mut wrong = |text: &str| faults.push(Fault::at(&format!("headers.{name}"), text));
            // RFC 9110, section 5.6.2.
            let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
            if name.is_empty() || !name.chars().all(is_token) {
                wrong("is no name of a header field: expected letters, digits and dashes");
            }
            if ["host", "connection", "upgrade"].contains(&name.to_ascii_lowercase().as_str())
                || name.to_ascii_lowercase().starts_with("sec-websocket-")
            {
                wrong("is the gateway's own: expected a header field that WebSocket itself does not use");
            }
            if matches!(value, Header::Text(text) if text.chars().any(char::is_control)) {
                wrong("expected a text of one line");
            }
        }
        faults
    }
}

impl Header {
    fn read<'a>(keys: &mut Keys<'a>, name: &'a str) -> Option<Self> {
        if keys.has_table(name) {
            return Secret::at(keys, name).map(Header::Secret);
        }
        let expected = "a text, or { file = \"…\" }, { env = \"…\" } or { credential = \"…\" }";
        keys.any(name, |value| value.as_str().map(|text| Header::Text(text.to_owned())), expected)
    }
}

impl Tls {
    /// Its keys.
    pub const KEYS: &[&str] = &["ca", "cert", "key", "server_name", "alpn"];

    fn read(table: &Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        let alpn = keys.texts("alpn", "a name such as \"mqtt\"").unwrap_or_default();
        let read = Tls {
            ca: keys.string("ca").map(PathBuf::from),
            cert: keys.string("cert").map(PathBuf::from),
            key: Secret::at(&mut keys, "key"),
            server_name: keys.string("server_name"),
            alpn: alpn.into_iter().map(str::to_owned).collect(),
        };
        keys.end(read)
    }

    fn check(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        // RFC 7301, section 3.1.
        if self.alpn.iter().any(|name| !(1..=255).contains(&name.len())) {
            faults.push(Fault::at("alpn", "expected names of 1 to 255 bytes, such as \"mqtt\""));
        }
        match (&self.cert, &self.key) {
            (Some(_), None) => faults.push(Fault::at("cert", "expected a `key` beside it")),
            (None, Some(_)) => faults.push(Fault::at("key", "expected a `cert` beside it")),
            _ => {}
        }
        for (key, path) in [("ca", &self.ca), ("cert", &self.cert)] {
            if path.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
                faults.push(Fault::at(key, "expected the path of a PEM file"));
            }
        }
        let usual = |name: &str| {
            !name.is_empty()
                && name.len() <= 253
                && name.chars().all(|c| c.is_ascii_alphanumeric() || "-._:".contains(c))
        };
        if let Some(name) = self.server_name.as_ref().filter(|name| !usual(name)) {
            let text = format!("`{name}` is not a host name: expected one such as \"broker.example.com\"");
            faults.push(Fault::at("server_name", text));
        }
        faults
    }
}

fn template_fault(template: &str) -> Option<String> {
    let names = ["{device}", "{point}"];
    let is_level = |name: &&str| template.split('/').filter(|level| level == name).count() == 1;
    if !names.iter().all(is_level) {
        return Some(format!(
            "`{}`: expected `{{device}}` and `{{point}}` once each, as a level of their own",
            template.escape_debug()
        ));
    }
    // Otherwise it is as a root.
    let words: Vec<&str> = template.split('/').map(|level| if names.contains(&level) { "x" } else { level }).collect();
    topic_fault(&words.join("/"), "expected no braces but in `{device}`, `{point}`, `{id}` and `{gateway}`")
        .map(|problem| format!("`{}`: {problem}", template.escape_debug()))
}

fn root_fault(root: &str) -> Option<String> {
    topic_fault(root, "expected no braces but in `{id}`").map(|problem| format!("`{}`: {problem}", root.escape_debug()))
}

/// What is wrong with the beginning of a topic.
fn topic_fault(root: &str, braces: &'static str) -> Option<&'static str> {
    let problem = if root.is_empty() || root.len() > MAX_ROOT {
        "expected 1 to 200 bytes"
    } else if root.contains(['+', '#']) {
        "expected no wildcard (`+`, `#`)"
    } else if root.contains(char::is_control) {
        "expected no control characters"
    } else if root.starts_with('$') {
        "expected no `$` at its beginning: such topics are the broker's own"
    } else if root.split('/').any(str::is_empty) {
        "expected no `/` at its ends and no empty level"
    } else if root.contains(['{', '}']) {
        braces
    } else {
        return None;
    };
    Some(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let mut config = Config::read(&text.parse().unwrap()).unwrap();
        config.expand("pump-house-7");
        config
    }

    #[test]
    fn the_id_stands_where_the_config_has_it() {
        let config = config(
            "url = \"mqtts://broker\"\nusername = \"{id}@plant\"\npassword = { file = \"/etc/{id}/password\" }\n\
             tls = { ca = \"/etc/{id}/ca.pem\", cert = \"/etc/{id}/cert.pem\", key = { file = \"/etc/{id}/key.pem\" } }",
        );
        assert_eq!(config.check(), []);
        assert_eq!(config.root, "sluicegate/pump-house-7");
        assert_eq!(config.client_id, "pump-house-7");
        assert_eq!(config.username.as_deref(), Some("pump-house-7@plant"));
        assert_eq!(config.password, Some(Secret::File("/etc/pump-house-7/password".into())));
        let tls = config.tls.unwrap();
        assert_eq!(tls.ca, Some("/etc/pump-house-7/ca.pem".into()));
        assert_eq!(tls.cert, Some("/etc/pump-house-7/cert.pem".into()));
        assert_eq!(tls.key, Some(Secret::File("/etc/pump-house-7/key.pem".into())));
    }

    #[test]
    fn only_the_url_must_be_said() {
        let config = config("url = [\"mqtt://a\", \"mqtt://b\"]");
        assert_eq!(config.check(), []);
        assert_eq!((config.version, config.window), (Version::V3, 64));
        assert_eq!((config.keep_alive, config.connect_timeout), (Span::secs(30), Span::secs(20)));
    }

    #[test]
    fn what_can_not_work_is_a_fault() {
        let wildcard = "`a/+`: expected no wildcard (`+`, `#`)";
        let mixed =
            "a list with and without TLS would fall back to plain text: expected mqtts:// or wss:// in all, or in none";
        for (text, path, expected) in [
            ("root = \"a/+\"", "root", wildcard),
            (
                "root = \"$SYS/a\"",
                "root",
                "`$SYS/a`: expected no `$` at its beginning: such topics are the broker's own",
            ),
            ("root = \"/a\"", "root", "`/a`: expected no `/` at its ends and no empty level"),
            ("root = \"a//b\"", "root", "`a//b`: expected no `/` at its ends and no empty level"),
            ("root = \"a\\u0000\"", "root", "`a\\0`: expected no control characters"),
            ("root = \"{site}/a\"", "root", "`{site}/a`: expected no braces but in `{id}`"),
            ("root = \"\"", "root", "``: expected 1 to 200 bytes"),
            (
                "topic = \"plant/{device}\"",
                "topic",
                "`plant/{device}`: expected `{device}` and `{point}` once each, as a level of their own",
            ),
            (
                "topic = \"plant/{device}-{point}/{point}\"",
                "topic",
                "`plant/{device}-{point}/{point}`: expected `{device}` and `{point}` once each, as a level of their own",
            ),
            (
                "topic = \"plant/+/{device}/{point}\"",
                "topic",
                "`plant/+/{device}/{point}`: expected no wildcard (`+`, `#`)",
            ),
            (
                "topic = \"{site}/{device}/{point}\"",
                "topic",
                "`{site}/{device}/{point}`: expected no braces but in `{device}`, `{point}`, `{id}` and `{gateway}`",
            ),
            ("client_id = \"\"", "client_id", "expected 1 to 128 bytes without control characters"),
            ("keep_alive = \"0s\"", "keep_alive", "`0s`: expected whole seconds from \"5s\" to \"1h\""),
            ("keep_alive = \"5500ms\"", "keep_alive", "`5s 500ms`: expected whole seconds from \"5s\" to \"1h\""),
            ("connect_timeout = \"1h\"", "connect_timeout", "`1h`: expected a duration from \"1s\" to \"5m\""),
            ("password = { env = \"P\" }", "password", "expected a `username` beside it"),
            ("username = \"\"", "username", "expected 1 to 65535 bytes without NUL"),
            ("tls = { ca = \"/ca.pem\" }", "tls", "needs TLS in the URL: expected url = \"mqtts://…\""),
            ("url = []", "url", "expected at least one URL such as \"mqtts://broker.example.com\""),
            ("websocket.headers.a = \"b\"", "websocket", "needs a WebSocket in the URL: expected url = \"wss://…\""),
            (
                "url = \"ws://a\"\nwebsocket.headers.Upgrade = \"b\"",
                "websocket.headers.Upgrade",
                "is the gateway's own: expected a header field that WebSocket itself does not use",
            ),
            (
                "url = \"ws://a\"\nwebsocket.headers.\"a b\" = \"b\"",
                "websocket.headers.a b",
                "is no name of a header field: expected letters, digits and dashes",
            ),
            (
                "url = \"ws://a\"\nwebsocket.headers.a = \"b\\nc: d\"",
                "websocket.headers.a",
                "expected a text of one line",
            ),
            (
                "proxy = { url = \"http://p\", password = { env = \"P\" } }",
                "proxy.password",
                "expected a `username` beside it",
            ),
            (
                "proxy = { url = \"http://p\", username = \"a:b\" }",
                "proxy.username",
                "expected 1 to 255 bytes without a colon",
            ),
            (
                "url = \"mqtts://a\"\ntls.alpn = [\"\"]",
                "tls.alpn",
                "expected names of 1 to 255 bytes, such as \"mqtt\"",
            ),
            ("url = [\"mqtts://a\", \"mqtt://b\"]", "url[1]", mixed),
            ("url = \"mqtts://a\"\ntls.cert = \"/cert.pem\"", "tls.cert", "expected a `key` beside it"),
            ("url = \"mqtts://a\"\ntls.key.env = \"KEY\"", "tls.key", "expected a `cert` beside it"),
            ("url = \"mqtts://a\"\ntls.ca = \"\"", "tls.ca", "expected the path of a PEM file"),
            (
                "url = \"mqtts://a\"\ntls.server_name = \"a b\"",
                "tls.server_name",
                "`a b` is not a host name: expected one such as \"broker.example.com\"",
            ),
        ] {
            let text = if text.starts_with("url") { text.to_owned() } else { format!("url = \"mqtt://a\"\n{text}") };
            assert_eq!(config(&text).check(), [Fault::at(path, expected)], "{text}");
        }
    }

    #[test]
    fn verification_can_not_be_skipped() {
        for key in ["insecure", "verify", "skip_verify"] {
            let text = format!("url = \"mqtts://a\"\ntls = {{ {key} = false }}");
            let faults = Config::read(&text.parse().unwrap()).unwrap_err();
            assert!(faults.iter().any(|fault| fault.text.starts_with(&format!("unknown field `{key}`"))), "{faults:?}");
        }
    }
}
