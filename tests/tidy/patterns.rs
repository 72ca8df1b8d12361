//! Patterns in our code that take a message of the wire apart, with the types they name resolved.
//!
//! A path is resolved by the `use` lines of its file, those of its functions included. One name may stand for
//! several types in a file then; a pattern counts for each of them that it could be of.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::{self, Visit};

use super::source::File;

/// Where the generated types are.
const DOOR: &str = "crate::proto::";

/// A pattern of a struct.
#[derive(Debug, Clone)]
pub(crate) struct StructPattern {
    pub(crate) file: String,
    pub(crate) line: usize,
    /// The types it may be of, as paths below `crate::proto`.
    pub(crate) types: Vec<String>,
    /// The fields that are bound.
    pub(crate) bound: BTreeSet<String>,
    /// The fields that are named and thrown away.
    pub(crate) dropped: BTreeSet<String>,
    /// It ends in `..`.
    pub(crate) has_rest: bool,
}

/// Every pattern of the code that is not tests.
#[derive(Debug, Default, Clone)]
pub(crate) struct Patterns {
    pub(crate) structs: Vec<StructPattern>,
    /// Paths of the variants that are told apart, below `crate::proto`.
    pub(crate) variants: BTreeSet<String>,
}

impl Patterns {
    pub(crate) fn of(files: &[File]) -> Self {
        let parsed: Vec<_> = files
            .iter()
            .filter(|file| file.path.starts_with("src/") && !file.is_tests())
            .map(|file| (file, syn::parse_file(&file.text).expect("the compiler takes it")))
            .collect();
        let mut names = BTreeMap::new();
        for (file, syntax) in &parsed {
            let mut uses = Uses::default();
            uses.visit_file(syntax);
            names.insert(modules(file), uses.0);
        }
        let mut all = Self::default();
        for (file, syntax) in &parsed {
            let module = modules(file);
            let mut reader = Reader {
                names: &names,
                module: &module,
                file: &file.path,
                ignored: BTreeSet::new(),
                found: Self::default(),
            };
            reader.visit_file(syntax);
            let Reader { ignored, found, .. } = reader;
            for mut pattern in found.structs {
                let (dropped, bound) =
                    pattern.bound.into_iter().partition(|field| ignored.contains(field));
                pattern.bound = bound;
                pattern.dropped.extend::<BTreeSet<_>>(dropped);
                all.structs.push(pattern);
            }
            all.variants.extend(found.variants);
        }
        all
    }
}

fn modules(file: &File) -> Vec<String> {
    file.modules().into_iter().map(str::to_owned).collect()
}

/// What the `use` lines of a file call by which name.
#[derive(Default)]
struct Uses(BTreeMap<String, Vec<Vec<String>>>);

impl Uses {
    fn add(&mut self, tree: &syn::UseTree, above: &[String]) {
        let below = |name: &syn::Ident| [above, &[text(name)]].concat();
        match tree {
            syn::UseTree::Path(path) => self.add(&path.tree, &below(&path.ident)),
            syn::UseTree::Name(name) if name.ident == "self" => {
                if let Some(last) = above.last() {
                    self.0.entry(last.clone()).or_default().push(above.to_vec());
                }
            }
            syn::UseTree::Name(name) => {
                self.0.entry(text(&name.ident)).or_default().push(below(&name.ident));
            }
            syn::UseTree::Rename(name) => {
                let path = match name.ident == "self" {
                    true => above.to_vec(),
                    false => below(&name.ident),
                };
                self.0.entry(text(&name.rename)).or_default().push(path);
            }
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.add(tree, above)),
            syn::UseTree::Glob(_) => {}
        }
    }
}

impl<'ast> Visit<'ast> for Uses {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.add(&item.tree, &[]);
    }
}

fn text(ident: &syn::Ident) -> String {
    let text = ident.to_string();
    text.strip_prefix("r#").map(str::to_owned).unwrap_or(text)
}

struct Reader<'a> {
    names: &'a BTreeMap<Vec<String>, BTreeMap<String, Vec<Vec<String>>>>,
    module: &'a [String],
    file: &'a str,
    /// Names in `let _ = name`.
    ignored: BTreeSet<String>,
    found: Patterns,
}

