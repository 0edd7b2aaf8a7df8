"""What a list asks for, and what it gets."""

from __future__ import annotations

from msgspec import Struct

from shoal.view.entry import Entry


class ListQuery(Struct, kw_only=True, frozen=True):
    """One page of the sandboxes that match.

    Attributes:
        states: any of these, compared case-insensitively; None for all, an empty set for none.
        metadata: every pair must match exactly.
        page: counted from 1.
        page_size: entries a page.
    """

    states: frozenset[str] | None = None
    metadata: dict[str, str] = {}
    page: int = 1
    page_size: int = 20

    @property
    def start(self) -> int:
        """Index of the page's first entry."""
        return (self.page - 1) * self.page_size


class Page(Struct, kw_only=True, frozen=True):
    """The page's entries, and how many match altogether."""

    items: list[Entry]
    total: int
