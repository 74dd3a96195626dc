//! System tests: the real binary, a real mosquitto, real ptys. Each test starts its own broker on a port of its own,
//! waits for conditions with a generous deadline, and leaves no process behind.
#![expect(clippy::print_stderr, reason = "figures that a run found go to the test's output")]
#![expect(clippy::unwrap_used, reason = "a test that fails says where")]

mod architecture;
mod cli;
mod clock;
mod command_examples;
mod command_flood;
mod command_kills;
mod command_payloads;
mod commands;
mod delivery;
mod desk;
mod documents;
mod flash;
mod full;
mod isolation;
mod kills;
mod local_mqtt;
mod manual;
mod misbehaving;
mod modbus;
mod payloads;
mod portable;
mod presence;
mod reload;
mod serial;
mod serial_protocols;
mod service;
mod support;
mod tls;
mod topics;
mod transports;
mod upgrade;
mod wire;
