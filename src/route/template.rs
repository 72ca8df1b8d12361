//! Path templates: `/users/{id}/posts/*`, `/files/{rest=**}`, `/**.mpd`.
//!
//! A `*` is a segment of a path, a `**` any number of them, and a variable names what a part of the
//! template matched, so that a rewrite can put it elsewhere. After a `**` comes only fixed text, so a
//! template is matched from left to right without trying twice.

use smallvec::SmallVec;

use crate::config::Fault;

const MAX_VARIABLES: usize = 5;
const MAX_VARIABLE_NAME: usize = 16;

/// `extensions.path.match.uri_template.v3.UriTemplateMatchConfig.path_template`
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Template {
    parts: Vec<Part>,
    /// The names of the variables, in their order.
    names: Vec<Box<str>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// A segment, or its beginning if the template ends in so many bytes of text right after it.
    Segment {
        before: usize,
    },
    /// Anything before the last so many bytes of the path.
    Segments {
        before: usize,
    },
    /// A variable begins.
    Open,
    /// A variable ends.
    Close,
}

/// What each variable stands for in a path: from one byte to another.
type Captures = SmallVec<[(usize, usize); MAX_VARIABLES]>;

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn try_new(text: &str) -> Result<Self, Fault> {
        let fault = |reason: &'static str| Fault::invalid(format!("{text:?}"), reason);
        let Some(rest) = text.strip_prefix('/') else {
            return Err(fault("a path template begins with \"/\""));
        };
        let mut template = Self { parts: vec![Part::Text("/".to_owned())], names: Vec::new() };
        template.read(rest).map_err(fault)?;
        template.measure().map_err(fault)?;
        Ok(template)
    }

    fn read(&mut self, mut rest: &str) -> Result<(), &'static str> {
        while !rest.is_empty() {
            rest = match rest.as_bytes()[0] {
                b'{' => {
                    let (variable, after) =
                        rest[1..].split_once('}').ok_or("a variable ends with \"}\"")?;
                    self.variable(variable)?;
                    after
                }
                _ => self.piece(rest)?,
            };
            if let Some(after) = rest.strip_prefix('/') {
                self.text("/");
                rest = after;
            } else if !rest.is_empty() {
                // What follows a segment's operator at once is the end of every path.
                if !self.piece_of_text(rest)?.is_empty() {
                    return Err("text right after \"*\", \"**\" or a variable ends the template");
                }
                return Ok(());
            }
        }
        Ok(())
    }

    /// An operator or text, and what follows it.
    fn piece<'t>(&mut self, rest: &'t str) -> Result<&'t str, &'static str> {
        if let Some(after) = rest.strip_prefix("**") {
            self.parts.push(Part::Segments { before: 0 });
            return Ok(after);
        }
        if let Some(after) = rest.strip_prefix('*') {
            self.parts.push(Part::Segment { before: 0 });
            return Ok(after);
        }
        self.piece_of_text(rest)
    }

    fn piece_of_text<'t>(&mut self, rest: &'t str) -> Result<&'t str, &'static str> {
        let end = rest.find('/').unwrap_or(rest.len());
        let (text, after) = rest.split_at(end);
        if text.is_empty() || !text.bytes().all(is_plain) {
            return Err("a segment is \"*\", \"**\", a variable or the text of a path");
        }
        self.text(text);
        Ok(after)
    }

    fn text(&mut self, text: &str) {
        match self.parts.last_mut() {
            Some(Part::Text(before)) => before.push_str(text),
            _ => self.parts.push(Part::Text(text.to_owned())),
        }
    }

    /// The inside of `{name}` or `{name=segments}`.
    fn variable(&mut self, variable: &str) -> Result<(), &'static str> {
        let (name, mut form) = variable.split_once('=').unwrap_or((variable, "*"));
        if !is_name(name) {
            return Err("a variable's name is a letter, then letters, digits and \"_\"");
        }
        if name.len() > MAX_VARIABLE_NAME {
            return Err("a variable's name is at most 16 bytes long");
        }
        if self.names.iter().any(|other| **other == *name) {
            return Err("a variable is there twice");
        }
        if self.names.len() == MAX_VARIABLES {
            return Err("there are at most 5 variables");
        }
        if form.is_empty() {
            return Err("after a variable's \"=\" come segments");
        }
        self.names.push(name.into());
        self.parts.push(Part::Open);
        while !form.is_empty() {
            form = self.piece(form)?;
            if !form.is_empty() {
                form = form
                    .strip_prefix('/')
                    .filter(|after| !after.is_empty())
                    .ok_or("the segments of a variable are separated by \"/\"")?;
                self.text("/");
            }
        }
        self.parts.push(Part::Close);
        Ok(())
    }

    /// Finds how much text follows each operator.
    fn measure(&mut self) -> Result<(), &'static str> {
        // Text seen so far from the end, and as far as no `/` and no operator came.
        let (mut all, mut suffix) = (0, Some(0));
        let mut has_operator_after = false;
        for part in self.parts.iter_mut().rev() {
            match part {
                Part::Text(text) => {
                    all += text.len();
                    suffix =
                        suffix.filter(|_| !text.contains('/')).map(|length| length + text.len());
                }
                Part::Segment { before } => {
                    *before = suffix.take().unwrap_or(0);
                    has_operator_after = true;
                }
                Part::Segments { before } => {
                    if has_operator_after {
                        return Err("after \"**\" comes text only");
                    }
                    *before = all;
                    has_operator_after = true;
                    suffix = None;
                }
                Part::Open | Part::Close => {}
            }
        }
        Ok(())
    }

    /// The text that every path it matches begins with.
    pub(super) fn beginning(&self) -> &str {
        match self.parts.first() {
            Some(Part::Text(text)) => text,
            _ => "",
        }
    }

    /// Whether it matches a path, without its query.
    pub(super) fn matches(&self, path: &str) -> bool {
        self.walk(path, |_, _| {})
    }

    fn captures(&self, path: &str) -> Option<Captures> {
        let mut captures = Captures::new();
        let found = self.walk(path, |at, opens| {
            if opens {
                captures.push((at, at));
            } else if let Some((_, end)) = captures.last_mut() {
                *end = at;
            }
        });
        found.then_some(captures)
    }

    /// Walks along the path; `bound` is told where a variable begins or ends.
    fn walk(&self, path: &str, mut bound: impl FnMut(usize, bool)) -> bool {
        let bytes = path.as_bytes();
        let mut at = 0;
        for part in &self.parts {
            match part {
                Part::Text(text) => match bytes[at..].starts_with(text.as_bytes()) {
                    true => at += text.len(),
                    false => return false,
                },
                Part::Segment { before } | Part::Segments { before } => {
                    let Some(end) = bytes.len().checked_sub(*before).filter(|end| *end >= at)
                    else {
                        return false;
                    };
                    let many = matches!(part, Part::Segments { .. });
                    let fits = |byte: &u8| is_plain(*byte) || many && *byte == b'/';
                    let length = bytes[at..end].iter().take_while(|byte| fits(byte)).count();
                    if !many && length == 0 {
                        return false;
                    }
                    at += length;
                }
                Part::Open => bound(at, true),
                Part::Close => bound(at, false),
            }
        }
        at == bytes.len()
    }
}

