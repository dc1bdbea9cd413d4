use assay_data::{Chunk, contains_answer, golden_chunk, raft_row};
use proptest::prelude::*;

use crate::item;

fn chunk(document: &str, start: usize, text: &str) -> Chunk {
    Chunk { document: document.into(), start, end: start + text.len(), text: text.into() }
}

#[test]
fn the_golden_chunk_holds_the_answer() {
    let question = item(1, "How long?", "Thirty days", "gold.md");
    let retrieved = [
        chunk("other.md", 0, "It takes thirty days."),
        chunk("gold.md", 0, "How long it takes"),
        chunk("gold.md", 40, "It takes “thirty days”, at most."),
    ];
    assert_eq!(golden_chunk(&question, &retrieved, &[]), Some(&retrieved[2]));

    let whole = [chunk("gold.md", 90, "Days: thirty days.")];
    assert_eq!(golden_chunk(&question, &retrieved[..2], &whole), Some(&whole[0]));

    let partly = [chunk("gold.md", 0, "nothing"), chunk("gold.md", 9, "some days")];
    assert_eq!(golden_chunk(&question, &partly, &[]), Some(&partly[1]));
    assert_eq!(golden_chunk(&question, &partly[..1], &[]), None);

    let mut unanswerable = question;
    unanswerable.answerable = Some(false);
    assert_eq!(golden_chunk(&unanswerable, &retrieved, &[]), None);
}

#[test]
fn answers_are_whole_words() {
    let has = |reference, text| contains_answer(&item(1, "q", reference, ""), text);
    assert!(has("30", "within 30, or more"));
    assert!(!has("30", "within 300 days"));
    assert!(!has("...", "anything"));
}

#[test]
fn the_golden_share_is_kept() {
    let candidates: Vec<_> =
        (0..12).map(|n| chunk(&format!("{n}.md"), 0, &format!("text {n}"))).collect();
    let golden = chunk("gold.md", 0, "the answer is here");
    let n = 2000;
    let with_golden = (0..n)
        .filter(|i| {
            let question = item(*i, "q", "answer", "gold.md");
            raft_row(&question, Some(&golden), &candidates, 2..=5, 0.8, 3).golden.is_some()
        })
        .count();
    // Four standard deviations of a binomial count.
    let spread = 4.0 * (n as f64 * 0.8 * 0.2).sqrt();
    assert!((with_golden as f64 - 0.8 * n as f64).abs() < spread, "{with_golden} of {n}");
}

proptest! {
    #[test]
    fn rows_keep_the_policy(
        texts in prop::collection::vec((0..6_u8, 0..5_u8, 0..8_u8), 0..15),
        has_golden: bool, p in 0.0..=1.0, seed: u64, id in 0..1000_usize,
    ) {
        let words = ["alpha", "beta", "gamma", "delta", "the answer", "epsilon", "zeta", "eta"];
        let candidates: Vec<_> = texts
            .iter()
            .map(|(d, s, w)| chunk(&format!("{d}.md"), *s as usize * 10, words[*w as usize]))
            .collect();
        let golden = has_golden.then(|| chunk("0.md", 20, "the answer, as it stands"));
        let question = item(id, "q", "answer", "0.md");
        let row = raft_row(&question, golden.as_ref(), &candidates, 2..=5, p, seed);
        prop_assert_eq!(&row, &raft_row(&question, golden.as_ref(), &candidates, 2..=5, p, seed));

        prop_assert_eq!(row.golden.map(|g| &row.chunks[g]), golden.as_ref().filter(|_| row.golden.is_some()));
        let distractors: Vec<_> = row.chunks.iter().enumerate()
            .filter(|(i, _)| Some(*i) != row.golden).map(|(_, c)| c).collect();
        prop_assert!(distractors.len() <= 5);
        for (i, c) in row.chunks.iter().enumerate() {
            prop_assert!(row.chunks[..i].iter().all(|d| d.text != c.text), "a text stands twice");
        }
        for c in distractors {
            prop_assert!(candidates.contains(c));
            if row.golden.is_none() {
                prop_assert!(c.document != "0.md" && !contains_answer(&question, &c.text));
            }
        }
        if p == 0.0 && row.golden.is_some() {
            let fit = |c: &Chunk| c.document != "0.md" && !contains_answer(&question, &c.text);
            prop_assert!(!candidates.iter().any(fit), "a row without golden chunk was possible");
        }
        if row.golden.is_none() && golden.is_some() {
            prop_assert!(!row.chunks.is_empty(), "a row without any context");
        }
    }
}
