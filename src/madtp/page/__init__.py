"""The local page of `madtp demo --page`: a model in the hand. Needs gradio (the `page` extra); only `serve` imports it."""
