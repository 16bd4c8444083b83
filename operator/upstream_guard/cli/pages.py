"""The pages that explain findings, as they are shown."""

from importlib import resources

from upstream_guard.gateways.answers import fill


def read_page(risk: str) -> str:
    """The page of a key of `RISKS`, in Markdown, with what each gateway answers filled in."""
    page = resources.files("upstream_guard").joinpath("pages", f"{risk}.md")
    return fill(page.read_text(encoding="utf-8"))
