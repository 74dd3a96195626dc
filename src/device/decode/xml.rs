//! The values at some places of an XML document, the first of each: an element's text, or an attribute's. Read in one pass
//! that keeps nothing else of it.

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

use super::{Slot, Undecodable};

/// Elements may be so deep in each other: more than any device has, and little to remember.
const DEEPEST: usize = 64;

/// Places of a document: `/status/tank/level`, `/status/tank/@unit`.
#[derive(Debug)]
pub(super) struct Paths(Vec<Path>);

#[derive(Debug)]
struct Path {
    elements: Vec<String>,
    attribute: Option<String>,
}

/// An element whose text is wanted.
struct Wanted {
    depth: usize,
    text: String,
    /// It holds others, and so is no value.
    is_nest: bool,
    slots: Vec<usize>,
}

impl Paths {
    /// Paths for the slots from 0; those that [`is_path`] refuses lead nowhere.
    pub(super) fn new<'a>(paths: impl Iterator<Item = &'a str>) -> Self {
        Paths(paths.map(Path::parse).collect())
    }

    /// Fills the slots from a document. `field`: what a text is worth in a slot.
    pub(super) fn read(
        &self,
        document: &str,
        slots: &mut [Slot],
        field: impl Fn(usize, &str) -> Slot,
    ) -> Result<(), Undecodable> {
        let mut reader = Reader::from_str(document);
        reader.config_mut().expand_empty_elements = true;
        let (mut path, mut open, mut found) = (Vec::<String>::new(), Vec::<Wanted>::new(), vec![false; self.0.len()]);
        let mut has_root = false;
        loop {
            match reader.read_event().map_err(wrong)? {
                Event::Start(tag) => {
                    if path.is_empty() && has_root {
                        return Err(wrong("it has a second root"));
                    }
                    if path.len() == DEEPEST {
                        return Err(wrong("it is too deep"));
                    }
                    if let Some(around) = open.last_mut().filter(|wanted| wanted.depth == path.len()) {
                        around.is_nest = true;
                    }
                    has_root = true;
                    path.push(tag.name().as_ref().to_owned());
                    let new =
                        self.0.iter().enumerate().filter(|(slot, wanted)| !found[*slot] && wanted.elements == path);
                    let new: Vec<(usize, Option<&str>)> =
                        new.map(|(slot, wanted)| (slot, wanted.attribute.as_deref())).collect();
                    attributes(&tag, &new, |slot, value| {
                        found[slot] = true;
                        slots[slot] = field(slot, value);
                    })?;
                    let of_text: Vec<usize> =
                        new.iter().filter(|(_, attribute)| attribute.is_none()).map(|(slot, _)| *slot).collect();
                    if !of_text.is_empty() {
                        of_text.iter().for_each(|slot| found[*slot] = true);
                        open.push(Wanted { depth: path.len(), text: String::new(), is_nest: false, slots: of_text });
                    }
                }
                Event::Text(part) => say(&mut open, &path, &part.xml_content(XmlVersion::Implicit1_0))?,
                Event::CData(part) => say(&mut open, &path, &part.xml_content(XmlVersion::Implicit1_0))?,
                Event::GeneralRef(name) => {
                    let code = name.resolve_char_ref().map_err(wrong)?.map(String::from);
                    let known = code.or_else(|| quick_xml::escape::resolve_predefined_entity(&name).map(str::to_owned));
                    say(&mut open, &path, &known.ok_or_else(|| wrong("an entity that XML itself does not know"))?)?;
                }
                Event::End(_) => {
                    if let Some(Wanted { text, is_nest, slots: of_text, .. }) =
                        open.pop_if(|wanted| wanted.depth == path.len())
                    {
                        for slot in of_text {
                            slots[slot] = if is_nest { Slot::Bad } else { field(slot, &text) };
                        }
                    }
                    path.pop();
                }
                Event::DocType(_) => return Err(wrong("it has a document type")),
                Event::Eof if path.is_empty() && has_root => return Ok(()),
                Event::Eof => return Err(wrong("it ends too early")),
                Event::Empty(_) | Event::Decl(_) | Event::PI(_) | Event::Comment(_) => {}
            }
        }
    }
}

impl Path {
    fn parse(text: &str) -> Self {
        let mut elements: Vec<String> = text.split('/').skip(1).map(str::to_owned).collect();
        let attribute = elements.pop_if(|last| last.starts_with('@')).map(|last| last.replace('@', ""));
        Path { elements, attribute }
    }
}

/// Whether this is a path.
pub(super) fn is_path(text: &str) -> bool {
    let Some(rest) = text.strip_prefix('/') else { return false };
    let (elements, attribute) = match rest.rsplit_once("/@") {
        Some((elements, attribute)) => (elements, Some(attribute)),
        None => (rest, None),
    };
    elements.split('/').chain(attribute).all(|name| {
        !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control() || "@<>&='\"/".contains(c))
    })
}

