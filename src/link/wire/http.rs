//! What a web server or a proxy answers before the connection is ours.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// No answer is longer: a page that says no.
const MAX_ANSWER: usize = 16 * 1024;

/// Header fields of an answer, at most.
pub(super) const MAX_FIELDS: usize = 64;

/// The head of an answer, with the empty line behind it; less where it is longer than [`MAX_ANSWER`].
///
/// # Errors
/// When the connection fails or ends.
pub(super) async fn head<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_ANSWER {
        // A byte at a time, so that nothing is taken of what comes behind it: once for each connection.
        head.push(stream.read_u8().await?);
    }
    Ok(head)
}
