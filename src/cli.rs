//! The command line: what is asked, what is printed, and the exit status.
#![expect(clippy::print_stderr, reason = "this is where the program talks to people")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use tokio_util::sync::CancellationToken;
use tracing::Level;

use crate::agent::{self, Exit, Handed, Reloaded, StateError};
use crate::config::{self, Config, Instance, Places, Sources};
use crate::device::KINDS;
use crate::model::{Lane, event};
use crate::service::Notifier;
use crate::service::control::{self, Question};
use crate::service::log;

/// EX_NOINPUT: nobody has configured it yet (sysexits.h); to systemd that is no failure.
const UNCONFIGURED: u8 = 66;
/// EX_UNAVAILABLE: what was asked for is not there, or does not work (sysexits.h).
const UNAVAILABLE: u8 = 69;
/// EX_SOFTWARE: a part of the program broke (sysexits.h).
const SOFTWARE: u8 = 70;
/// EX_TEMPFAIL: another one is running (sysexits.h).
const TEMPFAIL: u8 = 75;
/// EX_CONFIG: the config is wrong (sysexits.h); systemd does not restart on it.
const CONFIG: u8 = 78;

/// Carries readings of GPIO and serial devices to an MQTT broker, and commands back.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
struct Arguments {
    /// Read this config file instead of the standard places.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The gateway that sluicegate@NAME.service runs: with /etc/sluicegate/NAME.toml and a state of its own.
    #[arg(long, global = true, value_name = "NAME", conflicts_with = "config")]
    instance: Option<Instance>,
    /// How much is logged: error, warn, info, debug or trace.
    #[arg(long, global = true, value_name = "LEVEL", default_value = "info")]
    log: Level,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway.
    Run,
    /// Check the config, and what it names.
    Check {
        /// Also try to open the devices; outputs are left alone.
        #[arg(long)]
        devices: bool,
        /// Also connect to the broker, and prove the rights to publish and subscribe.
        #[arg(long)]
        broker: bool,
    },
    /// Show what this board has, as config to paste: GPIO lines, serial ports, sensors.
    Discover {
        #[cfg(feature = "modbus")]
        #[command(flatten)]
        slaves: Slaves,
    },
    /// Show what a device would publish, live.
    Try {
        /// The device's name in the config.
        device: String,
        /// Instead, play this recording to its driver; no device is touched. Needs the feature `desk`, which programs built for
        /// boards do not have.
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
    },
    /// Record what goes between a device and the running gateway, for `try --from`: a line each, until Ctrl-C.
    Record {
        /// The device's name in the config.
        device: String,
        /// End by itself after this time.
        #[arg(long = "for", value_name = "TIME")]
        length: Option<crate::model::Span>,
    },
    /// Show how a frame of a serial device, or frames of a Modbus slave, are read, step by step, and where it fails. Needs the feature `desk`, which
    /// programs built for boards do not have.
    Decode {
        /// The device's name in the config.
        device: String,
        /// The bytes in hexadecimal digits; `-`: from the standard input.
        #[arg(required = true, value_name = "HEX")]
        bytes: Vec<String>,
    },
    /// Ask the running gateway how it is.
    Status,
    /// Make the running gateway read its config again, and take over what changed.
    Reload,
    /// Show what waits for the broker, or print it.
    Queue {
        /// Print the records that wait, a line of JSON each: of this lane, or of all.
        #[arg(long, value_name = "LANE", num_args = 0..=1, default_missing_value = "all",
              value_parser = ["all", "alarm", "outcome", "telemetry"])]
        dump: Option<String>,
    },
    /// List the kinds of devices.
    ListKinds {
        /// Show a config for this kind, with all its keys.
        kind: Option<String>,
    },
    /// Print the config as it is understood, with all layers and defaults.
    PrintConfig,
    /// What sluicegate-clock.service runs: wait until a time service has set the clock, and tell the gateway.
    #[command(hide = true)]
    WatchClock,
}

