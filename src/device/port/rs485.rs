//! Has the kernel switch an RS-485 transceiver by RTS, by an ioctl that no safe crate has.

use std::io;
use std::mem;
use std::os::fd::AsRawFd;

use super::settings::{Rs485, Rts};

/// `TIOCSRS485`.
const SET: libc::Ioctl =
    if cfg!(any(target_arch = "mips", target_arch = "mips64")) { 0xC020_542Fu32 as libc::Ioctl } else { 0x542F };

/// The kernel's `struct serial_rs485` (linux/serial.h).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Raw {
    flags: u32,
    delay_before_ms: u32,
    delay_after_ms: u32,
    rest: [u32; 5],
}

const ENABLED: u32 = 1;
const RTS_ON_SEND: u32 = 1 << 1;
const RTS_AFTER_SEND: u32 = 1 << 2;

impl Rs485 {
    /// Sets it.
    ///
    /// # Errors
    /// When the port's driver can't do it, or does another thing: what a driver does not have it leaves out, says what it took,
    /// and calls that a success (Documentation/driver-api/serial/serial-rs485.rst).
    pub(super) fn set(self, port: &impl AsRawFd) -> Result<(), String> {
        const { assert!(mem::size_of::<Raw>() == 32) }
        let mut raw = self.raw();
        #[expect(
            unsafe_code,
            reason = "an ioctl that no safe crate has; the kernel reads and writes this struct alone"
        )]
        // SAFETY: the descriptor is open as long as the port is borrowed, and the struct is the kernel's.
        let result = unsafe { libc::ioctl(port.as_raw_fd(), SET, &raw mut raw) };
        if result == 0 { self.raw().taken(&raw) } else { Err(none(&io::Error::last_os_error().to_string())) }
    }

    fn raw(self) -> Raw {
        let ms = |span: crate::model::Span| u32::try_from(span.0.as_millis()).unwrap_or(u32::MAX);
        let rts = match self.rts {
            Rts::OnSend => RTS_ON_SEND,
            Rts::AfterSend => RTS_AFTER_SEND,
        };
        Raw {
            flags: ENABLED | rts,
            delay_before_ms: ms(self.delay_before),
            delay_after_ms: ms(self.delay_after),
            rest: [0; 5],
        }
    }
}

impl Raw {
    /// Whether this is what the driver took.
    fn taken(&self, by_driver: &Raw) -> Result<(), String> {
        let differs = |bit: u32| (self.flags ^ by_driver.flags) & bit != 0;
        if by_driver.flags & ENABLED == 0 {
            Err(none("it leaves RTS alone"))
        } else if differs(RTS_ON_SEND) || differs(RTS_AFTER_SEND) {
            let other = if self.flags & RTS_ON_SEND == 0 { "on-send" } else { "after-send" };
            Err(format!("its driver switches RTS the other way alone: expected `rs485.rts = \"{other}\"`"))
        } else if self.delay_before_ms != by_driver.delay_before_ms {
            Err(delay("delay_before", by_driver.delay_before_ms))
        } else if self.delay_after_ms != by_driver.delay_after_ms {
            Err(delay("delay_after", by_driver.delay_after_ms))
        } else {
            Ok(())
        }
    }
}

fn none(why: &str) -> String {
    format!("its driver switches no RS-485 transceiver ({why}): remove `rs485`, most adapters do it by themselves")
}

fn delay(key: &str, ms: u32) -> String {
    format!("its driver makes another delay of it: expected `rs485.{key} = \"{ms}ms\"`")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::Span;

    #[test]
    fn the_settings_become_the_kernels() {
        let delay = Span(Duration::from_millis(3));
        let rs485 = Rs485 { rts: Rts::OnSend, delay_before: delay, delay_after: Span::default() };
        assert_eq!(rs485.raw(), Raw { flags: 3, delay_before_ms: 3, delay_after_ms: 0, rest: [0; 5] });
        assert_eq!(Rs485 { rts: Rts::AfterSend, ..rs485 }.raw().flags, 5);
    }

    #[test]
    fn what_is_no_such_port_says_so() {
        let rs485 = Rs485 { rts: Rts::OnSend, delay_before: Span::default(), delay_after: Span::default() };
        let refusal = rs485.set(&std::fs::File::open("/dev/null").unwrap()).unwrap_err();
        assert!(refusal.contains("Inappropriate ioctl for device"), "{refusal}");
    }

    #[test]
    fn what_the_driver_leaves_out_is_told() {
        let asked = Raw { flags: ENABLED | RTS_ON_SEND, delay_before_ms: 1, delay_after_ms: 2, rest: [0; 5] };
        // Beside what was asked a driver may tell of more: that it hears what it sends.
        assert_eq!(asked.taken(&Raw { flags: asked.flags | 1 << 4, ..asked }), Ok(()));
        for (by_driver, expected) in [
            (Raw { flags: RTS_ON_SEND, ..asked }, "switches no RS-485 transceiver (it leaves RTS alone)"),
            (Raw { flags: ENABLED | RTS_AFTER_SEND, ..asked }, "expected `rs485.rts = \"after-send\"`"),
            (Raw { delay_before_ms: 0, ..asked }, "expected `rs485.delay_before = \"0ms\"`"),
            (Raw { delay_after_ms: 100, ..asked }, "expected `rs485.delay_after = \"100ms\"`"),
        ] {
            let told = asked.taken(&by_driver).unwrap_err();
            assert!(told.contains(expected), "{told}");
        }
    }
}
