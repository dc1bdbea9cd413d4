use std::collections::BTreeMap;

/// Values grouped by the unit that is sampled: the source document of a question, say.
///
/// The order in which values are given never matters, to the last bit: clusters are kept in the order of their
/// names, values within one in ascending order.
#[derive(Clone, Debug, PartialEq)]
pub struct Clustered {
    groups: Vec<Vec<f64>>,
}

impl Clustered {
    /// Groups `(cluster, value)` pairs.
    pub fn new<'a>(values: impl IntoIterator<Item = (&'a str, f64)>) -> Self {
        let mut groups: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for (cluster, value) in values {
            groups.entry(cluster).or_default().push(value);
        }
        let mut groups: Vec<Vec<f64>> = groups.into_values().collect();
        groups.iter_mut().for_each(|g| g.sort_by(f64::total_cmp));
        Clustered { groups }
    }

    /// Every value its own cluster.
    pub fn independent(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Clustered { groups: sorted.into_iter().map(|v| vec![v]).collect() }
    }

    /// Number of values.
    pub fn n(&self) -> usize {
        self.groups.iter().map(Vec::len).sum()
    }

    /// Number of clusters.
    pub fn clusters(&self) -> usize {
        self.groups.len()
    }

    /// All values, cluster by cluster.
    pub fn values(&self) -> impl Iterator<Item = f64> {
        self.groups.iter().flatten().copied()
    }

    /// Sum and number of values of each cluster.
    pub(crate) fn totals(&self) -> Vec<(f64, f64)> {
        self.groups.iter().map(|g| (g.iter().sum(), g.len() as f64)).collect()
    }

    /// Mean over values (not over clusters); `None` without values.
    pub fn mean(&self) -> Option<f64> {
        let n = self.n();
        (n > 0).then(|| self.totals().iter().map(|t| t.0).sum::<f64>() / n as f64)
    }

    /// Sample variance of the values (n − 1), clusters ignored; `None` below two values.
    pub fn variance(&self) -> Option<f64> {
        let (n, mean) = (self.n(), self.mean()?);
        (n > 1).then(|| self.values().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1) as f64)
    }

    /// Standard error of the mean under sampling of whole clusters, variance times k/(k−1); `None` below two
    /// clusters.
    ///
    /// Source: arXiv 2411.00640, appendix A, with the small-sample factor of inspect_ai.
    pub fn standard_error(&self) -> Option<f64> {
        let (k, n, mean) = (self.clusters() as f64, self.n() as f64, self.mean()?);
        let squares: f64 =
            self.totals().iter().map(|(sum, count)| (sum - count * mean).powi(2)).sum();
        (k > 1.0).then(|| (squares * k / (k - 1.0)).sqrt() / n)
    }

    /// Variance of the mean with clusters over that without: how many times more items clustering costs.
    ///
    /// 1 when every value is its own cluster, when the values are all equal, and at least 1 always: luck in
    /// a small sample should not make an interval narrower than independence would.
    pub fn design_effect(&self) -> f64 {
        if self.clusters() == self.n() {
            return 1.0;
        }
        match (self.standard_error(), self.variance()) {
            (Some(se), Some(variance)) if variance > 0.0 => {
                (se * se / (variance / self.n() as f64)).max(1.0)
            }
            _ => 1.0,
        }
    }
}
