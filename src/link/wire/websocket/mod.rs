//! MQTT in a WebSocket (RFC 6455; MQTT 3.1.1 and 5, section 6): its bytes, in binary messages whose borders mean nothing.
//!
//! Here is how it is opened; `frames` is what then comes and goes. Nothing is held but a frame's head, since MQTT knows its
//! own packets: a message may be as long as the broker likes.

mod frames;

use std::io;

use base64ct::{Base64, Encoding};
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::{WireError, http};
use crate::link::Url;
use crate::link::url::at;
pub(super) use frames::{Incoming, close, data, reply};

/// What the server's key is made with (RFC 6455, section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The name of MQTT among what may be spoken in a WebSocket.
const PROTOCOL: &str = "mqtt";

/// Of these the handshake is made.
const OWN_FIELDS: [&str; 5] =
    ["Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Sec-WebSocket-Extensions"];

/// Asks the web server for the WebSocket.
pub(super) async fn upgrade<S>(stream: &mut S, url: &Url, headers: &[(String, String)]) -> Result<(), WireError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| WireError::Connect(format!("no random numbers: {error}")))?;
    let key = Base64::encode_string(&random);
    let request = request(url, headers, &key)?;
    let broken = |error: io::Error| WireError::Connect(format!("no WebSocket at {url}: {error}"));
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    let head = http::head(stream).await.map_err(broken)?;
    judge(&head, &accepted(&key), url, headers).map_err(WireError::Connect)
}

/// The request for the WebSocket.
///
/// # Errors
/// When HTTP has no way to say the host, the path, or a header field.
pub(in crate::link) fn request(url: &Url, headers: &[(String, String)], key: &str) -> Result<String, WireError> {
    if !url.host.is_ascii() {
        let text = format!("mqtt.url: {url}: expected a host name without letters beyond ASCII: write it in Punycode");
        return Err(WireError::Files(text));
    }
    // RFC 3986, sections 3.3 and 3.4.
    let is_known = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@/?%".contains(c);
    if let Some(letter) = url.path.chars().find(|c| !is_known(*c)) {
        let text = format!("mqtt.url: {url}: `{letter}` can't stand in a path: write it as %{:02X}", u32::from(letter));
        return Err(WireError::Files(text));
    }
    let host = if url.port == url.scheme.default_port() && !url.host.contains(':') {
        url.host.clone()
    } else {
        at(&url.host, url.port)
    };
    let mut request = format!(
        "GET {} HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n",
        url.path
    );
    for (name, value) in [("Host", host.as_str()), ("Sec-WebSocket-Protocol", PROTOCOL)] {
        if !headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
            request += &format!("{name}: {value}\r\n");
        }
    }
    for (name, value) in headers {
        let wrong = |why: &str| Err(WireError::Files(format!("mqtt.websocket.headers: `{name}`: {why}")));
        // RFC 9110, sections 5.1 and 5.5.
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)) {
            return wrong("expected a name of letters, digits and `-`");
        }
        if OWN_FIELDS.iter().any(|own| own.eq_ignore_ascii_case(name)) {
            return wrong("this field belongs to the WebSocket itself");
        }
        // The value may be a secret.
        if value.chars().any(|c| c.is_control() && c != '\t') {
            return wrong("its value is not one line of text");
        }
        request += &format!("{name}: {value}\r\n");
    }
    Ok(request + "\r\n")
}

