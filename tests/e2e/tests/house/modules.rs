//! Which files of a crate name which others: its modules, what each of them defines and imports, and
//! where the paths in its code lead. What stands under `#[cfg(test)]` is not looked at.
//!
//! A path is followed through re-exports to the file that defines what it names, so a parent that
//! only declares and re-exports its children depends on none of them. Methods and traits are not
//! seen: who calls `x.method()` has named, or been given, the type elsewhere.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Which files a file names, for each file of a crate, and the first path in it that leads there.
pub type Edges = BTreeMap<PathBuf, BTreeMap<PathBuf, String>>;

/// Re-exports are followed so far; more would be two globs that name each other.
const MOST_STEPS: usize = 32;

#[derive(Default)]
struct Module {
    file: PathBuf,
    /// Where the files of its children lie.
    folder: PathBuf,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
    items: BTreeSet<String>,
    imports: BTreeMap<String, Vec<String>>,
    globs: Vec<Vec<String>>,
    /// Paths that the code of this module names: all but what it re-exports.
    named: BTreeSet<Vec<String>>,
}

/// The files below this root of a crate, and which others each of them names.
pub fn edges(root: &Path) -> Edges {
    let mut modules = Modules::default();
    let folder = root.parent().unwrap().to_owned();
    modules.read(root, folder, None);
    let mut edges = Edges::new();
    for (at, module) in modules.0.iter().enumerate() {
        let named = edges.entry(module.file.clone()).or_default();
        for path in &module.named {
            if let Leads::File(file) = modules.find(at, path, MOST_STEPS)
                && file != module.file
            {
                named.entry(file.to_owned()).or_insert_with(|| path.join("::"));
            }
        }
    }
    edges
}

/// Where a path leads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leads<'a> {
    /// To what this file defines.
    File(&'a Path),
    /// To a module, and nothing in it.
    Module,
    /// Out of the crate, or to a name that no item of it has.
    Elsewhere,
}

#[derive(Default)]
struct Modules(Vec<Module>);

impl Modules {
    fn read(&mut self, file: &Path, folder: PathBuf, parent: Option<usize>) -> usize {
        let text =
            std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let tokens: TokenStream =
            text.parse().unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        self.0.push(Module { file: file.to_owned(), folder, parent, ..Module::default() });
        let at = self.0.len() - 1;
        self.items(at, tokens);
        at
    }

