//! Browsers: MQTT in a WebSocket, on the same port as plain MQTT.

use std::io;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;

/// More than a packet of this broker's.
const BUFFER: usize = 64 * 1024;

/// Whether a client begins as HTTP does, and MQTT never.
pub(super) async fn is_wanted(socket: &TcpStream) -> bool {
    let mut first = [0];
    matches!(socket.peek(&mut first).await, Ok(1)) && first == *b"G"
}

/// Opens the WebSocket: a stream of MQTT, and what carries it until one side ends.
///
/// # Errors
/// When the client asks for something else.
pub(super) async fn open(socket: TcpStream) -> io::Result<(DuplexStream, impl Future<Output = ()>)> {
    #[expect(clippy::result_large_err, reason = "as tungstenite wants it")]
    let subprotocol = |_: &Request, mut response: Response| {
        response.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("mqtt"));
        Ok(response)
    };
    let accepted = tokio_tungstenite::accept_hdr_async(socket, subprotocol).await.map_err(io::Error::other)?;
    let (mut sink, mut stream) = accepted.split();
    let (near, far) = tokio::io::duplex(BUFFER);
    let (mut far_read, mut far_write) = tokio::io::split(far);
    let carry = async move {
        let down = async {
            while let Some(Ok(message)) = stream.next().await {
                if let Message::Binary(bytes) = message
                    && far_write.write_all(&bytes).await.is_err()
                {
                    break;
                }
            }
        };
        let up = async {
            let mut buffer = vec![0; BUFFER];
            while let Ok(count @ 1..) = far_read.read(&mut buffer).await {
                let bytes = buffer.get(..count).unwrap_or_default().to_vec();
                if sink.send(Message::binary(bytes)).await.is_err() {
                    break;
                }
            }
        };
        tokio::select! { () = down => {}, () = up => {} }
    };
    Ok((near, carry))
}
