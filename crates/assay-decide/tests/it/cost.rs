//! Money.

use assay_decide::*;

use crate::{candidate, input, timed};

#[test]
fn break_even_of_the_published_examples() {
    // Training for $200 that saves one to three cents a query pays after about 7,000 to 20,000 queries.
    let after = |saved| break_even_queries(200.0, 0.05, 0.05 - saved).unwrap();
    assert!((after(0.01) - 20_000.0).abs() < 1e-6);
    assert!((after(0.03) - 6_666.7).abs() < 0.1);
    assert_eq!(break_even_queries(200.0, 0.05, 0.05), None);
    assert_eq!(break_even_queries(200.0, 0.05, 0.06), None);
}

#[test]
fn a_query_costs_machine_time_and_tokens() {
    let prices = Prices {
        hardware_usd_per_hour: 3.6,
        label_usd: 0.5,
        input_usd_per_million_tokens: Some(2.0),
        output_usd_per_million_tokens: Some(10.0),
    };
    let usd = cost_per_query_usd(500.0, 1_000.0, 100.0, &prices);
    assert!((usd - (0.0005 + 0.002 + 0.001)).abs() < 1e-15);
    assert_eq!(machine_usd(1_800.0, &prices), 1.8);
}

#[test]
fn training_is_repaid_against_the_best_candidate_without_it() {
    let mut priced = input(
        120,
        vec![
            timed(candidate("prompt", 120, |i| f64::from(u8::from(i % 3 == 0))), 200.0, 0.0),
            timed(candidate("rag", 120, |i| f64::from(u8::from(i % 2 == 0))), 400.0, 0.0),
            timed(candidate("tuned", 120, |i| f64::from(u8::from(i % 2 == 0))), 100.0, 2.0),
        ],
    );
    priced.prices.hardware_usd_per_hour = 1.0;
    priced.prices.label_usd = 0.1;
    priced.facts.train_labels = 600;
    priced.stated.queries_per_month = Some(100_000.0);
    let decision = decide(&priced).unwrap();
    let [prompt, rag, tuned] = &decision.candidates[..] else { panic!() };
    assert_eq!((prompt.cost.training_usd, prompt.cost.break_even_queries), (Some(0.0), None));
    assert_eq!((tuned.cost.training_usd, tuned.cost.labels_usd), (Some(2.0), Some(60.0)));
    assert_eq!(tuned.cost.break_even_against.as_deref(), Some("rag"));
    let saved = rag.cost.per_query_usd.unwrap() - tuned.cost.per_query_usd.unwrap();
    assert!((tuned.cost.break_even_queries.unwrap() - 2.0 / saved).abs() < 1e-6);
    assert_eq!(prompt.cost.per_month_usd, prompt.cost.per_query_usd.map(|c| 1e5 * c));
    assert_eq!(rag.latency_ms.p50, Some(8.0 + 40.0 + 404.0));
    assert_eq!(rag.latency_ms.retrieval_p95, Some(8.0));
    assert!((prompt.tokens.output_per_s.unwrap() - 24.0 / 0.2045).abs() < 1e-9);
}

#[test]
fn a_model_rented_by_the_token_costs_its_tokens_and_the_time_of_retrieval() {
    let mut rag = timed(candidate("rag", 120, |_| 1.0), 400.0, 0.0);
    rag.paid_by_token = true;
    let mut rented = input(120, vec![rag]);
    rented.prices.hardware_usd_per_hour = 3.6;
    let cost = |input: &DecisionInput| decide(input).unwrap().candidates[0].cost.per_query_usd;
    assert_eq!(cost(&rented), None, "tokens without a price");

    rented.prices.input_usd_per_million_tokens = Some(2.0);
    rented.prices.output_usd_per_million_tokens = Some(10.0);
    let expected = 0.008 * 0.001 + 900.0 * 2e-6 + 24.0 * 10e-6;
    assert!((cost(&rented).unwrap() - expected).abs() < 1e-12);

    // Some tokens unknown: the mean of the known ones. None known: no cost, rather than one of 0.
    rented.candidates[0].usage.truncate(7);
    assert!((cost(&rented).unwrap() - expected).abs() < 1e-12);
    rented.candidates[0].usage.clear();
    assert_eq!(cost(&rented), None);
}

#[test]
fn a_skipped_candidate_stands_in_record_and_warnings() {
    let mut without = input(120, vec![candidate("prompt", 120, |_| 1.0)]);
    let tuned =
        SkippedCandidate { name: "tuned".into(), reason: "its weights are elsewhere".into() };
    without.skipped.push(tuned.clone());
    let decision = decide(&without).unwrap();
    assert_eq!(decision.skipped, [tuned]);
    assert!(
        decision.warnings.contains(&"`tuned` was skipped: its weights are elsewhere.".to_owned())
    );
    let plain: Decision = serde_json::from_str(&serde_json::to_string(&decision).unwrap()).unwrap();
    assert_eq!(plain, decision);
}