/// What is made of the variables of a template:
/// `extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig.path_template_rewrite`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TemplateRewrite(Vec<RewritePart>);

#[derive(Debug, PartialEq, Eq)]
enum RewritePart {
    Text(Box<str>),
    /// By its place in the template.
    Variable(usize),
}

impl TemplateRewrite {
    /// Reads a rewrite of what `template` matches.
    ///
    /// # Errors
    /// When it is none, or names a variable that the template does not have.
    pub(super) fn try_new(text: &str, template: &Template) -> Result<Self, Fault> {
        let fault = |reason: String| Fault::invalid(format!("{text:?}"), reason);
        if !text.starts_with('/') || text.contains("//") {
            let reason = "a path rewrite begins with \"/\" and has no \"//\" in it";
            return Err(fault(reason.to_owned()));
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest.find('{').unwrap_or(rest.len());
            let (plain, after) = rest.split_at(end);
            if !plain.bytes().all(|byte| is_plain(byte) || byte == b'/') {
                return Err(fault(format!("{plain:?} is not the text of a path")));
            }
            if !plain.is_empty() {
                parts.push(RewritePart::Text(plain.into()));
            }
            let Some(variable) = after.strip_prefix('{') else { break };
            let Some((name, after)) = variable.split_once('}') else {
                return Err(fault("a variable ends with \"}\"".to_owned()));
            };
            let place = template.names.iter().position(|known| **known == *name);
            let place = place.ok_or_else(|| {
                fault(format!("the path template of the match has no variable {name:?}"))
            })?;
            parts.push(RewritePart::Variable(place));
            rest = after;
        }
        Ok(Self(parts))
    }

