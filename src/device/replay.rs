//! A driver without bytes, on the desk: says what it said on the board.

use super::tape::Report;
use super::{Ask, DeviceError, DeviceIo, Driver, Run, WriteError};
use crate::model::Cause;

/// Stands in for a driver whose reports were recorded. It reaches nothing.
#[derive(Debug)]
pub(super) struct Replay;

impl Driver for Replay {
    fn run<'a>(&'a self, io: &'a mut DeviceIo) -> Run<'a, ()> {
        Box::pin(async {
            let tape = io.tape().clone();
            let player = tape.player().ok_or_else(|| DeviceError::Open("there is no tape to play".to_owned()))?;
            loop {
                let (report, at) = tokio::select! {
                    biased;
                    report = player.report() => report,
                    ask = io.next() => match ask {
                        Ask::Stop => return Ok(()),
                        Ask::Write(write) => {
                            let error = WriteError::Failed("what is played is not written to".to_owned());
                            io.answer(write, Err(error)).await;
                            continue;
                        }
                    },
                };
                let named = match &report {
                    Report::Value(point, _) | Report::Stale(point, _) | Report::Output(point, _) => Some(point),
                    Report::Bad(point) => Some(point),
                    Report::Online | Report::Offline(_) => None,
                };
                if let Some(point) = named.filter(|point| !io.has_point(point)) {
                    player.differs(&format!("the config has no point `{point}`"));
                    continue;
                }
                match report {
                    Report::Value(point, raw) => io.report_at(&point, &raw, at).await,
                    Report::Stale(point, raw) => io.report_stale_at(&point, &raw, at).await,
                    Report::Bad(point) => io.report_bad_at(&point, at).await,
                    Report::Output(point, raw) => io.output_at(&point, &raw, Cause::Start, at).await,
                    Report::Online => io.online(),
                    Report::Offline(why) => io.offline(&why),
                }
            }
        })
    }

    fn probe(&self) -> Run<'_, String> {
        Box::pin(async { Ok("on the desk".to_owned()) })
    }
}
