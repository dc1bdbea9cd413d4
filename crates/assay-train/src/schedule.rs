use serde::{Deserialize, Serialize};

/// How the learning rate falls after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Stays.
    Constant,
    /// To zero, in a straight line over all steps.
    Linear,
    /// To zero, along half a cosine over all steps.
    Cosine,
}

impl Schedule {
    /// Factor on the learning rate of `step` (from 0) of `steps`, in `[0, 1]`.
    ///
    /// `min(1, (step + 1) / warmup) · decay(step / steps)`: the decay runs from the first step on,
    /// the warm-up is a lid over it. No warm-up where `warmup` is 0.
    pub fn factor(self, step: usize, warmup: usize, steps: usize) -> f64 {
        let lid = ((step + 1) as f64 / warmup.max(1) as f64).min(1.0);
        let done = (step as f64 / steps.max(1) as f64).min(1.0);
        lid * match self {
            Schedule::Constant => 1.0,
            Schedule::Linear => 1.0 - done,
            Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
        }
    }
}
