"""How the page looks: the reports' colours on gradio's own parts, system fonts, room for a thumb on a phone."""

from typing import Any

# gradio's own variables follow the reader's light or dark setting.
CSS = """
.gradio-container { max-width: 76rem !important; margin: 0 auto !important; }
.madtp-head h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .25rem; }
.madtp-head p { margin: 0; max-width: 46rem; color: var(--body-text-color-subdued); }
.answer .words { font-size: 1.35rem; font-weight: 600; margin: 0 0 .35rem; overflow-wrap: anywhere; }
.answer dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem .75rem; margin: 0; }
.answer dt { color: var(--body-text-color-subdued); }
.answer dd { margin: 0; font-variant-numeric: tabular-nums; }
.answer small, .answer .note { color: var(--body-text-color-subdued); }
.answer .note { font-size: .9rem; margin: .5rem 0 0; min-height: 3.4em; }
.kept figure { margin: 0 0 .75rem; }
.kept img { display: block; width: 100%; max-width: 24rem; height: auto; border-radius: .35rem; }
.kept figcaption { font-size: .85rem; color: var(--body-text-color-subdued); margin-top: .2rem; }
.kept ul.text { display: flex; flex-wrap: wrap; gap: .3rem; list-style: none; margin: 0; padding: 0; }
.kept ul.text li { margin: 0; padding: .1rem .45rem; border-radius: .3rem; }
.kept ul.text li.own { border: 2px solid #d97400; font-weight: 600; }
.kept ul.text li.merged { border: 2px dashed var(--body-text-color-subdued); color: var(--body-text-color-subdued); }
.legend { font-size: .85rem; color: var(--body-text-color-subdued); margin: 0; }
.asked .block:has(> .html-container:empty) { display: none; }
.samples { gap: .4rem !important; }
.samples h2 { font-size: .95rem; font-weight: 600; margin: .5rem 0 0; }
.sample { justify-content: flex-start !important; text-align: left; min-height: 44px; white-space: normal; }
.sample img { width: 32px; height: 32px; max-height: none; }
.image-frame img { width: 100%; height: 100%; object-fit: contain; }
input[type="range"]::-webkit-slider-thumb { border: 2px solid #1f5fbf; }
input[type="range"]::-moz-range-thumb { border: 2px solid #1f5fbf; }
@media (max-width: 640px) {
  .row:has(> .asked) { flex-direction: column; flex-wrap: nowrap !important; align-items: stretch !important; }
  .asked { display: contents !important; }
  .asked > * { order: 1; flex-grow: 0 !important; }
  .shown { order: 2; }
  .asked > .samples { order: 3; }
  .answer .note { min-height: 0; }
}
.problem { margin: 0; padding: .6rem .8rem; border-radius: .4rem; border: 1px solid #b3261e; background: #fdecea;
  color: #8c1d18; overflow-wrap: anywhere; }
.dark .problem { background: #3a1512; border-color: #ff9c94; color: #ffb4ab; }
:focus-visible { outline: 3px solid #1f5fbf !important; outline-offset: 2px !important; }
.dark :focus-visible { outline-color: #8ab8ff !important; }
"""


def theme() -> Any:
    """gradio's plain theme with the system's fonts: its own would be fetched from outside."""
    import gradio as gr

    return gr.themes.Base(
        primary_hue="blue",
        secondary_hue="blue",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        button_primary_background_fill="#1f5fbf",
        button_primary_background_fill_hover="#184d9c",
        button_primary_background_fill_dark="#1f5fbf",
        button_primary_background_fill_hover_dark="#184d9c",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
    )
