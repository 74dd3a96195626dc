//! `sluicegate check`: whether what the config names is there, works, and may be opened by the service.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::clock;
use crate::config::{Config, Sources};
use crate::link::{self, Content, Event, Filter, Kept, Link, LinkError, Opening, Publish, Session};
use crate::service::{Need, ServiceUser};
use crate::uplink;

/// For the broker's answers once it is connected.
const PATIENCE: Duration = Duration::from_secs(10);

/// Tries each device; the lines say what was found. False: something does not work.
pub async fn check_devices(config: &Config, mut line: impl FnMut(&str)) -> bool {
    let mut good = true;
    for device in &config.devices {
        let name = &device.plan.device;
        match device.plan.driver.probe().await {
            Ok(found) => line(&format!("device {name}: ok: {found}")),
            Err(error) => {
                good = false;
                line(&format!("device {name}: failed: {error}"));
            }
        }
    }
    good
}

/// Looks whether the service may open what it needs: its config, the files named there and, if asked for, its devices.
/// Root may open more, so this is for root, and for the service's own config. The lines say what was refused. False:
/// something was.
pub fn check_rights(config: &Config, sources: &Sources, devices: bool, mut line: impl FnMut(&str)) -> bool {
    let files = sources.of_service();
    let Some(user) = ServiceUser::seen_by_root(&sources.unit()).filter(|_| !files.is_empty()) else { return true };
    let mut good = true;
    let mut look = |what: &str, path: &Path, need| {
        if let Some(refusal) = user.refused(path, need) {
            good = false;
            line(&format!("{what}: failed: {refusal}"));
        }
    };
    files.iter().for_each(|path| look("config", path, Need::Read));
    config.gateway.id_file.iter().for_each(|path| look("gateway.id", path, Need::Read));
    look("gateway.state_directory", &config.gateway.state_directory, Need::Keep);
    config.mqtt.named_files().iter().for_each(|path| look("mqtt", path, Need::Read));
    for device in &config.devices {
        let (name, driver) = (format!("device {}", device.plan.device), &device.plan.driver);
        let named = driver.link().into_iter().flat_map(link::Config::named_files);
        named.for_each(|path| look(&name, &path, Need::Read));
        let opened = if devices { driver.opens() } else { Vec::new() };
        opened.iter().for_each(|path| look(&name, path, Need::Device));
    }
    good
}

/// Connects to the broker as `<id>-check`, without a Last Will, and proves the rights to publish and to subscribe by
/// messages that come back: a 3.1.1 broker acknowledges what its ACL then drops, and grants subscriptions to what it then
/// keeps back. The lines say what was found.
/// False: something does not work.
pub async fn check_broker(config: &Config, mut line: impl FnMut(&str)) -> bool {
    // No fault by itself: what it spoils is the certificates, and the dates.
    match clock::look_once(config.clock) {
        None => line("clock: ok"),
        Some(doubt) => line(&format!("clock: not set: {doubt}")),
    }
    let mut mqtt = config.mqtt.clone();
    mqtt.client_id = format!("{}-check", mqtt.client_id);
    let mut good = true;
    // Each of several brokers is checked on its own.
    for url in &config.mqtt.url.0 {
        mqtt.url.0 = vec![url.clone()];
        match one_broker(&mqtt).await {
            Ok(found) => line(&format!("broker {url}: ok: {found}")),
            Err(error) => {
                good = false;
                line(&format!("broker {url}: failed: {error}"));
            }
        }
    }
    good
}

/// Why the link did not come up, and what to do where the reason does not say it.
fn explain(error: &LinkError) -> String {
    let remedy = match error {
        LinkError::Connect(_) => {
            "; see whether mqtt.url has the right host and port, the broker runs, and no firewall stands between"
        }
        LinkError::Tls(_) => {
            "; mqtt.tls says whom to trust (ca), by what name (server_name), and who this gateway is (cert and key)"
        }
        LinkError::Refused(_) => "; see mqtt.username, mqtt.password and mqtt.client_id, and the broker's log",
        LinkError::Closed(_) => "; the broker's log says why",
        LinkError::Silent(_) | LinkError::Protocol(_) => "; is this the port of an MQTT broker?",
        LinkError::Config(_) => "",
    };
    format!("{error}{remedy}")
}

/// What is waited for while the own messages have not come back from these topics.
fn back(topics: &[String]) -> String {
    let topics = topics.join(" and ");
    format!("what was published to {topics} to come back: the broker's ACL does not let it be published or read")
}

async fn one_broker(mqtt: &crate::link::Config) -> Result<String, String> {
    let opening = Opening { client_id: mqtt.client_id.clone(), will: None, session: Session::Clean };
    let mut kept = Kept::default();
    let mut link = Link::open(mqtt, &opening, &mut kept).map_err(|error| error.to_string())?;
    let filters = uplink::filters(mqtt);
    let mut topics = uplink::check_topics(mqtt).to_vec();
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| error.to_string())?;
    let payload = Bytes::from(format!("check-{:016x}", u64::from_ne_bytes(random)));
    let mut deadline = Instant::now() + mqtt.connect_timeout.0 * 2;
    let mut waiting_for = "the connection".to_owned();
    loop {
        let event = timeout_at(deadline, link.next())
            .await
            .map_err(|_| format!("waited in vain for {waiting_for}"))?
            .map_err(|error| explain(&error))?;
        match event {
            Event::Up(_) => {
                link.subscribe(&filters);
                deadline = Instant::now() + PATIENCE;
                waiting_for = "the answer to the subscription".to_owned();
            }
            Event::Subscribed(granted) => {
                let refused: Vec<&str> = filters
                    .iter()
                    .zip(granted.iter().chain(std::iter::repeat(&false)))
                    .filter(|(_, granted)| !**granted)
                    .map(|(Filter { path, .. }, _)| path.as_str())
                    .collect();
                if !refused.is_empty() {
                    return Err(format!("the broker's ACL refuses the subscription to {}", refused.join(", ")));
                }
                for topic in topics.clone() {
                    let publish = Publish {
                        topic,
                        payload: payload.clone(),
                        retain: false,
                        content: Content::Text,
                        correlation: None,
                    };
                    link.publish(publish).map_err(|_| "no room for one publish".to_owned())?;
                }
                waiting_for = back(&topics);
            }
            Event::Acked(_, Err(refusal)) => return Err(format!("the broker refuses to publish: {refusal:?}")),
            Event::Message(message) if topics.contains(&message.topic) && message.payload == payload => {
                link.ack(&message);
                topics.retain(|topic| *topic != message.topic);
                waiting_for = back(&topics);
                if topics.is_empty() {
                    link.disconnect();
                    waiting_for = "the farewell".to_owned();
                }
            }
            Event::Parted => {
                link.close().await;
                break;
            }
            Event::Message(message) => link.ack(&message),
            Event::Acked(_, Ok(())) | Event::Alive => {}
        }
    }
    let expiry = kept.identity().and_then(|identity| identity.expires());
    let certificate = expiry.map(|end| {
        let date = humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + end);
        format!("; our certificate is valid until {date}")
    });
    Ok(format!("connected, subscribed, and read back what was published{}", certificate.unwrap_or_default()))
}
