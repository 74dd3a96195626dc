//! MQTT in a WebSocket (MQTT 3.1.1 and 5, section 6): its bytes, in binary messages whose borders mean nothing.

use std::io;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, TryStreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::{ProtocolError, SubProtocolError};
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue, Request};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

use super::{BUFFER, WireError};
use crate::link::Url;

/// A message that is larger ends the connection: it is held in memory as a whole.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// Asks the web server for the WebSocket; what then comes out of it, and what goes into it.
pub(super) async fn upgrade<S>(
    stream: S,
    url: &Url,
    headers: &[(String, String)],
) -> Result<(impl AsyncRead + Unpin, impl AsyncWrite + Unpin), WireError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = request(url, headers)?;
    let mut config = WebSocketConfig::default();
    config.read_buffer_size = BUFFER;
    config.write_buffer_size = 0;
    config.max_message_size = Some(MAX_MESSAGE);
    config.max_frame_size = Some(MAX_MESSAGE);
    let upgraded = tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await;
    let (socket, _) = upgraded.map_err(|error| refused(&error, url))?;
    let (sink, stream) = socket.split();
    let bytes = stream.map_err(broken).try_filter_map(async |message| match message {
        Message::Binary(bytes) => Ok(Some(bytes)),
        Message::Close(why) => {
            let why = why.map(|frame| format!(": {} {}", frame.code, frame.reason)).unwrap_or_default();
            Err(io::Error::new(io::ErrorKind::ConnectionAborted, format!("the broker closed the WebSocket{why}")))
        }
        Message::Text(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "text in a WebSocket of MQTT")),
        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(None),
    });
    let sink = sink.sink_map_err(broken).with(async |bytes: Bytes| Ok::<_, io::Error>(Message::Binary(bytes)));
    Ok((StreamReader::new(Box::pin(bytes)), SinkWriter::new(CopyToBytes::new(Box::pin(sink)))))
}

/// The request for the WebSocket.
///
/// # Errors
/// When HTTP has no way to say the path, or the value of a header field.
pub(in crate::link) fn request(url: &Url, headers: &[(String, String)]) -> Result<Request<()>, WireError> {
    let mut request =
        url.whole().into_client_request().map_err(|error| WireError::Files(format!("mqtt.url: {url}: {error}")))?;
    let wrong = |name: &str, why: &str| WireError::Files(format!("mqtt.websocket.headers: `{name}`: {why}"));
    let own = request.headers_mut();
    own.insert("Sec-WebSocket-Protocol", HeaderValue::from_static("mqtt"));
    for (name, value) in headers {
        let field = HeaderName::try_from(name).map_err(|error| wrong(name, &error.to_string()))?;
        // The value may be a secret.
        let value = HeaderValue::try_from(value).map_err(|_| wrong(name, "its value is not one line of text"))?;
        own.insert(field, value);
    }
    Ok(request)
}

/// Why the web server did not open the WebSocket, and what to do.
fn refused(error: &Error, url: &Url) -> WireError {
    let text = match error {
        Error::Http(response) => {
            let status = response.status();
            let why = match status.as_u16() {
                401 | 403 => ": it wants other header fields, or none comes in from here (mqtt.websocket.headers)",
                404 => ": is the path right?",
                400 | 426 | 200..=299 => ": is there a WebSocket at this path?",
                _ => "",
            };
            format!("the web server at {url} answered {status}{why}")
        }
        Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(SubProtocolError::NoSubProtocol)) => {
            format!("the web server at {url} does not speak MQTT in this WebSocket: is the path right?")
        }
        Error::Protocol(ProtocolError::HttparseError(_)) => {
            format!("{url} does not speak HTTP: is it a port for WebSocket?")
        }
        other => format!("no WebSocket at {url}: {other}"),
    };
    WireError::Connect(text)
}

/// What a broken WebSocket means for who reads bytes. What TLS says stays as it is.
fn broken(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::UnexpectedEof.into(),
        other => io::Error::new(io::ErrorKind::InvalidData, format!("WebSocket: {other}")),
    }
}
