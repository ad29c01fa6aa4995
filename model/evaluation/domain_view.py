"""Scores by domain as the report shows them: a radar for each kind of score, and the same as a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from model.evaluation import story
from model.evaluation.domains import LEAST_DOMAINS, Domain, Score, domains_of
from model.evaluation.radar import Spoke, radar
from model.evaluation.summary import Summary


@dataclass(frozen=True)
class DomainView:
    """`radars` are titles and charts; `model` is the paper's model that stands beside ours."""

    domains: list[Domain]
    model: str
    radars: list[tuple[str, Markup]]


def domain_view(summary: Summary) -> DomainView | None:
    """None where there are too few domains to compare."""
    domains = domains_of(summary)
    if not domains:
        return None
    model = next(found.reference.model for found in (*summary.every_set, *summary.multilabel) if found.reference)
    kinds: list[tuple[str, str, Callable[[Domain], Score | None]]] = [
        ("zero-shot", "Zero-shot", lambda domain: domain.zero_shot),
        ("probe", "Linear probe", lambda domain: domain.probe),
    ]
    radars = [
        (title, _radar(name, title, scored, model))
        for name, title, score_of in kinds
        if len(scored := [(domain, score) for domain in domains if (score := score_of(domain))]) >= LEAST_DOMAINS
    ]
    return DomainView(domains, model, radars)


def _radar(name: str, title: str, scored: Sequence[tuple[Domain, Score]], model: str) -> Markup:
    spokes = [Spoke(domain.name, score.ours, score.paper, score.chance) for domain, score in scored]
    spoken = "; ".join(
        f"{spoke.label}: {story.percent(spoke.ours)}, {model} {story.percent(spoke.paper)}" for spoke in spokes
    )
    return radar(f"domains-{name}", f"{title} by domain. {spoken}", spokes, model)