/// Where to look for Modbus slaves, and how.
#[cfg(feature = "modbus")]
#[derive(Debug, clap::Args)]
struct Slaves {
    /// Instead, ask on this serial port, or of this server (HOST:PORT), which Modbus units answer; writes nothing.
    #[arg(long, value_name = "PLACE")]
    modbus: Option<String>,
    /// Which units are asked.
    #[arg(long, value_name = "FIRST-LAST", default_value = "1-247", requires = "modbus")]
    units: crate::device::Units,
    /// At which rates, on a serial port.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "9600,19200", requires = "modbus")]
    baud_rates: Vec<u32>,
    /// With which parities, on a serial port: none, even, odd.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "none,even", requires = "modbus")]
    parities: Vec<String>,
    /// How long each has to answer.
    #[arg(long, value_name = "TIME", default_value = "100ms", requires = "modbus")]
    timeout: crate::model::Span,
}

/// What the command line understands, for what is made of it: the manual page and the shells' completions.
pub fn definition() -> clap::Command {
    Arguments::command()
}

/// Runs the program.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Before the config is read: outputs are safe also where it turns out to be wrong.
    let handed = if matches!(arguments.command, Command::Run) { Handed::take() } else { Handed::default() };
    let sources = Sources::of_process(arguments.config.as_deref(), arguments.instance);
    match arguments.command {
        #[cfg(feature = "modbus")]
        Command::Discover { slaves } if slaves.modbus.is_some() => run(scan(slaves), UNAVAILABLE),
        Command::Discover { .. } => {
            say(crate::device::discover(Path::new("/")).trim_end());
            ExitCode::SUCCESS
        }
        Command::ListKinds { kind } => list_kinds(kind.as_deref()),
        Command::PrintConfig => match config::print(&sources) {
            Ok(text) => {
                say(text.trim_end());
                ExitCode::SUCCESS
            }
            Err(errors) => wrong(&errors),
        },
        Command::Reload => run(reload(&sources), UNAVAILABLE),
        Command::WatchClock => run(watch_clock(), UNAVAILABLE),
        #[cfg(not(feature = "desk"))]
        Command::Try { from: Some(_), .. } | Command::Decode { .. } => {
            eprintln!(
                "sluicegate: this program was built for a board, without the feature `desk`: take one that was built with it, as `cargo build` does, and the same config"
            );
            ExitCode::from(UNAVAILABLE)
        }
        command => match config::load(&sources) {
            Ok(config) => {
                let level = match command {
                    Command::Run => arguments.log,
                    #[cfg(feature = "desk")]
                    // Each frame that its driver can't read is told there: that is what the desk is for.
                    Command::Try { from: Some(_), .. } => Level::DEBUG,
                    // That it waits for the device is no line of the recording.
                    Command::Record { .. } => Level::WARN,
                    _ => Level::ERROR,
                };
                log::start(level, sources.unit());
                let broken = if matches!(command, Command::Run) { SOFTWARE } else { UNAVAILABLE };
                // On the desk no time passes but that of the recording.
                #[cfg(feature = "desk")]
                if let Command::Try { from: Some(_), .. } = command {
                    return run_at(Pace::Desk, act(command, config, sources, handed), broken);
                }
                run(act(command, config, sources, handed), broken)
            }
            Err(errors) if matches!(command, Command::Run) => {
                // In the journal these are errors, each with its id.
                log::start(arguments.log, sources.unit());
                let missing = config::left_to_the_owner(&errors);
                if !missing.is_empty() {
                    return unconfigured(&sources, &missing);
                }
                for error in &errors {
                    tracing::error!(MESSAGE_ID = event::CONFIG_WRONG, "{error}");
                }
                ExitCode::from(CONFIG)
            }
            Err(errors) => wrong(&errors),
        },
    }
}

