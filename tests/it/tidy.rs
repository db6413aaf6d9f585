//! The rules no lint has: who may name whom, sizes, headings, and words that must not appear.
//!
//! One package has no crate borders; these tests are the borders.

use std::fs;
use std::path::{Path, PathBuf};

use hookyard::config::Config;

/// Which top modules each folder of `src` may name beside itself and the open ones.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("event", &[]),
    ("clients", &["event"]),
    ("brokers", &["event"]),
    ("store", &["event"]),
    ("egress", &["event", "brokers", "store"]),
    ("pipeline", &["event", "clients", "egress", "store"]),
    ("handlers", &["event", "pipeline"]),
    (
        "ingress",
        &["event", "pipeline", "egress", "store", "brokers"],
    ),
    ("desk", &["event", "pipeline", "store"]),
    ("api", &["event", "pipeline", "egress", "store", "desk"]),
    ("error", &[]),
    ("clock", &[]),
    ("config", &[]),
    ("failpoint", &[]),
    ("telemetry", &["event"]),
];

/// What every module may name: they know nothing of events and handlers.
const OPEN: &[&str] = &["error", "clock", "config", "failpoint", "telemetry"];

/// The roots, which put the rest together.
const ROOTS: &[&str] = &["app", "bridge", "cli", "sandbox", "main", "lib"];

const MAX_LINES: usize = 500;

/// A source file: its path below the repository, and what is in it.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The first folder or file name below `src`, when the file is there.
    fn module(&self) -> Option<&str> {
        let below = self.path.strip_prefix("src/")?;
        let first = below.split('/').next()?;
        Some(first.strip_suffix(".rs").unwrap_or(first))
    }

    /// The lines that are code, with their numbers: no comments, no documentation.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(i, line)| (i + 1, line))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    fn complain(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }
}

fn borders(source: &Source) -> Vec<String> {
    let Some(module) = source.module() else {
        return Vec::new();
    };
    if ROOTS.contains(&module) {
        return Vec::new();
    }
    let Some((_, allowed)) = MAY_NAME.iter().find(|(name, _)| *name == module) else {
        let what = format!("`{module}` has no row in the table of borders");
        return vec![source.complain(1, &what)];
    };
    let mut complaints = Vec::new();
    for (number, line) in source.code() {
        for used in line.split("crate::").skip(1) {
            let end = used.find(|c: char| !c.is_alphanumeric() && c != '_');
            let used = &used[..end.unwrap_or(used.len())];
            let fine = used == module || OPEN.contains(&used) || allowed.contains(&used);
            // An upper-case name is one that `lib.rs` gives out again, an empty one a list.
            if !fine && used.starts_with(|c: char| c.is_ascii_lowercase()) {
                let what = format!("`{module}` may not name `{used}`");
                complaints.push(source.complain(number, &what));
            }
        }
    }
    complaints
}

fn shape(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    let lines = source.text.lines().count();
    if lines > MAX_LINES {
        let what = format!("{lines} lines, of at most {MAX_LINES}");
        complaints.push(source.complain(lines, &what));
    }
    if !source.text.starts_with("//! ") {
        complaints.push(source.complain(1, "does not say in a `//!` line what it is"));
    }
    let name = source.path.rsplit('/').next().unwrap_or_default();
    if [
        "utils.rs",
        "util.rs",
        "common.rs",
        "helpers.rs",
        "misc.rs",
        "types.rs",
    ]
    .contains(&name)
        || source.path.contains("/common/")
        || source.path.contains("/utils/")
    {
        complaints.push(source.complain(1, "is named after nothing"));
    }
    complaints
}

fn words(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    let in_src = source.path.starts_with("src/");
    let mut ban = |number, what: &str| complaints.push(source.complain(number, what));
    for (number, line) in source.code() {
        let code = line.trim_start();
        if code.starts_with("use crate::{") || code.starts_with("pub use crate::{") {
            ban(
                number,
                "a list of top modules hides from the borders; one `use` for each",
            );
        }
        if code.starts_with("#[allow(") || code.starts_with("#![allow(") {
            ban(
                number,
                "`allow` outlives its reason; use `expect(.., reason = ..)`",
            );
        }
        let declares = ["struct ", "enum ", "trait "].iter().find_map(|word| {
            let (_, name) = code.split_once(word)?;
            name.split(|c: char| !c.is_alphanumeric()).next()
        });
        if declares.is_some_and(|name| name.ends_with("Impl") && name != "Impl") {
            ban(number, "a name that ends in `Impl` says nothing");
        }
        let sql = [
            "sqlx::",
            "\"SELECT ",
            "\"INSERT INTO",
            "\"DELETE FROM",
            "\"CREATE TABLE",
        ];
        if in_src
            && !matches!(source.module(), Some("store" | "cli" | "app"))
            && sql.iter().any(|word| line.contains(word))
        {
            ban(number, "SQL belongs into `store`");
        }
    }
    complaints
}

