use assay_store::{ReleaseId, ReleaseManifest, Store, StoreError};
use serde_json::json;

use crate::store;

fn manifest(candidate: &str) -> ReleaseManifest {
    ReleaseManifest {
        candidate: candidate.into(),
        parts: [("corpus".to_owned(), "c0".to_owned())].into(),
        settings: json!({"prompt": "Answer.", "k": 5}),
    }
}

fn current(store: &Store) -> Option<String> {
    store.current_release().unwrap().map(|r| r.manifest.candidate)
}

#[test]
fn a_release_is_served_and_goes_back_whole() {
    let (_dir, store) = store();
    assert_eq!(current(&store), None);
    assert!(matches!(store.rollback(), Err(StoreError::NoEarlierRelease)));

    let rag = store.create_release(&manifest("rag")).unwrap();
    assert_eq!(current(&store), None, "making a release does not serve it");
    store.set_current(&rag).unwrap();
    store.set_current(&rag).unwrap();
    let hybrid = store.create_release(&manifest("hybrid")).unwrap();
    store.set_current(&hybrid).unwrap();
    assert_eq!(current(&store).as_deref(), Some("hybrid"));

    assert_eq!(store.rollback().unwrap().manifest, manifest("rag"));
    assert_eq!(current(&store).as_deref(), Some("rag"));
    assert!(matches!(store.rollback(), Err(StoreError::NoEarlierRelease)));
    let names: Vec<_> =
        store.releases().unwrap().into_iter().map(|r| r.manifest.candidate).collect();
    assert_eq!(names, ["rag", "hybrid"]);
}

#[test]
fn the_same_manifest_is_the_same_release() {
    let (_dir, store) = store();
    let first = store.create_release(&manifest("rag")).unwrap();
    assert_eq!(store.create_release(&manifest("rag")).unwrap(), first);
    assert_eq!(store.releases().unwrap().len(), 1);
}

#[test]
fn an_unknown_release_is_refused() {
    let (_dir, store) = store();
    let error = store.set_current(&ReleaseId("nope".into())).unwrap_err();
    assert!(matches!(&error, StoreError::NoSuchRelease(id) if id == "nope"), "{error}");
}
