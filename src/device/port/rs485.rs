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
    /// Sets it. An error says that the port's driver can't.
    pub(super) fn set(self, port: &impl AsRawFd) -> io::Result<()> {
        const { assert!(mem::size_of::<Raw>() == 32) }
        let mut raw = self.raw();
        #[expect(
            unsafe_code,
            reason = "an ioctl that no safe crate has; the kernel reads and writes this struct alone"
        )]
        // SAFETY: the descriptor is open as long as the port is borrowed, and the struct is the kernel's.
        let result = unsafe { libc::ioctl(port.as_raw_fd(), SET, &raw mut raw) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
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
        assert_eq!(
            rs485.set(&std::fs::File::open("/dev/null").unwrap()).map_err(|error| error.raw_os_error()),
            Err(Some(libc::ENOTTY))
        );
    }
}
