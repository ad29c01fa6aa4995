"""The paper's sets by what they show (known/domains.toml): the mean of a run in each domain, beside the paper's nearest model.

Only the paper's 27 sets (table 9) count, and both means are over the same sets, those that were measured. A set that was not is
named, and never a zero; a domain without any has no mean.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from model.evaluation.multilabel_results import MultilabelResult
from model.evaluation.reference import paper
from model.evaluation.registry import KnownSet, domain_templates, find, known_sets
from model.evaluation.results import ProbedSet, SetResult
from model.evaluation.summary import Summary

LEAST_DOMAINS = 3
"""Fewer have no shape, and the table of sets says all of it."""

Measured = SetResult | ProbedSet | MultilabelResult


@dataclass(frozen=True)
class Score:
    """Means over `sets` sets, as shares, each set in its own metric."""

    sets: int
    ours: float
    paper: float
    chance: float


@dataclass(frozen=True)
class Domain:
    """One domain: its sets that were measured and those that were not, and both kinds of scores, None if no set has any."""

    name: str
    measured: tuple[str, ...]
    absent: tuple[str, ...]
    zero_shot: Score | None
    probe: Score | None


def domains_of(summary: Summary) -> list[Domain]:
    """All domains that the paper has sets of, in the order of domains.toml; none where fewer than three were measured."""
    # Of two folders with the same set the first counts.
    found: dict[str, Measured] = {}
    for each in (*summary.every_set, *summary.multilabel):
        known = find(each.name)
        if known is not None and each.reference is not None:
            found.setdefault(known.name, each)
    domains = [domain for name in domain_templates() if (domain := _domain(name, found)) is not None]
    return domains if sum(bool(domain.measured) for domain in domains) >= LEAST_DOMAINS else []


def _domain(name: str, found: Mapping[str, Measured]) -> Domain | None:
    own = [known for known in known_sets().values() if known.domain == name and _is_of_table_9(known)]
    if not own:
        return None
    measured = [found[known.name] for known in own if known.name in found]
    return Domain(
        name=name,
        measured=tuple(known.title for known in own if known.name in found),
        absent=tuple(known.title for known in own if known.name not in found),
        zero_shot=_score(filter(None, map(_zero_shot, measured))),
        probe=_score(filter(None, map(_probe, measured))),
    )


def _is_of_table_9(known: KnownSet) -> bool:
    """Variants of ImageNet are not: they have a table of their own."""
    return known.paper_row in paper().sets and known.variant_of is None


def _zero_shot(found: Measured) -> Score | None:
    share = None if isinstance(found, ProbedSet) else found.metric_share
    percent = found.reference.zero_shot_percent if found.reference is not None else None
    return None if share is None or percent is None else Score(1, share.value, percent / 100, found.metric_chance)


def _probe(found: Measured) -> Score | None:
    probe = found.learned.probe
    percent = found.reference.probe_percent if found.reference is not None else None
    return (
        None if probe is None or percent is None else Score(1, probe.metric.value, percent / 100, found.metric_chance)
    )


def _score(scores: Iterable[Score]) -> Score | None:
    own = list(scores)
    if not own:
        return None
    columns = ([score.ours for score in own], [score.paper for score in own], [score.chance for score in own])
    return Score(len(own), *map(statistics.fmean, columns))
