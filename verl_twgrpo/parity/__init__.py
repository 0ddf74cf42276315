"""``verl-twgrpo parity``: whether rollout and actor see one prompt, its video and its time, alike."""
