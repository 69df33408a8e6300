/* What explorers with a retrained head share: the scores by class, a row of numbers, and questions to the kernel. After plot.js. */

const MELANOMA_INK = "var(--mk-melanoma-ink)", OTHER_INK = "var(--mk-other-ink)"; // for words, which need more contrast than shapes

function scorePlot({ shares: [melanomas, others], n }) {
  const top = Math.max(0.1, ...melanomas, ...others);
  const width = (RIGHT - LEFT) / melanomas.length, middle = (TOP + BOTTOM) / 2, scale = (BOTTOM - TOP) / 2 / top;
  const bars = (shares, fill, up) => shares.map((share, i) => s("rect", {
    x: LEFT + i * width, width: width - 0.6, height: share * scale, y: up ? middle - share * scale : middle, fill,
  }));
  const above = (shares) => shares.slice(Math.ceil(shares.length / 2)).reduce((sum, share) => sum + share, 0);
  const label = `Scores of ${n[0]} melanomas and ${n[1]} other lesions; in the upper half of the scale lie ` +
    `${percent(above(melanomas))} of the melanomas and ${percent(above(others))} of the others`;
  return plot(
    {
      title: "share of each class by output", label, xlabel: "output (validation cases)", xs: [0, 0.5, 1].map((value) => [value, String(value)]),
      ys: [[0, percent(top)], [0.5, "0%"], [1, percent(top)]],
    },
    bars(melanomas, MELANOMA, true), bars(others, OTHER, false), curve([0.5, 0.5], [0, 1], EDGE, { "stroke-dasharray": "6 4" }),
    text(RIGHT, TOP + 14, `▲ ${n[0]} melanomas`, "end", { fill: MELANOMA_INK }), text(RIGHT, BOTTOM - 8, `● ${n[1]} others`, "end", { fill: OTHER_INK }),
  );
}

/** Large numbers with a name above and a remark below; each is [key, name, number in words, remark, number]. */
function numberList(numbers) {
  return numbers.map(([key, name, words, remark, value]) => h("div", { className: "mk-number", role: "listitem" },
    h("span", {}, name), h("strong", { dataset: { number: key, value } }, words), h("span", {}, remark)));
}

/**
 * Questions to a kernel that retrains, one at a time: it would otherwise answer a queue of values long left behind.
 * valuesNow gives what to ask; showBusy is told whether an answer is awaited. ask() after a move asks once the hand rests.
 */
function questions(model, valuesNow, showBusy) {
  let timer, asked = 0, moved = false, waiting = false;
  const send = () => {
    if (waiting || !moved) return;
    [moved, waiting, asked] = [false, true, model.get("answered") + 1]; // another view may have asked since
    model.set("request", { ...valuesNow(), number: asked });
    model.save_changes();
  };
  const ask = () => {
    moved = true;
    showBusy(true);
    clearTimeout(timer);
    timer = setTimeout(send, 120);
  };
  const stopWatching = watch(model, {
    answered: () => {
      waiting = waiting && model.get("answered") < asked;
      showBusy(moved || waiting);
      if (!waiting) send();
    },
  });
  const stop = () => {
    clearTimeout(timer);
    stopWatching();
  };
  return { ask, stop };
}