    /// What stands in a module, item by item.
    fn items(&mut self, at: usize, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut rest = Tokens { tokens: &tokens, next: 0 };
        let mut attributes = Vec::new();
        let mut exported = false;
        while let Some(token) = rest.take() {
            if is_punct(token, '#') {
                rest.take_if(|token| is_punct(token, '!'));
                if let Some(TokenTree::Group(group)) = rest.take() {
                    self.attribute(at, group.stream());
                    attributes.push(group.stream().to_string());
                }
                if attributes.iter().any(|text| only_tests(text)) {
                    rest.skip_item();
                    attributes.clear();
                }
                continue;
            }
            let word =
                if let TokenTree::Ident(word) = token { word.to_string() } else { String::new() };
            match &*word {
                "pub" => {
                    exported = true;
                    continue;
                }
                "mod" => self.module(at, &mut rest, &attributes),
                "use" if !rest.captures() => self.imports(at, rest.until_semicolon(), exported),
                "fn" | "struct" | "enum" | "trait" | "type" | "const" | "static" | "union" => {
                    if let Some(TokenTree::Ident(name)) = rest.peek() {
                        self.0[at].items.insert(name.to_string());
                    }
                }
                "macro_rules" => {
                    if let Some(TokenTree::Ident(name)) = rest.tokens.get(rest.next + 1) {
                        self.0[at].items.insert(name.to_string());
                    }
                }
                _ if exported && matches!(token, TokenTree::Group(_)) => {
                    // pub(super) and its likes
                    if matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis)
                    {
                        continue;
                    }
                }
                _ => {
                    rest.next -= 1;
                    self.code_step(at, &mut rest);
                    attributes.clear();
                    exported = false;
                    continue;
                }
            }
            attributes.clear();
            exported = false;
        }
    }

    /// `mod name;` or `mod name { .. }`, after its first word.
    fn module(&mut self, at: usize, rest: &mut Tokens<'_>, attributes: &[String]) {
        let Some(TokenTree::Ident(name)) = rest.take() else { return };
        let name = name.to_string();
        let folder = self.0[at].folder.clone();
        let child = match rest.take() {
            Some(TokenTree::Group(body)) => {
                let file = self.0[at].file.clone();
                let parent = Some(at);
                let folder = folder.join(&name);
                self.0.push(Module { file, folder, parent, ..Module::default() });
                let child = self.0.len() - 1;
                self.items(child, body.stream());
                child
            }
            _ => {
                let told = attributes.iter().find_map(|text| text.strip_prefix("path = \""));
                let (file, below) = if let Some(told) = told {
                    let beside = self.0[at].file.parent().unwrap().to_owned();
                    let file = beside.join(told.trim_end_matches('"'));
                    let below = file.parent().unwrap().to_owned();
                    (file, below)
                } else {
                    let flat = folder.join(format!("{name}.rs"));
                    let below = folder.join(&name);
                    (if flat.exists() { flat } else { below.join("mod.rs") }, below)
                };
                self.read(&file, below, Some(at))
            }
        };
        self.0[at].children.insert(name, child);
    }

    /// The tree of a `use`. What is not re-exported is named by this file.
    fn imports(&mut self, at: usize, tree: &[TokenTree], exported: bool) {
        for (path, name) in leaves(tree) {
            let module = &mut self.0[at];
            match name.as_deref() {
                Some("*") => module.globs.push(path.clone()),
                Some(name) if name != "_" => {
                    module.imports.insert(name.to_owned(), path.clone());
                }
                _ => {}
            }
            // A glob names the module itself; an imported module is named by what is taken from it.
            if !exported {
                let mut path = path;
                if name.as_deref() == Some("*") {
                    path.push("*".to_owned());
                }
                module.named.insert(path);
            }
        }
    }

    /// Paths within strings of attributes, as `#[serde(with = "a::b")]` has them.
    fn attribute(&mut self, at: usize, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        if matches!(tokens.first(), Some(TokenTree::Ident(word)) if word == "doc") {
            return;
        }
        for token in &tokens {
            match token {
                TokenTree::Group(group) => self.attribute(at, group.stream()),
                TokenTree::Literal(text) => {
                    let text = text.to_string();
                    let path: Vec<String> =
                        text.trim_matches('"').split("::").map(str::to_owned).collect();
                    if path.len() > 1 {
                        self.0[at].named.insert(path);
                    }
                }
                _ => {}
            }
        }
    }

    fn code(&mut self, at: usize, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut rest = Tokens { tokens: &tokens, next: 0 };
        while rest.peek().is_some() {
            self.code_step(at, &mut rest);
        }
    }

    /// One path or token of code.
    fn code_step(&mut self, at: usize, rest: &mut Tokens<'_>) {
        let before = rest.next.checked_sub(1).and_then(|at| rest.tokens.get(at));
        let follows = |mark| before.is_some_and(|token| is_punct(token, mark));
        let begins = !follows('.') && !follows('\'') && !rest.after_path();
        match rest.take() {
            Some(TokenTree::Group(group)) => self.code(at, group.stream()),
            Some(token) if is_punct(token, '#') => {
                if let Some(TokenTree::Group(group)) = rest.peek()
                    && group.delimiter() == Delimiter::Bracket
                {
                    rest.next += 1;
                    self.attribute(at, group.stream());
                    if only_tests(&group.stream().to_string()) {
                        rest.skip_item();
                    }
                }
            }
            Some(TokenTree::Ident(word)) if word == "use" && !rest.captures() => {
                let tree = rest.until_semicolon();
                self.imports(at, tree, false);
            }
            Some(TokenTree::Ident(word)) if begins => {
                let mut path = vec![word.to_string()];
                while rest.at_colons()
                    && let Some(TokenTree::Ident(next)) = rest.tokens.get(rest.next + 2)
                {
                    path.push(next.to_string());
                    rest.next += 3;
                }
                // A word alone may be a variable: it is a function where it is called.
                let called = matches!(rest.peek(), Some(TokenTree::Group(group))
                    if group.delimiter() == Delimiter::Parenthesis);
                let variable = path.len() == 1
                    && !path[0].starts_with(char::is_uppercase)
                    && !(called && before.is_none_or(|token| !is_word(token, "fn")));
                if !variable {
                    self.0[at].named.insert(path);
                }
            }
            _ => {}
        }
    }

    /// Where a path leads as seen from a module.
    fn find(&self, from: usize, path: &[String], steps: usize) -> Leads<'_> {
        let Some(steps) = steps.checked_sub(1) else { return Leads::Elsewhere };
        let Some((first, rest)) = path.split_first() else { return Leads::Module };
        match &**first {
            "self" => self.within(from, rest, steps),
            "super" => match self.0[from].parent {
                Some(parent) => self.within(parent, rest, steps),
                None => Leads::Elsewhere,
            },
            "crate" => {
                let mut root = from;
                while let Some(parent) = self.0[root].parent {
                    root = parent;
                }
                self.within(root, rest, steps)
            }
            _ => self.local(from, path, steps),
        }
    }

    /// As [`Self::find`], of what must stand in this module, since the path says so.
    fn within(&self, at: usize, path: &[String], steps: usize) -> Leads<'_> {
        match path.first().map(String::as_str) {
            None => Leads::Module,
            Some("*") => Leads::File(&self.0[at].file),
            Some("super" | "self") => self.find(at, path, steps),
            Some(_) => match self.local(at, path, steps) {
                Leads::Elsewhere => Leads::File(&self.0[at].file),
                found => found,
            },
        }
    }

    fn local(&self, at: usize, path: &[String], steps: usize) -> Leads<'_> {
        let module = &self.0[at];
        let Some((first, rest)) = path.split_first() else { return Leads::Module };
        if let Some(import) = module.imports.get(first)
            && import.first() != Some(first)
        {
            let whole: Vec<String> = import.iter().chain(rest).cloned().collect();
            let found = self.find(at, &whole, steps);
            if found != Leads::Elsewhere {
                return found;
            }
        }
        if let Some(child) = module.children.get(first) {
            return self.within(*child, rest, steps);
        }
        if module.items.contains(first) {
            return Leads::File(&module.file);
        }
        let brought = module.globs.iter().find_map(|glob| {
            let whole: Vec<String> = glob.iter().chain(path).cloned().collect();
            match self.find(at, &whole, steps) {
                Leads::File(file) if self.defines(file, first) => Some(Leads::File(file)),
                _ => None,
            }
        });
        brought.unwrap_or(Leads::Elsewhere)
    }

    /// Whether a module of this file has an item of this name: what a glob brings is there or is not.
    fn defines(&self, file: &Path, name: &str) -> bool {
        self.0.iter().any(|module| module.file == file && module.items.contains(name))
    }
}