/// Contracts live in the file of their entity, and nowhere else.
fn contracts(source: &Source) -> Vec<String> {
    let file = source.path.strip_prefix("src/event/contracts/");
    let mut complaints = Vec::new();
    for (number, line) in source.code() {
        let code = line.trim();
        if code.contains("DomainEvent for ") && source.path.starts_with("src/") && file.is_none() {
            complaints.push(source.complain(number, "a contract outside `event/contracts`"));
        }
        let Some(file) = file else { continue };
        if let Some(kind) = code.strip_prefix("const TYPE: &'static str = \"") {
            let kind = kind.trim_end_matches("\";");
            let entity = kind.split_once('.').map_or(kind, |(entity, _)| entity);
            if format!("{entity}.rs") != file {
                let what = format!("the contract `{kind}` belongs into `{entity}.rs`");
                complaints.push(source.complain(number, &what));
            }
        }
    }
    complaints
}

/// Paths of the machine somebody happened to write this on.
fn machine_paths(source: &Source) -> Vec<String> {
    let roots = ["work", "root", "home", "Users"].map(|name| format!("/{name}/"));
    let mut complaints = Vec::new();
    for (i, line) in source.text.lines().enumerate() {
        let words = line.split(|c: char| c.is_whitespace() || "\"'`(=:,".contains(c));
        for word in words {
            if roots.iter().any(|root| word.starts_with(root)) {
                complaints.push(source.complain(i + 1, &format!("`{word}` is of one machine")));
            }
        }
    }
    complaints
}

/// Compares what stands between two marks with what should.
fn between_marks<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<!-- {mark} -->"))?;
    let (inside, _) = rest.split_once(&format!("<!-- /{mark} -->"))?;
    Some(inside.trim())
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file of the repository with one of the endings, without what tools leave behind.
fn files(endings: &[&str]) -> Vec<Source> {
    let skipped = [
        "target",
        ".git",
        "corpus",
        "artifacts",
        "node_modules",
        ".terraform",
    ];
    let mut folders: Vec<PathBuf> = vec![repository().to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() && !skipped.contains(&&*name) {
                folders.push(path);
            } else if endings.iter().any(|ending| name.ends_with(ending)) && path.is_file() {
                let below = path.strip_prefix(repository()).unwrap();
                let below = below.to_str().unwrap().replace('\\', "/");
                if let Ok(text) = fs::read_to_string(&path) {
                    files.push(Source { path: below, text });
                }
            }
        }
    }
    assert!(files.len() > 1, "found nothing to check");
    files
}

