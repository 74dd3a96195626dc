//! Tables one over the other.

use config::{Map, Source, Value, ValueKind};

/// The one key of a layer's root. The `config` crate reads the keys there as paths, and here are names of people's.
const ROOT: &str = "root";

/// Keys of which a table has exactly one (see `link::Secret`): another one in a later layer takes its place.
const ALTERNATIVES: [&str; 3] = ["file", "env", "credential"];

/// Lays tables one over the other. A later one changes single keys of those before it, however deep.
pub(super) fn merge(layers: Vec<toml::Table>) -> toml::Table {
    layers.into_iter().fold(toml::Table::new(), |mut below, above| {
        make_way(&mut below, &above, 0);
        let builder = config::Config::builder().add_source(Layer(below)).add_source(Layer(above));
        let merged = builder.build().expect("layers are tables in memory, and collecting them can't fail");
        match to_toml(merged.cache.kind) {
            toml::Value::Table(mut root) => match root.remove(ROOT) {
                Some(toml::Value::Table(table)) => table,
                _ => toml::Table::new(),
            },
            _ => toml::Table::new(),
        }
    })
}

/// Keys of a variable's name as the tables spell them: without regard to case, and with `_` for `-`, since neither can
/// be said in the name of a variable.
pub(super) fn spelled(table: &toml::Table, keys: &[String]) -> Vec<String> {
    let mut table = Some(table);
    let mut path = Vec::new();
    for key in keys {
        let alike = |other: &&String| other.to_lowercase().replace('-', "_") == *key;
        let here = table.and_then(|table| table.get_key_value(key).or_else(|| table.iter().find(|(k, _)| alike(k))));
        path.push(here.map_or_else(|| key.clone(), |(spelling, _)| spelling.clone()));
        table = here.and_then(|(_, value)| value.as_table());
    }
    path
}

/// Sets a key, however deep; what is in its way is replaced.
pub(super) fn set(table: &mut toml::Table, path: &[String], value: toml::Value) {
    let Some((key, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        table.insert(key.clone(), value);
        return;
    }
    let inner = table.entry(key.clone()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
    if !inner.is_table() {
        *inner = toml::Value::Table(toml::Table::new());
    }
    if let toml::Value::Table(inner) = inner {
        set(inner, rest, value);
    }
}

/// What the text of a variable says: a number, a switch, a list or a table as in TOML, and else a text.
pub(super) fn typed(raw: &str) -> toml::Value {
    let text = || toml::Value::String(raw.to_owned());
    let Ok(mut table) = format!("value = {raw}").parse::<toml::Table>() else { return text() };
    match table.remove("value") {
        Some(toml::Value::Datetime(_)) | None => text(),
        Some(_) if !table.is_empty() => text(),
        Some(value) => value,
    }
}

#[derive(Debug, Clone)]
struct Layer(toml::Table);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        Ok(Map::from_iter([(ROOT.to_owned(), from_toml(&toml::Value::Table(self.0.clone())))]))
    }
}

/// Takes out what a later layer says in another way: a secret by file instead of by credential, a frame of another
/// kind. Else the old keys would stand beside the new ones, where they are wrong.
fn make_way(below: &mut toml::Table, above: &toml::Table, depth: usize) {
    let plain = |value: &toml::Value| !matches!(value, toml::Value::Table(_) | toml::Value::Array(_));
    if ALTERNATIVES.iter().any(|key| above.get(*key).is_some_and(plain)) {
        below.retain(|key, value| !ALTERNATIVES.contains(&key) || !plain(value));
    }
    // `device.tank` itself keeps its points.
    if depth > 2
        && let (Some(new), Some(old)) = (above.get("kind"), below.get("kind"))
        && new != old
    {
        below.clear();
    }
    for (key, value) in above {
        if let (toml::Value::Table(above), Some(toml::Value::Table(below))) = (value, below.get_mut(key)) {
            make_way(below, above, depth + 1);
        }
    }
}

fn from_toml(value: &toml::Value) -> Value {
    let kind = match value {
        toml::Value::String(text) => ValueKind::String(text.clone()),
        toml::Value::Integer(number) => ValueKind::I64(*number),
        toml::Value::Float(number) => ValueKind::Float(*number),
        toml::Value::Boolean(switch) => ValueKind::Boolean(*switch),
        toml::Value::Datetime(time) => ValueKind::String(time.to_string()),
        toml::Value::Array(list) => ValueKind::Array(list.iter().map(from_toml).collect()),
        toml::Value::Table(table) => {
            ValueKind::Table(table.iter().map(|(key, value)| (key.clone(), from_toml(value))).collect())
        }
    };
    Value::new(None, kind)
}

