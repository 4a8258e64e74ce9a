//! One decision for a request and for all that comes of it, also where a trace goes on as another one.

use opentelemetry::{
    Context, KeyValue,
    trace::{Link, SpanKind, TraceContextExt, TraceId},
};
use opentelemetry_sdk::trace::{Sampler, SamplingResult, ShouldSample};

/// Treats what a first span is linked to as its parent, for the decision only: of a request that is not sampled no run is
/// sampled either, and of one that is, all are. Of several links one that is sampled is enough.
#[derive(Debug, Clone)]
pub struct FollowLinks(pub Sampler);

impl ShouldSample for FollowLinks {
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
    fn what_is_linked_decides() {
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
            let sampled = FollowLinks(sampler).should_sample(
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
