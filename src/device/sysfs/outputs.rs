//! What is done with outputs: made ready at the start, set by commands and rules.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::sleep;

use super::{Answer, PAUSE, Source, Sysfs, Trouble, ask, ask_in_turn};
use crate::device::{DeviceError, DeviceIo, Write, WriteError};
use crate::model::{PointName, Value, ValueType};

/// An output that takes longer to be made ready is not waited for; udev has 2 s for a channel of PWM.
const READY: Duration = Duration::from_secs(3);

/// A write that takes longer is answered so: other outputs of the device wait for it.
const WRITE_PATIENCE: Duration = Duration::from_secs(2);

/// At last. What is asked already may be so for ever.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Sysfs {
    /// Makes an output ready, however long that takes.
    pub(super) async fn open(&self, index: usize, safe: Option<Value>) -> (usize, Answer) {
        let mut pause = PAUSE;
        loop {
            let safe = safe.clone();
            if let Some(asked) = ask(&self.points[index].1, move |source| source.open(safe.as_ref())) {
                return (index, asked.await.unwrap_or_else(|panic| Err(Trouble::Other(panic.to_string()))));
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Waits until all outputs are ready, but for those whose files hang: of the others the gateway has to know what they are before
    /// anything else. False: the gateway stops.
    pub(super) async fn open_outputs<F: Future<Output = (usize, Answer)>>(
        &self,
        io: &mut DeviceIo,
        closed: &mut BTreeSet<usize>,
        opening: &mut FuturesUnordered<F>,
    ) -> Result<bool, DeviceError> {
        let (mut values, mut late) = (Vec::new(), pin!(sleep(READY)));
        loop {
            tokio::select! {
                next = opening.next() => match next {
                    Some((index, answer)) => {
                        closed.remove(&index);
                        values.push(self.opened(index, answer)?);
                    }
                    None => break,
                },
                () = &mut late => break,
                () = io.stopped() => return Ok(false),
            }
        }
        for index in closed.iter() {
            let text =
                format!("point `{}`: no answer from the kernel for {} s", self.points[*index].0, READY.as_secs());
            if closed.len() == self.points.len() {
                return Err(DeviceError::Open(text));
            }
            tracing::warn!(DEVICE = %io.device(), POINT = %self.points[*index].0, "{text}: the others go on without it");
        }
        io.opened(values).await;
        Ok(true)
    }

    pub(super) fn opened(&self, index: usize, answer: Answer) -> Result<(PointName, Value), DeviceError> {
        let name = &self.points[index].0;
        match answer {
            Ok(value) => Ok((name.clone(), value)),
            Err(trouble) => Err(DeviceError::Open(format!("point `{name}`: {trouble}"))),
        }
    }

    /// Sets outputs. The error is that one of them is gone; the asker has its answer then already.
    pub(super) async fn write(
        &self,
        io: &mut DeviceIo,
        write: Write,
        closed: &BTreeSet<usize>,
    ) -> Result<(), DeviceError> {
        let (mut places, mut refusal, mut gone) = (Vec::new(), None, None);
        for (name, value) in &write.values {
            let Some((index, (_, source))) = self.points.iter().enumerate().find(|(_, (own, _))| own == name) else {
                refusal = Some(format!("there is no point `{name}`"));
                break;
            };
            if closed.contains(&index) {
                refusal = Some(format!("point `{name}`: {}", Trouble::Busy));
                break;
            }
            if let Err(trouble) = ask_in_turn(source, WRITE_PATIENCE, Source::there).await {
                let text = format!("point `{name}`: {trouble}");
                gone = matches!(trouble, Trouble::Gone(_)).then(|| DeviceError::Lost(text.clone()));
                refusal = Some(text);
                break;
            }
            places.push((name.clone(), value.clone(), Arc::clone(source)));
        }
        let begun = refusal.map_or_else(|| io.begin(&write), |text| Err(WriteError::Failed(text)));
        if let Err(error) = begun {
            io.answer(write, Err(error)).await;
            return gone.map_or(Ok(()), Err);
        }
        let mut done = Vec::new();
        for (name, value, source) in places {
            // What could not begin in time does not begin behind its answer.
            let given_up = Arc::new(AtomicBool::new(false));
            let over = Arc::clone(&given_up);
            let wanted = value.clone();
            // It may be looked at just now, as it is from time to time.
            let answer = ask_in_turn(&source, WRITE_PATIENCE, move |source| {
                if over.load(Ordering::Acquire) {
                    Err(Trouble::Other("it came too late".to_owned()))
                } else {
                    source.write(&value)
                }
            })
            .await;
            given_up.store(true, Ordering::Release);
            // Somebody else may have it, or the kernel keeps less: that is not done.
            let not_taken = answer.as_ref().ok().filter(|is| !is_taken(&wanted, is));
            let not_taken = not_taken.map(|is| format!("`{wanted}` was written, and it reads `{is}`"));
            let has_failed = not_taken.is_some() || answer == Err(Trouble::Busy);
            match not_taken.map_or(answer, |text| Err(Trouble::Other(text))) {
                Ok(value) => done.push((name, value)),
                Err(trouble) => {
                    let text = trouble.to_string();
                    let so_far: String = done.iter().map(|(name, value)| format!("; {name} is {value}")).collect();
                    let error = if has_failed && done.is_empty() {
                        WriteError::Failed(format!("point `{name}`: {text}"))
                    } else {
                        WriteError::Unknown(format!("point `{name}`: {text}{so_far}"))
                    };
                    io.answer(write, Err(error)).await;
                    return if let Trouble::Gone(_) = trouble { Err(DeviceError::Lost(text)) } else { Ok(()) };
                }
            }
        }
        io.answer(write, Ok(done)).await;
        Ok(())
    }
}

/// Whether an output that reads so is what was wanted. What the kernel rounds, it rounds by less than a hundredth.
pub(super) fn is_taken(wanted: &Value, is: &Value) -> bool {
    let number = |value: &Value| value.as_f64().or_else(|| value.convert(ValueType::Float).ok()?.as_f64());
    match (number(wanted), number(is)) {
        (Some(wanted), Some(is)) => (wanted - is).abs() <= 0.01 * wanted.abs().max(is.abs()),
        // A text is what the driver makes of it: `[none] timer` for `none`.
        _ => true,
    }
}