impl Reader<'_> {
    /// What a path may be below `crate::proto`.
    fn resolve(&self, path: &syn::Path) -> Vec<String> {
        let path: Vec<_> = path.segments.iter().map(|segment| text(&segment.ident)).collect();
        let mut found = Vec::new();
        self.expand(path, self.module, 8, &mut found);
        found
    }

    fn expand(&self, path: Vec<String>, module: &[String], depth: usize, found: &mut Vec<String>) {
        if let Some(below) = path.join("::").strip_prefix(DOOR) {
            found.push(below.to_owned());
            return;
        }
        let Some(depth) = depth.checked_sub(1) else { return };
        let Some((first, rest)) = path.split_first() else { return };
        match first.as_str() {
            "self" => self.expand(rest.to_vec(), module, depth, found),
            "super" => {
                let above = &module[..module.len().saturating_sub(1)];
                self.expand(rest.to_vec(), above, depth, found);
            }
            "crate" => {}
            name => {
                let called = self.names.get(module).and_then(|names| names.get(name));
                for real in called.into_iter().flatten() {
                    if real.as_slice() != [name] {
                        self.expand([real, rest].concat(), module, depth, found);
                    }
                }
            }
        }
    }

    fn variant(&mut self, path: &syn::Path) {
        let paths = self.resolve(path);
        self.found.variants.extend(paths);
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if module.ident != "tests" {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        if let (syn::Pat::Wild(_), Some(init)) = (&local.pat, &local.init)
            && let syn::Expr::Path(path) = &*init.expr
            && let Some(name) = path.path.get_ident()
        {
            self.ignored.insert(text(name));
        }
        visit::visit_local(self, local);
    }

    fn visit_pat_struct(&mut self, pattern: &'ast syn::PatStruct) {
        let types = self.resolve(&pattern.path);
        if !types.is_empty() {
            let (mut bound, mut dropped) = (BTreeSet::new(), BTreeSet::new());
            for field in &pattern.fields {
                let syn::Member::Named(name) = &field.member else { continue };
                match &*field.pat {
                    syn::Pat::Wild(_) => dropped.insert(text(name)),
                    _ => bound.insert(text(name)),
                };
            }
            self.found.structs.push(StructPattern {
                file: self.file.to_owned(),
                line: pattern.path.segments[0].ident.span().start().line,
                types,
                bound,
                dropped,
                has_rest: pattern.rest.is_some(),
            });
        }
        visit::visit_pat_struct(self, pattern);
    }

    fn visit_pat_tuple_struct(&mut self, pattern: &'ast syn::PatTupleStruct) {
        self.variant(&pattern.path);
        visit::visit_pat_tuple_struct(self, pattern);
    }

    fn visit_pat(&mut self, pattern: &'ast syn::Pat) {
        if let syn::Pat::Path(path) = pattern {
            self.variant(&path.path);
        }
        visit::visit_pat(self, pattern);
    }

    fn visit_macro(&mut self, mac: &'ast syn::Macro) {
        let matches = |input: syn::parse::ParseStream<'_>| {
            input.parse::<syn::Expr>()?;
            input.parse::<syn::Token![,]>()?;
            let pattern = syn::Pat::parse_multi_with_leading_vert(input)?;
            input.parse::<Rest>()?;
            Ok(pattern)
        };
        if mac.path.is_ident("matches")
            && let Ok(pattern) = mac.parse_body_with(matches)
        {
            let pattern: syn::Pat = pattern;
            // The pattern lives as long as this call.
            let mut inner =
                Reader { found: Patterns::default(), ignored: BTreeSet::new(), ..*self };
            inner.visit_pat(&pattern);
            let Patterns { structs, variants } = inner.found;
            self.found.structs.extend(structs);
            self.found.variants.extend(variants);
        }
    }
}

/// What follows a pattern in `matches!`, a guard or a comma, is not looked at.
struct Rest;

impl syn::parse::Parse for Rest {
    fn parse(input: syn::parse::ParseStream<'_>) -> syn::Result<Self> {
        input.step(|cursor| {
            let mut rest = *cursor;
            while let Some((_, next)) = rest.token_tree() {
                rest = next;
            }
            Ok((Self, rest))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_found_with_what_they_bind_and_throw_away() {
        let text = "//! a
            use crate::proto::acme::v1::{self as proto, Car};
            fn f(car: Car) {
                use proto::wheel::Kind::{self, Round};
                let Car { wheel, colour: _, r#type } = car;
                let _ = wheel;
                let proto::Wheel { kind, .. } = wheel else { return };
                if matches!(kind, Some(Round(_)) if true) || matches!(r#type, Kind::Square) {}
                let made = Car { wheel: 1, colour: 2, r#type: 3 };
            }
            mod tests { fn g() { let Car { .. } = car; } }
            ";
        let file = |path: &str, text: &str| File::new(path.to_owned(), text.to_owned());
        let below = "//! b\nuse super::proto;\nfn f() { let proto::Car { colour } = x; }\n";
        let all = Patterns::of(&[file("src/a.rs", text), file("src/a/b.rs", below)]);
        let seen = all.structs.iter().map(|pattern| {
            let names = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(" ");
            let StructPattern { types, bound, dropped, has_rest, .. } = pattern;
            (types.join(" "), names(bound), names(dropped), *has_rest)
        });
        let is = |kind: &str, bound: &str, dropped: &str, rest| {
            (kind.to_owned(), bound.to_owned(), dropped.to_owned(), rest)
        };
        assert_eq!(
            seen.collect::<Vec<_>>(),
            [
                is("acme::v1::Car", "type", "colour wheel", false),
                is("acme::v1::Wheel", "kind", "", true),
                is("acme::v1::Car", "colour", "", false),
            ]
        );
        let variants: Vec<_> = all.variants.iter().map(String::as_str).collect();
        assert_eq!(variants, ["acme::v1::wheel::Kind::Round", "acme::v1::wheel::Kind::Square"]);
    }
}
