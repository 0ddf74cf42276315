"""mini-CLEVRER: a small exact world of moving shapes, its videos, and counterfactual questions with computed truth."""

from verl_twgrpo.mini_clevrer.world.physics import World, WorldSpec
from verl_twgrpo.mini_clevrer.world.questions import Question
from verl_twgrpo.mini_clevrer.world.source import Difficulty, Draw, draw, generate

__all__ = ["Difficulty", "Draw", "Question", "World", "WorldSpec", "draw", "generate"]
