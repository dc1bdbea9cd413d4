use assay_data::{Dataset, Format, ReadError, Shape, parse, read};
use assay_types::Split;
use proptest::prelude::*;

fn jsonl(text: &str) -> Result<Dataset, ReadError> {
    parse(text.as_bytes(), "d.jsonl", Format::Jsonl, None)
}

fn csv(text: &str) -> Result<Dataset, ReadError> {
    parse(text.as_bytes(), "d.csv", Format::Csv, None)
}

fn check(row: &str, shape: Shape, input: &str, references: &[&str]) {
    let data = jsonl(row).unwrap_or_else(|e| panic!("{row}: {:?}", e.rows()));
    assert_eq!((data.shape, data.items.len()), (shape, 1), "{row}");
    assert_eq!(
        (data.items[0].input.as_str(), data.items[0].references.as_slice()),
        (input, references.iter().map(|r| r.to_string()).collect::<Vec<_>>().as_slice())
    );
}

/// The error lines of a file that cannot be read.
fn errors(result: Result<Dataset, ReadError>) -> String {
    let error = result.expect_err("rows are bad");
    let rows: Vec<_> = error.rows().iter().map(ToString::to_string).collect();
    format!("{error}\n{}", rows.join("\n"))
}

#[test]
fn every_shape_is_recognised() {
    check(
        r#"{"messages":[{"role":"system","content":"s"},{"role":"user","content":"u"},{"role":"assistant","content":"a"}]}"#,
        Shape::Messages,
        "u",
        &["a"],
    );
    check(
        r#"{"conversations":[{"from":"human","value":"u"},{"from":"gpt","value":"a"}]}"#,
        Shape::Conversations,
        "u",
        &["a"],
    );
    check(r#"{"prompt":"p","completion":"c"}"#, Shape::PromptCompletion, "p", &["c"]);
    check(
        r#"{"prompt":"p","completion":{"total": 3}}"#,
        Shape::PromptCompletion,
        "p",
        &[r#"{"total":3}"#],
    );
    check(r#"{"instruction":"i","input":"","output":"o"}"#, Shape::Instruction, "i", &["o"]);
    check(r#"{"instruction":"i","input":"x","output":"o"}"#, Shape::Instruction, "i\n\nx", &["o"]);
    check(r#"{"question":"q","answer":"a"}"#, Shape::QuestionAnswer, "q", &["a"]);
    check(r#"{"question":"q","answers":["a","b"]}"#, Shape::QuestionAnswer, "q", &["a", "b"]);
    check(r#"{"question":"q","answerable":false}"#, Shape::QuestionAnswer, "q", &[]);
    check(r#"{"question":"q","answers":[],"answerable":false}"#, Shape::QuestionAnswer, "q", &[]);
    check(r#"{"text":"t","label":" l "}"#, Shape::TextLabel, "t", &["l"]);
    check(r#"{"text":"t","label":7}"#, Shape::TextLabel, "t", &["7"]);
}

#[test]
fn common_fields_are_read() {
    let data = jsonl(
        r#"{"id":"a","question":"q","answer":"x","doc_ids":["./a\\b.md"],"answerable":true,"split":"test","tags":{"type":"how","hops":2},"extra":1}"#,
    )
    .unwrap();
    let item = &data.items[0];
    assert_eq!(item.id.0, "a");
    assert_eq!(item.doc_ids, ["a/b.md"]);
    assert_eq!(item.answerable, Some(true));
    assert_eq!(item.slices["type"], "how");
    assert_eq!(item.slices["hops"], "2");
    assert_eq!(data.of_split(Split::Test).len(), 1);
    assert!(data.of_split(Split::Train).is_empty());
    assert_eq!(data.ignored.iter().collect::<Vec<_>>(), ["extra"]);
    // printf '{"text":"a","label":"b"}' | b3sum | head -c 16
    assert_eq!(&jsonl(r#"{"text":"a","label":"b"}"#).unwrap().hash[..16], "a5d2cc3946be19c4");
}

#[test]
fn lines_end_in_line_feed_only() {
    let data = jsonl("\u{feff}{\"text\":\"a\u{2028}b\u{85}c\",\"label\":\"x\"}\r\n\n  \n{\"text\":\"d\",\"label\":\"y\"}").unwrap();
    assert_eq!(data.items[0].input, "a\u{2028}b\u{85}c");
    assert_eq!(data.items[1].source.to_string(), "d.jsonl:4");
}

#[test]
fn ids_are_made_from_content_and_unique() {
    let rows = r#"{"text":"a","label":"x"}
{"text":"b","label":"x"}
{"text":"a","label":"x"}"#;
    let forward = jsonl(rows).unwrap();
    let ids: Vec<_> = forward.items.iter().map(|i| i.id.0.clone()).collect();
    assert_eq!(ids[0].len(), 16);
    assert_eq!(ids[2], format!("{}-2", ids[0]));
    let reversed: Vec<_> = rows.lines().rev().collect();
    let reversed = jsonl(&reversed.join("\n")).unwrap();
    assert_eq!(reversed.items[1].id.0, ids[1]);
}

#[test]
fn all_bad_rows_are_named_at_once() {
    let text = r#"{"question": "ok", "answer": "yes"}
{"question": "no closing brace"
[1, 2]
"text"
{"question": "mixed", "text": "t", "label": "l"}
{"text": "t", "label": "l"}
{"question": "no answer"}
{"question": "", "answer": "a"}
{"question": "q", "answer": "  "}
{"question": 3, "answer": "a"}
{"question": "q", "answers": ["a", 1]}
{"question": "q", "anwser": "a"}
{"qestion": "q", "answer": "a"}
{"question": "q", "answer": "a", "answerable": "yes"}
{"question": "q", "answer": "a", "answerable": false}
{"question": "q", "answer": "a", "split": "holdout"}
{"question": "q", "answer": "a", "tags": ["x"]}
{"question": "q", "answer": "a", "tags": {"x": []}}
{"question": "q", "answer": "a", "doc_ids": [1]}
{"id": "same", "question": "q", "answer": "a"}
{"id": "same", "question": "r", "answer": "a"}
{"id": "same", "question": "s", "answer": "a"}
{}
{"foo": 1}"#;
    insta::assert_snapshot!(errors(jsonl(text)));
}

#[test]
fn conversations_are_one_exchange() {
    let text = r#"{"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]}
{"messages": []}
{"messages": "u"}
{"messages": [{"role": "user", "content": "u"}]}
{"messages": [{"role": "user", "content": "u"}, {"role": "tool", "content": "a"}]}
{"messages": [{"role": "user", "content": ["parts"]}, {"role": "assistant", "content": "a"}]}
{"messages": [{"role": "user"}, {"role": "assistant", "content": "a"}]}
{"messages": [{"role": "user", "content": " "}, {"role": "assistant", "content": "a"}]}
{"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]}"#;
    insta::assert_snapshot!(errors(jsonl(text)));
}

#[test]
fn broken_utf8_is_named_by_byte() {
    let bytes = b"{\"text\":\"a\",\"label\":\"b\"}\n{\"text\":\"\xff\",\"label\":\"b\"}";
    let text = errors(parse(bytes, "d.jsonl", Format::Jsonl, None));
    assert!(text.contains("d.jsonl:2: broken UTF-8: byte 0xff at offset 34 of the file"), "{text}");
    let bytes = b"text,label\na,b\nx\xc3,c\n";
    let text = errors(parse(bytes, "d.csv", Format::Csv, None));
    assert!(text.contains("d.csv:3: broken UTF-8: byte 0xc3 at offset 1 of `text`"), "{text}");
    let utf16 = parse(b"\xff\xfe{\0", "d.jsonl", Format::Jsonl, None).unwrap_err();
    assert!(matches!(utf16, ReadError::Utf16 { .. }));
}

#[test]
fn files_as_a_whole_may_be_unfit() {
    assert!(matches!(jsonl("\n \n"), Err(ReadError::Empty { .. })));
    assert!(matches!(csv(""), Err(ReadError::Empty { .. })));
    assert!(matches!(csv("text,label\n"), Err(ReadError::Empty { .. })));
    let error = jsonl(r#"{"prompt":"p","chosen":"c","rejected":"r"}"#).unwrap_err();
    assert!(matches!(error, ReadError::Preference { .. }) && error.hint().is_some(), "{error}");
    let missing = read("nowhere/d.jsonl".as_ref(), "d.jsonl", None).unwrap_err();
    assert!(missing.to_string().contains("nowhere/d.jsonl"), "{missing}");
    for name in ["d.json", "d.jsonl.gz", "d.tsv", "d"] {
        let error = read(name.as_ref(), name, None).unwrap_err();
        assert!(matches!(error, ReadError::UnknownFormat { .. }) && error.hint().is_some());
    }
}

#[test]
fn csv_is_read_by_its_rules() {
    let data = csv("id,question,answers,doc_ids,answerable,tags.type\r\n\
        1,\"Say \"\"hi\"\", please\nnow\",\"[\"\"a\"\",\"\"b\"\"]\",x.md,yes,how\r\n\
        2,Nothing?,,,false,\r\n")
    .unwrap();
    let [first, second] = data.items.as_slice() else { panic!("two rows") };
    assert_eq!(first.input, "Say \"hi\", please\nnow");
    assert_eq!(first.references, ["a", "b"]);
    assert_eq!(first.doc_ids, ["x.md"]);
    assert_eq!((first.slices["type"].as_str(), first.answerable), ("how", Some(true)));
    assert_eq!((second.references.len(), second.answerable), (0, Some(false)));
    assert_eq!(second.source.to_string(), "d.csv:3");
}

#[test]
fn bad_csv_is_named_by_record() {
    let text = "text,label\na,b\na,b,c\n,d\ne,\nf,g\n";
    insta::assert_snapshot!(errors(csv(text)));
    for header in ["text;label\na;b\n", "text,text\na,b\n"] {
        assert!(matches!(csv(header), Err(ReadError::Header { .. })));
    }
}

#[test]
fn a_shape_can_be_pinned() {
    let row = br#"{"question":"q","answer":"a","text":"t","label":"l"}"#;
    let pinned = |shape| parse(row, "d.jsonl", Format::Jsonl, Some(shape));
    assert_eq!(pinned(Shape::TextLabel).unwrap().items[0].input, "t");
    assert_eq!(pinned(Shape::QuestionAnswer).unwrap().items[0].input, "q");
    assert!(pinned(Shape::Messages).is_err());
}

#[test]
fn the_majority_sets_the_shape() {
    let rows = "{\"text\":\"t\",\"label\":\"l\"}\n{\"question\":\"q\",\"answer\":\"a\"}\n{\"question\":\"r\",\"answer\":\"a\"}";
    let error = jsonl(rows).unwrap_err();
    assert_eq!(error.rows().len(), 1);
    assert_eq!(error.rows()[0].at.row, 1);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>, csv: bool) {
        let format = if csv { Format::Csv } else { Format::Jsonl };
        let _ = parse(&bytes, "d", format, None);
    }

    #[test]
    fn no_json_makes_it_panic(
        fields in prop::collection::vec((
            prop::sample::select(vec!["id", "text", "label", "question", "answers", "messages", "tags", "split", "prompt", "completion"]),
            prop::sample::select(vec!["null", "1", "\"s\"", "[]", "{}", "true", "[{\"role\":\"user\",\"content\":\"u\"}]", "{\"a\":1}", "\"\\ud83d\\ude00\""]),
        ), 0..6),
    ) {
        let body: Vec<_> = fields.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
        let _ = jsonl(&format!("{{{}}}", body.join(",")));
    }

    #[test]
    fn written_rows_are_read_back(rows in prop::collection::vec((".*[a-z].*", "[a-z]+"), 1..20)) {
        let lines: Vec<_> = rows
            .iter()
            .map(|(t, l)| serde_json::json!({"text": t, "label": l}).to_string())
            .collect();
        let from_jsonl = jsonl(&lines.join("\n")).unwrap();
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(["text", "label"]).unwrap();
        rows.iter().for_each(|(t, l)| writer.write_record([t, l]).unwrap());
        let bytes = writer.into_inner().unwrap();
        let from_csv = parse(&bytes, "d.csv", Format::Csv, None).unwrap();
        for (i, (text, label)) in rows.iter().enumerate() {
            for data in [&from_jsonl, &from_csv] {
                prop_assert_eq!(&data.items[i].input, text);
                prop_assert_eq!(&data.items[i].references[0], label);
            }
        }
    }
}
