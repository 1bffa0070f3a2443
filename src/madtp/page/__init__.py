"""The local page of `madtp demo --page`. Needs gradio (the `page` extra); only `serve` and `app` import it."""
