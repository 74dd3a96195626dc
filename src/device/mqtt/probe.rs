//! `check --devices`: connects under a name of its own, so that the session of the running gateway stays as it is.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Mqtt;
use crate::device::DeviceError;
use crate::link::{Event, Kept, Link, Opening, Session};

/// For the broker's answers once it is connected.
const PATIENCE: Duration = Duration::from_secs(10);

/// A broker sends what it has stored right behind its answer to the subscription.
const STORED: Duration = Duration::from_secs(2);

/// What was found, or why the device can't be heard.
pub(super) async fn probe(device: &Mqtt) -> Result<String, DeviceError> {
    let opening =
        Opening { client_id: format!("{}-check", device.link.client_id), will: None, session: Session::Clean };
    let mut kept = Kept::default();
    let mut link =
        Link::open(&device.link, &opening, &mut kept).map_err(|error| DeviceError::Open(device.about(&error)))?;
    let url = link.url().to_owned();
    let mut deadline = Instant::now() + device.link.connect_timeout.0 * 2;
    let mut waiting_for = "the connection";
    let mut found = format!("connected to {url}");
    loop {
        let Ok(event) = timeout_at(deadline, link.next()).await else {
            match (&device.config.status, waiting_for) {
                (Some(status), "the status") => {
                    found = format!("{found}; nothing is stored on {}", status.topic);
                    break;
                }
                _ => return Err(DeviceError::Open(format!("its broker {url}: waited in vain for {waiting_for}"))),
            }
        };
        match event.map_err(|error| DeviceError::Open(device.about(&error)))? {
            Event::Up(_) if device.subscriptions.is_empty() => break,
            Event::Up(_) => {
                link.subscribe(&device.subscriptions);
                (deadline, waiting_for) = (Instant::now() + PATIENCE, "the answer to the subscription");
            }
            Event::Subscribed(granted) => {
                if granted.len() < device.subscriptions.len() || granted.contains(&false) {
                    return Err(DeviceError::Open(format!("its broker {url}: its ACL refuses a subscription")));
                }
                found = format!("{found}; subscribed");
                if device.config.status.is_none() {
                    break;
                }
                (deadline, waiting_for) = (Instant::now() + STORED, "the status");
            }
            Event::Message(message) => {
                link.ack(&message);
                if device.config.status.as_ref().is_some_and(|status| status.topic == message.topic) {
                    let start = message.payload.get(..40).unwrap_or(&message.payload).escape_ascii();
                    found = format!("{found}; {} is `{start}`", message.topic);
                    break;
                }
            }
            Event::Acked(..) | Event::Alive | Event::Parted => {}
        }
    }
    link.disconnect();
    while let Ok(Ok(event)) = timeout_at(Instant::now() + STORED, link.next()).await {
        if event == Event::Parted {
            break;
        }
    }
    link.close().await;
    Ok(found)
}
