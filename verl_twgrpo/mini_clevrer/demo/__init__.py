"""The demo: a tiny Qwen2.5-VL that answers questions about mini-CLEVRER, small enough to train on two cores."""

from verl_twgrpo.torchvision_ops import declare_missing_ops

# before any module here imports transformers' video processors or its Trainer, which import torchvision
declare_missing_ops()
