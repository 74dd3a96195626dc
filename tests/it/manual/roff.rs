//! The little of roff that the pages need.

/// Prose; what stands between backticks is bold.
pub(super) fn prose(text: &str) -> String {
    let parts = text.split('`').enumerate();
    let text: String = parts.map(|(n, part)| if n % 2 == 1 { bold(part) } else { escaped(part) }).collect();
    // What begins a request only at the beginning of a line.
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

/// What is typed as it stands.
pub(super) fn bold(code: &str) -> String {
    format!("\\fB{}\\fR", escaped(code).replace('\'', "\\(aq").replace('^', "\\(ha").replace('~', "\\(ti"))
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

/// An entry: what it is about, one below the other, and what is said of it.
pub(super) fn entry(of: &[&str], text: &str) -> String {
    let tags: Vec<String> = of.iter().map(|tag| bold(tag)).collect();
    format!(".TP\n{}\n{}\n", tags.join("\n.TQ\n"), prose(text))
}
