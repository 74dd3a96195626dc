//! Where logs go: to the journal as fields when systemd runs us, else to stderr.

use tracing::Level;
use tracing::field::Field;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts logging. `level` is for our own lines; those of libraries start at warnings. `unit` is what the journal calls
/// us.
///
/// Fields become journal fields by their names: `MESSAGE_ID=`, `DEVICE=`, `POINT=`, `LANE=`, `ID=`.
pub fn start(level: Level, unit: String) {
    let filter = Targets::new()
        .with_default(level.min(Level::WARN))
        .with_target("sluicegate", level)
        // Its notes on packets that a broker refuses are told by us, with the topic.
        .with_target("rumqttc", Level::ERROR);
    let registry = tracing_subscriber::registry().with(filter);
    // systemd says so where stderr is the journal (systemd.exec(5)).
    let journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    let started = match journal {
        Some(layer) => {
            // INFO is "informational", not "notice" as the crate would have it.
            let mappings = tracing_journald::PriorityMappings {
                info: tracing_journald::Priority::Informational,
                ..tracing_journald::PriorityMappings::new()
            };
            let layer = layer.with_syslog_identifier(unit);
            registry.with(layer.with_field_prefix(None).with_priority_mappings(mappings)).try_init()
        }
        None => {
            let layer = tracing_subscriber::fmt::layer()
                .with_writer(std::io::stderr)
                .with_target(false)
                .with_ansi(false)
                .fmt_fields(tracing_subscriber::fmt::format::debug_fn(field));
            registry.with(layer).try_init()
        }
    };
    if started.is_err() {
        // In tests a second start finds the first one's logging.
        tracing::debug!("logging was started before");
    }
}

/// A field in a line on stderr, where the message comes first. What only the journal has a use for is left out.
fn field(line: &mut Writer<'_>, field: &Field, value: &dyn std::fmt::Debug) -> std::fmt::Result {
    match field.name() {
        "message" => write!(line, "{value:?}"),
        "MESSAGE_ID" => Ok(()),
        name if name.starts_with("log.") => Ok(()),
        name => write!(line, " {name}={value:?}"),
    }
}