/// What the server shows that it has understood the key.
fn accepted(key: &str) -> String {
    Base64::encode_string(&Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// Whether the server opened the WebSocket (RFC 6455, section 4.1); else why not, and what to do.
fn judge(head: &[u8], accept: &str, url: &Url, headers: &[(String, String)]) -> Result<(), String> {
    let mut fields = [httparse::EMPTY_HEADER; http::MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let status = match response.parse(head) {
        Ok(httparse::Status::Complete(_)) => response.code.unwrap_or_default(),
        Ok(httparse::Status::Partial) | Err(_) => {
            return Err(format!("{url} does not speak HTTP: is it a port for WebSocket?"));
        }
    };
    if status != 101 {
        let why = match status {
            401 | 403 => ": it wants other header fields, or none comes in from here (mqtt.websocket.headers)",
            404 => ": is the path right?",
            400 | 426 | 200..=299 => ": is there a WebSocket at this path?",
            _ => "",
        };
        let words = response.reason.map(|words| format!(" {words}")).unwrap_or_default();
        return Err(format!("the web server at {url} answered {status}{words}{why}"));
    }
    let has = |name: &str, is_right: &dyn Fn(&str) -> bool| {
        let values = response.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        values.filter_map(|field| std::str::from_utf8(field.value).ok()).any(is_right)
    };
    let list = |value: &str, wanted: &str| value.split(',').any(|word| word.trim().eq_ignore_ascii_case(wanted));
    if !has("Upgrade", &|value| list(value, "websocket")) || !has("Connection", &|value| list(value, "upgrade")) {
        return Err(format!("no WebSocket at {url}: the answer lacks `Upgrade: websocket` and `Connection: Upgrade`"));
    }
    if !has("Sec-WebSocket-Accept", &|value| value == accept) {
        return Err(format!("no WebSocket at {url}: the answer is to another request (Sec-WebSocket-Accept)"));
    }
    let asked = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("Sec-WebSocket-Protocol"));
    let asked = asked.map_or(PROTOCOL, |(_, value)| value.as_str());
    if !has("Sec-WebSocket-Protocol", &|value| list(asked, value.trim())) {
        return Err(format!("the web server at {url} does not speak MQTT in this WebSocket: is the path right?"));
    }
    if has("Sec-WebSocket-Extensions", &|value| !value.trim().is_empty()) {
        return Err(format!("no WebSocket at {url}: the server wants an extension that nobody asked for"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url() -> Url {
        "ws://broker.example.com/mqtt?token=1".parse().unwrap()
    }

    #[test]
    fn the_key_of_the_standard_is_answered_as_there() {
        assert_eq!(accepted("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn the_request_says_what_the_config_says() {
        let headers = [("X-Api-Key".to_owned(), "k".to_owned()), ("host".to_owned(), "other".to_owned())];
        let text = request(&url(), &headers, "KEY").unwrap();
        let expected = "GET /mqtt?token=1 HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: KEY\r\nSec-WebSocket-Protocol: mqtt\r\n\
                        X-Api-Key: k\r\nhost: other\r\n\r\n";
        assert_eq!(text, expected);
        for (url, host) in [
            ("ws://b", "Host: b\r\n"),
            ("ws://b:8080/", "Host: b:8080\r\n"),
            ("wss://b:443", "Host: b\r\n"),
            ("wss://[::1]", "Host: [::1]:443\r\n"),
        ] {
            assert!(request(&url.parse().unwrap(), &[], "KEY").unwrap().contains(host), "{url}");
        }
    }

    #[test]
    fn what_http_can_not_say_is_told_without_the_value() {
        for (name, value, expected) in [
            ("X-Key", "se\r\ncret", "`X-Key`: its value is not one line of text"),
            ("X Key", "secret", "`X Key`: expected a name of letters, digits and `-`"),
            ("", "secret", "``: expected a name of letters, digits and `-`"),
            ("connection", "close", "`connection`: this field belongs to the WebSocket itself"),
        ] {
            let error = request(&url(), &[(name.to_owned(), value.to_owned())], "KEY").unwrap_err().to_string();
            assert_eq!(error, format!("mqtt.websocket.headers: {expected}"));
        }
        let error = request(&"ws://grün.example/".parse().unwrap(), &[], "KEY").unwrap_err().to_string();
        assert!(error.contains("Punycode"), "{error}");
    }

    #[test]
    fn only_a_whole_answer_opens_it() {
        const FIRST: &str = "HTTP/1.1 101 Switching Protocols";
        const FIELDS: [&str; 4] = [
            "upgrade: WebSocket",
            "Connection: keep-alive, Upgrade",
            "Sec-WebSocket-Accept: OK=",
            "sec-websocket-protocol: mqtt",
        ];
        let said = |first: &str, fields: &[&str]| {
            let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
            judge(format!("{first}\r\n{fields}\r\n").as_bytes(), "OK=", &url(), &[])
        };
        assert_eq!(said(FIRST, &FIELDS), Ok(()));
        for (left_out, expected) in
            [(0, "lacks `Upgrade"), (1, "lacks `Upgrade"), (2, "another request"), (3, "does not speak MQTT")]
        {
            let fields: Vec<_> = FIELDS.iter().enumerate().filter(|(i, _)| *i != left_out).map(|(_, f)| *f).collect();
            let error = said(FIRST, &fields).unwrap_err();
            assert!(error.contains(expected) && !error.contains("token"), "{error}");
        }
        let more = [&FIELDS[..], &["Sec-WebSocket-Extensions: permessage-deflate"]].concat();
        assert!(said(FIRST, &more).unwrap_err().contains("an extension"));
        for (first, expected) in [
            ("HTTP/1.1 404 Not Found", "answered 404 Not Found: is the path right?"),
            ("HTTP/1.1 200 OK", "is there a WebSocket at this path?"),
            ("HTTP/1.1 503", "answered 503"),
            ("SSH-2.0-OpenSSH", "does not speak HTTP"),
        ] {
            let error = said(first, &FIELDS).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let other = [("Sec-WebSocket-Protocol".to_owned(), "mqttv3.1, mqtt".to_owned())];
        let head = format!("{FIRST}\r\n{}\r\nSec-WebSocket-Protocol: mqttv3.1\r\n\r\n", FIELDS[..3].join("\r\n"));
        assert_eq!(judge(head.as_bytes(), "OK=", &url(), &other), Ok(()));
        assert!(judge(head.as_bytes(), "OK=", &url(), &[]).is_err());
    }
}