struct Tokens<'a> {
    tokens: &'a [TokenTree],
    next: usize,
}

impl<'a> Tokens<'a> {
    fn peek(&self) -> Option<&'a TokenTree> {
        self.tokens.get(self.next)
    }

    fn take(&mut self) -> Option<&'a TokenTree> {
        self.next += 1;
        self.tokens.get(self.next - 1)
    }

    fn take_if(&mut self, wanted: impl Fn(&TokenTree) -> bool) {
        if self.peek().is_some_and(wanted) {
            self.next += 1;
        }
    }

    /// Whether a `use` before this is that of `-> impl Future + use<'a>`, which imports nothing.
    fn captures(&self) -> bool {
        self.peek().is_some_and(|next| is_punct(next, '<'))
    }

    fn until_semicolon(&mut self) -> &'a [TokenTree] {
        let from = self.next;
        while self.take().is_some_and(|token| !is_punct(token, ';')) {}
        &self.tokens[from..(self.next - 1).min(self.tokens.len())]
    }

    /// What stands under an attribute: up to a semicolon, or a block where an item may end with one;
    /// within an expression, a comma ends it too.
    fn skip_item(&mut self) {
        let mut by_semicolon = false;
        while let Some(token) = self.take() {
            if let TokenTree::Ident(word) = token {
                by_semicolon |= ["use", "static", "let", "type"].iter().any(|it| word == it);
                by_semicolon |=
                    word == "const" && !self.peek().is_some_and(|next| is_word(next, "fn"));
            }
            let block = matches!(token, TokenTree::Group(group)
                if group.delimiter() == Delimiter::Brace);
            if is_punct(token, ';') || (block && !by_semicolon) {
                break;
            }
        }
    }

    fn at_colons(&self) -> bool {
        (0..2)
            .all(|step| self.tokens.get(self.next + step).is_some_and(|token| is_punct(token, ':')))
    }

    /// Whether `::` stands before the next token: then it is the rest of a path.
    fn after_path(&self) -> bool {
        self.next > 1 && (1..=2).all(|back| is_punct(&self.tokens[self.next - back], ':'))
    }
}

fn is_punct(token: &TokenTree, mark: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == mark)
}

fn is_word(token: &TokenTree, word: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident == word)
}

fn only_tests(attribute: &str) -> bool {
    let plain: String = attribute.split_whitespace().collect();
    plain.starts_with("cfg(test)") || plain.starts_with("cfg(all(test")
}

/// The leaves of a `use` tree: the path, and the name that it gets here (`*` for a glob).
fn leaves(tree: &[TokenTree]) -> Vec<(Vec<String>, Option<String>)> {
    let mut found = Vec::new();
    for branch in tree.split(|token| is_punct(token, ',')) {
        let mut path = Vec::new();
        let mut name = None;
        let mut tokens = branch.iter();
        let mut below = None;
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Ident(word) if word == "as" => {
                    name = tokens.next().map(ToString::to_string);
                }
                TokenTree::Ident(word) => path.push(word.to_string()),
                TokenTree::Punct(punct) if punct.as_char() == '*' => name = Some("*".to_owned()),
                TokenTree::Group(group) => below = Some(group.stream()),
                _ => {}
            }
        }
        if let Some(below) = below {
            let below: Vec<TokenTree> = below.into_iter().collect();
            for (rest, name) in leaves(&below) {
                let mut whole = path.clone();
                whole.extend(rest);
                if whole.len() > 1 && whole.last().is_some_and(|last| last == "self") {
                    whole.pop();
                    let name = name.filter(|name| name != "self");
                    found.push((whole.clone(), name.or_else(|| whole.last().cloned())));
                } else {
                    found.push((whole, name));
                }
            }
        } else if !path.is_empty() || name.is_some() {
            let name = name.or_else(|| path.last().cloned());
            found.push((path, name));
        }
    }
    found
}
