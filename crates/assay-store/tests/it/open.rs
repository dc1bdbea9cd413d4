use std::path::Path;

use assay_store::{Store, StoreError};
use rusqlite::Connection;

use crate::key;

fn prepared(prepare: impl FnOnce(&Path)) -> Result<Store, StoreError> {
    let dir = tempfile::tempdir().unwrap();
    prepare(&dir.path().join("store.db"));
    Store::open(dir.path())
}

#[test]
fn a_newer_store_is_refused() {
    let error = prepared(|path| {
        Store::open(path.parent().unwrap()).unwrap();
        Connection::open(path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    })
    .unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 99, supported: 1, .. }), "{error}");
    assert!(error.hint().unwrap().contains("update assay"));
}

#[test]
fn a_damaged_store_is_an_error_with_a_hint() {
    for content in [&b"SQLite format 3\0 and then something else entirely"[..], &[0xff; 8192]] {
        let error = prepared(|path| fs_err::write(path, content).unwrap()).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains("store.db") && error.hint().is_some());
    }
}

#[test]
fn damage_inside_is_found_when_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for n in 0..200 {
        store.put(&key("a", n), &"x".repeat(500)).unwrap();
    }
    drop(store);
    let path = dir.path().join("store.db");
    let mut bytes = fs_err::read(&path).unwrap();
    bytes[8192..].fill(0xee);
    fs_err::write(&path, bytes).unwrap();
    let result = Store::open(dir.path())
        .and_then(|s| (0..200).try_for_each(|n| s.get::<String>(&key("a", n)).map(drop)));
    assert!(matches!(result, Err(StoreError::Corrupt { .. })), "{result:?}");
}

#[test]
fn another_programs_database_is_refused() {
    let error = prepared(|path| {
        Connection::open(path).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    })
    .unwrap_err();
    assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
}

#[test]
fn many_openers_at_once_share_one_store() {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for n in 0..8 {
            let root = dir.path();
            scope.spawn(move || {
                let store = Store::open(root).unwrap();
                for i in 0..20 {
                    store.put_item(&key("a", 1), &format!("{n}-{i}"), &i).unwrap();
                }
            });
        }
    });
    assert_eq!(Store::open(dir.path()).unwrap().items::<u32>(&key("a", 1)).unwrap().len(), 160);
}
