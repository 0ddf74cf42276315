"""TW-GRPO by hand: one file of torch, no verl, a tiny random model. Run it: python examples/tw_grpo_by_hand.py

A step of TW-GRPO (arXiv 2505.24718): sample a group of responses to one prompt, reward them, see at which positions the
responses' next-token distributions differ, and let those positions count more in GRPO's loss.
G responses of a group, T positions, V words, H hidden units.
"""

import torch
from torch import nn

WORDS = ["<end>", "the", "red", "blue", "ball", "cube", "hits", "misses", "stops"]
V, H, G, T = len(WORDS), 32, 8, 10
ALPHA, CLIP_LOW, CLIP_HIGH = 0.7, 0.2, 0.28


class TinyModel(nn.Module):
    """Next-word log-probs of a response, whose first word follows a start state that stands for the prompt."""

    def __init__(self) -> None:
        super().__init__()
        self.start_H = nn.Parameter(torch.randn(H))
        self.embed, self.cell, self.head = nn.Embedding(V, H), nn.GRU(H, H, batch_first=True), nn.Linear(H, V)

    def forward(self, words_GT: torch.Tensor) -> torch.Tensor:
        before_GTH = torch.cat([self.start_H.expand(len(words_GT), 1, H), self.embed(words_GT[:, :-1])], dim=1)
        return self.head(self.cell(before_GTH)[0]).log_softmax(-1)


@torch.no_grad()
def sample(model: TinyModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Words of G responses, and which of them are live: all up to and with the first <end>."""
    words_GT = torch.zeros(G, T, dtype=torch.long)
    for t in range(T):
        words_GT[:, t] = torch.distributions.Categorical(logits=model(words_GT)[:, t]).sample()
    ended_GT = (words_GT == 0).cumsum(1) - (words_GT == 0).long() > 0
    return words_GT, ~ended_GT


def reward(words: list[str]) -> float:
    """Soft reward (Eq. 7): the share of the true options that is named, 0 as soon as a false one is."""
    named, truth = set(words) & {"red", "blue", "ball", "cube"}, {"red", "cube"}
    return len(named) / len(truth) if named <= truth else 0.0


def divergence(log_probs_GTV: torch.Tensor, live_GT: torch.Tensor) -> torch.Tensor:
    """Eq. 4: D_t = sum over the responses of KL(p_i || mean of all p); a response that has ended counts as uniform."""
    p_GTV = torch.where(live_GT[..., None], log_probs_GTV.exp(), 1 / V)
    return (p_GTV * (p_GTV.log() - p_GTV.mean(0).log())).sum((0, 2))


def weights(divergence_T: torch.Tensor) -> torch.Tensor:
    """Eq. 5: from 1 where the group agrees most to 1 + alpha where it differs most."""
    low, high = divergence_T.min(), divergence_T.max()
    return 1 + ALPHA * (divergence_T - low) / (high - low).clamp(min=0.01)  # a smaller range is noise


def loss(log_prob_GT, old_log_prob_GT, advantages_G, weights_T, live_GT) -> torch.Tensor:
    """Eq. 6: GRPO's clipped objective, each token times its weight, averaged over the live tokens."""
    ratio_GT, advantage_G1 = (log_prob_GT - old_log_prob_GT).exp(), advantages_G[:, None]
    clipped_GT = ratio_GT.clamp(1 - CLIP_LOW, 1 + CLIP_HIGH)
    objective_GT = weights_T * torch.minimum(ratio_GT * advantage_G1, clipped_GT * advantage_G1)
    return -objective_GT[live_GT].mean()


def main(steps: int = 75) -> list[float]:
    """Train; show the weighted words of the first group and the mean reward. Returns the mean reward of every step."""
    torch.manual_seed(3)
    model, means = TinyModel(), []
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(steps):
        words_GT, live_GT = sample(model)
        responses = [[WORDS[w] for w in row[live]] for row, live in zip(words_GT, live_GT, strict=True)]
        rewards_G = torch.tensor([reward(words) for words in responses])
        advantages_G = (rewards_G - rewards_G.mean()) / (rewards_G.std() + 1e-4)
        longest = int(live_GT.sum(1).max())  # positions where nobody is live do not exist
        words_GT, live_GT = words_GT[:, :longest], live_GT[:, :longest]

        log_probs_GTV = model(words_GT)
        log_prob_GT = log_probs_GTV.gather(-1, words_GT[..., None]).squeeze(-1)
        weights_T = weights(divergence(log_probs_GTV.detach(), live_GT))
        if step == 0:
            for words, value in zip(responses, rewards_G, strict=True):
                print(
                    f"reward {value:.1f}: " + " ".join(f"{w}({x:.2f})" for w, x in zip(words, weights_T, strict=False))
                )
        optimizer.zero_grad()
        loss(log_prob_GT, log_prob_GT.detach(), advantages_G, weights_T, live_GT).backward()
        optimizer.step()
        means.append(rewards_G.mean().item())
        if step % 25 == 24:
            print(f"step {step + 1}: mean reward of the last 25 steps {sum(means[-25:]) / 25:.2f}")
    return means


if __name__ == "__main__":
    main()
