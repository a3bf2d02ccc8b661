"""The frame of the HTML report and its style sheet."""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main{kind}>
<header>
<h1>{title}</h1>
<p class="subtitle">{subtitle}</p>
</header>
{body}
</main>
</body>
</html>
"""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f5f6f8; --card: #ffffff; --ink: #1c2430; --muted: #5d6875; --line: #e0e4e9; --head: #f9fafb;
  --share-fill: #d9e9f5; --good: #0b6b3a; --bad: #a62a1c; --unsure: #7a5600;
  --good-back: #e7f5ec; --bad-back: #fcebe8; --unsure-back: #fdf4dd;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12161c; --card: #1b2129; --ink: #e6eaf0; --muted: #9aa5b3; --line: #323b47; --head: #212932;
    --share-fill: #23455f; --good: #66d19a; --bad: #ff9482; --unsure: #f0c757;
    --good-back: #14291f; --bad-back: #331c19; --unsure-back: #2e2612;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  -webkit-text-size-adjust: 100%;
}
main { max-width: 932px; margin: 0 auto; padding: 2.2rem 1rem 4rem; }
main.pair { max-width: 1560px; }
.sides { display: grid; grid-template-columns: 1fr 1fr; gap: 0 2rem; margin-top: 2.6rem; }
.sides section { min-width: 0; }
@media (max-width: 1100px) { .sides { grid-template-columns: 1fr; } }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.015em; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; line-height: 1.3; margin: 2.6rem 0 .7rem; letter-spacing: -.005em; }
p { margin: .6rem 0; overflow-wrap: anywhere; }
.subtitle { color: var(--muted); margin: 0 0 1.4rem; }
.note, figcaption { color: var(--muted); font-size: .85rem; line-height: 1.5; }
.verdict {
  border-left: 6px solid var(--tone); border-radius: 6px; background: var(--back); padding: 1rem 1.3rem 1.1rem;
}
.verdict.helped, .verdict.decided { --tone: var(--good); --back: var(--good-back); }
.verdict.hurt { --tone: var(--bad); --back: var(--bad-back); }
.verdict.undecided, .verdict.untold { --tone: var(--unsure); --back: var(--unsure-back); }
.verdict p { margin: 0; font-size: 1.15rem; line-height: 1.45; }
.verdict strong { color: var(--tone); font-weight: 700; }
.verdict dl { display: flex; flex-wrap: wrap; gap: .7rem 2.4rem; margin: .9rem 0 0; }
.verdict dl div { display: flex; flex-direction: column; }
.verdict dd { margin: 0; font-size: 1.45rem; font-weight: 650; line-height: 1.25; font-variant-numeric: tabular-nums; }
.verdict dt { order: 1; color: var(--muted); font-size: .85rem; }
.wide { margin: .8rem 0; overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .5rem; border-top: 1px solid var(--line); vertical-align: baseline; text-align: left; }
thead th { border-top: 0; background: var(--head); color: var(--muted); font-weight: 600; vertical-align: bottom; }
thead th { line-height: 1.3; }
tbody th { font-weight: 400; white-space: nowrap; }
th strong { font-weight: 700; }
.numbers td, .numbers th + th { text-align: right; }
.numbers td { white-space: nowrap; }
.numbers td small { display: block; }
td small { color: var(--muted); font-size: .78rem; }
td.good { color: var(--good); font-weight: 600; }
td.bad { color: var(--bad); font-weight: 600; }
td.good small, td.bad small { font-weight: 400; }
td.bar {
  width: 32%;
  background: linear-gradient(to right, var(--share-fill) var(--share), transparent 0) no-repeat;
  background-position: .3rem 50%; background-size: calc(100% - 4.2rem) 62%;
}
figure {
  margin: 1rem 0; padding: .8rem .8rem .7rem;
  background: var(--card); border: 1px solid var(--line); border-radius: 6px;
}
figure picture { display: block; overflow-x: auto; }
figure img { display: block; width: 100%; min-width: 560px; height: auto; }
figcaption { padding: .3rem .3rem 0; }
pre {
  overflow-x: auto; margin: .8rem 0; padding: .8rem 1rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 6px; font: 12px/1.4 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
}
@media print {
  body { background: none; }
  main { max-width: none; padding: 0; }
  figure, .wide, .verdict, pre { break-inside: avoid; }
  h2 { break-after: avoid; }
}
"""
