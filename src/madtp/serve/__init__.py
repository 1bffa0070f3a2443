"""`madtp serve`: a model behind HTTP. The extra `serve` brings what it needs."""
