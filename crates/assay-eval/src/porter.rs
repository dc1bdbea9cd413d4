//! The Porter stemmer in the variant that ROUGE uses: M. F. Porter, Program 14 (1980), with the author's later
//! departures and NLTK's own (irregular forms, short `-ies`/`-ied`, `-y` after a consonant).

/// Forms that the rules would get wrong, with their stems.
const IRREGULAR: [(&str, &str); 16] = [
    ("sky", "sky"),
    ("skies", "sky"),
    ("dying", "die"),
    ("lying", "lie"),
    ("tying", "tie"),
    ("news", "news"),
    ("innings", "inning"),
    ("inning", "inning"),
    ("outings", "outing"),
    ("outing", "outing"),
    ("cannings", "canning"),
    ("canning", "canning"),
    ("howe", "howe"),
    ("proceed", "proceed"),
    ("exceed", "exceed"),
    ("succeed", "succeed"),
];

const STEP_2: [(&str, &str); 21] = [
    ("ational", "ate"),
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("bli", "ble"),
    ("alli", "al"),
    ("entli", "ent"),
    ("eli", "e"),
    ("ousli", "ous"),
    ("ization", "ize"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("biliti", "ble"),
    ("fulli", "ful"),
];

const STEP_3: [(&str, &str); 7] = [
    ("icate", "ic"),
    ("ative", ""),
    ("alize", "al"),
    ("iciti", "ic"),
    ("ical", "ic"),
    ("ful", ""),
    ("ness", ""),
];

const STEP_4: [&str; 19] = [
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou",
    "ism", "ate", "iti", "ous", "ive", "ize",
];

/// Stem of a lower-case ASCII word.
pub(crate) fn stem(word: &str) -> String {
    if let Some((_, stem)) = IRREGULAR.iter().find(|(form, _)| *form == word) {
        return (*stem).to_owned();
    }
    if word.len() <= 2 {
        return word.to_owned();
    }
    let word = plural(word.to_owned());
    let word = past_and_gerund(word);
    let word = final_y(word);
    let word = double_suffix(word);
    let word = replace_first(&word, &STEP_3, |stem| measure(stem) > 0);
    final_l(final_e(single_suffix(word)))
}

/// Step 1a.
fn plural(word: String) -> String {
    if word.ends_with("ies") && word.len() == 4 {
        return cut(&word, 1);
    }
    if word.ends_with("sses") || word.ends_with("ies") {
        cut(&word, 2)
    } else if word.ends_with('s') && !word.ends_with("ss") {
        cut(&word, 1)
    } else {
        word
    }
}

/// Step 1b.
fn past_and_gerund(word: String) -> String {
    if word.ends_with("ied") {
        return cut(&word, if word.len() == 4 { 1 } else { 2 });
    }
    if let Some(stem) = word.strip_suffix("eed") {
        return if measure(stem) > 0 { cut(&word, 1) } else { word };
    }
    let Some(stem) = ["ed", "ing"]
        .iter()
        .find_map(|suffix| word.strip_suffix(suffix).filter(|stem| has_vowel(stem)))
    else {
        return word;
    };
    if ["at", "bl", "iz"].iter().any(|end| stem.ends_with(end)) {
        return format!("{stem}e");
    }
    if ends_double_consonant(stem) {
        return if stem.ends_with(['l', 's', 'z']) { stem.to_owned() } else { cut(stem, 1) };
    }
    if measure(stem) == 1 && ends_short(stem) { format!("{stem}e") } else { stem.to_owned() }
}

/// Step 1c.
fn final_y(word: String) -> String {
    match word.strip_suffix('y') {
        Some(stem) if stem.len() > 1 && is_consonant(stem.as_bytes(), stem.len() - 1) => {
            format!("{stem}i")
        }
        _ => word,
    }
}

/// Step 2.
fn double_suffix(word: String) -> String {
    if let Some(stem) = word.strip_suffix("alli").filter(|stem| measure(stem) > 0) {
        return double_suffix(format!("{stem}al"));
    }
    if let Some(stem) = word.strip_suffix("logi") {
        // The `l` belongs to the measured part.
        return if measure(&format!("{stem}l")) > 0 { cut(&word, 1) } else { word };
    }
    replace_first(&word, &STEP_2, |stem| measure(stem) > 0)
}

/// Step 4.
fn single_suffix(word: String) -> String {
    let matched = STEP_4.iter().find_map(|suffix| Some((*suffix, word.strip_suffix(suffix)?)));
    match matched {
        Some((suffix, stem))
            if measure(stem) > 1 && (suffix != "ion" || stem.ends_with(['s', 't'])) =>
        {
            stem.to_owned()
        }
        _ => word,
    }
}

/// Step 5a.
fn final_e(word: String) -> String {
    match word.strip_suffix('e') {
        Some(stem) if measure(stem) > 1 || measure(stem) == 1 && !ends_short(stem) => {
            stem.to_owned()
        }
        _ => word,
    }
}

/// Step 5b.
fn final_l(word: String) -> String {
    match word.strip_suffix('l') {
        Some(stem) if stem.ends_with('l') && measure(stem) > 1 => stem.to_owned(),
        _ => word,
    }
}

/// Applies the first rule whose suffix matches, or none if its condition does not hold.
fn replace_first(word: &str, rules: &[(&str, &str)], holds: impl Fn(&str) -> bool) -> String {
    let matched = rules.iter().find_map(|(suffix, new)| Some((word.strip_suffix(suffix)?, new)));
    match matched {
        Some((stem, new)) if holds(stem) => format!("{stem}{new}"),
        _ => word.to_owned(),
    }
}

fn cut(word: &str, letters: usize) -> String {
    word[..word.len() - letters].to_owned()
}

/// A letter other than a vowel; `y` is one at the start and after a vowel.
fn is_consonant(word: &[u8], i: usize) -> bool {
    match word[i] {
        b'a' | b'e' | b'i' | b'o' | b'u' => false,
        b'y' => i == 0 || !is_consonant(word, i - 1),
        _ => true,
    }
}

fn has_vowel(stem: &str) -> bool {
    (0..stem.len()).any(|i| !is_consonant(stem.as_bytes(), i))
}

/// Number of vowel-to-consonant turns.
fn measure(stem: &str) -> usize {
    let word = stem.as_bytes();
    (1..word.len()).filter(|&i| !is_consonant(word, i - 1) && is_consonant(word, i)).count()
}

fn ends_double_consonant(stem: &str) -> bool {
    let word = stem.as_bytes();
    matches!(word, [.., x, y] if x == y) && is_consonant(word, word.len() - 1)
}

/// Ends consonant–vowel–consonant, the last not w, x or y; or is a vowel and a consonant.
fn ends_short(stem: &str) -> bool {
    let (word, n) = (stem.as_bytes(), stem.len());
    if n == 2 {
        return !is_consonant(word, 0) && is_consonant(word, 1);
    }
    n >= 3
        && is_consonant(word, n - 3)
        && !is_consonant(word, n - 2)
        && is_consonant(word, n - 1)
        && !matches!(word[n - 1], b'w' | b'x' | b'y')
}

#[cfg(test)]
mod tests {
    #[test]
    fn stems_equal_nltk() {
        let Some(path) = assay_testkit::golden_metrics() else { return };
        let text = fs_err::read_to_string(path).unwrap();
        let golden: serde_json::Value = serde_json::from_str(&text).unwrap();
        for case in golden["groups"]["porter"]["cases"].as_array().unwrap() {
            let word = case["input"].as_str().unwrap();
            assert_eq!(super::stem(word), case["expected"].as_str().unwrap(), "{word}");
        }
    }
}
