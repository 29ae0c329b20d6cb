//! Checks the summaries of public items: a verb for functions, a noun for types, and one short paragraph.
//!
//! `missing_docs` checks that documentation exists. These checks read the lines that the index of rustdoc shows.

use super::{assert_none, indent, sources};

const LONGEST_SUMMARY: usize = 200;

/// The words that begin the summary of a function. Add a verb if it describes a function better than these.
const VERBS: &str = "Adds Announces Applies Blocks Builds Changes Checks Closes Commits Compares Computes \
    Connects Corrects Counts Creates Declares Decodes Deletes Deserializes Drops Encodes Ends Finds Lists Logs \
    Makes Moves Opens Puts Reads Reaps Receives Remembers Removes Replaces Reports Requests Restarts Returns \
    Reverts Runs Sends Serializes Serves Sets Signs Starts Stops Stores Takes Uses Waits Walks Watches Wraps \
    Writes";

const QUESTION_WORDS: [&str; 10] = ["How", "That", "What", "When", "Where", "Whether", "Which", "Who", "Whom", "Why"];

/// A public item, with its documentation.
struct Item {
    place: String,
    kind: String,
    summary: String,
    has_example: bool,
}

/// Returns the kind and the name of the public item that begins on this line. All items of a public trait are public.
fn public_item(line: &str, is_in_trait: bool) -> Option<(&str, &str)> {
    let item = line.trim_start();
    let item = match item.strip_prefix("pub ") {
        Some(item) => item,
        None if is_in_trait && indent(line) == 4 => item,
        None => return None,
    };
    let (kind, rest) = item.strip_prefix("const fn").map_or(item, |_| &item["const ".len()..]).split_once(' ')?;
    let is_item = ["fn", "struct", "enum", "trait", "type", "const", "mod"].contains(&kind);
    let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
    is_item.then_some((kind, name))
}

/// Returns the lines of documentation above an item, without the attributes between them. A `cfg_attr` can begin a code block.
fn documentation<'s>(above: &[&'s str]) -> Vec<&'s str> {
    let lines = above.iter().rev().map(|line| line.trim()).take_while(|line| line.starts_with(['/', '#', ')']));
    let mut found: Vec<&str> = lines
        .filter_map(|line| match line.strip_prefix("///") {
            Some(text) => Some(text.trim_start()),
            None => line.contains("```").then_some("```"),
        })
        .collect();
    found.reverse();
    found
}

fn public_items() -> Vec<Item> {
    let mut items = Vec::new();
    for (file, source) in sources() {
        let lines: Vec<&str> = source.lines().collect();
        let mut is_in_trait = false;
        for (at, line) in lines.iter().enumerate() {
            is_in_trait = line.starts_with("pub trait ") || (is_in_trait && *line != "}");
            let Some((kind, name)) = public_item(line, is_in_trait) else { continue };
            let text = documentation(&lines[..at]);
            let summary: Vec<&str> = text.iter().take_while(|line| !line.is_empty()).copied().collect();
            items.push(Item {
                place: format!("{file}:{}: {name}: {}", at + 1, summary.join(" ")),
                kind: kind.to_owned(),
                summary: summary.join(" "),
                has_example: text.iter().any(|line| line.starts_with("```")),
            });
        }
    }
    assert!(items.len() > 500, "{} public items", items.len());
    items
}

fn places<'i>(items: impl Iterator<Item = &'i Item>) -> Vec<String> {
    items.map(|item| item.place.clone()).collect()
}

/// Fails if more than this share of all items, in percent, is in the list.
fn assert_few(rule: &str, percent: usize, all: usize, bad: Vec<String>) {
    println!("{rule}: {} of {all} break the rule", bad.len());
    if bad.len() * 100 > percent * all {
        assert_none(rule, bad);
    }
}

fn first_word(summary: &str) -> &str {
    summary.split(|c: char| !c.is_alphabetic()).next().unwrap_or_default()
}

#[test]
fn summaries_of_functions_begin_with_a_verb() {
    let items = public_items();
    let functions = || items.iter().filter(|item| item.kind == "fn");
    let is_verb = |word: &str| VERBS.split(' ').any(|verb| verb == word);
    let without = functions().filter(|item| !is_verb(first_word(&item.summary)));
    assert_few("the summary of a function begins with a verb", 15, functions().count(), places(without));
}

#[test]
fn summaries_of_types_are_no_questions() {
    let items = public_items();
    let types = items.iter().filter(|item| ["struct", "enum", "trait", "type"].contains(&&*item.kind));
    let questions = types.filter(|item| QUESTION_WORDS.contains(&first_word(&item.summary)));
    assert_none("the summary of a type begins with a noun phrase", places(questions));
}

#[test]
fn summaries_are_short() {
    let items = public_items();
    let long = items.iter().filter(|item| item.summary.chars().count() > LONGEST_SUMMARY);
    assert_few("the first paragraph has at most 200 characters", 5, items.len(), places(long));
}

#[test]
fn many_functions_have_an_example() {
    let items = public_items();
    let (with, without): (Vec<_>, Vec<_>) =
        items.iter().filter(|item| item.kind == "fn").partition(|item| item.has_example);
    println!("{} functions have an example", with.len());
    assert!(
        with.len() >= 60,
        "{} functions have an example, these have none:\n{}",
        with.len(),
        places(without.into_iter()).join("\n")
    );
}
