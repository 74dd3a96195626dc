//! `sluicegate record`: what goes between a device and its driver, on the site.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};

use super::control_path;
use crate::config::{Config, Device};
use crate::device::Event;
use crate::model::Span;
use crate::service::Signals;
use crate::service::control::{self, Question};

/// A device that answers begins its recording well before; one that is away is opened once a minute at least.
const PATIENCE: Duration = Duration::from_secs(3);

/// Has the running gateway record a device, a line each for `line`, until that says that it is enough, a signal comes, or
/// the time is over.
///
/// # Errors
/// When the config has no such device, no gateway runs, or something was missed.
pub async fn record_device(
    config: Config,
    name: &str,
    length: Option<Span>,
    mut line: impl FnMut(&str) -> bool + Send,
) -> anyhow::Result<()> {
    let path = control_path(&config);
    device(config, name)?;
    let mut signals = Signals::new().context("signals can't be taken over")?;
    let (is_over, has_begun) = (AtomicBool::new(false), AtomicBool::new(false));
    let end = async {
        tokio::select! {
            _ = signals.end() => {}
            () = async {
                match length {
                    Some(length) => tokio::time::sleep(length.0).await,
                    None => std::future::pending().await,
                }
            } => {}
            () = async {
                tokio::time::sleep(PATIENCE).await;
                if !has_begun.load(Ordering::Relaxed) {
                    tracing::warn!("nothing to record yet: `{name}` says nothing, or is away (`sluicegate status`); waiting for it");
                }
                std::future::pending().await
            } => {}
        }
        is_over.store(true, Ordering::Relaxed);
    };
    let (mut count, mut error, mut missed, mut has_end, mut is_read) = (0_u64, None, 0, false, true);
    let each = |text: &str| {
        if count == 0 {
            error = refusal(text);
        }
        count += 1;
        has_begun.store(true, Ordering::Relaxed);
        if error.is_none() {
            is_read = line(text);
            missed += Event::missed(text);
            has_end = Event::is_end(text);
        }
        is_read && error.is_none()
    };
    control::ask_until(&path, &Question::Record { device: name.to_owned() }, end, each)
        .await
        .with_context(|| format!("no gateway answers at {}: only a running one records", path.display()))?;
    match error {
        Some(error) => bail!("{error}"),
        None if !is_read => Ok(()),
        None if count == 0 => bail!(
            "nothing was recorded: `{name}` said nothing, or was just being opened or asked (`sluicegate status`); or the running gateway is older than this program"
        ),
        None if !has_end => bail!("the gateway went away: the recording has no end"),
        None if !is_over.load(Ordering::Relaxed) => {
            bail!("the gateway ended the recording there: it was stopped, or `{name}` has another config now")
        }
        None if missed > 0 => bail!("{missed} events were missed: the recording is not whole"),
        None => Ok(()),
    }
}

/// Why the gateway does not record.
fn refusal(line: &str) -> Option<String> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    line.get("error")?.as_str().map(str::to_owned)
}

/// The device of this name in the config.
pub(super) fn device(config: Config, name: &str) -> anyhow::Result<Device> {
    let known: Vec<String> = config.devices.iter().map(|device| device.plan.device.to_string()).collect();
    let device = config.devices.into_iter().find(|device| device.plan.device.as_str() == name);
    device.with_context(|| format!("there is no device `{name}` in the config: expected one of {}", known.join(", ")))
}
