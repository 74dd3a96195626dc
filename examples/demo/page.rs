//! Serves examples/page, so that a browser can look at the demo: the files and nothing else, over HTTP/1.1.

use std::io;
use std::net::Ipv4Addr;

use sluicegate::task::{Owned, TaskSet};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

const FILES: [(&str, &str, &[u8]); 5] = [
    ("/", "text/html", include_bytes!("../page/index.html")),
    ("/page.css", "text/css", include_bytes!("../page/page.css")),
    ("/page.js", "text/javascript", include_bytes!("../page/page.js")),
    ("/model.js", "text/javascript", include_bytes!("../page/model.js")),
    ("/mqtt.min.js", "text/javascript", include_bytes!("../page/mqtt.min.js")),
];

/// The longest line of a request that is read.
const LINE: u64 = 8 * 1024;

/// A running server.
#[derive(Debug)]
pub(crate) struct Page {
    /// Where it listens on 127.0.0.1.
    pub(crate) port: u16,
    _listening: Owned<()>,
}

impl Page {
    /// Starts it on a free port.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let listening = Owned::spawn(async move {
            let mut requests = TaskSet::new();
            loop {
                tokio::select! {
                    Ok((socket, _)) = listener.accept() => {
                        requests.spawn("request", async move {
                            if let Err(error) = answer(socket).await {
                                tracing::debug!("a browser: {error}");
                            }
                        });
                    }
                    Some(_) = requests.next_ended() => {}
                }
            }
        });
        Ok(Page { port, _listening: listening })
    }
}

/// Answers one request, and closes.
async fn answer(socket: TcpStream) -> io::Result<()> {
    use tokio::io::AsyncReadExt;
    let mut socket = BufReader::new(socket);
    let mut request = String::new();
    (&mut socket).take(LINE).read_line(&mut request).await?;
    let mut field = String::new();
    // What the browser says of itself does not matter.
    while (&mut socket).take(LINE).read_line(&mut field).await? > 2 {
        field.clear();
    }
    let path = request.split(' ').nth(1).unwrap_or_default();
    let file = FILES.iter().find(|(known, ..)| *known == path.split('?').next().unwrap_or_default());
    let (status, mime, body) = match file {
        Some((_, mime, body)) if request.starts_with("GET ") => ("200 OK", *mime, *body),
        _ => ("404 Not Found", "text/plain", &b"not here\n"[..]),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {mime}; charset=utf-8\r\nContent-Length: {}\r\n\
         X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).await?;
    socket.write_all(body).await?;
    socket.shutdown().await
}
