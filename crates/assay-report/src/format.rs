//! How numbers are written: one way each, everywhere.

/// A share as percent with one decimal: `82.4%`.
pub(crate) fn percent(share: f64) -> String {
    format!("{}%", number(100.0 * share, 1))
}

/// An interval of shares: `78.4 to 85.1%`, or nothing when an end is missing.
pub(crate) fn percent_interval(low: Option<f64>, high: Option<f64>) -> Option<String> {
    Some(format!("{} to {}", number(100.0 * low?, 1), percent(high?)))
}

/// A difference of shares in percentage points, with its sign: `+3.2`, `−0.5`.
pub(crate) fn points(difference: f64) -> String {
    let text = number((100.0 * difference).abs(), 1);
    match text.as_str() {
        "0.0" => text,
        _ if difference < 0.0 => format!("−{text}"),
        _ => format!("+{text}"),
    }
}

/// An interval of differences: `−0.5 to +6.9`.
pub(crate) fn points_interval(low: Option<f64>, high: Option<f64>) -> Option<String> {
    Some(format!("{} to {}", points(low?), points(high?)))
}

/// Milliseconds: whole from 10 upwards, else one decimal.
pub(crate) fn ms(ms: f64) -> String {
    format!("{} ms", number(ms, if ms < 9.95 { 1 } else { 0 }))
}

/// Dollars: cents from one dollar, whole dollars from a thousand, two significant digits below one.
pub(crate) fn usd(usd: f64) -> String {
    let size = usd.abs();
    let decimals = match size {
        0.0 => 0,
        s if s >= 999.995 => 0,
        s if s >= 0.995 => 2,
        s => (1 - s.log10().floor() as i32).clamp(2, 12) as usize,
    };
    let sign = if usd < 0.0 { "−" } else { "" };
    format!("{sign}${}", number(size, decimals))
}

/// A p value: three decimals, or that it is smaller.
pub(crate) fn p_value(p: f64) -> String {
    if p < 0.001 { "< 0.001".to_owned() } else { number(p, 3) }
}

/// A count with thousands parted: `10,003`.
pub(crate) fn count(n: usize) -> String {
    group(&n.to_string())
}

/// A large number in words that fit a tick: `250`, `40k`, `1.5M`.
pub(crate) fn short(x: f64) -> String {
    let (scaled, unit) = match x.abs() {
        s if s >= 1e9 => (x / 1e9, "B"),
        s if s >= 1e6 => (x / 1e6, "M"),
        s if s >= 1e3 => (x / 1e3, "k"),
        _ => (x, ""),
    };
    format!("{}{unit}", trimmed(scaled))
}

/// A number for a tick of an axis: as few decimals as it needs, three at most.
pub(crate) fn trimmed(x: f64) -> String {
    let text = number(x, 3);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `decimals` decimals, thousands parted by commas, a real minus sign; a dash if it is not finite.
pub(crate) fn number(x: f64, decimals: usize) -> String {
    if !x.is_finite() {
        return "–".to_owned();
    }
    let text = format!("{:.decimals$}", x.abs());
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let zero = text.bytes().all(|b| matches!(b, b'0' | b'.'));
    let sign = if x < 0.0 && !zero { "−" } else { "" };
    format!("{sign}{}{rest}", group(whole))
}

fn group(digits: &str) -> String {
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.char_indices() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A name of the program as a person writes it: `macro_f1` → `macro F1`.
pub(crate) fn words(name: &str) -> String {
    let word = |w: &str| match w {
        "f1" | "em" => w.to_uppercase(),
        "mrr" | "map" => w.to_uppercase(),
        w if w.starts_with("ndcg") => format!("nDCG{}", &w[4..]),
        "usd" => "$".to_owned(),
        _ => w.to_owned(),
    };
    name.split('_').map(word).collect::<Vec<_>>().join(" ")
}

/// A sentence of the program parted at its backticks: text, and whether it stood between two of them.
pub(crate) fn prose(text: &str) -> Vec<(String, bool)> {
    let parts: Vec<&str> = text.split('`').collect();
    if parts.len().is_multiple_of(2) {
        // A backtick without a partner is a backtick.
        return vec![(text.to_owned(), false)];
    }
    let parts = parts.into_iter().enumerate().map(|(i, part)| (part.to_owned(), i % 2 == 1));
    parts.filter(|(part, _)| !part.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_text() {
        let parts =
            |text| prose(text).into_iter().map(|(t, c)| format!("{t}/{c}")).collect::<Vec<_>>();
        assert_eq!(parts("Use `rag`: fine"), ["Use /false", "rag/true", ": fine/false"]);
        assert_eq!(parts("a ` b"), ["a ` b/false"]);
        assert!(parts("").is_empty());
    }

    #[test]
    fn numbers_are_written_one_way() {
        assert_eq!(percent(0.82449), "82.4%");
        assert_eq!(percent_interval(Some(0.784), Some(0.851)).unwrap(), "78.4 to 85.1%");
        assert_eq!(percent_interval(None, Some(0.851)), None);
        assert_eq!([points(0.0321), points(-0.005), points(-0.0001)], ["+3.2", "−0.5", "0.0"]);
        assert_eq!([ms(0.42), ms(9.99), ms(1234.5)], ["0.4 ms", "10 ms", "1,234 ms"]);
        assert_eq!(
            [0.0, 0.000_042, 0.0123, 0.5, 1.0, 12.345, 1234.5, -3.0].map(usd),
            ["$0", "$0.000042", "$0.012", "$0.50", "$1.00", "$12.35", "$1,234", "−$3.00"]
        );
        assert_eq!([p_value(0.0004), p_value(0.0412)], ["< 0.001", "0.041"]);
        assert_eq!([count(999), count(10_003), count(1_000_000)], ["999", "10,003", "1,000,000"]);
        assert_eq!([short(250.0), short(40_000.0), short(1.5e6)], ["250", "40k", "1.5M"]);
        assert_eq!([number(f64::NAN, 1), number(-0.01, 1)], ["–", "0.0"]);
        assert_eq!([words("macro_f1"), words("ndcg@10")], ["macro F1", "nDCG@10"]);
    }
}
