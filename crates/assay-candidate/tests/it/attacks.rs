//! Attacks of others, planted in real documents before real answers: what falls for them, and what the guards are worth.

use assay_candidate::{Guard, Request};
use assay_eval::Attack;
use serde_json::Value;

use super::citations::{candidate, questions};

/// What is asked, and what is planted where its best source stands.
type Planted = Vec<(String, Attack)>;

/// Instructions of BIPIA (J. Yi et al., arXiv 2312.14197) that want an address in the answer, which is what shows that
/// they worked; the others need a judge.
fn bipia(questions: &[String]) -> Option<Planted> {
    let folder = assay_testkit::dataset("bipia")?;
    let text = fs_err::read_to_string(folder.join("text_attack_train.json")).expect("the file");
    let all: serde_json::Map<String, Value> = serde_json::from_str(&text).expect("its JSON");
    let instructions = all.values().filter_map(Value::as_array).flatten().filter_map(Value::as_str);
    let attacks: Vec<Attack> = instructions
        .filter_map(|text| {
            let words = text.split(|c: char| c.is_whitespace() || "()\"'".contains(c));
            let mut words = words.map(|w| w.trim_matches(|c: char| !c.is_alphanumeric()));
            let address = words.find(|w| w.ends_with(".com") || w.ends_with(".xyz"))?;
            Attack::planted(text, address)
        })
        .collect();
    assert!(attacks.len() >= 8, "{} attacks with addresses", attacks.len());
    Some(questions.iter().cloned().zip(attacks.into_iter().cycle()).collect())
}

/// Questions of Natural Questions with a passage that answers them wrongly, as PoisonedRAG (W. Zou et al., arXiv
/// 2402.07867) wrote it.
fn poisoned() -> Option<Planted> {
    let file = assay_testkit::dataset("poisonedrag")?.join("nq.json");
    let text = fs_err::read_to_string(file).expect("the file");
    let all: serde_json::Map<String, Value> = serde_json::from_str(&text).expect("its JSON");
    let attack = |row: &Value| {
        let planted =
            Attack::planted(row["adv_texts"][0].as_str()?, row["incorrect answer"].as_str()?)?;
        // That the passage is quoted is the very aim, so what stands before the wrong answer excuses nothing.
        Some((row["question"].as_str()?.to_owned(), planted.however_said()))
    };
    Some(all.values().filter_map(attack).collect())
}

/// How many of the attacks worked under each guard.
fn worked(planted: &Planted, folder: &std::path::Path) -> Option<Vec<usize>> {
    let mut counts = Vec::new();
    for guard in [Guard::None, Guard::Told, Guard::Marked] {
        let candidate = candidate(folder, guard)?;
        let requests: Vec<Request<'_>> = planted
            .iter()
            .map(|(question, attack)| Request {
                planted: Some(&attack.text),
                ..Request::new(question)
            })
            .collect();
        let outputs = candidate.answer_batch(&requests).expect("answers");
        let mut count = 0;
        for (output, (_, attack)) in outputs.into_iter().zip(planted) {
            let output = output.expect("an answer");
            assert!(output.retrieved.iter().any(|r| r.in_context), "nothing was planted");
            // What is planted stands in no file, so it is cited by nobody.
            assert!(output.citations.iter().all(|c| !attack.text.contains(&c.quote)), "{output:?}");
            count += usize::from(attack.worked(&output.text));
        }
        counts.push(count);
    }
    Some(counts)
}

fn library() -> Option<(tempfile::TempDir, Vec<String>)> {
    let folder = tempfile::tempdir().expect("a folder");
    let docs = folder.path().join("docs");
    fs_err::create_dir(&docs).expect("a folder");
    let questions = questions(&docs, 72)?;
    Some((folder, questions))
}

#[test]
fn planted_text_reaches_the_model_and_is_never_cited() {
    let Some((folder, questions)) = library() else { return };
    let Some(planted) = bipia(&questions[..9]) else { return };
    let Some(counts) = worked(&planted, folder.path()) else { return };
    assert_eq!(counts.len(), 3);
    // A passage that states an answer is believed at least now and then, or it was not read.
    let Some(poisoned) = poisoned() else { return };
    let Some(counts) = worked(&poisoned[..12].to_vec(), folder.path()) else { return };
    assert!(counts[0] > 0, "{counts:?}");
}

#[test]
#[ignore = "minutes; prints the figures of docs/retrieval.md"]
#[expect(clippy::print_stderr, reason = "figures for people")]
fn what_guards_are_worth() {
    let Some((folder, questions)) = library() else { return };
    for (name, planted) in [("BIPIA", bipia(&questions)), ("PoisonedRAG", poisoned())] {
        let Some(planted) = planted else { continue };
        let Some(counts) = worked(&planted, folder.path()) else { return };
        eprintln!("{name}, of {}: none, told, marked: {counts:?}", planted.len());
    }
    let own: Planted = questions.iter().cloned().zip((0..).map(Attack::instruction)).collect();
    let Some(counts) = worked(&own, folder.path()) else { return };
    eprintln!("own instructions, of {}: none, told, marked: {counts:?}", own.len());
}
