//! Decides which traces are recorded, as OpenTelemetry's samplers of the same names do.

use crate::config::{RootSampler, SamplerConfig};
use crate::event::TraceContext;

/// A sampler, ready to be asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sampler {
    parent_based: bool,
    /// A trace is taken when the 63 bits of its id that count are below.
    below: u64,
}

impl Sampler {
    pub(super) fn new(config: SamplerConfig) -> Self {
        const ALL: u64 = 1 << 63;
        let below = match config.root {
            RootSampler::AlwaysOn => ALL,
            RootSampler::AlwaysOff => 0,
            RootSampler::Ratio(share) => (share.clamp(0.0, 1.0) * ALL as f64) as u64,
        };
        Self {
            parent_based: config.parent_based,
            below,
        }
    }

    /// Decides about a trace. Every service that asks the same bits of the id takes the same
    /// traces: <https://opentelemetry.io/docs/specs/otel/trace/sdk/#traceidratiobased>.
    pub(super) fn samples(&self, context: &TraceContext) -> bool {
        let decided = context.decision().filter(|_| self.parent_based);
        decided.unwrap_or_else(|| {
            let [.., a, b, c, d, e, f, g, h] = context.trace_id_bytes();
            u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1 < self.below
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(parent_based: bool, root: RootSampler) -> Sampler {
        Sampler::new(SamplerConfig { parent_based, root })
    }

    #[test]
    fn the_parents_decision_counts_when_it_is_asked_for() {
        let yes = TraceContext::from_ids(u128::MAX, 1, true).unwrap();
        let no = TraceContext::from_ids(1, 1, false).unwrap();

        let parent_based = sampler(true, RootSampler::Ratio(0.5));
        assert!(parent_based.samples(&yes));
        assert!(!parent_based.samples(&no));

        let own = sampler(false, RootSampler::Ratio(0.5));
        assert!(!own.samples(&yes));
        assert!(own.samples(&no));
    }

    #[test]
    fn a_share_of_undecided_traces_is_taken() {
        let count = |root| {
            let sampler = sampler(true, root);
            (0..1000)
                .filter(|_| sampler.samples(&TraceContext::new_root()))
                .count()
        };
        assert_eq!(count(RootSampler::AlwaysOn), 1000);
        assert_eq!(count(RootSampler::Ratio(1.0)), 1000);
        assert_eq!(count(RootSampler::AlwaysOff), 0);
        assert_eq!(count(RootSampler::Ratio(0.0)), 0);
    }

    #[test]
    fn the_share_is_cut_where_other_services_cut_it() {
        // Of the id's last 8 bytes, shifted right by one.
        let sampler = sampler(false, RootSampler::Ratio(0.25));
        let with = |low: u64| TraceContext::from_ids((7 << 64) | u128::from(low), 1, true).unwrap();
        assert!(sampler.samples(&with(0x3fff_ffff_ffff_ffff)));
        assert!(!sampler.samples(&with(0x4000_0000_0000_0000)));
    }
}
