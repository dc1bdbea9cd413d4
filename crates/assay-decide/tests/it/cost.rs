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
        input_usd_per_million_tokens: 2.0,
        output_usd_per_million_tokens: 10.0,
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
