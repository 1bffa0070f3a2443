"""The style sheet of the report's page: light and dark after the reader's own setting, from phone to desk."""

CSS = """
:root {
  color-scheme: light dark;
  --page: #fbfbfa; --card: #ffffff; --text: #1c1e21; --soft: #565b63; --line: #c9cdd2; --accent: #1f5fbf;
  --right: #14703a; --wrong: #b3261e;
  --series-0: #3d434b; --series-1: #1f5fbf; --series-2: #b4500a; --series-3: #7a3fa8; --series-4: #14703a;
  --series-5: #a3174f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #15171a; --card: #1e2125; --text: #eceef0; --soft: #a9b0b9; --line: #4a5059; --accent: #8ab8ff;
    --right: #6fd694; --wrong: #ff9c94;
    --series-0: #c9ced6; --series-1: #7db0ff; --series-2: #ffa45c; --series-3: #cf9dff; --series-4: #6fd694;
    --series-5: #ff8fb8;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 72rem; background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; }
h3 { font-size: 1rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
p { margin: .5rem 0; max-width: 46rem; }
.soft, figcaption { color: var(--soft); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: 1rem; margin: 1.5rem 0 0;
  padding: 0; list-style: none; }
.card, .example { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1rem; }
.card strong { display: block; font-size: 1.35rem; line-height: 1.3; color: var(--accent); }
.card span { display: block; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: .6rem; background: var(--card); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .75rem; text-align: right; white-space: nowrap; border-top: 1px solid var(--line); }
tr:first-child > * { border-top: 0; }
tbody tr:first-child > * { border-top: 1px solid var(--line); }
thead th { vertical-align: bottom; font-size: .85rem; font-weight: 600; }
thead th small { display: block; font-weight: 400; color: var(--soft); }
th:first-child { text-align: left; }
tbody th, thead td { position: sticky; left: 0; background: var(--card); font-weight: 600; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr)); gap: 1rem; }
.plots figure, .block { margin: 0; }
.plots figure { max-width: 34rem; }
.plots svg { display: block; width: 100%; height: auto; }
.example { margin: 0 0 1rem; display: grid; gap: 1rem 1.25rem; }
@media (min-width: 44rem) { .example { grid-template-columns: 12rem 1fr; } }
.example img { display: block; border-radius: .25rem; }
.whole { width: 100%; max-width: 12rem; height: auto; }
.row { margin: .9rem 0 0; }
.row p { margin: 0 0 .35rem; overflow-wrap: anywhere; }
.right { color: var(--right); font-weight: 600; }
.wrong { color: var(--wrong); font-weight: 600; }
a { color: var(--accent); }
.blocks { display: grid; grid-template-columns: repeat(auto-fill, minmax(5rem, 1fr)); gap: .5rem; }
.blocks.large { grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)); }
.block img { width: 100%; height: auto; }
.block figcaption { font-size: .75rem; line-height: 1.3; margin-top: .15rem; }
.cards .soft { font-size: .9rem; }
.legend { font-size: .9rem; }
td.kept { box-shadow: inset 0 0 0 2px #d97400; font-weight: 600; }
td.merged { color: var(--soft); background: repeating-linear-gradient(135deg, transparent 0 5px, var(--line) 5px 6px); }
.words td, .words th { text-align: center; padding: .3rem .5rem; }
.words tbody th { text-align: left; font-weight: 400; }
.wide { margin: 0 0 1rem; padding: .5rem; overflow-x: auto; background: var(--card);
  border: 1px solid var(--line); border-radius: .6rem; }
.wide svg { display: block; width: 100%; min-width: 50rem; height: auto; }
.found { display: flex; flex-wrap: wrap; gap: 1rem; }
.found figure { margin: 0; max-width: 12rem; }
.settings th, .settings td { text-align: left; white-space: normal; vertical-align: top; overflow-wrap: anywhere; }
.settings th { width: 11rem; }
.settings tbody tr:first-child > * { border-top: 0; }
@media (max-width: 30rem) {
  th, td, .settings th, .settings td { padding: .4rem .5rem; }
  tbody th { min-width: 6rem; max-width: 8.5rem; white-space: normal; overflow-wrap: anywhere; }
  .settings th { width: 7.5rem; overflow-wrap: normal; }
  .blocks.large { grid-template-columns: repeat(auto-fill, minmax(6rem, 1fr)); }
  .blocks { grid-template-columns: repeat(auto-fill, minmax(4rem, 1fr)); }
}
"""
