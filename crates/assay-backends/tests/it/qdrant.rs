//! Qdrant: the official client against the official interface, over the engine as a library.

use std::sync::Arc;

use assay_backends::{BackendError, Precision, VectorBackend, connect};
use assay_index::{IndexError, Query, SearchMode};

use crate::contract::{self, Make, Spy};
use crate::server::Server;
use crate::support::{Draw, MODES, Project, ingest, search};

fn server() -> Option<Server> {
    Server::run("qdrant.py", &["qdrant_edge", "qdrant_client", "grpc"])
}

fn backend(address: &str, precision: Precision) -> Arc<dyn VectorBackend> {
    connect(address, Some("secret"), precision).unwrap()
}

#[test]
fn qdrant_holds_the_contract() {
    let Some(mut server) = server() else { return };
    let address = server.ask("start");
    let shared = backend(&address, Precision::Exact);
    contract::holds(&|| -> Make { Some(shared.clone()) });
    graphs_find_most_and_are_audited(&address);
    errors_name_the_server(&address);
}

fn graphs_find_most_and_are_audited(address: &str) {
    let (project, mut draw) = (Project::new(), Draw(1));
    for n in 0..500 {
        project.write(&format!("{n:04}.md"), &draw.words(12));
    }
    let here = project.ingested(None);
    let there = project.ingested(Some(backend(address, Precision::Approximate)));
    let mut same = 0;
    for _ in 0..100 {
        let text = draw.words(4);
        let query = Query::new(&text, 10, SearchMode::Vector);
        let (exact, found) = (here.search(&query).unwrap(), there.search(&query).unwrap());
        assert_eq!(found.hits.len(), 10);
        same += found.hits.iter().filter(|hit| exact.hits.contains(hit)).count();
    }
    assert!(same > 800, "{same} of 1000");
    let recall = there.recall().unwrap();
    assert!(recall.searches > 0 && recall.share().unwrap() > 0.8, "{recall:?}");
}

fn errors_name_the_server(address: &str) {
    let of =
        assay_index::Collection { name: "assay_none".into(), embedder: "words".into(), dims: 3 };
    let here = backend(address, Precision::Exact);
    let error = here.search(&of, &[0.0; 3], 1, assay_index::Among::All, true).unwrap_err();
    let text = format!("{error} {}", error.hint().unwrap());
    assert!(
        text.contains(address) && text.contains("rebuild") && text.contains("assay_none"),
        "{text}"
    );
    let stranger = connect(address, Some("wrong"), Precision::Exact).unwrap();
    let error = stranger.open(&of).unwrap_err();
    assert!(matches!(error, BackendError::Failed { .. }), "{error}");
    assert!(
        error.hint().unwrap().contains("backend_key_env") && !error.to_string().contains("wrong")
    );
    let nobody = backend("qdrant://127.0.0.1:1", Precision::Exact).open(&of).unwrap_err();
    assert!(matches!(nobody, BackendError::Away { .. }), "{nobody}");
    assert!(nobody.to_string().contains("qdrant://127.0.0.1:1"), "{nobody}");
}

/// The engine's log is read again.
#[test]
fn killed_servers_lose_nothing() {
    let Some(mut server) = server() else { return };
    let address = server.ask("start");
    let (project, mut draw) = (Project::new(), Draw(9));
    for n in 0..1500 {
        project.write(&format!("{n:04}.txt"), &draw.words(20));
    }
    let here = project.ingested(None);
    let spy = Spy::new(backend(&address, Precision::Exact));
    let done = std::thread::scope(|scope| {
        let ingesting = scope.spawn(|| {
            let mut index = project.open(Some(spy.clone()))?;
            ingest(&mut index, &project)
        });
        while spy.acknowledged().is_empty() && !ingesting.is_finished() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        server.ask("kill");
        ingesting.join().unwrap()
    });
    if let Err(error) = done {
        assert!(matches!(error, IndexError::Backend(_)), "{error}");
    }
    assert_eq!(server.ask("start"), address);
    let there = backend(&address, Precision::Exact).documents(&spy.collection(), None).unwrap();
    for (id, key) in spy.acknowledged() {
        assert_eq!(there.get(&id), Some(&key), "lost");
    }
    let index = project.ingested(Some(backend(&address, Precision::Exact)));
    for mode in MODES {
        assert_eq!(search(&index, "red lamp", 50, mode), search(&here, "red lamp", 50, mode));
    }
    server.ask("kill");
    let error = index.search(&Query::new("red lamp", 5, SearchMode::Hybrid)).unwrap_err();
    assert!(matches!(error, IndexError::Backend(BackendError::Away { .. })), "{error}");
    server.ask("start");
    assert_eq!(
        search(&index, "red lamp", 5, SearchMode::Hybrid),
        search(&here, "red lamp", 5, SearchMode::Hybrid)
    );
}