fn wrong(error: impl std::fmt::Display) -> Undecodable {
    Undecodable::NotXml(error.to_string())
}

/// All attributes are looked at, those that are wanted are told.
fn attributes(
    tag: &BytesStart<'_>,
    wanted: &[(usize, Option<&str>)],
    mut tell: impl FnMut(usize, &str),
) -> Result<(), Undecodable> {
    for attribute in tag.attributes() {
        let attribute = attribute.map_err(wrong)?;
        let name = attribute.key.as_ref();
        for (slot, _) in wanted.iter().filter(|(_, wanted)| *wanted == Some(name)) {
            tell(*slot, &attribute.normalized_value(XmlVersion::Implicit1_0).map_err(wrong)?);
        }
    }
    Ok(())
}

/// Text of the element that is open: outside of all there is none.
fn say(open: &mut [Wanted], path: &[String], text: &str) -> Result<(), Undecodable> {
    if path.is_empty() && !text.trim().is_empty() {
        return Err(wrong("there is text outside of its root"));
    }
    if let Some(wanted) = open.last_mut().filter(|wanted| wanted.depth == path.len()) {
        wanted.text.push_str(text);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Value;

    fn read(paths: &[&str], document: &str) -> Result<Vec<Slot>, String> {
        let mut slots = vec![Slot::Absent; paths.len()];
        let field = |_, text: &str| Slot::Value(Value::text(text));
        let result = Paths::new(paths.iter().copied()).read(document, &mut slots, field);
        result.map(|()| slots).map_err(|error| error.to_string())
    }

    #[test]
    fn a_path_finds_the_first_of_its_kind() {
        let word = |text: &str| Slot::Value(Value::text(text));
        let document = "<?xml version=\"1.0\"?>\n<!-- of a tank -->\n<status seq='7'>\n <tank unit=\"c&#109;\"><level>21\
                        <![CDATA[.]]>5</level><level>9</level><name>A &amp; B</name></tank><tank unit=\"m\"><level>1</level>\
                        <valve/></tank><x:y>3</x:y></status>\n";
        for (path, expected) in [
            ("/status/tank/level", word("21.5")),
            ("/status/tank/@unit", word("cm")),
            ("/status/@seq", word("7")),
            ("/status/tank/name", word("A & B")),
            ("/status/tank/valve", word("")),
            ("/status/x:y", word("3")),
            ("/status/tank", Slot::Bad),
            ("/status", Slot::Bad),
            ("/status/tank/@none", Slot::Absent),
            ("/status/none", Slot::Absent),
            ("/tank/level", Slot::Absent),
        ] {
            assert_eq!(read(&[path], document), Ok(vec![expected.clone()]), "{path}");
            assert_eq!(
                read(&["/status/none", path, path], document).map(|slots| slots[2].clone()),
                Ok(expected),
                "{path}"
            );
        }
    }

    #[test]
    fn what_is_no_document_is_an_error() {
        let deep = format!("{}{}", "<a>".repeat(DEEPEST + 1), "</a>".repeat(DEEPEST + 1));
        let entities = "<!DOCTYPE a [<!ENTITY b \"bbbb\"><!ENTITY c \"&b;&b;\">]><a>&c;</a>";
        for document in [
            "",
            " ",
            "text",
            "<a>",
            "<a></b>",
            "<a/><b/>",
            "<a/>x",
            "<a>&b;</a>",
            "<a b='1' b='2'/>",
            "<a b=1/>",
            "<!DOCTYPE a><a/>",
            "<a",
            &deep,
            entities,
        ] {
            assert!(read(&["/a"], document).is_err(), "{document}");
        }
    }

    #[test]
    fn a_wrong_path_is_refused() {
        for good in ["/a", "/a/b", "/a/@b", "/ns:a/b-c/d.e"] {
            assert!(is_path(good), "{good}");
        }
        for wrong in ["", "a", "/", "/a/", "//a", "/@a", "/a/@b/c", "/a/@", "/a b", "/a/@@b", "/a[1]=\"", "/a/b@c"] {
            assert!(!is_path(wrong), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[<>/a&;b='\"! \\[\\]-]{0,60}") {
            drop(read(&["/a", "/a/b", "/a/@b"], &text));
        }

        #[test]
        fn a_text_that_was_written_is_found(text in "[^\u{0}-\u{1f}\u{fffe}\u{ffff}]*") {
            let document = format!("<a b=\"{0}\">{0}</a>", quick_xml::escape::escape(&text));
            let found = Slot::Value(Value::text(&text));
            prop_assert_eq!(read(&["/a", "/a/@b"], &document), Ok(vec![found.clone(), found]));
        }
    }
}
