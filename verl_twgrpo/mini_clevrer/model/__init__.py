"""The tiny Qwen2.5-VL of mini-CLEVRER."""
