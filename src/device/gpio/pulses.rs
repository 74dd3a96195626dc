//! A line whose pulses are counted.
//!
//! The kernel numbers the edges of each requested line by itself (`line_seqno`, uAPI version 2), before it puts them into a
//! buffer that may overflow. So the number of the newest edge is what counts, and a burst loses nothing.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use gpiocdev::line::EdgeDetection;
use gpiocdev::{AbiVersion, Request};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::cdev;
use super::config::{Bias, Place};
use crate::model::Span;

/// Edges that the kernel keeps of a line: as many as it can. Those that it drops are counted all the same.
const KERNEL_EVENTS: u32 = 1024;

/// Edges taken in one read.
const EVENTS: usize = 64;

/// Which edge of a pulse counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::device) enum Edge {
    Rising,
    Falling,
}

/// How a line is counted.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::device) struct Wanted {
    /// Which line.
    pub line: Place,
    /// Which edge.
    pub edge: Edge,
    /// The line's own resistor; `None`: as it was found.
    pub bias: Option<Bias>,
    /// A level counts once it held for this long.
    pub debounce: Option<Span>,
}

impl Wanted {
    /// The chip's character device.
    ///
    /// # Errors
    /// When there is no such line.
    pub(in crate::device) fn chip(&self) -> Result<PathBuf, String> {
        cdev::locate(&self.line, &cdev::chips()?).map(|at| at.chip.into())
    }

    /// What is known of the line; requests nothing.
    ///
    /// # Errors
    /// When there is none, or others have it.
    pub(in crate::device) fn look(&self) -> Result<String, String> {
        match cdev::look(&self.line, &cdev::chips()?)? {
            (text, Some(user)) if !user.starts_with("sluicegate") => {
                Err(format!("{text} by `{user}`: {}", cdev::remedy(&user)))
            }
            (text, _) => Ok(text),
        }
    }
}

/// A line in use.
#[derive(Debug)]
pub(in crate::device) struct Pulses {
    request: Request,
    buffer: Vec<u64>,
    /// The number of the last edge.
    seqno: u32,
}

/// What came since the last look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::device) struct Counted {
    /// How many.
    pub pulses: u64,
    /// When the last one was, by CLOCK_MONOTONIC.
    pub last: Duration,
}

impl Pulses {
    /// Requests the line. `name` is what others see of who has it.
    ///
    /// # Errors
    /// When it is not there, somebody has it, or the kernel can't count its edges: what to do.
    pub(in crate::device) fn open(wanted: &Wanted, name: &str) -> Result<Self, String> {
        let at = cdev::locate(&wanted.line, &cdev::chips()?)?;
        let chip = gpiocdev::Chip::from_path(&at.chip).and_then(|chip| chip.detect_abi_version());
        if chip.map_err(|error| format!("{}: {error}", at.chip))? != AbiVersion::V2 {
            return Err("this kernel does not count edges: it takes Linux 5.10 or later".to_owned());
        }
        let mut builder = Request::builder();
        builder.on_chip(&at.chip).with_line(at.offset).with_consumer(cdev::consumer(name)).as_input();
        builder.with_edge_detection(match wanted.edge {
            Edge::Rising => EdgeDetection::RisingEdge,
            Edge::Falling => EdgeDetection::FallingEdge,
        });
        builder.using_abi_version(AbiVersion::V2).with_kernel_event_buffer_size(KERNEL_EVENTS);
        builder.with_bias(cdev::bias(wanted.bias));
        if let Some(period) = wanted.debounce {
            builder.with_debounce_period(period.0);
        }
        let asked = builder.request().map_err(|error| cdev::cause(&error)).and_then(|request| {
            let flags = fcntl_getfl(&request)?;
            fcntl_setfl(&request, flags | OFlags::NONBLOCK)?;
            Ok(request)
        });
        let request = asked.map_err(|error| match cdev::is_without_interrupt(&error) {
            true => format!("line {} of {} has no interrupt, so the kernel can't count its edges", at.offset, at.chip),
            false => cdev::explain(&at, wanted.bias.map(|_| "bias"), "input", &error),
        })?;
        let buffer = vec![0; request.edge_event_u64_size() * EVENTS];
        Ok(Pulses { request, buffer, seqno: 0 })
    }

    /// What came since the last look; `None`: nothing. Never waits.
    ///
    /// # Errors
    /// When the line is gone.
    pub(in crate::device) fn take(&mut self) -> io::Result<Option<Counted>> {
        let size = self.request.edge_event_u64_size();
        let mut found: Option<Counted> = None;
        // No more than the kernel keeps, for one line that never rests.
        for _ in 0..=KERNEL_EVENTS as usize / EVENTS {
            let words = match cdev::read_edges(&self.request, &mut self.buffer) {
                Ok(words) => words,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            let newest = self.buffer.get(..words).unwrap_or_default().chunks_exact(size).next_back();
            let Some(newest) = newest else { break };
            let event = self.request.edge_event_from_slice(newest).map_err(|error| cdev::cause(&error))?;
            // It starts at 1, and wraps.
            let pulses = u64::from(event.line_seqno.wrapping_sub(self.seqno));
            self.seqno = event.line_seqno;
            let before = found.map_or(0, |found| found.pulses);
            found = Some(Counted { pulses: before + pulses, last: Duration::from_nanos(event.timestamp_ns) });
        }
        Ok(found)
    }
}
