//! Public data: nothing in them is refused, and what the lint finds is plausible.

use std::process::Command;

use assay_data::{Code, Format, LintInput, Shape, labels, lint, parse, split_dev};
use assay_types::Task;

/// Banking77 with its two columns named as we name them; its CSV has quoted line breaks.
#[test]
fn banking77_is_read_split_and_linted() {
    let Some(folder) = assay_testkit::dataset("banking77") else { return };
    let unpacked = Command::new("gzip").arg("-dc").arg(folder.join("train.csv.gz")).output();
    let bytes = unpacked.expect("gzip runs").stdout;
    let body = bytes.strip_prefix(b"text,category").expect("the header");
    let data = parse(&[b"text,label", body].concat(), "train.csv", Format::Csv, None).unwrap();
    assert_eq!((data.items.len(), data.shape), (10_003, Shape::TextLabel));
    assert_eq!(labels(&data.items).len(), 77);

    let (rest, test) = split_dev(&data.items, Task::Classify, 0.05, 1);
    assert_eq!((rest.len() + test.len(), test.len().abs_diff(500) < 5), (10_003, true));
    assert_eq!(labels(&test).len(), 77);
    let found = lint(&LintInput {
        task: Task::Classify,
        train: &rest,
        dev: &[],
        test: &test,
        documents: None,
        context: None,
    });
    let count = |code| found.iter().filter(|f| f.code == code).count();
    assert_eq!(count(Code::Leak), 0, "the split keeps equal texts together");
    assert_eq!(count(Code::UnseenLabel) + count(Code::OneLabel) + count(Code::FewTestItems), 0);
}
