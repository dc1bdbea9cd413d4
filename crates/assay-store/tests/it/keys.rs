use std::collections::BTreeMap;

use assay_store::{StepKey, hash_bytes, hash_file, hash_json};
use proptest::prelude::*;
use serde_json::json;

#[test]
fn bytes_and_files_hash_as_b3sum_does() {
    // printf abc | b3sum
    let expected = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85";
    assert_eq!(hash_bytes(b"abc"), expected);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs_err::write(file.path(), "abc").unwrap();
    assert_eq!(hash_file(file.path()).unwrap(), expected);
    let missing = hash_file(&file.path().join("x")).unwrap_err().to_string();
    assert!(missing.contains(file.path().to_str().unwrap()), "{missing}");
}

#[test]
fn json_hashes_by_content() {
    assert_eq!(hash_json(&json!({"a": 1, "b": [2]})), hash_json(&json!({"b": [2], "a": 1})));
    let different = [
        json!(null),
        json!(""),
        json!([]),
        json!({}),
        json!("1"),
        json!(1),
        json!([1]),
        json!([[1]]),
        json!(["a", "b"]),
        json!(["ab"]),
        json!([["a"], "b"]),
        json!([["a", "b"]]),
        json!({"a": "b"}),
        json!(true),
    ];
    let hashes: BTreeMap<_, _> = different.iter().map(|v| (hash_json(v), v)).collect();
    assert_eq!(hashes.len(), different.len());
}

#[test]
fn keys_depend_on_every_part_and_not_on_the_order() {
    let base = || StepKey::new("generate", 1).input("model", "aa").setting("k", &5);
    let key = base().finish();
    assert_eq!(key, StepKey::new("generate", 1).setting("k", &5).input("model", "aa").finish());
    assert_eq!((key.step(), key.hash().len()), ("generate", 64));
    for other in [
        StepKey::new("generate", 2).input("model", "aa").setting("k", &5),
        StepKey::new("score", 1).input("model", "aa").setting("k", &5),
        StepKey::new("generate", 1).input("model", "ab").setting("k", &5),
        StepKey::new("generate", 1).input("model", "aa").setting("k", &6),
        StepKey::new("generate", 1).input("k", "aa").setting("model", &5),
        base().input("adapter", "cc"),
    ] {
        assert_ne!(other.finish().hash(), key.hash());
    }
}

#[test]
#[should_panic(expected = "given twice")]
fn a_part_is_given_once() {
    let _ = StepKey::new("generate", 1).input("model", "aa").input("model", "bb");
}

proptest! {
    #[test]
    fn lists_of_strings_never_run_together(a: Vec<String>, b: Vec<String>) {
        prop_assert_eq!(a == b, hash_json(&a) == hash_json(&b));
    }
}
