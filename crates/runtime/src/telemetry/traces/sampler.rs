//! Sampler that makes one decision for a request and its jobs, although their runs are separate, linked traces.

use opentelemetry::{
    Context, KeyValue,
    trace::{Link, SpanKind, TraceContextExt, TraceId},
};
use opentelemetry_sdk::trace::{Sampler, SamplingResult, ShouldSample};

/// Uses the linked span of a root span as its parent, for the sampling decision only. So the runs of a request's jobs are
/// sampled if and only if the request is. With several links, one sampled link is enough.
#[derive(Debug, Clone)]
pub(super) struct LinkBasedSampler(pub Sampler);

impl ShouldSample for LinkBasedSampler {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let has_parent = parent.is_some_and(|parent| parent.span().span_context().is_valid());
        let link = links.iter().find(|link| link.span_context.is_sampled()).or(links.first());
        match link.filter(|_| !has_parent) {
            Some(link) => {
                let origin = Context::new().with_remote_span_context(link.span_context.clone());
                let trace = link.span_context.trace_id();
                self.0.should_sample(Some(&origin), trace, name, kind, attributes, links)
            }
            None => self.0.should_sample(parent, trace, name, kind, attributes, links),
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceState};
    use opentelemetry_sdk::trace::SamplingDecision;

    use super::*;

    #[test]
    fn links_decide_about_root_spans() {
        let link = |flags| {
            let (trace, span) = (TraceId::from(7), SpanId::from(8));
            Link::with_context(SpanContext::new(trace, span, flags, true, TraceState::default()))
        };
        let (sampled, unsampled) = (link(TraceFlags::SAMPLED), link(TraceFlags::NOT_SAMPLED));
        let parent_based = |root| Sampler::ParentBased(Box::new(root));
        for (sampler, links, expected) in [
            (parent_based(Sampler::AlwaysOn), vec![unsampled.clone()], false),
            (parent_based(Sampler::AlwaysOff), vec![sampled.clone()], true),
            (parent_based(Sampler::AlwaysOn), vec![unsampled, sampled.clone()], true),
            (parent_based(Sampler::AlwaysOn), vec![], true),
            (Sampler::AlwaysOff, vec![sampled], false),
        ] {
            let shown = format!("{sampler:?} {}", links.len());
            let sampled = LinkBasedSampler(sampler).should_sample(
                None,
                TraceId::from(u128::MAX),
                "run",
                &SpanKind::Consumer,
                &[],
                &links,
            );
            assert_eq!(sampled.decision == SamplingDecision::RecordAndSample, expected, "{shown}");
        }
    }
}
