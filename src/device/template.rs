//! What is sent to the device for a value.

use crate::model::Value;

/// Bytes with places for the value: `VALVE {value}\r\n`. `{{` and `}}` stand for one brace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    /// The value stands between each two of these.
    parts: Vec<String>,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// When a brace is neither doubled nor part of `{value}`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        const WRONG: &str = "expected `{value}` for the value, and `{{` or `}}` for a brace";
        let mut parts = vec![String::new()];
        let mut rest = text;
        while let Some((before, found)) = rest.find(['{', '}']).and_then(|at| rest.split_at_checked(at)) {
            let part = parts.last_mut().expect("it begins with one part and none is removed");
            part.push_str(before);
            if let Some(after) = found.strip_prefix("{{") {
                part.push('{');
                rest = after;
            } else if let Some(after) = found.strip_prefix("}}") {
                part.push('}');
                rest = after;
            } else if let Some(after) = found.strip_prefix("{value}") {
                parts.push(String::new());
                rest = after;
            } else {
                return Err(WRONG.to_owned());
            }
        }
        parts.last_mut().expect("it begins with one part and none is removed").push_str(rest);
        if text.is_empty() {
            return Err("expected what to send, such as \"SET {value}\\r\\n\"".to_owned());
        }
        Ok(Template { parts })
    }

    /// The bytes for a raw value. A switch is `1` or `0`; the point's `map` gives it other names.
    ///
    /// # Errors
    /// When the value holds control characters: a line end in a text would let it be followed by a second command.
    pub(super) fn render(&self, value: &Value) -> Result<String, String> {
        let text = match value {
            Value::Bool(on) => u8::from(*on).to_string(),
            other => other.to_string(),
        };
        if text.chars().any(char::is_control) {
            return Err("a text with control characters can't be sent to the device".to_owned());
        }
        Ok(self.parts.join(&text))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_value_takes_its_place() {
        for (template, value, expected) in [
            ("VALVE {value}\r\n", Value::Int(42), "VALVE 42\r\n"),
            ("{value}", Value::Float(21.5), "21.5"),
            ("{value}", Value::Float(-0.0001), "-0.0001"),
            ("OUT {value}\n", Value::Bool(true), "OUT 1\n"),
            ("OUT {value}\n", Value::text("ON"), "OUT ON\n"),
            ("RESET\r\n", Value::Bool(true), "RESET\r\n"),
            ("{{\"valve\":{value}}}\n", Value::Int(1), "{\"valve\":1}\n"),
            ("{value}{{value}}{value}", Value::Int(7), "7{value}7"),
        ] {
            assert_eq!(Template::parse(template).and_then(|t| t.render(&value)).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn a_brace_that_means_nothing_is_refused() {
        for wrong in ["", "{", "}", "a{b}", "{value", "{ value }", "}{", "{{}", "{point}"] {
            assert!(Template::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_value_can_not_smuggle_a_second_command() {
        let template = Template::parse("SAY {value}\r\n").unwrap();
        assert!(template.render(&Value::text("hello\r\nOPEN ALL")).is_err());
        assert!(template.render(&Value::text("nul\0")).is_err());
        assert!(template.render(&Value::text("grün")).is_ok());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text: String, value: i64) {
            if let Ok(template) = Template::parse(&text) {
                prop_assert!(template.render(&Value::Int(value)).is_ok());
            }
        }

        #[test]
        fn a_text_with_doubled_braces_is_sent_as_it_was(text in ".+") {
            let template = Template::parse(&text.replace('{', "{{").replace('}', "}}")).unwrap();
            prop_assert_eq!(template.render(&Value::Int(1)), Ok(text));
        }
    }
}
