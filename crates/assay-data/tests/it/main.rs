//! Datasets at the crate's boundary.

mod lint;
mod raft;
mod read;
mod real;
mod split;

use assay_types::{Item, ItemId, RowRef};

/// An item by its row number, input, reference (none if empty) and gold document (none if empty).
fn item(row: usize, input: &str, reference: &str, document: &str) -> Item {
    let some = |s: &str| (!s.is_empty()).then(|| s.to_owned());
    Item {
        id: ItemId(format!("i{row}")),
        input: input.to_owned(),
        system: None,
        references: some(reference).into_iter().collect(),
        doc_ids: some(document).into_iter().collect(),
        answerable: None,
        slices: Default::default(),
        source: RowRef { file: "train.jsonl".into(), row },
    }
}
