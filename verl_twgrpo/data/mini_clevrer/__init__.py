"""mini-CLEVRER: a small exact world of moving shapes, its videos, and counterfactual questions with computed truth."""

from verl_twgrpo.data.mini_clevrer.questions import Question
from verl_twgrpo.data.mini_clevrer.source import Difficulty, Draw, draw, generate
from verl_twgrpo.data.mini_clevrer.world import World, WorldSpec

__all__ = ["Difficulty", "Draw", "Question", "World", "WorldSpec", "draw", "generate"]
