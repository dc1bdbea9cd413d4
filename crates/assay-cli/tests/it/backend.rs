//! Vectors on a server that is not there, or not understood.

#[test]
fn a_backend_that_is_away_is_an_error_and_no_empty_result() {
    if assay_testkit::model("all-minilm-l6-v2").is_none() {
        return;
    }
    let dir = super::folder(&[
        ("assay.toml", "[project]\nname = \"a\"\ntask = \"qa\"\n"),
        ("docs/one.md", "The lamp is red.\n"),
    ]);
    for (set, told, hint) in [
        ("backend=postgres://anna@127.0.0.1:1/db", "cannot be reached", "hint: is it running"),
        ("backend=qdrant://127.0.0.1:1", "cannot be reached", "hint: is it running"),
        ("backend=postgres://anna:4711@127.0.0.1:1/db", "does not stand in an address", "hint: "),
        ("backend=mysql://anna:4711@127.0.0.1/db", "mysql://anna@127.0.0.1/db", "hint: "),
        ("backend_key_env=sk-4711", "no name of an environment variable", ""),
    ] {
        let set = format!("retrieval.{set}");
        let ran = super::run(dir.path(), &["search", "lamp", "--set", &set]);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{}", ran.stderr);
        assert!(ran.stderr.contains(told) && ran.stderr.contains(hint), "{}", ran.stderr);
        assert!(!ran.stderr.contains("4711"), "{}", ran.stderr);
    }
    // Here it is as ever.
    let ran = super::run(dir.path(), &["search", "lamp"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.contains("one.md"), "{}", ran.stdout);
}
