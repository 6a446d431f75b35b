//! A history as a scenario folder, in the format of `tests/scenarios`.

use super::{history::Step, play::Refused};
use crate::scenarios::notation::Node;
use std::fmt::Write;

/// `scenario.toml`. What happened to mongoferry meanwhile stands in comments: scenarios have no words for it.
pub(super) fn scenario(seed: u64, history: &[Step], refused: &[Option<Refused>]) -> String {
    let (mut before, mut steps, mut started) = (String::new(), String::new(), false);
    let mut refused = refused.iter();
    let starts = history.iter().any(|step| matches!(step, Step::Start(_)));
    for step in history {
        let into = if started || !starts { &mut steps } else { &mut before };
        match step {
            Step::Source(node) => {
                let node = as_it_went(node, refused.next().copied().flatten());
                writeln!(into, "{}", Json(&node)).expect("text takes everything");
            }
            other => writeln!(into, "# {other:?}").expect("text takes everything"),
        }
        started |= matches!(step, Step::Start(_));
    }
    let placements = if starts { r#"["during", "tail"]"# } else { r#"["copy"]"# };
    format!("shows = \"what random history {seed} found\"\nplacements = {placements}\nbefore = '''\n{before}'''\nsteps = '''\n{steps}'''\n")
}

/// With the refusal that is to be expected.
fn as_it_went(node: &Node, refused: Option<Refused>) -> Node {
    let (Node::Fields(fields), Some(Refused { at, code })) = (node, refused) else { return node.clone() };
    let fails = |node: &Node| match node {
        Node::Fields(fields) => Node::Fields([fields.as_slice(), &[("$fails".to_owned(), Node::Whole(code.into()))]].concat()),
        other => other.clone(),
    };
    match fields[0].1.list().filter(|_| matches!(fields[0].0.as_str(), "$transaction" | "$aborted")) {
        Some(commands) => {
            let taken = commands.iter().take(at + 1).enumerate().map(|(n, each)| if n == at { fails(each) } else { each.clone() });
            Node::Fields(vec![("$aborted".to_owned(), Node::List(taken.collect()))])
        }
        None => fails(node),
    }
}

/// The text that [`crate::scenarios::notation::parse`] reads.
struct Json<'a>(&'a Node);

impl std::fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        match self.0 {
            Node::Null => f.write_str("null"),
            Node::Bool(b) => write!(f, "{b}"),
            Node::Whole(n) => write!(f, "{n}"),
            Node::Real(n) => write!(f, "{n:?}"),
            Node::Text(text) => f.write_str(&quoted(text)),
            Node::List(items) => {
                for (n, item) in items.iter().enumerate() {
                    write!(f, "{}{}", if n == 0 { "[" } else { ", " }, Json(item))?;
                }
                f.write_str(if items.is_empty() { "[]" } else { "]" })
            }
            Node::Fields(fields) => {
                for (n, (name, value)) in fields.iter().enumerate() {
                    write!(f, "{}{}: {}", if n == 0 { "{" } else { ", " }, quoted(name), Json(value))?;
                }
                f.write_str(if fields.is_empty() { "{}" } else { "}" })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::history::history, *};
    use crate::scenarios::notation::parse;

    #[test]
    fn a_scenario_says_what_the_history_did() {
        for seed in 0..50 {
            let history = history(seed, 60);
            let told: toml::Table = scenario(seed, &history, &[]).parse().unwrap();
            let read = |part: &str| parse(told[part].as_str().unwrap()).unwrap();
            let source = history.iter().filter_map(|step| match step {
                Step::Source(node) => Some(node.clone()),
                _ => None,
            });
            assert_eq!([read("before"), read("steps")].concat(), source.collect::<Vec<_>>(), "seed {seed}");
        }
    }

    #[test]
    fn what_was_refused_is_expected_again() {
        let parsed = |text: &str| parse(text).unwrap().remove(0);
        let went = |text: &str, at: usize| Json(&as_it_went(&parsed(text), Some(Refused { at, code: 9 }))).to_string();
        assert_eq!(went(r#"{"drop": "a"}"#, 0), r#"{"drop": "a", "$fails": 9}"#);
        assert_eq!(went(r#"{"$transaction": [{"a": 1}, {"b": 1}, {"c": 1}]}"#, 1), r#"{"$aborted": [{"a": 1}, {"b": 1, "$fails": 9}]}"#);
        assert_eq!(went(r#"{"$transaction": [{"a": 1}]}"#, 1), r#"{"$aborted": [{"a": 1}]}"#);
    }
}
