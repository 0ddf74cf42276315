"""A video file to the frames that the model sees: decoding, sampling, cache, and verl's dataset on top of it."""
