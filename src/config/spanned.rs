//! The configuration as written: toml's own tree, in which every key and value has its span.
//! A path is the keys joined by dots, with the number of an element in a list: `routes.0.upstream`.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::schema;

pub(super) struct SpannedToml<'s> {
    pub(super) root: Spanned<DeValue<'s>>,
}

/// A node met on a walk through the tree.
struct SpannedNode {
    path: String,
    key: Option<Range<usize>>,
    value: Range<usize>,
}

impl<'s> SpannedToml<'s> {
    pub(super) fn new(table: Spanned<DeTable<'s>>) -> Self {
        let span = table.span();
        Self { root: Spanned::new(span, DeValue::Table(table.into_inner())) }
    }

    /// The place of the value at `path`, or of the innermost table around it that exists.
    pub(super) fn span_of(&self, path: &str) -> Range<usize> {
        let mut here = &self.root;
        let mut span = self.root.span();
        for segment in path.split('.') {
            let Some((next, place)) = child(here.get_ref(), segment) else { break };
            (here, span) = (next, place);
        }
        span
    }

    /// The value at `path`.
    pub(super) fn get(&self, path: &str) -> Option<&Spanned<DeValue<'s>>> {
        path.split('.')
            .try_fold(&self.root, |here, segment| child(here.get_ref(), segment).map(|found| found.0))
    }

    /// Takes out the value that an error points at, and returns its path.
    ///
    /// serde stops at its first error. Without the wrong value it finds the next one.
    pub(super) fn remove_at(&mut self, span: &Range<usize>) -> Option<String> {
        let mut nodes = Vec::new();
        walk(self.root.get_ref(), "", &mut nodes);
        // The first table of `[[routes]]` and the list itself have one span: the deepest node is meant.
        let exact = nodes.iter().rev().find(|node| node.value == *span || node.key.as_ref() == Some(span));
        let around = || {
            let holds = |node: &&SpannedNode| node.value.start <= span.start && span.end <= node.value.end;
            nodes.iter().filter(holds).min_by_key(|node| node.value.len())
        };
        let path = exact.or_else(around)?.path.clone();
        self.remove(&path);
        Some(path)
    }

    /// Takes out lists where a table must stand, and returns their places. serde would read them as the table's fields one
    /// after the other: `heal = [false]` would switch healing off.
    pub(super) fn remove_lists_for_tables(&mut self) -> Vec<(String, Range<usize>)> {
        let mut nodes = Vec::new();
        walk(self.root.get_ref(), "", &mut nodes);
        let is_wrong = |node: &SpannedNode| {
            schema::is_table(&node.path)
                && self.get(&node.path).is_some_and(|found| found.get_ref().is_array())
        };
        let wrong: Vec<_> = nodes.into_iter().filter(is_wrong).map(|node| (node.path, node.value)).collect();
        // From the last to the first, so that the numbers of elements before them stay valid.
        wrong.iter().rev().for_each(|(path, _)| self.remove(path));
        wrong
    }

    fn remove(&mut self, path: &str) {
        let (parent, last) = path.rsplit_once('.').unwrap_or(("", path));
        let holder = parent
            .split('.')
            .filter(|segment| !segment.is_empty())
            .try_fold(&mut self.root, |here, segment| child_mut(here.get_mut(), segment));
        match holder.map(Spanned::get_mut) {
            Some(DeValue::Table(table)) => {
                table.remove(last);
            }
            Some(DeValue::Array(array)) => {
                let elements = std::mem::replace(array, DeArray::new()).into_iter().enumerate();
                *array = elements
                    .filter(|(index, _)| index.to_string() != last)
                    .map(|(_, element)| element)
                    .collect();
            }
            _ => {}
        }
    }
}

/// The element of a table or list, and its place.
fn child<'t, 's>(value: &'t DeValue<'s>, segment: &str) -> Option<(&'t Spanned<DeValue<'s>>, Range<usize>)> {
    match value {
        DeValue::Table(table) => table.get(segment).map(|found| (found, found.span())),
        DeValue::Array(array) => array.get(segment.parse::<usize>().ok()?).map(|found| (found, found.span())),
        _ => None,
    }
}

fn child_mut<'t, 's>(value: &'t mut DeValue<'s>, segment: &str) -> Option<&'t mut Spanned<DeValue<'s>>> {
    match value {
        DeValue::Table(table) => table.get_mut(segment),
        DeValue::Array(array) => array.get_mut(segment.parse::<usize>().ok()?),
        _ => None,
    }
}

fn walk(value: &DeValue<'_>, path: &str, nodes: &mut Vec<SpannedNode>) {
    let below =
        |segment: &str| if path.is_empty() { segment.to_owned() } else { format!("{path}.{segment}") };
    match value {
        DeValue::Table(table) => {
            for (key, value) in table {
                let path = below(key.get_ref());
                nodes.push(SpannedNode { path: path.clone(), key: Some(key.span()), value: value.span() });
                walk(value.get_ref(), &path, nodes);
            }
        }
        DeValue::Array(array) => {
            for (index, value) in array.iter().enumerate() {
                let path = below(&index.to_string());
                nodes.push(SpannedNode { path: path.clone(), key: None, value: value.span() });
                walk(value.get_ref(), &path, nodes);
            }
        }
        _ => {}
    }
}
