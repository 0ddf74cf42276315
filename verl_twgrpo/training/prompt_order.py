"""The order in which prompts came from the data, kept while their responses are under way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from verl_twgrpo.rows import parse_key


class PromptOrder:
    """Numbers prompts as they come, over all steps; responses arrive in any order, some of them steps later."""

    def __init__(self) -> None:
        self._place: dict[str, int] = {}
        self._next = 0

    def add(self, uids: Iterable[str]) -> None:
        """Prompts that are sent to be answered, in their order."""
        for uid in uids:
            self._place[uid] = self._next
            self._next += 1

    def sort_key(self, row_key: str) -> tuple[Any, ...]:
        """Rows by their prompt's place, then by rollout and output; prompts without a number come last."""
        parsed = parse_key(row_key)
        return self._place.get(parsed.uid, self._next), *parsed

    def take(self, uids: Iterable[str]) -> dict[str, int]:
        """Place of each of these prompts among them; they are trained on now, and forgotten."""
        wanted = list(dict.fromkeys(uids))
        ordered = sorted(wanted, key=lambda uid: self._place.get(uid, self._next))
        for uid in wanted:
            self._place.pop(uid, None)
        return {uid: number for number, uid in enumerate(ordered)}

    @property
    def state(self) -> dict[str, int]:
        """The prompts under way, by place."""
        return dict(self._place)

    def restore(self, state: Mapping[str, int]) -> None:
        """Go on from a checkpoint's ``state``."""
        self._place = {uid: int(place) for uid, place in state.items()}
        self._next = max(self._place.values(), default=-1) + 1
