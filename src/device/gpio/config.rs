//! The keys of a GPIO device and of its points.

use toml::{Table, Value};

use crate::model::{Declaration, Fault, Keys, Span, ValueType};

/// The keys of the device's table that are this kind's own.
#[derive(Debug)]
pub(super) struct Config {
    /// How the kernel is asked: `auto`, `cdev` or `sysfs`.
    pub backend: Choice,
}

/// How the kernel is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// The character device where one opens, else sysfs.
    Auto,
    /// The character device, `/dev/gpiochipN` (Linux 4.8 and later).
    Cdev,
    /// `/sys/class/gpio`, for older kernels.
    Sysfs,
}

/// The keys of a point's table that are this kind's own.
#[derive(Debug, Clone)]
pub(super) struct PointConfig {
    /// Which line.
    pub line: Place,
    /// `in` or `out`.
    pub direction: Direction,
    /// The line's own resistor; character device only.
    pub bias: Option<Bias>,
    /// A low level is on.
    pub active_low: bool,
    /// Inputs: a level counts once it held for this long.
    pub debounce: Option<Span>,
    /// Outputs: how the line is driven; character device only.
    pub drive: Option<Drive>,
}

/// Which line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::device) enum Place {
    /// By its name, which must be the only one.
    Name(String),
    /// By a chip and the number of the line on it.
    Offset(ChipLine),
    /// By the number that sysfs has for it.
    Number(Number),
}

/// A line on a chip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::device) struct ChipLine {
    /// The chip's label, in which `*` and `?` stand for what the kernel numbers, or its path.
    pub chip: String,
    /// The line's place on it, from 0.
    pub offset: u32,
}

/// A line by its global number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::device) struct Number {
    /// As in `/sys/class/gpio/export`.
    pub number: u32,
}

/// Input or output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    In,
    Out,
}

/// The line's own resistor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::device) enum Bias {
    /// As it was found.
    AsIs,
    /// None.
    Disabled,
    /// To the supply.
    PullUp,
    /// To ground.
    PullDown,
}

/// How an output is driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drive {
    /// To both levels.
    PushPull,
    /// To low only.
    OpenDrain,
    /// To high only.
    OpenSource,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Name(name) => write!(f, "line `{name}`"),
            Place::Offset(ChipLine { chip, offset }) => write!(f, "line {offset} of `{chip}`"),
            Place::Number(Number { number }) => write!(f, "line number {number}"),
        }
    }
}

/// The keys of the device's table.
pub(super) const DEVICE_KEYS: &[&str] = &["backend"];

/// The keys of a point's table.
pub(super) const POINT_KEYS: &[&str] = &["active_low", "bias", "debounce", "direction", "drive", "line"];

const CHOICES: [(&str, Choice); 3] = [("auto", Choice::Auto), ("cdev", Choice::Cdev), ("sysfs", Choice::Sysfs)];

const BIASES: [(&str, Bias); 4] =
    [("as-is", Bias::AsIs), ("disabled", Bias::Disabled), ("pull-up", Bias::PullUp), ("pull-down", Bias::PullDown)];

const DRIVES: [(&str, Drive); 3] =
    [("push-pull", Drive::PushPull), ("open-drain", Drive::OpenDrain), ("open-source", Drive::OpenSource)];

impl Config {
    /// Reads the device's table.
    pub(super) fn read(table: &Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        let backend = keys.one_of("backend", &CHOICES).unwrap_or(Choice::Auto);
        keys.end(Config { backend })
    }
}

impl Place {
    /// Reads `line`.
    pub(in crate::device) fn read(keys: &mut Keys<'_>) -> Option<Self> {
        let expected = "a line's name, { chip = \"label or /dev/gpiochipN\", offset = 17 } or { number = 529 }";
        keys.any("line", Place::of, expected)
    }

    fn of(value: &Value) -> Option<Self> {
        let table = match value {
            Value::String(name) => return Some(Place::Name(name.clone())),
            other => other.as_table()?,
        };
        let whole = |key| u32::try_from(table.get(key)?.as_integer()?).ok();
        match (table.len(), table.get("chip")) {
            (1, None) => Some(Place::Number(Number { number: whole("number")? })),
            (2, Some(chip)) => {
                Some(Place::Offset(ChipLine { chip: chip.as_str()?.to_owned(), offset: whole("offset")? }))
            }
            _ => None,
        }
    }
}

impl Bias {
    /// Reads `bias`.
    pub(in crate::device) fn read(keys: &mut Keys<'_>) -> Option<Self> {
        keys.one_of("bias", &BIASES)
    }
}

impl PointConfig {
    /// Reads the keys of a point.
    pub(super) fn read(table: &Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        keys.needs("line");
        let directions = [("in", Direction::In), ("out", Direction::Out)];
        let read = PointConfig {
            line: Place::read(&mut keys).unwrap_or(Place::Name(String::new())),
            direction: keys.one_of("direction", &directions).unwrap_or(Direction::In),
            bias: Bias::read(&mut keys),
            active_low: keys.flag("active_low").unwrap_or_default(),
            debounce: keys.time("debounce"),
            drive: keys.one_of("drive", &DRIVES),
        };
        keys.end(read)
    }

    /// Whether it is an output.
    pub(super) fn is_output(&self) -> bool {
        self.direction == Direction::Out
    }

    /// What only the character device can do, if anything.
    pub(super) fn needs_cdev(&self) -> Option<&'static str> {
        let drive = self.drive.filter(|drive| *drive != Drive::PushPull).map(|_| "drive");
        self.bias.filter(|bias| *bias != Bias::AsIs).map(|_| "bias").or(drive)
    }

    /// What the types can't say.
    pub(super) fn check(&self, declaration: &Declaration, choice: Choice) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut wrong = |key: &str, text: &str| faults.push(Fault::at(key, text));
        if self.is_output() {
            match &declaration.safe {
                None => wrong("safe", "an output needs a safe state: expected `safe = true` or `safe = false`"),
                Some(safe) if safe.convert(ValueType::Bool).is_err() => wrong("safe", "expected true or false"),
                Some(_) => {}
            }
            if self.debounce.is_some() {
                wrong("debounce", "only an input has one: remove it, or set `direction = \"in\"`");
            }
        } else {
            for (key, set) in [("safe", declaration.safe.is_some()), ("drive", self.drive.is_some())] {
                if set {
                    wrong(key, "only an output has one: remove it, or set `direction = \"out\"`");
                }
            }
        }
        if let (Choice::Sysfs, Some(key)) = (choice, self.needs_cdev()) {
            wrong(key, "sysfs can't set it: remove it, or set `backend = \"cdev\"`");
        }
        if matches!(&self.line, Place::Name(name) if name.is_empty()) {
            wrong("line", "expected a line's name, such as \"GPIO17\"");
        }
        faults
    }

    /// An output's safe level.
    pub(super) fn safe_level(&self, declaration: &Declaration) -> Option<bool> {
        let safe = declaration.safe.as_ref().and_then(|safe| safe.convert(ValueType::Bool).ok());
        let safe = matches!(safe, Some(crate::model::Value::Bool(true)));
        self.is_output().then_some(safe)
    }
}