fn check(endings: &[&str], rule: fn(&Source) -> Vec<String>) {
    let complaints: Vec<String> = files(endings).iter().flat_map(rule).collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn no_module_names_one_it_must_not_know() {
    check(&[".rs"], borders);
}

#[test]
fn every_source_file_is_short_says_what_it_is_and_has_a_name() {
    check(&[".rs"], shape);
}

#[test]
fn no_source_file_uses_a_banned_word() {
    check(&[".rs"], words);
}

#[test]
fn every_contract_is_in_the_file_of_its_entity() {
    check(&[".rs"], contracts);
}

#[test]
fn no_file_holds_a_path_of_one_machine() {
    let endings = [
        ".rs",
        ".md",
        ".toml",
        ".sh",
        ".json",
        ".yaml",
        ".yml",
        ".tf",
        ".graphql",
        "Dockerfile",
        ".justfile",
        "run",
    ];
    check(&endings, machine_paths);
}

#[test]
fn the_unmaintained_backoff_crate_stays_behind_one_file() {
    let all = files(&[".rs"]);
    // Others' modules such as `exponential_backoff::` are not meant.
    let names = |line: &str| {
        let mut before = line.match_indices("backoff::").map(|(i, _)| &line[..i]);
        before.any(|text| !text.ends_with(|c: char| c.is_alphanumeric() || c == '_'))
    };
    let named = |source: &&Source| {
        source.path.starts_with("src/") && source.code().any(|(_, line)| names(line))
    };
    let users: Vec<&str> = all
        .iter()
        .filter(named)
        .map(|source| &*source.path)
        .collect();
    assert!(users.len() <= 1, "{users:?}");
}

#[test]
fn the_readmes_table_of_variables_is_the_one_the_code_reads() {
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let table = between_marks(&readme, "variables").expect("README.md has no table of variables");
    let expected = Config::variables_as_markdown();
    assert_eq!(
        table,
        expected.trim(),
        "paste what `hookyard variables` prints"
    );
}

#[test]
fn there_is_a_changelog() {
    let changelog = fs::read_to_string(repository().join("docs/CHANGELOG.md")).unwrap();
    assert!(changelog.starts_with("# "));
}

#[test]
fn the_checks_can_fail() {
    let source = |path: &str, text: &str| Source {
        path: path.to_owned(),
        text: text.to_owned(),
    };
    let fails = |rule: fn(&Source) -> Vec<String>, path: &str, text: &str| {
        let complaints = rule(&source(path, text));
        assert_eq!(complaints.len(), 1, "{path} {text}: {complaints:?}");
    };
    let passes = |rule: fn(&Source) -> Vec<String>, path: &str, text: &str| {
        let complaints = rule(&source(path, text));
        assert!(complaints.is_empty(), "{path} {text}: {complaints:?}");
    };
    fails(borders, "src/ingress/push.rs", "use crate::clients::http;");
    fails(
        borders,
        "src/event/mod.rs",
        "let x = crate::pipeline::Pipeline::new();",
    );
    fails(
        borders,
        "src/handlers/x.rs",
        "fn f(a: crate::event::Event, b: crate::brokers::B) {}",
    );
    fails(borders, "src/clock.rs", "use crate::event::Event;");
    fails(borders, "src/novelty/mod.rs", "//! New.");
    passes(
        borders,
        "src/handlers/x.rs",
        "use crate::pipeline::Handler;\nuse crate::error::Error;",
    );
    passes(borders, "src/event/mod.rs", "// as crate::pipeline does");
    passes(borders, "src/app.rs", "use crate::clients::http;");
    passes(borders, "tests/it/x.rs", "use crate::pipeline::x;");

    fails(shape, "src/x.rs", "use std::fs;");
    fails(shape, "src/x.rs", &"//! Long.\n".repeat(501));
    fails(shape, "src/event/utils.rs", "//! Things.");
    fails(shape, "tests/common/mod.rs", "//! Things.");
    passes(shape, "src/x.rs", "//! What it is.");

    fails(words, "src/x.rs", &format!("use crate::{}a, b}};", '{'));
    fails(words, "src/x.rs", &format!("    #[{}(dead_code)]", "allow"));
    fails(words, "src/x.rs", &format!("pub struct Store{};", "Impl"));
    fails(
        words,
        "src/pipeline/x.rs",
        &format!("query({}SELECT 1\")", '"'),
    );
    passes(
        words,
        "src/store/x.rs",
        &format!("query({}SELECT 1\")", '"'),
    );

    let contract = "impl DomainEvent for A {\n    const TYPE: &'static str = \"contract.paid\";";
    fails(contracts, "src/handlers/contract.rs", contract);
    fails(contracts, "src/event/contracts/customer.rs", contract);
    passes(contracts, "src/event/contracts/contract.rs", contract);

    fails(
        machine_paths,
        "README.md",
        &format!("see `/{}/main/x`", "work"),
    );
    fails(machine_paths, "x.sh", &format!("cd \"/{}/x\"", "root"));
    passes(
        machine_paths,
        "x.rs",
        &format!("https://example.com/{}/x ./{}/y", "work", "home"),
    );

    assert_eq!(
        between_marks("a<!-- t -->\nb\n<!-- /t -->c", "t"),
        Some("b")
    );
    assert_eq!(between_marks("a<!-- t -->b", "t"), None);
}
