"""What a leakage probe found, in plain words."""

from ploutos.advisor.cutoff import LEAST_POWER, HitRate, Power, ProbeResult


def faults(probed: ProbeResult, bound: float | None) -> list[str]:
    """What of a probe forbids to trust the blind prompts; a sentence each.

    Args:
        bound: `llm.max_reidentification`; None means what guessing gives.
    """
    return [
        f"the model recognises the {name} in {_in_words(hits)}: these prompts are not blind to it, and no result with it counts"
        for name, hits in probed.reidentification.items()
        if hits.low > max(hits.chance, bound or 0.0)
    ]


def describe(probed: ProbeResult) -> list[str]:
    """A probe for people, a line each."""
    lines = [f"asked: {probed.n_asked} questions, {probed.n_abstained} abstentions, {probed.tokens} tokens, {probed.seconds:.1f} s"]
    lines += [f"{name} recognised in {_in_words(hits)}, p = {hits.p_value:.3f}" for name, hits in probed.reidentification.items()]
    recall = probed.recall
    if recall is not None:
        lines.append(
            f"recall: {recall.accuracy:.1%} of {recall.n} months right (balanced {recall.balanced_accuracy:.1%}; "
            f"{recall.base_rate:.1%} of them rose, it said up to {recall.said_up:.1%}), p = {recall.p_value:.4f}"
        )
        lines += [power_sentence(recall.power)] if recall.power else []
        span = f"{recall.months[0].month} to {recall.months[-1].month}"
        if recall.cutoff is None:
            lines.append(f"effective cutoff: none found; it recalls nothing in this range, {span}")
        elif recall.cutoff == recall.months[-1].month:
            lines.append(f"effective cutoff: {recall.cutoff} or later, where the range ends; {recall.accuracy_before:.1%} right")
        else:
            lines.append(
                f"effective cutoff: {recall.cutoff}, of {span}; {recall.accuracy_before:.1%} right until then, "
                f"{recall.accuracy_after:.1%} after"
            )
    return lines


def power_sentence(power: Power) -> str:
    """What a probe could have found out, and whether that is enough to call days clean."""
    found = power.reaches[-1].found
    said = (
        f"power: a model that knows {power.known:.0%} of the months up to {power.reaches[-1].month} would be found out by "
        f"{found:.0%} of such probes"
    )
    return said if found >= LEAST_POWER else f"{said}; below {LEAST_POWER:.0%} no day counts as clean, and more questions find out more"


def _in_words(hits: HitRate) -> str:
    return (
        f"{hits.rate:.1%} of {hits.n} blind prompts ({hits.low:.1%} to {hits.high:.1%}; guessing among {hits.n_choices} "
        f"gives {hits.chance:.1%})"
    )
