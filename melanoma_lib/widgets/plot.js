/* Small plots in SVG, for explorers that draw; in front of their scripts, after the common helpers. Colours follow the theme. */

const MELANOMA = "var(--mk-melanoma)", OTHER = "var(--mk-other)", ACCENT = "var(--mk-accent)";
const EDGE = "var(--mk-edge)", SOFT = "var(--mk-soft)", PAPER = "var(--mk-paper)";
const LEFT = 46, RIGHT = 268, TOP = 28, BOTTOM = 208; // of the drawing area in each plot

function percent(value) {
  return `${(100 * value).toFixed(0)}%`;
}

function s(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function text(x, y, words, anchor = "middle", more = {}) {
  return s("text", { x, y, "text-anchor": anchor, fill: "currentColor", ...more }, words);
}

/** Places in the drawing area, from shares of its width and height. */
const across = (share) => LEFT + share * (RIGHT - LEFT);
const up = (share) => BOTTOM - share * (BOTTOM - TOP);

/** A frame with title, axis words and ticks; xs and ys are [value between 0 and 1, words]. */
function plot({ title, label, xlabel, xs, ys }, ...marks) {
  const grid = [
    ...xs.map(([at]) => s("line", { x1: across(at), x2: across(at), y1: TOP, y2: BOTTOM, stroke: "var(--mk-grid)" })),
    ...ys.map(([at]) => s("line", { x1: LEFT, x2: RIGHT, y1: up(at), y2: up(at), stroke: "var(--mk-grid)" })),
  ];
  const words = [
    ...xs.map(([at, word]) => text(across(at), BOTTOM + 18, word)),
    ...ys.map(([at, word]) => text(LEFT - 6, up(at) + 4, word, "end")),
    text(LEFT, 18, title, "start", { "font-weight": 600, "font-size": 14 }), text((LEFT + RIGHT) / 2, BOTTOM + 37, xlabel),
  ];
  const axes = s("path", { d: `M${LEFT},${TOP}V${BOTTOM}H${RIGHT}`, fill: "none", stroke: "currentColor" });
  return s("svg", { viewBox: "0 0 280 252", role: "img", "aria-label": label }, ...grid, ...marks.flat(), axes, ...words);
}

/** A line through points given as shares of the drawing area. */
function curve(xs, ys, stroke, more = {}) {
  const points = xs.map((x, i) => `${across(x)},${up(ys[i])}`).join(" ");
  return s("polyline", { points, fill: "none", stroke, "stroke-width": 2.2, "stroke-linejoin": "round", ...more });
}

/** Large numbers with a name above and a remark below; each is [key, name, number in words, remark, number]. */
function numberList(numbers) {
  return numbers.map(([key, name, words, remark, value]) => h("div", { className: "mk-number", role: "listitem" },
    h("span", {}, name), h("strong", { dataset: { number: key, value } }, words), h("span", {}, remark)));
}
