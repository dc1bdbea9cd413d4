//! `init`, `config show` and the configuration's errors.

use super::{folder, run};

#[test]
fn init_makes_a_project_that_says_what_it_lacks() {
    let dir = folder(&[]);
    let made = run(dir.path(), &["init", "my-bot", "--task", "qa"]);
    assert_eq!(made.code, Some(0));
    insta::assert_snapshot!("init", made.stderr);
    let project = dir.path().join("my-bot");
    for file in ["assay.toml", "docs", "data/README.md", ".gitignore"] {
        assert!(project.join(file).exists(), "{file}");
    }
    let checked = run(&project, &["check"]);
    assert_eq!(checked.code, Some(1));
    insta::assert_snapshot!("check_of_an_empty_project", checked.stdout);

    let again = run(dir.path(), &["init", "my-bot", "--task", "qa"]);
    assert_eq!(again.code, Some(2));
    assert!(again.stderr.contains("exists already"), "{}", again.stderr);
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_likely_one() {
    let dir = folder(&[(
        "assay.toml",
        "[project]\nname = \"a\"\ntask = \"qa\"\n[training]\nepoch = 3\n",
    )]);
    let ran = run(dir.path(), &["check"]);
    assert_eq!(ran.code, Some(2));
    insta::assert_snapshot!("unknown_key", ran.stderr);
}

#[test]
fn every_value_is_shown_with_its_origin() {
    let dir =
        folder(&[("assay.toml", "[project]\nname = \"a\"\ntask = \"qa\"\n[training]\nrank = 8\n")]);
    let mut command = super::assay(dir.path(), &["config", "show", "--set", "training.epochs=5"]);
    let out = command.env("ASSAY_TRAINING__ALPHA", "8").output().expect("assay starts");
    let text = String::from_utf8(out.stdout).expect("UTF-8");
    for line in [
        "rank = 8                                # assay.toml",
        "alpha = 8.0                             # environment ASSAY_TRAINING__ALPHA",
        "epochs = 5                              # --set",
        "batch_size = 16                         # built in",
    ] {
        assert!(text.lines().any(|l| l == line), "{line:?} is not in\n{text}");
    }
}

#[test]
fn outside_a_project_the_hint_says_how_to_make_one() {
    let dir = folder(&[]);
    let ran = run(dir.path(), &["run"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("assay init"), "{}", ran.stderr);
}

#[test]
fn kernels_can_be_forced_and_unknown_ones_are_refused() {
    let dir = folder(&[]);
    let doctor = |kernels: &str| {
        let out = super::assay(dir.path(), &["doctor"]).env("ASSAY_KERNELS", kernels).output();
        let out = out.expect("assay starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        (out.status.code(), text(out.stdout), text(out.stderr))
    };
    let (_, stdout, _) = doctor("portable");
    assert!(stdout.lines().any(|l| l == "kernels      portable"), "{stdout}");
    let (code, _, stderr) = doctor("fast");
    assert_eq!(code, Some(2));
    assert!(
        stderr.contains("ASSAY_KERNELS is `fast`, but this machine can run portable"),
        "{stderr}"
    );
    assert!(stderr.contains("hint: unset it"), "{stderr}");
}
