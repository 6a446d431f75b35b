//! The configuration file: TOML whose keys are those of the catalogue. An unknown key is an error.

use super::{
    KNOBS, Kind, Knob, Problem,
    raw::{Origin, Raw, Written},
};
use std::path::Path;

/// Reads the file.
///
/// # Errors
/// Everything wrong with it, short of the values themselves.
pub fn read(path: &Path) -> Result<Raw, Vec<Problem>> {
    let text = std::fs::read_to_string(path)
        .map_err(|why| vec![Problem::new("--config", format!("names a file that cannot be read: {}: {why}", path.display()))])?;
    parse(&text, path)
}

/// The same for a text; `path` is for messages.
///
/// # Errors
/// As [`read`].
pub fn parse(text: &str, path: &Path) -> Result<Raw, Vec<Problem>> {
    // The parser's own rendering quotes the line, which may hold a password.
    let table: toml::Table = toml::from_str(text).map_err(|why| {
        let line = why.span().map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        vec![Problem::new("--config", format!("names a file that is not TOML: {}, line {line}: {}", path.display(), why.message()))]
    })?;
    let mut raw = Raw::default();
    let mut problems = Vec::new();
    for (key, value) in &table {
        let section = value.as_table().filter(|_| is_section(key));
        for (name, value) in section.into_iter().flatten() {
            put(&mut raw, &mut problems, &format!("{key}.{name}"), value, path);
        }
        if section.is_none() {
            put(&mut raw, &mut problems, key, value, path);
        }
    }
    if problems.is_empty() { Ok(raw) } else { Err(problems) }
}

fn is_section(name: &str) -> bool {
    KNOBS.iter().any(|knob| knob.key.split_once('.').is_some_and(|(section, _)| section == name))
}

fn put(raw: &mut Raw, problems: &mut Vec<Problem>, key: &str, value: &toml::Value, path: &Path) {
    let Some(knob) = KNOBS.iter().find(|knob| knob.key == key) else {
        return problems.push(unknown(key, path));
    };
    match texts(knob, value) {
        Ok(texts) => raw.put(knob, Written { texts, origin: Origin::File(path.to_owned()) }),
        Err(wanted) => problems.push(Problem::new(key, format!("in {} must be {wanted}", path.display()))),
    }
}

/// The texts of a value, or what it should be. Never quotes it.
fn texts(knob: &Knob, value: &toml::Value) -> Result<Vec<String>, &'static str> {
    match (knob.kind, value) {
        (Kind::List, toml::Value::String(one)) => Ok(vec![one.clone()]),
        (Kind::List, toml::Value::Array(all)) => all.iter().map(|item| item.as_str().map(str::to_owned).ok_or("a list of texts")).collect(),
        (Kind::List, _) => Err("a list of texts"),
        (Kind::Switch, toml::Value::Boolean(on)) => Ok(vec![on.to_string()]),
        (Kind::Switch, _) => Err("true or false"),
        (Kind::Value | Kind::Secret, toml::Value::String(one)) => Ok(vec![one.clone()]),
        (Kind::Value, toml::Value::Integer(number)) => Ok(vec![number.to_string()]),
        (Kind::Value, _) => Err("a text or a whole number"),
        (Kind::Secret, _) => Err("a text"),
    }
}

fn unknown(key: &str, path: &Path) -> Problem {
    let problem = Problem::new(key, format!("in {} is not an option", path.display()));
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    // Whoever writes a right name in a wrong place, or the flag's name, is sent to the right place.
    let distance = |knob: &Knob| {
        let names = [knob.key.to_owned(), last(knob.key), knob.flag.replace('-', "_")];
        let written = [key.to_owned(), last(key)];
        names.iter().flat_map(|n| written.iter().map(move |w| strsim::damerau_levenshtein(n, w))).min().unwrap_or(usize::MAX)
    };
    match KNOBS.iter().min_by_key(|knob| (distance(knob), strsim::damerau_levenshtein(knob.key, key))) {
        Some(nearest) if distance(nearest) <= last(key).len() / 2 => problem.hint(match nearest.key.split_once('.') {
            Some((section, name)) => format!("the nearest is `{name}` in `[{section}]`"),
            None => format!("the nearest is `{}` at the top of the file", nearest.key),
        }),
        Some(_) | None => problem.hint("`mongoferry check --show-config` lists all keys"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<Problem> {
        parse(text, Path::new("f.toml")).unwrap_err()
    }

    #[test]
    fn unknown_keys_come_with_the_nearest_and_all_at_once() {
        let found = problems("lanes = 3\nsuorce = 'x'\n[copy]\npartitoins = 3\ncopy_writers = 1\n[zzzzzz]\na = 1\n");
        let hints: Vec<_> = found.iter().map(|p| (p.field.as_str(), p.hint.as_deref().unwrap())).collect();
        assert!(hints.contains(&("lanes", "the nearest is `lanes` in `[tail]`")), "{hints:?}");
        assert!(hints.contains(&("suorce", "the nearest is `source` at the top of the file")), "{hints:?}");
        assert!(hints.contains(&("copy.partitoins", "the nearest is `partitions` in `[copy]`")), "{hints:?}");
        assert!(hints.contains(&("copy.copy_writers", "the nearest is `writers` in `[copy]`")), "{hints:?}");
        assert!(hints.contains(&("zzzzzz", "`mongoferry check --show-config` lists all keys")), "{hints:?}");
    }

    #[test]
    fn a_broken_line_is_named_but_not_shown() {
        let found = problems("listen = 'x'\nsource = 'mongodb://u:s3cret@h\n");
        assert!(found[0].problem.contains("line 2"), "{found:?}");
        assert!(!found[0].problem.contains("s3cret"), "{found:?}");
    }

    #[test]
    fn numbers_lists_and_switches_are_read_as_written() {
        let raw = parse("[tail]\nlanes = 4\n[selection]\ninclude = ['a', 'b']\n[output]\nquiet = true\n", Path::new("f")).unwrap();
        assert_eq!(raw.of("tail.lanes").unwrap().texts, ["4"]);
        assert_eq!(raw.of("selection.include").unwrap().texts, ["a", "b"]);
        assert_eq!(raw.of("output.quiet").unwrap().texts, ["true"]);
        assert_eq!(problems("[output]\nquiet = 'yes'\n")[0].problem, "in f.toml must be true or false");
    }
}

#[cfg(test)]
mod example {
    use super::*;

    const EXAMPLE: &str = include_str!("../../deploy/mongoferry.toml");

    /// Options are commented out without a blank after the `#`; prose has one.
    fn with_everything_on() -> String {
        let on = |line: &str| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest.to_owned(),
            Some(_) | None => line.to_owned(),
        };
        EXAMPLE.lines().map(on).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_example_file_has_every_key_with_its_default() {
        parse(EXAMPLE, Path::new("as it is")).unwrap();
        let raw = parse(&with_everything_on(), Path::new("all on")).unwrap();
        for knob in KNOBS {
            let written = raw.of(knob.key).unwrap_or_else(|| panic!("{} is missing from the example", knob.key));
            match knob.kind {
                Kind::Secret => assert!(written.texts[0].starts_with("mongodb://")),
                Kind::List => assert!(written.texts.is_empty()),
                Kind::Value | Kind::Switch => assert_eq!(written.texts, [knob.default], "{}", knob.key),
            }
        }
        super::super::resolve(&raw).unwrap();
    }
}
