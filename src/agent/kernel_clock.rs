//! What the kernel says of its clock, by unsafe code: neither the standard library nor rustix or nix
//! has `adjtimex`.
#![expect(unsafe_code, reason = "a system call that no safe crate has")]

/// The error of a clock that nobody keeps, in microseconds (`NTP_PHASE_LIMIT`). The kernel begins with it, comes back to
/// it at every step, and approaches it by 500 ppm from the last correction on: 9 hours.
const UNKEPT: libc::c_long = 16_000_000;

/// Whether a time service keeps the wall clock; `None` in a sandbox that refuses the question, as that of the unit does.
/// By the error bound, as `timedatectl` does, and not by `STA_UNSYNC`: chrony leaves that set unless it has `rtcsync`.
pub(super) fn is_kept() -> Option<bool> {
    // SAFETY: a `timex` is numbers only, for which zeroes are valid, and its `modes` of zero asks the kernel to change
    // nothing. The kernel writes within the struct whose address it gets, and keeps no pointer to it.
    let (result, answer) = unsafe {
        let mut answer: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut answer), answer)
    };
    (result >= 0).then_some(answer.maxerror < UNKEPT)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_kernel_answers_the_same_twice() {
        // What it says is up to this machine.
        assert_eq!(super::is_kept(), super::is_kept());
    }
}