/// Says what is to be done first, where a person looks: `systemctl status` shows it as the status.
fn unconfigured(sources: &Sources, missing: &[&str]) -> ExitCode {
    let (file, start) = match &sources.places {
        Places::File(file) => (file.display().to_string(), "start it again".to_owned()),
        _ => {
            // Not sluicegate.toml: that is the package's, and dpkg asks about it at each upgrade once it was changed.
            let unit = sources.unit();
            let file = match unit.strip_prefix("sluicegate@") {
                Some(name) => format!("/etc/sluicegate/{name}.toml"),
                None => "/etc/sluicegate/conf.d/own.toml".to_owned(),
            };
            (file, format!("systemctl start {unit}"))
        }
    };
    let text = format!("not configured yet: set {} in {file}, then: {start}", missing.join(" and "));
    tracing::warn!(MESSAGE_ID = event::UNCONFIGURED, "{text}");
    let mut notifier = Notifier::default();
    // What ends before it was ready has failed.
    notifier.status(&text);
    notifier.ready();
    ExitCode::from(UNCONFIGURED)
}

/// Prints a line. False: nobody reads any more (`| head`), which is no error.
fn say(line: &str) -> bool {
    writeln!(std::io::stdout(), "{line}").is_ok()
}

fn wrong(errors: &[config::ConfigError]) -> ExitCode {
    for error in errors {
        eprintln!("{error}");
    }
    ExitCode::from(CONFIG)
}

fn list_kinds(kind: Option<&str>) -> ExitCode {
    let Some(name) = kind else {
        for kind in KINDS {
            say(&format!("{:<10} {}", kind.name, kind.summary));
        }
        return ExitCode::SUCCESS;
    };
    match crate::device::kind(name) {
        Some(kind) => {
            say(kind.sample.trim_end());
            ExitCode::SUCCESS
        }
        None => {
            let known: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
            eprintln!("there is no kind `{name}`: expected one of {}", known.join(", "));
            ExitCode::from(UNAVAILABLE)
        }
    }
}

/// By which clock a task runs.
enum Pace {
    /// The board's.
    Board,
    /// One that stands while there is something to do, and is at the next timer then.
    #[cfg(feature = "desk")]
    Desk,
}

/// Runs it to its end. `broken` is the exit status of an error.
fn run(task: impl Future<Output = anyhow::Result<ExitCode>>, broken: u8) -> ExitCode {
    run_at(Pace::Board, task, broken)
}

fn run_at(pace: Pace, task: impl Future<Output = anyhow::Result<ExitCode>>, broken: u8) -> ExitCode {
    let runtime = match pace {
        // Two threads: one may wait for a slow disk or name server while the other carries readings.
        Pace::Board => tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build(),
        #[cfg(feature = "desk")]
        Pace::Desk => tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build(),
    };
    let result = runtime.context("no runtime").and_then(|runtime| {
        let result = runtime.block_on(task);
        // All that must end has ended. A name server that does not answer keeps its thread for a minute and more, and
        // nobody waits for what it says.
        runtime.shutdown_background();
        result
    });
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("sluicegate: {error:#}");
            let locked = error.downcast_ref::<StateError>().is_some_and(|error| matches!(error, StateError::Locked(_)));
            ExitCode::from(if locked { TEMPFAIL } else { broken })
        }
    }
}