fn to_toml(kind: ValueKind) -> toml::Value {
    match kind {
        // The next four can't come, since `from_toml` makes none of them.
        ValueKind::Nil => toml::Value::String(String::new()),
        ValueKind::I128(number) => toml::Value::String(number.to_string()),
        ValueKind::U64(number) => toml::Value::String(number.to_string()),
        ValueKind::U128(number) => toml::Value::String(number.to_string()),
        ValueKind::Boolean(switch) => toml::Value::Boolean(switch),
        ValueKind::I64(number) => toml::Value::Integer(number),
        ValueKind::Float(number) => toml::Value::Float(number),
        ValueKind::String(text) => toml::Value::String(text),
        ValueKind::Table(table) => {
            toml::Value::Table(table.into_iter().map(|(key, value)| (key, to_toml(value.kind))).collect())
        }
        ValueKind::Array(list) => toml::Value::Array(list.into_iter().map(|value| to_toml(value.kind)).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> toml::Table {
        text.parse().unwrap()
    }

    #[test]
    fn a_later_layer_changes_single_keys() {
        for (below, above, expected) in [
            ("a.b = 1\na.c = 2", "a.b = 3", "a.b = 3\na.c = 2"),
            (
                "[device.Tank-1]\nport = \"x\"\nbaud_rate = 9600",
                "device.Tank-1.baud_rate = 1",
                "[device.Tank-1]\nport = \"x\"\nbaud_rate = 1",
            ),
            ("list = [1, 2]", "list = [3]", "list = [3]"),
            ("\"a.b[0]\" = 1\n\"\" = 2", "x = 1.5", "\"a.b[0]\" = 1\n\"\" = 2\nx = 1.5"),
            ("id = \"a\"", "id = { file = \"b\" }", "id = { file = \"b\" }"),
            ("p = { file = \"b\" }", "p = { env = \"E\" }", "p = { env = \"E\" }"),
            ("p.file.unit = \"a\"", "p.env.unit = \"b\"", "p.file.unit = \"a\"\np.env.unit = \"b\""),
            (
                "d.t.p.frame = { kind = \"line\", max = 1 }",
                "d.t.p.frame = { kind = \"raw\" }",
                "d.t.p.frame = { kind = \"raw\" }",
            ),
            (
                "d.t.p.frame = { kind = \"line\", max = 1 }",
                "d.t.p.frame = { max = 2 }",
                "d.t.p.frame = { kind = \"line\", max = 2 }",
            ),
            ("d.t = { kind = \"a\", port = 1 }", "d.t.kind = \"b\"", "d.t = { kind = \"b\", port = 1 }"),
        ] {
            assert_eq!(merge(vec![table(below), table(above)]), table(expected), "{above} over {below}");
        }
    }

    #[test]
    fn a_variable_finds_the_key_it_means() {
        let below = table("[device.Pump-House.point.Level_1]\nunit = \"m\"");
        let keys = |text: &str| -> Vec<String> { text.split('.').map(str::to_owned).collect() };
        for (said, meant) in [
            ("device.pump_house.point.level_1.unit", "device.Pump-House.point.Level_1.unit"),
            ("device.pump_house.port", "device.Pump-House.port"),
            ("device.other.port", "device.other.port"),
        ] {
            assert_eq!(spelled(&below, &keys(said)), keys(meant));
        }
    }

    #[test]
    fn a_variable_has_the_type_that_it_looks_like() {
        for (raw, expected) in [
            ("5", "v = 5"),
            ("true", "v = true"),
            ("1.5", "v = 1.5"),
            ("30s", "v = \"30s\""),
            ("\"5\"", "v = \"5\""),
            ("[\"a\", \"b\"]", "v = [\"a\", \"b\"]"),
            ("{ rate = \"off\" }", "v = { rate = \"off\" }"),
            ("2026-01-01", "v = \"2026-01-01\""),
            ("5\nx = 6", "v = \"5\\nx = 6\""),
            ("", "v = \"\""),
        ] {
            assert_eq!(Some(&typed(raw)), table(expected).get("v"), "{raw}");
        }
    }
}
