//! The store at its boundary: what was filed is found again, whatever happened in between.

mod crash;
mod keys;
mod open;
mod releases;

use assay_store::{Key, StepKey, Store};

fn key(step: &'static str, n: u32) -> Key {
    StepKey::new(step, 1).setting("n", &n).finish()
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join(".assay")).unwrap();
    (dir, store)
}

#[test]
fn values_are_found_by_key_only() {
    let (_dir, store) = store();
    store.put(&key("a", 1), &vec![1.5, f64::MIN_POSITIVE]).unwrap();
    assert_eq!(store.get(&key("a", 1)).unwrap(), Some(vec![1.5, f64::MIN_POSITIVE]));
    assert_eq!(store.get::<Vec<f64>>(&key("a", 2)).unwrap(), None);
    assert_eq!(store.get::<Vec<f64>>(&key("b", 1)).unwrap(), None);
}

#[test]
fn a_value_of_another_form_is_an_error_that_names_the_step() {
    let (_dir, store) = store();
    store.put(&key("score", 1), "text").unwrap();
    let message = store.get::<u32>(&key("score", 1)).unwrap_err().to_string();
    assert!(message.contains("step `score`"), "{message}");
}

#[test]
fn items_accumulate_and_are_replaced() {
    let (_dir, store) = store();
    let k = key("generate", 1);
    assert!(store.items::<String>(&k).unwrap().is_empty());
    store.put_item(&k, "q2", "b").unwrap();
    store.put_item(&k, "q1", "a").unwrap();
    store.put_item(&k, "q2", "c").unwrap();
    store.put_item(&key("generate", 2), "q9", "other step").unwrap();
    let items: Vec<_> = store.items::<String>(&k).unwrap().into_iter().collect();
    assert_eq!(items, [("q1".into(), "a".into()), ("q2".into(), "c".into())]);
}

#[test]
fn an_artifact_appears_whole_and_once() {
    let (_dir, store) = store();
    let k = key("train", 1);
    let work = store.work_dir(&k).unwrap();
    std::fs::create_dir(work.join("checkpoint")).unwrap();
    std::fs::File::create_new(work.join("checkpoint/step")).unwrap();
    assert!(!store.has_dir(&k));
    assert_eq!(store.work_dir(&k).unwrap(), work, "an interrupted step finds its checkpoints");

    let dir = store.commit_dir(&k).unwrap();
    assert!(store.has_dir(&k) && dir.join("checkpoint/step").is_file() && !work.exists());

    store.work_dir(&k).unwrap();
    store.commit_dir(&k).unwrap();
    assert!(dir.join("checkpoint/step").is_file(), "a second commit keeps the first artifact");
}

#[test]
fn only_one_run_at_a_time() {
    let (_dir, store) = store();
    let lock = store.lock_run().unwrap();
    let error = Store::open(store.root()).unwrap().lock_run().unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&format!("(process {})", std::process::id())), "{text}");
    assert!(error.hint().is_some());
    store.put(&key("a", 1), &1).unwrap();
    drop(lock);
    store.lock_run().unwrap();
}