/// Asks the daemon; what it says goes to people as `check` says it.
async fn reload(sources: &Sources) -> anyhow::Result<ExitCode> {
    let reloaded = match (agent::ask_to_reload(sources).await, config::load(sources)) {
        (Ok(reloaded), _) => reloaded,
        // Where the gateway can't even be found by the config, that is what is wrong.
        (Err(_), Err(errors)) => return Ok(wrong(&errors)),
        (Err(error), Ok(_)) => return Err(error),
    };
    match reloaded {
        Reloaded::Refused(faults) => {
            for fault in faults {
                eprintln!("{fault}");
            }
            eprintln!("refused: the gateway goes on with the config that it has");
            Ok(ExitCode::from(CONFIG))
        }
        Reloaded::Done { changed, later } => {
            if changed.is_empty() {
                say("nothing changed");
            }
            for line in changed {
                say(&line);
            }
            for key in later {
                say(&format!("{key}: takes effect at the next start"));
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

#[cfg(feature = "modbus")]
async fn scan(slaves: Slaves) -> anyhow::Result<ExitCode> {
    let Slaves { modbus, units, baud_rates, parities, timeout } = slaves;
    let place = modbus.unwrap_or_default();
    crate::device::scan(&crate::device::Scan { place, units, baud_rates, parities, timeout }, |line| _ = say(line))
        .await?;
    Ok(ExitCode::SUCCESS)
}

async fn watch_clock() -> anyhow::Result<ExitCode> {
    agent::watch_clock().await?;
    Ok(ExitCode::SUCCESS)
}

async fn act(command: Command, config: Config, sources: Sources, handed: Handed) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run => match agent::run(config, sources, handed, CancellationToken::new()).await? {
            Exit::Stopped => Ok(ExitCode::SUCCESS),
            Exit::Broken(_) => Ok(ExitCode::from(SOFTWARE)),
        },
        Command::Check { devices, broker } => {
            say(&format!("config: ok: gateway {}, {} devices", config.gateway.id, config.devices.len()));
            let mut good = agent::check_rights(&config, &sources, devices, |line| _ = say(line));
            if devices {
                good &= agent::check_devices(&config, |line| _ = say(line)).await;
            }
            if broker {
                good &= agent::check_broker(&config, |line| _ = say(line)).await;
            }
            Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(UNAVAILABLE) })
        }
        #[cfg(feature = "desk")]
        Command::Try { device, from: Some(file) } => {
            agent::replay(config, &device, &file, say).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Record { device, length } => {
            let mut failed = None;
            let keep = |line: &str| match writeln!(std::io::stdout(), "{line}") {
                Ok(()) => true,
                Err(error) => {
                    failed = Some(error);
                    false
                }
            };
            agent::record_device(config, &device, length, keep).await?;
            // Where nobody reads any more it is enough; a file that is full is none.
            match failed.filter(|error| error.kind() != std::io::ErrorKind::BrokenPipe) {
                Some(error) => Err(error).context("the recording can't be written"),
                None => Ok(ExitCode::SUCCESS),
            }
        }
        #[cfg(feature = "desk")]
        Command::Decode { device, bytes } => {
            let mut text = bytes.join(" ");
            if text == "-" {
                text = std::io::read_to_string(std::io::stdin()).context("the standard input can't be read")?;
            }
            let good = agent::decode(config, &device, &text, |line| _ = say(line))?;
            Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(UNAVAILABLE) })
        }
        Command::Try { device, .. } => {
            agent::try_device(config, &device, say).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Status => {
            let path = agent::control_path(&config);
            let print = |line: &str| {
                // Shown as it came if it is not what we know.
                let pretty = serde_json::from_str::<serde_json::Value>(line)
                    .and_then(|value| serde_json::to_string_pretty(&value));
                say(pretty.as_deref().unwrap_or(line))
            };
            control::ask(&path, &Question::Status, print)
                .await
                .with_context(|| format!("no gateway answers at {}; is it running?", path.display()))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Queue { dump: None } => {
            agent::show_queue(&config, say).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Queue { dump: Some(lane) } => {
            let lane = Lane::ALL.into_iter().find(|of| of.to_string() == lane);
            agent::dump_queue(&config, lane, say).await?;
            Ok(ExitCode::SUCCESS)
        }
        #[cfg(not(feature = "desk"))]
        Command::Decode { .. } => Ok(ExitCode::from(UNAVAILABLE)),
        Command::Discover { .. }
        | Command::ListKinds { .. }
        | Command::PrintConfig
        | Command::Reload
        | Command::WatchClock => Ok(ExitCode::SUCCESS),
    }
}