    /// The new path; `None` if the template does not match this one.
    pub(super) fn apply(&self, template: &Template, path: &str) -> Option<String> {
        let captures = template.captures(path)?;
        let mut new = String::with_capacity(path.len());
        for part in &self.0 {
            match part {
                RewritePart::Text(text) => new.push_str(text),
                RewritePart::Variable(place) => {
                    let (start, end) = captures.get(*place)?;
                    new.push_str(path.get(*start..*end)?);
                }
            }
        }
        Some(new)
    }
}

/// A character of a path's segment (RFC 3986 section 3.3), but for `*` and `=`, which mean something
/// in a template.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@".contains(&byte)
}

fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(template: &str, path: &str) -> bool {
        Template::try_new(template).unwrap().matches(path)
    }

    #[test]
    fn a_segment_is_one_and_many_are_any() {
        let cases = [
            ("/", "/", true),
            ("/", "/a", false),
            ("/a/", "/a/", true),
            ("/a/", "/a", false),
            ("/users/{id}/posts/*", "/users/7/posts/9", true),
            ("/users/{id}/posts/*", "/users/7/posts", false),
            ("/users/{id}/posts/*", "/users/7/posts/", false),
            ("/users/{id}/posts/*", "/users/7/posts/9/more", false),
            ("/users/{id}/posts/*", "/users//posts/9", false),
            ("/files/{rest=**}", "/files/a/b/c", true),
            ("/files/{rest=**}", "/files/", true),
            ("/files/{rest=**}", "/files", false),
            ("/**", "/", true),
            ("/**", "/a//b", true),
            ("/**.mpd", "/content/123/x.mpd", true),
            ("/**.mpd", "/.mpd", true),
            ("/**.mpd", "/x.mpd/y", false),
            ("/*.m4s", "/a.m4s", true),
            ("/*.m4s", "/a.b.m4s", true),
            ("/*.m4s", "/.m4s", false),
            ("/*.m4s", "/a/b.m4s", false),
            ("/*/x/*.m4s", "/1/x/2.m4s", true),
            ("/{a=v/*/w}/z", "/v/1/w/z", true),
            ("/{a=v/*/w}/z", "/v/1/x/z", false),
            ("/a/**/a", "/a/a", false),
            ("/a/**/a", "/a//a", true),
            ("/a/**/b/c", "/a/x/y/b/c", true),
            ("/{x=**/end}", "/a/b/end", true),
            ("/*", "/a=b", false),
            ("/*", "/a%20b", true),
            ("/*", "/\u{e9}", false),
        ];
        for (template, path, expected) in cases {
            assert_eq!(matches(template, path), expected, "{template} on {path}");
        }
    }

    #[test]
    fn variables_are_put_elsewhere() {
        let cases = [
            ("/{country}/{lang=*}/page", "/{lang}/{country}", "/ch/de/page", "/de/ch"),
            ("/{a=x/*}/{b=**}", "/new/{b}/{a}", "/x/1/2/3", "/new/2/3/x/1"),
            ("/{b=**}", "/new/{b}", "/", "/new/"),
            ("/{x=**/end}", "/n-{x}", "/a/b/end", "/n-a/b/end"),
            ("/{file}.m4s", "/{file}/{file}", "/a.m4s", "/a/a"),
            ("/a/*", "/b", "/a/x", "/b"),
        ];
        for (template, rewrite, path, expected) in cases {
            let template = Template::try_new(template).unwrap();
            let rewrite = TemplateRewrite::try_new(rewrite, &template).unwrap();
            assert_eq!(rewrite.apply(&template, path).as_deref(), Some(expected), "{path}");
        }
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for template in [
            "",
            "a",
            "//",
            "/a b",
            "/{a",
            "/{1a}",
            "/{a=}",
            "/{a=*x}",
            "/{a=*/}",
            "/{a}{b}",
            "/{a}/{a}",
            "/{a}/{b}/{c}/{d}/{e}/{f}",
            "/{abcdefghijklmnopq}",
            "/a*",
            "/*a/b",
            "/**/*",
            "/**/{a}",
            "/***",
            "/{a={b}}",
            "/a=b",
        ] {
            assert!(Template::try_new(template).is_err(), "{template}");
        }
        let template = Template::try_new("/{a}").unwrap();
        for rewrite in ["", "a", "/{b}", "/{a", "//{a}", "/{}", "/x y", "/*"] {
            assert!(TemplateRewrite::try_new(rewrite, &template).is_err(), "{rewrite}");
        }
    }
}
