use assay_data::{Code, Context, LintInput, Severity, lint};
use assay_types::{Item, Task};

use crate::item;

fn test_item(row: usize, input: &str, reference: &str, document: &str) -> Item {
    let mut item = item(row, input, reference, document);
    item.source.file = "test.jsonl".into();
    item
}

fn input<'a>(task: Task, train: &'a [Item], test: &'a [Item]) -> LintInput<'a> {
    LintInput { task, train, dev: &[], test, documents: None, context: None }
}

/// Findings as `error code file:row message; hint`, one per line.
fn text(input: &LintInput<'_>) -> String {
    let lines = lint(input).into_iter().map(|f| {
        let severity = match f.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let code = serde_json::to_value(f.code).unwrap();
        let at = f.location.map(|l| format!(" {l}")).unwrap_or_default();
        format!("{severity} {}{at}: {}; {}", code.as_str().unwrap(), f.message, f.hint)
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Items enough that nothing is found.
fn sound(name: &str, n: usize) -> Vec<Item> {
    let word = |n: usize| ["amber", "birch", "cedar", "dune", "elm"][n % 5];
    (0..n)
        .map(|i| {
            test_item(
                i + 1,
                &format!("{name} {} {} {i}", word(i), word(i / 5)),
                ["a", "b"][i % 2],
                "",
            )
        })
        .collect()
}

#[test]
fn sound_data_give_no_findings() {
    let (train, test) = (sound("learn", 40), sound("check", 120));
    assert_eq!(text(&input(Task::Classify, &train, &test)), "");
}

#[test]
fn empty_data_are_errors() {
    insta::assert_snapshot!(text(&input(Task::Classify, &[], &[])));
    assert!(text(&input(Task::Qa, &[], &[])).contains("warning no_train"));
}

#[test]
fn classify_findings() {
    let mut train = sound("learn", 20);
    for i in &mut train {
        i.source.file = "train.jsonl".into();
    }
    train.push(item(21, "Where is my card?", "card", ""));
    train.push(item(22, "where is my card", "card", ""));
    train.push(item(23, "WHERE is my card!", "delivery", ""));
    train.push(item(
        24,
        "Please tell me how I can change the address of my account today",
        "a",
        "",
    ));
    let test = [
        test_item(1, "Where is my card?", "card", ""),
        test_item(2, "Where is my card…", "card", ""),
        test_item(3, "Please tell me how I can change the address of my account today!!", "a", ""),
        test_item(4, "Please tell me how I can change the address of my accounts today", "a", ""),
        test_item(5, "Is C++ fine?", "cards", ""),
        test_item(6, "Is C# fine?", "cards", ""),
        test_item(7, "Nothing like the others", "weather", ""),
    ];
    insta::assert_snapshot!(text(&input(Task::Classify, &train, &test)));
}

#[test]
fn one_label_is_an_error() {
    let test = [test_item(1, "a", "x", ""), test_item(2, "b", "x", "")];
    let found = text(&input(Task::Classify, &sound("learn", 20), &test));
    assert!(
        found.contains("error one_label: all 2 labelled items of test have the label `x`"),
        "{found}"
    );
    let found = text(&input(Task::Generate, &sound("learn", 20), &test));
    assert!(found.contains("error equal_outputs: all 2 outputs of test are equal"), "{found}");
}

#[test]
fn qa_findings() {
    let train = [
        item(1, "How long is the warranty?", "Two years", "warranty.md"),
        item(2, "How long is the warranty?", "24 months", "waranty.md"),
    ];
    let mut declined = test_item(2, "Who is the king?", "", "");
    declined.answerable = Some(false);
    let test = [test_item(1, "Who pays?", "", "xyz.txt"), declined];
    let documents = ["warranty.md".to_owned(), "returns.md".to_owned()];
    let tokens = |i: &Item| 10 * i.input.len();
    let found = text(&LintInput {
        documents: Some(&documents),
        context: Some(Context { limit: 200, tokens: &tokens }),
        ..input(Task::Qa, &train, &test)
    });
    insta::assert_snapshot!(found);
}

#[test]
fn leaks_from_dev_are_found_too() {
    let (dev, test) = ([item(1, "Same?", "a", "")], [test_item(1, "same", "a", "")]);
    let found = lint(&LintInput { dev: &dev, ..input(Task::Qa, &sound("learn", 9), &test) });
    let leak = found.iter().find(|f| f.code == Code::Leak).unwrap();
    assert!(leak.message.contains("in dev too, at train.jsonl:1"), "{}", leak.message);
}
