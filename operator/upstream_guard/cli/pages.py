"""The pages that explain findings and causes, as they are shown."""

from importlib import resources

from upstream_guard.cli.next_steps import ADVICE, after_cause, after_risk
from upstream_guard.core.causes import Cause
from upstream_guard.core.predict.risks import RISKS
from upstream_guard.gateways.answers import answers_table, fill


def read_page(risk: str) -> str:
    """The page of a key of `RISKS`, in Markdown: with what each gateway answers, and what to do next."""
    page = resources.files("upstream_guard").joinpath("pages", f"{risk}.md")
    return f"{fill(page.read_text(encoding='utf-8')).rstrip()}\n\n{after_risk(risk)}"


def cause_page(cause: Cause) -> str:
    """What a cause is, how it looks, which findings lead to it, and what to do next, in Markdown."""
    leading = [f"- `{risk}`: {info.title}" for risk, info in RISKS.items() if info.cause is cause]
    parts = [
        f"# {cause}\n\n{ADVICE[cause].meaning}",
        f"## How it looks\n{answers_table(cause)}",
        "## What leads to it\n"
        + ("\n".join(leading) or "No finding predicts this cause; it is only seen as it happens."),
        after_cause(cause),
    ]
    return "\n\n".join(parts)
