"""What a token weighting is, what it is given, and the registry of all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from verl_twgrpo.algorithm.registry import Registry
from verl_twgrpo.algorithm.weightings.text import ResponseText

DIVERGENCE = "divergence"


@dataclass
class Group:
    """The responses to one prompt in one step, G of them, with a value per token.

    uid: the group's name. rows: of the batch, one per response. masks: [L] bool per response, False for tokens that are
    not the model's own (the output of a tool, say). columns: by name, one [L] float tensor per response; a
    "divergence" has the same value for all responses at a position. step: of training. number: which prompt of the step
    this is, however rows are spread over ranks. vocabulary_size: columns of the head where the head pass ran. weights:
    [L] float32 per response, once they are known.
    """

    uid: str
    rows: list[int]
    masks: list[torch.Tensor]
    columns: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    step: int = 0
    number: int = 0
    vocabulary_size: int | None = None
    weights: list[torch.Tensor] = field(default_factory=list)

    @property
    def lengths(self) -> list[int]:
        return [len(mask) for mask in self.masks]

    @property
    def divergence_T(self) -> torch.Tensor | None:
        """By position, T the longest response; None where no head pass ran."""
        return max(self.columns[DIVERGENCE], key=len) if DIVERGENCE in self.columns else None

    @property
    def own_T(self) -> torch.Tensor:
        """Whether any response has a token of the model's own at a position, bool."""
        own_T = torch.zeros(max(self.lengths), dtype=torch.bool)
        for mask in self.masks:
            own_T[: len(mask)] |= mask
        return own_T


@dataclass(frozen=True)
class TextColumn:
    """A column that is made of a response's text and of what its row says.

    field: entry of the row's ``extra_info``. read: what it says, something empty where it says nothing; raises
    ``ValueError`` for a value that it cannot be. mark: from the response's text and what ``read`` gave to one value per
    token, [L] float.
    """

    field: str
    read: Callable[[Any], Any]
    mark: Callable[[ResponseText, Any], torch.Tensor]


@dataclass(frozen=True)
class NoSettings:
    """Settings of a weighting that has none."""


class Weighting(ABC):
    """One rule that gives every token of a group's responses a factor on its advantage.

    A class attribute may become a property where it depends on the settings.

    name: as ``algorithm.tw_grpo.weighting`` selects it. Settings: dataclass of its settings, which checks them itself
    and raises ``ValueError`` beginning with the setting's name. off: settings under which it is plain GRPO. columns:
    what it reads of a batch, by response token: "entropy", "old_log_probs", "advantages", "rm_scores" and other tensors
    of verl's. divergence: name of the divergence whose head pass must run ("divergence" is then a column too), None for
    none. extra_passes: column -> view of the video (training/views.py: a name, or a mapping of name and the view's
    settings), for one more no-gradient log-prob pass each, whose log-probs are that column. text_columns: how those of
    ``columns`` are made that are no tensors of verl's, but come from text and ``extra_info``. active: False where its
    settings make all weights 1, so that nothing needs to run.
    """

    name: ClassVar[str]
    Settings: ClassVar[type] = NoSettings
    off: ClassVar[Mapping[str, Any]] = {}
    if TYPE_CHECKING:  # for a type checker, a property may become a class attribute, but not the reverse

        @property
        def columns(self) -> Sequence[str]: ...

        @property
        def divergence(self) -> str | None: ...

        @property
        def extra_passes(self) -> Mapping[str, str | Mapping[str, Any]]: ...

        @property
        def text_columns(self) -> Mapping[str, TextColumn]: ...

        @property
        def active(self) -> bool: ...

    else:
        columns = ()
        divergence = None
        extra_passes = {}
        text_columns = {}
        active = True

    def __init__(self, settings: Any = None) -> None:
        self.settings = self.Settings() if settings is None else settings

    @abstractmethod
    def weigh(self, group: Group) -> list[torch.Tensor]:
        """One [L] tensor per response, >= 0 and finite; 1 where nothing is known.

        What it says of tokens outside a response's mask is not used, and must not depend on their columns: the caller
        puts 1 there. No column has NaN at a token inside the masks: the caller leaves such groups out.
        """

    def weigh_step(self, groups: Sequence[Group]) -> list[list[torch.Tensor]]:
        """``weigh`` of all groups of a step; for a rule that looks at all of them at once."""
        return [self.weigh(group) for group in groups]

    def read_columns(self) -> tuple[str, ...]:
        """All columns that ``weigh`` reads, those of passes of its own included."""
        own = (DIVERGENCE,) if self.divergence is not None else ()
        return tuple(dict.fromkeys((*own, *self.columns, *self.extra_passes)))


WEIGHTINGS: Registry[type[Weighting]] = Registry("weighting", "verl_twgrpo.weightings")
