//! What is sent to the device for a value.

use data_encoding::HEXLOWER_PERMISSIVE;

use crate::model::Value;

/// Bytes with places for the value: `VALVE {value}\r\n`, or `{bytes}` for those whose hexadecimal digits the value is. `{{`
/// and `}}` stand for one brace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    /// A text, and what stands behind it.
    parts: Vec<(String, Place)>,
}

/// What stands between two texts of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Value,
    Bytes,
    End,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// When a brace is neither doubled nor part of `{value}` or `{bytes}`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        const WRONG: &str = "expected `{value}` for the value, `{bytes}` for the bytes that it is in hexadecimal, and `{{` or `}}` for a brace";
        let (mut parts, mut part, mut rest) = (Vec::new(), String::new(), text);
        while let Some((before, found)) = rest.find(['{', '}']).and_then(|at| rest.split_at_checked(at)) {
            part.push_str(before);
            if let Some(after) = found.strip_prefix("{{") {
                part.push('{');
                rest = after;
            } else if let Some(after) = found.strip_prefix("}}") {
                part.push('}');
                rest = after;
            } else if let Some(after) = found.strip_prefix("{value}") {
                parts.push((std::mem::take(&mut part), Place::Value));
                rest = after;
            } else if let Some(after) = found.strip_prefix("{bytes}") {
                parts.push((std::mem::take(&mut part), Place::Bytes));
                rest = after;
            } else {
                return Err(WRONG.to_owned());
            }
        }
        part.push_str(rest);
        parts.push((part, Place::End));
        if text.is_empty() {
            return Err("expected what to send, such as \"SET {value}\\r\\n\"".to_owned());
        }
        Ok(Template { parts })
    }

    /// The bytes for a raw value. A switch is `1` or `0`; the point's `map` gives it other names.
    ///
    /// # Errors
    /// When the value holds control characters: a line end in a text would let it be followed by a second command. When it
    /// is no hexadecimal digits where it should be.
    pub(super) fn render(&self, value: &Value) -> Result<Vec<u8>, String> {
        let text = match value {
            Value::Bool(on) => u8::from(*on).to_string(),
            other => other.to_string(),
        };
        let (mut made, mut quotes) = (Vec::new(), 0);
        for (part, place) in &self.parts {
            made.extend_from_slice(part.as_bytes());
            quotes += part.matches('"').count();
            match place {
                Place::Value if text.chars().any(char::is_control) => {
                    return Err("a text with control characters can't be sent to the device".to_owned());
                }
                // Between quotes a quote would end the text, and what follows be fields of its own.
                Place::Value if quotes % 2 == 1 && text.contains(['"', '\\']) => {
                    return Err("a text with a quote or a backslash can't be sent to this device".to_owned());
                }
                Place::Value => made.extend_from_slice(text.as_bytes()),
                Place::Bytes => {
                    let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes());
                    made.extend(bytes.map_err(|_| format!("`{text}` is no hexadecimal digits, two for a byte"))?);
                }
                Place::End => {}
            }
        }
        Ok(made)
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
            let rendered = Template::parse(template).and_then(|template| template.render(&value));
            assert_eq!(rendered, Ok(expected.as_bytes().to_vec()), "{template}");
        }
    }

    #[test]
    fn digits_become_bytes() {
        let template = Template::parse("\u{2}{bytes}\u{3}").unwrap();
        assert_eq!(template.render(&Value::text("00fF0d0a")), Ok(vec![2, 0, 255, 13, 10, 3]));
        assert_eq!(template.render(&Value::text("0")), Err("`0` is no hexadecimal digits, two for a byte".to_owned()));
        assert!(template.render(&Value::text("xy")).is_err());
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
        assert!(template.render(&Value::text("\"quoted\"")).is_ok());
        let json = Template::parse("{{\"say\":\"{value}\"}}").unwrap();
        let later = Template::parse("{{\"n\":{value},\"say\":\"it is {value}!\"}}").unwrap();
        assert!(later.render(&Value::text("\"")).is_err());
        assert!(json.render(&Value::text("a\",\"relay\":\"on")).is_err());
        assert!(json.render(&Value::text("a\\")).is_err());
        assert_eq!(json.render(&Value::text("a")), Ok(b"{\"say\":\"a\"}".to_vec()));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text: String, value: i64) {
            if let Ok(template) = Template::parse(&text) {
                let has_digits = template.parts.iter().any(|(_, place)| *place == Place::Bytes);
                prop_assert!(has_digits || template.render(&Value::Int(value)).is_ok());
            }
        }

        #[test]
        fn a_text_with_doubled_braces_is_sent_as_it_was(text in ".+") {
            let template = Template::parse(&text.replace('{', "{{").replace('}', "}}")).unwrap();
            prop_assert_eq!(template.render(&Value::Int(1)), Ok(text.into_bytes()));
        }
    }
}
