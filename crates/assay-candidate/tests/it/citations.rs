//! Citations of real answers about real documents, against the bytes of the files.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use assay_candidate::{
    Candidate, CandidateSpec, EncoderEmbedder, Guard, Options, RankedBy, Refinement, Request,
    RetrievalSpec, RetrieveFrom, Retriever, Searcher, Shot, Source, user_turn,
};
use assay_index::{Index, IndexConfig};
use assay_model::{Decoder, Encoder, EncoderPrecision, Precision};
use assay_types::Task;
use serde_json::Value;

/// What became of the markers of all answers.
#[derive(Debug, Default)]
struct Counts {
    answers: usize,
    given: usize,
    repaired: usize,
    dropped: usize,
}

/// Paragraphs of XQuAD as files, and questions about them, as many as wanted of each article in turn.
pub(super) fn questions(docs: &Path, wanted: usize) -> Option<Vec<String>> {
    let file = assay_testkit::dataset("xquad")?.join("xquad.en.dev.json.gz");
    let text = std::io::read_to_string(flate2::read::GzDecoder::new(
        fs_err::File::open(file).expect("the dataset"),
    ));
    let data: Value = serde_json::from_str(&text.expect("its text")).expect("its JSON");
    let mut questions: Vec<(usize, String)> = Vec::new();
    for (a, article) in data["data"].as_array()?.iter().enumerate() {
        for (p, paragraph) in article["paragraphs"].as_array()?.iter().enumerate() {
            let path = docs.join(format!("{a:02}-{p}.md"));
            fs_err::write(path, paragraph["context"].as_str()?).expect("a document");
            let asked = paragraph["qas"].as_array()?;
            let asked = asked.iter().filter_map(|q| q["question"].as_str());
            questions.extend(asked.enumerate().map(|(i, q)| (i * 10 + p, q.to_owned())));
        }
    }
    questions.sort();
    Some(questions.into_iter().map(|(_, q)| q).take(wanted).collect())
}

/// Solved examples, from which the small model learns to name its source.
fn shots(guard: Guard) -> Vec<Shot> {
    let source = |document: &str, text: &str| Source {
        document: document.into(),
        start: 0,
        headings: vec![],
        text: text.into(),
    };
    let sources = [
        source("a.md", "The fee for a parking card is 12 euros. It is due in May."),
        source("b.md", "Parcels leave the depot on Tuesday. There is no Sunday service."),
    ];
    [
        ("When do parcels leave the depot?", "on Tuesday [2]"),
        ("How much is a parking card?", "12 euros [1]"),
        ("Is there a service on Sunday?", "There is no Sunday service [2]"),
    ]
    .map(|(q, a)| Shot { input: user_turn(q, &sources, guard), output: a.into(), shown: vec![] })
    .into()
}

/// What has read the documents in `folder` and answers from them.
pub(super) fn candidate(folder: &Path, guard: Guard) -> Option<Candidate> {
    let (base, embedder) = (assay_testkit::smollm()?, assay_testkit::model("all-minilm-l6-v2")?);
    let encoder = Encoder::open(&embedder, EncoderPrecision::Int8).expect("an embedder");
    let embedder = Arc::new(EncoderEmbedder::new(encoder));
    let config = IndexConfig { chunk_tokens: 100, ..IndexConfig::default() };
    let mut index = Index::open(&folder.join("index"), embedder, config).expect("an index");
    index.ingest(&folder.join("docs"), &mut |_| ControlFlow::Continue(())).expect("an ingest");
    let decoder = Decoder::open(&base, Precision::Bf16).expect("a model");
    let retrieval = RetrievalSpec {
        from: RetrieveFrom::Documents,
        ranked_by: RankedBy::Hybrid,
        refine: Refinement::default(),
        top_k: 3,
        prompt_tokens: 1500,
    };
    let spec = CandidateSpec {
        name: "rag".into(),
        task: Task::Qa,
        instructions: "Answer from the sources in a few words, and name the source in brackets."
            .into(),
        shots: shots(guard),
        retrieval: Some(retrieval),
        guard,
        adapter: None,
        abstain: "I can't find that.".into(),
        abstain_below: None,
        max_new_tokens: 24,
        form: None,
    };
    let retriever = Some(Retriever::Documents(Searcher::new(Arc::new(index))));
    Some(Candidate::new(spec, decoder, None, retriever).expect("a candidate"))
}

fn check(wanted: usize) -> Option<Counts> {
    let folder = tempfile::tempdir().expect("a folder");
    let docs = folder.path().join("docs");
    fs_err::create_dir(&docs).expect("a folder");
    let questions = questions(&docs, wanted)?;
    let candidate = candidate(folder.path(), Guard::None)?;
    let requests: Vec<Request<'_>> = questions.iter().map(|q| Request::new(q)).collect();
    let mut counts = Counts::default();
    for (request, together) in
        requests.iter().zip(candidate.answer_batch(&requests).expect("answers"))
    {
        let together = together.expect("an answer");
        let mut streamed = String::new();
        let alone = candidate
            .answer(request, &Options::default(), &mut |text| {
                streamed += text;
                ControlFlow::Continue(())
            })
            .expect("an answer");
        assert_eq!((&alone.text, &alone.text), (&together.text, &streamed), "{request:?}");
        assert_eq!(alone.citations, together.citations, "{request:?}");
        for c in &alone.citations {
            let file = fs_err::read_to_string(docs.join(&c.document)).expect("the cited file");
            assert_eq!(file.get(c.start..c.end), Some(c.quote.as_str()), "{request:?}");
        }
        // No marker is left that no citation stands behind.
        for number in 1..100 {
            let marker = format!("[{number}]");
            let cited = alone.citations.iter().any(|c| c.source_number == number);
            assert!(cited || !alone.text.contains(&marker), "{request:?}: {}", alone.text);
        }
        let repaired = alone.citations.iter().filter(|c| c.repaired).count();
        counts.answers += 1;
        counts.given += alone.citations.len() - repaired;
        counts.repaired += repaired;
        counts.dropped += alone.dropped_citations;
    }
    Some(counts)
}

#[test]
fn released_citations_stand_in_the_files() {
    let Some(counts) = check(24) else { return };
    assert!(counts.given + counts.repaired > 0, "nothing was cited: {counts:?}");
}

#[test]
#[ignore = "minutes; prints the figures of docs/retrieval.md"]
#[expect(clippy::print_stdout, reason = "figures for people")]
fn released_citations_of_many_answers_stand_in_the_files() {
    let Some(counts) = check(300) else { return };
    println!("{counts:?}");
}
